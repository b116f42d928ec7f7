//! Who may do what, with which card, under which rules.

use super::*;
use crate::card::purse::policy::{
    Card, Hotlist, House, OfflineSpent, may_be_valid_until, may_report_lost, permit,
};
use crate::clock::TimeQuality;
use crate::config::purse::LimitRule;
use crate::config::values::Period;
use crate::event::card::Technology;
use crate::event::ledger::CardStanding;
use crate::ident::StoreId;

#[test]
fn who_may_what() {
    use Refusal as R;
    let (own, other) = (StoreId::new("SH-0042").unwrap(), StoreId::new("SH-0001").unwrap());
    let (no, rules) = (card_no(), PurseTable::default());
    let hot = Hotlist { cards: [no.clone()].into(), ..Hotlist::default() };
    let hotlist = Hotlist::default();
    let strict = PurseTable { max_hotlist_age: Some("1d".parse::<Period>().unwrap()), ..rules.clone() };
    let open = PurseTable { accept_stores: vec!["own".into(), "SH-0001".into()], ..rules.clone() };
    let limit = LimitRule {
        technologies: vec![Technology::Desfire],
        per_transaction_fen: Fen(200_000),
        per_card_fen: Fen(500_000),
        per_day_fen: Fen(10_000_000),
    };
    let trusting = PurseTable { limit: vec![limit], ..rules.clone() };
    let now = UtcMillis(1_790_000_000_000);
    let card = Card {
        card_no: &no,
        technology: Technology::Desfire,
        card_type: CardType::Named,
        issuing_store: &own,
        standing: CardStanding::Active,
        valid_until: None,
        held: false,
        open: false,
    };
    let offline = Some(OfflineSpent::default());
    let house = House {
        now,
        quality: TimeQuality::Synced,
        store: &own,
        rules: &rules,
        hotlist: &hotlist,
        writes_held: false,
        offline,
    };
    let doubted = House { quality: TimeQuality::Unsynced, ..house };
    let spend = |fen: i64| (TransactionKind::Spend, Fen(-fen));
    let spent = |by_card, by_all| Some(OfflineSpent { by_card: Fen(by_card), by_all: Fen(by_all) });
    let stale = Hotlist { as_of: Some(UtcMillis(now.0 - 86_400_001)), ..Hotlist::default() };
    let fresh = Hotlist { as_of: Some(UtcMillis(now.0 - 86_400_000)), ..Hotlist::default() };
    let future = Hotlist { as_of: Some(UtcMillis(now.0 + 1)), ..Hotlist::default() };
    let classic = Card { technology: Technology::MifareClassic1k, ..card };
    let cases = [
        (card, spend(50_000), house, Ok(())),
        (card, spend(50_001), house, Err(R::OfflineTransactionLimit)),
        (card, spend(200_000), House { rules: &trusting, ..house }, Ok(())),
        (card, spend(200_001), House { rules: &trusting, ..house }, Err(R::OfflineTransactionLimit)),
        (card, spend(200_001), House { offline: None, ..house }, Ok(())),
        (card, (TransactionKind::Topup, Fen(400_000)), house, Ok(())),
        (card, (TransactionKind::Adjust, Fen(1)), house, Err(R::NeedsHeadquarters)),
        (classic, spend(50_001), house, Err(R::OfflineTransactionLimit)),
        (classic, spend(2), House { offline: spent(99_999, 99_999), ..house }, Err(R::OfflineCardLimit)),
        (classic, spend(1), House { offline: spent(99_999, 99_999), ..house }, Ok(())),
        (classic, spend(2), House { offline: spent(0, 999_999), ..house }, Err(R::OfflineDayLimit)),
        (Card { technology: Technology::Em4100, ..card }, spend(1), house, Err(R::AccountAtHeadquarters)),
        (Card { standing: CardStanding::Blocked, ..card }, spend(1), house, Err(R::CardBlocked)),
        (Card { standing: CardStanding::Lost, ..card }, spend(1), house, Err(R::CardLost)),
        (Card { standing: CardStanding::Replaced, ..card }, spend(1), house, Err(R::CardReplaced)),
        (Card { standing: CardStanding::Returned, ..card }, spend(1), house, Err(R::CardReturned)),
        (Card { held: true, ..card }, spend(1), house, Err(R::CardHeld)),
        (Card { open: true, ..card }, spend(1), house, Err(R::TapAgain)),
        (Card { valid_until: Some(UtcMillis(now.0 - 1)), ..card }, spend(1), house, Err(R::CardExpired)),
        (Card { valid_until: Some(now), ..card }, spend(1), house, Ok(())),
        (Card { valid_until: Some(UtcMillis(now.0 - 1)), ..card }, spend(1), doubted, Ok(())),
        (card, spend(1), House { rules: &strict, hotlist: &stale, ..doubted }, Ok(())),
        (card, spend(1), House { rules: &strict, ..doubted }, Err(R::HotlistTooOld)),
        (card, spend(1), House { hotlist: &hot, ..house }, Err(R::CardHotlisted)),
        (card, spend(1), House { rules: &strict, ..house }, Err(R::HotlistTooOld)),
        (card, spend(1), House { rules: &strict, hotlist: &stale, ..house }, Err(R::HotlistTooOld)),
        (card, spend(1), House { rules: &strict, hotlist: &future, ..house }, Err(R::HotlistTooOld)),
        (card, spend(1), House { rules: &strict, hotlist: &fresh, ..house }, Ok(())),
        (card, (TransactionKind::Topup, Fen(1)), House { rules: &strict, ..house }, Ok(())),
        (Card { issuing_store: &other, ..card }, spend(1), house, Err(R::StoreNotAccepted)),
        (Card { issuing_store: &other, ..card }, spend(1), House { rules: &open, ..house }, Ok(())),
        (card, spend(1), House { writes_held: true, ..house }, Err(R::WritesHeld)),
    ];
    for (n, (card, (kind, amount), house, expected)) in cases.into_iter().enumerate() {
        let effect = Effect { principal_fen: amount, ..Effect::default() };
        assert_eq!(permit(&card, kind, &effect, &house), expected, "case {n}");
    }
    // Points (of a fen each) and coupons are money's worth.
    let effect = |fen: i64, points: i64, take: Option<u32>| Effect {
        principal_fen: Fen(fen),
        points,
        take: take.map(CouponId),
        ..Effect::default()
    };
    let unlisted = House { rules: &strict, ..house };
    for (n, (card, effect, house, expected)) in [
        (classic, effect(0, -50_000, None), house, Ok(())),
        (classic, effect(0, -50_001, None), house, Err(R::OfflineTransactionLimit)),
        (classic, effect(-25_001, -25_000, None), house, Err(R::OfflineTransactionLimit)),
        (classic, effect(60_000, -600, None), house, Ok(())),
        (card, effect(0, -1, None), unlisted, Err(R::HotlistTooOld)),
        (card, effect(0, 0, Some(7)), unlisted, Err(R::HotlistTooOld)),
        (card, effect(500, -5, None), unlisted, Ok(())),
        (card, effect(0, 5, None), unlisted, Ok(())),
        (card, effect(0, i64::MIN, None), house, Err(R::AmountNotAllowed)),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(permit(&card, TransactionKind::Spend, &effect, &house), expected, "worth {n}");
    }
    assert_eq!(may_report_lost(CardType::Named, &rules), Ok(()));
    assert_eq!(may_report_lost(CardType::Anonymous, &rules), Err(R::LossReportNotAllowed));
    let years = |n: i64| Some(UtcMillis(now.0 + n * 366 * 86_400_000));
    let valid = |card_type, until| may_be_valid_until(card_type, until, now, &rules);
    assert_eq!(valid(CardType::Named, years(10)), Err(R::ValidityNotAllowed), "named: no expiry");
    assert_eq!(valid(CardType::Anonymous, years(2)), Err(R::ValidityNotAllowed));
    assert_eq!((valid(CardType::Anonymous, years(3)), valid(CardType::Named, None)), (Ok(()), Ok(())));
}
