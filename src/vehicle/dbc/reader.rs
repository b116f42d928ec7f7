//! Takes a DBC file's words one by one, and says what was expected where
//! another stands. The grammar is `parse`'s.

use super::DbcError;
use super::words::{Placed, Word};

/// The words and how far they were taken.
pub struct Reader<'a> {
    words: &'a [Placed<'a>],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the first word.
    pub fn new(words: &'a [Placed<'a>]) -> Self {
        Self { words, at: 0 }
    }

    /// The next word.
    pub fn peek(&self) -> Option<&'a Word<'a>> {
        self.words.get(self.at).map(|placed| &placed.word)
    }

    /// Takes the next word, whatever it is.
    pub fn skip(&mut self) {
        self.at += 1;
    }

    /// Takes the next word if it is this sign.
    pub fn skip_sign(&mut self, sign: char) -> bool {
        let is_it = self.peek() == Some(&Word::Sign(sign));
        self.at += usize::from(is_it);
        is_it
    }

    /// Whether the next word is the last of its line.
    pub fn ends_line(&self) -> bool {
        let (this, next) = (self.words.get(self.at), self.words.get(self.at + 1));
        this.is_some_and(|this| next.is_none_or(|next| next.line > this.line))
    }

    /// The line of the next word.
    pub fn line(&self) -> usize {
        self.words.get(self.at).or(self.words.last()).map_or(1, |placed| placed.line)
    }

    /// The column of the next word.
    pub fn column(&self) -> usize {
        self.words.get(self.at).or(self.words.last()).map_or(1, |placed| placed.column)
    }

    /// The error that the next word is not what it should be.
    pub fn expected(&self, what: &str) -> DbcError {
        let found = match self.peek() {
            Some(Word::Name(text) | Word::Number(text)) => format!("found {text}"),
            Some(Word::Quoted(text)) => format!("found \"{}\"", text.chars().take(20).collect::<String>()),
            Some(Word::Sign(sign)) => format!("found {sign}"),
            None => "the file ends".to_owned(),
        };
        DbcError::at(self.line(), self.column(), format!("expected {what}, {found}"))
    }

    /// The word just taken is not what it should be.
    pub fn before(&mut self, what: &str) -> DbcError {
        self.at = self.at.saturating_sub(1);
        self.expected(what)
    }

    /// Takes a name.
    pub fn name(&mut self, what: &str) -> Result<&'a str, DbcError> {
        let Some(Word::Name(name)) = self.peek() else { return Err(self.expected(what)) };
        self.at += 1;
        Ok(name)
    }

    /// Takes a quoted text.
    pub fn quoted(&mut self) -> Result<String, DbcError> {
        let Some(Word::Quoted(text)) = self.peek() else { return Err(self.expected("a text in quotes")) };
        self.at += 1;
        Ok(text.clone().into_owned())
    }

    /// Takes this sign.
    pub fn sign(&mut self, sign: char) -> Result<(), DbcError> {
        if self.peek() != Some(&Word::Sign(sign)) {
            return Err(self.expected(&sign.to_string()));
        }
        self.at += 1;
        Ok(())
    }

    /// Takes a whole number.
    pub fn whole(&mut self, what: &str) -> Result<u64, DbcError> {
        let Some(Word::Number(text)) = self.peek() else { return Err(self.expected(what)) };
        let number = text.parse().map_err(|_| self.expected(&format!("{what}, a whole number")))?;
        self.at += 1;
        Ok(number)
    }

    /// Takes a number, which may have a sign.
    pub fn number(&mut self, what: &str) -> Result<f64, DbcError> {
        let negative = matches!(self.peek(), Some(Word::Sign('-')));
        if matches!(self.peek(), Some(Word::Sign('+' | '-'))) {
            self.at += 1;
        }
        let Some(Word::Number(text)) = self.peek() else { return Err(self.expected(what)) };
        let number: f64 = text.parse().map_err(|_| self.expected(what))?;
        self.at += 1;
        Ok(if negative { -number } else { number })
    }

    /// Takes a raw value, which may have a sign.
    pub fn raw_value(&mut self) -> Result<i128, DbcError> {
        let negative = matches!(self.peek(), Some(Word::Sign('-')));
        if negative {
            self.at += 1;
        }
        let value = i128::from(self.whole("a value, or ; at the end")?);
        Ok(if negative { -value } else { value })
    }

    /// Takes a message's number: the arbitration ID, bit 31 set where it is extended.
    pub fn message_number(&mut self) -> Result<u32, DbcError> {
        let number = self.whole("a message's number")?;
        u32::try_from(number).map_err(|_| self.before("a message's number of at most 32 bits"))
    }

    /// Takes everything to the end of a section.
    pub fn until_semicolon(&mut self) -> Result<(), DbcError> {
        self.until_sign(';')
    }

    /// Takes everything up to and with a sign.
    pub fn until_sign(&mut self, sign: char) -> Result<(), DbcError> {
        let start = self.at;
        while let Some(word) = self.peek() {
            self.at += 1;
            if *word == Word::Sign(sign) {
                return Ok(());
            }
        }
        self.at = start;
        Err(DbcError::at(self.line(), self.column(), format!("this section does not end: expected {sign}")))
    }
}
