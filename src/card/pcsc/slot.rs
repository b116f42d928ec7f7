//! The slot of a purchase SAM: a channel to the card that is always in it. A context of its
//! own, and no monitor: whether the SAM is there is seen by the reader of role `sam` (`bank`).
//! What does not live here: its thread (`sam_thread`).

use std::ffi::CString;
use std::fmt;

use pcsc::{Card, Context, Disposition, Protocols, Scope, ShareMode};
use wildmatch::WildMatch;

use super::sam_thread::{PATIENCE, SamThread};
use crate::card::apdu::{Command, MAX_RESPONSE_BYTES, Response};
use crate::card::keys::psam::{Channel, ChannelError, Psam};
use crate::card::keys::{KeyError, PurseKeys};

/// A card in a slot.
struct Slot(Card);

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot(…)")
    }
}

impl Channel for Slot {
    fn transmit(&mut self, command: &Command) -> Result<Response, ChannelError> {
        let mut buffer = [0; MAX_RESPONSE_BYTES];
        match self.0.transmit(&command.to_bytes(), &mut buffer) {
            Ok(bytes) => Response::parse(bytes).map_err(|_| ChannelError),
            Err(error) => {
                tracing::warn!(%error, "the SAM does not answer");
                // The next one who asks connects anew, and finds it reset.
                let _ = self.0.reconnect(ShareMode::Shared, Protocols::ANY, Disposition::ResetCard);
                Err(ChannelError)
            }
        }
    }
}

/// Opens the purchase SAM in the first slot named like `glob`: its purchase `application`. It is
/// asked across a thread of its own; the caller waits, 2.5 s at most.
///
/// # Errors
/// [`KeyError::Sam`] when there is none, or it is no such SAM, or it is silent.
pub fn open_sam(glob: &str, application: [u8; 2]) -> Result<Box<dyn PurseKeys>, KeyError> {
    let glob = glob.to_owned();
    let open = move || -> Result<Box<dyn PurseKeys>, KeyError> {
        let card = connect(&glob).map_err(|error| {
            tracing::warn!(%error, glob, "no SAM could be reached");
            KeyError::Sam { what: "its answer to reset", status: None }
        })?;
        Ok(Box::new(Psam::open(Slot(card), application)?))
    };
    Ok(Box::new(SamThread::start(open, PATIENCE)?))
}

fn connect(glob: &str) -> Result<Card, pcsc::Error> {
    let context = Context::establish(Scope::System)?;
    let pattern = WildMatch::new(glob);
    let names: Vec<CString> = context.list_readers_owned()?;
    let named = names.iter().find(|name| pattern.matches(&name.to_string_lossy()));
    context.connect(named.ok_or(pcsc::Error::UnknownReader)?, ShareMode::Shared, Protocols::ANY)
}
