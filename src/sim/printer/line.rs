//! The printer's end of the line: blocks in, checked, and responses that wait for
//! the host's acknowledgement. Follows the transmission control matrix of the maker's
//! *TCP300II Series Product Specifications Manual, Commands* (2005), pages 4 to 6.
//!
//! ```text
//!          STX            ETX            BCC right: a command
//! Idle ─────────► Block ───────► Check ──────────────────────► Idle
//!                   │ too long      │ BCC wrong
//!                   └─ DLE ► Idle   └─ NAK ► Idle
//! Unacknowledged: ACK ► Idle, NAK ► the response again, anything else is discarded
//! ```

const STX: u8 = 0x02;
const ETX: u8 = 0x03;
/// Received well.
pub const ACK: u8 = 0x06;
/// Refused.
pub const DLE: u8 = 0x10;
/// Send again.
pub const NAK: u8 = 0x15;
/// Data of a block at most (page 6).
const LONGEST: usize = 1024;

/// What a byte brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet.
    Nothing,
    /// Say this now.
    Say(Vec<u8>),
    /// A whole block: command and data.
    Command(u8, Vec<u8>),
    /// The host has the response.
    Acknowledged,
}

/// Where the line stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Line {
    /// Waits for a block.
    #[default]
    Idle,
    /// Inside a block: command to ETX.
    Block(Vec<u8>),
    /// The next byte is the check.
    Check(Vec<u8>),
    /// Sent this and waits for the acknowledgement.
    Unacknowledged(Vec<u8>),
}

impl Line {
    /// Takes a byte.
    pub fn hear(&mut self, byte: u8) -> Heard {
        match (std::mem::take(self), byte) {
            (Self::Idle, STX) => *self = Self::Block(Vec::new()),
            (Self::Idle, _) => {}
            (Self::Block(mut block), _) => {
                block.push(byte);
                if byte == ETX {
                    *self = Self::Check(block);
                } else if block.len() > LONGEST + 1 {
                    return Heard::Say(vec![DLE]);
                } else {
                    *self = Self::Block(block);
                }
            }
            (Self::Check(block), _) => {
                let right = block.iter().fold(0, |check, byte| check ^ byte) == byte;
                return match block.as_slice() {
                    [command, data @ .., ETX] if right => Heard::Command(*command, data.to_vec()),
                    _ if right => Heard::Say(vec![DLE]),
                    _ => Heard::Say(vec![NAK]),
                };
            }
            (Self::Unacknowledged(_), ACK) => return Heard::Acknowledged,
            (Self::Unacknowledged(response), NAK) => {
                *self = Self::Unacknowledged(response.clone());
                return Heard::Say(response);
            }
            (waiting @ Self::Unacknowledged(_), _) => *self = waiting,
        }
        Heard::Nothing
    }

    /// Sends a response and waits for its acknowledgement. Only when [`Line::Idle`].
    pub fn respond(&mut self, command: u8, status: u8, data: &[u8]) -> Vec<u8> {
        let inside = [&[command, status], data, &[ETX]].concat();
        let check = inside.iter().fold(0, |check, byte| check ^ byte);
        let response = [&[STX], inside.as_slice(), &[check]].concat();
        *self = Self::Unacknowledged(response.clone());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(line: &mut Line, bytes: &[u8]) -> Vec<Heard> {
        bytes.iter().map(|byte| line.hear(*byte)).filter(|heard| *heard != Heard::Nothing).collect()
    }

    #[test]
    fn blocks_of_the_manual_are_understood() {
        // TCP300 manual pages 22 and 52, TCP300II pages 24, 46 and 58.
        for (block, command) in [
            ([0x02, 0x40, 0x03, 0x43], 0x40),
            ([0x02, 0x49, 0x03, 0x4A], 0x49),
            ([0x02, 0x59, 0x03, 0x5A], 0x59),
            ([0x02, 0x54, 0x03, 0x57], 0x54),
            ([0x02, 0x58, 0x03, 0x5B], 0x58),
            ([0x02, 0x5F, 0x03, 0x5C], 0x5F),
        ] {
            assert_eq!(hear(&mut Line::Idle, &block), [Heard::Command(command, vec![])]);
        }
        assert_eq!(hear(&mut Line::Idle, &[0x02, 0x59, 0x03, 0x5B]), [Heard::Say(vec![NAK])]);
        assert_eq!(hear(&mut Line::Idle, b"noise\x06\x15"), []);
        let long = [&[0x02, 0x41][..], &[b'A'; 1025]].concat();
        assert_eq!(hear(&mut Line::Idle, &long), [Heard::Say(vec![DLE])]);
    }

    #[test]
    fn a_response_is_repeated_until_it_is_acknowledged() {
        let mut line = Line::Idle;
        let response = line.respond(0x59, 0x20, b"000000");
        assert_eq!(response, b"\x02\x59\x20000000\x03\x7A");
        assert_eq!(hear(&mut line, &[0x02, 0x40, 0x03, 0x43]), [], "discarded");
        assert_eq!(hear(&mut line, &[NAK]), [Heard::Say(response)]);
        assert_eq!(hear(&mut line, &[ACK]), [Heard::Acknowledged]);
        assert_eq!(line, Line::Idle);
    }
}
