//! Preparing an empty contact memory card that has its serial. Three bytes of code are changed in
//! one command, of which after a cut nobody knows whether it was done, and a wrong code costs one of
//! three tries: a state on the card says which code it can have.
//!
//! ```text
//!  empty? ─ tries left? ─ code ─ serial protected ─ header cleared ─ slots ─ rest of the header
//!         ─ state 0F0F ─ change the code ─ state 0000 ─ present the new one ─ the header's first bytes
//!
//!  state  FFFF, 0FFF   as delivered     0F0F   the old or the new     0000, 00FF   ours
//! ```
//! In doubt ours is presented while all tries are there, and the delivered one while two are: one
//! of them is right, and each action costs one try at most. A state whose second byte is torn says
//! what its first does, which is so by then. Every write is read back.

use std::collections::VecDeque;

use super::{Part, write_of};
use crate::card::apdu::{Command, Response};
use crate::card::keys::{CardRef, KeyStore, KeyVersion, transport};
use crate::card::medium::desfire::FileStep;
use crate::card::medium::format::FormatError;
use crate::card::medium::place::{self, Piece};
use crate::card::medium::preparing::PrepareOutcome;
use crate::card::probe::Answer;
use crate::card::record::{Header, MemberRecord, SLOT_BYTES, Which, encode};
use crate::card::sle4442::{self, ALL_TRIES, HEAD_BYTES, Presented, SERIAL_AT};
use crate::ident::CardUid;
use crate::protocols::cards::{CardLayout, ContactPlaces};

/// State: the code may be either.
const IN_DOUBT: [u8; 2] = [0x0F; 2];
/// State: the code is ours.
const OURS: [u8; 2] = [0x00; 2];
/// The first bytes of a header, without which it is none.
const MARK_BYTES: usize = 4;

/// A card being prepared.
#[derive(Debug)]
pub(in crate::card::medium) struct ContactFormatting {
    uid: CardUid,
    codes: Codes,
    /// An earlier attempt of ours was cut off.
    again: bool,
    state: State,
    doing: Deed,
    todo: VecDeque<Deed>,
    /// Behind the code, where it is the delivered one and where it is ours.
    with_delivered: VecDeque<Deed>,
    with_ours: VecDeque<Deed>,
    begun: bool,
}

/// The commands with a code.
#[derive(Debug)]
struct Codes {
    delivered: Command,
    ours: Command,
}

/// Which code a card can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Delivered,
    InDoubt,
    Ours,
}

#[derive(Debug)]
enum Deed {
    Select,
    /// The same card?
    Serial,
    /// Must be as delivered.
    Empty(Piece),
    State(Piece),
    Tries,
    /// The one that it can have.
    Delivered,
    Ours,
    Write(Part),
    Check(Part),
    Protect(Vec<u8>),
    /// Puts ours in place of the delivered one.
    Change(Command),
    /// Presents it, as proof.
    Proof,
}

impl ContactFormatting {
    /// Begins to make the card `uid` a member card with `record`; the command to send.
    ///
    /// # Errors
    /// [`FormatError`].
    pub(in crate::card::medium) fn start(
        uid: CardUid,
        layout: &CardLayout,
        contact: &ContactPlaces,
        record: &MemberRecord,
        keys: &dyn KeyStore,
        again: bool,
    ) -> Result<(Self, Command), FormatError> {
        let (version, store) = (KeyVersion(record.key_version), record.issuing_store.clone());
        let header = Header { layout: layout.layout, key_version: version, store };
        let card = CardRef { uid: &uid, store: &header.store, version };
        let codes = Codes { delivered: transport::psc(), ours: keys.psc(card, ALL_TRIES)? };
        let change = keys.psc_change(card)?;
        let header = (place::header(&layout.places), header.encode(&uid, keys)?.to_vec());
        let slots = [(Which::A, encode(record, &uid, keys)?), (Which::B, [0; SLOT_BYTES])];
        let state = Piece { at: contact.state, len: 2 };

        let mut todo = VecDeque::from([Deed::Serial]);
        if !again {
            todo.push_back(Deed::Empty(header.0));
            todo.extend(
                slots.iter().map(|(which, _)| Deed::Empty(place::contact_slot(&layout.places, *which))),
            );
        }
        todo.extend([Deed::State(state), Deed::Tries]);

        let mut with_delivered = VecDeque::new();
        let mut with_ours = VecDeque::from(written((state, OURS.to_vec())));
        for deeds in [&mut with_delivered, &mut with_ours] {
            // Its naming may have been cut between the two.
            deeds.push_back(Deed::Protect(sle4442::serial_of(&uid)));
            let (mark, rest) = header.1.split_at_checked(MARK_BYTES).unwrap_or_default();
            let mark_at = Piece { at: header.0.at, len: mark.len().try_into().unwrap_or_default() };
            let rest_at = Piece {
                at: header.0.at.saturating_add(mark_at.len),
                len: rest.len().try_into().unwrap_or_default(),
            };
            deeds.extend(written((mark_at, vec![0; mark.len()])));
            for (which, bytes) in &slots {
                deeds.extend(place::slot_writes(&layout.places, *which, bytes).into_iter().map(Deed::Write));
                deeds.push_back(Deed::Check((place::contact_slot(&layout.places, *which), bytes.to_vec())));
            }
            deeds.extend(written((rest_at, rest.to_vec())));
        }
        with_delivered.extend(written((state, IN_DOUBT.to_vec())));
        with_delivered.push_back(Deed::Change(change));
        with_delivered.extend(written((state, OURS.to_vec())));
        with_delivered.push_back(Deed::Proof);
        for deeds in [&mut with_delivered, &mut with_ours] {
            let (mark, _) = header.1.split_at_checked(MARK_BYTES).unwrap_or_default();
            let at = Piece { at: header.0.at, len: mark.len().try_into().unwrap_or_default() };
            deeds.push_back(Deed::Write((at, mark.to_vec())));
            deeds.push_back(Deed::Check(header.clone()));
        }
        let (state, begun) = (State::Delivered, false);
        let doing = Deed::Select;
        let work = Self { uid, codes, again, state, doing, todo, with_delivered, with_ours, begun };
        Ok((work, sle4442::select()))
    }

