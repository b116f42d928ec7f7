//! The member record on a CPU card beside its purse (FMCOS, JR/T 0025). What lives here: the
//! conversations, without I/O: reading (`read`), writing (`write`) and giving out a card that
//! its maker has personalised (`format`). What does not: the sums (`crypto::pboc`), who
//! approves (`keys::till_purse`), and where things lie (`firmware-protocols/cards/`).
//!
//! Money and record are two writes. The record comes first, into the slot that is not the
//! record now; then the purse gives or takes. **The slot whose principal and bonus together are
//! the purse's balance is the record**, of two such the one with the higher counter: so the
//! purse's own transaction is the commit, and a cut anywhere leaves the old or the new.
//!
//! ```text
//!  select ─ serial ─ header ─ ours? ─ external authentication ─ slots ─ balance ─► record
//!  write:  ─ other slot ─ read back ─ 8050 ─ SAM: MAC1 ─ 8054 DEBIT ─► TAC, MAC2 ─ SAM
//!                 no effect yet ──┘                └── from here: the next reading tells
//! ```

mod format;
mod read;
mod write;

pub(super) use format::PurseFormatting;
pub(super) use read::PurseReading;
pub(super) use write::PurseWriting;

use crate::card::apdu::{Command, Response};
use crate::card::probe::Answer;

/// What came of a command.
enum Heard {
    Ok(Vec<u8>),
    /// The card's own word against it.
    Status(u16),
    /// More is to be fetched with this.
    More(Command),
    /// Nothing is known: no answer, or the reader's word, which is that of a card that left, too.
    Lost,
}

/// A card under T=0 only announces its answer (61xx: GET RESPONSE).
fn heard(answer: &Answer) -> Heard {
    let Answer::Response(Response { data, status }) = answer else { return Heard::Lost };
    match (status.sw1(), status.0) {
        (_, 0x9000) => Heard::Ok(data.clone()),
        (0x61, _) => Heard::More(Command::new([0x00, 0xC0, 0x00, 0x00]).expecting(status.sw2())),
        (_, 0x6300) => Heard::Lost,
        (_, status) => Heard::Status(status),
    }
}

/// UPDATE BINARY of a file by its short identifier (ISO/IEC 7816-4 §11.4.4).
fn update(file: u8, offset: u8, data: &[u8]) -> Command {
    Command::new([0x00, 0xD6, 0x80 | file, offset]).with_data(data)
}

/// READ BINARY likewise.
fn read(file: u8, offset: u8, length: u8) -> Command {
    Command::new([0x00, 0xB0, 0x80 | file, offset]).expecting(length)
}

#[cfg(test)]
mod tests;
