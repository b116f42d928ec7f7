//! The file that says "the database is damaged". It is written before anything
//! is moved and removed after everything is done, so that a salvage cut short
//! at any point is simply done again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::StoreError;
use crate::clock::UtcMillis;

const FILE: &str = "baygate.damaged";

/// What the mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Where the damaged file goes.
    pub(super) aside: PathBuf,
    /// What was found.
    pub(super) what: String,
}

impl Mark {
    /// Marks the database of a folder as damaged, once.
    pub(super) fn set(folder: &Path, what: &str) -> Result<Self, StoreError> {
        if let Some(mark) = Self::read(folder)? {
            return Ok(mark);
        }
        let name = format!("baygate.db.damaged-{}", UtcMillis::now().0);
        let what = what.replace('\n', " ");
        let path = folder.join(FILE);
        let staged = folder.join("baygate.damaged-new");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&staged)
            .and_then(|mut file| writeln!(file, "{name}\n{what}").and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&staged, &path));
        written.map_err(|source| StoreError::File { path, source })?;
        sync_folder(folder)?;
        Ok(Self { aside: folder.join(name), what })
    }

    /// The mark of a folder, if there is one.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let mut lines = text.lines();
                let name = lines.next().unwrap_or("").trim();
                // Only ever a name within the folder, whatever the file says.
                let name = if name.starts_with("baygate.db.damaged-") && !name.contains('/') {
                    name
                } else {
                    "baygate.db.damaged-0"
                };
                Ok(Some(Self { aside: folder.join(name), what: lines.next().unwrap_or("").to_owned() }))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::File { path, source }),
        }
    }

    /// Removes the mark of a folder.
    pub(super) fn clear(folder: &Path) -> Result<(), StoreError> {
        let path = folder.join(FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::File { path, source: error })
            }
            _ => sync_folder(folder),
        }
    }
}

/// Makes renames within a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| StoreError::File { path: folder.to_owned(), source })
}

/// A file of SQLite's beside the database, e.g. `baygate.db-wal`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether there is such a file; an error where the disk does not say: what is taken for missing is not
/// moved, and not salvaged.
pub(super) fn is_there(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|source| StoreError::File { path: path.to_owned(), source })
}

/// Moves a database with its WAL; the shared memory is rebuilt from the WAL.
/// The WAL goes second: found alone, it belongs to the file moved before.
pub(super) fn move_database(from: &Path, to: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal"] {
        let (from, to) = (beside(from, suffix), beside(to, suffix));
        if is_there(&from)? {
            std::fs::rename(&from, &to).map_err(|source| StoreError::File { path: from, source })?;
        }
    }
    let shared = beside(from, "-shm");
    if is_there(&shared)? {
        std::fs::remove_file(&shared).map_err(|source| StoreError::File { path: shared, source })?;
    }
    from.parent().map_or(Ok(()), sync_folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_does_not_tell_of_is_not_taken_for_missing() {
        let dir = tempfile::tempdir().unwrap();
        // No file system has names of that length: any question about one fails.
        let untold = dir.path().join("x".repeat(300));
        assert!(matches!(move_database(&untold, &dir.path().join("to")), Err(StoreError::File { .. })));
        move_database(&dir.path().join("missing"), &dir.path().join("to")).unwrap();
    }
}
