//! A login or session of whichever kind the chip has: DESFire EV1's own (`ev1`), or that of
//! EV2 and NTAG 424 (`ev2`).

use super::ev1;
use super::ev2::{self, Block, Mode};

/// A login that waits for the terminal's proof.
#[derive(Debug, Clone)]
pub(super) enum Login {
    Ev1(ev1::Login),
    Ev2(ev2::Login),
}

/// A session as the card has it.
#[derive(Debug, Clone)]
pub(super) enum Channel {
    Ev1(ev1::Channel),
    Ev2(ev2::Channel),
}

impl Login {
    pub(super) fn ev1(number: u8, key: Block, nonce: Block) -> Self {
        Self::Ev1(ev1::Login::begin(number, key, nonce))
    }

    /// The first login gives the session `name`; a later one keeps that of `within`.
    pub(super) fn ev2(number: u8, key: Block, nonce: Block, name: [u8; 4], within: Option<&Channel>) -> Self {
        let within = within.and_then(|channel| match channel {
            Channel::Ev1(_) => None,
            Channel::Ev2(channel) => Some(channel),
        });
        Self::Ev2(ev2::Login::begin(number, key, nonce, name, within))
    }

    pub(super) fn challenge(&self) -> Vec<u8> {
        match self {
            Self::Ev1(login) => login.challenge(),
            Self::Ev2(login) => login.challenge(),
        }
    }

    /// Takes E(RndA ‖ RndB') and gives the session and the card's answer.
    pub(super) fn finish(self, proof: &[u8]) -> Option<(Channel, Vec<u8>)> {
        match self {
            Self::Ev1(login) => login.finish(proof).map(|(channel, answer)| (Channel::Ev1(channel), answer)),
            Self::Ev2(login) => login.finish(proof).map(|(channel, answer)| (Channel::Ev2(channel), answer)),
        }
    }
}

impl Channel {
    /// Which key opened it.
    pub(super) fn number(&self) -> u8 {
        match self {
            Self::Ev1(channel) => channel.number(),
            Self::Ev2(channel) => channel.number(),
        }
    }

    /// Header and clear data of a command; `None` where its MAC or form is wrong.
    pub(super) fn open(&mut self, mode: Mode, ins: u8, body: &[u8], header: usize) -> Option<Vec<u8>> {
        match self {
            Self::Ev1(channel) => channel.open(mode, ins, body, header),
            Self::Ev2(channel) => channel.open(mode, ins, body, header),
        }
    }

    /// A command that is not for the contents of a file: an EV1 wants no MAC of it.
    pub(super) fn open_managed(&mut self, ins: u8, body: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Ev1(channel) => channel.open(Mode::Plain, ins, body, 0),
            Self::Ev2(channel) => channel.open(Mode::Mac, ins, body, 0),
        }
    }

    /// The answer with status 00, and the command is counted.
    pub(super) fn seal(&mut self, mode: Mode, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Ev1(channel) => channel.seal(mode, data),
            Self::Ev2(channel) => channel.seal(mode, data),
        }
    }

    /// How long a command's body is, data of `clear` bytes behind a header of `header`.
    pub(super) fn sealed_length(&self, mode: Mode, header: usize, clear: usize) -> usize {
        match self {
            Self::Ev1(_) => ev1::sealed_length(mode, header, clear),
            Self::Ev2(_) => ev2::sealed_length(mode, header, clear),
        }
    }

    /// The MAC that an EV2 wants of a command.
    #[cfg(test)]
    pub(super) fn mac_of(&self, first: u8, rest: &[u8]) -> Vec<u8> {
        match self {
            Self::Ev1(_) => Vec::new(),
            Self::Ev2(channel) => channel.mac_of(first, rest),
        }
    }
}
