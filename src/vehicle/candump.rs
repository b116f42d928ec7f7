//! Lines of a candump log (`candump -l`, can-utils):
//! `(1436509052.249713) can0 044#2A366C2BBA`, `##` and a flags digit for CAN FD.
//! Pure.

/// Marks an error frame in an ID of 8 digits (linux/can.h, `CAN_ERR_FLAG`).
const ERROR_FRAME: u32 = 0x2000_0000;

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// Seconds since 1970, as written: digits with at most one point.
    pub time: &'a [u8],
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
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let (time, rest) = seconds(line.trim_ascii().strip_prefix(b"(")?)?;
    let (interface, rest) = word(rest.strip_prefix(b")")?)?;
    let (frame, _) = word(rest)?;
    Some(Line { time, interface: std::str::from_utf8(interface).ok()?, frame: parse_frame(frame)? })
}

/// What stands before and behind the first of these bytes.
fn cut(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|&byte| byte == at)?;
    Some((bytes.get(..place)?, bytes.get(place + 1..)?))
}

/// The first word, and what stands behind it.
fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = bytes.trim_ascii_start();
    let end = bytes.iter().position(u8::is_ascii_whitespace).unwrap_or(bytes.len());
    bytes.split_at_checked(end).filter(|(word, _)| !word.is_empty())
}

/// Digits with at most one point, a JSON number as it stands but for zeros in front (`candump -l`
/// pads to ten digits), and what stands behind them.
fn seconds(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let padding = bytes.iter().take_while(|byte| **byte == b'0').count();
    let padding = padding.min(digits(bytes).saturating_sub(1));
    let bytes = bytes.get(padding..)?;
    let whole = digits(bytes);
    let (_, behind) = bytes.split_at_checked(whole).filter(|_| whole > 0)?;
    let end = match behind.strip_prefix(b".") {
        None => whole,
        Some(fraction) => Some(digits(fraction)).filter(|&count| count > 0)? + whole + 1,
    };
    bytes.split_at_checked(end)
}

fn parse_frame(text: &[u8]) -> Option<Frame> {
    let (id_digits, rest) = cut(text, b'#')?;
    if !matches!(id_digits.len(), 3 | 8) {
        return None;
    }
    let extended = id_digits.len() == 8;
    let (id, seen) = id_digits.iter().fold((0, 0), |(id, seen), &digit| {
        let nibble = nibble(digit);
        (id << 4 | u32::from(nibble), seen | nibble)
    });
    if seen >= NO_DIGIT {
        return None;
    }
    if extended && id & ERROR_FRAME != 0 {
        return Some(Frame::Error);
    }
    if id > if extended { 0x1FFF_FFFF } else { 0x7FF } {
        return None;
    }
    let (fd, digits) = match rest.strip_prefix(b"#") {
        Some(flags_and_data) => (true, flags_and_data.get(1..)?),
        None => (false, rest),
    };
    if !fd && digits.starts_with(b"R") {
        return Some(Frame::Remote);
    }
    // Behind `_` stands the raw length code of a classic frame.
    let digits = cut(digits, b'_').map_or(digits, |(data, _)| data);
    let data = parse_data(digits, if fd { 64 } else { 8 })?;
    Some(Frame::Data { id, extended, fd, data })
}

fn parse_data(digits: &[u8], most: usize) -> Option<Data> {
    let mut data = Data { bytes: [0; 64], length: digits.len() / 2 };
    if !digits.len().is_multiple_of(2) || data.length > most {
        return None;
    }
    let mut seen = 0;
    for (byte, pair) in data.bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        let (high, low) = (nibble(high), nibble(low));
        *byte = high << 4 | low;
        seen |= high | low;
    }
    (seen < NO_DIGIT).then_some(data)
}

/// What [`nibble`] says of a byte that is no digit; no digits together have its bits.
const NO_DIGIT: u8 = 0x10;

