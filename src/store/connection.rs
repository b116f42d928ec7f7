//! Connections and what durability asks of them; the schema and its migrations.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::mark::beside;

/// Schema versions, oldest first. Never edit one that was released: add the next.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/001.sql"),
    include_str!("schema/002.sql"),
    include_str!("schema/003.sql"),
    include_str!("schema/004.sql"),
    include_str!("schema/005.sql"),
    include_str!("schema/006.sql"),
    include_str!("schema/007.sql"),
    include_str!("schema/008.sql"),
    include_str!("schema/009.sql"),
    include_str!("schema/010.sql"),
];

/// 3.7.0 to 3.51.2 may lose the WAL's reset with two connections (SQLite release notes 3.51.3).
const OLDEST_SQLITE: i32 = 3_051_003;

/// After a reset the WAL file is cut back to this, in bytes. Larger than it gets under load: to grow
/// anew costs twice as much a sync as to write over.
pub(super) const WAL_KEPT_BYTES: i64 = 16 << 20;

/// Refuses to run on a SQLite that may lose commits.
pub(super) fn check_version() -> Result<(), StoreError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(StoreError::OldSqlite { found: rusqlite::version() });
    }
    Ok(())
}

/// The named value that has the schema version a second time: a rotten `user_version` would
/// look like a later program's file, or like a new one.
pub(super) const SCHEMA: &str = "schema";

/// What never changes in the header of a file of ours: place, what stands there (SQLite
/// "Database File Format", section 1.3). SQLite would take some of it for a file of a later
/// version and refuse to write, and no start would ever salvage it.
const HEADER: [(usize, &[u8]); 4] =
    [(0, b"SQLite format 3\0"), (16, &[0x10, 0]), (20, &[0, 64, 32, 32]), (52, &[0; 4])];

/// Looks at the header before SQLite does. A file that is empty or not there is a new one, unless
/// it has a WAL: SQLite would throw that away, whoever opens the file. What the disk fails to give
/// twice is damage: a lost sector never comes back.
pub(super) fn check_header(path: &Path) -> Result<(), StoreError> {
    let mut header = Vec::with_capacity(100);
    let mut read = || {
        header.clear();
        std::fs::File::open(path).and_then(|file| file.take(100).read_to_end(&mut header))
    };
    let is_lost = |error: &std::io::Error| error.raw_os_error() == Some(nix::errno::Errno::EIO as i32);
    let read = read().or_else(|error| if is_lost(&error) { read() } else { Err(error) });
    let blank = match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) if is_lost(&error) => {
            return Err(StoreError::Damaged { what: "the disk does not give back the file's header".into() });
        }
        Err(source) => return Err(StoreError::File { path: path.to_owned(), source }),
        Ok(read) => read == 0,
    };
    if blank {
        // 32 bytes: the WAL's own header.
        let wal_bytes = std::fs::metadata(beside(path, "-wal")).map_or(0, |file| file.len());
        let what = "the file is empty, its WAL is not".into();
        return if wal_bytes > 32 { Err(StoreError::Damaged { what }) } else { Ok(()) };
    }
    let as_ever = |(at, bytes): &(usize, &[u8])| header.get(*at..*at + bytes.len()) == Some(*bytes);
    let version = |at: usize| matches!(header.get(at), Some(1 | 2));
    // Schema format and encoding come with the first table, which may still be in the WAL.
    let later = |at: usize, what: u8| {
        header.get(at..at + 4).is_some_and(|four| *four == [0; 4] || *four == [0, 0, 0, what])
    };
    if HEADER.iter().all(as_ever) && version(18) && version(19) && later(44, 4) && later(56, 1) {
        Ok(())
    } else {
        Err(StoreError::Damaged { what: "the file's header is not that of a database of ours".into() })
    }
}

/// The writing connection. Its checkpoints are the keeper's work.
pub(super) fn writer(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    setting(&conn, "journal_mode", "wal", "wal")?;
    // FULL syncs the WAL at every commit: without it a power cut takes back
    // commits that were already told (SQLite documentation, PRAGMA synchronous).
    setting(&conn, "synchronous", "full", "2")?;
    setting(&conn, "foreign_keys", "on", "1")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    conn.pragma_update(None, "cell_size_check", "on")?;
    keep_plans(&conn)?;
    conn.set_prepared_statement_cache_capacity(96);
    Ok(conn)
}

/// A connection that copies the WAL into the file, and nothing else.
pub(super) fn checkpointer(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // Short: while a TRUNCATE checkpoint waits for readers it holds the writer up.
    conn.busy_timeout(Duration::from_millis(20))?;
    setting(&conn, "synchronous", "full", "2")?;
    conn.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    Ok(conn)
}

/// What a reader keeps of the file, in KiB: it pages through the log, and the kernel
/// caches the file anyway. SQLite's own 2 MB for each reader would be most of our memory.
const READER_CACHE_KIB: i64 = 256;

/// A connection that cannot write.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.pragma_update(None, "cell_size_check", "on")?;
    conn.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    keep_plans(&conn)?;
    conn.set_prepared_statement_cache_capacity(48);
    Ok(conn)
}

