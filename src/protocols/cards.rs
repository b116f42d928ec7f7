//! `cards/*.toml`: where header and slots of the member record lie on each
//! technology. What lives here: the tables and their form (nothing on a maker's
//! or trailer block, nothing twice, room for two slots). What does not: what the
//! bytes mean and how they are read (the card room).

use std::collections::BTreeSet;
use std::ops::Range;

pub use super::card_files::{
    FileAccess, FileKeys, FilePlace, FilePlaces, MAC_PLACE, PICC_PLACE, SunPlace, ValuePlace,
};
pub use super::card_purse::{PurseKeyNumbers, PursePlaces};

use serde::Deserialize;
use toml::Spanned;

use super::card_files::files_wrong;
use super::card_purse::purse_wrong;
use super::card_versions::join;
use super::files::{Files, Place};
use crate::event::Text;
use crate::event::card::Technology;

/// A slot's bytes (docs/cards.md). Two of them and the header fit the 128 bytes of an Ultralight EV1 (MF0UL21).
pub const SLOT_BYTES: usize = 56;
/// A header's bytes (docs/cards.md).
pub const HEADER_BYTES: usize = 16;
/// Bytes of a Type 2 page.
pub const PAGE_BYTES: usize = 4;
/// Bytes of a Classic block.
pub const BLOCK_BYTES: usize = 16;
/// Bytes that say which code a contact memory card has.
const STATE_BYTES: usize = 2;
/// The first byte of an SLE4442 that cannot be protected for ever (SLE4442 data sheet, memory overview).
const FIRST_FREE_BYTE: usize = 32;
/// The last block that every Classic card has.
const LAST_BLOCK_OF_1K: u8 = 63;

/// Where a technology keeps the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardLayout {
    /// Its name, for logs.
    pub id: String,
    /// Version; a card's header names the one it was written by.
    pub layout: u8,
    /// Technologies it is for.
    pub technologies: Vec<Technology>,
    /// Where the facts about the chips are from.
    pub source: String,
    /// For people.
    pub note: Text,
    /// Header and slots.
    pub places: Places,
    /// Examples that must come out.
    pub vectors: Vec<PlaceVector>,
    /// Layouts before it, the newest first: cards issued with them are served, and none is issued.
    pub earlier: Vec<CardLayout>,
}

/// Header and slots of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    /// Type 2 chips.
    Pages(PagePlaces),
    /// Classic cards.
    Blocks(BlockPlaces),
    /// DESFire and NTAG 424.
    Files(FilePlaces),
    /// Contact memory cards.
    Contact(ContactPlaces),
    /// CPU cards with a purse.
    Purse(PursePlaces),
}

/// Places on a Type 2 chip.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PagePlaces {
    /// First of the four pages of the header.
    pub header: u8,
    /// First page of each slot.
    pub slots: [u8; 2],
    /// The last page that is used.
    pub last: u8,
    /// The first page that needs the password (AUTH0).
    pub protect_from: u8,
    /// Wrong passwords until the chip locks itself (AUTHLIM), 1 to 7; 0: never.
    pub attempts: u8,
    /// How the closed pages are opened.
    #[serde(default)]
    pub login: PageLogin,
}

/// How a Type 2 chip is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PageLogin {
    /// A password of four bytes (NTAG21x, Ultralight EV1).
    #[default]
    Password,
    /// Mutual, with a triple DES key (Ultralight C). The chip counts no failures.
    TripleDes,
}

/// Places on a Classic card.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockPlaces {
    /// The header's block, in sector 0.
    pub header: u8,
    /// Blocks of each slot, in order.
    pub slots: [Vec<u8>; 2],
    /// Bytes 6 to 8 of every trailer, hex.
    pub access: String,
}

/// Places on a contact memory card, as addresses of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContactPlaces {
    /// First byte of the header.
    pub header: u8,
    /// First byte of each slot.
    pub slots: [u8; 2],
    /// First of the two bytes that say which code the card has.
    pub state: u8,
}

