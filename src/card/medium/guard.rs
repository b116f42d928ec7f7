//! What closes a Type 2 chip: the page that says from where on a key is needed (AUTH0), and the
//! key. What lives here: where both lie, and their commands. What does not: when they are written
//! (`format` at issue, `moving` for newer keys).

use super::place::{self, Piece};
use crate::card::apdu::Command;
use crate::card::keys::{CardRef, KeyError, KeyStore};
use crate::event::card::Technology;
use crate::protocols::cards::{PageLogin, PagePlaces};

/// MIRROR byte as delivered: no mirror, strong modulation (NTAG213/215/216 data sheet rev. 3.2 table 9).
const STRONG_MODULATION: u8 = 0x04;
/// PROT: the password is needed for reading, too (NTAG213/215/216 data sheet rev. 3.2 table 10).
const PROT: u8 = 0x80;
/// Ultralight C: the first closed page (MF0ICU2 data sheet rev. 3.5 §7.5.8).
const AUTH0_PAGE: u8 = 0x2A;
/// AUTH1, in the page behind it: reading needs the key as writing does.
const READING_TOO: u8 = 0x00;
/// One READ brings four pages.
const READ_BYTES: u8 = 16;

/// The guard of one chip.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    login: PageLogin,
    /// Where AUTH0 is.
    page: u8,
}

impl Guard {
    /// The chip's; `None`: it is not known where it has it.
    pub(super) fn of(technology: Technology, pages: &PagePlaces) -> Option<Self> {
        let page = match pages.login {
            PageLogin::Password => config_page(technology)?,
            PageLogin::TripleDes => AUTH0_PAGE,
        };
        Some(Self { login: pages.login, page })
    }

    /// The read that brings AUTH0, and whether it may be read at all.
    pub(super) fn piece(self) -> Piece {
        Piece { at: self.page, len: READ_BYTES }
    }

    /// Closes the chip from a page on.
    pub(super) fn from(self, page: u8) -> Command {
        match self.login {
            PageLogin::Password => place::update(self.page, &[STRONG_MODULATION, 0, 0, page]),
            PageLogin::TripleDes => place::update(self.page, &[page, 0, 0, 0]),
        }
    }

    /// What is closed, in the page behind: reading, too; and how often a wrong password is heard.
    pub(super) fn access(self, attempts: u8) -> Command {
        let access = match self.login {
            PageLogin::Password => PROT | attempts,
            PageLogin::TripleDes => READING_TOO,
        };
        place::update(self.page.saturating_add(1), &[access, 0, 0, 0])
    }

    /// Opens the whole chip.
    pub(super) fn nothing(self) -> Command {
        self.from(self.off())
    }

    /// AUTH0 that guards nothing: beyond the last page (NTAG213/215/216 data sheet rev. 3.2
    /// §8.5.7), or as delivered (MF0ICU2 data sheet rev. 3.5 §7.5.8).
    fn off(self) -> u8 {
        match self.login {
            PageLogin::Password => 0xFF,
            PageLogin::TripleDes => 0x30,
        }
    }

    /// The last page of the key: PACK, or the fourth of the triple DES key (data sheets as above,
    /// tables 5 to 7 and §7.5.7).
    fn end_of_key(self) -> u8 {
        match self.login {
            PageLogin::Password => self.page.saturating_add(3),
            PageLogin::TripleDes => 0x2F,
        }
    }

    /// Whether `read` says that nothing is guarded.
    pub(super) fn is_off(self, read: &[u8]) -> bool {
        self.auth0(read) == Some(self.off())
    }

    /// Whether `read` says that the key can be written without it: what guards it is closed.
    pub(super) fn spares_the_key(self, read: &[u8]) -> bool {
        self.auth0(read).is_some_and(|auth0| auth0 > self.end_of_key())
    }

    fn auth0(self, read: &[u8]) -> Option<u8> {
        let at = match self.login {
            PageLogin::Password => 3,
            PageLogin::TripleDes => 0,
        };
        read.get(at).copied().filter(|_| read.len() == usize::from(READ_BYTES))
    }

    /// The commands that write the key of this card.
    pub(super) fn key(self, card: CardRef<'_>, keys: &dyn KeyStore) -> Result<Vec<Command>, KeyError> {
        Ok(match self.login {
            PageLogin::Password => keys.tag_password(card, self.page.saturating_add(2))?.to_vec(),
            PageLogin::TripleDes => keys.ultralight_c_key(card)?.to_vec(),
        })
    }
}

/// The first of the four configuration pages: MIRROR and AUTH0, ACCESS, PWD, PACK
/// (NTAG213/215/216 data sheet rev. 3.2 tables 5 to 7; MF0ULx1 rev. 3.3 table 5, the MF0UL21).
fn config_page(technology: Technology) -> Option<u8> {
    match technology {
        Technology::Ntag213 => Some(0x29),
        Technology::Ntag215 => Some(0x83),
        Technology::Ntag216 => Some(0xE3),
        Technology::Ultralight => Some(0x25),
        _ => None,
    }
}
