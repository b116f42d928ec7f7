//! Who is asked. What lives here: all units or one, and which addresses of units exist, however
//! data may name them. Units behind an address byte are in [`super::ExtendedAddress`].

use super::ExtendedAddress;
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
    /// One unit behind an address byte in front of ISO-TP's own (ISO 15765-2 §10.3.4, extended
    /// addressing on 11 bits), as makers use it: see [`ExtendedAddress`].
    Extended(ExtendedAddress),
}

/// A unit that an ELM327 may be told to address. Only addresses of diagnosis exist: ISO 15765-4
/// (7E0–7E7; 18DAxxF1), the makers' own in 700–7FF that signal sets name, and the physical
/// header of ISO 14230-2. Answers (7E8–7EF) and the functional 7DF are nobody's request address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnitAddress(Place);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Can11(u16),
    Can29(u8),
    Kwp(u8),
}

/// Whether an arbitration ID is one of those that makers give to units of their own, on which
/// nobody outside knows whether frames carry an address byte.
pub(super) const fn is_makers_own(address: u32) -> bool {
    matches!(address, 0x700..=0x7DE | 0x7F0..=0x7FF)
}

impl UnitAddress {
    /// The unit `address` of [`Target::Unit`] on this bus. `None`: no address of diagnosis there.
    #[must_use]
    pub fn on(protocol: Protocol, address: u32) -> Option<Self> {
        let [_, _, node, _] = address.to_be_bytes();
        Some(Self(match (protocol, address) {
            (Protocol::Can11At500 | Protocol::Can11At250, 0x700..=0x7DE | 0x7E0..=0x7E7 | 0x7F0..=0x7F7) => {
                Place::Can11(u16::try_from(address).ok()?)
            }
            (Protocol::Can29At500 | Protocol::Can29At250, _) if address & 0xFFFF_00FF == 0x18DA_00F1 => {
                Place::Can29(node)
            }
            (Protocol::KwpSlow | Protocol::KwpFast, 0x01..=0xEF) => Place::Kwp(u8::try_from(address).ok()?),
            _ => return None,
        }))
    }

    /// Who answers from there: the sender as lines show it (on CAN by ISO 15765-4: 8 above, or turned round).
    #[must_use]
    pub fn answers_as(self) -> EcuAddress {
        EcuAddress(match self.0 {
            Place::Can11(id) => format!("{:03X}", id + 8),
            Place::Can29(node) => format!("18DAF1{node:02X}"),
            Place::Kwp(node) => format!("{node:02X}"),
        })
    }

    /// What follows `ATSH` (data sheet: the priority of 29 bits is set apart, by `ATCP`).
    pub(super) fn header(self) -> String {
        match self.0 {
            Place::Can11(id) => format!("{id:03X}"),
            Place::Can29(node) => format!("DA{node:02X}F1"),
            // ISO 14230-2 §4.1: physical addressing; the chip puts the length in.
            Place::Kwp(node) => format!("80{node:02X}F1"),
        }
    }
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
            (P::Can29At250, 0x0CF0_0400),
            (P::Iso9141, 0x10),
            (P::J1850Vpw, 0x10),
            (P::KwpSlow, 0xF1),
        ] {
            assert_eq!(UnitAddress::on(protocol, address), None, "{address:X}");
        }
    }
}
