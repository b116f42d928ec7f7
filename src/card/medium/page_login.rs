//! Opening the closed pages of a Type 2 chip through a reader that relays: a password in one
//! frame, or the mutual login of an Ultralight C in two. What does not live here: when it is
//! done (`read`, `write`, `preparing`), and the keys (`keys`).

use crate::card::apdu::{Command, Response};
use crate::card::crypto::ultralight_c;
use crate::card::keys::{CardRef, KeyError, KeyStore, TagLogin, transport};
use crate::card::verdict::Refusal;
use crate::protocols::cards::{self, PagePlaces};

/// InCommunicateThru (PN532 user manual §7.3.9): the frame behind it goes to the card as it is.
const RELAY: [u8; 2] = [0xD4, 0x42];
/// Its answer, before the status of the transmission and the card's own bytes.
const RELAYED: &[u8] = &[0xD5, 0x43];
/// The card wants one more frame (MF0ICU2 data sheet rev. 3.5 §7.5.5).
const MORE: u8 = 0xAF;

/// A login, at one of its frames.
#[derive(Debug, Clone)]
pub(super) enum PageLogin {
    Password(TagLogin),
    Begin(ultralight_c::Login),
    Prove(ultralight_c::Challenged, [u8; 17]),
}

/// What the answer to a frame means.
#[derive(Debug)]
pub(super) enum LoggedIn {
    Yes,
    /// Another frame follows.
    More(PageLogin),
    No(Refusal),
}

impl PageLogin {
    /// With our key of this card.
    pub(super) fn of(pages: &PagePlaces, card: CardRef<'_>, keys: &dyn KeyStore) -> Result<Self, KeyError> {
        Ok(match pages.login {
            cards::PageLogin::Password => Self::Password(keys.tag_login(card)?),
            cards::PageLogin::TripleDes => Self::Begin(keys.ultralight_c_login(card)?),
        })
    }

    /// With the key that an Ultralight C is delivered with.
    pub(super) fn delivered() -> Result<Self, KeyError> {
        Ok(Self::Begin(transport::ultralight_c_login()?))
    }

    /// The frame to send.
    pub(super) fn command(&self) -> Command {
        let relay = |frame: &[u8]| Command::direct_transmit(&[&RELAY, frame].concat());
        match self {
            Self::Password(login) => login.through_pn53x(),
            Self::Begin(_) => relay(&ultralight_c::BEGIN),
            Self::Prove(_, frame) => relay(frame),
        }
    }

    /// Goes on with the answer to it.
    pub(super) fn answer(&self, response: &Response) -> LoggedIn {
        let Some(relayed) = response.ok().and_then(|bytes| bytes.strip_prefix(RELAYED)) else {
            return LoggedIn::No(Refusal::ReaderCannotLogIn);
        };
        match (self, relayed) {
            (Self::Password(login), [0x00, pack @ ..]) if login.is_answered_by(pack) => LoggedIn::Yes,
            (Self::Begin(login), &[0x00, MORE, a, b, c, d, e, f, g, h]) => {
                let (challenged, frame) = login.clone().challenged(&[a, b, c, d, e, f, g, h]);
                LoggedIn::More(Self::Prove(challenged, frame))
            }
            (Self::Prove(challenged, _), &[0x00, 0x00, a, b, c, d, e, f, g, h])
                if challenged.clone().proven(&[a, b, c, d, e, f, g, h]).is_ok() =>
            {
                LoggedIn::Yes
            }
            // It went over the air, and the card refused it, did not prove itself, or was not there.
            _ => LoggedIn::No(Refusal::WrongKey),
        }
    }
}

#[cfg(test)]
#[path = "page_login_tests.rs"]
mod tests;
