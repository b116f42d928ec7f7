//! The drain as a pure state machine: what to read, what to send, what is
//! delivered. No I/O, no clock: a thin task (`driver`) feeds it inputs with their
//! time and carries out its outputs. What does not live here: the connection
//! itself, and whether HQ's words call for a new epoch (`word`). Another machine
//! of the same state goes on alike: `tests/uplink_model.rs` explores it.
//!
//! ```text
//!  log ──Fetch/Rows──► lane ready ──Publish──► lane sent ──Settled──► (Confirmed) ──► Delivered
//!                        ▲   one lane a class        │
//!                        └────── rewind: Lost, refused, no word from HQ ◄──┘
//! ```
//! Nothing is kept over a lost connection but the delivered positions: the rest
//! is read from the log again.

mod view;
mod words;

use std::time::{Duration, Instant};

pub use self::words::{Input, Limits, Outcome, Output, Policy};
use super::backoff::Backoff;
use super::flow::Flow;
pub use super::flow::Token;
pub use super::lane::Row;
use super::lane::{Lane, Retired, Stage};
use crate::config::tables::Confirm;
use crate::event::Class;
use crate::ident::Seq;
use crate::store::Offset;
use crate::store::outbox::ClassCursor;

/// Rows a read asks for.
pub const PAGE: usize = 64;
/// A lane is read again when fewer rows than this are ready: what is sent while a read
/// is under way.
const REFILL: usize = 48;
/// A waiting class gets one send slot in this many (contract §4).
const SLOTS: u32 = 16;
/// With `confirm = "headquarters"`: rows of one class sent without HQ's word on them, at
/// most, while any words of it come. Until the first word of a connection, and
/// after a timeout, it is one window (`max_in_flight`).
pub const MAX_UNCONFIRMED: usize = 1024;
/// Hang-ups in a row after which each class sends one event at a time.
const HANG_UPS: u32 = 2;
/// Events taken in a row after which hang-ups are forgotten.
const CALM: u32 = 64;
/// The longest wait before sending again (contract §4).
const RESEND_MOST: Duration = Duration::from_secs(3600);

/// The machine.
#[derive(Debug, Clone, Hash)]
pub struct Session<P> {
    policy: Policy,
    lanes: Vec<Lane<P>>,
    /// `Some` while connected.
    flow: Option<Flow>,
    max_packet: u64,
    /// Rows up to here were in the log when the connection began.
    backlog_to: Offset,
    replay_at: Option<Instant>,
    next_token: Token,
    /// Connections in a row that the other side closed with events under way.
    hang_ups: u32,
    /// Events taken since.
    calm: u32,
    /// Whether two loads go to the same topic.
    alike: fn(&P, &P) -> bool,
}

