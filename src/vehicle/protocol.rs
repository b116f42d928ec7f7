//! The buses a car may speak, and who speaks on them. What lives here: names,
//! numbers and header forms of the protocols, the address of a control unit.
//! What does not: reading lines or frames (the drivers do).

use std::fmt;

/// A bus protocol, by the number `AT DPN` gives (ELM327 data sheet, `AT SP`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// 1: SAE J1850 PWM, 41.6 kbit/s.
    J1850Pwm,
    /// 2: SAE J1850 VPW, 10.4 kbit/s.
    J1850Vpw,
    /// 3: ISO 9141-2.
    Iso9141,
    /// 4: ISO 14230-4, 5-baud start.
    KwpSlow,
    /// 5: ISO 14230-4, fast start.
    KwpFast,
    /// 6: ISO 15765-4, 11-bit, 500 kbit/s.
    Can11At500,
    /// 7: ISO 15765-4, 29-bit, 500 kbit/s.
    Can29At500,
    /// 8: ISO 15765-4, 11-bit, 250 kbit/s.
    Can11At250,
    /// 9: ISO 15765-4, 29-bit, 250 kbit/s.
    Can29At250,
    /// 10: SAE J1939, 29-bit, 250 or 500 kbit/s. Heard on a bus without an adapter; an ELM327
    /// is not made to speak it.
    J1939,
}

/// How a line's header is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderForm {
    /// Three hex digits of an 11-bit CAN id.
    Can11,
    /// Eight hex digits of a 29-bit CAN id.
    Can29,
    /// Three bytes (priority or format, target, source) and a checksum at the end.
    ThreeBytes {
        /// J1850's CRC instead of the sum.
        crc: bool,
    },
}

impl Protocol {
    /// From the answer to `AT DPN`: a digit, with `A` in front when found by search.
    #[must_use]
    pub fn from_number(text: &str) -> Option<Self> {
        let text = text.trim();
        let digit = text.strip_prefix(['A', 'a']).filter(|rest| !rest.is_empty()).unwrap_or(text);
        Some(match digit {
            "1" => Self::J1850Pwm,
            "2" => Self::J1850Vpw,
            "3" => Self::Iso9141,
            "4" => Self::KwpSlow,
            "5" => Self::KwpFast,
            "6" => Self::Can11At500,
            "7" => Self::Can29At500,
            "8" => Self::Can11At250,
            "9" => Self::Can29At250,
            _ => return None,
        })
    }

    /// The number of `AT SP`.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::J1850Pwm => 1,
            Self::J1850Vpw => 2,
            Self::Iso9141 => 3,
            Self::KwpSlow => 4,
            Self::KwpFast => 5,
            Self::Can11At500 => 6,
            Self::Can29At500 => 7,
            Self::Can11At250 => 8,
            Self::Can29At250 => 9,
            Self::J1939 => 10,
        }
    }

    /// For adapters that do not tell: from the form of an answer to 0100.
    #[must_use]
    pub fn guess(line: &str) -> Option<Self> {
        match line.len() {
            _ if line.starts_with("18DAF1") => Some(Self::Can29At500),
            // Three digits and whole bytes make an odd number.
            7..=19 if line.len() % 2 == 1 => Some(Self::Can11At500),
            10.. if line.starts_with("486B") => Some(Self::Iso9141),
            10.. if line.get(2..4) == Some("F1") => Some(Self::KwpFast),
            _ => None,
        }
    }

    /// The contract's name (§5).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::J1850Pwm => "j1850-pwm",
            Self::J1850Vpw => "j1850-vpw",
            Self::Iso9141 => "iso9141-2",
            Self::KwpSlow => "iso14230-4-slow",
            Self::KwpFast => "iso14230-4-fast",
            Self::Can11At500 => "iso15765-4-11bit-500k",
            Self::Can29At500 => "iso15765-4-29bit-500k",
            Self::Can11At250 => "iso15765-4-11bit-250k",
            Self::Can29At250 => "iso15765-4-29bit-250k",
            Self::J1939 => "j1939",
        }
    }

    /// How its lines begin.
    #[must_use]
    pub fn header(self) -> HeaderForm {
        match self {
            Self::J1850Pwm | Self::J1850Vpw => HeaderForm::ThreeBytes { crc: true },
            Self::Iso9141 | Self::KwpSlow | Self::KwpFast => HeaderForm::ThreeBytes { crc: false },
            Self::Can11At500 | Self::Can11At250 => HeaderForm::Can11,
            Self::Can29At500 | Self::Can29At250 | Self::J1939 => HeaderForm::Can29,
        }
    }

    /// Whether messages longer than a frame are ISO 15765-2, and code lists carry a count.
    #[must_use]
    pub fn is_can(self) -> bool {
        matches!(self.header(), HeaderForm::Can11 | HeaderForm::Can29)
    }
}

/// Who answered: the response id on CAN (`7E8`, `18DAF110`), the source byte elsewhere (`10`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EcuAddress(pub String);

impl fmt::Display for EcuAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_numbers_and_guesses() {
        for (text, expected) in [
            ("A6", Some(Protocol::Can11At500)),
            ("6", Some(Protocol::Can11At500)),
            ("A3", Some(Protocol::Iso9141)),
            ("9", Some(Protocol::Can29At250)),
            ("A0", None),
            ("0", None),
            ("A", None),
            ("?", None),
        ] {
            assert_eq!(Protocol::from_number(text), expected, "{text}");
        }
        for (line, expected) in [
            ("7E8064100BE7FB813", Some(Protocol::Can11At500)),
            ("18DAF110064100BE7FB813", Some(Protocol::Can29At500)),
            ("86F1104100BE3EF811CD", Some(Protocol::KwpFast)),
            ("486B104100BE3EB811FA", Some(Protocol::Iso9141)),
            ("4100BE3EB811", None),
        ] {
            assert_eq!(Protocol::guess(line), expected, "{line}");
        }
    }
}
