//! Opening the file: lock, settings, migrations, epoch.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::class_index;
use super::requests::uuid_from;
use super::{ReaderPool, Store, StoreError, writer};
use crate::clock::UtcMillis;
use crate::event::gateway::EpochReason;
use crate::event::{Class, Source};
use crate::ident::Epoch;

/// The file's name in the data folder.
pub(super) const FILE: &str = "baygate.db";

/// Schema versions, oldest first. Never edit one that was released: add the next.
const MIGRATIONS: &[&str] = &[include_str!("schema/001.sql")];

/// A class's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassLimit {
    /// Unsent rows beyond this many bytes of data are trimmed, oldest first. `None`: never.
    pub keep_bytes: Option<u64>,
    /// Delivered rows older than this many milliseconds are deleted.
    pub keep_delivered_ms: i64,
}

/// What the store needs to know.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `gateway.data_dir`.
    pub data_dir: PathBuf,
    /// Who speaks; written at creation, compared at every start.
    pub source: Source,
    /// `/etc/machine-id`, compared at every start; `None` skips the comparison.
    pub machine_id: Option<String>,
    /// `buffer.max_bytes`.
    pub max_bytes: u64,
    /// Limits by class.
    pub limits: Vec<(Class, ClassLimit)>,
}

/// What was found while opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The running epoch.
    pub epoch: Epoch,
    /// Present when this start began a new epoch.
    pub new_epoch: Option<EpochReason>,
    /// The epoch before, when there was one.
    pub previous_epoch: Option<Epoch>,
    /// Whether the last run ended orderly (true for a new file).
    pub clean_shutdown: bool,
}

impl Store {
    /// Opens or creates the database of a data folder and starts the writer.
    ///
    /// # Errors
    /// [`StoreError`] saying what to do.
    pub fn open(options: &StoreOptions) -> Result<(Self, Opened), StoreError> {
        std::fs::create_dir_all(&options.data_dir)
            .map_err(|source| StoreError::Folder { path: options.data_dir.clone(), source })?;
        let path = options.data_dir.join(FILE);
        let mut conn = writer_connection(&path)?;
        migrate(&mut conn)?;
        let (position, opened) = begin(&mut conn, options)?;
        let (writer, head) = writer::start(conn, position)?;
        let readers = std::sync::Arc::new(ReaderPool { path, idle: std::sync::Mutex::new(Vec::new()) });
        Ok((Self { writer, head, readers }, opened))
    }
}

fn writer_connection(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    setting(&conn, "journal_mode", "wal", "wal")?;
    // FULL syncs the WAL at every commit: without it a power cut takes back
    // commits that were already told (SQLite documentation, PRAGMA synchronous).
    setting(&conn, "synchronous", "full", "2")?;
    setting(&conn, "foreign_keys", "on", "1")?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

pub(super) fn reader_connection(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(
        path,
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(conn)
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

fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(0);
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for (version, sql) in (1_i64..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(0)) {
        let tx = conn.transaction()?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", version)?;
        tx.commit()?;
    }
    Ok(())
}

fn begin(conn: &mut Connection, options: &StoreOptions) -> Result<(writer::Position, Opened), StoreError> {
    let tx = conn.transaction()?;
    let meta = |key: &str| -> Result<Option<String>, StoreError> {
        Ok(tx.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?)
    };
    let latest: Option<(i64, Vec<u8>, i64)> = tx
        .query_row("SELECT no, id, base_offset FROM epoch ORDER BY no DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let previous_epoch = latest.as_ref().map(|(_, id, _)| uuid_from(id).map(Epoch)).transpose()?;
    let moved = |was: Option<String>, is: &str| was.is_some_and(|was| was != is);
    let reason = if latest.is_none() {
        Some(EpochReason::Created)
    } else if moved(meta("source")?, &options.source.to_string())
        || options
            .machine_id
            .as_deref()
            .is_some_and(|id| meta("machine_id").ok().flatten().is_some_and(|was| was != id))
    {
        Some(EpochReason::Cloned)
    } else {
        None
    };
    let clean_shutdown = latest.is_none() || meta("clean_shutdown")?.as_deref() == Some("yes");
    let last_offset: i64 =
        tx.query_row("SELECT coalesce(max(event_offset), 0) FROM event", [], |row| row.get(0))?;
    let last_offset = last_offset.max(latest.as_ref().map_or(0, |(_, _, base)| *base));
    let (epoch, epoch_no, base_offset) = match (reason, latest) {
        (None, Some((no, id, base))) => (Epoch(uuid_from(&id)?), no, base),
        (_, latest) => {
            let epoch = Epoch::begin();
            let no = latest.map_or(1, |(no, ..)| no + 1);
            tx.execute(
                "INSERT INTO epoch (no, id, base_offset, reason, begun_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    no,
                    epoch.0.as_bytes().as_slice(),
                    last_offset,
                    format!("{reason:?}").to_lowercase(),
                    UtcMillis::now().0
                ],
            )?;
            for class in Class::ALL {
                tx.execute(
                    "INSERT INTO class_counter (class, last_sequence, rows, bytes) VALUES (?1, 0, 0, 0)
                     ON CONFLICT (class) DO UPDATE SET last_sequence = 0",
                    [class_index(class)],
                )?;
            }
            (epoch, no, last_offset)
        }
    };
    let mut last_class = [0_i64; 7];
    for (slot, last) in last_class.iter_mut().enumerate() {
        *last = tx.query_row(
            "SELECT last_sequence FROM class_counter WHERE class = ?1",
            [i64::try_from(slot).unwrap_or(0)],
            |row| row.get(0),
        )?;
    }
    let mut remember = tx.prepare("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?;
    remember.execute(["source", options.source.to_string().as_str()])?;
    if let Some(machine_id) = &options.machine_id {
        remember.execute(["machine_id", machine_id.as_str()])?;
    }
    remember.execute(["clean_shutdown", "no"])?;
    drop(remember);
    tx.commit()?;
    let position = writer::Position { epoch, epoch_no, base_offset, last_offset, last_class };
    Ok((position, Opened { epoch, new_epoch: reason, previous_epoch, clean_shutdown }))
}
