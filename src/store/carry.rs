//! A new epoch that takes this run's events along. When headquarters turns out
//! to be ahead of us (a disk image was put back), the numbers that this run has
//! given out are taken there already. As long as none of its events was shown to
//! headquarters, they move into the new epoch, renumbered and sealed again, and no
//! number is used twice. Their local offsets stay: readers of the log notice nothing.
//!
//! Events of earlier runs keep their epoch: whether headquarters has them under
//! these numbers cannot be known here. Its fork alarm tells.

use rusqlite::{Connection, OptionalExtension, params};

use super::epoch::{self, CLASSES, Position, slot};
use super::outbox::{class_index, seq_sql};
use super::seal::Sealed;
use super::{Reader, StoreError};
use crate::event::gateway::{EpochReason, GatewayClock, GatewayGap};
use crate::event::{Class, EventData};

/// More events than this are not renumbered in one transaction.
const MOST: i64 = 50_000;

/// Begins a new epoch with the events committed since `start`, where nothing speaks
/// against it; else as [`epoch::begin`] does.
pub(super) fn begin(
    tx: &Connection,
    start: &Position,
    now: &Position,
    reason: EpochReason,
) -> Result<Position, StoreError> {
    if !may_move(tx, start, now)? {
        return epoch::begin(tx, Some(now), reason);
    }
    let mut begun = epoch::begin_at(tx, Some(start), reason, start.last_offset)?;
    let mut moved = [0_i64; CLASSES];
    for offset in start.last_offset + 1..=now.last_offset {
        let Some(class) = renumber(tx, offset, begun.epoch_no, &moved)? else { continue };
        if let Some(count) = usize::try_from(class).ok().and_then(|slot| moved.get_mut(slot)) {
            *count += 1;
        }
    }
    for class in Class::ALL {
        let last = moved.get(slot(class)).copied().unwrap_or(0);
        tx.execute(
            "UPDATE class_counter SET last_sequence = ?2, last_offset = ?3 WHERE class = ?1",
            params![class_index(class), last, now.last_offset],
        )?;
    }
    begun.last_offset = now.last_offset;
    begun.last_class = moved;
    begun.total_bytes = now.total_bytes;
    tracing::warn!(events = now.last_offset - start.last_offset, "this run's events begin the new epoch");
    Ok(begun)
}

/// Nothing of this run may have been told under its old numbers: not to headquarters,
/// and not by an event of its own that names them.
fn may_move(tx: &Connection, start: &Position, now: &Position) -> Result<bool, StoreError> {
    let events = now.last_offset - start.last_offset;
    if start.epoch_no != now.epoch_no || events == 0 || events > MOST {
        return Ok(false);
    }
    for class in Class::ALL {
        let before = start.last_class.get(slot(class)).copied().unwrap_or(0);
        let delivered = Reader { conn: tx }.delivered(class)?;
        let gap: Option<i64> = tx
            .query_row(
                "SELECT 1 FROM gap WHERE class = ?1 AND epoch_no = ?2 AND to_sequence > ?3 LIMIT 1",
                params![class_index(class), now.epoch_no, before],
                |row| row.get(0),
            )
            .optional()?;
        if gap.is_some() || delivered.epoch_no == now.epoch_no && seq_sql(delivered.class_sequence) > before {
            return Ok(false);
        }
    }
    let (rows, named): (i64, i64) = tx.query_row(
        "SELECT count(*), coalesce(sum(kind IN (?2, ?3)), 0) FROM event WHERE event_offset > ?1",
        params![start.last_offset, GatewayGap::TYPE, GatewayClock::TYPE],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(rows == events && named == 0)
}

/// Gives one event its number in the new epoch; returns its class.
fn renumber(
    tx: &Connection,
    offset: i64,
    epoch_no: i64,
    moved: &[i64; CLASSES],
) -> Result<Option<i64>, StoreError> {
    type Row = (i64, i64, i64, Vec<u8>, String, String, Vec<u8>, String);
    let row: Option<Row> = tx
        .prepare_cached(
            "SELECT class, time, synced, id, kind, subject, boot, data FROM event WHERE event_offset = ?1",
        )?
        .query_row([offset], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
                row.get(6)?,
                row.get(7)?,
            ))
        })
        .optional()?;
    let Some((class, time, synced, id, kind, subject, boot, data)) = row else { return Ok(None) };
    let last = usize::try_from(class).ok().and_then(|slot| moved.get(slot)).copied().unwrap_or(0);
    let numbers = [offset, epoch_no, class, last + 1, time, synced];
    let seal = Sealed { numbers, id: &id, kind: &kind, subject: &subject, boot: &boot, data: &data }.seal();
    tx.prepare_cached(
        "UPDATE event SET epoch_no = ?2, class_sequence = ?3, seal = ?4 WHERE event_offset = ?1",
    )?
    .execute(params![offset, epoch_no, last + 1, seal])?;
    Ok(Some(class))
}
