//! Requests written as text: what an operator, a script or a data file may name. What lives
//! here: which services may be written at all, with how many bytes, and what is said of the others.

use super::{MOST_PARAMETERS, Request};
use crate::vehicle::gate::Target;

/// What the gate refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not hexadecimal.
    #[error("{0:?} is not a request; write service and PID in hex, like 010C")]
    NotHex(String),
    /// A service that is not read-only, or not known.
    #[error(
        "service {service:02X} is not on the read-only list (01, 02, 03, 05, 06, 07, 09, 0A, 19, 21, 22) and is never sent to a car"
    )]
    Service {
        /// The service asked for.
        service: u8,
    },
    /// A read-only service with the wrong number of bytes.
    #[error("service {service:02X} takes {expected:?} byte(s) after it; write it like {example}")]
    Length {
        /// The service asked for.
        service: u8,
        /// How many bytes may follow.
        expected: &'static [usize],
        /// A well-formed request.
        example: &'static str,
    },
}

impl Request {
    /// From hex such as `010C`; spaces are allowed.
    ///
    /// # Errors
    /// [`Refused`] when it is not one of the read-only requests.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let digits: String = text.chars().filter(|c| *c != ' ').collect();
        let bytes = hex::decode(&digits).map_err(|_| Refused::NotHex(text.to_owned()))?;
        let (&service, parameters) = bytes.split_first().ok_or_else(|| Refused::NotHex(text.to_owned()))?;
        let (expected, example): (&[usize], _) = match (service, parameters) {
            (0x01, _) => (&[1, 2, 3, 4, 5, 6], "010C"),
            (0x02, _) => (&[2], "020C00"),
            (0x03, _) => (&[0], "03"),
            (0x05, _) => (&[2], "050101"),
            (0x06, _) => (&[1], "0601"),
            (0x07, _) => (&[0], "07"),
            (0x09, _) => (&[1], "0902"),
            (0x0A, _) => (&[0], "0A"),
            (0x19, [0x02, ..]) => (&[2], "1902FF"),
            (0x19, [0x04 | 0x06, ..]) => (&[5], "1904123456FF"),
            (0x19, [0x0A, ..]) => (&[1], "190A"),
            (0x19, [0x42, ..]) => (&[4], "194233FF1E"),
            (0x19, [0x55, ..]) => (&[2], "195533"),
            (0x19, [0x56, ..]) => (&[3], "19563301"),
            (0x21, _) => (&[1], "2101"),
            (0x22, _) => (&[2], "22F190"),
            _ => return Err(Refused::Service { service }),
        };
        let mut room = [0; MOST_PARAMETERS];
        match room.get_mut(..parameters.len()) {
            Some(taken) if expected.contains(&parameters.len()) => taken.copy_from_slice(parameters),
            _ => return Err(Refused::Length { service, expected, example }),
        }
        let parameter_count = parameters.len();
        Ok(Self { service, parameters: room, parameter_count, target: Target::Functional, wait_steps: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_read_only_services_pass() {
        for (text, passes) in [
            ("010C", true),
            ("01 0c", true),
            ("020200", true),
            ("03", true),
            ("0601", true),
            ("07", true),
            ("0902", true),
            ("01 0C 0D 05 0B 0F 11", true),
            ("010C0D050B0F1104", false),
            ("22F190", true),
            ("22F190F18C", false),
            ("1902FF", true),
            ("1906123456FF", true),
            ("1901FF", false),
            ("19", false),
            ("2101", true),
            ("0A", true),
            ("04", false),
            ("0400", false),
            ("080100", false),
            ("14FFFFFF", false),
            ("2EF190", false),
            ("3101", false),
            ("1101", false),
            ("01", false),
            ("0300", false),
            ("", false),
            ("ATZ", false),
            ("01\r04", false),
        ] {
            assert_eq!(Request::parse(text).is_ok(), passes, "{text:?}");
        }
        // No service byte outside the list passes with any number of bytes.
        for service in 0..=0xFF_u8 {
            let listed = [1, 2, 3, 5, 6, 7, 9, 0x0A, 0x21, 0x22].contains(&service);
            let any = (0..4).any(|n| Request::parse(&format!("{service:02X}{}", "00".repeat(n))).is_ok());
            assert_eq!(any, listed, "{service:02X}");
        }
    }
}
