//! What lies beside the log and would grow for ever: ended visits, cleared warnings,
//! finished print jobs, settled requests, ids of commands. Each is kept by number, in
//! the order it came in (`rowid`), so that no clock is asked (but for cards); what is open stays.
//!
//! | table | kept | never goes |
//! |---|---|---|
//! | `visit` | the newest `visits` | open ones |
//! | `warning` | the newest `warnings` | standing ones of a car that a kept visit knows |
//! | `print_job` | the newest `print_jobs` | jobs that have not come to an end |
//! | `request` without a key | the newest `requests` | unsettled ones |
//! | `request` with a key | 30 days (contract), the newest 200,000 where the clock is never set | unsettled ones |
//! | `command` | the newest `commands`: an id acts at most once | |
//! | `token` | the newest 1,000 | live ones |
//! | `card_transaction` | the newest 500,000: what can be refunded here | unsettled ones, transfers that nobody has received |
//! | `member_card` | of other stores' the 200,000 last seen | those given out here, held ones, those that stand otherwise than `active` |
//! | `adapter` | 256: learned again when needed | |
//! | `operator_log` | the newest 10,000 | |
//! | `shift` | the newest 10,000 | open ones |
//! | `listed_member` | until a card is given out, at most 200,000 | all |
//! | `batch_row` | as long as the batch's request | |
//! | `counter_word` | the 50,000 that were sent last | |
//!
//! When space is tight the first, third and fourth go down to [`SPARE`] before any
//! unsent telemetry goes.

use rusqlite::{Connection, params};

use super::StoreError;
use super::trim::Step;
use crate::clock::{Reading, TimeQuality};

/// Rows a step deletes, at most: reports are large.
const STEP_ROWS: i64 = 50;
/// Newest rows of each that also tight space leaves.
const SPARE: i64 = 100;
/// A repeated key finds its first request this long: 30 days, in milliseconds.
const KEEP_KEYS_MS: i64 = 30 * 86_400_000;
/// Requests with a key, at most, where no clock tells their age.
const MOST_KEYS: i64 = 200_000;
const MOST_TOKENS: i64 = 1_000;
const MOST_TRANSACTIONS: i64 = 500_000;
const MOST_CARDS: i64 = 200_000;
const MOST_OPERATOR_LINES: i64 = 10_000;
const MOST_SHIFTS: i64 = 10_000;
/// A store has some 14,000 members (facts: 86.9 million in 6,105 stores).
const MOST_COUNTER_WORDS: i64 = 50_000;
/// Adapters remembered.
pub(super) const MOST_ADAPTERS: i64 = 256;
/// 2024-01-01, UTC milliseconds: before this program existed no clock was right.
const NO_EARLIER_MS: i64 = 1_704_067_200_000;

/// How many of the newest of each are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Ended visits.
    pub visits: u32,
    /// Warnings.
    pub warnings: u32,
    /// Print jobs that came to an end.
    pub print_jobs: u32,
    /// Settled requests without an idempotency key.
    pub requests: u32,
    /// Ids of commands.
    pub commands: u32,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { visits: 20_000, warnings: 20_000, print_jobs: 10_000, requests: 2_000, commands: 100_000 }
    }
}

const ENDED_VISITS: (&str, &str) = ("visit", "ended_at IS NOT NULL");
const ENDED_JOBS: (&str, &str) = ("print_job", "state NOT IN ('queued','waiting-card','printing')");
const KEYLESS_REQUESTS: (&str, &str) = ("request", "settled_at IS NOT NULL AND idempotency_key IS NULL");
const FORGOTTEN_WARNINGS: (&str, &str) = (
    "warning",
    "(cleared_at IS NOT NULL OR NOT EXISTS (SELECT 1 FROM visit v WHERE v.vin = t.car
      OR t.car LIKE 'visit/%' AND v.id = unhex(replace(substr(t.car, 7), '-', ''))))",
);

/// A giving half that nothing followed is money that is on no card.
const FORGOTTEN_TRANSACTIONS: (&str, &str) = (
    "card_transaction",
    "(state = 'aborted' OR state = 'committed'
      AND NOT (original IS NULL AND instr(fact, '\"kind\":\"transfer\"') > 0
               AND NOT EXISTS (SELECT 1 FROM card_transaction r WHERE r.original = t.id AND r.state <> 'aborted')))",
);

/// Cards of other stores beyond `keep`, by when they were last seen. What this store gave out
/// it knows for good. Here a clock is asked: one that was wrong forgets a foreign card early,
/// which is then as one that never came.
fn cards_step(tx: &Connection, keep: i64) -> Result<Step, StoreError> {
    let gone = tx
        .prepare_cached(
            "DELETE FROM member_card WHERE no IN (SELECT no FROM member_card t
             WHERE issued_on IS NULL AND status = 'active' AND held IS NULL
               AND NOT EXISTS (SELECT 1 FROM card_transaction c
                               WHERE c.card_no = t.card_no AND c.state IN ('intent','unknown'))
             ORDER BY seen_at
             LIMIT min(?2, max(0, (SELECT count(*) FROM member_card WHERE issued_on IS NULL) - ?1)))",
        )?
        .execute([keep, STEP_ROWS])?;
    Ok(step(gone, STEP_ROWS))
}