/// An example: where one byte of a slot lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceVector {
    /// 0 or 1.
    pub slot: usize,
    /// Which byte of it.
    pub byte: usize,
    /// Page, block or file.
    pub at: u8,
    /// Byte in that page, block or file.
    pub offset: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: String,
    layout: Spanned<u8>,
    technologies: Spanned<Vec<Technology>>,
    source: Spanned<String>,
    note: Text,
    pages: Option<Spanned<PagePlaces>>,
    blocks: Option<Spanned<BlockPlaces>>,
    files: Option<Spanned<FilePlaces>>,
    contact: Option<Spanned<ContactPlaces>>,
    purse: Option<Spanned<PursePlaces>>,
    vectors: Spanned<Vec<PlaceVector>>,
}

pub(super) fn load(files: &mut Files, folder: &str) -> Vec<CardLayout> {
    let mut layouts: Vec<CardLayout> = Vec::new();
    for name in files.list(folder) {
        let Some((file, place)) = files.read::<File>(&name) else { continue };
        let span = file.technologies.span();
        let Some(layout) = check(files, &place, file) else { continue };
        if let Err(what) = join(&mut layouts, layout) {
            let hint = "name every technology in one file; a later layout has a number of its own";
            files.error(&place, span, what, hint);
        }
    }
    layouts
}

fn check(files: &mut Files, place: &Place, file: File) -> Option<CardLayout> {
    if file.source.get_ref().trim().is_empty() {
        files.error(place, file.source.span(), "source is empty", "say where the facts come from");
    }
    if *file.layout.get_ref() == 0 {
        files.error(place, file.layout.span(), "layout 0 means a card without one", "count from 1");
    }
    if file.vectors.get_ref().is_empty() || file.technologies.get_ref().is_empty() {
        files.error(place, file.vectors.span(), "no vectors or no technologies", "give at least one of each");
    }
    let (places, span, wrong) = match (file.pages, file.blocks, file.files, file.contact, file.purse) {
        (Some(pages), None, None, None, None) => {
            let wrong = pages_wrong(pages.get_ref());
            (Places::Pages(pages.get_ref().clone()), pages.span(), wrong)
        }
        (None, Some(blocks), None, None, None) => {
            let wrong = blocks_wrong(blocks.get_ref());
            (Places::Blocks(blocks.get_ref().clone()), blocks.span(), wrong)
        }
        (None, None, Some(places), None, None) => {
            let wrong = files_wrong(places.get_ref());
            (Places::Files(places.get_ref().clone()), places.span(), wrong)
        }
        (None, None, None, Some(contact), None) => {
            let wrong = contact_wrong(contact.get_ref());
            (Places::Contact(contact.get_ref().clone()), contact.span(), wrong)
        }
        (None, None, None, None, Some(purse)) => {
            let wrong = purse_wrong(purse.get_ref());
            (Places::Purse(purse.get_ref().clone()), purse.span(), wrong)
        }
        _ => {
            let hint = "give one of the five";
            let none = "none or several of [pages], [blocks], [files], [contact] and [purse]";
            files.error(place, 0..0, none, hint);
            return None;
        }
    };
    if let Some((what, hint)) = wrong {
        files.error(place, span, what, hint);
        return None;
    }
    Some(CardLayout {
        id: file.id,
        layout: file.layout.into_inner(),
        technologies: file.technologies.into_inner(),
        source: file.source.into_inner(),
        note: file.note,
        places,
        vectors: file.vectors.into_inner(),
        earlier: Vec::new(),
    })
}

