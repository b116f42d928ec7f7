//! Epochs: where the log stands, when a new life of it begins and why.
//! Sequences restart with an epoch; the local offset never goes back.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::StoreError;
use super::outbox::{self, class_index};
use super::requests::uuid_from;
use super::seal::seal_of;
use crate::clock::UtcMillis;
use crate::event::Class;
use crate::event::gateway::EpochReason;
use crate::ident::{Epoch, Seq};

/// Classes, as the width of tables by class.
pub(super) const CLASSES: usize = Class::ALL.len();

/// Where the writer stands, kept in memory beside the tables it mirrors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) epoch: Epoch,
    pub(super) epoch_no: i64,
    pub(super) base_offset: i64,
    pub(super) last_offset: i64,
    pub(super) last_class: [i64; CLASSES],
    /// Weight of everything ever appended, by class.
    pub(super) total_bytes: [i64; CLASSES],
}

/// The place of a class in tables by class.
pub(super) fn slot(class: Class) -> usize {
    usize::try_from(class_index(class)).unwrap_or(0)
}

impl Position {
    /// Reads where the log stands; `None` for a new file. The last offset comes
    /// from the counters too: after everything was trimmed the rows know nothing.
    pub(super) fn load(conn: &Connection) -> Result<Option<Self>, StoreError> {
        let latest: Option<(i64, Vec<u8>, i64)> = conn
            .query_row("SELECT no, id, base_offset FROM epoch ORDER BY no DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        let Some((epoch_no, id, base_offset)) = latest else { return Ok(None) };
        let rows: i64 =
            conn.query_row("SELECT coalesce(max(event_offset), 0) FROM event", [], |row| row.get(0))?;
        let mut position = Self {
            epoch: Epoch(uuid_from(&id)?),
            epoch_no,
            base_offset,
            last_offset: rows.max(base_offset),
            last_class: [0; CLASSES],
            total_bytes: [0; CLASSES],
        };
        let mut query =
            conn.prepare("SELECT class, last_sequence, last_offset, total_bytes FROM class_counter")?;
        let mut counters = query.query([])?;
        while let Some(row) = counters.next()? {
            let slot = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(CLASSES);
            if let (Some(last), Some(total)) =
                (position.last_class.get_mut(slot), position.total_bytes.get_mut(slot))
            {
                *last = row.get(1)?;
                *total = row.get(3)?;
                position.last_offset = position.last_offset.max(row.get(2)?);
            }
        }
        Ok(Some(position))
    }

    /// Takes the next offset and class sequence, and adds the weight.
    pub(super) fn next(&mut self, class: Class, weight: i64) -> Next {
        self.last_offset += 1;
        let slot = slot(class);
        let class_sequence = self.last_class.get_mut(slot).map_or(0, |last| {
            *last += 1;
            *last
        });
        let total_bytes = self.total_bytes.get_mut(slot).map_or(0, |total| {
            *total += weight;
            *total
        });
        Next { offset: self.last_offset, class_sequence, total_bytes }
    }

    /// The sequence of an offset within the running epoch.
    pub(super) fn sequence(&self, offset: i64) -> Seq {
        Seq(u64::try_from(offset - self.base_offset).unwrap_or(0))
    }
}

/// What [`Position::next`] gives out.
pub(super) struct Next {
    pub(super) offset: i64,
    pub(super) class_sequence: i64,
    pub(super) total_bytes: i64,
}

/// How a reason is written in the table.
pub(super) fn reason_text(reason: EpochReason) -> &'static str {
    match reason {
        EpochReason::Created => "created",
        EpochReason::Cloned => "cloned",
        EpochReason::Restored => "restored",
        EpochReason::Salvaged => "salvaged",
        EpochReason::Ahead => "ahead",
    }
}

/// A reason as the table has it.
pub(super) fn reason_of(text: &str) -> Option<EpochReason> {
    use EpochReason::{Ahead, Cloned, Created, Restored, Salvaged};
    [Created, Cloned, Restored, Salvaged, Ahead].into_iter().find(|reason| reason_text(*reason) == text)
}

