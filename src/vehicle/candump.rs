//! Lines of a candump log (`candump -l`, can-utils):
//! `(1436509052.249713) can0 044#2A366C2BBA`, `##` and a flags digit for CAN FD.
//! Pure.

/// Marks an error frame in an ID of 8 digits (linux/can.h, `CAN_ERR_FLAG`).
const ERROR_FRAME: u32 = 0x2000_0000;

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// Seconds since 1970, as written.
    pub time: &'a str,
    /// Interface.
    pub interface: &'a str,
    /// What was on the bus.
    pub frame: Frame,
}

/// What a line shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A data frame.
    Data {
        /// Arbitration ID.
        id: u32,
        /// 29 bits.
        extended: bool,
        /// CAN FD.
        fd: bool,
        /// Its data.
        data: Data,
    },
    /// A remote frame: asks, holds nothing.
    Remote,
    /// An error frame of the controller.
    Error,
}

/// Up to 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    bytes: [u8; 64],
    length: usize,
}

impl Data {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Reads one line; `None` when it is none.
#[must_use]
pub fn parse(line: &str) -> Option<Line<'_>> {
    let (time, rest) = line.trim().strip_prefix('(')?.split_once(')')?;
    let mut words = rest.split_ascii_whitespace();
    let (interface, frame) = (words.next()?, words.next()?);
    Some(Line { time: seconds(time)?, interface, frame: parse_frame(frame)? })
}

/// Digits with one point: a JSON number as it stands.
fn seconds(text: &str) -> Option<&str> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    (digits(whole) && digits(fraction) && !leading_zero).then_some(text)
}

fn parse_frame(text: &str) -> Option<Frame> {
    let (id_digits, rest) = text.split_once('#')?;
    if !matches!(id_digits.len(), 3 | 8) || !id_digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let extended = id_digits.len() == 8;
    let id = u32::from_str_radix(id_digits, 16).ok()?;
    if extended && id & ERROR_FRAME != 0 {
        return Some(Frame::Error);
    }
    if id > if extended { 0x1FFF_FFFF } else { 0x7FF } {
        return None;
    }
    let (fd, digits) = match rest.strip_prefix('#') {
        Some(flags_and_data) => (true, flags_and_data.get(1..)?),
        None => (false, rest),
    };
    if !fd && digits.starts_with('R') {
        return Some(Frame::Remote);
    }
    // Behind `_` stands the raw length code of a classic frame.
    let digits = digits.split_once('_').map_or(digits, |(data, _)| data);
    let data = parse_data(digits, if fd { 64 } else { 8 })?;
    Some(Frame::Data { id, extended, fd, data })
}

fn parse_data(digits: &str, most: usize) -> Option<Data> {
    let mut data = Data { bytes: [0; 64], length: digits.len() / 2 };
    if !digits.len().is_multiple_of(2) || data.length > most {
        return None;
    }
    for (byte, pair) in data.bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(data)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &str) -> Option<(u32, bool, bool, Vec<u8>)> {
        match parse(text)?.frame {
            Frame::Data { id, extended, fd, data } => Some((id, extended, fd, data.as_bytes().to_vec())),
            _ => None,
        }
    }

    /// The first line is of can-utils' manual page; the others vary it.
    #[test]
    fn lines_are_read() {
        let line = "(1436509052.249713) vcan0 044#2A366C2BBA";
        assert_eq!(data(line), Some((0x44, false, false, vec![0x2A, 0x36, 0x6C, 0x2B, 0xBA])));
        assert_eq!(parse(line).map(|line| (line.time, line.interface)), Some(("1436509052.249713", "vcan0")));
        assert_eq!(data("(0.5) c 18FEF100#"), Some((0x18FE_F100, true, false, vec![])));
        assert_eq!(data("(0.5) c 123##0A1B0 R"), Some((0x123, false, true, vec![0xA1, 0xB0])));
        assert_eq!(data("(0.5) c 123#1122334455667788_F").map(|found| found.3.len()), Some(8));
        assert_eq!(parse("(0.5) c 123#R8").map(|line| line.frame), Some(Frame::Remote));
        assert_eq!(parse("(0.5) c 20000004#0000000000000000").map(|line| line.frame), Some(Frame::Error));
    }

    #[test]
    fn what_is_no_line_is_none() {
        for line in [
            "",
            "(1.0) can0",
            "(x) can0 044#00",
            "(1.0) can0 44#00",
            "(1.0) can0 800#00",
            "(1.0) can0 044#0",
            "(1.0) can0 044#0G",
            "(1.0) can0 044#112233445566778899",
            "(1.0) can0 044##",
            "(1.) can0 044#",
            "(1.0) can0 +44#00",
            "can0 044#00",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
