//! A purchase SAM (PSAM) in a card slot: it holds purchase keys, counts its own
//! transactions and gives neither up. What lives here: its commands and answers
//! (JR/T 0025 part on terminals; FMCOS PSAM manual). What does not: the reader it
//! sits in, which is only a [`Channel`] here.
//!
//! ```text
//!  8070 0000 1C random 4 ‖ sequence 2 ‖ amount 4 ‖ type ‖ date 4 ‖ time 3 ‖ version ‖ algorithm ‖ serial 8
//!       ─► terminal sequence 4 ‖ MAC1 4
//!  8072 0000 04 MAC2  ─► 9000 the card gave up the amount, 9302 it did not
//! ```

use std::fmt;

use super::KeyError;
use super::purse::{Approval, Purchase, PurseKeys};
use crate::card::apdu::{Command, Response, StatusWord};
use crate::card::crypto::pboc::PURCHASE_PURSE;

/// A wrong MAC2 (JR/T 0025, status words).
const MAC_WRONG: StatusWord = StatusWord(0x9302);

/// The way to a card in a slot. One at a time, in order.
pub trait Channel: fmt::Debug + Send {
    /// Sends a command and waits for the answer.
    ///
    /// # Errors
    /// [`ChannelError`].
    fn transmit(&mut self, command: &Command) -> Result<Response, ChannelError>;
}

/// The slot did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the slot does not answer")]
pub struct ChannelError;

/// A PSAM ready for purchases.
#[derive(Debug)]
pub struct Psam<C> {
    channel: C,
    terminal: [u8; 6],
    /// Terminal sequence of the purchase that waits for the card's answer. The SAM itself
    /// knows only its last one.
    open: Option<u32>,
    /// Nothing was put to it since it was opened.
    is_fresh: bool,
}

impl<C: Channel> Psam<C> {
    /// Reads the terminal number (file 0016) and selects the purchase `application`
    /// (a file identifier that the issuer of the SAM names).
    ///
    /// # Errors
    /// [`KeyError::Sam`] when it is not there, or no PSAM.
    pub fn open(mut channel: C, application: [u8; 2]) -> Result<Self, KeyError> {
        let number =
            ask(&mut channel, &Command::new([0x00, 0xB0, 0x96, 0x00]).expecting(6), "its terminal number")?;
        let terminal = number
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(KeyError::Sam { what: "its terminal number", status: Some(number.status.0) })?;
        let select = Command::new([0x00, 0xA4, 0x00, 0x00]).with_data(&application);
        let selected = ask(&mut channel, &select, "its purchase application")?;
        selected
            .ok()
            .ok_or(KeyError::Sam { what: "its purchase application", status: Some(selected.status.0) })?;
        Ok(Self { channel, terminal, open: None, is_fresh: true })
    }
}

/// The command that asks for an approval.
fn approve_command(purchase: &Purchase<'_>) -> Command {
    let Purchase { serial, opening, amount, moment, .. } = purchase;
    let data: Vec<u8> = opening
        .random
        .into_iter()
        .chain(opening.offline_sequence.to_be_bytes())
        .chain(amount.to_be_bytes())
        .chain([PURCHASE_PURSE])
        .chain(moment.date)
        .chain(moment.time)
        .chain([opening.key_version.0, opening.algorithm])
        .chain(*serial)
        .collect();
    Command::new([0x80, 0x70, 0x00, 0x00]).with_data(&data).expecting(8)
}

/// Sends, and fetches what a slot under T=0 only announces (61xx: GET RESPONSE).
fn ask(channel: &mut impl Channel, command: &Command, what: &'static str) -> Result<Response, KeyError> {
    let lost = |_: ChannelError| KeyError::Sam { what, status: None };
    let answer = channel.transmit(command).map_err(lost)?;
    if answer.status.sw1() != 0x61 {
        return Ok(answer);
    }
    channel.transmit(&Command::new([0x00, 0xC0, 0x00, 0x00]).expecting(answer.status.sw2())).map_err(lost)
}

impl<C: Channel> PurseKeys for Psam<C> {
    fn terminal(&self) -> [u8; 6] {
        self.terminal
    }

    fn approve(&mut self, purchase: &Purchase<'_>) -> Result<Approval, KeyError> {
        let what = "its approval";
        (self.open, self.is_fresh) = (None, false);
        let answer = ask(&mut self.channel, &approve_command(purchase), what)?;
        match answer.ok() {
            Some(&[s0, s1, s2, s3, m0, m1, m2, m3]) => {
                let terminal_sequence = u32::from_be_bytes([s0, s1, s2, s3]);
                self.open = Some(terminal_sequence);
                Ok(Approval { terminal_sequence, mac1: [m0, m1, m2, m3], session: None })
            }
            // The SAM has no key of this version: the same error as of a credential would mislead.
            _ => Err(KeyError::Sam { what, status: Some(answer.status.0) }),
        }
    }

    fn resume(&mut self, approval: &Approval) {
        if std::mem::take(&mut self.is_fresh) {
            self.open = Some(approval.terminal_sequence);
        }
    }

    fn confirm(&mut self, approval: &Approval, mac2: &[u8; 4]) -> Result<bool, KeyError> {
        let what = "its confirmation";
        // It would hold the answer against another purchase.
        if self.open.take_if(|open| *open == approval.terminal_sequence).is_none() {
            return Err(KeyError::Superseded);
        }
        let command = Command::new([0x80, 0x72, 0x00, 0x00]).with_data(mac2);
        let answer = ask(&mut self.channel, &command, what)?;
        match answer.status {
            StatusWord::OK => Ok(true),
            MAC_WRONG => Ok(false),
            StatusWord(status) => Err(KeyError::Sam { what, status: Some(status) }),
        }
    }
}

#[cfg(test)]
#[path = "psam_tests.rs"]
mod tests;
