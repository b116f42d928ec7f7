//! The car's number in the lines of a candump log: of a car that broadcasts it in frames of its own.
//! What does not live here: answers that hold one ([`super::frames`]).

/// So many characters in a row are taken for a piece of the number.
pub(super) const PIECE: usize = 4;

/// Masks pieces of a known number in the lines of a log: some cars broadcast it.
pub fn mask_known(log: &mut [u8], vin: &str) {
    let pieces: Vec<String> = vin.as_bytes().windows(PIECE).map(hex::encode_upper).collect();
    for digits in log.split_mut(|byte| *byte == b'\n').filter_map(data_of) {
        let found: Vec<usize> = digits
            .windows(2 * PIECE)
            .enumerate()
            .step_by(2)
            .filter(|(_, window)| pieces.iter().any(|piece| piece.as_bytes() == *window))
            .map(|(at, _)| at)
            .collect();
        for at in found {
            for pair in digits.get_mut(at..at + 2 * PIECE).unwrap_or_default().chunks_mut(2) {
                pair.copy_from_slice(b"30");
            }
        }
    }
}

/// Which rows of a number's characters may be a piece of a number that nobody told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likely {
    /// All: no number is known yet.
    Any,
    /// Those with a digit. Another number is known, so most rows are values; the end of each number, which
    /// says which car it is, is digits (ISO 3779: the last four), and most pieces of it have one.
    WithDigit,
}

/// Masks what may be a piece of a number that nobody told: as many of its characters in a row. Not in
/// questions and answers: those that hold one are followed ([`super::frames`]), the others are values.
pub fn mask_likely(log: &mut [u8], which: Likely) {
    let lines = log.split_mut(|byte| *byte == b'\n').filter(|line| !is_diagnosis(line));
    for digits in lines.filter_map(data_of) {
        let (pairs, _) = digits.as_chunks_mut::<2>();
        for row in pairs.chunk_by_mut(|one, next| is_vin_character(*one) && is_vin_character(*next)) {
            let is_digit = |pair: &[u8; 2]| matches!(pair, [b'3', b'0'..=b'9']);
            if row.len() >= PIECE && (which == Likely::Any || row.iter().any(is_digit)) {
                row.fill(*b"30");
            }
        }
    }
}

/// The digits of a line's data, and what stands behind them.
fn data_of(line: &mut [u8]) -> Option<&mut [u8]> {
    let begin = line.iter().rposition(|byte| *byte == b'#')?;
    // Behind `##` stands a digit of flags.
    let fd = begin.checked_sub(1).and_then(|at| line.get(at)) == Some(&b'#');
    line.get_mut(begin + 1 + usize::from(fd)..)
}

/// Whether the identifier is one of diagnosis (ISO 15765-4 §10.3.2, §10.3.3).
fn is_diagnosis(line: &[u8]) -> bool {
    // In front of the data stands one `#`, or two.
    let head = line.rsplit(|byte| *byte == b'#').skip(1).find(|part| !part.is_empty());
    let id = head.and_then(|head| head.rsplit(|byte| *byte == b' ').next()).unwrap_or_default();
    matches!(id, b"7DF" | [b'7', b'E', _] | [b'1', b'8', b'D', b'A' | b'B', _, _, _, _])
}

/// ISO 3779, as two hex digits.
fn is_vin_character(digits: [u8; 2]) -> bool {
    let mut byte = [0];
    let read = hex::decode_to_slice(digits, &mut byte).is_ok();
    let [byte] = byte;
    read && (byte.is_ascii_digit() || byte.is_ascii_uppercase() && !matches!(byte, b'I' | b'O' | b'Q'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vehicle::candump;

    #[test]
    fn a_number_that_is_broadcast_is_masked_where_it_is_known() {
        let mut log =
            b"(1.000000) can0 3E9#00314D3847444D39\n(1.000000) can0 3E9##001314D3847444D39\n".to_vec();
        mask_known(&mut log, "1M8GDM9AXKP042788");
        let text = String::from_utf8(log).unwrap();
        assert_eq!(text.matches("30303030303030").count(), 2, "{text}");
        assert!(!text.contains("4D38"), "{text}");
        assert!(text.lines().all(|line| candump::parse(line.as_bytes()).is_some()));
    }

    /// An O is in no number.
    #[test]
    fn what_looks_like_a_number_is_masked_where_none_is_known() {
        let mut log =
            b"(1.000000) can0 3E9#00314D3847444D39 R\n(1.000000) can0 3E9#00314D384F474D39 T\n".to_vec();
        mask_likely(&mut log, Likely::Any);
        let text = String::from_utf8(log).unwrap();
        let (number, others) = ("3E9#0030303030303030 R", "3E9#00314D384F474D39 T");
        assert!(text.contains(number) && text.contains(others), "{text}");
    }

    /// Beside a number that is known: its own pieces go as known ones, a digit may be another's end.
    #[test]
    fn beside_a_known_number_rows_without_a_digit_stay() {
        for (data, kept) in
            [("004B4C4D4E50", true), ("004B4C4D4E35", false), ("0031323334", false), ("00313233", true)]
        {
            let line = format!("(1.000000) can0 3E9#{data} R");
            let mut log = line.clone().into_bytes();
            mask_likely(&mut log, Likely::WithDigit);
            assert_eq!(String::from_utf8(log).unwrap() == line, kept, "{data}");
        }
    }

    /// The values of an answer are none.
    #[test]
    fn questions_and_answers_are_left_as_they_are() {
        for (frame, kept) in [
            ("7DF#0641424344454647", true),
            ("7E8#0441423650", true),
            ("7E8##10441423650", true),
            ("18DAF110#0441423650", true),
            ("18DB33F1#0441423650", true),
            ("7D0#0441423650", false),
            ("7F0##10441423650", false),
            ("18FEF110#0441423650", false),
            ("7E800000#0441423650", false),
        ] {
            let line = format!("(1.000000) can0 {frame} R");
            let mut log = line.clone().into_bytes();
            mask_likely(&mut log, Likely::Any);
            assert_eq!(String::from_utf8(log).unwrap() == line, kept, "{frame}");
        }
    }
}
