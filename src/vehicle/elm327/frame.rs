//! One data line with its header to one frame with its sender. Pure. Needs the
//! bus's header form, which the adapter's protocol number gives.

use crate::vehicle::protocol::{EcuAddress, HeaderForm, Protocol};

/// One frame as printed by the adapter with headers on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Who sent it.
    pub sender: EcuAddress,
    /// What follows the header; on CAN with the ISO-TP control bytes, elsewhere without the checksum.
    pub data: Vec<u8>,
}

/// A data line that is no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Too short for a header and one byte, or half a byte at the end.
    #[error("half a frame ({0} digits)")]
    Half(usize),
    /// The checksum of an older bus is wrong.
    #[error("checksum {found:02X} where {computed:02X} was expected")]
    Checksum {
        /// As received.
        found: u8,
        /// As computed.
        computed: u8,
    },
    /// A KWP header tells another length.
    #[error("header says {told} byte(s), {found} came")]
    Length {
        /// By the header.
        told: usize,
        /// As received.
        found: usize,
    },
}

/// Reads a line of hex digits (no spaces) as a frame.
///
/// # Errors
/// [`FrameError`] saying what does not fit.
pub fn parse(digits: &str, protocol: Protocol) -> Result<Frame, FrameError> {
    let half = || FrameError::Half(digits.len());
    match protocol.header() {
        HeaderForm::Can11 => can(digits, 3, half),
        HeaderForm::Can29 => can(digits, 8, half),
        HeaderForm::ThreeBytes { crc } => {
            let bytes = hex::decode(digits).map_err(|_| half())?;
            let kwp = matches!(protocol, Protocol::KwpSlow | Protocol::KwpFast);
            three_bytes(&bytes, crc, kwp).map_err(|error| error.unwrap_or_else(half))
        }
    }
}

fn can(digits: &str, id_digits: usize, half: impl Fn() -> FrameError) -> Result<Frame, FrameError> {
    let (id, data) = digits.split_at_checked(id_digits).ok_or_else(&half)?;
    // 29 bits, normal fixed addressing (ISO 15765-2 §8.4): priority, DA, target, source.
    if id_digits == 8 && id.get(2..4) != Some("DA") {
        return Err(half());
    }
    let data = hex::decode(data).map_err(|_| half())?;
    // A classic frame has at most 8 data bytes; more is two lines run together.
    if data.is_empty() || data.len() > 8 {
        return Err(half());
    }
    Ok(Frame { sender: EcuAddress(id.to_ascii_uppercase()), data })
}

fn three_bytes(bytes: &[u8], crc: bool, kwp: bool) -> Result<Frame, Option<FrameError>> {
    let (&found, covered) = bytes.split_last().ok_or(None)?;
    let computed =
        if crc { crc8_j1850(covered) } else { covered.iter().fold(0, |sum: u8, b| sum.wrapping_add(*b)) };
    if found != computed {
        return Err(Some(FrameError::Checksum { found, computed }));
    }
    let [format, _target, source, data @ ..] = covered else { return Err(None) };
    let mut data = data;
    if kwp {
        // ISO 14230-2: the low six bits are the length; zero: one more byte holds it.
        let mut told = usize::from(format & 0x3F);
        if told == 0 {
            let (&length, rest) = data.split_first().ok_or(None)?;
            (told, data) = (usize::from(length), rest);
        }
        if told != data.len() {
            return Err(Some(FrameError::Length { told, found: data.len() }));
        }
    }
    if data.is_empty() {
        return Err(None);
    }
    Ok(Frame { sender: EcuAddress(format!("{source:02X}")), data: data.to_vec() })
}

/// SAE J1850 CRC: polynomial 0x1D, preset FF, inverted.
fn crc8_j1850(bytes: &[u8]) -> u8 {
    !bytes.iter().fold(0xFF, |crc: u8, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { (crc << 1) ^ 0x1D })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(sender: &str, data: &[u8]) -> Frame {
        Frame { sender: EcuAddress(sender.into()), data: data.to_vec() }
    }

    #[test]
    fn lines_with_headers() {
        use Protocol as P;
        // Source: ELM327 data sheet "Interpreting Trouble Codes", "Responses"; the KWP line with its checksum too.
        for (name, digits, protocol, expected) in [
            (
                "11-bit",
                "7E8064100BE7FB813",
                P::Can11At500,
                Ok(frame("7E8", &[0x06, 0x41, 0x00, 0xBE, 0x7F, 0xB8, 0x13])),
            ),
            (
                "29-bit",
                "18DAF110064100BE7FB813",
                P::Can29At500,
                Ok(frame("18DAF110", &[0x06, 0x41, 0x00, 0xBE, 0x7F, 0xB8, 0x13])),
            ),
            (
                "KWP",
                "86F1104100BE3EF811CD",
                P::KwpFast,
                Ok(frame("10", &[0x41, 0x00, 0xBE, 0x3E, 0xF8, 0x11])),
            ),
            (
                "J1850 with CRC",
                "486B104100BE3EB811FA",
                P::J1850Vpw,
                Ok(frame("10", &[0x41, 0x00, 0xBE, 0x3E, 0xB8, 0x11])),
            ),
            (
                "ISO 9141 with sum",
                "486B104100BE3EB811C9",
                P::Iso9141,
                Ok(frame("10", &[0x41, 0x00, 0xBE, 0x3E, 0xB8, 0x11])),
            ),
            (
                "KWP, bit flipped",
                "86F1104100BE3EF811CC",
                P::KwpFast,
                Err(FrameError::Checksum { found: 0xCC, computed: 0xCD }),
            ),
            ("KWP, length", "82F1104100BE82", P::KwpFast, Err(FrameError::Length { told: 2, found: 3 })),
            ("half a byte", "7E80641F", P::Can11At500, Err(FrameError::Half(8))),
            ("id only", "7E8", P::Can11At500, Err(FrameError::Half(3))),
            ("two lines in one", "7E8064100BE7FB813AA7E9064100", P::Can11At500, Err(FrameError::Half(28))),
        ] {
            assert_eq!(parse(digits, protocol), expected, "{name}");
        }
    }

    #[test]
    fn j1850_crc() {
        // Source: CRC-8/SAE-J1850 check value of "123456789" (reveng catalogue).
        assert_eq!(crc8_j1850(b"123456789"), 0x4B);
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn never_panics(digits in "[0-9A-F]{0,40}", number in 1_u8..10) {
            let protocol = Protocol::from_number(&number.to_string()).unwrap();
            let _ = parse(&digits, protocol);
            let _ = Protocol::guess(&digits);
        }
    }
}
