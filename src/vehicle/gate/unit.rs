//! Who is asked. What lives here: all units or one, and which addresses of units exist, however
//! data may name them. Units behind an address byte are in [`super::ExtendedAddress`], those that
//! answer elsewhere in [`super::PairedAddress`].

use super::{ExtendedAddress, PairedAddress};
use crate::vehicle::protocol::{EcuAddress, Protocol};

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Target {
    /// Every unit that has to do with emissions (7DF, 18DB33F1, or what the bus uses).
    #[default]
    Functional,
    /// One unit, by the arbitration ID its requests carry on CAN (`7E0`, `18DA10F1`), or by
    /// its node address on an older bus.
    Unit(u32),
    /// One unit whose answers carry another ID than those of [`Target::Unit`].
    Paired(PairedAddress),
    /// One unit behind an address byte in front of ISO-TP's own (ISO 15765-2 §10.3.4, extended
    /// addressing on 11 bits), as makers use it: see [`ExtendedAddress`].
    Extended(ExtendedAddress),
}

impl Target {
    /// The arbitration ID that requests carry, or the node address. `None`: everybody's.
    #[must_use]
    pub fn request_id(self) -> Option<u32> {
        match self {
            Self::Functional => None,
            Self::Unit(address) => Some(address),
            Self::Paired(pair) => Some(pair.request_id()),
            Self::Extended(address) => Some(address.request_id()),
        }
    }

    /// The unit asked on `request` that answers on `answer`, wherever that is. `None`: no unit of
    /// diagnosis.
    #[must_use]
    pub fn answering_on(request: u32, answer: u32) -> Option<Self> {
        let paired = PairedAddress::new(request, answer)?;
        let usual = UnitAddress::on_can(request).is_some_and(|unit| unit.answer_id() == answer);
        Some(if usual { Self::Unit(request) } else { Self::Paired(paired) })
    }
}

/// A unit that an ELM327 may be told to address. Only addresses of diagnosis exist: ISO 15765-4
/// (7E0–7E7; 18DAxxF1), the makers' own in 700–7FF and 14DAxxF1 that signal sets name, and the
/// physical header of ISO 14230-2. Answers (7E8–7EF) and the functional 7DF are nobody's request
/// address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnitAddress {
    place: Place,
    /// Where its answers come from, when not from where the standards have them.
    answers: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Can11(u16),
    Can29 { priority: u8, node: u8 },
    Kwp(u8),
}

/// First byte of 29-bit identifiers (ISO 15765-4 §10.3.3: priority 6, data page 0).
const PRIORITY: u8 = 0x18;
/// Priority 5 of the same page (OBDb: `pri` 14). The other bits of this byte name a page, on which
/// DAxxF1 may mean something else (SAE J1939-21 §5.2).
const MAKERS_PRIORITY: u8 = 0x14;

/// Whether an arbitration ID is one of those that makers give to units of their own, on which
/// nobody outside knows whether frames carry an address byte.
pub(super) const fn is_makers_own(address: u32) -> bool {
    matches!(address, 0x700..=0x7DE | 0x7F0..=0x7FF)
}

impl UnitAddress {
    /// The unit `address` of [`Target::Unit`] on this bus. `None`: no address of diagnosis there.
    #[must_use]
    pub fn on(protocol: Protocol, address: u32) -> Option<Self> {
        let [priority, format, node, tester] = address.to_be_bytes();
        let place = match (protocol, address) {
            (Protocol::Can11At500 | Protocol::Can11At250, 0x700..=0x7DE | 0x7E0..=0x7E7 | 0x7F0..=0x7F7) => {
                Place::Can11(u16::try_from(address).ok()?)
            }
            (Protocol::Can29At500 | Protocol::Can29At250, _)
                if matches!((priority, format, tester), (PRIORITY | MAKERS_PRIORITY, 0xDA, 0xF1)) =>
            {
                Place::Can29 { priority, node }
            }
            (Protocol::KwpSlow | Protocol::KwpFast, 0x01..=0xEF) => Place::Kwp(u8::try_from(address).ok()?),
            _ => return None,
        };
        Some(Self { place, answers: None })
    }

    /// The same on CAN, of whichever width `address` is.
    #[must_use]
    pub fn on_can(address: u32) -> Option<Self> {
        Self::on(if address <= 0x7FF { Protocol::Can11At500 } else { Protocol::Can29At500 }, address)
    }

    /// The one unit of `target` on this bus. `None`: everybody, one behind an address byte, or no
    /// address of diagnosis there.
    #[must_use]
    pub fn of(protocol: Protocol, target: Target) -> Option<Self> {
        match target {
            Target::Unit(address) => Self::on(protocol, address),
            Target::Paired(pair) => {
                Some(Self { answers: Some(pair.answer_id()), ..Self::on(protocol, pair.request_id())? })
            }
            Target::Functional | Target::Extended(_) => None,
        }
    }

