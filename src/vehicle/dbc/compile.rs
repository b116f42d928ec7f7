//! A database ready to decode: messages found by arbitration ID in one step,
//! multiplexers worked out before the signals they select.

use std::collections::HashMap;

use super::parse::{self, DatabaseText, EXTENDED, MessageText, SignalText};
use super::signal::{Frame, Selection, Signal};
use super::{DbcError, Oddity};

/// Standard arbitration IDs (ISO 11898-1: 11 bits).
const STANDARD_IDS: usize = 0x800;

/// One message of the database.
#[derive(Debug)]
pub struct Message {
    id: u32,
    name: String,
    signals: Vec<Signal>,
    /// Indexes into `signals`, each after the one that selects it.
    multiplexers: Vec<usize>,
}

impl Message {
    /// Its arbitration ID, without the mark of an extended frame.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its signals, as the file orders them.
    #[must_use]
    pub fn signals(&self) -> &[Signal] {
        &self.signals
    }
}

/// A compiled DBC file.
#[derive(Debug)]
pub struct Database {
    messages: Vec<Message>,
    standard: Vec<Option<usize>>,
    extended: HashMap<u32, usize>,
    oddities: Vec<Oddity>,
}

impl Database {
    /// Reads and compiles a file's bytes (UTF-8 or Windows-1252).
    ///
    /// # Errors
    /// The first place that is no DBC or cannot be decoded.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DbcError> {
        let DatabaseText { messages, oddities, .. } = parse::parse(bytes)?;
        let mut database = Self {
            messages: Vec::with_capacity(messages.len()),
            standard: vec![None; STANDARD_IDS],
            extended: HashMap::new(),
            oddities,
        };
        for message in &messages {
            let at = database.messages.len();
            database.messages.push(compile(message, &mut database.oddities)?);
            let slot = usize::try_from(message.number).ok().and_then(|id| database.standard.get_mut(id));
            if let Some(slot) = slot {
                *slot = Some(at);
            } else {
                database.extended.insert(message.number & !EXTENDED, at);
            }
        }
        Ok(database)
    }

    /// What was odd in the file and passed over.
    #[must_use]
    pub fn oddities(&self) -> &[Oddity] {
        &self.oddities
    }

    /// Its messages, as the file orders them.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The message of an arbitration ID.
    #[must_use]
    pub fn message(&self, id: u32, extended: bool) -> Option<&Message> {
        self.messages.get(self.place(id, extended)?)
    }

    /// Where in [`Database::messages`] the message of an arbitration ID stands.
    #[must_use]
    pub fn place(&self, id: u32, extended: bool) -> Option<usize> {
        if extended {
            self.extended.get(&id).copied()
        } else {
            self.standard.get(usize::try_from(id).ok()?).copied().flatten()
        }
    }
}

/// Raw values of a message's multiplexers, by signal; `None`: not there. Kept from frame
/// to frame, so that decoding allocates nothing.
#[derive(Debug, Default)]
pub struct Selectors(Vec<Option<u64>>);

impl Selectors {
    fn read(&mut self, message: &Message, frame: &Frame<'_>) {
        if message.multiplexers.is_empty() {
            return;
        }
        self.0.clear();
        self.0.resize(message.signals.len(), None);
        for &at in &message.multiplexers {
            let signal = message.signals.get(at).filter(|signal| self.select(signal));
            let raw = signal.and_then(|signal| signal.raw(frame));
            if let Some(slot) = self.0.get_mut(at) {
                *slot = raw;
            }
        }
    }

    fn select(&self, signal: &Signal) -> bool {
        let Some(selection) = &signal.selected_by else { return true };
        let Some(Some(raw)) = self.0.get(selection.multiplexer) else { return false };
        selection.ranges.iter().any(|(low, high)| (low..=high).contains(&raw))
    }
}

impl Message {
    /// Gives each signal that the frame holds, with its place in [`Message::signals`]
    /// and its raw bits, to `take`.
    pub fn decode<'m>(
        &'m self,
        data: &[u8],
        selectors: &mut Selectors,
        mut take: impl FnMut(usize, &'m Signal, u64),
    ) {
        let frame = Frame::new(data);
        selectors.read(self, &frame);
        for (at, signal) in self.signals.iter().enumerate() {
            if selectors.select(signal)
                && let Some(raw) = signal.raw(&frame)
            {
                take(at, signal, raw);
            }
        }
    }
}

fn compile(text: &MessageText, oddities: &mut Vec<Oddity>) -> Result<Message, DbcError> {
    let mut signals = text.signals.iter().map(Signal::new).collect::<Result<Vec<_>, _>>()?;
    for (signal, written) in signals.iter_mut().zip(&text.signals) {
        signal.selected_by = selection(text, written)?;
        if written.start_bit / 8 >= text.length_bytes {
            let what = format!(
                "signal {} lies beyond the {} bytes of its message: decoded where a frame is long enough",
                written.name, text.length_bytes
            );
            oddities.push(Oddity { line: written.line, what });
        }
    }
    let multiplexers = in_order(text, &signals)?;
    Ok(Message { id: text.number & !EXTENDED, name: text.name.clone(), signals, multiplexers })
}

/// What selects a signal: its own `SG_MUL_VAL_`, else its message's one
/// multiplexer with the value behind its `m`.
fn selection(message: &MessageText, signal: &SignalText) -> Result<Option<Selection>, DbcError> {
    let refuse = |reason: String| Err(DbcError::at(signal.line, signal.column, reason));
    let place = |test: &dyn Fn(&SignalText) -> bool| message.signals.iter().position(test);
    if let Some((name, ranges)) = &signal.selected_by {
        let Some(multiplexer) = place(&|other| other.name == *name && other.multiplexer) else {
            return refuse(format!(
                "signal {} is selected by {name}, which is no multiplexer of its message",
                signal.name
            ));
        };
        return Ok(Some(Selection { multiplexer, ranges: ranges.clone() }));
    }
    let Some(value) = signal.selector else { return Ok(None) };
    let Some(multiplexer) = place(&|other| other.multiplexer && other.selector.is_none()) else {
        return refuse(format!(
            "signal {} is multiplexed (m{value}), but its message has no multiplexer (M)",
            signal.name
        ));
    };
    Ok(Some(Selection { multiplexer, ranges: vec![(value, value)] }))
}

/// The multiplexers, each after the one that selects it.
fn in_order(text: &MessageText, signals: &[Signal]) -> Result<Vec<usize>, DbcError> {
    let mut ordered: Vec<usize> = Vec::new();
    let mut waiting: Vec<usize> =
        text.signals.iter().enumerate().filter(|(_, signal)| signal.multiplexer).map(|(at, _)| at).collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|&at| {
            let selected_by = signals.get(at).and_then(|signal| signal.selected_by.as_ref());
            let ready = selected_by.is_none_or(|selection| ordered.contains(&selection.multiplexer));
            if ready {
                ordered.push(at);
            }
            !ready
        });
        if waiting.len() == before {
            let stuck = waiting.first().and_then(|&at| text.signals.get(at));
            let (line, column, name) =
                stuck.map_or((text.line, 1, ""), |s| (s.line, s.column, s.name.as_str()));
            return Err(DbcError::at(line, column, format!("multiplexer {name} selects itself")));
        }
    }
    Ok(ordered)
}
