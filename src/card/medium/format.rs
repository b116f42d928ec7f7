//! Preparing a card as delivered: header, first record, then the keys, as a list of
//! commands that each must succeed. What makes it a member card comes last, so that a cut
//! leaves a card that counts as empty and can be prepared again (`preparing`). What does not
//! live here: the journal of an issue.

use super::guard::Guard;
use super::{place, public};
use crate::card::apdu::Command;
use crate::card::keys::{CardRef, KeyError, KeyStore, KeyVersion};
use crate::card::record::{EncodeError, Header, HeaderError, MemberRecord, Which, encode};
use crate::event::card::Technology;
use crate::ident::CardUid;
use crate::protocols::cards::{BLOCK_BYTES, BlockPlaces, CardLayout, PAGE_BYTES, PagePlaces, Places};

/// The page whose last two bytes lock pages 3 to 15 for ever. Its first two are the maker's, and
/// its bits are only ever set (NTAG213/215/216 data sheet rev. 3.2 §8.5.2; MF0ULx1 rev. 3.3 §8.5.2).
const LOCK_PAGE: u8 = 2;
/// Sets the three block-locking bits, so that the lock bits stay as they are: AUTH0 does not
/// guard this page, and whoever has a telephone could lock the slots against us.
const NO_MORE_LOCKS: [u8; PAGE_BYTES] = [0x00, 0x00, 0x07, 0x00];
/// General purpose byte of a trailer: ours says nothing.
const GENERAL_PURPOSE: u8 = 0x00;

/// A card cannot be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The record does not fit.
    #[error(transparent)]
    Record(#[from] EncodeError),
    /// The header does not fit.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// More money than a value file holds (32 bits with a sign).
    #[error("{0} fen are more than such a card can hold; give it less")]
    Value(u64),
    /// The key store does not act.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The chip keeps no record.
    #[error("{0:?} keeps no member record; use a technology of the table in docs/cards.md")]
    Technology(Technology),
    /// A card of files asks back: no list of commands does for it.
    #[error("{0:?} is prepared in a conversation; report this as a fault of the program")]
    Conversation(Technology),
    /// The layout's access bits are not a member card's.
    #[error("layout {0} has wrong access bits; run baygate check")]
    Layout(String),
}

/// One step of preparing a card.
#[derive(Debug)]
pub(super) enum FormatDeed {
    /// Logs in to the Classic sector of `block`.
    LogIn {
        /// One of its blocks.
        block: u8,
    },
    /// Writes.
    Write(Command),
    /// Writes a part of the key that a card of pages is closed with: on one that it has closed
    /// already the key stands, and torn it would be lost.
    WriteKey(Command),
}

/// The commands that make an empty card of pages or blocks a member card with `record`;
/// [`Preparing`](super::Preparing) does for all cards.
///
/// # Errors
/// [`FormatError`].
pub fn format_commands(
    technology: Technology,
    layout: &CardLayout,
    uid: &CardUid,
    record: &MemberRecord,
    keys: &dyn KeyStore,
) -> Result<Vec<Command>, FormatError> {
    let mut commands = Vec::new();
    for step in format_steps(technology, layout, uid, record, keys)? {
        match step {
            FormatDeed::LogIn { block } => commands.extend(public::delivered_login(block)),
            FormatDeed::Write(command) | FormatDeed::WriteKey(command) => commands.push(command),
        }
    }
    Ok(commands)
}

/// The steps that make an empty card a member card with `record`.
pub(super) fn format_steps(
    technology: Technology,
    layout: &CardLayout,
    uid: &CardUid,
    record: &MemberRecord,
    keys: &dyn KeyStore,
) -> Result<Vec<FormatDeed>, FormatError> {
    let header = Header {
        layout: layout.layout,
        key_version: KeyVersion(record.key_version),
        store: record.issuing_store.clone(),
    };
    let header_bytes = header.encode(uid, keys)?;
    let slot = place::slot_writes(&layout.places, Which::A, &encode(record, uid, keys)?);
    let empty = place::slot_writes(&layout.places, Which::B, &[0; crate::card::record::SLOT_BYTES]);
    let card = CardRef { uid, store: &header.store, version: header.key_version };
    let writes: Vec<(u8, Vec<u8>)> =
        empty.into_iter().chain(slot).map(|(piece, data)| (piece.at, data)).collect();
    match &layout.places {
        Places::Pages(pages) => format_pages(technology, pages, &header_bytes, &writes, card, keys),
        Places::Blocks(blocks) => format_blocks(layout, blocks, &header_bytes, &writes, card, keys),
        Places::Files(_) | Places::Contact(_) | Places::Purse(_) => {
            Err(FormatError::Conversation(technology))
        }
    }
}

