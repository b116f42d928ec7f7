//! Which secure messaging a chip speaks, told by its own version, and login and session in it.
//! What does not live here: the cryptography (`crypto::ev1`, `crypto::ev2`), and when a
//! command goes out (`talk`).

use zeroize::Zeroizing;

use crate::card::crypto::aes128::Block;
use crate::card::crypto::ev2::{Forged, Protection};
use crate::card::crypto::{NotProven, ev1, ev2};
use crate::card::keys::{CardRef, Earlier, KeyError, KeyRole, KeyStore, transport};

/// GetVersion.
pub(super) const GET_VERSION: u8 = 0x60;
/// Hardware, software and production; later chips may add what they were made for (NTAG 424 DNA
/// data sheet rev. 3.0 §10.5.2).
const VERSION_BYTES: usize = 28;
/// Major version of the hardware: the first DESFire, which has no AES; EV1. Later ones: 12 EV2,
/// 33 EV3 (as listed by proxmark3, `hf mfdes info`).
const FIRST: u8 = 0x00;
const EV1: u8 = 0x01;

/// How a chip logs in and protects its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Messaging {
    /// AuthenticateAES (`AA`).
    Ev1,
    /// AuthenticateEV2First (`71`).
    Ev2,
}

/// What a DESFire says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chip {
    Speaks(Messaging),
    /// It has no AES.
    TooOld,
}

/// By the answer to GetVersion; `None`: it is none.
pub(super) fn chip(version: &[u8]) -> Option<Chip> {
    match version {
        _ if version.len() < VERSION_BYTES => None,
        [_, _, _, FIRST, ..] => Some(Chip::TooOld),
        [_, _, _, EV1, ..] => Some(Chip::Speaks(Messaging::Ev1)),
        _ => Some(Chip::Speaks(Messaging::Ev2)),
    }
}

/// A login about to begin.
#[derive(Debug)]
pub(super) enum Login {
    Ev1(ev1::Login),
    Ev2(ev2::Login),
}

/// A login whose challenge was answered.
#[derive(Debug)]
pub(super) enum Challenged {
    Ev1(ev1::Challenged),
    Ev2(ev2::Challenged),
}

/// A session.
#[derive(Debug)]
pub(super) enum Session {
    Ev1(ev1::Session),
    Ev2(ev2::Session),
}

impl Messaging {
    /// A login with the card's key `number`.
    pub(super) fn login(
        self,
        keys: &dyn KeyStore,
        card: CardRef<'_>,
        role: KeyRole,
        number: u8,
    ) -> Result<Login, KeyError> {
        Ok(match self {
            Self::Ev1 => Login::Ev1(keys.ev1_login(card, role, number)?),
            Self::Ev2 => Login::Ev2(keys.ev2_login(card, role, number)?),
        })
    }

    /// A login with key `number` as delivered.
    pub(super) fn delivered_login(self, number: u8) -> Result<Login, KeyError> {
        Ok(match self {
            Self::Ev1 => Login::Ev1(transport::ev1_login(number)?),
            Self::Ev2 => Login::Ev2(transport::ev2_login(number)?),
        })
    }
}

impl Login {
    pub(super) fn frame(&self) -> Vec<u8> {
        match self {
            Self::Ev1(login) => login.frame(),
            Self::Ev2(login) => login.frame(),
        }
    }

    pub(super) fn challenged(self, encrypted: &Block) -> (Challenged, Vec<u8>) {
        match self {
            Self::Ev1(login) => {
                let (challenged, frame) = login.challenged(encrypted);
                (Challenged::Ev1(challenged), frame)
            }
            Self::Ev2(login) => {
                let (challenged, frame) = login.challenged(encrypted);
                (Challenged::Ev2(challenged), frame)
            }
        }
    }
}

impl Challenged {
    pub(super) fn proven(self, encrypted: &[u8]) -> Result<Session, NotProven> {
        match self {
            Self::Ev1(challenged) => challenged.proven(encrypted).map(Session::Ev1),
            Self::Ev2(challenged) => challenged.proven(encrypted).map(Session::Ev2),
        }
    }
}

impl Session {
    pub(super) fn command(&mut self, protection: Protection, ins: u8, header: &[u8], data: &[u8]) -> Vec<u8> {
        match self {
            Self::Ev1(session) => session.command(protection, ins, header, data),
            Self::Ev2(session) => session.command(protection, ins, header, data),
        }
    }

    pub(super) fn answer(
        &mut self,
        protection: Protection,
        status: u8,
        body: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Forged> {
        match self {
            Self::Ev1(session) => session.answer(status, body),
            Self::Ev2(session) => session.answer(protection, status, body),
        }
    }

    /// The frame that changes key `number` from what it was to the card's own.
    pub(super) fn change_key(
        &mut self,
        keys: &dyn KeyStore,
        card: CardRef<'_>,
        role: KeyRole,
        number: u8,
        earlier: Earlier,
        own: bool,
    ) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Ev1(session) => keys.ev1_key(session, card, role, number, earlier, own),
            Self::Ev2(session) => keys.ev2_key(session, card, role, number, earlier, own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Option<Chip> {
        chip(&hex::decode(text.replace(' ', "")).unwrap())
    }

    #[test]
    fn a_chip_says_what_it_speaks() {
        let production = "04063F72633480 BA4519E320 4913";
        for (name, hardware, says) in [
            // As published: "DESFire EV1 Communication Examples" (Elmü 2016), GetCardVersion.
            ("EV1 8K", "04010101001A05 04010101041A05", Some(Chip::Speaks(Messaging::Ev1))),
            ("EV2", "04010112001605 04010102011605", Some(Chip::Speaks(Messaging::Ev2))),
            ("EV3", "04010133001A05 04010103001A05", Some(Chip::Speaks(Messaging::Ev2))),
            ("the first one", "04010100021805 04010100061805", Some(Chip::TooOld)),
            ("half of it", "04010101001A05", None),
        ] {
            assert_eq!(version(&format!("{hardware} {production}")), says, "{name}");
        }
        assert_eq!(version(""), None);
    }
}
