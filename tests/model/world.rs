//! The world around the machine: the disk, the line, the broker, headquarters, the
//! clock; and what each deed does to it. The machine is the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use baygate::event::Class;
use baygate::ident::{Epoch, Seq};
use baygate::store::Offset;
use baygate::store::outbox::ClassCursor;
use baygate::uplink::notes::Notes;
use baygate::uplink::session::{Input, Limits, Outcome, Policy, Session};
use baygate::uplink::word::{Judgement, Ours};
use uuid::Uuid;

use super::deed::{Deed, Setting};
pub use super::parts::{Disk, Flying, Line, Row, Sent, Trace};
use super::peers::{Broker, Headquarters, Id, Word};

/// Delivered positions are committed at this interval (the field's).
const NOTE_EVERY: Duration = Duration::from_millis(50);
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(300);

/// Why a deed did not go through.
#[derive(Debug)]
pub enum Trouble {
    /// The gateway gives the connection up.
    Lost,
    /// An invariant is broken.
    Broken(String),
}

#[derive(Debug, Clone, Hash)]
pub struct World {
    pub setting: Setting,
    pub now: Instant,
    pub session: Session<Id>,
    pub notes: Notes,
    pub disk: Disk,
    pub line: Option<Line>,
    pub broker: Broker,
    pub hq: Headquarters,
    /// What the machine has said is delivered since it took up the log's positions.
    pub said: BTreeMap<Class, ClassCursor>,
    pub rate: u32,
    /// Dropped silently by a broker that cannot refuse, or refused for ever.
    pub hopeless: BTreeSet<Id>,
    /// Classes that were refused and nothing sent of since; they back off, also over connections.
    pub resting: BTreeSet<Class>,
    /// The log grew within this deed.
    pub grown: bool,
    pub trace: Trace,
}

impl World {
    pub fn new(setting: Setting, now: Instant) -> Self {
        Self {
            session: machine(&setting, 0),
            setting,
            now,
            notes: Notes::default(),
            disk: Disk { epoch_no: 1, ..Disk::default() },
            line: None,
            broker: Broker::default(),
            hq: Headquarters::default(),
            said: BTreeMap::new(),
            rate: 0,
            hopeless: BTreeSet::new(),
            resting: BTreeSet::new(),
            grown: false,
            trace: Trace::default(),
        }
    }

    /// Does it. False when it cannot happen now.
    pub fn apply(&mut self, deed: Deed) -> Result<bool, String> {
        if !self.possible(deed) {
            return Ok(false);
        }
        self.tell(|| format!("{deed:?}"));
        let done = self.happen(deed).and_then(|()| self.grow());
        match done {
            Ok(()) => {}
            Err(Trouble::Lost) => self.cut(0)?,
            Err(Trouble::Broken(why)) => return Err(why),
        }
        self.grown = false;
        self.check_deadlines()?;
        Ok(true)
    }

    /// The log grew, by the deed or by what the machine wanted done.
    fn grow(&mut self) -> Result<(), Trouble> {
        while std::mem::take(&mut self.grown) && self.live() {
            self.feed(Input::Grown)?;
        }
        Ok(())
    }

    pub fn possible(&self, deed: Deed) -> bool {
        let flying = self.line.as_ref().map_or(0, |line| line.flying.len());
        match deed {
            Deed::Commit(..) => !self.disk.full,
            Deed::Take(place) => flying > place || place == super::deed::LAST && flying > 1,
            Deed::Refuse(place, code) => {
                let last = place == super::deed::LAST && flying > 1;
                (flying > place || last) && !(is_final(code) && self.gap_at(place))
            }
            Deed::Cut(reached) => {
                self.line.is_some()
                    && (reached == 0 || flying >= reached || reached == super::deed::LAST && flying > 0)
            }
            Deed::BrokerDies => self.setting.by_headquarters(),
            Deed::Connect { present, narrow } => {
                self.line.is_none()
                    && (!present || self.broker.session)
                    && (!narrow || self.setting.sees_refusals())
            }
            Deed::BrokerDrops | Deed::HeadquartersTakes => !self.broker.queue.is_empty(),
            Deed::WordComes => self.line.as_ref().is_some_and(|line| !line.words.is_empty()),
            Deed::WordAgain => self.line.is_some() && self.hq.last_word.is_some(),
            // With a full disk the new epoch cannot begin, and what we write meanwhile under the
            // stranger's numbers nobody can tell apart later: `docs/testing.md`.
            Deed::Stranger(_) => {
                self.setting.by_headquarters()
                    && self.line.is_some()
                    && self.disk.epoch_no < 3
                    && !self.disk.full
            }
            Deed::Wait => self.live() && self.session.wake_at().is_some(),
            Deed::Note => self.line.is_some() && self.notes.positions().next().is_some(),
            Deed::Restart => true,
            Deed::Reload => !self.disk.full,
            Deed::Rate(per_s) => self.line.is_some() && per_s != self.rate,
            Deed::DiskFull => true,
            Deed::Trim(class) => {
                class != Class::Gateway && !self.disk.full && self.oldest_unsent(class).is_some()
            }
        }
    }

