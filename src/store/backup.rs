//! Copies of the database, made while the daemon runs, and bringing one back.
//!
//! A backup is marked as one when it is made: whichever way it comes back, the
//! next start begins a new epoch `restored`, so that no sequence is used twice.
//! Bringing one back happens in two steps, each of them whole or not at all:
//! the checked copy gets its name in the folder, then it takes the place of the
//! database; a restore cut short between them is finished by the next start.

use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::check::FullCheck;
use super::epoch::set_meta;
use super::lock::FolderLock;
use super::mark::{Mark, beside, move_database, sync_folder};
use super::open::FILE;
use super::wal::Wal;
use super::{Reader, Stats, StoreError, connection};
use crate::clock::UtcMillis;

/// Where a checked copy waits to take the database's place.
const WAITING: &str = "baygate.db.restore";
/// Where that copy is made.
const STAGED: &str = "baygate.db.restore-new";
/// A backup that is all there is, is better than none.
const BY_HAND: &str = "if there is no better one, put it by hand in the place of baygate.db in the stopped daemon's data folder: the next start salvages it";
/// Where what was there before goes; the time follows.
const ASIDE: &str = "baygate.db.before-restore-";
/// Pages a step copies: 4 MiB.
const STEP_PAGES: i32 = 1024;

/// Told now and then: pages done and pages in all.
pub type Progress<'p> = &'p mut dyn FnMut(u64, u64);

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    |source| StoreError::File { path, source }
}

/// Copies the database of a data folder into the file `to`, which must not exist.
/// The daemon may run: the copy is of one moment, the one at which it began.
///
/// # Errors
/// [`StoreError`]; nothing is left at `to`.
pub fn backup(data_dir: &Path, to: &Path, progress: Progress<'_>) -> Result<Stats, StoreError> {
    if to.exists() {
        let taken = "exists already, and a backup never overwrites; name a new file";
        return Err(file_error(to)(std::io::Error::new(std::io::ErrorKind::AlreadyExists, taken)));
    }
    // The next start would take it for its own.
    if is_ours(data_dir, to) {
        let ours = "is a name the database itself uses in its folder; name another";
        return Err(file_error(to)(std::io::Error::new(std::io::ErrorKind::InvalidInput, ours)));
    }
    let source = data_dir.join(FILE);
    std::fs::metadata(&source).map_err(file_error(&source))?;
    let from = connection::reader(&source)?;
    let staged = beside(to, ".part");
    let result = copy(&from, &staged, progress).and_then(|stats| {
        std::fs::rename(&staged, to).map_err(file_error(to))?;
        sync_folder(&folder_of(to))?;
        Ok(stats)
    });
    if result.is_err() {
        // What is left of a copy that failed is of no use.
        remove(&staged);
    }
    result
}

/// The folder a file is in.
fn folder_of(file: &Path) -> PathBuf {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Whether a file would lie among the database's own in its folder.
#[must_use]
pub fn is_ours(data_dir: &Path, file: &Path) -> bool {
    let same = match (folder_of(file).canonicalize(), data_dir.canonicalize()) {
        (Ok(folder), Ok(data_dir)) => folder == data_dir,
        _ => false,
    };
    same && file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("baygate."))
}

/// Removes a copy that was not finished.
fn remove(copy: &Path) {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(copy, suffix));
    }
}

/// Copies, marks as a backup, checks, syncs.
fn copy(from: &Connection, to: &Path, progress: Progress<'_>) -> Result<Stats, StoreError> {
    remove(to);
    // One snapshot for the whole copy: otherwise every commit of the daemon would start it over.
    let snapshot = from.unchecked_transaction()?;
    snapshot.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))?;
    let mut copy = Connection::open(to)?;
    {
        let steps = Backup::new(&snapshot, &mut copy)?;
        while steps.step(STEP_PAGES)? != StepResult::Done {
            let at = steps.progress();
            let total = u64::try_from(at.pagecount).unwrap_or(0);
            progress(total - u64::try_from(at.remaining).unwrap_or(0).min(total), total);
        }
    }
    drop(snapshot);
    let _: String = copy.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    set_meta(&copy, "restored", "yes")?;
    // A copy that nobody read is a hope: every page, every event and its seal.
    let verdict: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Damaged { what: verdict });
    }
    let mut check = FullCheck::default();
    while !check.slice(&copy)? {}
    let stats = Reader { conn: &copy }.stats()?;
    drop(copy);
    std::fs::File::open(to).and_then(|file| file.sync_all()).map_err(file_error(to))?;
    Ok(stats)
}

