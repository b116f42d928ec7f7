//! Bringing back what a damaged file still holds.
//!
//! ```text
//!  mark ─► move aside (never deleted) ─► new file ◄─ 1. SQL, around unreadable pages, all tables
//!                                           ▲    ◄─ 2. page by page, events and requests, when 1 met damage
//!                                           └ gaps counted, renamed into place, mark removed
//! ```
//! Where the first page or the schema is gone, 1 reads a copy in which they are
//! replaced by those of a fresh file: the tables were created in the same order
//! and have the same roots. Events are believed only with their seal. Rows keep
//! their epoch; the next step of opening begins a new one and tells the gaps.
//! Cut short at any point, the mark makes the next start do it again.

mod copy;
mod pages;

pub(super) use copy::tables;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::epoch::{meta, remembered, set_meta};
use super::mark::{Mark, beside, move_database, sync_folder};
use super::open::FILE;
use super::outbox::class_index;
use super::{StoreError, connection, gaps};
use crate::event::Class;

/// What a salvage brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salvaged {
    /// What was wrong with the file.
    pub what: String,
    /// Where the damaged file is now.
    pub aside: PathBuf,
    /// Rows kept, of all tables.
    pub kept: u64,
    /// Events that were not delivered and are lost, as far as the counters tell.
    pub lost: u64,
    /// Whether no undelivered ledger event is missing. When false, card writes have to
    /// wait for an operator's or headquarters' word.
    pub ledger_complete: bool,
    /// Whether every request and its idempotency key was read.
    pub requests_complete: bool,
}

