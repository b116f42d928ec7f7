//! A record's bytes in a slot, and the header before the slots: fixed places, all
//! numbers with the high byte first. The table is in docs/cards.md ("The record on
//! the card"). What does not live here: which slot counts (`pair`), and where on a
//! chip they lie (`medium`).
//!
//! ```text
//!  0 format 01 · 1 type, status · 2 key version · 3 tier · 4 discount class
//!  5 last: kind · 6 valid until · 8 card number · 16 counter · 20 principal
//! 24 bonus · 28 points · 32 coupons · 40 last: time · 44 last: tag
//! 48 seal over bytes 0 to 47, for this UID and issuing store ── 56
//! ```

use jiff::ToSpan;
use jiff::civil::{Date, date};

use super::{COUPON_SLOTS, Coupon, LastTransaction, MAX_CARD_NO_DIGITS, MemberRecord, SEAL_BYTES};
use crate::card::keys::{CardRef, KeyError, KeyStore, KeyVersion};
use crate::event::card::MemberStatus;
use crate::event::ledger::{CardType, TransactionKind};
use crate::ident::{CardNo, CardUid, StoreId};
use crate::protocols::cards::SLOT_BYTES;

/// What is sealed.
const BODY_BYTES: usize = SLOT_BYTES - SEAL_BYTES;
/// The only format so far.
const FORMAT: u8 = 1;
/// Day 0 of `valid until`; 0 itself says that there is no end.
const DAY_ZERO: Date = date(1999, 12, 31);

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// Nothing was ever written: all zero.
    Empty,
    /// A record, sealed for this card.
    Valid(MemberRecord),
    /// Something else.
    Invalid(SlotFault),
}

/// Why a slot holds no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotFault {
    /// The seal is not right: torn, changed, or copied from another card.
    #[error("the seal is not right for this card")]
    Seal,
    /// The card is there and does not give it up.
    #[error("the card does not let this slot be read")]
    Unreadable,
    /// Sealed with keys that this gateway does not have.
    #[error("keys of version {0} are not in the key store; headquarters sends them")]
    KeyVersion(u8),
    /// Rightly sealed, by a later version of this program.
    #[error("record format {0} is newer than this program; update it")]
    Format(u8),
    /// Rightly sealed and yet nonsense.
    #[error("byte {offset} of the record: {expected} expected")]
    Content {
        /// Which byte, from 0.
        offset: usize,
        /// What belongs there.
        expected: &'static str,
    },
}

/// A record that does not fit a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The card number is no number, or too long.
    #[error("card number {0} does not fit a chip: issue numbers of 1 to 16 digits")]
    CardNo(CardNo),
    /// The day is out of the range.
    #[error("{0} is no last day for a card: give one between 2000-01-01 and 2179-06-05")]
    ValidUntil(Date),
    /// Versions 0 and 255 are no keys' numbers.
    #[error("key version {0} is never given: number keys from 1 to 254")]
    KeyVersion(u8),
    /// The key store does not act.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

impl Slot {
    /// On a card whose header names the version `header`. A record newer than its neighbour is
    /// never sealed with older keys than the header's: a card's move to newer keys ends with
    /// the header. So a lower version that is not held is no reason to refuse the card: it
    /// is an old record, or the number was torn (a torn byte lacks bits, it gains none).
    #[must_use]
    pub fn under(self, header: KeyVersion) -> Self {
        match self {
            Self::Invalid(SlotFault::KeyVersion(version)) if version <= header.0 => {
                Self::Invalid(SlotFault::Seal)
            }
            other => other,
        }
    }
}

