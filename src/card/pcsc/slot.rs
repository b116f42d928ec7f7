//! The slot of a purchase SAM: a channel to the card that is always in it. A context of its
//! own, and no monitor: whether the SAM is there is seen by the reader of role `sam` (`bank`).
//! What does not live here: its thread (`sam_thread`).

use std::ffi::CString;
use std::fmt;
use std::time::Duration;

use pcsc::{Card, Context, Disposition, Protocols, ReaderState, Scope, ShareMode, State};

use super::sam_slot::{self, Tables};
use super::sam_thread::{PATIENCE, SamThread};
use crate::card::apdu::{Command, MAX_RESPONSE_BYTES, Response};
use crate::card::keys::psam::{Channel, ChannelError, Psam};
use crate::card::keys::{KeyError, PurseKeys};
use crate::config::tables::ReaderGlobs;

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

/// Opens the purchase SAM in a slot named like `glob`, one of those that `globs` leave to a SAM: its
/// purchase `application`. Of several slots the first whose card can be a SAM and opens as this one. It is asked across a thread of its own;
/// the caller waits, 2.5 s at most.
///
/// # Errors
/// [`KeyError::Sam`] when there is none, or it is no such SAM, or it is silent.
pub fn open_sam(
    glob: &str,
    globs: &ReaderGlobs,
    application: [u8; 2],
) -> Result<Box<dyn PurseKeys>, KeyError> {
    let (glob, tables) = (glob.to_owned(), Tables::new(globs));
    let open = move || -> Result<Box<dyn PurseKeys>, KeyError> {
        let silent = |error| {
            tracing::warn!(%error, glob, "no SAM could be reached");
            KeyError::Sam { what: "its answer to reset", status: None }
        };
        let context = Context::establish(Scope::System).map_err(silent)?;
        let mut failed = None;
        for name in candidates(&context, &glob, &tables).map_err(silent)? {
            let card = context.connect(&name, ShareMode::Shared, Protocols::ANY).map_err(silent);
            match card.and_then(|card| Psam::open(Slot(card), application)) {
                Ok(sam) => {
                    tracing::info!(slot = %name.to_string_lossy(), "SAM opened");
                    return Ok(Box::new(sam));
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| silent(pcsc::Error::UnknownReader)))
    };
    Ok(Box::new(SamThread::start(open, PATIENCE)?))
}

/// The slots that the SAM can be in.
fn candidates(context: &Context, glob: &str, tables: &Tables) -> Result<Vec<CString>, pcsc::Error> {
    let names = context.list_readers_owned()?;
    let mut states: Vec<_> = names.into_iter().map(|name| ReaderState::new(name, State::UNAWARE)).collect();
    context.get_status_change(Duration::ZERO, &mut states)?;
    let text = |state: &ReaderState| state.name().to_string_lossy().into_owned();
    let is_there = |state: &ReaderState| state.event_state().contains(State::PRESENT);
    let all: Vec<String> = states.iter().map(text).collect();
    let meant = tables.meant(glob, all.iter().map(String::as_str));
    let can_be = |state: &&ReaderState| {
        let name = text(state);
        is_there(state) && meant.contains(&name.as_str()) && sam_slot::can_be_sam(&name, state.atr())
    };
    Ok(states.iter().filter(can_be).map(|state| state.name().to_owned()).collect())
}