pub(super) type Wrong = Option<(String, &'static str)>;

fn pages_wrong(pages: &PagePlaces) -> Wrong {
    let of = |first: u8, bytes: usize| -> Range<usize> {
        usize::from(first)..usize::from(first) + bytes.div_ceil(PAGE_BYTES)
    };
    let [a, b] = pages.slots;
    let used = [of(pages.header, HEADER_BYTES), of(a, SLOT_BYTES), of(b, SLOT_BYTES)];
    if pages.header < 4 {
        return Some(("the header lies on pages the maker uses".into(), "user memory begins at page 4"));
    }
    if let Some(page) = twice(used.iter().cloned().flatten()) {
        return Some((format!("page {page} is used twice"), "header and slots must not overlap"));
    }
    if let Some(end) =
        used.iter().map(|range| range.end).max().filter(|end| *end > usize::from(pages.last) + 1)
    {
        return Some((
            format!("page {} is used, behind `last`", end - 1),
            "raise `last` if every chip has it",
        ));
    }
    if pages.protect_from < pages.header.saturating_add(4) || pages.protect_from > a.min(b) {
        return Some((
            "`protect_from` leaves the header closed or a slot open".into(),
            "put it between the header and the slots",
        ));
    }
    if pages.login == PageLogin::TripleDes && pages.attempts > 0 {
        return Some((
            "`attempts` stands beside a triple DES login".into(),
            "an Ultralight C counts none: 0",
        ));
    }
    (pages.attempts > 7).then(|| ("`attempts` is more than 7".into(), "AUTHLIM has three bits: 0 to 7"))
}

fn blocks_wrong(blocks: &BlockPlaces) -> Wrong {
    let all = || blocks.slots.iter().flatten().copied().chain([blocks.header]);
    if blocks.slots.iter().any(|slot| slot.len() * BLOCK_BYTES < SLOT_BYTES) {
        return Some(("a slot has too few blocks".into(), "56 bytes need four blocks"));
    }
    if let Some(block) = all().find(|block| *block == 0 || block % 4 == 3 || *block > LAST_BLOCK_OF_1K) {
        let hint = "use blocks 1 to 62, and no sector's last";
        return Some((format!("block {block} is the maker's, a trailer, or not on a 1K card"), hint));
    }
    if !(1..=2).contains(&blocks.header) {
        return Some(("the header is not in sector 0".into(), "use block 1 or 2"));
    }
    if let Some(block) = all().filter(|block| *block < 4).find(|block| *block != blocks.header) {
        return Some((format!("slot block {block} is in sector 0"), "its key is public: use others"));
    }
    if let Some(block) = twice(all().map(usize::from)) {
        return Some((format!("block {block} is used twice"), "header and slots must not overlap"));
    }
    let access = hex::decode(&blocks.access).ok().and_then(|bytes| <[u8; 3]>::try_from(bytes).ok());
    (!access.is_some_and(access_is_ours)).then(|| {
        let hint = "write 787788: data is written with key B alone, key B is read by nobody";
        ("`access` would lock a sector or leave it open".into(), hint)
    })
}

fn contact_wrong(contact: &ContactPlaces) -> Wrong {
    let of = |first: u8, bytes: usize| usize::from(first)..usize::from(first) + bytes;
    let [a, b] = contact.slots;
    let used = [
        of(contact.header, HEADER_BYTES),
        of(a, SLOT_BYTES),
        of(b, SLOT_BYTES),
        of(contact.state, STATE_BYTES),
    ];
    if let Some(byte) = used.iter().cloned().flatten().find(|byte| !(FIRST_FREE_BYTE..=0xFF).contains(byte)) {
        let hint = "use bytes 32 to 255; those before are the maker's and the card's serial";
        return Some((format!("byte {byte} cannot be used"), hint));
    }
    twice(used.into_iter().flatten())
        .map(|byte| (format!("byte {byte} is used twice"), "header, slots and state must not overlap"))
}

/// Whether bytes 6 to 8 of a Classic trailer are those of a member card. C1, C2 and C3
/// each stand beside their inverse (MF1S50 data sheet §8.7.1), else the sector locks itself
/// for ever. Data blocks have the condition 100: read with A or B, written with B (table 8).
/// The trailer has 011: key B changes keys and conditions, and is never read (table 7).
#[must_use]
pub fn access_is_ours([six, seven, eight]: [u8; 3]) -> bool {
    let (c1, c2, c3) = (seven >> 4, eight & 0x0F, eight >> 4);
    let agree = six & 0x0F == !c1 & 0x0F && six >> 4 == !c2 & 0x0F && seven & 0x0F == !c3 & 0x0F;
    // The trailer's bit is the highest of each.
    agree && (c1, c2, c3) == (0b0111, 0b1000, 0b1000)
}

pub(super) fn twice(numbers: impl Iterator<Item = usize>) -> Option<usize> {
    let mut seen = BTreeSet::new();
    numbers.into_iter().find(|number| !seen.insert(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the tables of the MF1S50 data sheet §8.7.
    #[test]
    fn access_bits() {
        for (name, bytes, ours) in [
            ("ours", [0x78, 0x77, 0x88], true),
            ("as delivered: key A writes", [0xFF, 0x07, 0x80], false),
            ("data 000: key A writes", [0x7F, 0x07, 0x88], false),
            ("data 110: a value block, which key A takes from", [0x08, 0x77, 0x8F], false),
            ("all 111: locked for ever", [0x00, 0xF0, 0xFF], false),
            ("contradicts itself", [0xFF, 0x07, 0x81], false),
            ("zeros", [0x00, 0x00, 0x00], false),
            ("ones", [0xFF, 0xFF, 0xFF], false),
        ] {
            assert_eq!(access_is_ours(bytes), ours, "{name}");
        }
    }

    #[test]
    fn places_that_would_hurt_are_refused() {
        let login = PageLogin::Password;
        let pages = PagePlaces { header: 4, slots: [8, 22], last: 35, protect_from: 8, attempts: 7, login };
        assert_eq!(pages_wrong(&pages), None);
        for (name, wrong) in [
            ("maker's page", PagePlaces { header: 3, ..pages.clone() }),
            ("overlap", PagePlaces { slots: [8, 21], ..pages.clone() }),
            ("past the end", PagePlaces { slots: [8, 23], ..pages.clone() }),
            ("open slot", PagePlaces { protect_from: 9, ..pages.clone() }),
            ("closed header", PagePlaces { protect_from: 7, ..pages.clone() }),
            ("no such limit", PagePlaces { attempts: 8, ..pages.clone() }),
            ("no limit there", PagePlaces { login: PageLogin::TripleDes, ..pages.clone() }),
        ] {
            assert!(pages_wrong(&wrong).is_some(), "{name}");
        }
        let blocks = BlockPlaces {
            header: 1,
            slots: [vec![4, 5, 6, 8], vec![9, 10, 12, 13]],
            access: "787788".into(),
        };
        assert_eq!(blocks_wrong(&blocks), None);
        for (name, wrong) in [
            ("trailer", BlockPlaces { slots: [vec![4, 5, 6, 7], vec![9, 10, 12, 13]], ..blocks.clone() }),
            (
                "maker's block",
                BlockPlaces { slots: [vec![0, 5, 6, 8], vec![9, 10, 12, 13]], ..blocks.clone() },
            ),
            (
                "public sector",
                BlockPlaces { slots: [vec![2, 5, 6, 8], vec![9, 10, 12, 13]], ..blocks.clone() },
            ),
            ("twice", BlockPlaces { slots: [vec![4, 5, 6, 8], vec![8, 10, 12, 13]], ..blocks.clone() }),
            ("too few", BlockPlaces { slots: [vec![4, 5, 6], vec![9, 10, 12, 13]], ..blocks.clone() }),
            ("not on a 1K", BlockPlaces { slots: [vec![4, 5, 6, 8], vec![9, 10, 12, 64]], ..blocks.clone() }),
            ("locked for ever", BlockPlaces { access: "00F0FF".into(), ..blocks.clone() }),
            ("left open", BlockPlaces { access: "FF0780".into(), ..blocks.clone() }),
            ("no access bits", BlockPlaces { access: "787".into(), ..blocks.clone() }),
        ] {
            assert!(blocks_wrong(&wrong).is_some(), "{name}");
        }
        let contact = ContactPlaces { header: 32, slots: [64, 128], state: 48 };
        assert_eq!(contact_wrong(&contact), None);
        for (name, wrong) in [
            ("the serial", ContactPlaces { header: 31, ..contact.clone() }),
            ("past the end", ContactPlaces { slots: [64, 201], ..contact.clone() }),
            ("overlap", ContactPlaces { slots: [64, 119], ..contact.clone() }),
            ("state in the header", ContactPlaces { state: 47, ..contact.clone() }),
        ] {
            assert!(contact_wrong(&wrong).is_some(), "{name}");
        }
    }
}
