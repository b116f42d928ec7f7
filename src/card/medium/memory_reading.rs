//! Reading a card of pages or blocks: header, login, slots, one deed behind the other. What does not
//! live here: other cards, and what the bytes of header and slots say (`read`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::page_login::{LoggedIn, PageLogin};
use super::place::{self, Piece};
use super::public;
use super::read::{DONE_READER_ERROR, ReadStep, Reading, finding, header_of, no_key, refused, shows_uid};
use crate::card::apdu::Command;
use crate::card::keys::transport::{CLASSIC, ClassicKey};
use crate::card::keys::{CardRef, KeyError, KeyRole, KeyStore};
use crate::card::probe::Answer;
use crate::card::record::{HEADER_BYTES, Header, HeaderReading, Which, read_header};
use crate::card::verdict::Refusal;
use crate::ident::CardUid;
use crate::protocols::cards::{CardLayout, Places};

/// Reading a card of pages or blocks.
#[derive(Debug)]
pub(super) struct MemoryReading {
    uid: CardUid,
    layout: Arc<CardLayout>,
    keys: Arc<dyn KeyStore>,
    phase: Phase,
    doing: Deed,
    todo: VecDeque<Deed>,
    got: Vec<u8>,
    /// Slots read so far; one that cannot be read has no bytes.
    slots: Vec<Vec<u8>>,
    /// What we are logged in to: a Classic's sector; of a tag, 0 for the whole.
    open: Option<u8>,
}

#[derive(Debug)]
enum Phase {
    /// Reads the header.
    Header,
    /// A Classic that refused the public key: is it as delivered? Keys that are left to ask.
    Blank(&'static [ClassicKey]),
    /// Logs in and reads the next slot; `again`: the first reading failed.
    Slot { header: Header, again: bool },
    /// That slot cannot be read. Or is the card gone?
    Lost(Header),
    /// The card will not do. Or is it gone?
    Refusing(Refusal),
}

/// One command and what its answer must be.
#[derive(Debug, Clone)]
enum Deed {
    /// Powers the card anew; the same card must be there afterwards.
    Reset,
    SameUid,
    /// Loads a key into the reader.
    Load(Command),
    /// Logs in to a Classic sector.
    LogIn(Command),
    /// Logs in to a tag.
    Open(PageLogin),
    Read(Piece),
}

impl MemoryReading {
    pub(super) fn start(
        uid: CardUid,
        layout: Arc<CardLayout>,
        keys: Arc<dyn KeyStore>,
        disturbed: bool,
    ) -> ReadStep {
        let mut todo = VecDeque::new();
        if disturbed {
            todo.extend([Deed::Reset, Deed::SameUid]);
        }
        let header = place::header(&layout.places);
        if let Places::Blocks(_) = layout.places {
            let [load, log_in] = public::header_login(header.at);
            todo.extend([Deed::Load(load), Deed::LogIn(log_in)]);
        }
        todo.push_back(Deed::Read(header));
        let (got, slots) = (Vec::new(), Vec::new());
        Self { uid, layout, keys, phase: Phase::Header, doing: Deed::Reset, todo, got, slots, open: None }
            .go_on()
    }

    fn boxed(self) -> Box<Reading> {
        Box::new(self.into())
    }

    pub(super) fn answer(mut self, answer: &Answer) -> ReadStep {
        match (&self.doing, answer) {
            (Deed::Reset, Answer::Reset) => self.go_on(),
            (Deed::Reset, _) | (_, Answer::Reset | Answer::NotTransmitted) => DONE_READER_ERROR,
            (Deed::SameUid, answer) => {
                if shows_uid(answer, &self.uid) {
                    self.go_on()
                } else {
                    DONE_READER_ERROR
                }
            }
            (Deed::Load(_), Answer::Response(response)) => match response.ok() {
                Some(_) => self.go_on(),
                None => refused(Refusal::ReaderCannotLogIn),
            },
            (Deed::LogIn(_), Answer::Response(response)) => match response.ok() {
                Some(_) => self.go_on(),
                None => self.login_failed(),
            },
            (Deed::Open(login), Answer::Response(response)) => match login.answer(response) {
                LoggedIn::Yes => self.go_on(),
                LoggedIn::More(login) => {
                    self.todo.push_front(Deed::Open(login));
                    self.go_on()
                }
                LoggedIn::No(Refusal::WrongKey) => self.if_still_there(Phase::Refusing(Refusal::WrongKey)),
                LoggedIn::No(refusal) => refused(refusal),
            },
            (Deed::Read(piece), Answer::Response(response)) => match response.ok() {
                Some(bytes) if bytes.len() == usize::from(piece.len) => {
                    self.got.extend_from_slice(bytes);
                    self.go_on()
                }
                _ => self.read_failed(),
            },
        }
    }

    fn go_on(mut self) -> ReadStep {
        let Some(deed) = self.todo.pop_front() else {
            return self.phase_done();
        };
        let command = match &deed {
            Deed::Reset => {
                self.doing = deed;
                return ReadStep::Reset(self.boxed());
            }
            Deed::SameUid => Command::get_uid(),
            Deed::Load(command) | Deed::LogIn(command) => command.clone(),
            Deed::Open(login) => login.command(),
            Deed::Read(piece) => piece.read(),
        };
        self.doing = deed;
        ReadStep::Transmit(command, self.boxed())
    }

