//! Between the record on a card and what the ledger keeps of it. Pure.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};

use crate::card::purse::Refusal;
use crate::card::purse::settle::Mark;
use crate::card::record::{COUPON_SLOTS, Coupon, LastTransaction, MemberRecord};
use crate::clock::UtcMillis;
use crate::event::card::Technology;
use crate::event::ledger::TransactionKind;
use crate::ident::CardUid;
use crate::money::{CouponId, Fen, Holding};
use crate::store::ledger_cards::SeenCard;

/// What a record says its card holds.
pub(super) fn holding(record: &MemberRecord) -> Holding {
    let held = record.coupons.iter().filter(|coupon| coupon.left > 0);
    let mut coupons: Vec<CouponId> = held
        .flat_map(|coupon| std::iter::repeat_n(CouponId(coupon.kind.into()), coupon.left.into()))
        .collect();
    coupons.sort_unstable();
    Holding {
        principal_fen: Fen(record.principal_fen.into()),
        bonus_fen: Fen(record.bonus_fen.into()),
        points: record.points.into(),
        coupons,
        counter: record.counter,
    }
}

/// What a tap tells the ledger.
pub(super) fn seen(
    uid: &CardUid,
    technology: Technology,
    record: &MemberRecord,
    timezone: &TimeZone,
) -> SeenCard {
    SeenCard {
        card_no: record.card_no.clone(),
        uid: uid.clone(),
        technology,
        card_type: record.member_type,
        issuing_store: record.issuing_store.clone(),
        valid_until: record.valid_until.and_then(|day| end_of(day, timezone)),
        holding: holding(record),
    }
}

/// The last millisecond of a day at the store.
#[must_use]
pub fn end_of(day: Date, timezone: &TimeZone) -> Option<UtcMillis> {
    let next: Zoned = day.checked_add(1.day()).ok()?.to_zoned(timezone.clone()).ok()?;
    Some(UtcMillis(next.timestamp().as_millisecond() - 1))
}

/// Which transaction a record names as its last.
pub(super) fn mark(record: &MemberRecord) -> Option<Mark> {
    record.last.map(|last| Mark(last.tag))
}

/// The record after a transaction.
///
/// # Errors
/// [`Refusal`]: a card has no room for that much.
pub(super) fn written(
    record: &MemberRecord,
    after: &Holding,
    kind: TransactionKind,
    tag: Mark,
    now: UtcMillis,
) -> Result<MemberRecord, Refusal> {
    let fen = |amount: Fen| u32::try_from(amount.0).map_err(|_| Refusal::BalanceOverLimit);
    let mut coupons = [Coupon::default(); COUPON_SLOTS];
    let mut places = coupons.iter_mut();
    for same in after.coupons.chunk_by(|a, b| a == b) {
        let place = places.next().ok_or(Refusal::CouponSlotsFull)?;
        let kind = same.first().and_then(|coupon| u8::try_from(coupon.0).ok());
        let left = u8::try_from(same.len()).map_err(|_| Refusal::CouponSlotsFull)?;
        *place = Coupon { kind: kind.ok_or(Refusal::CouponUnknown)?, left };
    }
    Ok(MemberRecord {
        principal_fen: fen(after.principal_fen)?,
        bonus_fen: fen(after.bonus_fen)?,
        points: u32::try_from(after.points).map_err(|_| Refusal::PointsOverLimit)?,
        coupons,
        counter: after.counter,
        // A clock before 1970 or past 2106 says nothing.
        last: Some(LastTransaction { at_s: u32::try_from(now.0 / 1000).unwrap_or(0), kind, tag: tag.0 }),
        ..record.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::record::tests::record;

    #[test]
    fn a_record_and_what_it_holds_are_the_same() {
        let record = record(7);
        let holds = holding(&record);
        assert_eq!(holds.counter, 7);
        let last = record.last.map_or(TransactionKind::Spend, |last| last.kind);
        let tag = mark(&record).unwrap_or(Mark([0; 4]));
        let back = written(&record, &holds, last, tag, UtcMillis(0)).unwrap();
        assert_eq!(holding(&back), holds);
        assert_eq!((back.card_no, back.member_type), (record.card_no, record.member_type));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let record = record(7);
        type Change = fn(&mut Holding);
        let cases: [(Change, Refusal); 4] = [
            (|h| h.principal_fen = Fen(1 << 32), Refusal::BalanceOverLimit),
            (|h| h.points = -1, Refusal::PointsOverLimit),
            (|h| h.coupons = (1..6).map(CouponId).collect(), Refusal::CouponSlotsFull),
            (|h| h.coupons = vec![CouponId(300)], Refusal::CouponUnknown),
        ];
        for (change, refusal) in cases {
            let mut holds = holding(&record);
            change(&mut holds);
            let written = written(&record, &holds, TransactionKind::Spend, Mark([1; 4]), UtcMillis(0));
            assert_eq!(written, Err(refusal));
        }
    }

    #[test]
    fn a_card_is_good_until_the_end_of_its_last_day() {
        let shanghai = TimeZone::fixed(jiff::tz::offset(8));
        let end = end_of(jiff::civil::date(2026, 11, 22), &shanghai).unwrap();
        assert_eq!(end.to_string(), "2026-11-22T15:59:59.999Z");
    }
}