/// Counter's words beyond the newest `keep` that are there, by count: a word that is sent again takes
/// a new `rowid`, so that between the numbers of those that stay there are gaps of any size.
fn words_step(tx: &Connection, keep: i64) -> Result<Step, StoreError> {
    let gone = tx
        .prepare_cached(
            "DELETE FROM counter_word WHERE rowid IN (SELECT rowid FROM counter_word ORDER BY rowid
             LIMIT min(?2, max(0, (SELECT count(*) FROM counter_word) - ?1)))",
        )?
        .execute([keep, STEP_ROWS])?;
    Ok(step(gone, STEP_ROWS))
}

/// Deletes the oldest rows of a table that may go and lie before the newest `keep`.
fn beyond(tx: &Connection, (table, may_go): (&str, &str), keep: i64) -> Result<Step, StoreError> {
    let gone = tx
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE rowid IN (SELECT t.rowid FROM {table} t
             WHERE t.rowid <= (SELECT max(rowid) FROM {table}) - ?1 AND {may_go} ORDER BY t.rowid LIMIT ?2)"
        ))?
        .execute([keep, STEP_ROWS])?;
    Ok(step(gone, STEP_ROWS))
}

fn step(gone: usize, most: i64) -> Step {
    Step { changed: gone > 0, more: i64::try_from(gone).unwrap_or(0) >= most }
}

/// One step of the `part`-th table; `None` when there is no such.
pub(super) fn sweep_step(
    tx: &Connection,
    part: usize,
    limits: &HistoryLimits,
    now: Reading,
) -> Result<Option<Step>, StoreError> {
    let step = match part {
        0 => beyond(tx, ENDED_VISITS, limits.visits.into())?,
        1 => beyond(tx, FORGOTTEN_WARNINGS, limits.warnings.into())?,
        2 => beyond(tx, ENDED_JOBS, limits.print_jobs.into())?,
        3 => beyond(tx, KEYLESS_REQUESTS, limits.requests.into())?,
        4 => beyond(tx, ("command", "TRUE"), limits.commands.into())?,
        5 => beyond(tx, ("token", "revoked_at IS NOT NULL"), MOST_TOKENS)?,
        6 => keys_step(tx, now)?,
        7 if now.quality == TimeQuality::Synced => Step::default(),
        7 => beyond(tx, ("request", "settled_at IS NOT NULL"), MOST_KEYS)?,
        8 => beyond(tx, FORGOTTEN_TRANSACTIONS, MOST_TRANSACTIONS)?,
        9 => cards_step(tx, MOST_CARDS)?,
        10 => beyond(tx, ("operator_log", "TRUE"), MOST_OPERATOR_LINES)?,
        11 => beyond(tx, ("shift", "closed_at IS NOT NULL"), MOST_SHIFTS)?,
        12 => super::batches::sweep_step(tx, STEP_ROWS)?,
        13 => words_step(tx, MOST_COUNTER_WORDS)?,
        _ => return Ok(None),
    };
    Ok(Some(step))
}

/// Makes room when space is tight.
pub(super) fn relieve(tx: &Connection) -> Result<Step, StoreError> {
    for table in [ENDED_VISITS, KEYLESS_REQUESTS, ENDED_JOBS] {
        let step = beyond(tx, table, SPARE)?;
        if step.changed {
            return Ok(step);
        }
    }
    Ok(Step::default())
}

/// When a request was settled, as it is stored: negative while the clock is not to be
/// believed. Its age then counts from when it is.
pub(super) fn settled_at(now: Reading) -> i64 {
    match now.quality {
        TimeQuality::Synced => now.wall.0,
        TimeQuality::Unsynced => -now.wall.0.abs().max(1),
    }
}

/// Requests with a key, by age. What was dated by a clock in doubt is dated anew when the
/// clock is set; where that never happens, a clock that nobody touched for all that time will do.
fn keys_step(tx: &Connection, now: Reading) -> Result<Step, StoreError> {
    const STEP: i64 = 100;
    let limit = now.wall.0.saturating_sub(KEEP_KEYS_MS);
    let (dated, gone) = match now.quality {
        TimeQuality::Synced => (
            tx.prepare_cached(
                "UPDATE request SET settled_at = ?1 WHERE rowid IN
                 (SELECT rowid FROM request WHERE settled_at < ?2 LIMIT ?3)",
            )?
            .execute([now.wall.0, NO_EARLIER_MS, STEP])?,
            tx.prepare_cached(
                "DELETE FROM request WHERE rowid IN
                 (SELECT rowid FROM request WHERE settled_at >= ?2 AND settled_at < ?1 LIMIT ?3)",
            )?
            .execute([limit, NO_EARLIER_MS, STEP])?,
        ),
        TimeQuality::Unsynced if now.steady.as_millis() >= KEEP_KEYS_MS.unsigned_abs().into() => (
            0,
            tx.prepare_cached(
                "DELETE FROM request WHERE rowid IN
                 (SELECT rowid FROM request WHERE settled_at IS NOT NULL AND abs(settled_at) < ?1 LIMIT ?2)",
            )?
            .execute([limit, STEP])?,
        ),
        TimeQuality::Unsynced => (0, 0),
    };
    Ok(step(dated.max(gone), STEP).changed_if(dated + gone > 0))
}

impl Step {
    fn changed_if(self, changed: bool) -> Self {
        Self { changed, ..self }
    }
}

/// Before one more adapter is remembered.
pub(super) fn room_for_adapter(tx: &Connection, identity: &str) -> Result<(), StoreError> {
    tx.prepare_cached(
        "DELETE FROM adapter WHERE identity IN
         (SELECT identity FROM adapter WHERE identity <> ?1 ORDER BY identity LIMIT -1 OFFSET ?2)",
    )?
    .execute(params![identity, MOST_ADAPTERS - 1])?;
    Ok(())
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
