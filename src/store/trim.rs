//! Taking rows away, in small steps of their own transactions.
//!
//! *Unsent* rows of a class over its `keep_bytes` go oldest first, down to
//! fifteen sixteenths of it, whatever the local readers have seen. Such a run
//! is one stretch: its `gap` row grows step by step and is told as one
//! `gateway.gap` when the run ends (or the epoch within it changes), in the
//! transaction of its last step. The ledger has no limit and is never trimmed.
//!
//! *Delivered* rows go by age, and only up to the slowest local cursor.
//!
//! *When space is tight* delivered rows behind all cursors go first, whatever
//! their age (the ledger's stay), then unsent telemetry.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::epoch::{Position, slot};
use super::outbox::{class_index, sql_seq};
use super::{Reader, StoreError, apply};
use crate::clock::{Reading, TimeQuality};
use crate::event::gateway::{GapReason, GatewayGap};
use crate::event::{Class, NewEvent};
use crate::ident::Epoch;

/// Rows a step looks at, at most.
const STEP_ROWS: i64 = 256;
/// Bytes a step takes away, at most (but at least one row).
const STEP_BYTES: i64 = 1 << 20;
/// The gaps themselves are gateway events: with less than this the class would
/// trim its own gaps for ever.
const GATEWAY_FLOOR_BYTES: u64 = 64 << 10;
/// Weight of a row in SQL; the same as [`apply::weight`].
const WEIGHT: &str = "octet_length(data) + octet_length(subject) + 160";

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Step {
    /// Whether anything changed.
    pub(super) changed: bool,
    /// Whether the same step has more to do.
    pub(super) more: bool,
}

/// The limit of a class as trimming uses it: above `high` a run begins, at `low` it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) high: i64,
    pub(super) low: i64,
}

