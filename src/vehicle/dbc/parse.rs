//! The sections of a DBC file that say what a frame holds: messages, signals,
//! value texts, float types, extended multiplexing, long names. The other
//! sections are passed over. Nothing is checked across sections here.

use std::collections::HashMap;

use super::reader::Reader;
use super::words::{self, Word};
use super::{DbcError, Oddity};

/// Bit 31 of a message's number marks an extended frame.
pub const EXTENDED: u32 = 0x8000_0000;
/// The message under which tools keep signals that belong to none.
const ORPHANS: u32 = 0xC000_0000;

/// Sections that end with `;` and say nothing about what a frame holds.
const PASSED_OVER: &[&str] = &[
    "BA_DEF_",
    "BA_DEF_DEF_",
    "BA_DEF_DEF_REL_",
    "BA_DEF_REL_",
    "BA_DEF_SGTYPE_",
    "BA_REL_",
    "BA_SGTYPE_",
    "BO_TX_BU_",
    "BU_BO_REL_",
    "BU_EV_REL_",
    "BU_SG_REL_",
    "CAT_",
    "CAT_DEF_",
    "CM_",
    "ENVVAR_DATA_",
    "EV_",
    "EV_DATA_",
    "FILTER",
    "NS_DESC_",
    "SGTYPE_",
    "SGTYPE_VAL_",
    "SIGTYPE_VALTYPE_",
    "SIG_GROUP_",
    "SIG_TYPE_REF_",
];
/// Sections that are read.
const READ: &[&str] = &[
    "BA_",
    "BO_",
    "BS_",
    "BU_",
    "NS_",
    "SG_",
    "SG_MUL_VAL_",
    "SIG_VALTYPE_",
    "VAL_",
    "VAL_TABLE_",
    "VERSION",
];

/// A message as written.
#[derive(Debug, Default)]
pub struct MessageText {
    pub number: u32,
    pub name: String,
    pub length_bytes: u64,
    pub signals: Vec<SignalText>,
    pub line: usize,
}

/// A signal as written.
#[derive(Debug, Default)]
pub struct SignalText {
    pub name: String,
    pub long_name: Option<String>,
    pub multiplexer: bool,
    pub selector: Option<u64>,
    pub start_bit: u64,
    pub length_bits: u64,
    pub motorola: bool,
    pub signed: bool,
    pub factor: f64,
    pub offset: f64,
    pub unit: String,
    /// 0 integer, 1 IEEE single, 2 IEEE double.
    pub value_type: u64,
    pub texts: Vec<(i128, String)>,
    /// Extended multiplexing: the multiplexer and the ranges of its values.
    pub selected_by: Option<(String, Vec<(u64, u64)>)>,
    pub line: usize,
    pub column: usize,
}

/// A whole file as written.
#[derive(Debug, Default)]
pub struct DatabaseText {
    pub messages: Vec<MessageText>,
    pub oddities: Vec<Oddity>,
    by_number: HashMap<u32, usize>,
    tables: HashMap<String, Vec<(i128, String)>>,
}

/// Reads a file's bytes.
///
/// # Errors
/// The first place that is no DBC.
pub fn parse(bytes: &[u8]) -> Result<DatabaseText, DbcError> {
    let text = words::text(bytes);
    let words = words::words(&text)?;
    let mut parser = Parser { words: Reader::new(&words), out: DatabaseText::default() };
    if !matches!(parser.words.peek(), Some(Word::Name(name)) if is_section(name)) {
        return Err(parser.words.expected("a DBC file, which begins with VERSION or BO_"));
    }
    while parser.words.peek().is_some() {
        parser.section()?;
    }
    Ok(parser.out)
}

fn is_section(name: &str) -> bool {
    READ.contains(&name) || PASSED_OVER.contains(&name)
}

struct Parser<'a> {
    words: Reader<'a>,
    out: DatabaseText,
}

impl<'a> Parser<'a> {
    fn section(&mut self) -> Result<(), DbcError> {
        let line = self.words.line();
        let name = self.words.name("a section such as BO_ or CM_")?;
        match name {
            "VERSION" => self.words.quoted().map(drop),
            "NS_" => self.new_symbols(),
            "BS_" | "BU_" => {
                self.until_section();
                Ok(())
            }
            "BO_" => self.message(line),
            "VAL_TABLE_" => {
                let table = self.words.name("the table's name")?;
                let texts = self.value_texts()?;
                self.out.tables.insert(table.to_owned(), texts);
                Ok(())
            }
            "VAL_" => self.texts_of_signal(line),
            "SIG_VALTYPE_" => self.value_type(line),
            "SG_MUL_VAL_" => self.multiplexed_by(line),
            "BA_" => self.attribute(line),
            "SG_" => Err(self.words.before("a message (BO_) before its signals")),
            _ if PASSED_OVER.contains(&name) => self.words.until_semicolon(),
            _ => Err(self.words.before("a section such as BO_ or CM_")),
        }
    }