/// Salvages a marked folder.
pub(super) fn run(folder: &Path, mark: &Mark) -> Result<Option<Salvaged>, StoreError> {
    let path = folder.join(FILE);
    if mark.aside.exists() && path.exists() {
        // All was done but removing the mark.
        let conn = connection::reader(&path)?;
        let report = meta(&conn, "salvaged")?.and_then(|report| serde_json::from_str(&report).ok());
        Mark::clear(folder)?;
        return Ok(report);
    }
    move_database(&path, &mark.aside)?;
    tracing::warn!(aside = %mark.aside.display(), what = %mark.what, "salvaging the database");
    let staged = folder.join("baygate.db.salvage");
    let report = fill(&staged, folder, mark)?;
    std::fs::File::open(&staged)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&staged, &path))
        .map_err(|source| StoreError::File { path: staged, source })?;
    sync_folder(folder)?;
    Mark::clear(folder)?;
    tracing::warn!(
        kept = report.kept,
        lost = report.lost,
        ledger_complete = report.ledger_complete,
        requests_complete = report.requests_complete,
        "database salvaged"
    );
    Ok(Some(report))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = beside(path, suffix);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::File { path, source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

/// A fresh file with the schema. Nothing is journalled: cut short, it is thrown away.
fn fresh(path: &Path) -> Result<Connection, StoreError> {
    remove(path)?;
    let mut conn = Connection::open(path)?;
    let _: String = conn.query_row("PRAGMA journal_mode = OFF", [], |row| row.get(0))?;
    conn.pragma_update(None, "synchronous", "off")?;
    conn.pragma_update(None, "foreign_keys", "off")?;
    connection::migrate(&mut conn)?;
    Ok(conn)
}

fn fill(staged: &Path, folder: &Path, mark: &Mark) -> Result<Salvaged, StoreError> {
    let mut new = fresh(staged)?;
    let patched = folder.join("baygate.db.patched");
    let source = match readable(&mark.aside) {
        Some(source) => Some(source),
        None => pages::patch(&mark.aside, &patched, &fresh(&folder.join("baygate.db.template"))?)
            .inspect_err(|error| tracing::warn!(%error, "could not lend the file a new first page"))
            .ok()
            .and_then(|()| readable(&patched)),
    };
    let tx = new.transaction()?;
    let mut kept = 0;
    let (mut events_damaged, mut requests_damaged) = (source.is_none(), source.is_none());
    if let Some(source) = &source {
        for table in tables(&tx)? {
            let copied = copy::table(source, &tx, &table)?;
            kept += copied.kept;
            tracing::info!(table, kept = copied.kept, damaged = copied.damaged, "table copied");
            match table.as_str() {
                "event" => events_damaged |= copied.damaged,
                "request" => requests_damaged |= copied.damaged,
                _ => {}
            }
        }
    }
    if events_damaged || requests_damaged {
        kept += pages::rows(&mark.aside, &tx)?;
    }
    let counters_known = put_in_order(&tx)?;
    let lost = find_gaps(&tx)?;
    let lost_of = |class: Class| lost.iter().filter(move |(gone, _)| *gone == class).map(|(_, count)| count);
    let report = Salvaged {
        what: mark.what.clone(),
        aside: mark.aside.clone(),
        kept,
        lost: lost.iter().map(|(_, count)| count).sum(),
        ledger_complete: counters_known && lost_of(Class::Ledger).sum::<u64>() == 0,
        requests_complete: !requests_damaged,
    };
    let text = serde_json::to_string(&report).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    set_meta(&tx, "salvaged", &text)?;
    tx.commit()?;
    drop(source);
    for leftover in [patched, folder.join("baygate.db.template")] {
        remove(&leftover)?;
    }
    Ok(report)
}

/// The file as SQLite still reads it: without writing, so that it stays as it is.
fn readable(path: &Path) -> Option<Connection> {
    let conn =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .ok()?;
    // Every table named in the schema has to be known, or the copy would miss it.
    let names = tables(&conn).ok()?;
    names.iter().any(|table| table == "event").then_some(conn)
}

/// Makes counters, epochs and rows agree; false when the counters themselves were lost.
fn put_in_order(tx: &Connection) -> Result<bool, StoreError> {
    let mut copies = tx.prepare("SELECT key, value FROM meta WHERE key LIKE 'epoch/%'")?;
    let mut rows = copies.query([])?;
    while let Some(row) = rows.next()? {
        let (key, value): (String, String) = (row.get(0)?, row.get(1)?);
        if let (Some(no), Some((id, base))) =
            (key.strip_prefix("epoch/").and_then(|no| no.parse::<i64>().ok()), remembered(&value))
        {
            tx.execute(
                "INSERT OR IGNORE INTO epoch (no, id, base_offset, reason, begun_at) VALUES (?1, ?2, ?3, 'salvaged', 0)",
                params![no, id.as_bytes().as_slice(), base],
            )?;
        }
    }
    // Without its epoch an event has no name to be sent by.
    let nameless = tx.execute("DELETE FROM event WHERE epoch_no NOT IN (SELECT no FROM epoch)", [])?;
    if nameless > 0 {
        tracing::error!(events = nameless, "events of an unknown epoch are lost");
    }
    let mut known = nameless == 0;
    for class in Class::ALL {
        known &= count_again(tx, class)?;
    }
    Ok(known)
}

/// Sets a class's counters from its rows, never lower than they were.
fn count_again(tx: &Connection, class: Class) -> Result<bool, StoreError> {
    let index = class_index(class);
    let was: Option<(i64, i64, i64)> = tx
        .query_row(
            "SELECT last_sequence, last_offset, total_bytes FROM class_counter WHERE class = ?1",
            [index],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let (last_sequence, last_offset, total_bytes) = was.unwrap_or_default();
    tx.execute(
        "INSERT OR REPLACE INTO class_counter (class, last_sequence, last_offset, total_bytes, rows, bytes)
         SELECT ?1,
                max(?2, coalesce(max(class_sequence) FILTER (WHERE epoch_no = (SELECT max(no) FROM epoch)), 0)),
                max(?3, coalesce(max(event_offset), 0)), max(?4, coalesce(max(class_bytes), 0)),
                count(*), coalesce(sum(octet_length(data) + octet_length(subject) + 160), 0)
         FROM event WHERE class = ?1",
        params![index, last_sequence, last_offset, total_bytes],
    )?;
    Ok(was.is_some())
}

/// Notes what is missing, so that opening tells it.
fn find_gaps(tx: &Connection) -> Result<Vec<(Class, u64)>, StoreError> {
    let mut lost = Vec::new();
    for class in Class::ALL {
        for gap in gaps::missing_within(tx, class)? {
            let count = gap.to - gap.from + 1;
            tx.execute(
                "INSERT OR REPLACE INTO gap (class, epoch_no, from_sequence, to_sequence, count, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'damaged')",
                params![class_index(class), gap.epoch_no, gap.from, gap.to, count],
            )?;
            lost.push((class, u64::try_from(count).unwrap_or(0)));
        }
    }
    Ok(lost)
}
