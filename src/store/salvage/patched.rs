//! A copy of a damaged file that SQLite can read: with its WAL laid over it by hand, or with the
//! first page of a fresh one.
//! Format: SQLite "Database File Format", sections 1.3 and 4.1.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::Connection;

use super::pages::{PAGE, PAGE_U64, present};
use crate::store::StoreError;
use crate::store::mark::beside;
use crate::store::wal::Wal;

/// Pages that are copied in one write.
const PAGES_AT_ONCE: usize = 256;

/// Reads from a file. A page that does not read at the second try is empty, as a damaged one: a lost
/// sector never comes back.
fn read(source: &File, at: u64, bytes: &mut [u8]) {
    if source.read_exact_at(bytes, at).is_ok() {
        return;
    }
    for (page, at) in bytes.chunks_mut(PAGE).zip((at..).step_by(PAGE)) {
        if let Err(error) = source.read_exact_at(page, at) {
            tracing::warn!(%error, at, "a page of the damaged file cannot be read");
            page.fill(0);
        }
    }
}

/// Copies a file, as far as it can be read. What cannot be written ends it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let (source, target) = (File::open(from)?, File::create(to)?);
    let about = source.metadata()?;
    target.set_permissions(about.permissions())?;
    let mut bytes = vec![0; PAGES_AT_ONCE * PAGE];
    let mut at = 0;
    while at < about.len() {
        bytes.truncate(usize::try_from(about.len() - at).unwrap_or(usize::MAX));
        read(&source, at, &mut bytes);
        target.write_all_at(&bytes, at)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// Copies a file to `patched` with all that its WAL holds whole, also beyond the place
/// where SQLite would stop.
pub(super) fn lay_over(path: &Path, wal: &Wal, patched: &Path) -> Result<(), StoreError> {
    let lay = || -> std::io::Result<()> {
        copy(path, patched)?;
        let (from, to) = (File::open(beside(path, "-wal"))?, File::options().write(true).open(patched)?);
        let (mut latest, mut pages) = (BTreeMap::new(), 0);
        for frame in wal.to_take().filter(|frame| frame.page > 0) {
            latest.insert(frame.page, frame.at);
            pages = if frame.commit > 0 { frame.commit } else { pages };
        }
        let mut page = [0; PAGE];
        for (no, at) in latest {
            from.read_exact_at(&mut page, at)?;
            to.write_all_at(&page, (no - 1) * PAGE_U64)?;
        }
        if pages > 0 {
            to.set_len(pages * PAGE_U64)?;
        }
        Ok(())
    };
    lay().map_err(|source| StoreError::File { path: patched.to_owned(), source })
}

/// Copies a file to `patched`, unless it is there already, with the schema pages of a fresh one.
pub(super) fn lend(path: &Path, patched: &Path, fresh: &Connection) -> Result<(), StoreError> {
    let template = fresh.path().unwrap_or_default().to_owned();
    let mut query = fresh.prepare("SELECT pageno FROM dbstat WHERE name = 'sqlite_schema'")?;
    let schema: Vec<u64> =
        query.query_map([], |row| row.get(0).map(i64::unsigned_abs))?.collect::<Result<_, _>>()?;
    let lend = || -> std::io::Result<()> {
        let template = File::open(&template)?;
        if !patched.try_exists()? {
            copy(path, patched)?;
            let wal = beside(path, "-wal");
            if present(File::open(&wal))?.is_some() {
                copy(&wal, &beside(patched, "-wal"))?;
            }
        }
        let count = std::fs::metadata(patched)?.len() / PAGE_U64;
        let to = File::options().write(true).open(patched)?;
        for no in &schema {
            let mut page = [0; PAGE];
            template.read_exact_at(&mut page, (no - 1) * PAGE_U64)?;
            if *no == 1 {
                // Pages of this file, no free list, and a WAL beside it (§1.3).
                let count = u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes();
                for (field, value) in [(18, [2_u8, 2].as_slice()), (28, &count), (32, &[0; 8])] {
                    if let Some(field) = page.get_mut(field..field + value.len()) {
                        field.copy_from_slice(value);
                    }
                }
                page.copy_within(24..28, 92);
            }
            to.write_all_at(&page, (no - 1) * PAGE_U64)?;
        }
        Ok(())
    };
    lend().map_err(|source| StoreError::File { path: patched.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_whatever_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for length in [0, 1, PAGE, PAGES_AT_ONCE * PAGE, 2 * PAGES_AT_ONCE * PAGE + PAGE + 7] {
            let bytes: Vec<u8> = (0..length).map(|at| (at / 256 + at) as u8).collect();
            std::fs::write(&from, &bytes).unwrap();
            copy(&from, &to).unwrap();
            assert!(std::fs::read(&to).unwrap() == bytes, "{length}");
        }
    }

    /// Of our own memory what is not mapped fails with EIO, as a lost sector does.
    #[test]
    fn what_does_not_read_is_empty_and_costs_nothing_beside_it() {
        let memory = File::open("/proc/self/mem").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let ranges: Vec<(u64, u64)> = maps
            .lines()
            .filter_map(|line| line.split_once(' ')?.0.split_once('-'))
            .map(|(from, to)| (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap()))
            .collect();
        // The program's own first page (ELF), which never changes; before it nothing is mapped.
        let (first, before) = (ranges[0].0, PAGE_U64 * 3);
        let mut bytes = vec![0xEE; PAGE * 4];
        read(&memory, first - before, &mut bytes);
        assert!(bytes[..PAGE * 3].iter().all(|byte| *byte == 0));
        assert_eq!(&bytes[PAGE * 3..PAGE * 3 + 4], b"\x7FELF");
    }
}