/// One plan a statement, whatever is bound to it. Otherwise SQLite, built with STAT4,
/// compiles a cached statement anew at each other value of a parameter.
fn keep_plans(conn: &Connection) -> Result<(), StoreError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Sets a pragma and reads it back: what it says afterwards is what counts.
fn setting(
    conn: &Connection,
    name: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<(), StoreError> {
    conn.pragma_update(None, name, value)?;
    let actual: String = conn.pragma_query_value(None, name, |row| {
        row.get::<_, rusqlite::types::Value>(0).map(|value| match value {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        })
    })?;
    if actual == expected { Ok(()) } else { Err(StoreError::Setting { setting: name, actual, expected }) }
}

/// What a checkpoint came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Somebody was in the way; not all was done.
    pub(super) busy: bool,
    /// Pages in the WAL.
    pub(super) wal_pages: i64,
    /// Of these, pages that are in the file.
    pub(super) copied_pages: i64,
}

/// Copies the WAL into the file.
pub(super) fn checkpoint(conn: &Connection, mode: &'static str) -> Result<Checkpoint, StoreError> {
    Ok(conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok(Checkpoint { busy: row.get::<_, i64>(0)? != 0, wal_pages: row.get(1)?, copied_pages: row.get(2)? })
    })?)
}

/// Copies the WAL into the file and cuts it to nothing: the next commit begins it anew, with other salts.
/// Before a commit is written over what lies behind the last one, which a power cut or a failure left:
/// torn by another power cut it would stand before the rest of that, like a rotten frame before commits
/// that were told (`wal`). Cut short, all is as it was. What stands in the way stops nobody.
pub(super) fn begin_wal_anew(conn: &Connection) {
    match checkpoint(conn, "TRUNCATE") {
        Ok(done) if !done.busy => {}
        Ok(_) => tracing::warn!("the WAL was not begun anew: somebody reads"),
        Err(error) => tracing::warn!(%error, "the WAL was not begun anew"),
    }
}

/// The schema version of this program.
pub(super) fn known_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(0)
}

/// The schema version of a file.
pub(super) fn found_version(conn: &Connection) -> Result<i64, StoreError> {
    Ok(conn.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Refuses a file of a later program, and tells it from one whose version has rotted.
pub(super) fn check_schema_version(conn: &Connection) -> Result<(), StoreError> {
    let (found, known) = (found_version(conn)?, known_version());
    let copy = super::epoch::meta(conn, SCHEMA).ok().flatten().and_then(|text| text.parse::<i64>().ok());
    let rotten = copy.is_some_and(|copy| copy != found);
    if rotten {
        return Err(StoreError::Damaged {
            what: format!("the schema version {found} is not what was written"),
        });
    }
    if found > known { Err(StoreError::TooNew { found, known }) } else { Ok(()) }
}

/// Brings the schema up to this program's version, in one transaction: a cut leaves the old one.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    check_schema_version(conn)?;
    let (found, known) = (found_version(conn)?, known_version());
    if found == known {
        return Ok(());
    }
    let tx = conn.transaction()?;
    for sql in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        tx.execute_batch(sql)?;
    }
    tx.pragma_update(None, "user_version", known)?;
    super::epoch::set_meta(&tx, SCHEMA, &known.to_string())?;
    Ok(tx.commit()?)
}

/// Lets SQLite take back what a cut left of the making of the file, before it had its WAL: a
/// connection that cannot write is not let in before.
pub(super) fn take_back(path: &Path) -> Result<(), StoreError> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(Duration::from_secs(5))?;
    Ok(conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?)
}

/// Tables and indexes of this program's schema: names and statements.
pub(super) fn schema() -> Result<Vec<(String, String)>, StoreError> {
    let mut conn = Connection::open_in_memory()?;
    migrate(&mut conn)?;
    super::check::schema(&conn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(conn: &Connection, pragma: &str) -> i64 {
        conn.pragma_query_value(None, pragma, |row| row.get(0)).unwrap()
    }

    #[test]
    fn the_writer_syncs_every_commit() {
        let dir = tempfile::tempdir().unwrap();
        let conn = writer(&dir.path().join("t.db")).unwrap();
        assert_eq!(number(&conn, "synchronous"), 2);
        assert_eq!(number(&conn, "wal_autocheckpoint"), 0);
        check_version().unwrap();
    }

    #[test]
    fn a_setting_that_does_not_stick_is_an_error() {
        // A database in memory has no WAL.
        let conn = Connection::open_in_memory().unwrap();
        let refused = setting(&conn, "journal_mode", "wal", "wal");
        assert!(matches!(refused, Err(StoreError::Setting { setting: "journal_mode", .. })), "{refused:?}");
    }

    #[test]
    fn a_later_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = writer(&dir.path().join("t.db")).unwrap();
        migrate(&mut conn).unwrap();
        migrate(&mut conn).unwrap();
        conn.pragma_update(None, "user_version", known_version() + 1).unwrap();
        assert!(migrate(&mut conn).unwrap_err().is_damage(), "its second copy does not say so");
        super::super::epoch::set_meta(&conn, SCHEMA, &(known_version() + 1).to_string()).unwrap();
        assert!(matches!(migrate(&mut conn), Err(StoreError::TooNew { .. })));
    }
}