    /// The symbols stand one on a line; a section's name has something behind it.
    fn new_symbols(&mut self) -> Result<(), DbcError> {
        self.words.sign(':')?;
        while self.words.ends_line() && matches!(self.words.peek(), Some(Word::Name(_))) {
            self.words.skip();
        }
        Ok(())
    }

    fn message(&mut self, line: usize) -> Result<(), DbcError> {
        let number = self.words.message_number()?;
        let name = self.words.name("the message's name")?.to_owned();
        self.words.sign(':')?;
        let length_bytes = self.words.whole("the message's length in bytes")?;
        if matches!(self.words.peek(), Some(Word::Name(_))) && !self.at_section() {
            self.words.skip(); // The sender.
        }
        let mut message = MessageText { number, name, length_bytes, signals: Vec::new(), line };
        while matches!(self.words.peek(), Some(Word::Name("SG_"))) {
            message.signals.push(self.signal()?);
        }
        if number == ORPHANS {
            return Ok(());
        }
        let name = &message.name;
        if number & !EXTENDED > 0x1FFF_FFFF {
            let what = format!("message {name}: {number} is no arbitration ID, no frame will match");
            self.out.oddities.push(Oddity { line, what });
        } else if (0x800..EXTENDED).contains(&number) {
            let what = format!("message {name}: {number} has more than 11 bits, taken as an extended frame");
            self.out.oddities.push(Oddity { line, what });
        }
        if let Some(earlier) = self.out.by_number.insert(number, self.out.messages.len()) {
            let earlier = self.out.messages.get(earlier).map_or(0, |earlier| earlier.line);
            let what = format!(
                "message {} has the number of the one in line {earlier}: this one counts",
                message.name
            );
            self.out.oddities.push(Oddity { line, what });
        }
        self.out.messages.push(message);
        Ok(())
    }

    /// `SG_ name [M|mN|mNM] : start|length@order sign (factor,offset) [min|max] "unit" receivers`
    fn signal(&mut self) -> Result<SignalText, DbcError> {
        self.words.skip();
        let mut signal =
            SignalText { line: self.words.line(), column: self.words.column(), ..SignalText::default() };
        signal.name = self.words.name("the signal's name")?.to_owned();
        if let Some(Word::Name(role)) = self.words.peek() {
            (signal.multiplexer, signal.selector) =
                role_of(role).ok_or_else(|| self.words.expected("M, m0, m0M or a colon"))?;
            self.words.skip();
        }
        self.words.sign(':')?;
        signal.start_bit = self.words.whole("the start bit")?;
        self.words.sign('|')?;
        signal.length_bits = self.words.whole("the length in bits")?;
        self.words.sign('@')?;
        signal.motorola = match self.words.whole("the byte order: 1 Intel, 0 Motorola")? {
            0 => true,
            1 => false,
            _ => return Err(self.words.before("the byte order: 1 Intel, 0 Motorola")),
        };
        signal.signed = match self.words.peek() {
            Some(Word::Sign('+')) => false,
            Some(Word::Sign('-')) => true,
            _ => return Err(self.words.expected("+ (unsigned) or - (signed)")),
        };
        self.words.skip();
        self.words.sign('(')?;
        signal.factor = self.words.number("the factor")?;
        self.words.sign(',')?;
        signal.offset = self.words.number("the offset")?;
        self.words.sign(')')?;
        if matches!(self.words.peek(), Some(Word::Sign('['))) {
            self.words.skip();
            self.words.until_sign(']')?;
        }
        if matches!(self.words.peek(), Some(Word::Quoted(_))) {
            signal.unit = self.words.quoted()?;
        }
        while !self.at_section() && matches!(self.words.peek(), Some(Word::Name(_) | Word::Sign(','))) {
            self.words.skip(); // Receivers.
        }
        Ok(signal)
    }

    /// `VAL_ message signal 0 "off" 1 "on" ;` or the name of a table. Those of
    /// environment variables have no message number.
    fn texts_of_signal(&mut self, line: usize) -> Result<(), DbcError> {
        if !matches!(self.words.peek(), Some(Word::Number(_))) {
            return self.words.until_semicolon();
        }
        let number = self.words.message_number()?;
        let signal = self.words.name("the signal's name")?;
        let texts = if let Some(Word::Name(table)) = self.words.peek() {
            let known = self.out.tables.get(*table).cloned();
            let texts = known.ok_or_else(|| self.words.expected("a VAL_TABLE_ that stands above"))?;
            self.words.until_semicolon()?;
            texts
        } else {
            self.value_texts()?
        };
        self.with_signal(line, number, signal, |found| found.texts = texts);
        Ok(())
    }

