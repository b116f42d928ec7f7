//! Moving a card to newer keys, one place at a time: a state machine without I/O. Between two
//! places the journal is written (`counter::rekey`); a place that was begun can always be begun
//! again, and no key is tried that the card might count as wrong. What does not live here: the
//! journal, and the record under its new seal, which is a write like any other (`write`).
//!
//! ```text
//!  tag      place 0: header cleared · AUTH0 open, read back     the card is open, its key is the old one
//!           place 1: its key · log in · AUTH0 · header           closed means: it has the new one
//!  Classic  a sector each, the last first: log in · trailer; with sector 0 the header
//!  files    place 0: all keys, each of which says its version (`desfire`)
//! ```
//! A tag is opened before its key changes (password and PACK, or an Ultralight C's triple DES
//! key) because a key of which nobody knows whether it was written would have to be guessed, and
//! a torn one would lock the chip for ever. While it is open it says `unformatted` and no gateway
//! logs in to it; its slots are sealed as ever.

use std::collections::VecDeque;
use std::sync::Arc;

use super::desfire::{FileMoving, FileStep};
use super::format::{FormatError, access_of, with_public_key_a};
use super::guard::Guard;
use super::page_login::{LoggedIn, PageLogin};
use super::place::{self, Piece};
use crate::card::apdu::{Command, Response};
use crate::card::keys::rekey::{Move, Opens};
use crate::card::keys::{CardRef, KeyRole, KeyStore, KeyVersion};
use crate::card::probe::Answer;
use crate::card::record::{HEADER_BYTES, Header};
use crate::event::card::Technology;
use crate::ident::{CardUid, StoreId};
use crate::protocols::cards::{self, BlockPlaces, CardLayout, PAGE_BYTES, PagePlaces, Places};

/// What to do next.
#[derive(Debug)]
pub enum MoveStep {
    /// Send this and feed the answer.
    Transmit(Command, Box<Moving>),
    /// Power the card anew, then feed [`Answer::Reset`].
    Reset(Box<Moving>),
    /// The end.
    Done(MoveOutcome),
}

/// What came of one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveOutcome {
    /// It is done.
    Moved,
    /// It may be done in part, or not at all: begin it again.
    Cut,
    /// The card is there and takes none of the keys that it can have.
    Refused,
}

/// Places of a card that is moved; `None`: cards of this kind are not.
#[must_use]
pub fn places(technology: Technology, layout: &CardLayout) -> Option<u8> {
    match &layout.places {
        Places::Pages(pages) => Guard::of(technology, pages).map(|_| 2),
        Places::Blocks(blocks) => u8::try_from(sectors(blocks).len()).ok(),
        Places::Files(_) => Some(1),
        // Its keys are its maker's to change.
        Places::Purse(_) => None,
        // A code that may be torn is not changed on a card that has money on it.
        Places::Contact(_) => None,
    }
}

/// Which card, and whose.
#[derive(Debug, Clone)]
pub struct Card<'a> {
    /// Its chip.
    pub uid: &'a CardUid,
    /// Technology as probed.
    pub technology: Technology,
    /// Who issued it.
    pub store: &'a StoreId,
}

/// One place of a card under way.
#[derive(Debug)]
pub struct Moving {
    uid: CardUid,
    doing: Deed,
    todo: VecDeque<Deed>,
    /// Where a tag turns out to be open, and where closed.
    open: VecDeque<Deed>,
    closed: VecDeque<Deed>,
    /// Of a card of files.
    files: Option<Box<FileMoving>>,
}

#[derive(Debug)]
enum Deed {
    Reset,
    SameUid,
    /// Is the tag open? Asked twice before it counts as closed: once may be chance.
    Probe {
        guard: Guard,
        again: bool,
    },
    /// Anything that can be read shows that the card is there.
    There(Piece),
    Open(PageLogin),
    Load(Command),
    /// Logs in to a sector; where that fails, with the other key (load, log in).
    LogIn(Command, Option<[Command; 2]>),
    Write(Command),
    /// AUTH0 must say that nothing is guarded.
    IsOpen(Guard),
    /// A command of the conversation with a card of files.
    Files(Command),
    /// A login failed: the same card must still be there.
    Refused,
}