/// What a restore did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Restored {
    /// Where the database that was there before is now.
    pub aside: Option<PathBuf>,
    /// What was brought back.
    pub stats: Stats,
}

/// Brings a backup back into a data folder. The daemon must not run. What was
/// there is moved aside, never deleted.
///
/// # Errors
/// [`StoreError::Locked`] while a daemon runs, [`StoreError::NotABackup`] for a
/// file that is damaged, of a later version or no database of ours.
pub fn restore(data_dir: &Path, from: &Path, progress: Progress<'_>) -> Result<Restored, StoreError> {
    let _lock = FolderLock::take(data_dir)?;
    let refuse = |what: String| StoreError::NotABackup { path: from.to_owned(), what };
    std::fs::metadata(from).map_err(file_error(from))?;
    if let Some(what) = Wal::read(from).map_err(file_error(from))?.damaged {
        return Err(refuse(format!("it is damaged: {what}; {BY_HAND}")));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags)?;
    let epochs: i64 = source
        .query_row("SELECT count(*) FROM epoch", [], |row| row.get(0))
        .map_err(|error| refuse(format!("it is not a database of Baygate ({error})")))?;
    if epochs == 0 {
        return Err(refuse("it is not a database of Baygate that was ever opened".into()));
    }
    match connection::check_schema_version(&source) {
        Err(StoreError::Damaged { what }) => {
            return Err(refuse(format!("it is damaged: {what}; {BY_HAND}")));
        }
        Err(error) => return Err(refuse(error.to_string())),
        Ok(()) => {}
    }
    let staged = data_dir.join(STAGED);
    let stats = copy(&source, &staged, progress).map_err(|error| {
        remove(&staged);
        match error {
            StoreError::Damaged { what } => refuse(format!("it is damaged: {what}; {BY_HAND}")),
            error if error.is_damage() => refuse(format!("it is damaged: {error}; {BY_HAND}")),
            other => other,
        }
    })?;
    let waiting = data_dir.join(WAITING);
    std::fs::rename(&staged, &waiting).map_err(file_error(&waiting))?;
    sync_folder(data_dir)?;
    let aside = finish_restore(data_dir)?;
    Ok(Restored { aside, stats })
}

/// Where a move cut short put the file whose WAL is still in its old place.
fn left_behind(data_dir: &Path) -> Result<Option<PathBuf>, StoreError> {
    let folder = std::fs::read_dir(data_dir).map_err(file_error(data_dir))?;
    let latest = folder
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            name.strip_prefix(ASIDE).is_some_and(|at| at.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .max_by_key(|name| name.strip_prefix(ASIDE).and_then(|at| at.parse::<i64>().ok()));
    Ok(latest.map(|name| data_dir.join(name)).filter(|aside| !beside(aside, "-wal").exists()))
}

/// Puts a waiting copy in the database's place, if there is one.
pub(super) fn finish_restore(data_dir: &Path) -> Result<Option<PathBuf>, StoreError> {
    let (waiting, path) = (data_dir.join(WAITING), data_dir.join(FILE));
    // Half a copy of a backup that is still where it was.
    remove(&data_dir.join(STAGED));
    if !waiting.exists() {
        return Ok(None);
    }
    // Also what a move cut short left of it: a WAL without its file must not meet another one.
    let present = path.exists();
    let aside = if present { None } else { left_behind(data_dir)? };
    let aside = aside.unwrap_or_else(|| data_dir.join(format!("{ASIDE}{}", UtcMillis::now().0)));
    move_database(&path, &aside)?;
    // What was marked as damaged is out of the way now.
    Mark::clear(data_dir)?;
    std::fs::rename(&waiting, &path).map_err(file_error(&path))?;
    sync_folder(data_dir)?;
    tracing::warn!(aside = %aside.display(), "database replaced by a backup");
    Ok(present.then_some(aside))
}
