//! Reading a member card of contact memory. No code is presented: a tap costs no try.

use std::sync::Arc;

use crate::card::apdu::{Command, Response};
use crate::card::keys::KeyStore;
use crate::card::medium::desfire::FileStep;
use crate::card::medium::place;
use crate::card::medium::read::{Finding, finding, header_of};
use crate::card::probe::Answer;
use crate::card::record::{HEADER_BYTES, Header, Which};
use crate::card::sle4442::{self, HEAD_BYTES};
use crate::card::verdict::Refusal;
use crate::ident::CardUid;
use crate::protocols::cards::CardLayout;

/// A card being read.
#[derive(Debug)]
pub(in crate::card::medium) struct ContactReading {
    uid: CardUid,
    layout: Arc<CardLayout>,
    keys: Arc<dyn KeyStore>,
    at: At,
    /// A command failed before; once may be chance.
    again: bool,
    slots: Vec<Vec<u8>>,
}

#[derive(Debug, Clone)]
enum At {
    Select,
    /// The same card?
    Serial,
    Header,
    Slot(Header),
    /// It will not do. Or is it gone?
    Refusing(Refusal),
}

impl ContactReading {
    /// Begins; the command to send.
    pub(in crate::card::medium) fn start(
        uid: CardUid,
        layout: Arc<CardLayout>,
        keys: Arc<dyn KeyStore>,
    ) -> (Self, Command) {
        (Self { uid, layout, keys, at: At::Select, again: false, slots: Vec::new() }, sle4442::select())
    }

    /// Goes on with what came of the last command.
    pub(in crate::card::medium) fn answer(&mut self, answer: &Answer) -> FileStep<Finding> {
        let Answer::Response(response) = answer else { return FileStep::Done(Finding::ReaderError) };
        match self.at.clone() {
            At::Select if response.ok().is_some() => self.ask(At::Serial),
            At::Select => self.failed(),
            At::Serial => match self.is_same(response) {
                Some(true) => self.ask(At::Header),
                Some(false) => FileStep::Done(Finding::ReaderError),
                None => self.failed(),
            },
            At::Header => {
                let bytes = sle4442::bytes_of(response, place::header(&self.layout.places).len);
                match bytes.and_then(<[u8]>::first_chunk::<HEADER_BYTES>) {
                    Some(bytes) => self.header_read(bytes),
                    None => self.failed(),
                }
            }
            At::Slot(header) => match sle4442::bytes_of(response, self.piece().len).map(<[u8]>::to_vec) {
                Some(bytes) => {
                    self.slots.push(bytes);
                    self.slot_read(header)
                }
                None => self.failed(),
            },
            At::Refusing(refusal) => match self.is_same(response) {
                Some(true) => FileStep::Done(Finding::Refused(refusal)),
                Some(false) => FileStep::Done(Finding::ReaderError),
                None => self.failed(),
            },
        }
    }

    fn is_same(&self, response: &Response) -> Option<bool> {
        let head = sle4442::bytes_of(response, HEAD_BYTES)?;
        Some(sle4442::uid_of(head).as_ref() == Ok(&self.uid))
    }

    fn header_read(&mut self, bytes: &[u8; HEADER_BYTES]) -> FileStep<Finding> {
        // As delivered.
        if bytes.iter().all(|byte| *byte == 0xFF) {
            return self.ask(At::Refusing(Refusal::Unformatted));
        }
        match header_of(bytes, &self.layout, &self.uid, &*self.keys) {
            Ok(header) => self.ask(At::Slot(header)),
            Err(refusal) => self.ask(At::Refusing(refusal)),
        }
    }

    fn slot_read(&mut self, header: Header) -> FileStep<Finding> {
        let [a, b] = self.slots.as_slice() else { return self.ask(At::Slot(header)) };
        match finding(header, &[a, b], &self.uid, &*self.keys) {
            Finding::Refused(refusal) => self.ask(At::Refusing(refusal)),
            found => FileStep::Done(found),
        }
    }

    /// Of the next slot.
    fn piece(&self) -> place::Piece {
        let which = if self.slots.is_empty() { Which::A } else { Which::B };
        place::contact_slot(&self.layout.places, which)
    }

    /// All of it once more, from the beginning.
    fn failed(&mut self) -> FileStep<Finding> {
        if std::mem::replace(&mut self.again, true) {
            return FileStep::Done(Finding::ReaderError);
        }
        self.slots.clear();
        self.ask(At::Select)
    }

    fn ask(&mut self, at: At) -> FileStep<Finding> {
        let command = match &at {
            At::Select => sle4442::select(),
            At::Serial | At::Refusing(_) => sle4442::read(0, HEAD_BYTES),
            At::Header => place::header(&self.layout.places).read(),
            At::Slot(_) => self.piece().read(),
        };
        self.at = at;
        FileStep::Transmit(command)
    }
}