impl Moving {
    /// Begins place `torn.done`. `fresh`: it was never begun, so that the old keys stand there.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn start(
        card: &Card<'_>,
        layout: &CardLayout,
        keys: &Arc<dyn KeyStore>,
        torn: Move,
        fresh: bool,
    ) -> Result<MoveStep, FormatError> {
        let uid = card.uid.clone();
        let todo = VecDeque::from([Deed::Reset, Deed::SameUid]);
        let (open, closed) = (VecDeque::new(), VecDeque::new());
        let mut moving = Self { uid, doing: Deed::Reset, todo, open, closed, files: None };
        match &layout.places {
            Places::Pages(pages) => moving.pages(card, layout, pages, &**keys, torn)?,
            Places::Blocks(blocks) => moving.blocks(card, layout, blocks, &**keys, torn, fresh)?,
            Places::Files(files) => {
                let (work, first) = FileMoving::start(card.uid, card.store, layout, files, keys, torn)?;
                moving.files = Some(Box::new(work));
                moving.todo.push_back(Deed::Files(first));
            }
            Places::Contact(_) | Places::Purse(_) => {
                return Err(FormatError::Technology(card.technology));
            }
        }
        Ok(moving.go_on())
    }

    fn pages(
        &mut self,
        card: &Card<'_>,
        layout: &CardLayout,
        pages: &PagePlaces,
        keys: &dyn KeyStore,
        torn: Move,
    ) -> Result<(), FormatError> {
        let guard = Guard::of(card.technology, pages).ok_or(FormatError::Technology(card.technology))?;
        let log_in = |version| PageLogin::of(pages, of(card, version), keys).map(Deed::Open);
        if torn.done == 0 {
            let clear = || Deed::Write(place::update(pages.header, &[0; PAGE_BYTES]));
            let open = || [clear(), Deed::Write(guard.nothing()), Deed::IsOpen(guard)];
            self.open.extend(open());
            self.closed.push_back(log_in(torn.from)?);
            self.closed.extend(open());
        } else {
            self.open.extend(guard.key(of(card, torn.to), keys)?.into_iter().map(Deed::Write));
            if pages.login == cards::PageLogin::TripleDes {
                // Whether such a chip takes its new key over at once or at its next power-up.
                self.open.extend([Deed::Reset, Deed::SameUid]);
            }
            for deeds in [&mut self.open, &mut self.closed] {
                // The proof that it took the key, before it is closed for good.
                deeds.extend([log_in(torn.to)?, Deed::Write(guard.from(pages.protect_from))]);
                let header = header(card, layout, keys, torn.to)?;
                let header: Vec<_> = header.chunks(PAGE_BYTES).zip(0..).collect();
                deeds.extend(
                    header
                        .into_iter()
                        .rev()
                        .map(|(data, n)| Deed::Write(place::update(pages.header.saturating_add(n), data))),
                );
            }
        }
        self.todo.push_back(Deed::There(place::header(&layout.places)));
        self.todo.push_back(Deed::Probe { guard, again: false });
        Ok(())
    }

    fn blocks(
        &mut self,
        card: &Card<'_>,
        layout: &CardLayout,
        blocks: &BlockPlaces,
        keys: &dyn KeyStore,
        torn: Move,
        fresh: bool,
    ) -> Result<(), FormatError> {
        let wrong = || FormatError::Layout(layout.id.clone());
        let sector = sectors(blocks).get(usize::from(torn.done)).copied().ok_or_else(wrong)?;
        let first = sector.saturating_mul(4);
        let login = |version| keys.classic_login(of(card, version), KeyRole::Credit, first);
        let opens = if fresh { Opens::With(torn.from) } else { torn.opens(torn.done) };
        let (asked, other) = match opens {
            Opens::With(version) => (login(version)?, None),
            // A Classic counts no failures.
            Opens::Either { new, old } => {
                let old = login(old)?;
                (login(new)?, Some([old.load, old.authenticate]))
            }
        };
        self.todo.extend([Deed::Load(asked.load), Deed::LogIn(asked.authenticate, other)]);
        let trailer = keys.classic_trailer(of(card, torn.to), sector, access_of(layout, blocks)?)?;
        if sector == place::sector(blocks.header) {
            let header = header(card, layout, keys, torn.to)?;
            self.todo.push_back(Deed::Write(with_public_key_a(&trailer)));
            self.todo.push_back(Deed::Write(place::update(blocks.header, &header)));
        } else {
            self.todo.push_back(Deed::Write(trailer));
        }
        Ok(())
    }

    /// Goes on with what came of the last step.
    #[must_use]
    pub fn answer(mut self, answer: &Answer) -> MoveStep {
        let response: &Response = match (&self.doing, answer) {
            (Deed::Reset, Answer::Reset) => return self.go_on(),
            (Deed::Reset, _) | (_, Answer::Reset | Answer::NotTransmitted) => return CUT,
            (Deed::Files(_), Answer::Response(_)) => return self.files_answer(answer),
            (_, Answer::Response(response)) => response,
        };
        let told = response.ok();
        match std::mem::replace(&mut self.doing, Deed::Reset) {
            Deed::SameUid | Deed::Refused
                if told.and_then(|bytes| CardUid::from_bytes(bytes).ok()).as_ref() != Some(&self.uid) =>
            {
                CUT
            }
            Deed::Refused => MoveStep::Done(MoveOutcome::Refused),
            Deed::Open(login) => match login.answer(response) {
                LoggedIn::Yes => self.go_on(),
                LoggedIn::More(login) => {
                    self.todo.push_front(Deed::Open(login));
                    self.go_on()
                }
                LoggedIn::No(_) => self.still_there(),
            },
            Deed::LogIn(_, Some([load, log_in])) if told.is_none() => {
                // A failed login halts the card.
                self.first([Deed::Reset, Deed::SameUid, Deed::Load(load), Deed::LogIn(log_in, None)]);
                self.go_on()
            }
            Deed::LogIn(_, None) if told.is_none() => self.still_there(),
            Deed::Probe { guard, again } => self.probed(guard, again, told),
            Deed::IsOpen(guard) if !told.is_some_and(|bytes| guard.is_off(bytes)) => CUT,
            _ if told.is_none() => CUT,
            _ => self.go_on(),
        }
    }

    fn probed(mut self, guard: Guard, again: bool, told: Option<&[u8]>) -> MoveStep {
        if told.is_some_and(|bytes| guard.spares_the_key(bytes)) {
            self.todo = std::mem::take(&mut self.open);
        } else if again {
            self.todo = std::mem::take(&mut self.closed);
            self.first([Deed::Reset, Deed::SameUid]);
        } else {
            // A refused READ puts the chip to sleep.
            self.todo.push_back(Deed::Probe { guard, again: true });
            self.first([Deed::Reset, Deed::SameUid]);
        }
        self.go_on()
    }

    fn files_answer(mut self, answer: &Answer) -> MoveStep {
        match self.files.as_mut().map(|files| files.answer(answer)) {
            Some(FileStep::Transmit(command)) => {
                self.todo.push_back(Deed::Files(command));
                self.go_on()
            }
            Some(FileStep::Done(MoveOutcome::Refused)) => self.still_there(),
            Some(FileStep::Done(outcome)) => MoveStep::Done(outcome),
            None => CUT,
        }
    }

    fn still_there(mut self) -> MoveStep {
        self.todo = VecDeque::from([Deed::Reset, Deed::Refused]);
        self.go_on()
    }

    fn first<const N: usize>(&mut self, deeds: [Deed; N]) {
        deeds.into_iter().rev().for_each(|deed| self.todo.push_front(deed));
    }

    fn go_on(mut self) -> MoveStep {
        let Some(deed) = self.todo.pop_front() else { return MoveStep::Done(MoveOutcome::Moved) };
        let command = match &deed {
            Deed::Reset => {
                self.doing = deed;
                return MoveStep::Reset(Box::new(self));
            }
            Deed::SameUid | Deed::Refused => Command::get_uid(),
            Deed::Probe { guard, .. } | Deed::IsOpen(guard) => guard.piece().read(),
            Deed::There(piece) => piece.read(),
            Deed::Open(login) => login.command(),
            Deed::Load(command) | Deed::LogIn(command, _) | Deed::Write(command) | Deed::Files(command) => {
                command.clone()
            }
        };
        self.doing = deed;
        MoveStep::Transmit(command, Box::new(self))
    }
}

const CUT: MoveStep = MoveStep::Done(MoveOutcome::Cut);

fn of<'a>(card: &Card<'a>, version: KeyVersion) -> CardRef<'a> {
    CardRef { uid: card.uid, store: card.store, version }
}

fn header(
    card: &Card<'_>,
    layout: &CardLayout,
    keys: &dyn KeyStore,
    version: KeyVersion,
) -> Result<[u8; HEADER_BYTES], FormatError> {
    let header = Header { layout: layout.layout, key_version: version, store: card.store.clone() };
    Ok(header.encode(card.uid, keys)?)
}

/// The sectors of a layout, the last first: the header's comes last, as the card's own word.
fn sectors(blocks: &BlockPlaces) -> Vec<u8> {
    let all = blocks.slots.iter().flatten().copied().chain([blocks.header]);
    let mut sectors: Vec<u8> = all.map(place::sector).collect();
    sectors.sort_unstable_by(|a, b| b.cmp(a));
    sectors.dedup();
    sectors
}
