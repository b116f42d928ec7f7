//! What the machine is told and what it says.

use std::time::Duration;

use super::{Row, Token};
use crate::config::tables::Confirm;
use crate::event::Class;
use crate::ident::Seq;
use crate::store::Offset;
use crate::store::outbox::ClassCursor;

/// What the configuration says about the drain.
#[derive(Debug, Clone, Hash)]
pub struct Policy {
    /// Whose word counts.
    pub confirm: Confirm,
    /// With `headquarters`: wait for its word.
    pub confirm_timeout: Duration,
    /// Publishes in flight.
    pub max_in_flight: u16,
    /// Their bytes.
    pub max_in_flight_bytes: u64,
    /// The largest packet.
    pub max_packet_bytes: u64,
    /// Backlog rows a second; 0: no limit.
    pub replay_per_s: u32,
}

/// What the broker allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Limits {
    /// Publishes in flight (MQTT 5 §3.2.2.3.3).
    pub receive_maximum: Option<u16>,
    /// The largest packet (MQTT 5 §3.2.2.3.6).
    pub max_packet: Option<u32>,
}

/// How a publish ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has it.
    Accepted,
    /// PUBACK with this reason code (MQTT 5 §3.4.2.1), 0x10 or ≥ 0x80.
    Refused(u8),
}

/// What happens to the machine.
#[derive(Debug, Clone)]
pub enum Input<P> {
    /// Before a connection: how far the log says the classes are delivered. What a
    /// connection that failed had judged, and nobody committed, is forgotten: those
    /// rows are read again.
    TakeUp {
        /// By class; the log's beginning where one is missing.
        delivered: Vec<(Class, ClassCursor)>,
    },
    /// A connection is ready for events; what the log holds now is backlog.
    Connected {
        /// The broker's limits.
        limits: Limits,
        /// The log's last row.
        head: Offset,
    },
    /// The connection is gone.
    Lost,
    /// The connection is gone because the other side closed it: perhaps for what was under way.
    HungUp,
    /// The log may have grown.
    Grown,
    /// A page that was asked for.
    Rows {
        /// Its class.
        class: Class,
        /// Where it was asked from.
        after: ClassCursor,
        /// At most [`super::PAGE`] rows, in order.
        rows: Vec<Row<P>>,
    },
    /// A publish ended.
    Settled {
        /// Which.
        token: Token,
        /// How.
        outcome: Outcome,
    },
    /// Headquarters has everything of an epoch of ours up to these positions.
    Word {
        /// The epoch's number in our file.
        epoch_no: i64,
        /// By class.
        positions: Vec<(Class, Seq)>,
        /// Where our classes ended in that epoch, when it is over. Beyond it somebody
        /// else wrote in our name.
        ends: Vec<(Class, Seq)>,
    },
    /// Headquarters changed the replay rate; 0: no limit.
    ReplayRate(u32),
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<P> {
    /// Read up to [`super::PAGE`] rows of a class.
    Fetch {
        /// The class.
        class: Class,
        /// After this position.
        after: ClassCursor,
    },
    /// Send it; its PUBACK comes back as [`Input::Settled`].
    Publish {
        /// Names it within the connection.
        token: Token,
        /// Its class.
        class: Class,
        /// Topic and payload.
        load: P,
    },
    /// Everything of a class up to here is delivered.
    Delivered {
        /// The class.
        class: Class,
        /// The position.
        to: ClassCursor,
    },
    /// The broker will never take these neighbouring rows: set aside, tell the gap, move past.
    SetAside {
        /// The class.
        class: Class,
        /// The rows.
        rows: Vec<(Offset, ClassCursor)>,
        /// Why.
        reason: String,
    },
    /// A class is refused and waits.
    Refused {
        /// The class.
        class: Class,
        /// The reason code.
        code: u8,
    },
    /// A class that was refused is taken again.
    TakenAgain {
        /// The class.
        class: Class,
    },
}
