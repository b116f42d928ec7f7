//! What headquarters may send for the counter, and what a till is told of it.

use std::time::Duration;

use jiff::civil::date;
use serde_json::json;

use super::*;

const NOW: UtcMillis = UtcMillis(1_795_334_400_000); // 2026-11-22T08:00:00Z

fn words(args: &Value) -> Result<Words, String> {
    read(args, NOW)
}

fn one(member: &Value) -> Result<Words, String> {
    words(&json!({ "members": [member] }))
}

#[test]
fn taken_whole_or_not_at_all() {
    let offer = json!({ "id": "oil-50", "text": "机油八折", "valid_until": "2026-12-31", "later": 1 });
    let due = json!({ "kind": "insurance", "due_on": "2026-12-20", "text": "交强险到期" });
    let later = json!({ "kind": "tyres", "due_in": 7 });
    let member = json!({ "card_no": "8800000042", "level": "金卡", "next_contact": "2026-12-01",
        "offers": [offer], "reminders": [later, due], "later": true });
    let taken =
        words(&json!({ "as_of": "2026-11-22T07:00:00.000Z", "members": [member, { "card_no": "1" }] }));
    let Words { op, left_out } = taken.unwrap();
    assert_eq!((op.as_of, left_out), (UtcMillis(NOW.0 - 3_600_000), 1));
    assert_eq!(op.words[1], ("1".parse().unwrap(), CounterWord::default()), "nothing from now on");
    let word = &op.words[0].1;
    assert_eq!((word.level.as_deref(), word.next_contact), (Some("金卡"), Some(date(2026, 12, 1))));
    assert_eq!(
        (word.offers[0].id.as_str(), word.offers[0].valid_until),
        ("oil-50", Some(date(2026, 12, 31)))
    );
    assert_eq!((word.reminders.len(), word.reminders[0].kind), (1, ReminderKind::Insurance));

    let long = |most| "字".repeat(most + 1);
    for (wrong, why) in [
        (json!({ "card_no": "8800000042", "level": "" }), "member 8800000042: level"),
        (json!({ "card_no": "8800000042", "level": long(MOST_NAME) }), "level"),
        (json!({ "card_no": "8800000042", "level": "a\nb" }), "control"),
        (json!({ "card_no": "8800000042", "offers": [{ "id": "a", "text": long(MOST_TEXT) }] }), "texts"),
        (json!({ "card_no": "8800000042", "offers": [{ "id": "", "text": "a" }] }), "offers[].id"),
        (
            json!({ "card_no": "8800000042", "offers": vec![json!({ "id": "a", "text": "a" }); 9] }),
            "at most 8",
        ),
        (json!({ "card_no": "8800000042", "reminders": vec![due.clone(); 9] }), "at most 8"),
        (json!({ "card_no": "8800000042", "reminders": [{ "kind": "recall", "text": "a" }] }), "due_on"),
        (json!({ "card_no": "8800000042", "reminders": [{ "due_on": "2026-12-20", "text": "a" }] }), "kind"),
        (json!({ "card_no": "8800000042", "next_contact": "soon" }), "args are not"),
        (json!({ "card_no": "a card" }), "args are not"),
    ] {
        let told = one(&wrong).unwrap_err();
        assert!(told.contains(why), "{why} is not in {told}");
    }
    for wrong in [json!(null), json!({}), json!({ "members": [], "as_of": "2026-11-22T08:06:00.000Z" })] {
        assert!(words(&wrong).is_err(), "{wrong}");
    }
    let many = vec![json!({ "card_no": "1" }); MOST_MEMBERS + 1];
    assert!(words(&json!({ "members": many })).is_err());
    // A clock of headquarters that is a minute ahead.
    let ahead = words(&json!({ "members": [], "as_of": "2026-11-22T08:01:00.000Z" })).unwrap();
    assert_eq!(ahead.op.as_of, NOW);
}

#[test]
fn told_with_its_age_and_without_what_is_over() {
    let offer = |id: &str, valid_until| Offer { id: id.into(), text: "a".into(), valid_until };
    let due = Reminder { kind: ReminderKind::Recall, due_on: date(2026, 11, 1), text: "a".into() };
    let offers = vec![
        offer("always", None),
        // In Shanghai it is the 22nd already.
        offer("today", Some(date(2026, 11, 22))),
        offer("over", Some(date(2026, 11, 21))),
    ];
    let word = CounterWord { offers, reminders: vec![due], ..CounterWord::default() };
    let late = UtcMillis(NOW.0 + 10 * 3_600_000); // 02:00 of the 23rd in Shanghai
    // (now, clock, age, offers)
    for (wall, quality, as_of, age, left) in [
        (NOW, TimeQuality::Synced, UtcMillis(NOW.0 - 90_500), Some(90), 2),
        (NOW, TimeQuality::Synced, UtcMillis(NOW.0 + 60_000), Some(0), 2),
        (late, TimeQuality::Synced, NOW, Some(36_000), 1),
        (NOW, TimeQuality::Unsynced, NOW, None, 3),
    ] {
        let reading = Reading { wall, quality, wall_at_boot: UtcMillis(0), steady: Duration::ZERO };
        let stored = StoredWord { as_of, word: word.clone() };
        let told = told(stored, reading, &TimeZone::get("Asia/Shanghai").unwrap());
        assert_eq!((told.data_age_s, told.offers.len()), (age, left), "{wall} {quality:?}");
        assert_eq!(told.reminders, word.reminders, "what is overdue is due");
    }
}
