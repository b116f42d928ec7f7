//! A layout's places in memory, as commands: which reads bring a slot, which writes
//! replace it, and which logins they need. What does not live here: the order of a
//! conversation (`read`, `write`), and files (`desfire`), which have no such pieces.

use crate::card::apdu::Command;
use crate::card::record::{HEADER_BYTES, SLOT_BYTES, Which};
use crate::protocols::cards::{BLOCK_BYTES, CardLayout, PAGE_BYTES, PlaceVector, Places};

/// READ of a Type 2 chip brings four pages (NTAG213/215/216 data sheet rev. 3.2 §10.2).
const PAGES_A_READ: usize = 4;

/// Bytes of a contact memory card that one command writes: a byte takes up to 5 ms (SLE4442 data
/// sheet, erase and write), and a reader has its own idea of how long a command may take.
const CONTACT_PART_BYTES: usize = 16;

/// A run of bytes that one command reads or several write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Page, block, or address of a byte.
    pub at: u8,
    /// Bytes.
    pub len: u8,
}

impl Piece {
    pub(super) fn read(self) -> Command {
        Command::read_block(self.at, self.len)
    }

    pub(super) fn update(self, data: &[u8]) -> Command {
        update(self.at, data)
    }
}

/// Update Binary of a page or block (PC/SC part 3 §3.2.2.1.9).
pub(super) fn update(at: u8, data: &[u8]) -> Command {
    Command::new([0xFF, 0xD6, 0x00, at]).with_data(data)
}

fn piece(at: usize, len: usize) -> Piece {
    // Layout files are checked: pages and blocks are below 256, pieces at most 16 bytes.
    Piece { at: u8::try_from(at).unwrap_or(u8::MAX), len: u8::try_from(len).unwrap_or(u8::MAX) }
}

/// The read that brings the header.
pub(super) fn header(places: &Places) -> Piece {
    match places {
        Places::Pages(pages) => piece(pages.header.into(), HEADER_BYTES),
        Places::Blocks(blocks) => piece(blocks.header.into(), HEADER_BYTES),
        Places::Files(files) => piece(files.header.file.into(), HEADER_BYTES),
        Places::Contact(contact) => piece(contact.header.into(), HEADER_BYTES),
        Places::Purse(purse) => piece(purse.header.into(), HEADER_BYTES),
    }
}

/// The reads that bring a slot, in order.
pub(super) fn slot(places: &Places, which: Which) -> Vec<Piece> {
    match places {
        Places::Pages(pages) => {
            let first = usize::from(of(&pages.slots, which).copied().unwrap_or_default());
            let chunk = PAGES_A_READ * PAGE_BYTES;
            (0..SLOT_BYTES)
                .step_by(chunk)
                .map(|byte| piece(first + byte / PAGE_BYTES, chunk.min(SLOT_BYTES - byte)))
                .collect()
        }
        Places::Blocks(blocks) => {
            let blocks = of(&blocks.slots, which).map(Vec::as_slice).unwrap_or_default();
            blocks.iter().map(|block| piece((*block).into(), BLOCK_BYTES)).collect()
        }
        Places::Contact(_) => vec![contact_slot(places, which)],
        Places::Files(_) | Places::Purse(_) => Vec::new(),
    }
}

/// The one read that brings a slot of a contact memory card.
pub(super) fn contact_slot(places: &Places, which: Which) -> Piece {
    let first = match places {
        Places::Contact(contact) => of(&contact.slots, which).copied().unwrap_or(u8::MAX),
        _ => u8::MAX,
    };
    piece(first.into(), SLOT_BYTES)
}

/// The writes that replace a slot, in order: a page or block each.
pub(super) fn slot_writes(places: &Places, which: Which, bytes: &[u8; SLOT_BYTES]) -> Vec<(Piece, Vec<u8>)> {
    match places {
        Places::Pages(pages) => {
            let first = usize::from(of(&pages.slots, which).copied().unwrap_or_default());
            let pages = bytes.chunks(PAGE_BYTES).enumerate();
            pages.map(|(at, bytes)| (piece(first + at, PAGE_BYTES), bytes.to_vec())).collect()
        }
        Places::Blocks(_) => {
            let mut filled = bytes.to_vec();
            filled.resize(SLOT_BYTES.next_multiple_of(BLOCK_BYTES), 0);
            slot(places, which).into_iter().zip(filled.chunks(BLOCK_BYTES).map(<[u8]>::to_vec)).collect()
        }
        Places::Contact(_) => {
            let first = usize::from(contact_slot(places, which).at);
            let parts = bytes.chunks(CONTACT_PART_BYTES).enumerate();
            let place = |n: usize, bytes: &[u8]| piece(first + n * CONTACT_PART_BYTES, bytes.len());
            parts.map(|(n, bytes)| (place(n, bytes), bytes.to_vec())).collect()
        }
        Places::Files(_) | Places::Purse(_) => Vec::new(),
    }
}

fn of<T>(pair: &[T; 2], which: Which) -> Option<&T> {
    match which {
        Which::A => pair.first(),
        Which::B => pair.last(),
    }
}

/// The sector of a block on a card of this house's layouts, which end before sector 32.
pub(super) fn sector(block: u8) -> u8 {
    block / 4
}

/// The last block of a sector of such a card.
pub(super) fn trailer(block: u8) -> Piece {
    piece(usize::from(sector(block)) * 4 + 3, BLOCK_BYTES)
}

/// A vector of a layout file that does not come out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cards/{layout}: byte {byte} of slot {slot} should be byte {offset} of page, block or file {at}; \
     correct layout or vector"
)]
pub struct PlaceFailure {
    layout: String,
    slot: usize,
    byte: usize,
    at: u8,
    offset: usize,
}

/// Checks every vector of every layout.
#[must_use]
pub fn verify_vectors(layouts: &[CardLayout]) -> Vec<PlaceFailure> {
    let mut failures = Vec::new();
    for layout in layouts.iter().flat_map(CardLayout::versions) {
        for vector in &layout.vectors {
            if !lies_there(&layout.places, vector) {
                let PlaceVector { slot, byte, at, offset } = *vector;
                failures.push(PlaceFailure { layout: layout.id.clone(), slot, byte, at, offset });
            }
        }
    }
    failures
}

fn lies_there(places: &Places, vector: &PlaceVector) -> bool {
    if let Places::Files(files) = places {
        let place = files.slots.get(vector.slot).filter(|place| place.file == vector.at);
        return place.is_some_and(|place| usize::from(place.offset) + vector.byte == vector.offset);
    }
    if let Places::Purse(purse) = places {
        let place = purse.slots.get(vector.slot).filter(|_| purse.record == vector.at);
        return place.is_some_and(|begin| usize::from(*begin) + vector.byte == vector.offset);
    }
    let which = if vector.slot == 0 { Which::A } else { Which::B };
    let bytes: [u8; SLOT_BYTES] = std::array::from_fn(|at| u8::try_from(at + 1).unwrap_or_default());
    let found = slot_writes(places, which, &bytes)
        .into_iter()
        .find(|(piece, _)| piece.at == vector.at)
        .and_then(|(_, data)| data.get(vector.offset).copied());
    found.map(usize::from) == Some(vector.byte + 1)
}
