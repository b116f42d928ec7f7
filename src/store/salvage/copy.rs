//! Table by table through SQLite, around what it cannot read.

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::told::Told;
use crate::store::StoreError;
use crate::store::outbox::seal;
use crate::store::seal::{LedgerTable, Sealed};

/// Unreadable places in one table after which the rest is left to the page scan; rows without a
/// rowid, more than were kept, that bring nothing new.
const PATIENCE: u32 = 5_000;

/// What came over of a table.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) kept: u64,
    /// Something was not readable, or not believable.
    pub(super) damaged: bool,
}

/// The tables of a file.
pub(in crate::store) fn tables(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut query = conn.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    )?;
    let names = query.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Columns of a table and those of its primary key.
fn columns(conn: &Connection, table: &str) -> rusqlite::Result<(Vec<String>, Vec<String>)> {
    let mut query = conn.prepare("SELECT name, pk FROM pragma_table_info(?1)")?;
    let rows: Vec<(String, i64)> =
        query.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let key = rows.iter().filter(|(_, pk)| *pk > 0).map(|(name, _)| name.clone()).collect();
    Ok((rows.into_iter().map(|(name, _)| name).collect(), key))
}

/// Takes a row that is not there yet. Bytes of a page that are not used any more hold earlier states of
/// rows, seal and all: of a ledger's row the later state stays.
pub(super) fn insert(table: &str, columns: &[String]) -> String {
    let (list, marks) = (columns.join(", "), vec!["?"; columns.len()].join(", "));
    let later = LedgerTable::of(table).map_or_else(String::new, |sealed| {
        let set: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
        format!(" ON CONFLICT (no) DO UPDATE SET {} WHERE {}", set.join(", "), sealed.is_later())
    });
    format!("INSERT OR IGNORE INTO {table} ({list}) VALUES ({marks}){later}")
}

/// Copies what can be read of a table. Errors of the new file end it, those of the old one do not.
pub(super) fn table(
    source: &Connection,
    new: &Connection,
    table: &str,
    told: &mut Told<'_>,
) -> Result<Copied, StoreError> {
    let (wanted, key) = columns(new, table)?;
    let Ok((present, _)) = columns(source, table) else {
        return Ok(Copied { kept: 0, damaged: true });
    };
    let common: Vec<String> = wanted.into_iter().filter(|column| present.contains(column)).collect();
    if common.is_empty() {
        // An older file has no such table.
        return Ok(Copied::default());
    }
    let list = common.join(", ");
    let insert = insert(table, &common);
    let mut sink = Sink {
        new,
        insert,
        is_event: table == "event",
        is_delivered: table == "delivered",
        ledger: LedgerTable::of(table),
        told,
        copied: Copied::default(),
    };
    if source.prepare(&format!("SELECT rowid FROM {table}")).is_ok() {
        by_rowid(source, table, &list, &mut sink)?;
    } else {
        let order = key.join(" DESC, ");
        let forward = scan(source, &format!("SELECT 0, {list} FROM {table}"), [], Rowids::None, &mut sink)?;
        if !forward.sound {
            sink.copied.damaged = true;
            let backward = format!("SELECT 0, {list} FROM {table} ORDER BY {order} DESC");
            scan(source, &backward, [], Rowids::None, &mut sink)?;
        }
    }
    Ok(sink.copied)
}

struct Sink<'c, 't> {
    new: &'c Connection,
    insert: String,
    is_event: bool,
    is_delivered: bool,
    ledger: Option<LedgerTable>,
    told: &'c mut Told<'t>,
    copied: Copied,
}

