use uuid::Uuid;

use super::*;

/// The worked example of 49 CFR 565.15.
const GOOD: &str = "1M8GDM9AXKP042788";
const OTHER: &str = "LSVAG2186E2100001";
const NOW: UtcMillis = UtcMillis(1_795_000_000_000);

fn visit(vin: Option<&str>, is_read: bool, typed: TypedIn) -> VisitRow {
    VisitRow {
        visit: Uuid::nil(),
        link: "bay-1".parse().unwrap(),
        vin: vin.map(|vin| vin.parse().unwrap()),
        vin_is_read: is_read,
        typed,
        protocol: "iso9141-2".into(),
        started_at: NOW,
        ended_at: None,
        reason: None,
        report: None,
        revision: 0,
    }
}

fn vin(text: &str) -> Entry {
    Entry { vin: Some(text.into()), ..Entry::default() }
}

fn card(card_no: Option<&str>, consent: Option<bool>) -> Entry {
    Entry { card_no: card_no.map(Into::into), consent, ..Entry::default() }
}

#[test]
fn a_typed_vin_fills_and_never_overrides() {
    let silent = visit(None, false, TypedIn::default());
    let retyped = visit(Some(OTHER), false, TypedIn { vin: OTHER.parse().ok(), ..TypedIn::default() });
    let read = visit(Some(GOOD), true, TypedIn::default());
    for (case, visit, entry, expected) in [
        ("fills", &silent, vin(" 1m8gdm9axkp-042788 "), Ok((GOOD, vec![]))),
        (
            "other form of check digit",
            &silent,
            vin("LSVAG218XE2100001"),
            Ok(("LSVAG218XE2100001", vec![Notice::VinCheckDigit])),
        ),
        ("typing again", &retyped, vin(GOOD), Ok((GOOD, vec![]))),
        ("the same as read", &read, vin(GOOD), Ok((GOOD, vec![]))),
        (
            "another than read",
            &read,
            vin(OTHER),
            Err(TypedError::VinConflict { read: GOOD.parse().unwrap() }),
        ),
        ("an O for a 0", &silent, vin("1M8GDM9AXKPO42788"), Err(TypedError::VinForm)),
        ("too short", &silent, vin("1M8GDM9AXKP04278"), Err(TypedError::VinForm)),
    ] {
        let taken = take(&entry, visit, None, None, NOW)
            .map(|(typed, notices)| (typed.vin.unwrap().to_string(), notices));
        assert_eq!(taken, expected.map(|(vin, notices)| (vin.to_owned(), notices)), "{case}");
    }
}

#[test]
fn odometers_are_held_against_what_is_known() {
    const DAY: i64 = 86_400_000;
    let ago = |km, days: i64| Some(Reading { km, at: UtcMillis(NOW.0 - days * DAY) });
    for (case, km, last, by_car, expected) in [
        ("nothing known", 48_210.0, None, None, Ok(None)),
        ("new car", 0.0, None, None, Ok(None)),
        ("a month later", 49_000.0, ago(48_210.0, 30), None, Ok(None)),
        ("rounded down", 48_210.0, ago(48_210.9, 0), None, Ok(None)),
        ("went back", 38_210.0, ago(48_210.0, 30), None, Ok(Some(Notice::OdometerWentBack))),
        ("a digit too many", 482_100.0, ago(48_210.0, 30), None, Ok(Some(Notice::OdometerJumped))),
        ("the clock was behind", 48_300.0, ago(48_210.0, -3), None, Ok(Some(Notice::OdometerJumped))),
        ("the car agrees", 48_210.0, None, Some(48_214.2), Ok(None)),
        ("the car differs", 48_210.0, None, Some(51_000.0), Ok(Some(Notice::OdometerDiffers))),
        ("below nothing", -1.0, None, None, Err(TypedError::Odometer)),
        ("no number", f64::NAN, None, None, Err(TypedError::Odometer)),
        ("eight digits", 10_000_000.0, None, None, Err(TypedError::Odometer)),
    ] {
        let entry = Entry { odometer_km: Some(km), ..Entry::default() };
        let taken = take(&entry, &visit(None, false, TypedIn::default()), last, by_car, NOW);
        assert_eq!(taken.map(|(_, notices)| notices.first().copied()), expected, "{case}");
    }
}

#[test]
fn a_card_is_joined_only_with_consent() {
    let none = visit(None, false, TypedIn::default());
    let since = UtcMillis(NOW.0 - 1_000);
    let joined = |at| TypedIn { member: Some(("8800-1".parse().unwrap(), at)), ..TypedIn::default() };
    let before = visit(None, false, joined(since));
    for (case, visit, entry, expected) in [
        ("with consent", &none, card(Some("8800-1"), Some(true)), Ok(Some(NOW))),
        ("without", &none, card(Some("8800-1"), None), Err(TypedError::Consent)),
        ("refused", &none, card(Some("8800-1"), Some(false)), Err(TypedError::Consent)),
        ("again: since then", &before, card(Some("8800-1"), Some(true)), Ok(Some(since))),
        ("another card: since now", &before, card(Some("8800-2"), Some(true)), Ok(Some(NOW))),
        ("taken back", &before, card(None, Some(false)), Ok(None)),
        ("nothing said", &before, card(None, None), Ok(Some(since))),
        ("consent to nothing", &none, card(None, Some(true)), Ok(None)),
        ("no card number", &none, card(Some("88 00"), Some(true)), Err(TypedError::CardNo)),
    ] {
        let taken = take(&entry, visit, None, None, NOW).map(|(typed, _)| typed.member.map(|(_, at)| at));
        assert_eq!(taken, expected, "{case}");
    }
}

#[test]
fn orders_are_short_lines() {
    let take_order = |order: &str| {
        let entry = Entry { order: Some(order.into()), ..Entry::default() };
        take(&entry, &visit(None, false, TypedIn::default()), None, None, NOW).map(|(typed, _)| typed.order)
    };
    assert_eq!(take_order("  维修-2026/117 "), Ok(Some("维修-2026/117".into())));
    for wrong in ["", "   ", "a\u{7}b", &"x".repeat(65)] {
        assert_eq!(take_order(wrong), Err(TypedError::Order), "{wrong:?}");
    }
}
