//! Bytes to lines. Pure and incremental: however the stream is cut, the same
//! pieces come out. A reply ends at the prompt `>`; 0x00 bytes are noise that
//! real adapters insert; CR, CRLF and empty lines are all the same here.

/// The longest line kept. An ISO-TP frame prints in under 40 characters and an
/// identity in under 80; beyond this it is garbage and is thrown away.
pub const MAX_LINE: usize = 256;

/// What a byte stream from an adapter consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A line that is not empty. Bytes that are not printable ASCII stand as U+FFFD.
    Line(String),
    /// `>`: the adapter waits for the next command.
    Prompt,
    /// A line longer than [`MAX_LINE`] was thrown away.
    Overlong,
}

/// Cuts bytes into [`Piece`]s. Holds at most [`MAX_LINE`] bytes.
#[derive(Debug, Default)]
pub struct LineReader {
    line: String,
    length: usize,
    linefeeds: bool,
}

impl LineReader {
    /// Takes the next bytes and appends what they complete.
    pub fn push(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) {
        for &byte in bytes {
            match byte {
                0 => {}
                b'\r' | b'\n' => {
                    self.linefeeds |= byte == b'\n';
                    self.end_line(pieces);
                }
                b'>' => {
                    self.end_line(pieces);
                    pieces.push(Piece::Prompt);
                }
                _ => {
                    self.length = self.length.saturating_add(1);
                    if self.length <= MAX_LINE {
                        let printable = (0x20..0x7F).contains(&byte);
                        self.line.push(if printable {
                            char::from(byte)
                        } else {
                            char::REPLACEMENT_CHARACTER
                        });
                    }
                }
            }
        }
    }

    /// Whether a linefeed ever came.
    #[must_use]
    pub fn linefeeds(&self) -> bool {
        self.linefeeds
    }

    /// What stands of the line that is not ended yet.
    #[must_use]
    pub fn pending(&self) -> &str {
        &self.line
    }

    /// Forgets the line that is not ended yet.
    pub fn clear(&mut self) {
        self.line.clear();
        self.length = 0;
    }

    fn end_line(&mut self, pieces: &mut Vec<Piece>) {
        if self.length > MAX_LINE {
            pieces.push(Piece::Overlong);
        } else if !self.line.trim().is_empty() {
            pieces.push(Piece::Line(self.line.trim().to_owned()));
        }
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<Piece> {
        let mut reader = LineReader::default();
        let mut pieces = Vec::new();
        for chunk in chunks {
            reader.push(chunk, &mut pieces);
        }
        pieces
    }

    fn line(text: &str) -> Piece {
        Piece::Line(text.into())
    }

    #[test]
    fn real_replies() {
        // Source: ELM327 data sheet (reset banner, echo), field reports of NUL bytes and CRLF.
        for (name, bytes, expected) in [
            ("reset", &b"\r\rELM327 v1.5\r\r>"[..], vec![line("ELM327 v1.5"), Piece::Prompt]),
            ("first echo", b"ATE0\rOK\r\r>", vec![line("ATE0"), line("OK"), Piece::Prompt]),
            ("line feeds", b"41 00\r\n\r\n>", vec![line("41 00"), Piece::Prompt]),
            ("NUL bytes", b"\0O\0K\r\0>", vec![line("OK"), Piece::Prompt]),
            ("noise", b"\xFFOK\r>", vec![line("\u{FFFD}OK"), Piece::Prompt]),
            ("no prompt", b"OK\r", vec![line("OK")]),
            ("half a line", b"7E8 10 1", vec![]),
        ] {
            assert_eq!(read(&[bytes]), expected, "{name}");
        }
    }

    #[test]
    fn a_huge_line_is_bounded() {
        let mut reader = LineReader::default();
        let mut pieces = Vec::new();
        for _ in 0..10_000 {
            reader.push(&[b'A'; 1000], &mut pieces);
        }
        assert!(reader.pending().len() <= MAX_LINE && pieces.is_empty());
        reader.push(b"\rOK\r>", &mut pieces);
        assert_eq!(pieces, [Piece::Overlong, line("OK"), Piece::Prompt]);
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn every_split_reads_the_same(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'>'), Just(0_u8), any::<u8>()], 0..600),
            cuts in proptest::collection::vec(0_usize..600, 0..12),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&chunks), read(&[&bytes]));
        }
    }
}
