//! `cards/*.toml` with `[files]`: places in the files of a DESFire application or an NTAG 424,
//! their keys and rights, and their form. What does not live here: the other technologies and
//! reading the files (`cards`).

use serde::Deserialize;

use super::cards::{SLOT_BYTES, Wrong, twice};

/// Bytes of a DESFire application's number.
const AID_BYTES: usize = 3;
/// The last key an application can have (MF3ICDx1 data sheet).
const LAST_KEY: u8 = 13;
/// In access rights: everybody, and nobody.
const FREE: u8 = 0xE;
const NOBODY: u8 = 0xF;
/// Places in the files of an application.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePlaces {
    /// Hex: three bytes as they are sent (a DESFire application), or a name (NTAG 424).
    #[serde(deserialize_with = "application")]
    pub application: Vec<u8>,
    /// Numbers of its keys.
    pub keys: FileKeys,
    /// Who may do what with the files.
    pub access: FileAccess,
    /// The header, in a standard file.
    pub header: FilePlace,
    /// One slot: in a backup file, the card keeps the transaction. Two: in standard files, in turn.
    pub slots: Vec<FilePlace>,
    /// DESFire: the value file that holds principal and bonus together, in fen.
    pub value: Option<ValuePlace>,
    /// NTAG 424: the address it makes at every reading, at the start of the header's file.
    pub sun: Option<SunPlace>,
}

/// A value file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValuePlace {
    /// Number of the file.
    pub file: u8,
    /// As [`FileAccess`]: who reads may take off as well, who does both may put on (MF3ICDx1 data
    /// sheet, value files).
    #[serde(deserialize_with = "nibbles")]
    pub access: u16,
}

/// In the address of an NTAG 424: 32 hex digits that tell which tag and which reading.
pub const PICC_PLACE: &str = "{picc}";
/// In the address of an NTAG 424: 16 hex digits that prove it.
pub const MAC_PLACE: &str = "{mac}";

/// The address of an NTAG 424.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SunPlace {
    /// Number of the key that enciphers which tag it is.
    pub meta: u8,
    /// Number of the key that proves it.
    pub file: u8,
    /// `https://…`, with `{picc}`, `{mac}`, and, where headquarters wants them, `{store}` and `{version}`.
    pub url: String,
}

impl FilePlaces {
    /// Whether the chip is a DESFire, which has native commands for everything.
    #[must_use]
    pub fn is_desfire(&self) -> bool {
        self.application.len() == AID_BYTES
    }

    /// Whether a card of the other layout is opened in the same way, until its header is read.
    pub(super) fn begins_as(&self, other: &Self) -> bool {
        let of = |files: &Self| (files.application.clone(), files.keys, files.header, files.access.header);
        of(self) == of(other) && self.sun == other.sun
    }
}

/// Numbers of an application's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileKeys {
    /// Changes keys and files.
    pub manage: u8,
    /// Reads the record; beside a value file writes it too, and takes off.
    pub debit: u8,
    /// Reads and writes it; puts on.
    pub credit: u8,
}

/// Access rights: four nibbles, the numbers of the keys that read, write, do both, and
/// change the rights; E: everybody, F: nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileAccess {
    /// Of the header's file.
    #[serde(deserialize_with = "nibbles")]
    pub header: u16,
    /// Of the slots' files.
    #[serde(deserialize_with = "nibbles")]
    pub record: u16,
}

/// A run of bytes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePlace {
    /// Number of the file.
    pub file: u8,
    /// Its first byte.
    #[serde(default)]
    pub offset: u16,
}

fn application<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(value)?;
    hex::decode(&text).map_err(|_| serde::de::Error::custom("hex digits expected, two a byte"))
}

fn nibbles<'de, D: serde::Deserializer<'de>>(value: D) -> Result<u16, D::Error> {
    let text = String::deserialize(value)?;
    let four = Some(text).filter(|text| text.len() == 4).and_then(|text| u16::from_str_radix(&text, 16).ok());
    four.ok_or_else(|| serde::de::Error::custom("four hex digits expected: read, write, both, change"))
}

/// Access rights as the drivers need them: the header open, the record for who may debit or
/// credit, and rights for whoever manages.
pub(super) fn files_wrong(files: &FilePlaces) -> Wrong {
    let FileKeys { manage, debit, credit } = files.keys;
    if manage.max(debit).max(credit) > LAST_KEY
        || twice([manage, debit, credit].map(usize::from).into_iter()).is_some()
    {
        return Some(("`keys` has a number twice or above 13".into(), "three numbers from 0 to 13"));
    }
    let of = |read: u8, write: u8, both: u8| u16::from_be_bytes([read << 4 | write, both << 4 | manage]);
    // Where a value file keeps the money, the debit key may write what stands beside it.
    let writes = if files.value.is_some() { debit } else { NOBODY };
    let (header, record) = (of(FREE, credit, NOBODY), of(debit, writes, credit));
    if files.access.header != header || files.access.record != record {
        let what = format!(
            "`access` must be header = \"{header:04X}\" and record = \"{record:04X}\" with these keys"
        );
        return Some((what, "else the header is closed, or the record open"));
    }
    if files.slots.iter().any(|slot| slot.file == files.header.file) {
        return Some(("the header lies in a slot's file".into(), "it is open to everybody: give it its own"));
    }
    if let Some(value) = &files.value {
        let access = of(debit, NOBODY, credit);
        let taken = files.slots.iter().chain([&files.header]).any(|place| place.file == value.file);
        if taken || value.access != access || !files.is_desfire() {
            let what = format!("`value` must have a DESFire file of its own and access = \"{access:04X}\"");
            return Some((what, "else who may take money off a card could put some on"));
        }
    }
    if let Some(sun) = &files.sun
        && let Some(wrong) = sun_wrong(files, sun)
    {
        return Some(wrong);
    }
    match files.slots.as_slice() {
        [_] if files.is_desfire() => None,
        [a, b] if !files.is_desfire() && a.file == b.file => {
            let near = usize::from(a.offset.abs_diff(b.offset)) < SLOT_BYTES;
            near.then(|| ("the slots overlap".into(), "a slot has 56 bytes"))
        }
        [a, b] if !files.is_desfire() && a.file != b.file => None,
        _ => Some((
            "a DESFire application has three bytes and one slot, an NTAG 424 a name and two slots".into(),
            "correct `application` or `slots`",
        )),
    }
}

