//! What the printer reports: the status byte of every response and the sensors
//! of command 59 (TCP300II manual p. 11, TCP300 manual p. 52).

use std::fmt;

use crate::event::Text;

/// The status byte of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

impl Status {
    /// 20: no error.
    pub const NORMAL: Self = Self(0x20);
    /// 40: the cover or the transport path is open.
    pub const COVER_OPEN: Self = Self(0x40);

    /// 41: the firmware does not know the command.
    pub const INVALID_COMMAND: Self = Self(0x41);

    /// Stable code for `device.state`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self.0 {
            0x20 => "ready",
            0x22 => "no-card",
            0x23 => "card-unusable",
            0x38 => "card-jam",
            0x40 => "cover-open",
            0x42 => "motor-fault",
            0x43 => "erase-head-fault",
            0x45 => "memory-fault",
            _ => "printer-error",
        }
    }

    /// Whether only repair helps (the manual's rank A).
    #[must_use]
    pub fn needs_repair(self) -> bool {
        matches!(self.0, 0x42 | 0x43 | 0x45)
    }

    /// For people: what it is and what to do. Codes the manual does not list are shown raw.
    #[must_use]
    pub fn text(self) -> Text {
        match self.0 {
            0x20 => Text::new("打印机就绪", "the printer is ready"),
            0x22 => Text::new("打印机内没有卡，请插入卡片", "there is no card in the printer: insert it"),
            0x23 => Text::new(
                "卡片插反或无法使用，请取出后正面插入",
                "the card is the wrong way round or unusable: take it out and insert it again",
            ),
            0x31..=0x34 | 0x37 => Text::new(
                format!("磁条错误（状态 {:02X}），请清洁打印机或换卡", self.0),
                format!(
                    "magnetic stripe error (status {:02X}): clean the printer or change the card",
                    self.0
                ),
            ),
            0x38 => {
                Text::new("卡片卡住，请打开上盖取出", "the card is jammed: open the cover and take it out")
            }
            0x40 => Text::new("打印机上盖已打开，请合上", "the printer's cover is open: close it"),
            0x41 | 0x4C | 0x51 => Text::new(
                format!("打印机不接受数据（状态 {:02X}），请核对打印机型号", self.0),
                format!("the printer does not accept the data (status {:02X}): check its model", self.0),
            ),
            0x42 => {
                Text::new("打印机凸轮电机故障，请送修", "the printer's cam motor is faulty: have it repaired")
            }
            0x43 => Text::new(
                "擦除头温度异常，请关机冷却，再次出现请送修",
                "the erase head's temperature is wrong: switch off and let it cool, then have it repaired",
            ),
            0x45 => Text::new("打印机存储器故障，请送修", "the printer's memory is faulty: have it repaired"),
            code => Text::new(
                format!("打印机报告未知状态 {code:02X}，请查阅打印机手册"),
                format!(
                    "the printer reports status {code:02X}, which is not in its manual: look at the printer"
                ),
            ),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X}", self.0)
    }
}

/// Where a card is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// Nowhere.
    None,
    /// In the inlet or inside, to be printed.
    Present,
    /// Printed; waits to be pulled out.
    Leaving,
}

/// The sensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sensors {
    /// Where a card is.
    pub card: Card,
    /// Whether the cover is open.
    pub cover_open: bool,
}

impl Sensors {
    /// Reads the data of a status response: characters `S1 S2 S3 S4 COVER 0 [DISPENSER]`.
    /// `None`: it has another form.
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        let [inlet, inside @ .., cover] = data.get(..5)? else { return None };
        let card = match inlet {
            b'0' if inside.contains(&b'1') => Card::Present,
            b'0' => Card::None,
            b'1' => Card::Present,
            b'2' => Card::Leaving,
            _ => return None,
        };
        let well_formed = inside.iter().chain([cover]).all(|c| matches!(c, b'0' | b'1'));
        well_formed.then_some(Self { card, cover_open: *cover == b'1' })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensors() {
        for (data, expected) in [
            (&b"000000"[..], Some((Card::None, false))),
            (b"0000001", Some((Card::None, false))),
            (b"1000000", Some((Card::Present, false))),
            (b"0010000", Some((Card::Present, false))),
            (b"2100000", Some((Card::Leaving, false))),
            (b"000010", Some((Card::None, true))),
            (b"0000", None),
            (b"3000000", None),
            (b"00x0000", None),
            (b"", None),
        ] {
            let read = Sensors::read(data).map(|sensors| (sensors.card, sensors.cover_open));
            assert_eq!(read, expected, "{}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn unknown_codes_are_shown_raw() {
        assert!(Status(0x7E).text().en.contains("7E") && Status(0x7E).text().zh.contains("7E"));
        assert_eq!(Status(0x7E).reason(), "printer-error");
    }
}
