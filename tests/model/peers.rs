//! The broker and headquarters, as they ought to be: independent of the gateway's
//! code but for the names of positions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use baygate::event::Class;
use baygate::store::outbox::ClassCursor;

/// A row.
pub type Id = (Class, ClassCursor);

/// What an `ack` says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Word {
    pub epoch_no: i64,
    pub classes: BTreeMap<Class, u64>,
}

#[derive(Debug, Clone, Default, Hash)]
pub struct Broker {
    /// Everything it ever took.
    pub had: BTreeSet<Id>,
    /// For headquarters.
    pub queue: VecDeque<Id>,
    /// Our session: whether it is there, and the words in it.
    pub session: bool,
    pub words: VecDeque<Word>,
}

impl Broker {
    pub fn dies(&mut self) {
        *self = Self { had: std::mem::take(&mut self.had), ..Self::default() };
    }
}

/// Takes each class of each epoch in its order only; what comes beyond a hole is left.
#[derive(Debug, Clone, Default, Hash)]
pub struct Headquarters {
    /// In its journal.
    pub has: BTreeSet<Id>,
    /// Rows it was told will never come.
    told: BTreeSet<Id>,
    /// Everything up to here is in, told, or a stranger's.
    up_to: BTreeMap<(i64, Class), u64>,
    /// Up to here somebody else wrote in our name.
    strangers: BTreeMap<(i64, Class), u64>,
    pub last_word: Option<Word>,
}

impl Headquarters {
    pub fn take(&mut self, id: Id, tells: &[Id]) {
        // A gap is read wherever it stands.
        self.told.extend(tells.iter().copied());
        let next = self.up_to(id).saturating_add(1);
        if id.1.class_sequence.0 == next {
            self.has.insert(id);
            self.up_to.insert(key(id), next);
        }
        for about in tells.iter().chain([&id]) {
            while self.told.contains(&self.after(*about)) {
                *self.up_to.entry(key(*about)).or_default() += 1;
            }
        }
    }

    /// A clone of the gateway wrote up to `to`, beyond what we ever wrote.
    pub fn hears_a_stranger(&mut self, epoch_no: i64, class: Class, to: u64) -> Word {
        self.strangers.insert((epoch_no, class), to);
        self.up_to.insert((epoch_no, class), to);
        self.word(epoch_no)
    }

    /// It has a stranger's row under this number: it cannot take ours any more.
    pub fn cannot_take(&self, id: Id) -> bool {
        self.strangers.get(&key(id)).is_some_and(|to| id.1.class_sequence.0 <= *to)
    }

    pub fn word(&self, epoch_no: i64) -> Word {
        let of_it = self.up_to.iter().filter(|((no, _), to)| *no == epoch_no && **to > 0);
        Word { epoch_no, classes: of_it.map(|((_, class), to)| (*class, *to)).collect() }
    }

    fn up_to(&self, id: Id) -> u64 {
        self.up_to.get(&key(id)).copied().unwrap_or_default()
    }

    fn after(&self, id: Id) -> Id {
        let mut at = id.1;
        at.class_sequence.0 = self.up_to(id) + 1;
        (id.0, at)
    }
}

fn key(id: Id) -> (i64, Class) {
    (id.1.epoch_no, id.0)
}
