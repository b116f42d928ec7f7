//! The lines of an slcan adapter (Lawicel CAN232 / CANUSB manuals; FD lines as the
//! CANable 2 firmware writes them). Pure: commands to bytes, bytes to what was said.

use crate::link::can::{BusTrouble, Frame, Heard, Id};

/// The longest line: `D`, ID, length, 64 bytes as hex, time stamp; with some room.
const LONGEST: usize = 160;
/// Ends a line.
const END: u8 = b'\r';
/// Says that a command failed.
const BELL: u8 = 0x07;

/// What may be said to the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// An empty line: ends whatever half a line it holds.
    Nothing,
    /// `C`: leave the bus.
    Close,
    /// `Sn`: the bus's bit rate.
    Rate(Rate),
    /// `O`: join the bus.
    Open,
    /// `L`: join it and send nothing, not even acknowledgements.
    Listen,
    /// `V`.
    Version,
    /// `N`.
    Serial,
    /// `F`: error flags.
    Flags,
    /// `t`, `T`, `d`, `D`: a frame.
    Send(Frame),
}

/// The bit rates that `S` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(u8);

impl Rate {
    /// In bits a second, in the order of `S0` to `S8`.
    const TABLE: [u32; 9] = [10_000, 20_000, 50_000, 100_000, 125_000, 250_000, 500_000, 800_000, 1_000_000];

    /// `None`: `S` does not know it.
    #[must_use]
    pub fn of(bits_a_second: u32) -> Option<Self> {
        let digit = Self::TABLE.iter().position(|rate| *rate == bits_a_second)?;
        u8::try_from(digit).ok().map(Self)
    }
}

impl Command {
    /// The bytes on the wire.
    #[must_use]
    pub fn wire(self) -> Vec<u8> {
        let mut line = match self {
            Self::Nothing => String::new(),
            Self::Close => "C".into(),
            Self::Rate(Rate(digit)) => format!("S{digit}"),
            Self::Open => "O".into(),
            Self::Listen => "L".into(),
            Self::Version => "V".into(),
            Self::Serial => "N".into(),
            Self::Flags => "F".into(),
            Self::Send(frame) => frame_line(&frame),
        };
        line.push(char::from(END));
        line.into_bytes()
    }
}

fn frame_line(frame: &Frame) -> String {
    let letter = match (frame.is_fd(), frame.id().is_extended()) {
        (false, false) => 't',
        (false, true) => 'T',
        (true, false) => 'd',
        (true, true) => 'D',
    };
    let length = length_code(frame.data().len());
    format!("{letter}{}{length:X}{}", frame.id(), hex::encode_upper(frame.data()))
}

/// CAN FD codes lengths above 8 with 9 to F (ISO 11898-1).
const FD_LENGTHS: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64];

fn length_code(bytes: usize) -> usize {
    FD_LENGTHS.iter().position(|length| *length >= bytes).unwrap_or(0x0F)
}

/// What the adapter said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// CR alone: done.
    Done,
    /// BEL: not done.
    Failed,
    /// `z`, `Z`: a frame is on its way.
    Sent,
    /// `V…`.
    Version(String),
    /// `N…`.
    Serial(String),
    /// `Fnn`.
    Flags(u8),
    /// A frame of the bus.
    Frame(Frame),
    /// A remote frame.
    Remote,
    /// Not slcan.
    Garbage,
}

impl Said {
    /// What it means for the bus; `None`: nothing.
    #[must_use]
    pub fn heard(&self) -> Option<Heard> {
        match self {
            Self::Frame(frame) => Some(Heard::Frame(*frame)),
            Self::Remote => Some(Heard::Other),
            Self::Flags(flags) => trouble(*flags).map(Heard::Trouble),
            _ => None,
        }
    }
}

/// The flags of `F` (CAN232 manual): 0 receive queue full, 1 transmit queue full, 2 warning,
/// 3 data overrun, 5 error-passive, 6 arbitration lost, 7 bus error.
fn trouble(flags: u8) -> Option<BusTrouble> {
    let bit = |number: u8| flags & 1 << number != 0;
    let trouble = BusTrouble {
        nonsense: bit(7),
        passive: bit(5),
        overrun: bit(3) || bit(0),
        unacknowledged: bit(1),
        ..BusTrouble::default()
    };
    (trouble != BusTrouble::default()).then_some(trouble)
}

/// Puts bytes together to lines; whatever comes, it holds at most one line.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    line: Vec<u8>,
    /// The line is longer than any; its rest is skipped.
    overlong: bool,
}

