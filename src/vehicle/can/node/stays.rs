//! A clearing that was sent and neither seen to leave nor taken back: it stays in the controller
//! until somebody on the bus acknowledges it, minutes later perhaps and in the next car. What lives
//! here: how long that is so, and noticing that it left after all. What does not: sending one
//! ([`super::clearing`]).
//!
//! The controller belongs to the interface, and outlives this node and the daemon: what is known
//! here is remembered with the adapter (`Capabilities::clearing_stays`), from before the sending on,
//! and comes back when the link is opened anew. It ends when the interface goes down or away, by a reboot, or when the
//! frame is heard. An slcan adapter is told to leave the bus whenever its link is opened, which
//! empties it.

use std::time::Duration;

use uuid::Uuid;

use super::Node;
use crate::clock::boot_id;
use crate::link::can::{CanSocket, Frame, Heard, InterfaceError, Pass};
use crate::vehicle::can::address::{self, Width};
use crate::vehicle::can::bus::Bus;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::Target;

/// How long it is told that one left late.
const TOLD_FOR: Duration = Duration::from_secs(600);

/// What is known of a clearing that was not taken back.
#[derive(Default)]
pub(super) struct Stays {
    /// It is still there, as far as is known; hears every frame that leaves to everybody.
    waiting: Option<Option<CanSocket>>,
    /// When it was seen to leave.
    left_at: Option<Duration>,
}

impl Node {
    /// In which boot a clearing stayed in the controller, to be remembered.
    #[must_use]
    pub fn clearing_stays(&self) -> Option<Uuid> {
        (self.is_clearing_there() && matches!(self.bus, Bus::Kernel(_))).then(boot_id)
    }

    /// What [`Self::clearing_stays`] says while one is on its way: to be remembered before it is
    /// sent, for nothing can be once this process was killed. None: the controller is emptied
    /// whenever the link is opened.
    #[must_use]
    pub fn clearing_would_stay(&self) -> Option<Uuid> {
        matches!(self.bus, Bus::Kernel(_)).then(boot_id)
    }

    /// What an earlier node of this interface knew.
    pub fn remember(&mut self, clearing_stays: Option<Uuid>) {
        // Every driver empties the controller when it begins.
        if matches!(self.bus, Bus::Kernel(_)) && clearing_stays == Some(boot_id()) {
            self.clearing_begins();
        }
    }

    /// The link ends with this error.
    pub fn ended_by(&mut self, error: &AdapterError) {
        if is_emptied_by(error) {
            self.stays.waiting = None;
        }
    }

    pub(super) fn is_clearing_there(&self) -> bool {
        self.stays.waiting.is_some()
    }

    /// It left, or was taken back.
    pub(super) fn clearing_is_over(&mut self) {
        self.stays.waiting = None;
    }

    /// A clearing may be in the controller from now on.
    pub(super) fn clearing_begins(&mut self) {
        let ear = match &self.bus {
            Bus::Kernel(socket) => ear(socket.interface())
                .inspect_err(
                    |error| tracing::error!(bus = self.name, %error, "whether it leaves is not seen"),
                )
                .ok(),
            Bus::Slcan(_) => None,
        };
        self.stays.waiting = Some(ear);
    }

    /// Looks whether it has left, or is gone.
    pub(super) fn look_for_clearing(&mut self) {
        let Some(Some(ear)) = &mut self.stays.waiting else { return };
        loop {
            match ear.heard() {
                Ok(Some(Heard::Frame(frame))) if clears(&frame) => {
                    tracing::error!(bus = self.name, "a clearing that nobody had acknowledged left now");
                    metrics::counter!("baygate_vehicle_clearings_late_total").increment(1);
                    self.stays = Stays { waiting: None, left_at: Some(self.begun.elapsed()) };
                    return;
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    if is_emptied_by(&error.into()) {
                        self.stays.waiting = None;
                    }
                    return;
                }
            }
        }
    }

    /// For `device.state`.
    pub(super) fn clearing_words(&self) -> Option<(&'static str, String)> {
        if self.is_clearing_there() {
            let words = format!(
                "{}: a clearing that nobody acknowledged may still be sent: connect no other car before the adapter was unplugged and plugged in again, or the interface taken down and up; baygate-can.socket does that by itself where it is enabled",
                self.name
            );
            return Some(("clear-pending", words));
        }
        let since = self.begun.elapsed().saturating_sub(self.stays.left_at?);
        let words = format!(
            "{}: a clearing that nobody had acknowledged was sent later: the car that was connected then has lost its codes; scan it again, and compare with its last report",
            self.name
        );
        (since < TOLD_FOR).then_some(("clear-left-late", words))
    }
}

/// Whether this error means that the controller was emptied: its interface went down or away.
pub(in crate::vehicle) fn is_emptied_by(error: &AdapterError) -> bool {
    matches!(error, AdapterError::Interface(InterfaceError::Down { .. } | InterfaceError::Missing { .. }))
}

/// A socket of its own hears what the other sockets of this box send, once it has left.
fn ear(interface: &str) -> Result<CanSocket, InterfaceError> {
    let socket = CanSocket::open(interface)?;
    let everybody = [Width::Eleven, Width::TwentyNine]
        .map(|width| Pass { id: address::request_id(width, Target::Functional), mask: 0x1FFF_FFFF });
    socket
        .pass(&everybody)
        .map_err(|error| InterfaceError::Other { name: interface.to_owned(), what: error.to_string() })?;
    Ok(socket)
}

/// A single frame of service 04 or 14, whoever sent it: on a bus where one leaves, ours has left.
fn clears(frame: &Frame) -> bool {
    matches!(frame.data(), [0x01, 0x04, ..] | [0x04, 0x14, ..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::can::Id;

    #[test]
    fn only_a_clearing_is_one() {
        for (data, expected) in [
            (&[0x01, 0x04, 0, 0, 0, 0, 0, 0][..], true),
            (&[0x04, 0x14, 0xFF, 0xFF, 0xFF, 0, 0, 0], true),
            (&[0x02, 0x01, 0x04, 0, 0, 0, 0, 0], false),
            (&[0x01, 0x03, 0, 0, 0, 0, 0, 0], false),
            (&[], false),
        ] {
            assert_eq!(
                clears(&Frame::new(Id::standard(0x7DF), data, false).unwrap()),
                expected,
                "{data:02X?}"
            );
        }
    }

    #[test]
    fn the_controller_is_emptied_when_its_interface_goes() {
        let name = || "can0".to_owned();
        for (error, emptied) in [
            (InterfaceError::Down { name: name() }, true),
            (InterfaceError::Missing { name: name() }, true),
            (InterfaceError::NoCan, false),
            (InterfaceError::Other { name: name(), what: "EIO".into() }, false),
        ] {
            assert_eq!(is_emptied_by(&error.clone().into()), emptied, "{error}");
        }
        assert!(!is_emptied_by(&AdapterError::BusOff(name())));
    }
}
