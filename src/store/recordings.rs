//! Files beside the database: what was heard on a link before a warning. Bounded in
//! number and size; the oldest go first. A file is whole or not there. They are
//! evidence for the workshop, not facts: nothing rests on them, and a full disk or a
//! failing write costs no more than the file.
//!
//! Names are `NUMBER-VISIT.KIND`: the order does not ask a clock.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde::Serialize;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::clock::UtcMillis;

/// The folder in the data folder.
const FOLDER: &str = "recordings";
/// The end of a name while the file is written.
const UNFINISHED: &str = ".part";
/// Files kept, at most, …
const MOST_FILES: usize = 200;
/// … and bytes in them.
const MOST_BYTES: u64 = 64 << 20;
/// One file is written at a time: two links must not take the same number, nor one delete
/// what the other has half written.
static KEEP: Mutex<()> = Mutex::new(());

/// A file that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecordingFile {
    /// Its name in `recordings/` of the data folder.
    pub file: String,
    /// The visit.
    pub visit: Uuid,
    /// Its size, compressed.
    pub bytes: u64,
    /// When it was written, by the clock of then.
    pub saved_at: UtcMillis,
    number: u64,
}

impl Store {
    /// Compresses and keeps what was heard in a visit; returns the file's name.
    ///
    /// # Errors
    /// [`StoreError::File`]; nothing was kept then.
    pub async fn keep_recording(
        &self,
        visit: Uuid,
        kind: &'static str,
        bytes: Vec<u8>,
    ) -> Result<String, StoreError> {
        let folder = self.folder.join(FOLDER);
        blocking(move || keep(&folder, visit, kind, &bytes, MOST_FILES, MOST_BYTES)).await
    }

    /// What is kept, newest first.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub async fn recordings(&self) -> Result<Vec<RecordingFile>, StoreError> {
        let folder = self.folder.join(FOLDER);
        blocking(move || list(&folder)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StoreError::Closed))
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { path, source }
}

fn keep(
    folder: &Path,
    visit: Uuid,
    kind: &str,
    bytes: &[u8],
    most_files: usize,
    most_bytes: u64,
) -> Result<String, StoreError> {
    let packed = compress_to_vec(bytes, CompressionLevel::Fastest);
    let _alone = KEEP.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(folder).map_err(file_error(folder))?;
    remove_unfinished(folder)?;
    let kept = list(folder)?;
    let number = kept.first().map_or(1, |newest| newest.number + 1);
    let name = format!("{number:08}-{visit}.{kind}");
    make_room(folder, &kept, most_files, most_bytes.saturating_sub(packed.len() as u64));
    let path = folder.join(&name);
    let unfinished = folder.join(format!("{name}{UNFINISHED}"));
    write(&unfinished, &packed)
        .and_then(|()| fs::rename(&unfinished, &path))
        .inspect_err(|_| drop(fs::remove_file(&unfinished)))
        .map_err(file_error(&path))?;
    Ok(name)
}

fn write(path: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o640).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Deletes the oldest, so that one more file has room.
fn make_room(folder: &Path, newest_first: &[RecordingFile], most_files: usize, most_bytes: u64) {
    let mut bytes = 0;
    for (place, file) in newest_first.iter().enumerate() {
        bytes += file.bytes;
        if place + 1 >= most_files || bytes > most_bytes {
            drop(fs::remove_file(folder.join(&file.file)));
        }
    }
}

/// What a power cut left. Call it only while holding [`KEEP`].
fn remove_unfinished(folder: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(file_error(folder))? {
        let path = entry.map_err(file_error(folder))?.path();
        if path.to_string_lossy().ends_with(UNFINISHED) {
            drop(fs::remove_file(path));
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<RecordingFile>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(file_error(folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(file_error(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(UNFINISHED) {
            continue;
        }
        if let (Some((number, visit)), Ok(about)) = (parts(&name), entry.metadata()) {
            let modified = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let saved_at = modified.and_then(|time| i64::try_from(time.as_millis()).ok()).unwrap_or(0);
            files.push(RecordingFile {
                file: name,
                visit,
                bytes: about.len(),
                saved_at: UtcMillis(saved_at),
                number,
            });
        }
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.number));
    Ok(files)
}

fn parts(name: &str) -> Option<(u64, Uuid)> {
    let (number, rest) = name.split_once('-')?;
    let (visit, _) = rest.split_once('.')?;
    Some((number.parse().ok()?, visit.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn numbers(folder: &Path) -> Vec<u64> {
        list(folder).unwrap().into_iter().map(|file| file.number).collect()
    }

    #[test]
    fn files_are_whole_numbered_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(FOLDER);
        assert!(list(&folder).unwrap().is_empty());
        let text = "{\"t_ms\":1.5,\"dir\":\"tx\",\"hex\":\"303130300D\"}\n".repeat(2000);
        let visit = Uuid::now_v7();
        let name = keep(&folder, visit, "trace.jsonl.zst", text.as_bytes(), 3, 1 << 20).unwrap();
        assert_eq!(name, format!("00000001-{visit}.trace.jsonl.zst"));
        let packed = fs::File::open(folder.join(&name)).unwrap();
        assert!(packed.metadata().unwrap().len() < text.len() as u64 / 10);
        let mut read = String::new();
        ruzstd::decoding::StreamingDecoder::new(packed).unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, text);

        fs::write(folder.join("00000009-x.trace.part"), "half").unwrap();
        fs::write(folder.join("README"), "somebody's").unwrap();
        for _ in 0..4 {
            keep(&folder, visit, "trace.jsonl.zst", b"x", 3, 1 << 20).unwrap();
        }
        assert_eq!(numbers(&folder), [5, 4, 3]);
        assert!(!folder.join("00000009-x.trace.part").exists() && folder.join("README").exists());
        // Bytes count too; a number is never used again.
        keep(&folder, visit, "trace.jsonl.zst", &random(4000), 3, 4200).unwrap();
        assert_eq!(numbers(&folder)[0], 6);
        keep(&folder, visit, "trace.jsonl.zst", &random(4000), 3, 4200).unwrap();
        assert_eq!(numbers(&folder), [7]);
    }

    #[test]
    fn links_that_keep_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(FOLDER);
        let keep_ten = || {
            for _ in 0..10 {
                keep(&folder, Uuid::now_v7(), "trace.jsonl.zst", b"x", 100, 1 << 20).unwrap();
                list(&folder).unwrap();
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(keep_ten))));
        assert_eq!(numbers(&folder), (1..=40).rev().collect::<Vec<_>>());
    }

    fn random(count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        getrandom::fill(&mut bytes).unwrap();
        bytes
    }
}