impl Marks {
    pub(super) fn of(class: Class, keep_bytes: u64) -> Self {
        let keep = if class == Class::Gateway { keep_bytes.max(GATEWAY_FLOOR_BYTES) } else { keep_bytes };
        let high = i64::try_from(keep).unwrap_or(i64::MAX);
        Self { high, low: high - high / 16 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Row {
    offset: i64,
    epoch_no: i64,
    class_sequence: i64,
    time: i64,
    synced: bool,
    class_bytes: i64,
    weight: i64,
}

fn rows(conn: &Connection, class: Class, delivered: bool) -> Result<Vec<Row>, StoreError> {
    let at = Reader { conn }.delivered(class)?;
    let side = if delivered { "<=" } else { ">" };
    let mut query = conn.prepare_cached(&format!(
        "SELECT event_offset, epoch_no, class_sequence, time, class_bytes, {WEIGHT}, synced FROM event
         WHERE class = ?1 AND (epoch_no, class_sequence) {side} (?2, ?3)
         ORDER BY epoch_no, class_sequence LIMIT ?4"
    ))?;
    let found = query.query_map(
        params![class_index(class), at.epoch_no, super::outbox::seq_sql(at.class_sequence), STEP_ROWS],
        |row| {
            Ok(Row {
                offset: row.get(0)?,
                epoch_no: row.get(1)?,
                class_sequence: row.get(2)?,
                time: row.get(3)?,
                class_bytes: row.get(4)?,
                weight: row.get(5)?,
                synced: row.get(6)?,
            })
        },
    )?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// What the class weighed before its oldest unsent row; `None` when all is delivered.
pub(super) fn unsent_from(conn: &Connection, class: Class) -> Result<Option<i64>, StoreError> {
    let at = Reader { conn }.delivered(class)?;
    Ok(conn
        .prepare_cached(&format!(
            "SELECT class_bytes - ({WEIGHT}) FROM event WHERE class = ?1 AND (epoch_no, class_sequence) > (?2, ?3)
             ORDER BY epoch_no, class_sequence LIMIT 1"
        ))?
        .query_row(
            params![class_index(class), at.epoch_no, super::outbox::seq_sql(at.class_sequence)],
            |row| row.get(0),
        )
        .optional()?)
}

/// Takes away rows that lie next to each other in their class's order.
fn delete(conn: &Connection, class: Class, gone: &[Row]) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (gone.first(), gone.last()) else { return Ok(()) };
    let rows = conn
        .prepare_cached(
            "DELETE FROM event WHERE class = ?1 AND (epoch_no, class_sequence) >= (?2, ?3)
             AND (epoch_no, class_sequence) <= (?4, ?5)",
        )?
        .execute(params![
            class_index(class),
            first.epoch_no,
            first.class_sequence,
            last.epoch_no,
            last.class_sequence
        ])?;
    let bytes: i64 = gone.iter().map(|row| row.weight).sum();
    conn.prepare_cached(
        "UPDATE class_counter SET rows = max(0, rows - ?2), bytes = max(0, bytes - ?3) WHERE class = ?1",
    )?
    .execute(params![class_index(class), i64::try_from(rows).unwrap_or(0), bytes])?;
    Ok(())
}

/// Trims unsent rows of a class until not more than `low` bytes of them are left.
pub(super) fn unsent_step(
    tx: &Connection,
    position: &mut Position,
    boot: Uuid,
    class: Class,
    low: i64,
) -> Result<Step, StoreError> {
    let total = position.total_bytes.get(slot(class)).copied().unwrap_or(0);
    let oldest = rows(tx, class, false)?;
    let Some(first) = oldest.first() else { return Ok(Step::default()) };
    let mut left = total - first.class_bytes + first.weight;
    let mut taken = 0_i64;
    let gone: Vec<Row> = oldest
        .iter()
        .take_while(|row| {
            let go = left > low && row.epoch_no == first.epoch_no && (taken == 0 || taken < STEP_BYTES);
            left = total - row.class_bytes;
            taken += row.weight;
            go
        })
        .copied()
        .collect();
    let Some(last) = gone.last() else { return Ok(Step::default()) };
    let left = total - last.class_bytes;
    delete(tx, class, &gone)?;
    extend_gap(tx, position, boot, class, &gone)?;
    let more = left > low && left > 0;
    if !more {
        tell_open_gap(tx, position, boot, class)?;
    }
    metrics::counter!("baygate_store_trimmed_total", "class" => class.as_str())
        .increment(u64::try_from(gone.len()).unwrap_or(0));
    Ok(Step { changed: true, more })
}

/// From which age on delivered rows go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aged {
    pub(super) keep_ms: i64,
    pub(super) now: Reading,
}

impl Aged {
    /// Whether a row is that old, as far as the clocks can be believed: both its own time
    /// and the present one are right; or nobody has set the clock for all that time, so
    /// that what is younger has its time from the same clock.
    fn is_old(&self, row: &Row) -> bool {
        let both_right = row.synced && self.now.quality == TimeQuality::Synced;
        let same_clock = self.now.steady.as_millis() >= self.keep_ms.max(0).unsigned_abs().into();
        (both_right || same_clock) && row.time <= self.now.wall.0.saturating_sub(self.keep_ms)
    }
}

/// Deletes delivered rows up to the slowest local cursor: those that are old, or all
/// where `aged` is `None`. A row counts as no younger than the rows after it.
pub(super) fn delivered_step(tx: &Connection, class: Class, aged: Option<Aged>) -> Result<Step, StoreError> {
    let seen: Option<i64> =
        tx.prepare_cached("SELECT min(event_offset) FROM cursor")?.query_row([], |row| row.get(0))?;
    let oldest = rows(tx, class, true)?;
    let mut taken = 0_i64;
    let free: Vec<Row> = oldest
        .iter()
        .take_while(|row| {
            let go = seen.is_none_or(|seen| row.offset <= seen) && (taken == 0 || taken < STEP_BYTES);
            taken += row.weight;
            go
        })
        .copied()
        .collect();
    let old = match aged {
        None => free.len(),
        Some(aged) => free.iter().rposition(|row| aged.is_old(row)).map_or(0, |last| last + 1),
    };
    let gone = free.get(..old).unwrap_or(&[]);
    delete(tx, class, gone)?;
    Ok(Step { changed: !gone.is_empty(), more: !gone.is_empty() && gone.len() == free.len() })
}

fn extend_gap(
    tx: &Connection,
    position: &mut Position,
    boot: Uuid,
    class: Class,
    gone: &[Row],
) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (gone.first(), gone.last()) else { return Ok(()) };
    let count = i64::try_from(gone.len()).unwrap_or(0);
    if open_gap(tx, class, BEFORE_ALL)?.is_some_and(|gap| gap.epoch_no != first.epoch_no) {
        tell_open_gap(tx, position, boot, class)?;
    }
    let grown = tx
        .prepare_cached(
            "UPDATE gap SET to_sequence = ?3, count = count + ?4
             WHERE class = ?1 AND epoch_no = ?2 AND told = 0 AND reason = 'full'",
        )?
        .execute(params![class_index(class), first.epoch_no, last.class_sequence, count])?;
    if grown == 0 {
        tx.prepare_cached(
            "INSERT OR REPLACE INTO gap (class, epoch_no, from_sequence, to_sequence, count, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, 'full')",
        )?
        .execute(params![
            class_index(class),
            first.epoch_no,
            first.class_sequence,
            last.class_sequence,
            count
        ])?;
    }
    Ok(())
}

/// Comes before every epoch and sequence.
const BEFORE_ALL: (i64, i64) = (i64::MIN, i64::MIN);

struct OpenGap {
    epoch_no: i64,
    from: i64,
    to: i64,
    count: i64,
    reason: GapReason,
}

/// The first stretch of a class that has yet to be told, after an epoch's number and a sequence in it.
fn open_gap(
    conn: &Connection,
    class: Class,
    (epoch_no, from): (i64, i64),
) -> Result<Option<OpenGap>, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT epoch_no, from_sequence, to_sequence, count, reason = 'full' FROM gap
             WHERE class = ?1 AND told = 0 AND (epoch_no, from_sequence) > (?2, ?3)
             ORDER BY epoch_no, from_sequence LIMIT 1",
        )?
        .query_row([class_index(class), epoch_no, from], |row| {
            Ok(OpenGap {
                epoch_no: row.get(0)?,
                from: row.get(1)?,
                to: row.get(2)?,
                count: row.get(3)?,
                reason: if row.get(4)? { GapReason::Full } else { GapReason::Damaged },
            })
        })
        .optional()?)
}