impl<P: Clone> Session<P> {
    /// A machine that begins at the delivered positions. `seed` is for jitter.
    #[must_use]
    pub fn new(policy: Policy, delivered: &[(Class, ClassCursor)], seed: u64) -> Self {
        let lane = |class: Class| {
            let at =
                delivered.iter().find(|(of, _)| *of == class).map_or_else(Default::default, |(_, at)| *at);
            let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), seed ^ class as u64);
            Lane::new(class, at, backoff, policy.confirm_timeout)
        };
        Self {
            lanes: Class::ALL.into_iter().map(lane).collect(),
            max_packet: policy.max_packet_bytes,
            policy,
            flow: None,
            backlog_to: Offset::default(),
            replay_at: None,
            next_token: 1,
            hang_ups: 0,
            calm: 0,
            alike: |_, _| true,
        }
    }

    /// With the sender's word on which loads go to the same topic.
    #[must_use]
    pub fn comparing(self, alike: fn(&P, &P) -> bool) -> Self {
        Self { alike, ..self }
    }

    /// One input, at `now`.
    pub fn step(&mut self, now: Instant, input: Input<P>) -> Vec<Output<P>> {
        let mut out = Vec::new();
        match input {
            Input::TakeUp { delivered } => self.take_up(&delivered),
            Input::Connected { limits, head } => self.connected(now, limits, head),
            Input::Lost => self.lost(),
            Input::HungUp => {
                self.hung_up();
                self.lost();
            }
            Input::Grown => self.lanes.iter_mut().for_each(|lane| lane.more = true),
            Input::Rows { class, after, rows } => self.rows(class, after, rows),
            Input::Settled { token, outcome } => self.settled(now, token, outcome, &mut out),
            Input::Word { epoch_no, positions, ends } => self.word(epoch_no, &positions, &ends, &mut out),
            Input::ReplayRate(per_s) => {
                self.policy.replay_per_s = per_s;
                self.replay_at = None;
            }
            Input::Tick => {}
        }
        if self.flow.is_some() {
            self.forget_past_deadlines(now);
            self.resend(now);
            self.send(now, &mut out);
            self.fetch(&mut out);
        }
        out
    }

    /// When to come back with a [`Input::Tick`], if nothing else happens.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        self.flow.as_ref()?;
        let lanes = self.lanes.iter().flat_map(|lane| [lane.blocked_until, lane.resend_at]);
        lanes.chain([self.replay_at]).flatten().min()
    }

    /// Takes up the delivered positions as the log has them. What a connection that
    /// failed had judged, and nobody committed, is forgotten: those rows are read again.
    fn take_up(&mut self, delivered: &[(Class, ClassCursor)]) {
        for lane in &mut self.lanes {
            let at = delivered.iter().find(|(of, _)| *of == lane.class);
            lane.take_up(at.map_or_else(Default::default, |(_, at)| *at));
        }
    }

    fn connected(&mut self, now: Instant, limits: Limits, head: Offset) {
        let count = self.policy.max_in_flight.min(limits.receive_maximum.unwrap_or(u16::MAX));
        self.flow = Some(Flow::new(usize::from(count), self.policy.max_in_flight_bytes));
        self.max_packet = self.policy.max_packet_bytes.min(limits.max_packet.map_or(u64::MAX, u64::from));
        self.backlog_to = head;
        for lane in &mut self.lanes {
            lane.rewind();
            lane.rest(now);
            lane.probing = true;
            lane.ahead = usize::from(self.policy.max_in_flight);
        }
    }

    fn lost(&mut self) {
        self.flow = None;
        self.replay_at = None;
        self.lanes.iter_mut().for_each(Lane::rewind);
    }

    fn hung_up(&mut self) {
        let under_way = self.flow.as_ref().map_or(0, Flow::in_flight);
        if under_way > 0 {
            self.hang_ups = self.hang_ups.saturating_add(1);
            self.calm = 0;
            self.lanes.iter_mut().for_each(|lane| lane.blame(under_way == 1));
        }
    }

    fn rows(&mut self, class: Class, after: ClassCursor, rows: Vec<Row<P>>) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.class == class) else { return };
        // A page asked for before a rewind is stale.
        if lane.fetching.take_if(|from| *from == after).is_none() {
            return;
        }
        if rows.len() >= PAGE {
            lane.more = true;
        }
        for row in rows {
            if row.cursor > lane.read_to {
                lane.read_to = row.cursor;
                lane.ready.push_back(row);
            }
        }
    }

    fn settled(&mut self, now: Instant, token: Token, outcome: Outcome, out: &mut Vec<Output<P>>) {
        if !self.flow.as_mut().is_some_and(|flow| flow.acknowledged(token, now)) {
            return;
        }
        let by_broker = self.policy.confirm == Confirm::Broker;
        if outcome == Outcome::Accepted {
            self.calm = self.calm.saturating_add(1);
            if self.calm >= CALM {
                self.hang_ups = 0;
            }
        }
        for lane in &mut self.lanes {
            if lane.hear_witness(token, outcome, now) {
                return;
            }
            match outcome {
                Outcome::Accepted if lane.settle(token, Stage::Taken) => {
                    lane.probing = false;
                    lane.refusals.reset();
                    if lane.refused.take().is_some() {
                        out.push(Output::TakenAgain { class: lane.class });
                    }
                }
                Outcome::Refused(code) if is_final(code) => {
                    let reason = format!("refused with reason code 0x{code:02X}");
                    if !lane.settle(token, Stage::Rejected(reason)) {
                        continue;
                    }
                    rejected(lane, code, now, out);
                }
                Outcome::Refused(code) if lane.settle(token, Stage::Taken) => {
                    lane.rewind();
                    lane.probing = true;
                    lane.blocked_until = Some(now + lane.refusals.wait());
                    lane.refused = Some(code);
                    out.push(Output::Refused { class: lane.class, code });
                    return;
                }
                _ => continue,
            }
            retire(lane, by_broker, out);
            return;
        }
    }

    fn word(
        &mut self,
        epoch_no: i64,
        positions: &[(Class, Seq)],
        ends: &[(Class, Seq)],
        out: &mut Vec<Output<P>>,
    ) {
        if self.policy.confirm == Confirm::Broker {
            return;
        }
        for lane in &mut self.lanes {
            // Headquarters answers, if only about others: the gap that lets it go on in
            // this class may lie further ahead than one window.
            lane.ahead = MAX_UNCONFIRMED.max(usize::from(self.policy.max_in_flight));
            let of = |list: &[(Class, Seq)]| list.iter().find(|(of, _)| *of == lane.class).map(|(_, at)| *at);
            let Some(to) = of(positions) else { continue };
            let cursor = |class_sequence| ClassCursor { epoch_no, class_sequence };
            let to = match of(ends) {
                // What headquarters has beyond our end need not be what waits here unsent.
                Some(end) if to > end => match cursor(end).min(lane.taken_to()) {
                    to if to.epoch_no == epoch_no => to,
                    _ => continue,
                },
                _ => cursor(to),
            };
            if lane.confirm(to) {
                // What headquarters has the broker took, though its PUBACK is still on the way.
                lane.probing &= lane.refused.is_some();
                lane.resend_in = self.policy.confirm_timeout;
                lane.resend_at = None;
                retire(lane, false, out);
            }
        }
    }

    /// A deadline that has passed must not wake anybody again.
    fn forget_past_deadlines(&mut self, now: Instant) {
        self.replay_at.take_if(|at| *at <= now);
        for lane in &mut self.lanes {
            lane.blocked_until.take_if(|until| *until <= now);
        }
    }

    /// Without HQ's word for too long: from the delivered position again, one window, and twice as patient.
    fn resend(&mut self, now: Instant) {
        if self.policy.confirm == Confirm::Broker {
            return;
        }
        for lane in &mut self.lanes {
            if !lane.waits_for_word() {
                lane.resend_at = None;
                continue;
            }
            if *lane.resend_at.get_or_insert(now + lane.resend_in) <= now {
                lane.rewind();
                lane.ahead = usize::from(self.policy.max_in_flight);
                lane.resend_in = (lane.resend_in * 2).min(RESEND_MOST);
            }
        }
    }

    fn send(&mut self, now: Instant, out: &mut Vec<Output<P>>) {
        let by_broker = self.policy.confirm == Confirm::Broker;
        while let Some(class) = self.next_class(now) {
            let Some(flow) = self.flow.as_mut() else { return };
            let Some(lane) = self.lanes.iter_mut().find(|lane| lane.class == class) else { return };
            let Some(bytes) = lane.ready.front().map(|row| row.bytes) else { return };
            let never = lane.never(self.max_packet);
            let alone = lane.next_flies_alone();
            if never.is_none() && (alone && flow.in_flight() > 0 || !flow.admits(class, bytes)) {
                // The one whose turn it is waits for room; letting smaller ones past would starve it.
                return;
            }
            let token = self.next_token;
            self.next_token += 1;
            if never.is_none()
                && alone
                && let Some((load, bytes)) = lane.witness(self.alike)
            {
                lane.call_witness(token);
                flow.sent(token, class, bytes, now);
                out.push(Output::Publish { token, class, load });
                return;
            }
            let Some(row) = lane.ready.pop_front() else { return };
            if let Some(reason) = never {
                lane.push(&row, Stage::Rejected(reason));
                if bytes > self.max_packet && self.max_packet < self.policy.max_packet_bytes {
                    rejected(lane, 0x95, now, out);
                }
                retire(lane, by_broker, out);
                continue;
            }
            lane.push(&row, Stage::Flying(token));
            flow.sent(token, class, bytes, now);
            if row.offset <= self.backlog_to && self.policy.replay_per_s > 0 {
                let pace = Duration::from_secs(1) / self.policy.replay_per_s;
                self.replay_at = Some(self.replay_at.map_or(now, |at| at.max(now)) + pace);
            }
            out.push(Output::Publish { token, class, load: row.load });
            self.count_slot(class, now);
        }
    }

    /// Whose turn it is: by priority, unless somebody could else miss its slot in sixteen.
    fn next_class(&self, now: Instant) -> Option<Class> {
        if self.lanes.iter().any(Lane::holds_line) {
            return None;
        }
        let waiting = || self.lanes.iter().filter(|lane| self.waits(lane, now));
        let first = waiting().next().map(|lane| lane.class);
        let most = waiting().map(|lane| lane.skipped).max()?;
        // As it nearly always is, and this is asked for every event sent.
        if most + u32::try_from(self.lanes.len()).unwrap_or(SLOTS) < SLOTS {
            return first;
        }
        let mut waiting: Vec<&Lane<P>> = waiting().collect();
        waiting.sort_by_key(|lane| std::cmp::Reverse(lane.skipped));
        let urgent = (0_u32..).zip(&waiting).any(|(place, lane)| lane.skipped + place + 1 >= SLOTS);
        if urgent { waiting.first().map(|lane| lane.class) } else { first }
    }

    fn waits(&self, lane: &Lane<P>, now: Instant) -> bool {
        let Some(row) = lane.ready.front() else { return false };
        let most = match self.policy.confirm {
            // PUBACKs out of order may keep settled rows behind one that is still missing.
            Confirm::Broker => 4 * usize::from(self.policy.max_in_flight),
            Confirm::Headquarters => lane.ahead,
        };
        lane.blocked_until.is_none_or(|until| until <= now)
            && !((lane.probing || self.hang_ups >= HANG_UPS) && lane.has_flying())
            && lane.outstanding() < most
            && (row.offset > self.backlog_to || self.replay_at.is_none_or(|at| at <= now))
    }

    fn count_slot(&mut self, sent: Class, now: Instant) {
        let waiting: [bool; Class::ALL.len()] =
            std::array::from_fn(|at| self.lanes.get(at).is_some_and(|lane| self.waits(lane, now)));
        for (lane, waits) in self.lanes.iter_mut().zip(waiting) {
            lane.skipped = if lane.class == sent || !waits { 0 } else { lane.skipped + 1 };
        }
    }

    fn fetch(&mut self, out: &mut Vec<Output<P>>) {
        for lane in &mut self.lanes {
            if lane.more && lane.fetching.is_none() && lane.ready.len() < REFILL {
                lane.more = false;
                lane.fetching = Some(lane.read_to);
                out.push(Output::Fetch { class: lane.class, after: lane.read_to });
            }
        }
    }
}

