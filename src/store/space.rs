//! Who may use how much of the space, in bytes of the file and of the disk.
//!
//! ```text
//!  0 ───────── ordinary ─────────┬─── sale ───┬── upkeep ──┬── ledger ──┐ buffer.max_bytes
//!     facts, new work; above:    │ taps, what │ deliveries,│ money only │ (PRAGMA max_page_count)
//!     `Full`, telemetry trimmed  │ a till asks│ outcomes   │            │
//! ```
//!
//! Used is what holds data: pages of the file without the free ones, and what
//! the WAL has beyond its usual size. The reserve is a sixteenth of
//! `buffer.max_bytes`, at most 64 MiB, half of it for the ledger alone.
//!
//! The limit is no help when others fill the disk. For that a ballast file
//! lies in the folder; when SQLite reports a full disk it is given up at once,
//! so that the ledger, deliveries and the trimming go on in its place; sales begin while
//! half of it is left. Ordinary batches then live on pages the trimming freed. The ballast is laid again, and
//! all is as before, when the disk has twice its size free.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use super::apply::Claim;

const PAGE_BYTES: u64 = 4096;
/// WAL bytes that count as usual.
const USUAL_WAL_BYTES: u64 = 16 << 20;
/// While the disk is full, ordinary batches leave this many free pages to the others.
const KEPT_FREE_PAGES: u64 = 256;
const BALLAST: &str = "baygate.reserve";

/// What the file holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Used {
    /// Pages of the file.
    pub(super) pages: u64,
    /// Of these, free ones.
    pub(super) free_pages: u64,
    /// Pages in the WAL.
    pub(super) wal_pages: u64,
}

impl Used {
    fn bytes(self) -> u64 {
        self.pages.saturating_sub(self.free_pages) * PAGE_BYTES
            + (self.wal_pages * PAGE_BYTES).saturating_sub(USUAL_WAL_BYTES)
    }
}

/// The limits and the ballast.
#[derive(Debug)]
pub(super) struct Space {
    max_bytes: u64,
    reserve_bytes: u64,
    folder: PathBuf,
    ballast_bytes: u64,
    disk_full: bool,
}

impl Space {
    pub(super) fn new(folder: &Path, max_bytes: u64) -> Self {
        let folder = folder.to_owned();
        let mut space = Self { max_bytes, reserve_bytes: 0, folder, ballast_bytes: 0, disk_full: false };
        space.set_limit(max_bytes);
        space
    }

    /// Another limit; reserve and ballast follow.
    pub(super) fn set_limit(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
        self.reserve_bytes = (max_bytes / 16).min(64 << 20);
        self.ballast_bytes = (max_bytes / 64).clamp(256 << 10, 16 << 20);
    }

    /// For `PRAGMA max_page_count`.
    pub(super) fn max_pages(&self) -> u64 {
        self.max_bytes / PAGE_BYTES
    }

    /// Whether a batch may go in.
    pub(super) fn admits(&self, claim: Claim, used: Used) -> bool {
        let withheld = match claim {
            Claim::Ordinary if self.disk_full && used.free_pages < KEPT_FREE_PAGES => return false,
            Claim::Ordinary => self.reserve_bytes,
            // Taps, too, live on what was given up: half of it is kept for what was begun.
            Claim::Sale
                if self.disk_full
                    && used.free_pages < KEPT_FREE_PAGES
                    && free_bytes(&self.folder) < self.ballast_bytes / 2 =>
            {
                return false;
            }
            Claim::Sale => self.reserve_bytes / 4 * 3,
            Claim::Upkeep => self.reserve_bytes / 2,
            Claim::Ledger => 0,
        };
        used.bytes() < self.max_bytes.saturating_sub(withheld)
    }

    /// Whether delivered rows and telemetry have to go now: a little before
    /// ordinary batches are refused, so that trimming keeps them from it.
    pub(super) fn is_tight(&self, used: Used) -> bool {
        if self.disk_full {
            return used.free_pages < 2 * KEPT_FREE_PAGES;
        }
        used.bytes() >= self.max_bytes.saturating_sub(self.reserve_bytes + self.reserve_bytes / 4)
    }