fn format_pages(
    technology: Technology,
    pages: &PagePlaces,
    header: &[u8],
    writes: &[(u8, Vec<u8>)],
    card: CardRef<'_>,
    keys: &dyn KeyStore,
) -> Result<Vec<FormatDeed>, FormatError> {
    // Until its first page is written, last of all, a header is none, and the card counts as
    // empty: one that is not closed yet is nobody's card.
    let write = |page: u8, data: &[u8]| FormatDeed::Write(place::update(page, data));
    let mut deeds = vec![write(pages.header, &[0; PAGE_BYTES])];
    deeds.extend(writes.iter().map(|(page, data)| write(*page, data)));
    deeds.push(write(LOCK_PAGE, &NO_MORE_LOCKS));
    // AUTH0, which closes the card but for the header, comes behind the key.
    let guard = Guard::of(technology, pages).ok_or(FormatError::Technology(technology))?;
    deeds.extend(guard.key(card, keys)?.into_iter().map(FormatDeed::WriteKey));
    deeds.extend([guard.access(pages.attempts), guard.from(pages.protect_from)].map(FormatDeed::Write));
    let header: Vec<_> = header.chunks(PAGE_BYTES).zip(0..).collect();
    deeds.extend(header.into_iter().rev().map(|(data, n)| write(pages.header.saturating_add(n), data)));
    Ok(deeds)
}

fn format_blocks(
    layout: &CardLayout,
    blocks: &BlockPlaces,
    header: &[u8],
    writes: &[(u8, Vec<u8>)],
    card: CardRef<'_>,
    keys: &dyn KeyStore,
) -> Result<Vec<FormatDeed>, FormatError> {
    let access = access_of(layout, blocks)?;
    let mut all: Vec<(u8, Vec<u8>)> = writes.to_vec();
    all.push((blocks.header, header.to_vec()));
    all.sort_by_key(|(block, _)| std::cmp::Reverse(place::sector(*block)));
    let mut steps = Vec::new();
    // The header's sector comes last: until then the card counts as empty.
    for sector in all.chunk_by(|(a, _), (b, _)| place::sector(*a) == place::sector(*b)) {
        let Some((first, _)) = sector.first() else { continue };
        steps.push(FormatDeed::LogIn { block: *first });
        steps.extend(sector.iter().map(|(block, data)| FormatDeed::Write(place::update(*block, data))));
        let number = place::sector(*first);
        let trailer = keys.classic_trailer(card, number, access)?;
        steps.push(FormatDeed::Write(if number == 0 { with_public_key_a(&trailer) } else { trailer }));
    }
    Ok(steps)
}

/// Bytes 6 to 9 of a trailer.
pub(super) fn access_of(layout: &CardLayout, blocks: &BlockPlaces) -> Result<[u8; 4], FormatError> {
    let access = hex::decode(&blocks.access).ok().and_then(|bytes| <[u8; 3]>::try_from(bytes).ok());
    let [six, seven, eight] = access.ok_or_else(|| FormatError::Layout(layout.id.clone()))?;
    Ok([six, seven, eight, GENERAL_PURPOSE])
}

/// The same trailer with the public key A: everybody may read the header.
pub(super) fn with_public_key_a(trailer: &Command) -> Command {
    let bytes = trailer.to_bytes();
    let mut data = zeroize::Zeroizing::new([0; BLOCK_BYTES]);
    data.iter_mut().zip(bytes.iter().skip(5)).for_each(|(to, from)| *to = *from);
    data.iter_mut().zip(public::PUBLIC_READ_KEY).for_each(|(to, from)| *to = from);
    let header = bytes.first_chunk().copied().unwrap_or_default();
    Command::new(header).with_data(&data[..]).secret()
}
