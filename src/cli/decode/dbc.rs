//! `decode --dbc`: a candump log in, JSON Lines out (contract §6).

use std::io::{self, BufRead, Write};

use crate::vehicle::candump::{self, Frame};
use crate::vehicle::dbc::{Database, Decoder, Message, Signal, Value};

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
    let mut decoder = database.decoder();
    let (mut raw, mut json, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    let mut number = 0;
    loop {
        raw.clear();
        if input.read_until(b'\n', &mut raw)? == 0 {
            return Ok(tally);
        }
        number += 1;
        let line = std::str::from_utf8(&raw).unwrap_or("\u{FFFD}");
        if line.trim().is_empty() {
            continue;
        }
        let Some(line) = candump::parse(line) else {
            tally.unreadable += 1;
            tally.first_unreadable_line.get_or_insert(number);
            continue;
        };
        let Frame::Data { id, extended, data, .. } = &line.frame else {
            tally.without_data += 1;
            continue;
        };
        let Some(message) = database.message(*id, *extended) else {
            tally.unknown += 1;
            continue;
        };
        json.clear();
        write_line(&mut json, &mut labels, &line, *id, message, data.as_bytes(), &mut decoder)?;
        out.write_all(&json)?;
        tally.decoded += 1;
    }
}

fn write_line<'d>(
    json: &mut Vec<u8>,
    labels: &mut Vec<u8>,
    line: &candump::Line<'_>,
    id: u32,
    message: &'d Message,
    data: &[u8],
    decoder: &mut Decoder<'d>,
) -> io::Result<()> {
    write!(json, "{{\"time\":{},\"interface\":", line.time)?;
    write_text(json, line.interface)?;
    write!(json, ",\"id\":{id},\"message\":")?;
    write_text(json, message.name())?;
    json.extend_from_slice(b",\"signals\":{");
    labels.clear();
    let mut outcome = Ok(());
    decoder.decode(message, data, |signal, raw, value| {
        if outcome.is_ok() {
            outcome = write_signal(json, labels, signal, raw, value);
        }
    });
    outcome?;
    json.extend_from_slice(b"},\"labels\":{");
    json.extend_from_slice(labels);
    json.extend_from_slice(b"}}\n");
    Ok(())
}

fn write_signal(
    json: &mut Vec<u8>,
    labels: &mut Vec<u8>,
    signal: &Signal,
    raw: u64,
    value: Value,
) -> io::Result<()> {
    write_key(json, signal);
    match value {
        Value::Integer(number) => match i64::try_from(number) {
            Ok(number) => serde_json::to_writer(&mut *json, &number)?,
            Err(_) => write!(json, "{number}")?,
        },
        // JSON has no word for "no number".
        Value::Real(number) => serde_json::to_writer(&mut *json, &number)?,
    }
    if let Some(text) = signal.text(raw) {
        write_key(labels, signal);
        write_text(labels, text)?;
    }
    Ok(())
}

fn write_key(json: &mut Vec<u8>, signal: &Signal) {
    if !matches!(json.last(), None | Some(b'{')) {
        json.push(b',');
    }
    json.extend_from_slice(signal.json_key().as_bytes());
}

fn write_text(json: &mut Vec<u8>, text: &str) -> io::Result<()> {
    Ok(serde_json::to_writer(json, text)?)
}
