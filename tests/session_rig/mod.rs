//! The drain's state machine on a log in memory, with a broker that is told what to answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use baygate::config::tables::Confirm;
use baygate::event::Class;
use baygate::ident::Seq;
use baygate::store::Offset;
use baygate::store::outbox::ClassCursor;
use baygate::uplink::session::{Input, Limits, Outcome, Output, PAGE, Policy, Row, Session, Token};

fn cursor(n: u64) -> ClassCursor {
    ClassCursor { epoch_no: 1, class_sequence: Seq(n) }
}

pub fn word<P>(class: Class, to: u64) -> Input<P> {
    Input::Word { epoch_no: 1, positions: vec![(class, Seq(to))], ends: vec![] }
}

pub fn policy(confirm: Confirm) -> Policy {
    Policy {
        confirm,
        confirm_timeout: Duration::from_secs(300),
        max_in_flight: 8,
        max_in_flight_bytes: 128 * 1024,
        max_packet_bytes: 100_000,
        replay_per_s: 0,
    }
}

/// A log in memory and the machine on it; the load of a row is its class and number.
pub struct Rig {
    pub session: Session<(Class, u64)>,
    pub log: BTreeMap<Class, Vec<u64>>,
    pub now: Instant,
    /// Sent and not settled.
    pub flying: VecDeque<(Token, Class, u64)>,
    /// Everything sent, in order.
    pub sent: Vec<(Class, u64)>,
    pub delivered: BTreeMap<Class, u64>,
    pub aside: Vec<(Class, u64)>,
    pub refused: Vec<(Class, u8)>,
    offset: i64,
    offsets: BTreeMap<(Class, u64), i64>,
}

impl Rig {
    pub fn new(policy: Policy) -> Self {
        Self {
            session: Session::new(policy, &[], 1),
            log: BTreeMap::new(),
            now: Instant::now(),
            flying: VecDeque::new(),
            sent: Vec::new(),
            delivered: BTreeMap::new(),
            aside: Vec::new(),
            refused: Vec::new(),
            offset: 0,
            offsets: BTreeMap::new(),
        }
    }

    pub fn commit(&mut self, class: Class, bytes: &[u64]) {
        for size in bytes {
            self.offset += 1;
            let rows = self.log.entry(class).or_default();
            rows.push(*size);
            self.offsets.insert((class, rows.len() as u64), self.offset);
        }
        self.step(Input::Grown);
    }

    pub fn connect(&mut self) {
        self.step(Input::Connected { limits: Limits::default(), head: Offset(self.offset) });
    }

    pub fn lose(&mut self) {
        self.flying.clear();
        self.step(Input::Lost);
    }

    pub fn hang_up(&mut self) {
        self.flying.clear();
        self.step(Input::HungUp);
    }

    pub fn settle(&mut self, place: usize, outcome: Outcome) {
        if let Some((token, ..)) = self.flying.remove(place) {
            self.step(Input::Settled { token, outcome });
        }
    }

    pub fn accept_all(&mut self) {
        while !self.flying.is_empty() {
            self.settle(0, Outcome::Accepted);
        }
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        self.step(Input::Tick);
    }

    pub fn step(&mut self, input: Input<(Class, u64)>) {
        let mut todo = VecDeque::from(self.session.step(self.now, input));
        while let Some(output) = todo.pop_front() {
            match output {
                Output::Fetch { class, after } => {
                    let rows = self.page(class, after);
                    todo.extend(self.session.step(self.now, Input::Rows { class, after, rows }));
                }
                Output::Publish { token, class, load } => {
                    assert_eq!(class, load.0);
                    self.flying.push_back((token, class, load.1));
                    self.sent.push(load);
                }
                Output::Delivered { class, to } => self.moved(class, to),
                Output::SetAside { class, rows, .. } => {
                    for (_, at) in rows {
                        self.aside.push((class, at.class_sequence.0));
                        self.moved(class, at);
                    }
                }
                Output::Refused { class, code } => self.refused.push((class, code)),
                Output::TakenAgain { .. } => {}
            }
        }
    }

    fn moved(&mut self, class: Class, to: ClassCursor) {
        let before = self.delivered.insert(class, to.class_sequence.0).unwrap_or(0);
        assert!(to.class_sequence.0 > before, "never back");
    }

    fn page(&self, class: Class, after: ClassCursor) -> Vec<Row<(Class, u64)>> {
        let rows = self.log.get(&class).map_or(&[][..], Vec::as_slice);
        let numbered = (1_u64..).zip(rows).skip(after.class_sequence.0 as usize).take(PAGE);
        let row = |(n, bytes): (u64, &u64)| Row {
            class,
            cursor: cursor(n),
            offset: Offset(self.offsets.get(&(class, n)).copied().unwrap_or_default()),
            bytes: *bytes,
            load: (class, n),
        };
        numbered.map(row).collect()
    }

    pub fn sent_of(&self, class: Class) -> Vec<u64> {
        self.sent.iter().filter(|(of, _)| *of == class).map(|(_, n)| *n).collect()
    }
}
