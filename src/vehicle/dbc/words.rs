//! A DBC file as words with their places: names, numbers, quoted texts, signs.
//! What the words mean is `parse`'s.

use std::borrow::Cow;

use super::DbcError;

/// Windows-1252, 0x80 to 0x9F (Unicode Consortium, CP1252.TXT); the five holes
/// become the replacement character. The other bytes are Latin-1.
const CP1252: [char; 32] = [
    '\u{20AC}', '\u{FFFD}', '\u{201A}', '\u{0192}', '\u{201E}', '\u{2026}', '\u{2020}', '\u{2021}',
    '\u{02C6}', '\u{2030}', '\u{0160}', '\u{2039}', '\u{0152}', '\u{FFFD}', '\u{017D}', '\u{FFFD}',
    '\u{FFFD}', '\u{2018}', '\u{2019}', '\u{201C}', '\u{201D}', '\u{2022}', '\u{2013}', '\u{2014}',
    '\u{02DC}', '\u{2122}', '\u{0161}', '\u{203A}', '\u{0153}', '\u{FFFD}', '\u{017E}', '\u{0178}',
];

/// The bytes as text: UTF-8 where they are UTF-8 (with or without a mark), else
/// Windows-1252, in which the tools of the trade write.
#[must_use]
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|&byte| cp1252(byte)).collect()),
    }
}

fn cp1252(byte: u8) -> char {
    match byte {
        0x80..=0x9F => CP1252.get(usize::from(byte - 0x80)).copied().unwrap_or('\u{FFFD}'),
        _ => char::from(byte),
    }
}

/// What a word is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word<'a> {
    /// A name or keyword.
    Name(&'a str),
    /// An unsigned number, as written.
    Number(&'a str),
    /// A quoted text, without its quotes.
    Quoted(Cow<'a, str>),
    /// Any other character.
    Sign(char),
}

/// A word and where it stands.
#[derive(Debug, Clone)]
pub struct Placed<'a> {
    /// The word.
    pub word: Word<'a>,
    /// Its line, from 1.
    pub line: usize,
    /// Its column, from 1.
    pub column: usize,
}

/// All words of a file.
///
/// # Errors
/// A quoted text that does not end.
pub fn words(text: &str) -> Result<Vec<Placed<'_>>, DbcError> {
    let mut cursor = Cursor { rest: text, line: 1, column: 1 };
    let mut found = Vec::new();
    while let Some(first) = cursor.rest.chars().next() {
        let (line, column) = (cursor.line, cursor.column);
        let word = if first.is_whitespace() {
            cursor.take(first.len_utf8());
            continue;
        } else if cursor.rest.starts_with("//") {
            cursor.take(cursor.rest.find('\n').unwrap_or(cursor.rest.len()));
            continue;
        } else if first == '"' {
            cursor.take(1);
            Word::Quoted(cursor.quoted().ok_or_else(|| {
                DbcError::at(line, column, "this quoted text does not end: close it with \"")
            })?)
        } else if first.is_ascii_digit() || (first == '.' && starts_with_digit(&cursor.rest[1..])) {
            let length = number_length(cursor.rest);
            Word::Number(cursor.take(length))
        } else if is_name(first) {
            let length = cursor.rest.find(|c| !is_name(c)).unwrap_or(cursor.rest.len());
            Word::Name(cursor.take(length))
        } else {
            cursor.take(first.len_utf8());
            Word::Sign(first)
        };
        found.push(Placed { word, line, column });
    }
    Ok(found)
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// Digits, a fraction, an exponent. A sign before it is a word of its own:
/// `8|16@1-(1,-40)` and the range `3-5` would be ambiguous otherwise.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') {
        end += 1;
        end += digits(end);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    end
}

struct Cursor<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
}

impl<'a> Cursor<'a> {
    /// Goes on by `length` bytes, which end at a character.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        for c in taken.chars() {
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.rest = rest;
        taken
    }

    /// Up to the closing quote, which is taken too; `\"` stands for a quote.
    fn quoted(&mut self) -> Option<Cow<'a, str>> {
        let mut escaped = false;
        let mut holds_escape = false;
        let end = self.rest.char_indices().find_map(|(at, c)| {
            let ends = c == '"' && !escaped;
            holds_escape |= c == '"' && escaped;
            escaped = c == '\\' && !escaped;
            ends.then_some(at)
        })?;
        let inside = self.take(end);
        self.take(1);
        Some(if holds_escape { Cow::Owned(inside.replace("\\\"", "\"")) } else { Cow::Borrowed(inside) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_places() {
        let found = words("BO_ 100 A:\n SG_ x : 8|16@1- (1,-.5)").unwrap();
        let shown: Vec<String> = found.iter().map(|placed| format!("{:?}", placed.word)).collect();
        assert_eq!(
            shown.join(" "),
            concat!(
                "Name(\"BO_\") Number(\"100\") Name(\"A\") Sign(':') Name(\"SG_\") Name(\"x\") Sign(':') ",
                "Number(\"8\") Sign('|') Number(\"16\") Sign('@') Number(\"1\") Sign('-') Sign('(') ",
                "Number(\"1\") Sign(',') Sign('-') Number(\".5\") Sign(')')"
            )
        );
        let last = found.last().unwrap();
        assert_eq!((last.line, last.column), (2, 24));
    }

    #[test]
    fn numbers_end_where_they_end() {
        for (text, length) in
            [("1e-05,", 5), ("1.5E+3)", 6), ("1else", 1), ("12.", 3), ("0-3", 1), ("1.#INF", 2)]
        {
            assert_eq!(number_length(text), length, "{text}");
        }
    }

    #[test]
    fn quoted_texts_keep_lines_and_quotes() {
        let found = words("\"a\nb\" \"say \\\"hi\\\"\" \"\\\\\" x").unwrap();
        assert_eq!(found[0].word, Word::Quoted("a\nb".into()));
        assert_eq!(found[1].word, Word::Quoted("say \"hi\"".into()));
        assert_eq!(found[3].word, Word::Name("x"));
        assert!(words("VERSION \"no end").is_err());
        assert_eq!(words("// \"a note\nBO_ // another").unwrap().len(), 1);
    }

    #[test]
    fn old_files_are_windows_1252() {
        assert_eq!(text(b"\xB0C \x80"), "°C €");
        assert_eq!(text("\u{FEFF}车速".as_bytes()), "车速");
    }
}
