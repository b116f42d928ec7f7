//! Files of a DESFire application or NTAG 424 in the simulator: contents, access rights, and
//! what a transaction holds back until it is committed. After the MF3DHx2/MF3DHx3 data sheets
//! (file types, access rights) and the NTAG 424 DNA data sheet rev. 3.0 §8.2.3. What does not
//! live here: commands and sessions (`desfire`).

use super::ev2::Mode;
use super::session::Channel;

/// A status a card ends a command with.
pub(super) type Status = u8;
/// Nothing to commit or abort.
pub(super) const NO_CHANGES: Status = 0x0C;
/// The reader may not, whoever it is.
pub(super) const PERMISSION_DENIED: Status = 0x9D;
/// A parameter makes no sense.
pub(super) const PARAMETER: Status = 0x9E;
/// Not logged in, or with another key.
pub(super) const AUTHENTICATION: Status = 0xAE;
/// Past an end.
pub(super) const BOUNDARY: Status = 0xBE;

/// Anybody.
const FREE: u8 = 0xE;

/// Four nibbles: read, write, both, change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access(pub u16);

/// What somebody wants of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    Write,
    /// Only who may both read and write: credit of a value. A limited one needs `Write`.
    Both,
    /// Reading of a value: whoever may anything.
    Any,
    Change,
}

impl Access {
    fn nibble(self, shift: u16) -> u8 {
        u8::try_from(self.0 >> shift & 0xF).unwrap_or(0xF)
    }

    fn keys(self, want: Want) -> Vec<u8> {
        let (read, write, both, change) = (self.nibble(12), self.nibble(8), self.nibble(4), self.nibble(0));
        match want {
            Want::Read => vec![read, both],
            Want::Write => vec![write, both],
            Want::Both => vec![both],
            Want::Any => vec![read, write, both],
            Want::Change => vec![change],
        }
    }
}

/// What is in a file.
#[derive(Debug, Clone)]
pub(super) enum Contents {
    /// Written at once.
    Standard(Vec<u8>),
    /// Written at the commit.
    Backup { stored: Vec<u8>, waiting: Option<Vec<u8>> },
    /// A number that is changed at the commit.
    Value(Value),
}

/// A number between two others.
#[derive(Debug, Clone)]
pub(super) struct Value {
    lower: i32,
    upper: i32,
    stored: Counted,
    waiting: Option<Counted>,
    /// Whether LimitedCredit is on.
    has_limited: bool,
}

/// The number, and what LimitedCredit may still give back of it.
#[derive(Debug, Clone, Copy)]
struct Counted {
    number: i32,
    limit: i32,
    /// Taken off in this transaction.
    debited: i32,
}

/// What changes a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Credit,
    Debit,
    LimitedCredit,
}

impl Value {
    /// `None`: it does not lie between its limits, or `limited` is no flag of LimitedCredit. A
    /// GetValue that is free for everybody (02) is not simulated.
    pub(super) fn new([lower, upper, number]: [i32; 3], limited: u8) -> Option<Self> {
        let stored = Counted { number, limit: 0, debited: 0 };
        let is_right = (lower..=upper).contains(&number) && limited <= 1;
        is_right.then_some(Self { lower, upper, stored, waiting: None, has_limited: limited == 1 })
    }

    /// Amounts are never negative.
    fn change(&mut self, amount: i32, change: Change) -> Result<(), Status> {
        if amount < 0 {
            return Err(PARAMETER);
        }
        let mut now = self.waiting.unwrap_or(self.stored);
        let then = match change {
            Change::Credit => now.number.checked_add(amount),
            Change::Debit => {
                now.debited = now.debited.saturating_add(amount);
                now.number.checked_sub(amount)
            }
            Change::LimitedCredit if !self.has_limited => return Err(PERMISSION_DENIED),
            Change::LimitedCredit if amount > now.limit => return Err(BOUNDARY),
            Change::LimitedCredit => {
                // Once, however much of it is given back.
                now.limit = 0;
                now.number.checked_add(amount)
            }
        };
        now.number = then.filter(|then| (self.lower..=self.upper).contains(then)).ok_or(BOUNDARY)?;
        self.waiting = Some(now);
        Ok(())
    }

    /// What was taken off in it is what may be given back after it.
    fn commit(&mut self) -> bool {
        let Some(new) = self.waiting.take() else { return false };
        let limit = if new.debited > 0 { new.debited } else { new.limit };
        self.stored = Counted { limit, debited: 0, ..new };
        true
    }
}

