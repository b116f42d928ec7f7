//! Bringing back what a damaged file still holds.
//!
//! ```text
//!  mark ─► move aside (never deleted) ─► new file ◄─ 1. SQL, around unreadable pages, all tables
//!                                           ▲    ◄─ 2. page by page, what 1 did not reach: events, requests, cards, operators
//!                                           └ gaps counted, renamed into place, mark removed
//! ```
//! Where the first page or the schema is gone, 1 reads a copy in which they are
//! replaced by those of a fresh file: the tables were created in the same order
//! and have the same roots. Where SQLite would throw commits of the WAL away (`wal`),
//! it reads a copy over which they were laid by hand. Events are believed only with their seal. Rows keep
//! their epoch; the next step of opening begins a new one and tells the gaps.
//! Cut short at any point, the mark makes the next start do it again; so does a disk that is full or
//! fails just then, for what only SQL brings back (tokens, reports of cards) is in no leaf that 2 knows.

mod copy;
mod pages;
mod patched;
mod told;

pub(super) use copy::tables;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::epoch::{self, meta, remembered, set_meta};
use super::mark::{Mark, beside, is_there, move_database, sync_folder};
use super::open::FILE;
use super::outbox::class_index;
use super::wal::Wal;
use super::{StoreError, check, connection, gaps};
use crate::event::Class;
use told::Told;

/// The new file, until it is whole.
const STAGED: &str = "baygate.db.salvage";
/// A copy of the damaged file that SQLite can read.
const PATCHED: &str = "baygate.db.patched";

/// Tables whose rows say what must not be done twice, or not at all: where one of theirs may be
/// missing, card writes wait for a person's word.
const MUST_BE_WHOLE: [&str; 7] =
    // In `meta` stands that they wait already.
    ["meta", "request", "command", "member_card", "card_transaction", "card_report", "card_pin"];

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
    /// Events that were in the file and cannot be read, delivered ones too, as far as the counters tell.
    #[serde(default)]
    pub unreadable: u64,
    /// Whether no undelivered ledger event is missing. When false, card writes have to
    /// wait for an operator's or headquarters' word.
    pub ledger_complete: bool,
    /// Whether every request, command, idempotency key, transaction and card was read, and whether
    /// card writes waited already.
    pub requests_complete: bool,
}

