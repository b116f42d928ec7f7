//! Giving a contact memory card its serial, behind which its code and its record are made: no
//! SLE4442 has one as delivered. It is written, read back, and protected for ever; a card that
//! leaves before it is whole counts as one without, and gets another at the next try.

use crate::card::apdu::Command;
use crate::card::keys::transport;
use crate::card::medium::desfire::FileStep;
use crate::card::medium::preparing::PrepareOutcome;
use crate::card::probe::Answer;
use crate::card::sle4442::{self, ALL_TRIES, HEAD_BYTES, Presented, SERIAL_AT, Serial};
use crate::ident::CardUid;

/// A card being given its serial.
#[derive(Debug)]
pub(in crate::card::medium) struct Naming {
    uid: CardUid,
    serial: Serial,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Select,
    Head,
    Tries,
    Code,
    Write,
    Verify,
    Protect,
}

impl Naming {
    /// Begins with a card that shows `uid`, its maker's bytes; the command to send.
    pub(in crate::card::medium) fn start(uid: CardUid, serial: Serial) -> (Self, Command) {
        (Self { uid, serial, at: At::Select }, sle4442::select())
    }

    /// Goes on with what came of the last command.
    pub(in crate::card::medium) fn answer(&mut self, answer: &Answer) -> FileStep<PrepareOutcome> {
        let Answer::Response(response) = answer else { return FileStep::Done(self.cut()) };
        match self.at {
            At::Select if response.ok().is_some() => self.ask(At::Head, sle4442::read(0, HEAD_BYTES)),
            At::Head => {
                let head = sle4442::bytes_of(response, HEAD_BYTES).map(sle4442::uid_of);
                match head {
                    Some(Ok(uid)) if uid == self.uid => self.ask(At::Tries, sle4442::error_counter()),
                    _ => FileStep::Done(PrepareOutcome::NotWritten),
                }
            }
            // Whose code it is nobody knows yet: it is presented to a card that nobody has tried.
            At::Tries => match sle4442::tries_left(response) {
                Some(ALL_TRIES) => self.ask(At::Code, transport::psc()),
                Some(_) => FileStep::Done(PrepareOutcome::TooFewTries),
                None => FileStep::Done(PrepareOutcome::NotWritten),
            },
            At::Code => match sle4442::presented(response) {
                Presented::Right => self.ask(At::Write, sle4442::write(SERIAL_AT, &self.serial)),
                Presented::Wrong => FileStep::Done(PrepareOutcome::NotBlank),
                Presented::Unheard => FileStep::Done(PrepareOutcome::NotWritten),
            },
            At::Write if response.ok().is_some() => {
                self.ask(At::Verify, sle4442::read(SERIAL_AT, self.len()))
            }
            At::Verify if sle4442::bytes_of(response, self.len()) == Some(&self.serial[..]) => {
                self.ask(At::Protect, sle4442::protect(SERIAL_AT, &self.serial))
            }
            At::Protect if response.ok().is_some() => FileStep::Done(PrepareOutcome::Prepared),
            At::Select | At::Write | At::Verify | At::Protect => FileStep::Done(self.cut()),
        }
    }

    fn len(&self) -> u8 {
        u8::try_from(self.serial.len()).unwrap_or_default()
    }

    fn cut(&self) -> PrepareOutcome {
        match self.at {
            At::Write | At::Verify | At::Protect => PrepareOutcome::Unfinished,
            _ => PrepareOutcome::NotWritten,
        }
    }

    fn ask(&mut self, at: At, command: Command) -> FileStep<PrepareOutcome> {
        self.at = at;
        FileStep::Transmit(command)
    }
}
