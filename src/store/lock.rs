//! One daemon a data folder. The kernel's lock ends with its holder, so a crash
//! leaves nothing to clean up; the number written into the file is for the message only.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::StoreError;

const FILE: &str = "baygate.lock";
/// A store of this same process that was just dropped may still be committing its last group.
const OWN_PREDECESSOR: Duration = Duration::from_secs(5);

/// Held as long as the writer lives.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Creates the folder (0700) if need be and locks it.
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Folder { path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join(FILE))
            .map_err(unusable)?;
        let since = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(unusable(source)),
                Err(TryLockError::WouldBlock) => {}
            }
            let holder = holder(&mut file);
            if holder != std::process::id().to_string() || since.elapsed() > OWN_PREDECESSOR {
                return Err(StoreError::Locked { path: folder.to_owned(), pid: holder });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // A full disk may refuse the number; the lock holds without it.
        let noted = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        if let Err(error) = noted {
            tracing::warn!(%error, "could not note the process number in the lock file");
        }
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut text));
    let text = text.trim();
    if read.is_ok() && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        text.to_owned()
    } else {
        "unknown".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_private_and_locked_once() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let held = FolderLock::take(&folder).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(folder.join(FILE), "4711").unwrap();
        match FolderLock::take(&folder) {
            Err(StoreError::Locked { pid, .. }) => assert_eq!(pid, "4711"),
            other => panic!("{other:?}"),
        }
        drop(held);
        FolderLock::take(&folder).unwrap();
    }
}
