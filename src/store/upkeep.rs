//! What the writer does between groups: decides which trimming step is due,
//! one small transaction at a time, so that no commit waits long behind it.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use uuid::Uuid;

use super::epoch::{CLASSES, Position, slot};
use super::trim::{self, Aged, Marks, Step};
use super::{ClassLimit, HistoryLimits, StoreError, history};
use crate::clock::{self, Reading};
use crate::event::Class;

/// How often delivered rows, history and leftovers are looked at …
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// … or more often, where delivered rows are kept for less than that, down to this.
const SWEEP_OFTEN: Duration = Duration::from_secs(2);
/// When space is tight and nothing may go, look again after this.
const NOTHING_TO_TAKE: Duration = Duration::from_secs(1);
/// After a step that failed an idle writer tries again after this.
const AFTER_A_FAILURE: Duration = Duration::from_secs(10);

/// Which step comes next in a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    Delivered(usize),
    History(usize),
    Leftovers,
}

#[derive(Debug)]
pub(super) struct Upkeep {
    limits: [Option<ClassLimit>; CLASSES],
    marks: [Option<Marks>; CLASSES],
    history: HistoryLimits,
    sweep_every: Duration,
    /// Classes in a trimming run.
    running: [bool; CLASSES],
    /// What each class weighed before its oldest unsent row, as last looked up.
    unsent_from: [i64; CLASSES],
    sweep: Option<Sweep>,
    next_sweep: Instant,
    tight_again: Instant,
    was_tight: bool,
}

impl Upkeep {
    pub(super) fn new(limits: &[(Class, ClassLimit)]) -> Self {
        let mut upkeep = Self {
            limits: [None; CLASSES],
            marks: [None; CLASSES],
            history: HistoryLimits::default(),
            sweep_every: SWEEP_EVERY,
            running: [false; CLASSES],
            unsent_from: [0; CLASSES],
            sweep: Some(Sweep::Delivered(0)),
            next_sweep: Instant::now(),
            tight_again: Instant::now(),
            was_tight: false,
        };
        upkeep.set_classes(limits);
        upkeep
    }

    /// Takes limits of classes, and looks at everything anew.
    pub(super) fn set_classes(&mut self, limits: &[(Class, ClassLimit)]) {
        self.doubt();
        (self.limits, self.marks) = ([None; CLASSES], [None; CLASSES]);
        for (class, limit) in limits {
            let place = slot(*class);
            if let (Some(kept), Some(marks)) = (self.limits.get_mut(place), self.marks.get_mut(place)) {
                *kept = Some(*limit);
                // The ledger never goes by size, whatever is configured.
                *marks = limit
                    .keep_bytes
                    .filter(|_| *class != Class::Ledger)
                    .map(|bytes| Marks::of(*class, bytes));
            }
        }
        let shortest = limits.iter().map(|(_, limit)| limit.keep_delivered_ms.max(0).unsigned_abs()).min();
        self.sweep_every =
            shortest.map_or(SWEEP_EVERY, Duration::from_millis).clamp(SWEEP_OFTEN, SWEEP_EVERY);
        self.sweep = Some(Sweep::Delivered(0));
        self.next_sweep = Instant::now() + self.sweep_every;
        self.tight_again = Instant::now();
    }

    /// Takes another limit of what lies beside the log.
    pub(super) fn set_history(&mut self, limits: HistoryLimits) {
        self.history = limits;
        self.sweep.get_or_insert(Sweep::History(0));
    }

    /// When a step may be due without anything having been committed.
    pub(super) fn next(&self) -> Instant {
        self.next_sweep
    }

    /// Does the most urgent step, if any, in the caller's transaction.
    pub(super) fn step(
        &mut self,
        tx: &Connection,
        position: &mut Position,
        boot: Uuid,
        tight: bool,
    ) -> Result<Step, StoreError> {
        for class in Class::ALL.into_iter().rev() {
            if self.over(tx, position, class)? {
                let low = self.marks_of(class).map_or(0, |marks| marks.low);
                let step = trim::unsent_step(tx, position, boot, class, low)?;
                self.set_running(class, step.more);
                return Ok(Step { more: true, ..step });
            }
        }
        if tight && Instant::now() >= self.tight_again {
            self.was_tight = true;
            let step = relieve(tx, position, boot)?;
            if !step.changed {
                self.tight_again = Instant::now() + NOTHING_TO_TAKE;
            }
            return Ok(Step { more: step.changed, ..step });
        }
        if !tight && std::mem::take(&mut self.was_tight) {
            self.sweep = Some(Sweep::Delivered(0));
        }
        self.sweep_step(tx, position, boot, tight)
    }

    /// A transaction was rolled back: what was assumed of it does not hold.
    pub(super) fn doubt(&mut self) {
        self.running = [false; CLASSES];
        self.unsent_from = [0; CLASSES];
    }