    /// A failed login halts a Classic card.
    fn login_failed(self) -> ReadStep {
        match self.phase {
            Phase::Header => self.ask_as_delivered(CLASSIC),
            Phase::Blank(left) => self.ask_as_delivered(left),
            _ => self.if_still_there(Phase::Refusing(Refusal::WrongKey)),
        }
    }

    /// Asks with the first of these keys, and then with the others: a Classic counts no failures.
    fn ask_as_delivered(mut self, keys: &'static [ClassicKey]) -> ReadStep {
        let Some((key, left)) = keys.split_first() else {
            return self.if_still_there(Phase::Refusing(Refusal::NotAMemberCard));
        };
        if public::reads_headers(key) {
            // The first that was asked.
            return self.ask_as_delivered(left);
        }
        let header = place::header(&self.layout.places);
        let [load, log_in] = public::login(key, header.at);
        let asked = [Deed::Load(load), Deed::LogIn(log_in), Deed::Read(header)];
        self.phase = Phase::Blank(left);
        self.todo = [Deed::Reset, Deed::SameUid].into_iter().chain(asked).collect();
        self.go_on()
    }

    fn read_failed(mut self) -> ReadStep {
        match std::mem::replace(&mut self.phase, Phase::Header) {
            // Once may be chance, and the other slot is older than this one may be.
            Phase::Slot { header, again: false } => {
                self.open = None;
                self.got.clear();
                self.slot(header, true)
            }
            Phase::Slot { header, again: true } => self.if_still_there(Phase::Lost(header)),
            // Somebody locked it, or it is too small for a header.
            _ => self.if_still_there(Phase::Refusing(Refusal::NotAMemberCard)),
        }
    }

    /// What `then` says, once the card has shown that it did not leave.
    fn if_still_there(mut self, then: Phase) -> ReadStep {
        self.phase = then;
        self.open = None;
        self.got.clear();
        self.todo = VecDeque::from([Deed::Reset, Deed::SameUid]);
        self.go_on()
    }

    fn phase_done(mut self) -> ReadStep {
        let got = std::mem::take(&mut self.got);
        match std::mem::replace(&mut self.phase, Phase::Header) {
            Phase::Header => match got.first_chunk::<HEADER_BYTES>() {
                Some(bytes) => self.header_read(bytes),
                None => DONE_READER_ERROR,
            },
            Phase::Blank(_) => refused(match got.first_chunk().map(read_header) {
                // Ours, and its sector not closed yet: the issue was cut off.
                Some(HeaderReading::Blank | HeaderReading::Ours(_)) => Refusal::Unformatted,
                _ => Refusal::NotAMemberCard,
            }),
            Phase::Slot { header, .. } => {
                self.slots.push(got);
                self.slot(header, false)
            }
            Phase::Lost(header) => {
                self.slots.push(Vec::new());
                self.slot(header, false)
            }
            Phase::Refusing(refusal) => refused(refusal),
        }
    }

    fn header_read(self, bytes: &[u8; HEADER_BYTES]) -> ReadStep {
        match header_of(bytes, &self.layout, &self.uid, &*self.keys) {
            Ok(header) => self.slot(header, false),
            Err(refusal) => refused(refusal),
        }
    }

    /// Reads the next slot; `again`: after a first reading that failed.
    fn slot(mut self, header: Header, again: bool) -> ReadStep {
        if let [a, b] = self.slots.as_slice() {
            return ReadStep::Done(finding(header, &[a, b], &self.uid, &*self.keys));
        }
        match self.slot_deeds(&header) {
            Ok(deeds) => self.todo = deeds,
            Err(error) => return refused(no_key(&error)),
        }
        if again {
            self.todo.push_front(Deed::SameUid);
            self.todo.push_front(Deed::Reset);
        }
        self.phase = Phase::Slot { header, again };
        self.go_on()
    }

    fn slot_deeds(&mut self, header: &Header) -> Result<VecDeque<Deed>, KeyError> {
        let which = if self.slots.is_empty() { Which::A } else { Which::B };
        let card = CardRef { uid: &self.uid, store: &header.store, version: header.key_version };
        let mut deeds = VecDeque::new();
        let mut open = self.open;
        for piece in place::slot(&self.layout.places, which) {
            match self.layout.places {
                Places::Pages(ref pages) => {
                    if open.replace(0).is_none() {
                        deeds.push_back(Deed::Open(PageLogin::of(pages, card, &*self.keys)?));
                    }
                }
                Places::Blocks(_) => {
                    let sector = place::sector(piece.at);
                    if open.replace(sector) != Some(sector) {
                        let login = self.keys.classic_login(card, KeyRole::Debit, piece.at)?;
                        deeds.extend([Deed::Load(login.load), Deed::LogIn(login.authenticate)]);
                    }
                }
                Places::Files(_) | Places::Contact(_) | Places::Purse(_) => {}
            }
            deeds.push_back(Deed::Read(piece));
        }
        self.open = open;
        Ok(deeds)
    }
}
