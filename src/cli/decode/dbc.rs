//! `decode --dbc`: a candump log in, JSON Lines out (contract §6).

use std::io::{self, BufRead, Write};

use crate::vehicle::candump::{self, Frame};
use crate::vehicle::dbc::{Database, Message, Selectors, Signal, Value};

/// What became of the lines.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Frames decoded and printed.
    pub decoded: u64,
    /// Frames whose ID the database does not have.
    pub unknown: u64,
    /// Remote and error frames: they hold no signals.
    pub without_data: u64,
    /// Lines that are no candump lines.
    pub unreadable: u64,
    /// The first of them, from 1.
    pub first_unreadable_line: Option<u64>,
}

impl Tally {
    /// Whether there were lines and none was one of a candump log: the wrong file.
    pub fn read_nothing(&self) -> bool {
        self.unreadable > 0 && self.decoded + self.unknown + self.without_data == 0
    }
}

/// Decodes every line of `input` to `out`.
///
/// # Errors
/// Reading or writing failed.
pub fn decode(database: &Database, mut input: impl BufRead, out: &mut impl Write) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut writer = Writer::new(database);
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(tally);
        }
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Some(line) = candump::parse(&line) else {
            tally.unreadable += 1;
            tally.first_unreadable_line.get_or_insert(number);
            continue;
        };
        let Frame::Data { id, extended, data, .. } = &line.frame else {
            tally.without_data += 1;
            continue;
        };
        let Some(place) = database.place(*id, *extended) else {
            tally.unknown += 1;
            continue;
        };
        out.write_all(writer.line(&line, place, data.as_bytes())?)?;
        tally.decoded += 1;
    }
}

/// Writes frames as lines of JSON, each into the memory of the one before.
struct Writer<'d> {
    /// As [`Database::messages`] orders them.
    messages: Vec<(&'d Message, Wording)>,
    selectors: Selectors,
    json: Vec<u8>,
    labels: Vec<u8>,
}

/// What is the same in every line of a message, escaped once: for every frame it would take
/// a third of the time.
struct Wording {
    /// From behind the interface to the first signal.
    head: Vec<u8>,
    /// Each signal's name with a comma before and a colon behind it.
    keys: Vec<Vec<u8>>,
}

impl<'d> Writer<'d> {
    fn new(database: &'d Database) -> Self {
        let messages = database.messages().iter().map(|message| (message, Wording::of(message))).collect();
        Self { messages, selectors: Selectors::default(), json: Vec::new(), labels: Vec::new() }
    }

    fn line(&mut self, line: &candump::Line<'_>, place: usize, data: &[u8]) -> io::Result<&[u8]> {
        let Self { messages, selectors, json, labels } = self;
        let Some((message, wording)) = messages.get(place) else { return Ok(&[]) };
        json.clear();
        labels.clear();
        json.extend_from_slice(b"{\"time\":");
        json.extend_from_slice(line.time);
        json.extend_from_slice(b",\"interface\":");
        write_text(json, line.interface)?;
        json.extend_from_slice(&wording.head);
        let mut outcome = Ok(());
        message.decode(data, selectors, |at, signal, raw| {
            if let (Some(key), Ok(())) = (wording.keys.get(at), &outcome) {
                outcome = write_signal(json, labels, key, signal, raw);
            }
        });
        outcome?;
        json.extend_from_slice(b"},\"labels\":{");
        json.extend_from_slice(labels);
        json.extend_from_slice(b"}}\n");
        Ok(json)
    }
}

impl Wording {
    fn of(message: &Message) -> Self {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let (id, name) = (message.id(), text(message.name()));
        let key = |signal: &Signal| format!(",{}:", text(signal.name())).into_bytes();
        Self {
            head: format!(",\"id\":{id},\"message\":{name},\"signals\":{{").into_bytes(),
            keys: message.signals().iter().map(key).collect(),
        }
    }
}

fn write_signal(
    json: &mut Vec<u8>,
    labels: &mut Vec<u8>,
    key: &[u8],
    signal: &Signal,
    raw: u64,
) -> io::Result<()> {
    write_key(json, key);
    match signal.value(raw) {
        Value::Integer(number) => match i64::try_from(number) {
            Ok(number) => serde_json::to_writer(&mut *json, &number)?,
            Err(_) => write!(json, "{number}")?,
        },
        // JSON has no word for "no number".
        Value::Real(number) => serde_json::to_writer(&mut *json, &number)?,
    }
    if let Some(text) = signal.text(raw) {
        write_key(labels, key);
        write_text(labels, text)?;
    }
    Ok(())
}

/// Without its comma where it is the first: labels begin empty, signals behind a brace.
fn write_key(json: &mut Vec<u8>, key: &[u8]) {
    let first = matches!(json.last(), None | Some(b'{'));
    json.extend_from_slice(if first { key.get(1..).unwrap_or_default() } else { key });
}

fn write_text(json: &mut Vec<u8>, text: &str) -> io::Result<()> {
    Ok(serde_json::to_writer(json, text)?)
}
