//! OBDb signal sets (v3 JSON): makers' own identifiers with the signals in their
//! answers. What lives here: the file's form, finding a command by its name, which
//! commands a car is asked, its answers to values. What does not: asking a car. The
//! sets themselves are CC-BY-SA and not part of this program: users drop them in.

mod command;
mod format;
mod name;
mod years;

use std::collections::HashMap;

use serde::Deserialize;
use wildmatch::WildMatch;

pub use command::{Command, NotAsked, Signal};
pub use format::{Format, Value};
pub use years::{Years, model_year};

use name::Name;

use super::answer::Message;
use super::elm327::frame::{self, Frame};
use super::elm327::isotp;
use super::protocol::{EcuAddress, Protocol};
use crate::ident::Vin;

/// A signal set that cannot be used; says line and column.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SignalSetError(#[from] pub serde_json::Error);

/// The commands of a file.
#[derive(Debug, Clone, Deserialize)]
pub struct SignalSet {
    commands: Vec<Command>,
    /// Ours: patterns of the VINs the set is for, `*` and `?` as in file names.
    #[serde(default)]
    vin: Vec<String>,
    /// The file's name.
    #[serde(skip)]
    file: String,
}

impl SignalSet {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// The first place that is no signal set.
    pub fn from_json(bytes: &[u8]) -> Result<Self, SignalSetError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The same for a file: `path:line:column: what is wrong`.
    ///
    /// # Errors
    /// One line for people.
    pub fn from_file(path: &std::path::Path, bytes: &[u8]) -> Result<Self, String> {
        let set = Self::from_json(bytes).map_err(|SignalSetError(error)| {
            format!("{}:{}:{}: {error}", path.display(), error.line(), error.column())
        })?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { file, ..set })
    }

    /// The name of the file it is from; nothing when it is from none.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether a car is one of those it is for. Without patterns it is for every car on
    /// its link; a car that gave no VIN is for no pattern.
    #[must_use]
    pub fn is_for(&self, vin: Option<&Vin>) -> bool {
        let matches =
            |vin: &Vin| self.vin.iter().any(|pattern| WildMatch::new(pattern).matches(vin.as_str()));
        self.vin.is_empty() || vin.is_some_and(matches)
    }

    /// Its commands, as the file orders them.
    #[must_use]
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// The command of a name `HDR[.RAX].CMD[|options]`. Where the set has several
    /// of one name, the options decide.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&Command> {
        let name = Name::parse(name)?;
        let named = self.commands.iter().filter(|command| command.is_named(&name));
        named.max_by_key(|command| command.likeness(&name))
    }
}

impl Command {
    /// The signals of an answer as an adapter prints it with headers: one frame a
    /// line, spaces allowed, several units and messages interleaved.
    #[must_use]
    pub fn decode(&self, response: &str) -> Vec<(&str, Value)> {
        let values = self.values(&self.messages(response));
        values.into_iter().map(|(signal, value)| (signal.id.as_str(), value)).collect()
    }

    /// The signals in whole messages of its unit, each once.
    #[must_use]
    pub fn values(&self, messages: &[Message]) -> Vec<(&Signal, Value)> {
        let mut found: HashMap<&str, Value> = HashMap::new();
        for data in messages.iter().filter_map(|message| self.data(&message.payload)) {
            let signals = self.signals().iter();
            found.extend(signals.filter_map(|signal| Some((signal.id.as_str(), signal.fmt.decode(data)?))));
        }
        let signals = self.signals().iter();
        signals.filter_map(|signal| found.remove(signal.id.as_str()).map(|value| (signal, value))).collect()
    }

    /// The whole messages of the unit that this command is for.
    fn messages(&self, response: &str) -> Vec<Message> {
        let protocol = if self.is_iso_9141() {
            Protocol::Iso9141
        } else if self.is_11_bit() {
            Protocol::Can11At500
        } else {
            Protocol::Can29At500
        };
        let lines = response.lines().map(|line| line.split_ascii_whitespace().collect::<String>());
        let mut frames: Vec<Frame> = lines.filter_map(|line| frame::parse(&line, protocol).ok()).collect();
        if self.has_extended_address() {
            frames.iter_mut().for_each(take_address);
        }
        let assembled =
            if protocol.is_can() { isotp::assemble(&frames) } else { isotp::single_frames(frames) };
        self.of_its_unit(assembled.messages)
    }

    /// What another unit answered is not this command's. Where the set does not
    /// name the unit, the usual one counts if it answered at all.
    #[must_use]
    pub fn of_its_unit(&self, messages: Vec<Message>) -> Vec<Message> {
        let is_from = |message: &Message, id: &str| message.sender.0.split('/').next() == Some(id);
        if let Some(id) = self.answer_id() {
            return messages.into_iter().filter(|message| is_from(message, &id)).collect();
        }
        match self.usual_answer_id() {
            Some(id) if messages.iter().any(|message| is_from(message, &id)) => {
                messages.into_iter().filter(|message| is_from(message, &id)).collect()
            }
            _ => messages,
        }
    }
}

/// ISO 15765-2 extended addressing: the first byte belongs to the sender's address.
fn take_address(frame: &mut Frame) {
    if !frame.data.is_empty() {
        let address = frame.data.remove(0);
        frame.sender = EcuAddress(format!("{}/{address:02X}", frame.sender));
    }
}

#[cfg(test)]
mod tests;