impl Lines {
    /// Takes bytes, gives what became complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Said> {
        let mut said = Vec::new();
        for byte in bytes {
            match *byte {
                END => said.push(self.end()),
                BELL => {
                    // It stands alone; what was before it is no line.
                    if !self.line.is_empty() || self.overlong {
                        self.clear();
                        said.push(Said::Garbage);
                    }
                    said.push(Said::Failed);
                }
                // Some firmwares end their lines with both, and some ports bring zeros when opened.
                b'\n' | 0 => {}
                byte if self.line.len() < LONGEST => self.line.push(byte),
                _ => self.overlong = true,
            }
        }
        said
    }

    /// Forgets half a line.
    pub fn clear(&mut self) {
        self.line.clear();
        self.overlong = false;
    }

    fn end(&mut self) -> Said {
        let said = if self.overlong { Said::Garbage } else { read(&self.line) };
        self.clear();
        said
    }
}

/// Reads a line without its end.
#[must_use]
pub fn read(line: &[u8]) -> Said {
    let Ok(text) = std::str::from_utf8(line) else { return Said::Garbage };
    let Some(letter) = text.chars().next() else { return Said::Done };
    let rest = text.get(letter.len_utf8()..).unwrap_or_default();
    match letter {
        'z' | 'Z' if rest.is_empty() => Said::Sent,
        // An adapter that holds frames back acknowledges and sends them in one line.
        'z' | 'Z' => read(rest.as_bytes()),
        'V' if is_word(rest) => Said::Version(rest.to_owned()),
        'N' if is_word(rest) => Said::Serial(rest.to_owned()),
        'F' if rest.len() == 2 => u8::from_str_radix(rest, 16).map_or(Said::Garbage, Said::Flags),
        't' | 'r' => frame(rest, 3, false, letter == 'r'),
        'T' | 'R' => frame(rest, 8, false, letter == 'R'),
        'd' | 'b' => frame(rest, 3, true, false),
        'D' | 'B' => frame(rest, 8, true, false),
        _ => Said::Garbage,
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

fn frame(text: &str, id_digits: usize, fd: bool, remote: bool) -> Said {
    read_frame(text, id_digits, fd, remote).unwrap_or(Said::Garbage)
}

fn read_frame(text: &str, id_digits: usize, fd: bool, remote: bool) -> Option<Said> {
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (id, rest) = text.split_at_checked(id_digits)?;
    let (length, rest) = rest.split_at_checked(1)?;
    let id = u32::from_str_radix(id, 16).ok()?;
    let code = usize::from_str_radix(length, 16).ok().filter(|code| fd || *code <= 8)?;
    let length = *FD_LENGTHS.get(code)?;
    let id = match id_digits {
        3 if id <= 0x7FF => Id::standard(id),
        8 if id <= 0x1FFF_FFFF => Id::extended(id),
        _ => return None,
    };
    if remote {
        return matches!(rest.len(), 0 | 4).then_some(Said::Remote);
    }
    let (digits, time) = rest.split_at_checked(length * 2)?;
    // `Z1`: milliseconds of the minute, four digits.
    if !matches!(time.len(), 0 | 4) {
        return None;
    }
    Frame::new(id, &hex::decode(digits).ok()?, fd).map(Said::Frame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(bytes: &[u8]) -> Vec<Said> {
        Lines::default().feed(bytes)
    }

    fn data(id: Id, bytes: &[u8]) -> Said {
        Said::Frame(Frame::new(id, bytes, bytes.len() > 8).unwrap())
    }

    #[test]
    fn lines_of_the_manual() {
        // Source: Lawicel CAN232 manual v3, the examples of `t`, `T`, `r`, `V`, `N`, `F`.
        for (line, expected) in [
            (&b"t10021133\r"[..], vec![data(Id::standard(0x100), &[0x11, 0x33])]),
            (b"T0000010021133\r", vec![data(Id::extended(0x100), &[0x11, 0x33])]),
            (b"t10021133ABCD\r", vec![data(Id::standard(0x100), &[0x11, 0x33])]),
            (b"r1002\r", vec![Said::Remote]),
            (b"R000001002\r", vec![Said::Remote]),
            (b"z\rZ\r", vec![Said::Sent, Said::Sent]),
            (b"V1013\r", vec![Said::Version("1013".into())]),
            (b"NA123\r", vec![Said::Serial("A123".into())]),
            (b"F80\r", vec![Said::Flags(0x80)]),
            (b"\r\x07", vec![Said::Done, Said::Failed]),
            (b"t1002\x07", vec![Said::Garbage, Said::Failed]),
            (
                b"d1239000102030405060708090A0B\r",
                vec![data(Id::standard(0x123), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])],
            ),
            (b"t8001FF\r", vec![Said::Garbage]),
            (b"t1009112233445566778899\r", vec![Said::Garbage]),
            (b"t1002113\r", vec![Said::Garbage]),
            (b"T2000000000\r", vec![Said::Garbage]),
            (b"hello\r", vec![Said::Garbage]),
        ] {
            assert_eq!(said(line), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn each_flag_says_what_the_manual_says() {
        // Source: Lawicel CAN232 manual v3, `F`. 2 warns, 6 lost an arbitration: neither is trouble.
        let trouble = BusTrouble::default();
        for (flags, expected) in [
            (0x00, None),
            (0x01, Some(BusTrouble { overrun: true, ..trouble })),
            (0x02, Some(BusTrouble { unacknowledged: true, ..trouble })),
            (0x04, None),
            (0x08, Some(BusTrouble { overrun: true, ..trouble })),
            (0x20, Some(BusTrouble { passive: true, ..trouble })),
            (0x40, None),
            (0x80, Some(BusTrouble { nonsense: true, ..trouble })),
            (0xA4, Some(BusTrouble { nonsense: true, passive: true, ..trouble })),
        ] {
            let line = format!("F{flags:02X}\r");
            let told: Vec<_> = said(line.as_bytes()).iter().map(Said::heard).collect();
            assert_eq!(told, [expected.map(Heard::Trouble)], "{line}");
        }
    }

    /// The same lines as others write and read them.
    #[test]
    fn lines_of_public_works() {
        // Sources: Linux drivers/net/can/slcan (the examples of its frame format), python-can's
        // tests of its slcan interface (remote frames, a line in pieces).
        let (short, long) = (Id::standard(0x456), Id::extended(0x12AB_CDEF));
        for (line, id, bytes) in [
            ("t1230\r", Id::standard(0x123), &[][..]),
            ("t4563112233\r", short, &[0x11, 0x22, 0x33]),
            ("T12ABCDEF2AA55\r", long, &[0xAA, 0x55]),
        ] {
            assert_eq!(said(line.as_bytes()), [data(id, bytes)], "{line}");
            let frame = Frame::new(id, bytes, false).unwrap();
            assert_eq!(Command::Send(frame).wire(), line.as_bytes());
        }
        for line in ["r1230\r", "r1238\r", "R12ABCDEF6\r"] {
            assert_eq!(said(line.as_bytes()), [Said::Remote], "{line}");
        }
        let mut lines = Lines::default();
        let heard =
            ["T12ABCDEF", "2AA55\rT12", "ABCDEF2AA55\r"].map(|piece| lines.feed(piece.as_bytes()).len());
        assert_eq!(heard, [0, 1, 1]);
    }

    #[test]
    fn commands_as_the_manual_writes_them() {
        let frame = |id, bytes: &[u8]| Command::Send(Frame::new(id, bytes, false).unwrap());
        for (command, wire) in [
            (Command::Rate(Rate::of(500_000).unwrap()), "S6\r"),
            (Command::Rate(Rate::of(250_000).unwrap()), "S5\r"),
            (Command::Open, "O\r"),
            (Command::Listen, "L\r"),
            (Command::Close, "C\r"),
            (Command::Nothing, "\r"),
            (frame(Id::standard(0x7DF), &[2, 1, 0]), "t7DF3020100\r"),
            (frame(Id::extended(0x18DB_33F1), &[2, 1, 0]), "T18DB33F13020100\r"),
        ] {
            assert_eq!(command.wire(), wire.as_bytes());
        }
        assert_eq!(Rate::of(83_333), None);
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn frames_survive_any_split_between_garbage(
            frames in proptest::collection::vec((0_u32..0x2000_0000, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..9)), 1..20),
            garbage in "[^\r\x07\0\n]{0,300}",
            cuts in proptest::collection::vec(1_usize..40, 1..100),
        ) {
            let frames: Vec<Frame> = frames.iter().map(|(id, wide, data)| {
                let id = if *wide { Id::extended(*id) } else { Id::standard(*id) };
                Frame::new(id, data, false).unwrap()
            }).collect();
            let mut wire = format!("!{garbage}\r").into_bytes();
            wire.extend(frames.iter().flat_map(|frame| Command::Send(*frame).wire()));
            let (mut lines, mut found, mut rest) = (Lines::default(), Vec::new(), wire.as_slice());
            for cut in cuts.into_iter().cycle() {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                found.extend(lines.feed(now));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found.remove(0), Said::Garbage);
            let found: Vec<Frame> = found.iter().filter_map(|said| match said {
                Said::Frame(frame) => Some(*frame),
                _ => None,
            }).collect();
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut lines = Lines::default();
            for said in lines.feed(&bytes) {
                let _ = said.heard();
            }
            prop_assert!(lines.line.len() <= LONGEST);
        }
    }
}