/// Tells a stretch that has ended, if the class has one.
pub(super) fn tell_open_gap(
    tx: &Connection,
    position: &mut Position,
    boot: Uuid,
    class: Class,
) -> Result<Step, StoreError> {
    let Some(gap) = open_gap(tx, class, BEFORE_ALL)? else { return Ok(Step::default()) };
    tell(tx, position, boot, class, &gap)?;
    Ok(Step { changed: true, more: true })
}

/// Tells all of them. A salvage may have left one for every second event: each is looked for
/// behind the one before, not from the start.
pub(super) fn tell_open_gaps(
    tx: &Connection,
    position: &mut Position,
    boot: Uuid,
    class: Class,
) -> Result<(), StoreError> {
    let mut after = BEFORE_ALL;
    while let Some(gap) = open_gap(tx, class, after)? {
        tell(tx, position, boot, class, &gap)?;
        after = (gap.epoch_no, gap.from);
    }
    Ok(())
}

fn tell(
    tx: &Connection,
    position: &mut Position,
    boot: Uuid,
    class: Class,
    gap: &OpenGap,
) -> Result<(), StoreError> {
    let epoch: Option<Vec<u8>> = tx
        .prepare_cached("SELECT id FROM epoch WHERE no = ?1")?
        .query_row([gap.epoch_no], |row| row.get(0))
        .optional()?;
    let told = GatewayGap {
        class,
        from: sql_seq(gap.from),
        to: sql_seq(gap.to),
        count: sql_seq(gap.count).0,
        reason: gap.reason,
        gap_epoch: match epoch {
            Some(id) if gap.epoch_no != position.epoch_no => Some(Epoch(super::requests::uuid_from(&id)?)),
            _ => None,
        },
    };
    tracing::warn!(class = %class, from = gap.from, to = gap.to, count = gap.count, reason = ?gap.reason, "gap in the log");
    let source = super::epoch::meta(tx, "source")?.unwrap_or_default();
    let gateway = source.rsplit('/').next().unwrap_or("unknown").to_owned();
    let event = NewEvent::now(format!("gateway/{gateway}"), &told)
        .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    apply::append(tx, position, boot, event)?;
    tx.prepare_cached("UPDATE gap SET told = 1 WHERE class = ?1 AND epoch_no = ?2 AND from_sequence = ?3")?
        .execute(params![class_index(class), gap.epoch_no, gap.from])?;
    Ok(())
}

/// Forgets gaps that lie behind what was delivered, and the oldest of too many set aside.
pub(super) fn leftovers_step(tx: &Connection) -> Result<Step, StoreError> {
    let gaps = tx.execute(
        "DELETE FROM gap WHERE told = 1 AND EXISTS (SELECT 1 FROM delivered d
         WHERE d.class = gap.class AND (d.epoch_no, d.class_sequence) >= (gap.epoch_no, gap.to_sequence))",
        [],
    )?;
    let aside = tx.execute(
        "DELETE FROM quarantine WHERE event_offset IN
         (SELECT event_offset FROM quarantine ORDER BY event_offset DESC LIMIT 100 OFFSET 10000)",
        [],
    )?;
    Ok(Step { changed: gaps + aside > 0, more: aside >= 100 })
}
