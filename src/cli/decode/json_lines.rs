//! Decoded frames as JSON Lines: `{"time":…,"interface":…,"id":…,"message":…,"signals":{…},"labels":{…}}`
//! (contract §6). Writing is most of the work of decoding a log, therefore all that is the
//! same in every line of a message is made once, and nothing is allocated for a frame.

use std::io::Write as _;

use serde::Serialize;

use super::digits;
use crate::vehicle::dbc::{Database, Message, Selectors, Signal, Value};

/// Lines, one behind the other.
pub struct Lines<'d> {
    /// As [`Database::messages`] orders them.
    messages: Vec<(&'d Message, Wording)>,
    selectors: Selectors,
    json: Vec<u8>,
    labels: Vec<u8>,
}

/// What is the same in every line of a message.
struct Wording {
    /// From behind the interface to the first signal.
    head: Vec<u8>,
    /// Each signal's name with a comma before and a colon behind it.
    keys: Vec<Vec<u8>>,
}

impl<'d> Lines<'d> {
    pub fn new(database: &'d Database) -> Self {
        let messages = database.messages().iter().map(|message| (message, Wording::of(message))).collect();
        Self { messages, selectors: Selectors::default(), json: Vec::new(), labels: Vec::new() }
    }

    /// All lines since [`Lines::clear`].
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// Forgets the lines and keeps their memory.
    pub fn clear(&mut self) {
        self.json.clear();
    }

    /// Adds the line of a frame. `time`: a JSON number; `place`: of its message in
    /// [`Database::messages`].
    pub fn push(&mut self, time: &[u8], interface: &str, place: usize, data: &[u8]) {
        let Self { messages, selectors, json, labels } = self;
        let Some((message, wording)) = messages.get(place) else { return };
        json.extend_from_slice(b"{\"time\":");
        json.extend_from_slice(time);
        json.extend_from_slice(b",\"interface\":");
        write(json, interface);
        json.extend_from_slice(&wording.head);
        labels.clear();
        message.decode(data, selectors, |at, signal, raw| {
            if let Some(key) = wording.keys.get(at) {
                write_signal(json, labels, key, signal, raw);
            }
        });
        json.extend_from_slice(b"},\"labels\":{");
        json.extend_from_slice(labels);
        json.extend_from_slice(b"}}\n");
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

fn write_signal(json: &mut Vec<u8>, labels: &mut Vec<u8>, key: &[u8], signal: &Signal, raw: u64) {
    write_key(json, key);
    match signal.value(raw) {
        Value::Integer(number) => match i64::try_from(number) {
            Ok(number) => write(json, &number),
            Err(_) => drop(write!(json, "{number}")),
        },
        Value::Real(number) => {
            if !signal.decimal(raw).is_some_and(|decimal| digits::write(json, number, decimal)) {
                // JSON has no word for "no number": `null`.
                write(json, &number);
            }
        }
    }
    if let Some(text) = signal.text(raw) {
        write_key(labels, key);
        write(labels, text);
    }
}

/// Without its comma where it is the first: labels begin empty, signals behind a brace.
fn write_key(json: &mut Vec<u8>, key: &[u8]) {
    let first = matches!(json.last(), None | Some(b'{'));
    json.extend_from_slice(if first { key.get(1..).unwrap_or_default() } else { key });
}

/// A number or a text, which always has a form; memory takes it.
fn write<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    drop(serde_json::to_writer(json, value));
}