fn sun_wrong(files: &FilePlaces, sun: &SunPlace) -> Wrong {
    let FileKeys { manage, debit, credit } = files.keys;
    let numbers = [manage, debit, credit, sun.meta, sun.file].map(usize::from);
    if files.is_desfire() || numbers.iter().any(|key| *key > 4) || twice(numbers.into_iter()).is_some() {
        let hint = "an NTAG 424 has keys 0 to 4, each for one thing; a DESFire has no `sun`";
        return Some(("`sun` and `keys` do not go together".into(), hint));
    }
    let once = |name: &str| sun.url.matches(name).count() == 1;
    let fields = once("p={picc}") && once("m={mac}");
    if !sun.url.starts_with("https://") || !sun.url.is_ascii() || !fields {
        return Some((
            "`url` is no address with `p={picc}` and `m={mac}`".into(),
            "https://…?p={picc}&m={mac}",
        ));
    }
    // NDEF's own seven bytes, and what stands for the four fields at most.
    let longest = sun.url.len() + 7 + 32 + 16 + 8 + 3;
    (longest > usize::from(files.header.offset))
        .then(|| ("`url` reaches into the header".into(), "shorten it, or move the header back"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desfire() -> FilePlaces {
        FilePlaces {
            application: vec![1, 2, 3],
            keys: FileKeys { manage: 0, debit: 1, credit: 2 },
            access: FileAccess { header: 0xE2F0, record: 0x1F20 },
            header: FilePlace { file: 1, offset: 0 },
            slots: vec![FilePlace { file: 2, offset: 0 }],
            value: None,
            sun: None,
        }
    }

    fn with_value(file: u8, access: u16) -> FilePlaces {
        let rights = FileAccess { header: 0xE2F0, record: 0x1120 };
        FilePlaces { value: Some(ValuePlace { file, access }), access: rights, ..desfire() }
    }

    fn ntag424() -> FilePlaces {
        FilePlaces {
            application: vec![1, 2, 3, 4, 5, 6, 7],
            header: FilePlace { file: 2, offset: 240 },
            slots: vec![FilePlace { file: 3, offset: 0 }, FilePlace { file: 3, offset: 64 }],
            sun: Some(SunPlace { meta: 3, file: 4, url: "https://card.example/?p={picc}&m={mac}".into() }),
            ..desfire()
        }
    }

    #[test]
    fn files_that_would_hurt_are_refused() {
        assert_eq!(files_wrong(&desfire()), None);
        assert_eq!(files_wrong(&ntag424()), None);
        assert_eq!(files_wrong(&with_value(3, 0x1F20)), None);
        let sun = |meta, url: &str| Some(SunPlace { meta, file: 4, url: url.into() });
        for (name, wrong) in [
            ("one key twice", FilePlaces { keys: FileKeys { manage: 0, debit: 1, credit: 1 }, ..desfire() }),
            ("no such key", FilePlaces { keys: FileKeys { manage: 0, debit: 1, credit: 14 }, ..desfire() }),
            (
                "open record",
                FilePlaces { access: FileAccess { header: 0xE2F0, record: 0xEF20 }, ..desfire() },
            ),
            (
                "closed header",
                FilePlaces { access: FileAccess { header: 0x12F0, record: 0x1F20 }, ..desfire() },
            ),
            ("header in the slot", FilePlaces { header: FilePlace { file: 2, offset: 0 }, ..desfire() }),
            ("two slots under one commit", FilePlaces { slots: ntag424().slots, ..desfire() }),
            ("one slot without commit", FilePlaces { slots: desfire().slots, ..ntag424() }),
            (
                "overlap",
                FilePlaces {
                    slots: vec![FilePlace { file: 3, offset: 0 }, FilePlace { file: 3, offset: 55 }],
                    ..ntag424()
                },
            ),
            ("the debit key writes the only money", FilePlaces { value: None, ..with_value(3, 0x1F20) }),
            ("the debit key puts money on", with_value(3, 0x1F10)),
            ("the debit key gives money back", with_value(3, 0x1120)),
            ("the value in the header's file", with_value(1, 0x1F20)),
            ("the value in the record's file", with_value(2, 0x1F20)),
            ("a value on an NTAG 424", FilePlaces { value: with_value(4, 0x1F20).value, ..ntag424() }),
            ("an address on a DESFire", FilePlaces { sun: ntag424().sun, ..desfire() }),
            ("a key for two things", FilePlaces { sun: sun(2, "https://a/?p={picc}&m={mac}"), ..ntag424() }),
            ("no address", FilePlaces { sun: sun(3, "http://a/?p={picc}&m={mac}"), ..ntag424() }),
            ("nothing proves", FilePlaces { sun: sun(3, "https://a/?p={picc}"), ..ntag424() }),
            (
                "too long",
                FilePlaces {
                    sun: sun(3, &format!("https://{}/?p={{picc}}&m={{mac}}", "a".repeat(170))),
                    ..ntag424()
                },
            ),
        ] {
            assert!(files_wrong(&wrong).is_some(), "{name}");
        }
    }
}
