//! Opening a sector of a MIFARE Classic that is being prepared: as delivered, under whichever key
//! everybody knows, or closed with our own already where an issue was cut off. A Classic counts
//! no failures, so that one key may be tried behind the other; each failure halts the card. What
//! does not live here: when it is done (`preparing`), and the keys (`keys`).

use std::collections::VecDeque;

use crate::card::apdu::{Command, Response};
use crate::card::keys::ClassicLogin;
use crate::card::keys::transport::{CLASSIC, ClassicKey, DELIVERED};

/// A login, at one of its keys.
#[derive(Debug, Clone)]
pub(super) struct SectorLogin {
    block: u8,
    key: Key,
    others: VecDeque<Key>,
    is_loaded: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Key {
    Public(ClassicKey),
    Own(ClassicLogin),
}

/// What the answer to a command of it means.
#[derive(Debug)]
pub(super) enum Opening {
    /// Open; where a key everybody knows did it, which.
    Open(Option<ClassicKey>),
    /// Another command follows.
    More(SectorLogin),
    /// The card is halted: power it anew, then go on with this.
    Halted(SectorLogin),
    /// It takes no key that it can have.
    Closed,
    /// The reader takes no key.
    ReaderFailed,
}

impl SectorLogin {
    /// With the key that most cards are delivered with, and no other.
    pub(super) fn delivered(block: u8) -> Self {
        Self { block, key: Key::Public(DELIVERED), others: VecDeque::new(), is_loaded: false }
    }

    /// With all keys everybody knows. `own`, our key of a card whose issue was cut off, comes
    /// second: a header's sector that is closed takes one of the public ones as well, and that
    /// one only reads.
    pub(super) fn any(block: u8, own: Option<ClassicLogin>) -> Self {
        let public = CLASSIC.iter().filter(|key| **key != DELIVERED).copied().map(Key::Public);
        Self { others: own.map(Key::Own).into_iter().chain(public).collect(), ..Self::delivered(block) }
    }

    /// What opened the sector before is tried first here; not where our own key may be right.
    pub(super) fn prefer(&mut self, known: ClassicKey) {
        let is_own = |key: &Key| matches!(key, Key::Own(_));
        let at = self.others.iter().position(|key| *key == Key::Public(known));
        if let (false, false, Some(at)) = (self.is_loaded, self.others.iter().any(is_own), at)
            && let Some(key) = self.others.remove(at)
        {
            self.others.push_front(std::mem::replace(&mut self.key, key));
        }
    }

    /// The command to send.
    pub(super) fn command(&self) -> Command {
        let ClassicLogin { load, authenticate } = match &self.key {
            Key::Public(key) => key.login(self.block),
            Key::Own(login) => login.clone(),
        };
        if self.is_loaded { authenticate } else { load }
    }

    /// Goes on with the answer to it.
    pub(super) fn answer(&self, response: &Response) -> Opening {
        match (response.ok().is_some(), self.is_loaded, &self.key) {
            (true, false, _) => Opening::More(Self { is_loaded: true, ..self.clone() }),
            (true, true, Key::Public(key)) => Opening::Open(Some(*key)),
            (true, true, Key::Own(_)) => Opening::Open(None),
            (false, false, _) => Opening::ReaderFailed,
            (false, true, _) => {
                let mut others = self.others.clone();
                match others.pop_front() {
                    Some(key) => Opening::Halted(Self { block: self.block, key, others, is_loaded: false }),
                    None => Opening::Closed,
                }
            }
        }
    }
}
