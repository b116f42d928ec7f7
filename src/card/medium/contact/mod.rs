//! The member record on contact memory cards (SLE4442): everybody may read them, and who
//! presents the code may write. What lives here: reading (`read`), writing (`write`), giving a
//! card its serial (`serial`) and preparing one (`format`), all without I/O. What does not: the
//! commands (`card::sle4442`), the code (`keys`), and where things lie (`firmware-protocols/cards/`).
//!
//! ```text
//!  select ─ serial ─ header ─ slots ─► Pair                        no code is needed, none is presented
//!                  writing: ─ tries left? ─ code ─ other slot ─ read it back ─► written
//!                               └ one: refused, and the code is not presented
//! ```
//! The code is presented once an action, never with one try left: at zero the chip is read-only
//! for ever. A right one gives the tries back.

mod format;
mod read;
mod serial;
mod write;

pub(super) use format::ContactFormatting;
pub(super) use read::ContactReading;
pub(super) use serial::Naming;
pub(super) use write::ContactWriting;

use crate::card::medium::place::Piece;
use crate::card::sle4442;

/// What was to be written at a place.
type Part = (Piece, Vec<u8>);

/// The command that writes it.
fn write_of((piece, data): &Part) -> crate::card::apdu::Command {
    sle4442::write(piece.at, data)
}

#[cfg(test)]
mod tests;