    /// The arbitration ID of its answers, by ISO 15765-4 (8 above, or turned round) where no other
    /// was given; on an older bus its node address.
    #[must_use]
    pub fn answer_id(self) -> u32 {
        self.answers.unwrap_or(match self.place {
            Place::Can11(id) => usual_answer(id),
            Place::Can29 { priority, node } => u32::from_be_bytes([priority, 0xDA, 0xF1, node]),
            Place::Kwp(node) => node.into(),
        })
    }

    /// Who answers from there: the sender as lines show it.
    #[must_use]
    pub fn answers_as(self) -> EcuAddress {
        let id = self.answer_id();
        EcuAddress(match self.place {
            Place::Can11(_) => format!("{id:03X}"),
            Place::Can29 { .. } => format!("{id:08X}"),
            Place::Kwp(_) => format!("{id:02X}"),
        })
    }

    /// Whether an adapter knows by itself where the flow control for its answers goes.
    #[must_use]
    pub fn answers_as_usual(self) -> bool {
        self.answers.is_none() && !matches!(self.place, Place::Can29 { priority: MAKERS_PRIORITY, .. })
    }

    /// What follows `ATCP`.
    pub(super) fn priority(self) -> u8 {
        match self.place {
            Place::Can29 { priority, .. } => priority,
            Place::Can11(_) | Place::Kwp(_) => PRIORITY,
        }
    }

    /// What follows `ATFCSH`: the whole identifier.
    pub(super) fn flow_header(self) -> String {
        match self.place {
            Place::Can29 { priority, .. } => format!("{priority:02X}{}", self.header()),
            Place::Can11(_) | Place::Kwp(_) => self.header(),
        }
    }

    /// What follows `ATSH` (data sheet: the priority of 29 bits is set apart, by `ATCP`).
    pub(super) fn header(self) -> String {
        match self.place {
            Place::Can11(id) => format!("{id:03X}"),
            Place::Can29 { node, .. } => format!("DA{node:02X}F1"),
            // ISO 14230-2 §4.1: physical addressing; the chip puts the length in.
            Place::Kwp(node) => format!("80{node:02X}F1"),
        }
    }
}

/// Where 11-bit units answer that are asked on `request` (ISO 15765-4 §10.3.2 for 7E0 to 7E7; of
/// the makers' own many keep to it, and the others are given as pairs).
pub(super) const fn usual_answer(request: u16) -> u32 {
    request as u32 + 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vehicle::gate::AtCommand;

    #[test]
    fn only_addresses_of_diagnosis_exist() {
        use Protocol as P;
        for (protocol, address, header, answers) in [
            (P::Can11At500, 0x7E0, "ATSH7E0", "ATCRA7E8"),
            (P::Can11At250, 0x7E7, "ATSH7E7", "ATCRA7EF"),
            (P::Can11At500, 0x710, "ATSH710", "ATCRA718"),
            (P::Can29At500, 0x18DA_10F1, "ATSHDA10F1", "ATCRA18DAF110"),
            (P::Can29At500, 0x14DA_10F1, "ATSHDA10F1", "ATCRA14DAF110"),
            (P::KwpFast, 0x10, "ATSH8010F1", "ATCRA10"),
        ] {
            let unit = UnitAddress::on(protocol, address).unwrap();
            assert_eq!(AtCommand::Header(unit).text(), header);
            assert_eq!(AtCommand::ReceiveOnly(unit).text(), answers);
        }
        for (protocol, address) in [
            (P::Can11At500, 0x7DF),
            (P::Can11At500, 0x7E8),
            (P::Can11At500, 0x6FF),
            (P::Can11At500, 0x800),
            (P::Can11At500, 0x18DA_10F1),
            (P::Can29At500, 0x7E0),
            (P::Can29At500, 0x18DB_33F1),
            (P::Can29At500, 0x18DA_10F2),
            (P::Can29At500, 0x00DA_10F1),
            (P::Can29At500, 0x17DA_10F1),
            (P::Can29At500, 0x1CDA_10F1),
            (P::Can29At250, 0x0CF0_0400),
            (P::Iso9141, 0x10),
            (P::J1850Vpw, 0x10),
            (P::KwpSlow, 0xF1),
        ] {
            assert_eq!(UnitAddress::on(protocol, address), None, "{address:X}");
        }
    }

    #[test]
    fn answers_come_from_where_they_are_said_to() {
        use Protocol as P;
        for (protocol, request, answer, flow, listened) in [
            (P::Can11At500, 0x710, 0x77A, "ATFCSH710", "ATCRA77A"),
            (P::Can29At250, 0x14DA_17F1, 0x14DA_F155, "ATFCSH14DA17F1", "ATCRA14DAF155"),
        ] {
            let target = Target::answering_on(request, answer).unwrap();
            let unit = UnitAddress::of(protocol, target).unwrap();
            assert!(!unit.answers_as_usual());
            assert_eq!(AtCommand::ReceiveOnly(unit).text(), listened);
            assert_eq!(AtCommand::FlowHeader(unit).text(), flow);
        }
        for (request, answer) in [(0x7E0, 0x7E8), (0x750, 0x758), (0x18DA_10F1, 0x18DA_F110)] {
            assert_eq!(Target::answering_on(request, answer), Some(Target::Unit(request)), "{request:X}");
        }
    }
}