    fn happen(&mut self, deed: Deed) -> Result<(), Trouble> {
        match deed {
            Deed::Commit(class, bytes) => self.commit(class, bytes, Vec::new()),
            Deed::Take(place) => self.settle(place, Outcome::Accepted)?,
            Deed::Refuse(place, code) => self.settle(place, Outcome::Refused(code))?,
            Deed::Cut(reached) => self.cut(reached).map_err(Trouble::Broken)?,
            Deed::BrokerDies => {
                self.cut(0).map_err(Trouble::Broken)?;
                self.broker.dies();
            }
            Deed::BrokerDrops => {
                self.broker.queue.pop_front();
            }
            Deed::Connect { present, narrow } => self.connect(present, narrow)?,
            Deed::HeadquartersTakes => self.headquarters_takes(),
            Deed::WordComes => {
                if let Some(word) = self.line.as_mut().and_then(|line| line.words.pop_front()) {
                    self.hear(word)?;
                }
            }
            Deed::WordAgain => {
                if let Some(word) = self.hq.last_word.clone() {
                    self.hear(word)?;
                }
            }
            Deed::Stranger(class) => {
                let to = self.disk.last.get(&class).copied().unwrap_or_default() + 2;
                let word = self.hq.hears_a_stranger(self.disk.epoch_no, class, to);
                self.hear(word)?;
            }
            Deed::Wait => self.wait()?,
            Deed::Note => self.note().map_err(|()| Trouble::Lost)?,
            Deed::Restart => self.restart(),
            Deed::Reload => {
                self.cut(super::deed::LAST).map_err(Trouble::Broken)?;
                self.setting.window = if self.setting.window == 2 { 3 } else { 2 };
                self.restart();
            }
            Deed::Rate(per_s) => {
                self.rate = per_s;
                self.feed(Input::ReplayRate(per_s))?;
            }
            Deed::DiskFull => self.disk.full = !self.disk.full,
            Deed::Trim(class) => {
                if let Some(id) = self.oldest_unsent(class) {
                    let bytes = self.row(id).map_or(0, |row| row.bytes);
                    self.disk.log.entry(class).or_default().retain(|row| row.cursor != id.1);
                    self.disk.trimmed.insert(id, bytes);
                    self.commit(Class::Gateway, 50, vec![id]);
                }
            }
        }
        Ok(())
    }

