//! Is the file sound? A quick look before the daemon is ready (its cost does not
//! grow with the file) and a full one in the background, in slices of one
//! statement each, so that nothing waits and the WAL is not held.
//!
//! The full check reads every event in both directions (row → index, index →
//! row), recomputes its seal, looks for missing class sequences, and runs
//! SQLite's own check on the other tables; of cards and transactions it
//! recomputes the seals, too. What it cannot see, the list of free
//! pages, `baygate buffer verify` covers with `PRAGMA integrity_check`.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::epoch;
use super::gaps;
use super::seal::{self, LedgerTable, Sealed};
use super::{StoreError, connection};
use crate::event::Class;

/// Small tables that the log cannot do without.
const VITAL: [&str; 7] = ["epoch", "epoch_end", "meta", "class_counter", "cursor", "delivered", "gap"];
/// Rows at each end of the log that the quick look reads.
const ENDS: i64 = 64;
/// Events in a slice.
const SLICE: i64 = 200;
/// A table up to this many rows is checked in one piece.
const IN_ONE_PIECE: i64 = 2000;

/// What an event's row must have to be believed; the first eleven columns of [`SEALED_COLUMNS`].
pub(super) const SEALED_COLUMNS: &str =
    "event_offset, epoch_no, class, class_sequence, time, synced, id, kind, subject, boot, data, seal";

fn damaged<T>(what: impl Into<String>) -> Result<T, StoreError> {
    Err(StoreError::Damaged { what: what.into() })
}

/// Whether a row of [`SEALED_COLUMNS`] is as it was written.
pub(super) fn is_sealed(row: &Row<'_>) -> rusqlite::Result<bool> {
    let numbers = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
    let (id, boot): (Vec<u8>, Vec<u8>) = (row.get(6)?, row.get(9)?);
    // Damaged text may not be UTF-8; that is an answer, not a failure.
    let text = |column| row.get_ref(column).map(|value| value.as_str().map(str::to_owned).ok());
    let (Some(kind), Some(subject), Some(data)) = (text(7)?, text(8)?, text(10)?) else { return Ok(false) };
    let sealed = Sealed { numbers, id: &id, kind: &kind, subject: &subject, boot: &boot, data: &data };
    Ok(sealed.seal() == row.get::<_, i64>(11)?)
}