/// The bytes of a record on the card `uid`.
///
/// # Errors
/// [`EncodeError`] naming what does not fit, or which key is missing.
pub fn encode(
    record: &MemberRecord,
    uid: &CardUid,
    keys: &dyn KeyStore,
) -> Result<[u8; SLOT_BYTES], EncodeError> {
    if !may_be_a_version(record.key_version) {
        return Err(EncodeError::KeyVersion(record.key_version));
    }
    let last = record.last;
    let mut slot = Vec::with_capacity(SLOT_BYTES);
    slot.extend([
        FORMAT,
        type_code(record.member_type) | status_code(record.status) << 4,
        record.key_version,
        record.tier,
        record.discount_class,
        last.map_or(0, |last| kind_code(last.kind)),
    ]);
    slot.extend(day_number(record.valid_until)?.to_be_bytes());
    slot.extend(card_digits(&record.card_no)?);
    for number in [record.counter, record.principal_fen, record.bonus_fen, record.points] {
        slot.extend(number.to_be_bytes());
    }
    slot.extend(record.coupons.iter().flat_map(|coupon| [coupon.kind, coupon.left]));
    slot.extend(last.map_or(0, |last| last.at_s).to_be_bytes());
    slot.extend(last.map_or([0; 4], |last| last.tag));
    let version = KeyVersion(record.key_version);
    slot.extend(keys.record_mac(CardRef { uid, store: &record.issuing_store, version }, &slot)?);
    // Every place above has a fixed size; the codec's tests hold their sum.
    let mut bytes = [0; SLOT_BYTES];
    bytes.iter_mut().zip(slot).for_each(|(to, from)| *to = from);
    Ok(bytes)
}

/// What the bytes of a slot on the card `uid`, issued by `store`, hold. The seal is
/// looked at before anything else.
#[must_use]
pub fn decode(bytes: &[u8; SLOT_BYTES], uid: &CardUid, store: &StoreId, keys: &dyn KeyStore) -> Slot {
    if bytes.iter().all(|byte| *byte == 0) {
        return Slot::Empty;
    }
    let mut reader = Fields { bytes, offset: 0 };
    let [format, kinds, key_version] = reader.take();
    let card = CardRef { uid, store, version: KeyVersion(key_version) };
    let mac = bytes.last_chunk::<SEAL_BYTES>().unwrap_or(&[0; SEAL_BYTES]);
    match keys.record_is_genuine(card, bytes.get(..BODY_BYTES).unwrap_or_default(), mac) {
        Ok(true) => {}
        Err(_) if format == FORMAT && may_be_a_version(key_version) => {
            return Slot::Invalid(SlotFault::KeyVersion(key_version));
        }
        Ok(false) | Err(_) => return Slot::Invalid(SlotFault::Seal),
    }
    if format != FORMAT {
        return Slot::Invalid(SlotFault::Format(format));
    }
    match fields(kinds, key_version, store, &mut reader) {
        Ok(record) => Slot::Valid(record),
        Err(fault) => Slot::Invalid(fault),
    }
}

/// Versions 0 and 255 are given to no keys: a page whose writing was cut off reads so.
pub(super) fn may_be_a_version(key_version: u8) -> bool {
    !matches!(key_version, 0x00 | 0xFF)
}

fn fields(
    kinds: u8,
    key_version: u8,
    store: &StoreId,
    reader: &mut Fields<'_>,
) -> Result<MemberRecord, SlotFault> {
    let wrong = |offset, expected| SlotFault::Content { offset, expected };
    let member_type = type_of(kinds & 0x0F).ok_or_else(|| wrong(1, "type 0 or 1"))?;
    let status = status_of(kinds >> 4).ok_or_else(|| wrong(1, "status 0 to 3"))?;
    let [tier, discount_class, last_kind] = reader.take();
    let valid_until = day_of(u16::from_be_bytes(reader.take()));
    let card_no = card_no_of(&reader.take()).ok_or_else(|| wrong(8, "1 to 16 digits, then F"))?;
    let counter = u32::from_be_bytes(reader.take());
    let principal_fen = u32::from_be_bytes(reader.take());
    let bonus_fen = u32::from_be_bytes(reader.take());
    let points = u32::from_be_bytes(reader.take());
    let mut coupons = [Coupon::default(); COUPON_SLOTS];
    for coupon in &mut coupons {
        let [kind, left] = reader.take();
        *coupon = Coupon { kind, left };
    }
    let at_s = u32::from_be_bytes(reader.take());
    let tag = reader.take();
    let last = match last_kind {
        0 => None,
        code => {
            let kind = kind_of(code).ok_or_else(|| wrong(5, "a transaction kind 0 to 9"))?;
            Some(LastTransaction { at_s, kind, tag })
        }
    };
    Ok(MemberRecord {
        card_no,
        member_type,
        status,
        issuing_store: store.clone(),
        tier,
        discount_class,
        valid_until,
        principal_fen,
        bonus_fen,
        points,
        coupons,
        counter,
        last,
        key_version,
    })
}