    fn value_texts(&mut self) -> Result<Vec<(i128, String)>, DbcError> {
        let mut texts = Vec::new();
        loop {
            if let Some(Word::Sign(';')) = self.words.peek() {
                self.words.skip();
                return Ok(texts);
            }
            let value = self.words.raw_value()?;
            texts.push((value, self.words.quoted()?));
        }
    }

    /// `SIG_VALTYPE_ message signal : 1 ;`
    fn value_type(&mut self, line: usize) -> Result<(), DbcError> {
        let number = self.words.message_number()?;
        let signal = self.words.name("the signal's name")?;
        self.words.skip_sign(':');
        let value_type = self.words.whole("0 integer, 1 IEEE single, 2 IEEE double")?;
        if value_type > 2 {
            return Err(self.words.before("0 integer, 1 IEEE single, 2 IEEE double"));
        }
        self.with_signal(line, number, signal, |found| found.value_type = value_type);
        self.words.until_semicolon()
    }

    /// `SG_MUL_VAL_ message signal multiplexer 0-3, 5-5 ;`
    fn multiplexed_by(&mut self, line: usize) -> Result<(), DbcError> {
        let number = self.words.message_number()?;
        let signal = self.words.name("the signal's name")?;
        let multiplexer = self.words.name("the multiplexer's name")?.to_owned();
        let mut ranges = Vec::new();
        while !matches!(self.words.peek(), Some(Word::Sign(';'))) {
            let low = self.words.whole("the first value of a range")?;
            self.words.sign('-')?;
            let high = self.words.whole("the last value of a range")?;
            if high < low {
                return Err(self.words.before("a last value that is not below the first"));
            }
            ranges.push((low, high));
            self.words.skip_sign(',');
        }
        self.with_signal(line, number, signal, |found| found.selected_by = Some((multiplexer, ranges)));
        self.words.until_semicolon()
    }

    /// Names of more than 32 characters stand in attributes of their own.
    fn attribute(&mut self, line: usize) -> Result<(), DbcError> {
        let attribute = self.words.quoted()?;
        match (attribute.as_str(), self.words.peek()) {
            ("SystemSignalLongSymbol", Some(Word::Name("SG_"))) => {
                self.words.skip();
                let number = self.words.message_number()?;
                let signal = self.words.name("the signal's name")?;
                let long = self.words.quoted()?;
                self.with_signal(line, number, signal, |found| found.long_name = Some(long));
            }
            ("SystemMessageLongSymbol", Some(Word::Name("BO_"))) => {
                self.words.skip();
                let number = self.words.message_number()?;
                let long = self.words.quoted()?;
                if let Some(message) =
                    self.out.by_number.get(&number).and_then(|&at| self.out.messages.get_mut(at))
                {
                    message.name = long;
                }
            }
            _ => {}
        }
        self.words.until_semicolon()
    }

    fn at_section(&self) -> bool {
        matches!(self.words.peek(), Some(Word::Name(name)) if is_section(name))
    }

    fn until_section(&mut self) {
        while self.words.peek().is_some() && !self.at_section() {
            self.words.skip();
        }
    }

    /// Sections may speak of signals that are gone: every tool lets that pass.
    fn with_signal(&mut self, line: usize, number: u32, name: &str, change: impl FnOnce(&mut SignalText)) {
        let message = self.out.by_number.get(&number).and_then(|&at| self.out.messages.get_mut(at));
        let signal =
            message.and_then(|message| message.signals.iter_mut().find(|signal| signal.name == name));
        match signal {
            Some(signal) => change(signal),
            None if number == ORPHANS => {}
            None => {
                let what = format!("message {number} has no signal {name}: passed over");
                self.out.oddities.push(Oddity { line, what });
            }
        }
    }
}

/// `M` is the multiplexer, `m3` is there when it says 3, `m3M` is both.
fn role_of(role: &str) -> Option<(bool, Option<u64>)> {
    // Tools let a forgotten number pass: `m` alone can only be the multiplexer.
    if matches!(role, "M" | "m") {
        return Some((true, None));
    }
    let value = role.strip_prefix('m')?;
    let (value, multiplexer) = value.strip_suffix('M').map_or((value, false), |value| (value, true));
    Some((multiplexer, Some(value.parse().ok()?)))
}
