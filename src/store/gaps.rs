//! Which class sequences are missing: positions that were given out, not yet
//! delivered, not there, and not told as a gap.

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use super::outbox::{class_index, seq_sql};
use super::{Reader, StoreError};
use crate::event::Class;

/// A stretch that is missing without having been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The class.
    pub class: Class,
    /// The epoch's number in the file.
    pub epoch_no: i64,
    /// First missing class sequence.
    pub from: i64,
    /// Last missing class sequence.
    pub to: i64,
}

/// What an epoch gave out to a class, as far as it is not delivered.
struct Given {
    epoch_no: i64,
    from: i64,
    to: i64,
}

/// All stretches of a class, in order. Reads one snapshot.
pub(super) fn missing(conn: &Connection, class: Class) -> Result<Vec<Missing>, StoreError> {
    // The counts have to be of the same moment.
    let tx = conn.unchecked_transaction()?;
    missing_within(&tx, class)
}

/// The same within a transaction.
pub(super) fn missing_within(tx: &Connection, class: Class) -> Result<Vec<Missing>, StoreError> {
    let mut found = Vec::new();
    for given in given(tx, class)? {
        let (present, told) = counts(tx, class, &given)?;
        if present + told < given.to - given.from + 1 {
            holes(tx, class, &given, &mut found)?;
        }
    }
    Ok(found)
}

fn given(conn: &Connection, class: Class) -> Result<Vec<Given>, StoreError> {
    let at = Reader { conn }.delivered(class)?;
    let index = class_index(class);
    let mut query = conn.prepare_cached("SELECT no FROM epoch WHERE no >= ?1 ORDER BY no")?;
    let epochs: Vec<i64> = query.query_map([at.epoch_no], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let latest: i64 = conn.query_row("SELECT coalesce(max(no), 0) FROM epoch", [], |row| row.get(0))?;
    let mut given = Vec::new();
    for epoch_no in epochs {
        let stands = if epoch_no == latest {
            "SELECT last_sequence FROM class_counter WHERE class = ?1 AND ?2 = ?2"
        } else {
            "SELECT last_sequence FROM epoch_end WHERE class = ?1 AND epoch_no = ?2"
        };
        let told_last: Option<i64> =
            conn.prepare_cached(stands)?.query_row([index, epoch_no], |row| row.get(0)).optional()?;
        let rows_last: Option<i64> = conn
            .prepare_cached("SELECT max(class_sequence) FROM event WHERE class = ?1 AND epoch_no = ?2")?
            .query_row([index, epoch_no], |row| row.get(0))?;
        let from = if epoch_no == at.epoch_no { seq_sql(at.class_sequence) + 1 } else { 1 };
        let to = told_last.max(rows_last).unwrap_or(0);
        if to >= from {
            given.push(Given { epoch_no, from, to });
        }
    }
    Ok(given)
}

fn counts(conn: &Connection, class: Class, given: &Given) -> Result<(i64, i64), StoreError> {
    let range = params![class_index(class), given.epoch_no, given.from, given.to];
    let present = conn
        .prepare_cached(
            "SELECT count(*) FROM event WHERE class = ?1 AND epoch_no = ?2 AND class_sequence BETWEEN ?3 AND ?4",
        )?
        .query_row(range, |row| row.get(0))?;
    let told = conn
        .prepare_cached(
            "SELECT coalesce(sum(min(to_sequence, ?4) - max(from_sequence, ?3) + 1), 0) FROM gap
             WHERE class = ?1 AND epoch_no = ?2 AND to_sequence >= ?3 AND from_sequence <= ?4",
        )?
        .query_row(range, |row| row.get(0))?;
    Ok((present, told))
}

/// Walks the present positions and the told gaps together.
fn holes(conn: &Connection, class: Class, given: &Given, found: &mut Vec<Missing>) -> Result<(), StoreError> {
    let mut query = conn.prepare_cached(
        "SELECT class_sequence, class_sequence AS last FROM event
         WHERE class = ?1 AND epoch_no = ?2 AND class_sequence BETWEEN ?3 AND ?4
         UNION ALL SELECT from_sequence, to_sequence FROM gap
         WHERE class = ?1 AND epoch_no = ?2 AND to_sequence >= ?3 AND from_sequence <= ?4
         ORDER BY 1",
    )?;
    let mut rows = query.query(params![class_index(class), given.epoch_no, given.from, given.to])?;
    let mut expected = given.from;
    while let Some(row) = rows.next()? {
        let (from, to): (i64, i64) = (row.get(0)?, row.get(1)?);
        if from > expected {
            found.push(Missing { class, epoch_no: given.epoch_no, from: expected, to: from - 1 });
        }
        expected = expected.max(to + 1);
    }
    if expected <= given.to {
        found.push(Missing { class, epoch_no: given.epoch_no, from: expected, to: given.to });
    }
    Ok(())
}