/// Begins a new epoch within a transaction. Rows of the old one stay and are still sent.
pub(super) fn begin(
    tx: &Connection,
    before: Option<&Position>,
    reason: EpochReason,
) -> Result<Position, StoreError> {
    let seen: i64 = tx.query_row(
        "SELECT max((SELECT coalesce(max(event_offset), 0) FROM cursor),
                    (SELECT coalesce(max(event_offset), 0) FROM quarantine),
                    (SELECT coalesce(max(last_offset), 0) FROM class_counter))",
        [],
        |row| row.get(0),
    )?;
    begin_at(tx, before, reason, before.map_or(0, |before| before.last_offset).max(seen))
}

/// Begins a new epoch whose first event comes after `base_offset`.
pub(super) fn begin_at(
    tx: &Connection,
    before: Option<&Position>,
    reason: EpochReason,
    base_offset: i64,
) -> Result<Position, StoreError> {
    let epoch = Epoch::begin();
    // Not from `epoch` alone: where a salvage lost it, positions that outlived it would
    // lie ahead of everything to come, which would then count as delivered and as read.
    let highest: i64 = tx.query_row(
        "SELECT max((SELECT coalesce(max(no), 0) FROM epoch),
                    (SELECT coalesce(max(epoch_no), 0) FROM epoch_end),
                    (SELECT coalesce(max(epoch_no), 0) FROM delivered),
                    (SELECT coalesce(max(epoch_no), 0) FROM gap))",
        [],
        |row| row.get(0),
    )?;
    let epoch_no = highest + 1;
    tx.execute(
        "INSERT INTO epoch (no, id, base_offset, reason, begun_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            epoch_no,
            epoch.0.as_bytes().as_slice(),
            base_offset,
            reason_text(reason),
            UtcMillis::now().0
        ],
    )?;
    note_copy(tx, epoch_no, epoch.0, base_offset)?;
    for class in Class::ALL {
        if let Some(before) = before {
            tx.execute(
                "INSERT OR REPLACE INTO epoch_end (epoch_no, class, last_sequence) VALUES (?1, ?2, ?3)",
                params![before.epoch_no, class_index(class), before.last_class.get(slot(class))],
            )?;
        }
        tx.execute(
            "INSERT INTO class_counter (class, last_sequence, last_offset, total_bytes, rows, bytes)
             VALUES (?1, 0, ?2, 0, 0, 0) ON CONFLICT (class) DO UPDATE SET last_sequence = 0, last_offset = ?2",
            params![class_index(class), base_offset],
        )?;
    }
    Ok(Position {
        epoch,
        epoch_no,
        base_offset,
        last_offset: base_offset,
        last_class: [0; CLASSES],
        total_bytes: before.map_or([0; CLASSES], |position| position.total_bytes),
    })
}

/// The second copy of an epoch, in `meta`: `ID BASE SEAL`. Where both differ, this one knows whether it is right.
fn remember(no: i64, id: Uuid, base_offset: i64) -> String {
    let seal = seal_of(format!("{no} {id} {base_offset}").as_bytes());
    format!("{id} {base_offset} {seal:x}")
}

/// Writes the second copy of an epoch.
pub(super) fn note_copy(tx: &Connection, no: i64, id: Uuid, base_offset: i64) -> Result<(), StoreError> {
    set_meta(tx, &format!("epoch/{no}"), &remember(no, id, base_offset))
}

/// All epochs: number, id, base offset.
pub(super) fn all(conn: &Connection) -> Result<Vec<(i64, Uuid, i64)>, StoreError> {
    let mut query = conn.prepare("SELECT no, id, base_offset FROM epoch")?;
    let mut rows = query.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push((row.get(0)?, uuid_from(&row.get::<_, Vec<u8>>(1)?)?, row.get(2)?));
    }
    Ok(all)
}

