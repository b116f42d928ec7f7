//! Every operation on every technology, cut at every command in every way: the table, and the programs
//! that run its columns.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod columns;
mod issue;
pub mod table;
pub mod whole;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use baygate::sim::card::Technology as Sim;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use columns::Column;
use issue::Issues;
use table::{Operation, Part, Way};
use world::World;

/// Columns that work at the same time; those that wait for a silent card do not count.
const AT_WORK: usize = 16;
/// Silences that one card waits for, three seconds each.
const SILENCES: usize = 6;
/// Cards that wait so at the same time. All at once took the processors from each other when they
/// began, and a simulated card that does not answer within three seconds is cut without being asked.
const SILENT: usize = 40;

/// How often each way was gone, and how often it ended in the old and in the new.
#[derive(Default)]
struct Seen {
    ways: BTreeMap<Way, usize>,
    became: [usize; 2],
}

enum Cutting {
    Deals(Box<Column>),
    Issues(Box<Issues>),
}

impl Cutting {
    async fn open(sim: Sim, operation: Operation) -> Self {
        let world = World::open(sim);
        match operation {
            Operation::Issue => Self::Issues(Box::new(Issues::open(world).await)),
            _ => Self::Deals(Box::new(Column::open(world, operation).await)),
        }
    }

    async fn measured(&mut self) -> (usize, Vec<usize>) {
        match self {
            Self::Deals(column) => column.measured().await,
            Self::Issues(issues) => issues.measured(),
        }
    }

    /// Half a write that leaves a card nobody can open any more.
    fn is_thrown_away(&self, at: usize, way: Way) -> bool {
        matches!(self, Self::Issues(issues) if way == Way::Torn && issues.is_thrown_away(at))
    }

    async fn go(mut self, cuts: Vec<(usize, Way)>) -> Seen {
        let mut seen = Seen::default();
        for (at, way) in cuts {
            let is_new = match &mut self {
                Self::Deals(column) => column.cut(at, way).await,
                Self::Issues(issues) => !issues.cut(at, way).await,
            };
            seen.became[usize::from(is_new)] += 1;
            *seen.ways.entry(way).or_default() += 1;
        }
        match self {
            Self::Deals(column) => column.close().await,
            Self::Issues(issues) => issues.close().await,
        }
        seen
    }
}

/// All cuts of a column: those in silence on cards of their own, side by side.
async fn column(sim: Sim, operation: Operation, at_work: Arc<Semaphore>, silent: Arc<Semaphore>) -> Seen {
    let mut lanes = JoinSet::new();
    let permit = at_work.acquire().await.unwrap();
    let mut first = Cutting::open(sim, operation).await;
    let (commands, writes) = first.measured().await;
    assert!(commands >= 6 && !writes.is_empty(), "{sim:?} {operation:?}: {commands}, {writes:?}");
    let cuts = |ways: &[Way]| -> Vec<(usize, Way)> {
        let at = 0..commands;
        let all = at.flat_map(|at| ways.iter().map(move |way| (at, *way)));
        let done = all.filter(|(at, way)| !way.at_writes_only() || writes.contains(at));
        done.filter(|(at, way)| !first.is_thrown_away(*at, *way)).collect()
    };
    let (quiet, loud): (Vec<Way>, Vec<Way>) =
        Way::ALL.iter().partition(|way| matches!(way, Way::Silent | Way::SilentUnheard));
    let (quiet, loud) = (cuts(&quiet), cuts(&loud));
    for some in quiet.chunks(SILENCES) {
        let some = some.to_vec();
        let silent = Arc::clone(&silent);
        lanes.spawn(async move {
            let _permit = silent.acquire().await.unwrap();
            Cutting::open(sim, operation).await.go(some).await
        });
    }
    let mut seen = first.go(loud).await;
    drop(permit);
    while let Some(lane) = lanes.join_next().await {
        let lane = lane.unwrap();
        for (way, times) in lane.ways {
            *seen.ways.entry(way).or_default() += times;
        }
        seen.became = [seen.became[0] + lane.became[0], seen.became[1] + lane.became[1]];
    }
    seen
}

/// `CUTS="Cpu Give, Ntag215 Issue"` repeats some columns.
fn is_wanted(sim: Sim, operation: Operation) -> bool {
    let Ok(some) = std::env::var("CUTS") else { return true };
    some.split(',').any(|column| column.trim() == format!("{sim:?} {operation:?}"))
}

/// All columns of a program; none of their cells may be missing.
pub async fn run(part: Part) {
    let (at_work, silent) = (Arc::new(Semaphore::new(AT_WORK)), Arc::new(Semaphore::new(SILENT)));
    let mut all = JoinSet::new();
    let columns = table::columns(part).into_iter().filter(|(sim, operation)| is_wanted(*sim, *operation));
    let columns: Vec<_> = columns.collect();
    assert!(!columns.is_empty(), "CUTS= names no column of {}", part.program());
    for (sim, operation) in columns {
        let (at_work, silent) = (Arc::clone(&at_work), Arc::clone(&silent));
        all.spawn(async move { (sim, operation, column(sim, operation, at_work, silent).await) });
    }
    let mut failed = 0;
    while let Some(done) = all.join_next().await {
        let Ok((sim, operation, seen)) = done else {
            failed += 1;
            continue;
        };
        let what = format!("{sim:?} {operation:?}: {:?}", seen.ways);
        assert!(Way::ALL.iter().all(|way| seen.ways.contains_key(way)), "{what}");
        assert!(seen.became.iter().all(|times| *times > 0), "{what}: {:?}", seen.became);
    }
    assert_eq!(failed, 0, "columns failed");
}