/// The value of a hexadecimal digit; looked up, because half of a log's bytes are such digits.
fn nibble(digit: u8) -> u8 {
    static VALUES: [u8; 256] = {
        let mut values = [NO_DIGIT; 256];
        let mut digit = 0;
        while digit < 0xFF {
            #[allow(clippy::indexing_slicing, reason = "all 256 are there")]
            {
                values[digit as usize] = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    b'A'..=b'F' => digit - b'A' + 10,
                    _ => NO_DIGIT,
                };
            }
            digit += 1;
        }
        values
    };
    VALUES.get(usize::from(digit)).copied().unwrap_or(NO_DIGIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data(text: &str) -> Option<(u32, bool, bool, Vec<u8>)> {
        match parse(text.as_bytes())?.frame {
            Frame::Data { id, extended, fd, data } => Some((id, extended, fd, data.as_bytes().to_vec())),
            _ => None,
        }
    }

    /// The first line is of can-utils' manual page; the others vary it.
    #[test]
    fn lines_are_read() {
        let line = "(1436509052.249713) vcan0 044#2A366C2BBA";
        assert_eq!(data(line), Some((0x44, false, false, vec![0x2A, 0x36, 0x6C, 0x2B, 0xBA])));
        let head = parse(line.as_bytes()).map(|line| (line.time, line.interface));
        assert_eq!(head, Some((&b"1436509052.249713"[..], "vcan0")));
        // As candump pads the time of a clock that begins at zero (`candump -td`, a player's log).
        for (line, time) in [
            ("(0000000012.345678) can0 044#2A", "12.345678"),
            ("(0000000000.000000) can0 044#2A", "0.000000"),
            ("(000) can0 044#2A", "0"),
        ] {
            assert_eq!(parse(line.as_bytes()).map(|line| line.time), Some(time.as_bytes()), "{line}");
        }
        assert_eq!(data("(0.5) c 18FEF100#"), Some((0x18FE_F100, true, false, vec![])));
        assert_eq!(data("(0.5) c 123##0A1B0 R"), Some((0x123, false, true, vec![0xA1, 0xB0])));
        assert_eq!(data("(0.5) c 123#1122334455667788_F").map(|found| found.3.len()), Some(8));
        assert_eq!(parse(b"(0.5) c 123#R8").map(|line| line.frame), Some(Frame::Remote));
        assert_eq!(parse(b"(0.5) c 20000004#0000000000000000").map(|line| line.frame), Some(Frame::Error));
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
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    proptest! {
        #![proptest_config(crate::seed::cases(512))]

        #[test]
        fn what_is_written_is_read(
            id in 0_u32..0x2000_0000, extended: bool, fd: bool, bytes in proptest::collection::vec(any::<u8>(), 0..65),
        ) {
            let id = if extended { id } else { id & 0x7FF };
            let bytes = if fd { bytes } else { bytes.into_iter().take(8).collect() };
            let (width, mark, digits) = (if extended { 8 } else { 3 }, if fd { "##1" } else { "#" }, hex::encode_upper(&bytes));
            let line = format!("(12.5) can0 {id:0width$X}{mark}{digits}\n");
            prop_assert_eq!(data(&line), Some((id, extended, fd, bytes)));
        }

        /// Nearly a line, with anything in place of one stretch.
        #[test]
        fn never_panics(from in 0_usize..40, to in 0_usize..40, other in proptest::collection::vec(any::<u8>(), 0..70)) {
            let line = b"(1436509052.249713) vcan0 044#2A366C2BBA";
            let (from, to) = (from.min(to), from.max(to));
            let line = [&line[..from], &other, &line[to..]].concat();
            if let Some(Line { time, frame: Frame::Data { id, data, .. }, .. }) = parse(&line) {
                prop_assert!(time.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.'));
                prop_assert!(id < 0x2000_0000 && data.as_bytes().len() <= 64);
            }
        }
    }
}