/// Reason codes that say "never": topic name invalid, packet too large, payload format invalid.
fn is_final(code: u8) -> bool {
    matches!(code, 0x90 | 0x95 | 0x99)
}

/// A row was rejected for ever. A broker that rejects everything must not empty the log in a
/// second: the class waits, and from the second in a row on that is said.
fn rejected<P: Clone>(lane: &mut Lane<P>, code: u8, now: Instant, out: &mut Vec<Output<P>>) {
    let wait = lane.refusals.wait();
    if code != 0x95 || lane.refusals.failures() > 1 {
        lane.blocked_until = Some(now + wait);
    }
    if lane.refusals.failures() > 1 && lane.refused.replace(code) != Some(code) {
        out.push(Output::Refused { class: lane.class, code });
    }
}

fn retire<P: Clone>(lane: &mut Lane<P>, by_broker: bool, out: &mut Vec<Output<P>>) {
    let class = lane.class;
    for retired in lane.retire(by_broker) {
        match (retired, out.last_mut()) {
            (Retired::Delivered(cursor), Some(Output::Delivered { class: of, to })) if *of == class => {
                *to = cursor;
            }
            (Retired::Delivered(to), _) => out.push(Output::Delivered { class, to }),
            (
                Retired::Rejected { offset, cursor, reason },
                Some(Output::SetAside { class: of, rows, reason: same }),
            ) if *of == class && *same == reason => rows.push((offset, cursor)),
            (Retired::Rejected { offset, cursor, reason }, _) => {
                out.push(Output::SetAside { class, rows: vec![(offset, cursor)], reason });
            }
        }
    }
}
