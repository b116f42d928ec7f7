//! The member record in files: MIFARE DESFire EV1 to EV3, and NTAG 424 DNA. What lives
//! here: the conversation under a session (`talk`), which secure messaging a chip speaks
//! (`channel`), reading (`read`), writing (`write`), the file that holds the money (`value`),
//! preparing an empty card (`format`), moving one to newer keys (`moving`), and the address of an
//! NTAG 424 (`address`), all without I/O.
//! What does not: the session's cryptography (`crypto::ev1`, `crypto::ev2`), its keys (`keys`),
//! and where the files are (`firmware-protocols/cards/`).
//!
//! ```text
//!  select ─ header, open ─ ours? its check right? ─ EV1? ─ log in ─ record ─ value ─► Pair
//!                             writing: ─ Debit or Credit ─ new record ─ CommitTransaction ─► written
//!                                            the card forgets what was not committed
//! ```

mod address;
mod channel;
mod format;
mod moving;
mod read;
mod talk;
mod value;
mod write;

pub(super) use format::FileFormatting;
pub(super) use moving::FileMoving;
pub(super) use read::{FileReading, FileStep, Wish};
pub(super) use write::FileWriting;

use crate::card::keys::KeyRole;
use crate::protocols::cards::{FilePlace, FilePlaces};

/// Whether the chip keeps a transaction until it is committed: one slot in a backup file.
/// An NTAG 424 does not, and has two.
fn commits(files: &FilePlaces) -> bool {
    files.slots.len() == 1
}

/// The key number of a role.
fn number(files: &FilePlaces, role: KeyRole) -> u8 {
    let sun = files.sun.as_ref();
    match role {
        KeyRole::Debit => files.keys.debit,
        KeyRole::Credit => files.keys.credit,
        KeyRole::Manage => files.keys.manage,
        KeyRole::SunMeta => sun.map_or(files.keys.manage, |sun| sun.meta),
        KeyRole::SunFile => sun.map_or(files.keys.manage, |sun| sun.file),
    }
}

/// ReadData and WriteData: DESFire's own way with frames, or ISO 14443-4's (NTAG 424).
fn read_and_write(files: &FilePlaces) -> (u8, u8) {
    if files.is_desfire() { (0xBD, 0x3D) } else { (0xAD, 0x8D) }
}

/// File, offset and length, low bytes first, as ReadData and WriteData have them.
fn span(place: &FilePlace, length: usize) -> [u8; 7] {
    let [o0, o1] = place.offset.to_le_bytes();
    let [l0, l1, l2, ..] = length.to_le_bytes();
    [place.file, o0, o1, 0, l0, l1, l2]
}

#[cfg(test)]
mod tests;