/// A file.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub mode: Mode,
    pub access: Access,
    pub contents: Contents,
    /// Of an NTAG 424: what its settings say of dynamic data; empty for none.
    pub dynamic: Vec<u8>,
}

impl File {
    /// Whether `want` is allowed, and how the command must then be protected: what is free
    /// for everybody is plain for whoever has no key of it.
    pub(super) fn allow(&self, want: Want, channel: Option<&Channel>) -> Result<Mode, Status> {
        let keys = self.access.keys(want);
        if channel.is_some_and(|channel| keys.contains(&channel.number())) {
            return Ok(self.mode);
        }
        if keys.contains(&FREE) {
            return Ok(Mode::Plain);
        }
        Err(if keys.iter().all(|key| *key > FREE) { PERMISSION_DENIED } else { AUTHENTICATION })
    }

    /// What was committed; a length of 0 is all from the offset on.
    pub(super) fn read(&self, offset: usize, length: usize) -> Result<Vec<u8>, Status> {
        let bytes = match &self.contents {
            Contents::Standard(bytes) | Contents::Backup { stored: bytes, .. } => bytes,
            Contents::Value(_) => return Err(PARAMETER),
        };
        let end = if length == 0 { bytes.len() } else { offset.saturating_add(length) };
        bytes.get(offset..end).map(<[u8]>::to_vec).ok_or(BOUNDARY)
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) -> Result<(), Status> {
        let bytes = match &mut self.contents {
            Contents::Standard(bytes) => bytes,
            Contents::Backup { stored, waiting } => waiting.get_or_insert_with(|| stored.clone()),
            Contents::Value(_) => return Err(PARAMETER),
        };
        let place = bytes.get_mut(offset..offset.saturating_add(data.len())).ok_or(BOUNDARY)?;
        place.copy_from_slice(data);
        Ok(())
    }

    /// Of what was committed.
    pub(super) fn cell_mut(&mut self, offset: usize) -> Option<&mut u8> {
        match &mut self.contents {
            Contents::Standard(bytes) | Contents::Backup { stored: bytes, .. } => bytes.get_mut(offset),
            Contents::Value(_) => None,
        }
    }

    pub(super) fn value(&self) -> Result<i32, Status> {
        match self.contents {
            Contents::Value(ref value) => Ok(value.stored.number),
            _ => Err(PARAMETER),
        }
    }

    /// Adds, or takes off.
    pub(super) fn change_value(&mut self, amount: i32, change: Change) -> Result<(), Status> {
        match &mut self.contents {
            Contents::Value(value) => value.change(amount, change),
            _ => Err(PARAMETER),
        }
    }

    /// Makes what waits the truth; whether anything waited.
    pub(super) fn commit(&mut self) -> bool {
        match &mut self.contents {
            Contents::Standard(_) => false,
            Contents::Backup { stored, waiting } => waiting.take().map(|new| *stored = new).is_some(),
            Contents::Value(value) => value.commit(),
        }
    }

    /// Forgets what waits; whether anything did.
    pub(super) fn abort(&mut self) -> bool {
        match &mut self.contents {
            Contents::Standard(_) => false,
            Contents::Backup { waiting, .. } => waiting.take().is_some(),
            Contents::Value(value) => value.waiting.take().is_some(),
        }
    }

    /// Bytes it takes; a backup file has a second copy.
    pub(super) fn size(&self) -> usize {
        match &self.contents {
            Contents::Standard(bytes) => bytes.len(),
            Contents::Backup { stored, .. } => 2 * stored.len(),
            Contents::Value(_) => 32,
        }
    }

    /// The answer to GetFileSettings.
    pub(super) fn settings(&self) -> Vec<u8> {
        let [low, high] = self.access.0.to_le_bytes();
        let has_dynamic = if self.dynamic.is_empty() { 0x00 } else { 0x40 };
        let head = |kind: u8| vec![kind, self.mode.settings() | has_dynamic, low, high];
        let size = |bytes: &[u8]| bytes.len().to_le_bytes().into_iter().take(3).collect::<Vec<u8>>();
        match &self.contents {
            Contents::Standard(bytes) => [head(0x00), size(bytes), self.dynamic.clone()].concat(),
            Contents::Backup { stored, .. } => [head(0x01), size(stored)].concat(),
            Contents::Value(value) => {
                let numbers = [value.lower, value.upper, value.stored.limit].map(i32::to_le_bytes);
                [head(0x02), numbers.as_flattened().to_vec(), vec![value.has_limited.into()]].concat()
            }
        }
    }
}