/// Takes fields off the front; what is past the end reads as zero, which the fixed length excludes.
struct Fields<'b> {
    bytes: &'b [u8],
    offset: usize,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        field.iter_mut().zip(self.bytes.iter().skip(self.offset)).for_each(|(to, from)| *to = *from);
        self.offset += N;
        field
    }
}

fn type_code(member_type: CardType) -> u8 {
    match member_type {
        CardType::Named => 0,
        CardType::Anonymous => 1,
    }
}

fn type_of(code: u8) -> Option<CardType> {
    [CardType::Named, CardType::Anonymous].into_iter().find(|known| type_code(*known) == code)
}

fn status_code(status: MemberStatus) -> u8 {
    match status {
        MemberStatus::Active => 0,
        MemberStatus::Blocked => 1,
        MemberStatus::Returned => 2,
        MemberStatus::Replaced => 3,
    }
}

fn status_of(code: u8) -> Option<MemberStatus> {
    [MemberStatus::Active, MemberStatus::Blocked, MemberStatus::Returned, MemberStatus::Replaced]
        .into_iter()
        .find(|known| status_code(*known) == code)
}

fn kind_code(kind: TransactionKind) -> u8 {
    match kind {
        TransactionKind::Topup => 1,
        TransactionKind::Spend => 2,
        TransactionKind::Earn => 3,
        TransactionKind::Redeem => 4,
        TransactionKind::Coupon => 5,
        TransactionKind::Adjust => 6,
        TransactionKind::Transfer => 7,
        TransactionKind::Refund => 8,
        TransactionKind::Void => 9,
    }
}

fn kind_of(code: u8) -> Option<TransactionKind> {
    TransactionKind::ALL.into_iter().find(|known| kind_code(*known) == code)
}

fn day_number(day: Option<Date>) -> Result<u16, EncodeError> {
    let Some(day) = day else { return Ok(0) };
    let days =
        day.since((jiff::Unit::Day, DAY_ZERO)).ok().and_then(|span| u16::try_from(span.get_days()).ok());
    days.filter(|days| *days > 0).ok_or(EncodeError::ValidUntil(day))
}

fn day_of(number: u16) -> Option<Date> {
    // 65535 days past 1999 is within what a date can be.
    (number > 0).then(|| DAY_ZERO.checked_add(i64::from(number).days()).ok()).flatten()
}

/// Two digits a byte, the first in the high half, filled with F.
fn card_digits(card_no: &CardNo) -> Result<[u8; MAX_CARD_NO_DIGITS / 2], EncodeError> {
    let text = card_no.as_str();
    if text.len() > MAX_CARD_NO_DIGITS || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(EncodeError::CardNo(card_no.clone()));
    }
    let mut digits = text.bytes().map(|b| b - b'0').chain(std::iter::repeat(0x0F));
    Ok(std::array::from_fn(|_| digits.next().unwrap_or(0x0F) << 4 | digits.next().unwrap_or(0x0F)))
}

fn card_no_of(bytes: &[u8; MAX_CARD_NO_DIGITS / 2]) -> Option<CardNo> {
    let halves: Vec<u8> = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0F]).collect();
    let digits: String =
        halves.iter().take_while(|half| **half < 10).map(|half| char::from(b'0' + half)).collect();
    let rest_is_filling = halves.iter().skip(digits.len()).all(|half| *half == 0x0F);
    rest_is_filling.then(|| CardNo::new(digits).ok()).flatten()
}
