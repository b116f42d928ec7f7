//! `cards/*.toml` with `[purse]`: places and key numbers on a CPU card with the purse of
//! JR/T 0025 (FMCOS), and their form. What does not live here: the purse's commands, which
//! every such card has alike (the card room), and the other technologies (`cards`).

use serde::Deserialize;

use super::cards::{SLOT_BYTES, Wrong};

/// Short file identifiers end here (ISO/IEC 7816-4 §11.4.1).
const LAST_SHORT_FILE: u8 = 30;

/// Places on a CPU card.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PursePlaces {
    /// Name of the application, hex.
    #[serde(deserialize_with = "name")]
    pub application: Vec<u8>,
    /// Short identifier of the file with the application's serial number.
    pub public: u8,
    /// Short identifier of the header's file, which everybody may read.
    pub header: u8,
    /// Short identifier of the file with both slots.
    pub record: u8,
    /// Where each slot begins in it.
    pub slots: [u8; 2],
    /// Numbers of its keys.
    pub keys: PurseKeyNumbers,
    /// Identifier of the purchase application on the purchase SAM.
    #[serde(deserialize_with = "identifier")]
    pub sam: [u8; 2],
}

/// Numbers of keys in the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurseKeyNumbers {
    /// External authentication: reads and writes the record, writes the header.
    pub maintain: u8,
    /// Takes money off the purse.
    pub purchase: u8,
    /// Puts money on it; headquarters alone has it.
    pub load: u8,
}

fn name<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Vec<u8>, D::Error> {
    let bytes = hex::decode(String::deserialize(value)?).ok().filter(|bytes| (5..=16).contains(&bytes.len()));
    bytes.ok_or_else(|| serde::de::Error::custom("5 to 16 bytes of hex expected"))
}

fn identifier<'de, D: serde::Deserializer<'de>>(value: D) -> Result<[u8; 2], D::Error> {
    let bytes = hex::decode(String::deserialize(value)?).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| serde::de::Error::custom("four hex digits expected"))
}

pub(super) fn purse_wrong(purse: &PursePlaces) -> Wrong {
    let files = [purse.public, purse.header, purse.record];
    if files.iter().any(|file| !(1..=LAST_SHORT_FILE).contains(file)) {
        return Some(("a file has no short identifier".into(), "use 1 to 30"));
    }
    let [public, header, record] = files;
    if public == header || header == record || public == record {
        return Some(("two things lie in one file".into(), "their rights differ: give each its own"));
    }
    let [a, b] = purse.slots;
    if usize::from(a.abs_diff(b)) < SLOT_BYTES {
        return Some(("the slots overlap".into(), "a slot has 56 bytes"));
    }
    let end = usize::from(a.max(b)) + SLOT_BYTES;
    (end > 255).then(|| ("a slot ends behind byte 255".into(), "one command reads both: move them forward"))
}

#[cfg(test)]
mod tests {
    use super::super::cards::{CardLayout, Places};
    use super::*;

    #[test]
    fn places_that_would_hurt_are_refused() {
        let keys = PurseKeyNumbers { maintain: 1, purchase: 1, load: 1 };
        let good = PursePlaces {
            application: vec![0xF0; 8],
            public: 0x15,
            header: 0x11,
            record: 0x12,
            slots: [0, 56],
            keys,
            sam: [0x10, 0x01],
        };
        assert_eq!(purse_wrong(&good), None);
        for (name, wrong) in [
            ("no such file", PursePlaces { header: 31, ..good.clone() }),
            ("one file", PursePlaces { record: 0x11, ..good.clone() }),
            ("overlap", PursePlaces { slots: [0, 55], ..good.clone() }),
            ("too far", PursePlaces { slots: [0, 200], ..good.clone() }),
        ] {
            assert!(purse_wrong(&wrong).is_some(), "{name}");
        }
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols");
        let cards: Vec<CardLayout> = crate::protocols::Bundle::load(&folder).unwrap().cards;
        let shipped =
            |layout: &CardLayout| matches!(&layout.places, Places::Purse(purse) if purse.public == 0x15);
        assert!(cards.iter().any(shipped), "JR/T 0025 keeps the serial number in file 0015");
    }
}