impl Sink<'_, '_> {
    fn take(&mut self, values: Vec<Value>) -> Result<(), StoreError> {
        self.told.row();
        if self.is_event && !is_sealed(&values)
            || self.is_delivered && !is_position(&values)
            || self.ledger.is_some_and(|table| !table.holds(&values))
        {
            self.copied.damaged = true;
            return Ok(());
        }
        match self.new.prepare_cached(&self.insert)?.execute(params_from_iter(values)) {
            Ok(rows) => self.copied.kept += u64::try_from(rows).unwrap_or(0),
            // A column of the wrong type: the row is not what it was.
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                self.copied.damaged = true;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Whether a delivered position is as it was written.
fn is_position(values: &[Value]) -> bool {
    use Value::{Integer, Null};
    match values {
        [Integer(class), Integer(epoch_no), Integer(sequence), Integer(sealed)] => {
            seal([*class, *epoch_no, *sequence]) == *sealed
        }
        [Integer(_), Integer(_), Integer(_), Null] => true,
        _ => false,
    }
}

/// Whether an event, its columns in the table's order, is as it was written.
pub(super) fn is_sealed(values: &[Value]) -> bool {
    use Value::{Blob, Integer, Text};
    let [
        Integer(offset),
        Integer(epoch_no),
        Integer(class),
        Integer(class_sequence),
        Blob(id),
        Text(kind),
        Text(subject),
        Integer(time),
        Integer(synced),
        Blob(boot),
        Text(data),
        Integer(_),
        Integer(seal),
    ] = values
    else {
        return false;
    };
    let numbers = [*offset, *epoch_no, *class, *class_sequence, *time, *synced];
    Sealed { numbers, id, kind, subject, boot, data }.seal() == *seal
}

/// What the first column of a scan's rows does. Cells that are no cells give rows again and again,
/// mostly of number 0, pages that point in a circle do so for ever.
#[derive(Clone, Copy)]
enum Rowids {
    /// From behind this one.
    Rise(i64),
    /// From this one.
    Fall(i64),
    /// The table has none.
    None,
}

/// How a scan ended.
struct Scan {
    sound: bool,
    last: Option<i64>,
}

/// Takes rows (rowid first) until the end or the first that cannot be read.
fn scan(
    source: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    rowids: Rowids,
    sink: &mut Sink<'_, '_>,
) -> Result<Scan, StoreError> {
    let broken = |last| Ok(Scan { sound: false, last });
    let (mut last, mut in_vain) = (None, 0);
    let Ok(mut query) = source.prepare_cached(sql) else { return broken(None) };
    let width = query.column_count();
    let Ok(mut rows) = query.query(params) else { return broken(None) };
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Scan { sound: true, last }),
            Err(_) => return broken(last),
        };
        let Ok(rowid) = row.get::<_, i64>(0) else { return broken(last) };
        let goes_on = match rowids {
            Rowids::Rise(from) => rowid > last.unwrap_or(from),
            Rowids::Fall(from) => last.map_or(rowid <= from, |last| rowid < last),
            Rowids::None => in_vain <= sink.copied.kept + u64::from(PATIENCE),
        };
        if !goes_on {
            return broken(last);
        }
        last = Some(rowid);
        let kept = sink.copied.kept;
        match (1..width).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<Value>>>() {
            Ok(values) => sink.take(values)?,
            Err(_) => sink.copied.damaged = true,
        }
        in_vain = if sink.copied.kept > kept { 0 } else { in_vain + 1 };
    }
}

/// Forward until damage, leap ahead until something reads, back to the damage, on.
fn by_rowid(source: &Connection, table: &str, list: &str, sink: &mut Sink<'_, '_>) -> Result<(), StoreError> {
    let forward = format!("SELECT rowid, {list} FROM {table} WHERE rowid > ?1 ORDER BY rowid");
    let backward =
        format!("SELECT rowid, {list} FROM {table} WHERE rowid > ?1 AND rowid <= ?2 ORDER BY rowid DESC");
    let probe = format!("SELECT rowid FROM {table} WHERE rowid > ?1 ORDER BY rowid LIMIT 1");
    let mut from = i64::MIN;
    for _ in 0..PATIENCE {
        let ran = scan(source, &forward, [from], Rowids::Rise(from), sink)?;
        if ran.sound {
            return Ok(());
        }
        sink.copied.damaged = true;
        let edge = ran.last.unwrap_or(from).max(0);
        let Some(beyond) = leap(source, &probe, edge) else {
            // Nothing reads from here on; what there is, is read from the end.
            scan(source, &backward, params![edge, i64::MAX], Rowids::Fall(i64::MAX), sink)?;
            return Ok(());
        };
        scan(source, &backward, params![edge, beyond], Rowids::Fall(beyond), sink)?;
        from = beyond.max(edge + 1);
    }
    Ok(())
}

/// The nearest place after `edge`, by doubling steps, from which a row can be read.
fn leap(source: &Connection, probe: &str, edge: i64) -> Option<i64> {
    let mut step = 1_i64;
    while let Some(at) = edge.checked_add(step) {
        match source.prepare_cached(probe).and_then(|mut query| {
            let mut rows = query.query([at])?;
            rows.next()?.map(|row| row.get(0)).transpose()
        }) {
            Ok(Some(rowid)) if rowid > at => return Some(rowid),
            Ok(None) => return None,
            Ok(Some(_)) | Err(_) => step = step.checked_mul(2)?,
        }
    }
    None
}