    /// Goes on with what came of the last command.
    pub(in crate::card::medium) fn answer(&mut self, answer: &Answer) -> FileStep<PrepareOutcome> {
        let Answer::Response(response) = answer else { return self.cut() };
        match std::mem::replace(&mut self.doing, Deed::Select) {
            Deed::Serial => match sle4442::bytes_of(response, HEAD_BYTES).map(sle4442::uid_of) {
                Some(Ok(uid)) if uid == self.uid => self.go_on(),
                _ => self.cut(),
            },
            Deed::Empty(piece) => match sle4442::bytes_of(response, piece.len) {
                Some(bytes) if is_empty(bytes) => self.go_on(),
                Some(_) => FileStep::Done(PrepareOutcome::NotBlank),
                None => self.cut(),
            },
            Deed::State(piece) => match sle4442::bytes_of(response, piece.len) {
                Some(bytes) => {
                    self.state = state_of(bytes);
                    self.go_on()
                }
                None => self.cut(),
            },
            Deed::Tries => self.choose(response),
            Deed::Delivered => {
                let deeds = std::mem::take(&mut self.with_delivered);
                self.code(response, deeds)
            }
            Deed::Ours => {
                let deeds = std::mem::take(&mut self.with_ours);
                self.code(response, deeds)
            }
            Deed::Proof if sle4442::presented(response) == Presented::Right => self.go_on(),
            Deed::Check((piece, data)) if sle4442::bytes_of(response, piece.len) == Some(&data[..]) => {
                self.go_on()
            }
            Deed::Select | Deed::Protect(_) | Deed::Write(_) | Deed::Change(_) if response.ok().is_some() => {
                self.go_on()
            }
            _ => self.cut(),
        }
    }

    /// Which code is presented, if any.
    fn choose(&mut self, response: &Response) -> FileStep<PrepareOutcome> {
        let Some(left) = sle4442::tries_left(response) else { return self.cut() };
        let deed = match (self.state, left) {
            (State::Ours, 2..) | (State::InDoubt, ALL_TRIES) => Deed::Ours,
            (State::InDoubt, 2) | (State::Delivered, ALL_TRIES) => Deed::Delivered,
            // Of a stranger's card nobody knows whose tries were spent.
            (State::Delivered, 2) if self.again => Deed::Delivered,
            _ => return FileStep::Done(PrepareOutcome::TooFewTries),
        };
        self.todo.push_front(deed);
        self.go_on()
    }

    fn code(&mut self, response: &Response, then: VecDeque<Deed>) -> FileStep<PrepareOutcome> {
        match sle4442::presented(response) {
            Presented::Right => {
                self.todo = then;
                self.go_on()
            }
            Presented::Wrong if !self.again && self.state == State::Delivered => {
                FileStep::Done(PrepareOutcome::NotBlank)
            }
            Presented::Wrong | Presented::Unheard => self.cut(),
        }
    }

    fn cut(&self) -> FileStep<PrepareOutcome> {
        FileStep::Done(if self.begun { PrepareOutcome::Unfinished } else { PrepareOutcome::NotWritten })
    }

    fn go_on(&mut self) -> FileStep<PrepareOutcome> {
        let Some(deed) = self.todo.pop_front() else { return FileStep::Done(PrepareOutcome::Prepared) };
        let command = match &deed {
            Deed::Select => sle4442::select(),
            Deed::Serial => sle4442::read(0, HEAD_BYTES),
            Deed::Empty(piece) | Deed::State(piece) | Deed::Check((piece, _)) => piece.read(),
            Deed::Tries => sle4442::error_counter(),
            Deed::Delivered => self.codes.delivered.clone(),
            Deed::Ours | Deed::Proof => self.codes.ours.clone(),
            Deed::Write(part) => write_of(part),
            Deed::Protect(serial) => sle4442::protect(SERIAL_AT, serial),
            Deed::Change(command) => command.clone(),
        };
        self.begun |= matches!(deed, Deed::Write(_));
        self.doing = deed;
        FileStep::Transmit(command)
    }
}

/// Written and read back.
fn written(part: Part) -> [Deed; 2] {
    [Deed::Write(part.clone()), Deed::Check(part)]
}

fn state_of(bytes: &[u8]) -> State {
    match bytes {
        [0x00, _] => State::Ours,
        bytes if bytes == IN_DOUBT => State::InDoubt,
        _ => State::Delivered,
    }
}

/// Ones, as the chip is delivered, or zeros.
fn is_empty(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0xFF) || bytes.iter().all(|byte| *byte == 0)
}