    pub fn live(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.live)
    }

    pub fn commit(&mut self, class: Class, bytes: u64, tells: Vec<Id>) {
        self.disk.offset += 1;
        let last = self.disk.last.entry(class).or_default();
        *last += 1;
        let cursor = ClassCursor { epoch_no: self.disk.epoch_no, class_sequence: Seq(*last) };
        let row = Row { cursor, offset: self.disk.offset, bytes, tells };
        self.disk.log.entry(class).or_default().push(row);
        self.grown = true;
    }

    fn connect(&mut self, present: bool, narrow: bool) -> Result<(), Trouble> {
        if !present {
            self.broker.words.clear();
        }
        self.broker.session = true;
        let words = std::mem::take(&mut self.broker.words);
        self.line = Some(Line { narrow, words, ..Line::default() });
        let mut delivered = Class::ALL.map(|class| (class, self.mark(class))).to_vec();
        self.notes.overlay(&mut delivered);
        self.said = delivered.iter().copied().collect();
        self.feed(Input::TakeUp { delivered })?;
        // What our session kept comes before we are live.
        while let Some(word) = self.line.as_mut().and_then(|line| line.words.pop_front()) {
            self.hear(word)?;
        }
        let limits = Limits { receive_maximum: narrow.then_some(1), max_packet: None };
        if let Some(line) = &mut self.line {
            line.live = true;
        }
        self.feed(Input::Connected { limits, head: Offset(self.disk.offset) })
    }

    /// The line goes, as the driver sees it: the machine is told, the notes are committed if the disk takes them.
    fn cut(&mut self, reached: usize) -> Result<(), String> {
        let Some(mut line) = self.line.take() else { return Ok(()) };
        while line.flying.len() > reached {
            line.flying.pop_back();
        }
        while let Some(flying) = line.flying.pop_front() {
            self.reach_broker(&flying, &[])?;
        }
        line.words.append(&mut self.broker.words);
        self.broker.words = line.words;
        if !self.session.step(self.now, Input::Lost).is_empty() {
            return Err("the machine wants something without a connection".into());
        }
        // Where the disk is full they stay noted.
        let _ = self.note();
        Ok(())
    }

    fn restart(&mut self) {
        if let Some(mut line) = self.line.take() {
            line.words.append(&mut self.broker.words);
            self.broker.words = line.words;
        }
        self.notes = Notes::default();
        self.resting.clear();
        self.session = machine(&self.setting, self.rate);
        self.said = self.disk.mark.clone();
    }

    fn note(&mut self) -> Result<(), ()> {
        if self.disk.full && self.notes.positions().next().is_some() {
            return Err(());
        }
        for (class, to) in self.notes.positions() {
            let mark = self.disk.mark.entry(class).or_default();
            *mark = (*mark).max(to);
        }
        self.notes.committed();
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Trouble> {
        if let Some(until) = self.session.wake_at() {
            self.now = self.now.max(until);
        }
        self.feed(Input::Tick)?;
        if self.notes.due(NOTE_EVERY).is_some_and(|due| due <= self.now) {
            self.note().map_err(|()| Trouble::Lost)?;
        }
        Ok(())
    }

    fn headquarters_takes(&mut self) {
        let mut epochs = BTreeSet::new();
        while let Some(id) = self.broker.queue.pop_front() {
            let tells = self.row(id).map(|row| row.tells.clone()).unwrap_or_default();
            self.hq.take(id, &tells);
            epochs.insert(id.1.epoch_no);
        }
        for epoch_no in epochs {
            let word = self.hq.word(epoch_no);
            match &mut self.line {
                Some(line) => line.words.push_back(word),
                None if self.broker.session => self.broker.words.push_back(word),
                None => {}
            }
        }
    }

    /// A word of headquarters, as the driver takes it.
    fn hear(&mut self, word: Word) -> Result<(), Trouble> {
        self.tell(|| format!("    headquarters: {word:?}"));
        self.hq.last_word = Some(word.clone());
        let ours = Ours {
            epoch: epoch(self.disk.epoch_no),
            last: self.disk.last.iter().map(|(class, last)| (*class, Seq(*last))).collect(),
        };
        let said = word.classes.iter().map(|(class, to)| (class.as_str().to_owned(), *to)).collect();
        match ours.judge(epoch(word.epoch_no), &said) {
            Judgement::Ahead if self.disk.full => Err(Trouble::Lost),
            Judgement::Ahead => {
                let ended = self.disk.epoch_no;
                self.disk.epoch_no += 1;
                let last = std::mem::take(&mut self.disk.last);
                let end = |class: Class| last.get(&class).copied().unwrap_or_default();
                self.disk.ends.extend(Class::ALL.map(|class| ((ended, class), end(class))));
                self.tell(|| "    a new epoch".into());
                Ok(())
            }
            Judgement::Known(positions) => {
                let ends = self.disk.ends.iter().filter(|((no, _), _)| *no == word.epoch_no);
                let ends = ends.map(|((_, class), end)| (*class, Seq(*end))).collect();
                self.feed(Input::Word { epoch_no: word.epoch_no, positions, ends })
            }
        }
    }

    /// How far a class is delivered, as committed.
    pub fn mark(&self, class: Class) -> ClassCursor {
        self.disk.mark.get(&class).copied().unwrap_or_default()
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace.0 {
            trace.push(line());
        }
    }
}

fn epoch(no: i64) -> Epoch {
    Epoch(Uuid::from_u128(u128::from(no.unsigned_abs())))
}

pub fn is_final(code: u8) -> bool {
    matches!(code, 0x90 | 0x95 | 0x99)
}

fn machine(setting: &Setting, rate: u32) -> Session<Id> {
    let policy = Policy {
        confirm: setting.confirm,
        confirm_timeout: CONFIRM_TIMEOUT,
        max_in_flight: setting.window,
        max_in_flight_bytes: setting.bytes,
        max_packet_bytes: setting.packet,
        replay_per_s: rate,
    };
    Session::new(policy, &[], setting.jitter)
}
