//! Seals: eight bytes of SHA-256 in each row that must not be believed when it has
//! rotted on the disk. An event's seal is made in two steps, so that the one writer
//! only hashes what it adds itself: what the event says ([`Content`], on the caller's
//! thread), and where the log put it.

use sha2::{Digest, Sha256};

/// Digest of what an event says, before it has its place in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content([u8; 32]);

impl Content {
    /// SHA-256 over the columns, each with its length.
    pub(super) fn of(id: &[u8], kind: &str, subject: &str, data: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [id, kind.as_bytes(), subject.as_bytes(), data.as_bytes()] {
            add(&mut hash, part);
        }
        Self(hash.finalize().into())
    }

    /// The seal at a place: offset, epoch, class, class sequence, time and its quality; the boot.
    pub(super) fn seal(&self, numbers: [i64; 6], boot: &[u8]) -> i64 {
        let mut hash = Sha256::new();
        for number in numbers {
            hash.update(number.to_be_bytes());
        }
        add(&mut hash, boot);
        hash.update(self.0);
        first_eight(&hash.finalize())
    }
}

/// An event's columns as they stand in its row.
pub(super) struct Sealed<'a> {
    pub(super) numbers: [i64; 6],
    pub(super) id: &'a [u8],
    pub(super) kind: &'a str,
    pub(super) subject: &'a str,
    pub(super) boot: &'a [u8],
    pub(super) data: &'a str,
}

impl Sealed<'_> {
    pub(super) fn seal(&self) -> i64 {
        Content::of(self.id, self.kind, self.subject, self.data).seal(self.numbers, self.boot)
    }
}

/// The seal of bytes that are no event.
pub(super) fn seal_of(bytes: &[u8]) -> i64 {
    first_eight(&Sha256::digest(bytes))
}

fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(part);
}

fn first_eight(digest: &[u8]) -> i64 {
    digest.iter().take(8).fold(0, |seal, byte| (seal << 8) | i64::from(*byte))
}
