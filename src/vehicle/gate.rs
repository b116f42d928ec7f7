//! The one gate every byte to a vehicle passes. What lives here: the only function that turns
//! requests and adapter commands into bytes. The driver's write takes [`Outgoing`] and nothing
//! else, so data (protocol files, requests over HTTP, arguments of the CLI) can select from what
//! exists as a type and never extend it: requests that read (`request`), units (`unit`),
//! commands of an adapter (`command`), groups on a J1939 bus ([`group`]).
//!
//! Not here: services that change a car (2E, 2F, 31 …). They have no type. Clearing codes (04, 14)
//! has one that only a used-up confirmation of a person makes: [`clear`]. What a bad line can make
//! of a request on its way is worked out in `fragile`. Whether a driver can address one unit, or
//! several PIDs at once, is the driver's business.

pub mod clear;
mod command;
mod extended;
mod fragile;
pub mod group;
mod paired;
mod request;
mod unit;

use clear::ClearBytes;
pub use command::AtCommand;
pub use extended::ExtendedAddress;
pub use paired::PairedAddress;
pub use request::{Refused, Request};
pub use unit::{Target, UnitAddress};

/// Everything that may be written to an ELM327.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outgoing {
    /// Two DELs and CR: answered `?` by an idle adapter, `STOPPED` by a busy
    /// one, and never a repetition of the last command as a lone CR would be.
    Probe,
    /// One DEL and no end of a line: stops what the adapter does, and gives it nothing to do.
    Interrupt,
    /// No command of any adapter, and no request: answered `?`. Makes a line that holds half a
    /// command useless, and takes the place of what a lone CR would repeat.
    Nonsense,
    /// An adapter command.
    At(AtCommand),
    /// A request to the car.
    Obd(Request),
    /// A request whose number of answer lines is known (1 to 15): the adapter
    /// need not wait for more.
    ObdCounted(Request, u8),
    /// Clears codes, as a person in the store confirmed.
    Clear(ClearBytes),
}

impl Outgoing {
    /// The bytes on the wire. The only place where bytes for a vehicle are made.
    #[must_use]
    pub fn wire(self) -> Vec<u8> {
        match self {
            Self::Probe => vec![0x7F, 0x7F, b'\r'],
            Self::Interrupt => vec![0x7F],
            Self::Nonsense => b"XXXXXXXX\r".to_vec(),
            Self::At(command) => format!("{}\r", command.text()).into_bytes(),
            Self::Obd(request) => format!("{request}\r").into_bytes(),
            Self::ObdCounted(request, lines) => format!("{request}{:X}\r", lines.clamp(1, 15)).into_bytes(),
            Self::Clear(bytes) => format!("{}\r", hex::encode_upper(bytes.payload())).into_bytes(),
        }
    }

    /// The command without CR, to recognise its echo.
    #[must_use]
    pub fn text(self) -> String {
        let wire = self.wire();
        String::from_utf8_lossy(wire.strip_suffix(b"\r").unwrap_or(&wire)).into_owned()
    }

    /// Whether a line that loses characters may make of it a request on which the car acts (a
    /// clearing, a reset, a session …): it is ended only after the adapter has echoed it exactly.
    #[must_use]
    pub fn is_fragile(self) -> bool {
        match self {
            Self::At(_) | Self::Obd(_) | Self::ObdCounted(..) => fragile::is_fragile(&self.text()),
            // No hex digit, or confirmed by a person.
            Self::Probe | Self::Interrupt | Self::Nonsense | Self::Clear(_) => false,
        }
    }

    /// The request to the car, if it is one.
    #[must_use]
    pub fn request(self) -> Option<Request> {
        match self {
            Self::Obd(request) | Self::ObdCounted(request, _) => Some(request),
            Self::Probe | Self::Interrupt | Self::Nonsense | Self::At(_) | Self::Clear(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_service_08_only_the_masks_can_be_asked_for() {
        for id in 0..=0xFF_u8 {
            for (request, length) in
                [(Request::control_support(id), 1), (Request::control_support_older_bus(id), 6)]
            {
                assert_eq!(
                    request.is_some(),
                    matches!(id, 0 | 0x20 | 0x40 | 0x60 | 0x80 | 0xA0 | 0xC0 | 0xE0)
                );
                let Some(request) = request else { continue };
                assert_eq!((request.service(), request.id()), (0x08, Some(id)));
                assert_eq!(request.parameters().len(), length);
                assert!(request.parameters()[1..].iter().all(|byte| *byte == 0));
                assert!(request.is_answered_by(&[0x48, id, 0, 0, 0, 1]));
            }
            // Text, whatever it says, never becomes a request of this service.
            for more in ["", "00", "0000000000"] {
                assert!(matches!(
                    Request::parse(&format!("08{id:02X}{more}")),
                    Err(Refused::Service { service: 8 })
                ));
            }
        }
        // Source of both forms: SAE J1699-3 test source, format of the service 08 support request.
        assert_eq!(Outgoing::Obd(Request::control_support(0x20).unwrap()).wire(), b"0820\r");
        let older = Request::control_support_older_bus(0).unwrap();
        assert_eq!(Outgoing::Obd(older).wire(), b"08000000000000\r");
    }

    #[test]
    fn wire_form() {
        for (outgoing, bytes) in [
            (Outgoing::Probe, "\x7f\x7f\r"),
            (Outgoing::Interrupt, "\x7f"),
            (Outgoing::Nonsense, "XXXXXXXX\r"),
            (Outgoing::At(AtCommand::Voltage), "ATRV\r"),
            (Outgoing::Obd(Request::freeze_frame(0x0C, 0)), "020C00\r"),
            (Outgoing::Obd(Request::freeze_frame_many(&[0x0C, 0x0D, 0x05], 1).unwrap()), "020C010D010501\r"),
            (Outgoing::Obd(Request::permanent_codes()), "0A\r"),
            (Outgoing::ObdCounted(Request::current(0x0C), 2), "010C2\r"),
        ] {
            assert_eq!(outgoing.wire(), bytes.as_bytes());
        }
    }
}