    /// Whether the disk (not the limit) is full.
    pub(super) fn disk_is_full(&self) -> bool {
        self.disk_full
    }

    /// Whether the disk has no room but the ballast's: then a start cannot do without it.
    pub(super) fn is_out_of_room(&self) -> bool {
        let lies = std::fs::metadata(self.folder.join(BALLAST)).is_ok_and(|file| file.len() > 0);
        lies && free_bytes(&self.folder) < self.ballast_bytes
    }

    /// SQLite met the end of the disk. True when that is news: the ballast was given up.
    pub(super) fn give_up_ballast(&mut self) -> bool {
        let news = !self.disk_full;
        self.disk_full = true;
        let path = self.folder.join(BALLAST);
        let freed = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0));
        match freed {
            Ok(()) => tracing::warn!(bytes = self.ballast_bytes, "disk full: reserve given up"),
            Err(error) => tracing::error!(%error, "disk full and no reserve to give up"),
        }
        news
    }

    /// Lays the ballast (again) when there is room. True when a full disk is over.
    pub(super) fn lay_ballast(&mut self) -> bool {
        let path = self.folder.join(BALLAST);
        let lies = std::fs::metadata(&path).is_ok_and(|file| file.len() >= self.ballast_bytes);
        let free = free_bytes(&self.folder);
        if !lies && free >= self.ballast_bytes.saturating_mul(2) {
            let length = i64::try_from(self.ballast_bytes).unwrap_or(0);
            let laid = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, length)?));
            if let Err(error) = laid {
                tracing::warn!(%error, "could not lay the reserve for a full disk");
                return std::mem::take(&mut self.disk_full);
            }
            return std::mem::take(&mut self.disk_full);
        }
        lies && std::mem::take(&mut self.disk_full)
    }
}

/// What the disk of a folder has left, in bytes.
pub(super) fn free_bytes(folder: &Path) -> u64 {
    nix::sys::statvfs::statvfs(folder)
        .map_or(0, |disk| disk.blocks_available().saturating_mul(disk.fragment_size()))
}

/// Whether the ballast of a folder was given up, and not laid again since.
pub(super) fn is_given_up(folder: &Path) -> bool {
    std::fs::metadata(folder.join(BALLAST)).is_ok_and(|file| file.len() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_for_those_who_may_use_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut space = Space::new(dir.path(), 16 << 20); // reserve 1 MiB
        let used = |mib_tenths: u64| Used { pages: mib_tenths * (1 << 20) / 10 / 4096, ..Used::default() };
        for (name, tenths, ordinary, sale, upkeep, ledger, tight) in [
            ("empty", 0, true, true, true, true, false),
            ("nearly at the reserve", 148, true, true, true, true, true),
            ("in the reserve", 152, false, true, true, true, true),
            ("in its second quarter", 154, false, false, true, true, true),
            ("in the ledger's half", 156, false, false, false, true, true),
            ("full", 161, false, false, false, false, true),
        ] {
            let now = used(tenths);
            let admitted = [Claim::Ordinary, Claim::Sale, Claim::Upkeep, Claim::Ledger];
            let admitted = admitted.map(|claim| space.admits(claim, now));
            assert_eq!(admitted, [ordinary, sale, upkeep, ledger], "{name}");
            assert_eq!(space.is_tight(now), tight, "{name}");
        }
        assert!(!space.lay_ballast());
        assert_eq!(std::fs::metadata(dir.path().join(BALLAST)).unwrap().len(), 256 << 10);
        assert!(space.give_up_ballast() && !space.give_up_ballast());
        assert_eq!(std::fs::metadata(dir.path().join(BALLAST)).unwrap().len(), 0);
        assert!(!space.admits(Claim::Ordinary, used(0)) && space.admits(Claim::Sale, used(0)));
        assert!(space.lay_ballast());
        assert!(space.admits(Claim::Ordinary, used(0)));
    }

    #[test]
    fn free_pages_and_a_usual_wal_do_not_count() {
        let used = Used { pages: 1000, free_pages: 900, wal_pages: 4096 };
        assert_eq!(used.bytes(), 100 * 4096);
        assert_eq!(Used { wal_pages: 4097, ..used }.bytes(), 101 * 4096);
    }
}
