//! All short histories, many long ones; what fails is made shorter and told.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use super::deed::{self, Deed, LAST, Setting};
use super::dice::Dice;
use super::world::{Trace, World};

/// Once all behave, everything is delivered within this time: one longest wait for headquarters' word and some.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

/// Peers, line and disk behave from now on: everything must be delivered in bounded steps.
pub fn turns_good(mut world: World) -> Result<(), String> {
    all_good(&mut world)
}

fn all_good(world: &mut World) -> Result<(), String> {
    world.tell(|| "— from here on everything behaves —".into());
    let (began, rows) = (world.now, world.disk.log.values().map(Vec::len).sum::<usize>());
    if world.disk.full {
        world.apply(Deed::DiskFull)?;
    }
    for _ in 0..(40 + 3 * rows) {
        let present = world.broker.session;
        world.apply(Deed::Connect { present, narrow: false })?;
        let mut moved = true;
        while moved {
            moved = world.apply(Deed::Take(0))?;
            moved |= world.apply(Deed::HeadquartersTakes)?;
            moved |= world.apply(Deed::WordComes)?;
        }
        world.apply(Deed::Note)?;
        let Some(missing) = world.missing() else { return Ok(()) };
        if world.now.duration_since(began) > PATIENCE {
            return Err(format!("{missing} after {PATIENCE:?} in which everything behaved"));
        }
        if !world.apply(Deed::Wait)? && world.live() {
            return Err(format!("{missing}, and the machine waits for nothing"));
        }
    }
    Err(format!("{:?} after {} rounds in which everything behaved", world.missing(), 40 + 3 * rows))
}

impl World {
    /// The first row that is not where it belongs, by the disk and by its receiver.
    fn missing(&self) -> Option<String> {
        for (class, rows) in &self.disk.log {
            let mark = self.mark(*class);
            for row in rows {
                let id = (*class, row.cursor);
                let there = if self.setting.by_headquarters() {
                    self.hq.has.contains(&id) || self.hq.cannot_take(id)
                } else {
                    self.broker.had.contains(&id)
                };
                if row.cursor > mark {
                    return Some(format!("{id:?} is not marked as delivered"));
                }
                if !there && !self.disk.aside.contains(&id) {
                    return Some(format!("{id:?} is marked, and nobody has it"));
                }
            }
        }
        None
    }
}

/// A history that went wrong.
pub struct Failure {
    pub history: Vec<Deed>,
    pub why: String,
}

/// Every order of `deeds`, `depth` long, after `before`. States seen already are not gone into again.
pub struct Explorer {
    setting: Setting,
    deeds: Vec<Deed>,
    began: Instant,
    seen: HashMap<u64, u8>,
    pub steps: u64,
}

impl Explorer {
    pub fn new(setting: Setting, deeds: Vec<Deed>) -> Self {
        Self { setting, deeds, began: Instant::now(), seen: HashMap::new(), steps: 0 }
    }

    pub fn states(&self) -> usize {
        self.seen.len()
    }

    pub fn run(&mut self, before: &[Deed], depth: u8) -> Result<(), Failure> {
        let mut world = World::new(self.setting, self.began);
        for deed in before {
            assert_eq!(world.apply(*deed), Ok(true), "{deed:?} of {before:?}");
        }
        self.go(&world, depth, &mut before.to_vec())
    }

    fn go(&mut self, world: &World, depth: u8, history: &mut Vec<Deed>) -> Result<(), Failure> {
        for place in 0..self.deeds.len() {
            let deed = self.deeds[place];
            if !world.possible(deed) {
                continue;
            }
            let mut next = world.clone();
            history.push(deed);
            self.steps += 1;
            let fail = |why| Failure { history: history.clone(), why };
            next.apply(deed).map_err(fail)?;
            let mut hasher = DefaultHasher::new();
            next.hash(&mut hasher);
            let state = hasher.finish();
            let known = self.seen.get(&state).copied();
            if known.is_none() {
                turns_good(next.clone()).map_err(fail)?;
            }
            if known.is_none_or(|known| known < depth) {
                self.seen.insert(state, depth);
                if depth > 1 {
                    self.go(&next, depth - 1, history)?;
                }
            }
            history.pop();
        }
        Ok(())
    }
}

/// One long history; it turns good at its end and now and then in between.
pub fn long(setting: Setting, dice: &mut Dice, length: usize) -> Result<(), Failure> {
    let mut world = World::new(setting, Instant::now());
    let mut history = Vec::new();
    while history.len() < length {
        let deed = deed::any(dice, &setting);
        history.push(deed);
        let done = world.apply(deed).map_err(|why| Failure { history: history.clone(), why })?;
        if !done {
            history.pop();
        } else if history.len() % 50 == 0 || history.len() == length {
            turns_good(world.clone()).map_err(|why| Failure { history: history.clone(), why })?;
        }
    }
    Ok(())
}

fn replay(setting: Setting, history: &[Deed], traced: bool) -> (Result<(), String>, Vec<String>) {
    let mut world = World::new(setting, Instant::now());
    world.trace = Trace(traced.then(Vec::new));
    for deed in history {
        if let Err(why) = world.apply(*deed) {
            return (Err(why), world.trace.0.unwrap_or_default());
        }
    }
    let end = all_good(&mut world);
    (end, world.trace.0.unwrap_or_default())
}

/// Shortens a failing history deed by deed, as long as it fails in any way, and tells it.
pub fn told(setting: Setting, failure: Failure) -> String {
    let mut history = failure.history;
    let fails = |history: &[Deed]| replay(setting, history, false).0.is_err();
    let mut chunk = history.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < history.len() {
            let mut shorter = history.clone();
            shorter.drain(at..(at + chunk).min(history.len()));
            if fails(&shorter) {
                history = shorter;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    let (end, lines) = replay(setting, &history, true);
    let why = end.err().unwrap_or(failure.why);
    format!(
        "{why}\n{setting:?}\n{} deeds, the machine's words indented ({LAST} is the last place):\n{}\nas code: {history:?}",
        history.len(),
        lines.join("\n"),
    )
}
