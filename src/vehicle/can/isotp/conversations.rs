//! Messages of many senders at once, within bounds. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Form;
use super::receiver::{Event, Receiver};
use crate::link::can::{Frame, Id};

/// Senders listened to at once. A 29-bit bus has 256 addresses, a car far fewer units.
const MOST_SENDERS: usize = 64;

/// What the conversations want done or tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A flow control frame for the bus.
    Send(Frame),
    /// A message came whole or broke.
    Event(Id, Event),
}

/// Who is listened to, and where flow control goes.
#[derive(Debug, Clone)]
struct Peer {
    reply_to: Id,
    receiver: Receiver,
}

/// Several conversations; each sender has one message open at a time.
#[derive(Debug, Clone)]
pub struct Conversations {
    peers: BTreeMap<Id, Peer>,
    /// Bytes of all open messages together.
    most_bytes: usize,
}

impl Conversations {
    /// All open messages together have at most `most_bytes`; what would be more is refused
    /// with flow control "overflow".
    #[must_use]
    pub fn new(most_bytes: usize) -> Self {
        Self { peers: BTreeMap::new(), most_bytes }
    }

    /// Listens to `sender`; flow control for it goes to `reply_to`. False: too many are listened to.
    pub fn listen(&mut self, sender: Id, reply_to: Id, form: Form, block_size: u8, st_min: u8) -> bool {
        if self.peers.contains_key(&sender) {
            return true;
        }
        let room = self.peers.len() < MOST_SENDERS;
        if room {
            let receiver = Receiver::new(form, block_size, st_min);
            self.peers.insert(sender, Peer { reply_to, receiver });
        }
        room
    }

    /// Forgets every sender and what they began to say.
    pub fn clear(&mut self) {
        self.peers.clear();
    }

    /// Whether a message is on its way.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.peers.values().filter_map(|peer| peer.receiver.deadline()).min()
    }

    /// Takes a frame of the bus.
    pub fn on_frame(&mut self, frame: &Frame, now: Duration) -> Vec<Output> {
        let reserved: usize = self.peers.values().map(|peer| peer.receiver.reserved()).sum();
        let Some(peer) = self.peers.get_mut(&frame.id()) else { return Vec::new() };
        let room = (self.most_bytes + peer.receiver.reserved()).saturating_sub(reserved);
        let step = peer.receiver.on_frame(frame.data(), room, now);
        let reply = step.reply.and_then(|data| Frame::new(peer.reply_to, &data, frame.is_fd()));
        let events = step.events.into_iter().map(|event| Output::Event(frame.id(), event));
        reply.map(Output::Send).into_iter().chain(events).collect()
    }

    /// Gives up what is overdue.
    pub fn on_time(&mut self, now: Duration) -> Vec<Output> {
        let overdue = self
            .peers
            .iter_mut()
            .filter_map(|(id, peer)| peer.receiver.on_time(now).map(|event| Output::Event(*id, event)));
        overdue.collect()
    }
}
