//! The disk of a machine. Its image outlives a machine that is killed, as if every
//! write that was answered were on the medium. Real disks have a cache of their own
//! and promise only what was flushed: from a log of all writes (QEMU's driver
//! `blklogwrites`, the format of Linux' dm-log-writes) the image is made as such a
//! disk may have left it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const SECTOR: usize = 512;
/// What a disk writes whole or not at all is a sector; file systems write pages.
const PIECE: usize = 4096;
const FLUSH: u64 = 1;

/// An image with an ext4 on it, and what becomes of it.
pub struct Disk {
    pub image: PathBuf,
    before: PathBuf,
    pub log: PathBuf,
}

/// What a disk's own cache held when the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cached {
    /// Pieces written since the last flush.
    pub unflushed: usize,
    /// Of these, on the medium all the same.
    pub kept: usize,
}

impl Disk {
    /// Sparse.
    pub fn make(folder: &Path, bytes: u64) -> Self {
        let [image, before, log] = ["disk.img", "disk-before.img", "disk-writes.log"].map(|n| folder.join(n));
        File::create(&image).unwrap().set_len(bytes).unwrap();
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(&image)
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
            .status();
        assert!(made.expect("e2fsprogs must be installed").success());
        Self { image, before, log }
    }

    /// To be called before every boot: the log begins here.
    pub fn begin(&self) {
        let copied = Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&self.before).status();
        assert!(copied.unwrap().success());
        File::create(&self.log).unwrap();
    }

    /// What was written since the last flush is on the medium or not, piece by piece, as `keep` says.
    pub fn lose_cache(&self, keep: impl FnMut() -> bool) -> Cached {
        let log = std::fs::read(&self.log).unwrap();
        let image = File::options().write(true).open(&self.before).unwrap();
        let cached = replay(&log, &image, keep);
        std::fs::rename(&self.before, &self.image).unwrap();
        cached
    }
}

/// One entry of the log.
struct Entry<'a> {
    offset: u64,
    is_flush: bool,
    data: &'a [u8],
}

/// All whole entries. The last may have been cut short with everything else.
fn entries(log: &[u8]) -> Vec<Entry<'_>> {
    let number = |at: usize| log.get(at..at + 8).map(|b| u64::from_le_bytes(b.try_into().unwrap()));
    let mut entries = Vec::new();
    // Behind the superblock.
    let mut at = SECTOR;
    while let (Some(sector), Some(sectors), Some(flags)) = (number(at), number(at + 8), number(at + 16)) {
        let begin = at + SECTOR;
        let end = begin + usize::try_from(sectors).unwrap() * SECTOR;
        let Some(data) = log.get(begin..end).filter(|_| sectors > 0 || flags > 0) else { break };
        entries.push(Entry { offset: sector * SECTOR as u64, is_flush: flags & FLUSH != 0, data });
        at = end;
    }
    entries
}

fn replay(log: &[u8], image: &File, mut keep: impl FnMut() -> bool) -> Cached {
    let entries = entries(log);
    let flushed = entries.iter().rposition(|entry| entry.is_flush).map_or(0, |last| last + 1);
    let (safe, open) = entries.split_at(flushed);
    for entry in safe {
        image.write_all_at(entry.data, entry.offset).unwrap();
    }
    let mut cached = Cached { unflushed: 0, kept: 0 };
    for entry in open {
        for (number, piece) in (0_u64..).zip(entry.data.chunks(PIECE)) {
            cached.unflushed += 1;
            if keep() {
                cached.kept += 1;
                image.write_all_at(piece, entry.offset + number * PIECE as u64).unwrap();
            }
        }
    }
    cached
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry as QEMU writes it.
    fn entry(sector: u64, flags: u64, data: &[u8]) -> Vec<u8> {
        let head = [sector, (data.len() / SECTOR) as u64, flags, 0].map(u64::to_le_bytes).concat();
        [head, vec![0; SECTOR - 32], data.to_vec()].concat()
    }

    #[test]
    fn only_what_was_flushed_is_sure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let image = File::create_new(&path).unwrap();
        image.set_len(64 * SECTOR as u64).unwrap();
        let log = [
            vec![0; SECTOR],
            entry(1, 0, &[b'a'; 2 * SECTOR]),
            entry(0, FLUSH, &[]),
            entry(1, 0, &[b'b'; SECTOR]),
            entry(8, 0, &[b'c'; 2 * PIECE]),
            // Cut short.
            entry(40, 0, &[b'd'; SECTOR])[..700].to_vec(),
        ]
        .concat();
        let mut turn = 0;
        let cached = replay(&log, &image, || {
            turn += 1;
            turn == 3
        });
        assert_eq!(cached, Cached { unflushed: 3, kept: 1 });
        let found = std::fs::read(&path).unwrap();
        let at = |sector: usize| found[sector * SECTOR];
        assert_eq!([at(0), at(1), at(2), at(8), at(16), at(40)], [0, b'a', b'a', 0, b'c', 0]);
    }
}
