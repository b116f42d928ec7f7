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

use super::epoch::set_meta;
use super::lock::FolderLock;
use super::mark::{Mark, beside, move_database, sync_folder};
use super::open::FILE;
use super::{Reader, Stats, StoreError, connection};
use crate::clock::UtcMillis;

/// Where a checked copy waits to take the database's place.
const WAITING: &str = "baygate.db.restore";
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
    let source = data_dir.join(FILE);
    std::fs::metadata(&source).map_err(file_error(&source))?;
    let from = connection::reader(&source)?;
    let staged = beside(to, ".part");
    let result = copy(&from, &staged, progress).and_then(|stats| {
        std::fs::rename(&staged, to).map_err(file_error(to))?;
        Ok(stats)
    });
    if result.is_err() {
        // What is left of a copy that failed is of no use.
        let _ = std::fs::remove_file(&staged);
    }
    result
}

/// Copies, marks as a backup, checks, syncs.
fn copy(from: &Connection, to: &Path, progress: Progress<'_>) -> Result<Stats, StoreError> {
    if to.exists() {
        std::fs::remove_file(to).map_err(file_error(to))?;
    }
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
    let verdict: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Damaged { what: verdict });
    }
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
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags)?;
    let found = connection::found_version(&source).map_err(|error| refuse(error.to_string()))?;
    let epochs: i64 = source
        .query_row("SELECT count(*) FROM epoch", [], |row| row.get(0))
        .map_err(|_| refuse("it is not a database of Baygate".into()))?;
    if found > connection::known_version() || epochs == 0 {
        return Err(refuse(format!(
            "it has schema version {found} and {epochs} epochs; use the program that made it"
        )));
    }
    let staged = data_dir.join("baygate.db.restore-new");
    let stats = copy(&source, &staged, progress).map_err(|error| match error {
        StoreError::Damaged { what } => refuse(format!("it is damaged: {what}")),
        other => other,
    })?;
    let waiting = data_dir.join(WAITING);
    std::fs::rename(&staged, &waiting).map_err(file_error(&waiting))?;
    sync_folder(data_dir)?;
    let aside = finish_restore(data_dir)?;
    // What was marked as damaged is out of the way now.
    Mark::clear(data_dir)?;
    Ok(Restored { aside, stats })
}

/// Puts a waiting copy in the database's place, if there is one.
pub(super) fn finish_restore(data_dir: &Path) -> Result<Option<PathBuf>, StoreError> {
    let (waiting, path) = (data_dir.join(WAITING), data_dir.join(FILE));
    if !waiting.exists() {
        return Ok(None);
    }
    let aside = data_dir.join(format!("{FILE}.before-restore-{}", UtcMillis::now().0));
    // Also what a move cut short left of it: a WAL without its file must not meet another one.
    let present = path.exists();
    move_database(&path, &aside)?;
    std::fs::rename(&waiting, &path).map_err(file_error(&path))?;
    sync_folder(data_dir)?;
    tracing::warn!(aside = %aside.display(), "database replaced by a backup");
    Ok(present.then_some(aside))
}