/// Tables and indexes of a file: names and statements.
pub(super) fn schema(conn: &Connection) -> Result<Vec<(String, String)>, StoreError> {
    let mut query =
        conn.prepare("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name")?;
    let found = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Whether the schema is ours to the letter: one letter less in it is no damage to SQLite.
pub(super) fn whole_schema(conn: &Connection) -> Result<(), StoreError> {
    let (found, expected) = (schema(conn)?, connection::schema()?);
    match expected.iter().find(|statement| !found.contains(statement)) {
        Some((name, _)) => damaged(format!("{name} is missing from the schema, or not as it was written")),
        None => Ok(()),
    }
}

/// The look before ready.
pub(super) fn quick(conn: &Connection) -> Result<(), StoreError> {
    whole_schema(conn)?;
    for table in VITAL {
        whole(conn, table)?;
    }
    for order in ["DESC", "ASC"] {
        let ends = format!(
            "SELECT {SEALED_COLUMNS}, {INDEXED} FROM event e ORDER BY event_offset {order} LIMIT {ENDS}"
        );
        events(conn, &ends, [], None)?;
    }
    counters(conn)?;
    epoch::agree(conn)?;
    for open in [
        "SELECT id, body FROM request WHERE state IN ('pending','running')",
        "SELECT id, fields FROM print_job WHERE state IN ('queued','waiting-card','printing')",
        "SELECT id, link FROM visit WHERE ended_at IS NULL",
        "SELECT id, fact FROM card_transaction WHERE state IN ('intent','unknown')",
    ] {
        let mut query = conn.prepare(open)?;
        let mut rows = query.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

/// Whether the index has this row, in the column after [`SEALED_COLUMNS`].
const INDEXED: &str = "(SELECT i.event_offset FROM event i INDEXED BY event_by_class
     WHERE i.class = e.class AND i.epoch_no = e.epoch_no AND i.class_sequence = e.class_sequence) IS e.event_offset";

/// Reads events of a query of [`SEALED_COLUMNS`] and [`INDEXED`]; gives their number and the last offset.
fn events(
    conn: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    after: Option<i64>,
) -> Result<(u64, Option<i64>), StoreError> {
    let mut query = conn.prepare_cached(sql)?;
    let mut rows = query.query(params)?;
    let descending = sql.contains("event_offset DESC");
    let (mut count, mut last) = (0, after);
    while let Some(row) = rows.next()? {
        let offset: i64 = row.get(0)?;
        // A page in another's place: to follow it could go in a circle.
        if last.is_some_and(|last| if descending { offset >= last } else { offset <= last }) {
            return damaged(format!("event {offset} is out of its place"));
        }
        if !is_sealed(row)? {
            return damaged(format!("event {offset} is not as it was written"));
        }
        if !row.get::<_, bool>(12)? {
            return damaged(format!("event {offset} is missing from its index"));
        }
        (count, last) = (count + 1, Some(offset));
    }
    Ok((count, last))
}

/// Rows never go beyond what the counters gave out.
fn counters(conn: &Connection) -> Result<(), StoreError> {
    let beyond: Option<i64> = conn.query_row(
        "SELECT max(event_offset) FROM event WHERE event_offset >
         max((SELECT coalesce(max(last_offset), 0) FROM class_counter), (SELECT coalesce(max(base_offset), 0) FROM epoch))",
        [],
        |row| row.get(0),
    )?;
    match beyond {
        Some(offset) => damaged(format!("event {offset} lies beyond the counters")),
        None => Ok(()),
    }
}

/// SQLite's own check of one table and its indexes.
fn whole(conn: &Connection, table: &str) -> Result<(), StoreError> {
    let verdict: String =
        conn.query_row(&format!("PRAGMA integrity_check('{table}')"), [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { damaged(format!("table {table}: {}", first_line(&verdict))) }
}

/// Whether all text of a row is text, which SQLite itself does not ask; salvaging leaves such a row out.
fn texts(row: &Row<'_>, columns: usize, table: &str) -> Result<(), StoreError> {
    for column in 0..columns {
        if let ValueRef::Text(bytes) = row.get_ref(column)?
            && std::str::from_utf8(bytes).is_err()
        {
            return damaged(format!("table {table}: text of a row is not as it was written"));
        }
    }
    Ok(())
}

/// A whole table at once.
fn in_one_piece(conn: &Connection, table: &str, ledger: Option<LedgerTable>) -> Result<(), StoreError> {
    whole(conn, table)?;
    let mut query = conn.prepare_cached(&format!("SELECT * FROM {table}"))?;
    let columns = query.column_count();
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        seal::check(row, ledger, 0)?;
        texts(row, columns, table)?;
    }
    Ok(())
}

/// The first finding of SQLite's check, which may give hundreds in one answer.
pub(super) fn first_line(verdict: &str) -> &str {
    verdict.lines().find(|line| !line.starts_with("***")).unwrap_or(verdict)
}

/// Where the full check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Start,
    /// Row → index, after this offset.
    Rows(i64),
    /// Index → row, after this entry.
    Index(i64, i64, i64),
    /// Class sequences of a class.
    Sequences(usize),
    /// A table, in one piece or after this row.
    Table(usize, i64),
}

/// The full check, slice by slice.
#[derive(Debug, Default)]
pub(super) struct FullCheck {
    at: At,
    rows: u64,
    /// Tables beside the log, as the check found them.
    tables: Vec<String>,
}

impl FullCheck {
    /// Rows read so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Does the next slice; true when the check is through.
    pub(super) fn slice(&mut self, conn: &Connection) -> Result<bool, StoreError> {
        let next = match self.at {
            At::Start => {
                quick(conn)?;
                self.tables = super::salvage::tables(conn)?;
                self.tables.retain(|table| table != "event");
                At::Rows(i64::MIN)
            }
            At::Rows(after) => self.event_rows(conn, after)?,
            At::Index(class, epoch_no, sequence) => self.event_index(conn, class, epoch_no, sequence)?,
            At::Sequences(place) => match Class::ALL.get(place) {
                Some(class) => {
                    let missing = gaps::missing(conn, *class)?;
                    if let Some(first) = missing.first() {
                        return damaged(format!("{class} events are missing from {}", first.from));
                    }
                    At::Sequences(place + 1)
                }
                None => At::Table(0, i64::MIN),
            },
            At::Table(place, after) => match self.tables.get(place).cloned() {
                Some(table) => self.table(conn, &table, place, after)?,
                None => return Ok(true),
            },
        };
        self.at = next;
        Ok(false)
    }

    fn event_rows(&mut self, conn: &Connection, after: i64) -> Result<At, StoreError> {
        let sql = format!(
            "SELECT {SEALED_COLUMNS}, {INDEXED} FROM event e WHERE event_offset > ?1 ORDER BY event_offset LIMIT {SLICE}"
        );
        let (count, last) = events(conn, &sql, [after], Some(after))?;
        self.rows += count;
        Ok(last.filter(|_| count > 0).map_or(At::Index(-1, 0, 0), At::Rows))
    }

    fn event_index(
        &mut self,
        conn: &Connection,
        class: i64,
        epoch_no: i64,
        sequence: i64,
    ) -> Result<At, StoreError> {
        let mut query = conn.prepare_cached(
            "SELECT class, epoch_no, class_sequence, event_offset,
                    (SELECT r.class = i.class AND r.epoch_no = i.epoch_no AND r.class_sequence = i.class_sequence
                     FROM event r NOT INDEXED WHERE r.event_offset = i.event_offset)
             FROM event i INDEXED BY event_by_class
             WHERE (class, epoch_no, class_sequence) > (?1, ?2, ?3)
             ORDER BY class, epoch_no, class_sequence LIMIT 1000",
        )?;
        let mut rows = query.query([class, epoch_no, sequence])?;
        let mut next = At::Sequences(0);
        let mut last = (class, epoch_no, sequence);
        while let Some(row) = rows.next()? {
            let entry = (row.get(0)?, row.get(1)?, row.get(2)?);
            if entry <= last {
                return damaged("the index of the events is out of its order");
            }
            last = entry;
            if row.get::<_, Option<bool>>(4)? != Some(true) {
                return damaged(format!(
                    "the index names event {}, which is not there",
                    row.get::<_, i64>(3)?
                ));
            }
            next = At::Index(entry.0, entry.1, entry.2);
        }
        Ok(next)
    }

    fn table(&mut self, conn: &Connection, table: &str, place: usize, after: i64) -> Result<At, StoreError> {
        let few = format!("SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {})", IN_ONE_PIECE + 1);
        let count: i64 = conn.query_row(&few, [], |row| row.get(0))?;
        let ledger = LedgerTable::of(table);
        if count <= IN_ONE_PIECE || matches!(table, "meta" | "gap" | "cursor" | "epoch_end") {
            in_one_piece(conn, table, ledger)?;
            return Ok(At::Table(place + 1, i64::MIN));
        }
        // Too long for one piece: every column of every row is read.
        let sql = format!("SELECT rowid, * FROM {table} WHERE rowid > ?1 ORDER BY rowid LIMIT {SLICE}");
        let mut query = match conn.prepare_cached(&sql) {
            Ok(query) => query,
            // Tables without a rowid stay small by nature.
            Err(_) => {
                in_one_piece(conn, table, ledger)?;
                return Ok(At::Table(place + 1, i64::MIN));
            }
        };
        let columns = query.column_count();
        let mut rows = query.query(params![after])?;
        let mut next = At::Table(place + 1, i64::MIN);
        while let Some(row) = rows.next()? {
            seal::check(row, ledger, 1)?;
            texts(row, columns, table)?;
            self.rows += 1;
            let rowid: i64 = row.get(0)?;
            if matches!(next, At::Table(at, last) if at == place && rowid <= last) || rowid <= after {
                return damaged(format!("table {table} is out of its order"));
            }
            next = At::Table(place, rowid);
        }
        Ok(next)
    }
}
