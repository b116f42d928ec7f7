//! What the world is made of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use baygate::event::Class;
use baygate::store::outbox::ClassCursor;
use baygate::uplink::session::Token;

use super::peers::{Id, Word};

/// A row of the log.
#[derive(Debug, Clone, Hash)]
pub struct Row {
    pub cursor: ClassCursor,
    pub offset: i64,
    pub bytes: u64,
    /// A `gateway.gap`: the rows it tells of.
    pub tells: Vec<Id>,
}

/// What survives a crash of the gateway.
#[derive(Debug, Clone, Default, Hash)]
pub struct Disk {
    pub log: BTreeMap<Class, Vec<Row>>,
    pub mark: BTreeMap<Class, ClassCursor>,
    pub aside: BTreeSet<Id>,
    /// With their size: what was read before may still go out.
    pub trimmed: BTreeMap<Id, u64>,
    pub epoch_no: i64,
    pub last: BTreeMap<Class, u64>,
    pub ends: BTreeMap<(i64, Class), u64>,
    pub offset: i64,
    pub full: bool,
}

#[derive(Debug, Clone, Hash)]
pub struct Flying {
    pub token: Token,
    pub id: Id,
    pub bytes: u64,
    /// An earlier row of its class was refused while it was on its way.
    pub overtakes: bool,
}

/// How a row stands in this connection, by its last publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sent {
    Flying,
    Taken,
    /// For now.
    Refused,
    /// For ever.
    Rejected,
}

/// One connection.
#[derive(Debug, Clone, Default, Hash)]
pub struct Line {
    pub flying: VecDeque<Flying>,
    pub sent: BTreeMap<Id, Sent>,
    pub words: VecDeque<Word>,
    pub live: bool,
    pub narrow: bool,
    pub last_token: Token,
    /// Handed to the machine and not yet sent.
    pub ready: BTreeMap<Class, VecDeque<Id>>,
    /// Where a class began again: publishes up to here say nothing about it any more.
    pub began_again: BTreeMap<Class, Token>,
    /// Classes of which one was taken since, before headquarters had it: they send without feeling their way.
    pub steady: BTreeSet<Class>,
    /// Slots that went to others while the class could have gone.
    pub skipped: BTreeMap<Class, u32>,
}

/// Readable history; no part of the state.
#[derive(Debug, Clone, Default)]
pub struct Trace(pub Option<Vec<String>>);

impl Hash for Trace {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}