/// Salvages a marked folder. `say` gets the rows read so far, at each step and each second.
pub(super) fn run(
    folder: &Path,
    mark: &Mark,
    say: &mut dyn FnMut(u64),
) -> Result<Option<Salvaged>, StoreError> {
    let path = folder.join(FILE);
    if is_there(&mark.aside)? && is_there(&path)? {
        // All was done but removing the mark.
        let conn = connection::reader(&path)?;
        let report = meta(&conn, "salvaged")?.and_then(|report| serde_json::from_str(&report).ok());
        Mark::clear(folder)?;
        return Ok(report);
    }
    move_database(&path, &mark.aside)?;
    tracing::warn!(aside = %mark.aside.display(), what = %mark.what, "salvaging the database");
    let staged = folder.join(STAGED);
    let mut told = Told::new(say);
    let report = fill(&staged, folder, mark, &mut told)?;
    told.step();
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

/// Removes the copies of a salvage that was cut short and is not to be done any more: a restore took
/// the mark.
pub(super) fn remove_copies(folder: &Path) -> Result<(), StoreError> {
    for copy in [STAGED, PATCHED].map(|name| folder.join(name)) {
        if is_there(&copy)? {
            remove(&copy)?;
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

/// Copies what can still be read of a database, which stays where and as it is, into the new
/// file `copy`. Others may be using it.
pub(super) fn readable_copy(from: &Path, what: &str, copy: &Path) -> Result<Salvaged, StoreError> {
    let folder = copy.parent().unwrap_or(Path::new("."));
    let mark = Mark { aside: from.to_owned(), what: what.to_owned() };
    fill(copy, folder, &mark, &mut Told::new(&mut |_| {}))
}

/// Fills the new file `staged` from the damaged one; what is needed meanwhile lies in `folder`. Where it
/// fails, neither stays: a disk may be full for nothing but these copies.
fn fill(staged: &Path, folder: &Path, mark: &Mark, told: &mut Told<'_>) -> Result<Salvaged, StoreError> {
    let patched = folder.join(PATCHED);
    remove(&patched)?;
    let filled = fill_with(staged, &patched, mark, told);
    let removed = remove(&patched).and_then(|()| if filled.is_err() { remove(staged) } else { Ok(()) });
    // Why it failed comes first.
    filled.and_then(|report| removed.map(|()| report))
}

fn fill_with(
    staged: &Path,
    patched: &Path,
    mark: &Mark,
    told: &mut Told<'_>,
) -> Result<Salvaged, StoreError> {
    told.step();
    let mut new = fresh(staged)?;
    let wal = Wal::read(&mark.aside)
        .map_err(|source| StoreError::File { path: beside(&mark.aside, "-wal"), source })?;
    let source = source(mark, &wal, patched, &new)?;
    let tx = new.transaction()?;
    let mut kept = 0;
    // In a lent schema the tables of later versions may have other roots than in this file: an
    // empty one may only seem to be empty.
    let lent = source.as_ref().is_some_and(|(_, lent)| *lent);
    let mut in_doubt =
        if source.is_none() || lent || wal.has_lost() { MUST_BE_WHOLE.to_vec() } else { Vec::new() };
    if let Some((source, _)) = &source {
        // A file of an earlier version has fewer.
        let there = tables(source).ok();
        let is_there = |table: &String| there.as_ref().is_none_or(|there| there.contains(table));
        for table in tables(&tx)? {
            told.step();
            let copied = copy::table(source, &tx, &table, told)?;
            kept += copied.kept;
            tracing::info!(table, kept = copied.kept, damaged = copied.damaged, "table copied");
            // A row that SQLite passes over has no seal to miss: its own check of the table has to do.
            if let Some(name) = MUST_BE_WHOLE.into_iter().find(|name| *name == table)
                && (copied.damaged || is_there(&table) && !agrees(source, &table))
            {
                in_doubt.push(name);
            }
        }
    }
    let counted = events_counted(&tx)?;
    // In any case: a page that leads to fewer pages than it should is no error to SQLite.
    kept += pages::rows(&mark.aside, &tx, &in_doubt, told)?;
    told.step();
    let counters_known = put_in_order(&tx)? && !wal.has_lost();
    told.step();
    let lost = find_gaps(&tx)?;
    told.step();
    let lost_of = |class: Class| lost.iter().filter(move |(gone, _)| *gone == class).map(|(_, count)| count);
    let lost_count = lost.iter().map(|(_, count)| count).sum();
    let report = Salvaged {
        what: mark.what.clone(),
        aside: mark.aside.clone(),
        kept,
        lost: lost_count,
        unreadable: counted.saturating_sub(events_counted(&tx)?).max(lost_count),
        ledger_complete: counters_known && lost_of(Class::Ledger).sum::<u64>() == 0,
        requests_complete: in_doubt.is_empty(),
    };
    let text = serde_json::to_string(&report).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    set_meta(&tx, "salvaged", &text)?;
    tx.commit()?;
    Ok(report)
}

/// What the tables are read from: the file itself, one with its WAL laid over it by hand, or
/// one that was lent a first page (then true).
fn source(
    mark: &Mark,
    wal: &Wal,
    patched: &Path,
    fresh: &Connection,
) -> Result<Option<(Connection, bool)>, StoreError> {
    if !is_there(&mark.aside)? {
        return Ok(None);
    }
    if wal.damaged.is_some() {
        patched::lay_over(&mark.aside, wal, patched)?;
        if let Some(source) = readable(patched)? {
            return Ok(Some((source, false)));
        }
    } else if let Some(source) = readable(&mark.aside)? {
        return Ok(Some((source, false)));
    }
    patched::lend(&mark.aside, patched, fresh)?;
    Ok(readable(patched)?.map(|source| (source, true)))
}

/// Whether SQLite finds a table and its indexes sound.
fn agrees(conn: &Connection, table: &str) -> bool {
    let verdict =
        conn.query_row(&format!("PRAGMA integrity_check('{table}')"), [], |row| row.get::<_, String>(0));
    verdict.is_ok_and(|verdict| verdict == "ok")
}

/// Events by the counters.
fn events_counted(tx: &Connection) -> Result<u64, StoreError> {
    Ok(tx.query_row("SELECT coalesce(sum(rows), 0) FROM class_counter", [], |row| {
        row.get(0).map(i64::unsigned_abs)
    })?)
}

/// The file as SQLite still reads it: without writing, so that it stays as it is. None where it is
/// damaged; an error where the disk did not let SQLite look.
fn readable(path: &Path) -> Result<Option<Connection>, StoreError> {
    let open = || -> Result<Option<Connection>, StoreError> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        // Every table of the schema has to be known as it is, or the copy would miss it.
        let version = connection::found_version(&conn)?;
        let older = version > 0 && version < connection::known_version();
        if !older || !tables(&conn)?.iter().any(|table| table == "event") {
            check::whole_schema(&conn)?;
        }
        Ok(Some(conn))
    };
    match open() {
        Err(error) if !error.may_pass() => Ok(None),
        opened => opened,
    }
}

/// Makes counters, epochs and rows agree; false when the counters themselves were lost.
fn put_in_order(tx: &Connection) -> Result<bool, StoreError> {
    let mut copies = tx.prepare("SELECT key, value FROM meta WHERE key LIKE 'epoch/%'")?;
    let mut rows = copies.query([])?;
    while let Some(row) = rows.next()? {
        let (key, value): (String, String) = (row.get(0)?, row.get(1)?);
        let Some(no) = key.strip_prefix("epoch/").and_then(|no| no.parse::<i64>().ok()) else { continue };
        if let Some((id, base)) = remembered(no, &value) {
            // A row whose number rotted stands under another one.
            tx.execute(
                "DELETE FROM epoch WHERE id = ?2 AND no <> ?1",
                params![no, id.as_bytes().as_slice()],
            )?;
            tx.execute(
                "INSERT INTO epoch (no, id, base_offset, reason, begun_at) VALUES (?1, ?2, ?3, 'salvaged', 0)
                 ON CONFLICT (no) DO UPDATE SET id = ?2, base_offset = ?3 WHERE id <> ?2 OR base_offset <> ?3",
                params![no, id.as_bytes().as_slice(), base],
            )?;
        }
    }
    for (no, id, base) in epoch::all(tx)? {
        epoch::note_copy(tx, no, id, base)?;
    }
    // Without its epoch an event has no name to be sent by.
    let nameless = tx.execute("DELETE FROM event WHERE epoch_no NOT IN (SELECT no FROM epoch)", [])?;
    if nameless > 0 {
        tracing::error!(events = nameless, "events of an unknown epoch are lost");
    }
    super::hotlist::doubt(tx)?;
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
