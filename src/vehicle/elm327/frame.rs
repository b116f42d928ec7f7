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

    /// Each older bus by two works that know nothing of each other, and of the data sheet above.
    #[test]
    fn lines_of_public_works() {
        use Protocol as P;
        // Sources: L: LTSupportAutomotive, examples in its decoders of each protocol; P: comma.ai panda,
        // test of its Wi-Fi ELM327; M: libelm (I. M. Thomas), a line of its log; O: notes of an Opel's
        // start of communication; S: a public capture of a Subaru's control unit, whose header has
        // the length in a byte of its own; G: notes of a Land Rover's (GEMS), likewise.
        for (work, digits, protocol, sender, data) in [
            ("L", "416B104100B87B30109E", P::J1850Pwm, "10", "4100B87B3010"),
            ("L", "416B17410080008003C9", P::J1850Pwm, "17", "410080008003"),
            ("M", "416B104100BF9FB99005", P::J1850Pwm, "10", "4100BF9FB990"),
            ("L", "486B104100B87B3010F4", P::J1850Vpw, "10", "4100B87B3010"),
            ("L", "486B1049020532333435A8", P::J1850Vpw, "10", "49020532333435"),
            ("L", "486B104100B87B301077", P::Iso9141, "10", "4100B87B3010"),
            ("L", "486B1049020532333435E1", P::Iso9141, "10", "49020532333435"),
            ("L", "86F1104100B87B30103B", P::KwpSlow, "10", "4100B87B3010"),
            ("L", "83F1177F01121D", P::KwpSlow, "17", "7F0112"),
            ("P", "86F1104100FFFFFFFEC3", P::KwpFast, "10", "4100FFFFFFFE"),
            ("P", "87F11049020533343536AA", P::KwpFast, "10", "49020533343536"),
            ("O", "83F111C1EF8FC4", P::KwpFast, "11", "C1EF8F"),
            ("S", "80F01003C1EF8FC2", P::KwpFast, "10", "C1EF8F"),
            ("S", "80F01007C30000FF00FF0048", P::KwpFast, "10", "C30000FF00FF00"),
            ("G", "80F110017E00", P::KwpSlow, "10", "7E"),
        ] {
            assert_eq!(
                parse(digits, protocol),
                Ok(frame(sender, &hex::decode(data).unwrap())),
                "{work} {digits}"
            );
            let mut bytes = hex::decode(digits).unwrap();
            *bytes.last_mut().unwrap() ^= 0x10;
            let spoilt = parse(&hex::encode_upper(bytes), protocol);
            assert!(matches!(spoilt, Err(FrameError::Checksum { .. })), "{digits}: {spoilt:?}");
        }
        // The byte of its own must be right too; the sum is.
        let short = Err(FrameError::Length { told: 4, found: 3 });
        assert_eq!(parse("80F01004C1EF8FC3", P::KwpFast), short);
        assert_eq!(parse("80F01080", P::KwpFast), Err(FrameError::Half(8)), "no length at all");
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