    /// A step failed: it would fail again at once. The next group of commits tries it too.
    pub(super) fn rest(&mut self) {
        self.next_sweep = self.next_sweep.max(Instant::now() + AFTER_A_FAILURE);
        self.tight_again = self.tight_again.max(Instant::now() + NOTHING_TO_TAKE);
    }

    fn marks_of(&self, class: Class) -> Option<Marks> {
        self.marks.get(slot(class)).copied().flatten()
    }

    fn set_running(&mut self, class: Class, running: bool) {
        if let Some(state) = self.running.get_mut(slot(class)) {
            *state = running;
        }
    }

    /// Whether a class is in a run or over its limit. The estimate in memory only
    /// ever errs upwards (deliveries make it smaller): the file is asked when it is over.
    fn over(&mut self, conn: &Connection, position: &Position, class: Class) -> Result<bool, StoreError> {
        let place = slot(class);
        let (Some(marks), Some(total), Some(from)) =
            (self.marks_of(class), position.total_bytes.get(place), self.unsent_from.get_mut(place))
        else {
            return Ok(false);
        };
        if self.running.get(place) == Some(&true) {
            return Ok(true);
        }
        if total - *from <= marks.high {
            return Ok(false);
        }
        *from = trim::unsent_from(conn, class)?.unwrap_or(*total);
        let over = total - *from > marks.high;
        self.set_running(class, over);
        Ok(over)
    }

    fn sweep_step(
        &mut self,
        tx: &Connection,
        position: &mut Position,
        boot: Uuid,
        tight: bool,
    ) -> Result<Step, StoreError> {
        if Instant::now() >= self.next_sweep {
            self.next_sweep = Instant::now() + self.sweep_every;
            self.sweep.get_or_insert(Sweep::Delivered(0));
        }
        let Some(sweep) = self.sweep else { return Ok(Step::default()) };
        let now = clock::read();
        let (step, then) = match sweep {
            Sweep::Delivered(place) => {
                let class = Class::ALL.get(place).copied();
                let step = match class {
                    Some(class) => self.settle_class(tx, position, boot, class, now, tight)?,
                    None => Step::default(),
                };
                let then = if class.is_some() { Sweep::Delivered(place + 1) } else { Sweep::History(0) };
                (step, Some(then))
            }
            Sweep::History(part) => match history::sweep_step(tx, part, &self.history, now)? {
                Some(step) => (step, Some(Sweep::History(part + 1))),
                None => (Step::default(), Some(Sweep::Leftovers)),
            },
            Sweep::Leftovers => (trim::leftovers_step(tx)?, None),
        };
        self.sweep = if step.more { Some(sweep) } else { then };
        Ok(Step { changed: step.changed, more: self.sweep.is_some() })
    }

    /// Tells what is left to tell of a class and deletes its old delivered rows.
    fn settle_class(
        &self,
        tx: &Connection,
        position: &mut Position,
        boot: Uuid,
        class: Class,
        now: Reading,
        tight: bool,
    ) -> Result<Step, StoreError> {
        if !tight {
            let told = trim::tell_open_gap(tx, position, boot, class)?;
            if told.changed {
                return Ok(told);
            }
        }
        match self.limits.get(slot(class)).copied().flatten() {
            Some(limit) => {
                trim::delivered_step(tx, class, Some(Aged { keep_ms: limit.keep_delivered_ms, now }))
            }
            None => Ok(Step::default()),
        }
    }
}

/// Makes room: delivered rows that every local reader has passed, then history, then unsent telemetry.
fn relieve(tx: &Connection, position: &mut Position, boot: Uuid) -> Result<Step, StoreError> {
    for class in Class::ALL.into_iter().rev().filter(|class| *class != Class::Ledger) {
        let step = trim::delivered_step(tx, class, None)?;
        if step.changed {
            return Ok(step);
        }
    }
    let step = history::relieve(tx)?;
    if step.changed {
        return Ok(step);
    }
    // One step's worth, then the space is looked at again; the run ends when it is no longer tight.
    trim::unsent_step(tx, position, boot, Class::Telemetry, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::Epoch;

    #[test]
    fn a_step_that_fails_does_not_wake_the_writer_again_at_once() {
        // No tables: every step fails, as on a damaged file.
        let empty = Connection::open_in_memory().unwrap();
        let limit = ClassLimit { keep_bytes: Some(1), keep_delivered_ms: 0 };
        let mut upkeep = Upkeep::new(&[(Class::Telemetry, limit)]);
        let mut position = Position {
            epoch: Epoch::begin(),
            epoch_no: 1,
            base_offset: 0,
            last_offset: 0,
            last_class: [0; CLASSES],
            total_bytes: [1000; CLASSES],
        };
        upkeep.next_sweep = Instant::now();
        assert!(upkeep.step(&empty, &mut position, Uuid::nil(), false).is_err());
        assert!(upkeep.next() <= Instant::now(), "the failed step never came to the sweep");
        upkeep.doubt();
        upkeep.rest();
        assert!(upkeep.next() > Instant::now());
    }
}