/// Id and base offset by the second copy, if that is as it was written.
pub(super) fn remembered(no: i64, value: &str) -> Option<(Uuid, i64)> {
    let mut words = value.split(' ');
    let (id, base) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (remember(no, id, base) == value).then_some((id, base))
}

/// Whether the epochs agree with their second copies, and the counters with the epoch: every
/// event counts once in its class and once in the whole.
pub(super) fn agree(conn: &Connection) -> Result<(), StoreError> {
    let damaged = |what: String| Err(StoreError::Damaged { what });
    let mut query = conn.prepare(
        "SELECT no, id, base_offset, (SELECT value FROM meta WHERE key = 'epoch/' || no) FROM epoch",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (no, id, base): (i64, Vec<u8>, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let copy = row.get::<_, Option<String>>(3)?.and_then(|value| remembered(no, &value));
        if copy != uuid_from(&id).ok().map(|id| (id, base)) {
            return damaged(format!("epoch {no} and its second copy differ"));
        }
    }
    // Each named value is text; a start that stumbles over one later would not salvage it.
    let mut query = conn.prepare("SELECT key, value FROM meta")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let _: (String, String) = (row.get(0)?, row.get(1)?);
    }
    // After a salvage they are only what the rows say; the epoch that begins now sets them anew.
    if meta(conn, "salvaged")?.is_none() {
        counters_agree(conn)?;
    }
    let mut query = conn.prepare("SELECT class, epoch_no, class_sequence, seal FROM delivered")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let position = [row.get(0)?, row.get(1)?, row.get(2)?];
        if row.get::<_, Option<i64>>(3)?.is_some_and(|seal| seal != outbox::seal(position)) {
            return damaged(format!(
                "the delivered position of class {} is not as it was written",
                position[0]
            ));
        }
    }
    Ok(())
}

fn counters_agree(conn: &Connection) -> Result<(), StoreError> {
    let (counted, given): (i64, i64) = conn.query_row(
        "SELECT coalesce(sum(last_sequence), 0),
                max(coalesce(max(last_offset), 0), (SELECT coalesce(max(base_offset), 0) FROM epoch))
                    - (SELECT coalesce(max(base_offset), 0) FROM epoch)
         FROM class_counter",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if counted != given {
        return Err(StoreError::Damaged {
            what: format!("the counters of the classes give {counted} events, the log {given}"),
        });
    }
    Ok(())
}

/// A named value.
pub(super) fn meta(conn: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    Ok(conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?)
}

/// The last place in the log within a transaction: also where all events are trimmed, and where
/// the counters of this transaction's events are not written yet.
pub(super) fn last_offset(tx: &Connection) -> Result<i64, StoreError> {
    Ok(tx
        .prepare_cached(
            "SELECT max((SELECT coalesce(max(event_offset), 0) FROM event),
                        (SELECT coalesce(max(last_offset), 0) FROM class_counter))",
        )?
        .query_row([], |row| row.get(0))?)
}

/// Sets a named value.
pub(super) fn set_meta(conn: &Connection, key: &str, value: &str) -> Result<(), StoreError> {
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", [key, value])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Reader, connection};

    #[test]
    fn positions_that_outlived_their_epochs_do_not_swallow_the_new_one() {
        let mut conn = Connection::open_in_memory().unwrap();
        connection::migrate(&mut conn).unwrap();
        conn.execute_batch(
            "INSERT INTO delivered (class, epoch_no, class_sequence) VALUES (0, 5, 900);
             INSERT INTO cursor (name, event_offset) VALUES ('maintenance', 2000);",
        )
        .unwrap();
        let begun = begin(&conn, None, EpochReason::Salvaged).unwrap();
        let delivered = Reader { conn: &conn }.delivered(Class::Ledger).unwrap();
        assert!(begun.epoch_no > delivered.epoch_no, "its events would count as delivered");
        assert!(begun.base_offset >= 2000, "its events would count as read");
        assert_eq!(begun.sequence(begun.last_offset), Seq(0));
    }
}
