//! The figures of the day add up to the ledger: random histories of cards, operators, tills and
//! days, against a sum over what headquarters was told; the same over real HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ledger_rows;
#[path = "support/seed.rs"]
mod seed;
mod served;

use std::collections::BTreeMap;

use baygate::event::Class;
use baygate::event::ledger::{CardTransaction, CardType, Category, Outcome, TenderKind, TransactionKind};
use baygate::store::Store;
use baygate::store::ledger::{End, Evidence};
use baygate::store::ledger_cards::SeenCard;
use baygate::store::outbox::ClassCursor;
use ledger_rows::{DAYS, Deed, begin, card, end, give_out, tap};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use served::{Served, Setup};
use uuid::Uuid;

const OPERATORS: [&str; 3] = ["li.wei", "wang.fang", "zhao.min"];
const TILLS: [&str; 2] = ["till-1", "till-2"];
const TENDERS: [TenderKind; 7] = [
    TenderKind::Purse,
    TenderKind::Points,
    TenderKind::Coupon,
    TenderKind::Cash,
    TenderKind::Wechat,
    TenderKind::Alipay,
    TenderKind::Bank,
];
/// Cards of a history.
const CARDS: usize = 4;

/// How a transaction goes on.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Committed,
    Aborted,
    UnknownThenCommitted,
    UnknownThenAborted,
    /// Told as unknown and left so.
    Unknown,
    /// Never ended.
    Open,
    Parked,
}

fn deeds() -> impl Strategy<Value = (usize, Deed, Fate)> {
    let amounts = (-500_i64..2_000, -50_i64..200, -20_i64..100, 0_i64..60, 0_i64..60, 0_i64..300);
    let tenders = prop::collection::vec((prop::sample::select(&TENDERS[..]), 0_i64..5_000), 0..4);
    let extras = (prop::option::of(1_u32..5), 0_u32..4, tenders);
    let place = (
        prop::sample::select(&OPERATORS[..]),
        prop::sample::select(&TILLS[..]),
        prop::sample::select(&DAYS[..]),
    );
    let fate = prop::sample::select(
        &[
            Fate::Committed,
            Fate::Committed,
            Fate::Committed,
            Fate::Aborted,
            Fate::UnknownThenCommitted,
            Fate::UnknownThenAborted,
            Fate::Unknown,
            Fate::Open,
            Fate::Parked,
        ][..],
    );
    let kind = prop::sample::select(&TransactionKind::ALL[..]);
    (0..CARDS, kind, amounts, extras, place, fate).prop_map(|(card, kind, amounts, extras, place, fate)| {
        let (principal, bonus, points, earned, used, discount) = amounts;
        let (coupon, gifts, tenders) = extras;
        let (operator, till, day) = place;
        let deed = Deed {
            kind,
            principal,
            bonus,
            points,
            earned,
            used,
            discount,
            coupon,
            gifts,
            tenders,
            operator,
            till,
            day,
        };
        (card, deed, fate)
    })
}

/// What the test itself remembers of a history.
#[derive(Default)]
struct Memory {
    days: BTreeMap<Uuid, &'static str>,
    issued: BTreeMap<(&'static str, &'static str, &'static str), u64>,
}

async fn play(store: &Store, steps: &[(usize, Deed, Fate)]) -> Memory {
    let mut memory = Memory::default();
    let mut cards: Vec<SeenCard> = Vec::new();
    for n in 0..CARDS {
        let (card, day) = (card(n.try_into().unwrap(), CardType::Named), DAYS[n % 2]);
        let (operator, till) = (OPERATORS[n % 3], TILLS[n / 2]);
        give_out(store, &card, day, operator, till).await;
        *memory.issued.entry((day, operator, till)).or_default() += 1;
        cards.push(card);
    }
    for (n, deed, fate) in steps {
        let card = &mut cards[*n];
        let card_no = card.card_no.clone();
        // What waits for its tap comes first, as at a counter; the card was not written.
        if let Some(open) = store.read(move |r| r.open_transaction(&card_no)).await.unwrap() {
            end(store, card, open.fact.transaction_id, End::Aborted).await;
        }
        tap(store, card).await;
        let id = begin(store, card, deed).await.fact.transaction_id;
        memory.days.insert(id, deed.day);
        let ends = match fate {
            Fate::Committed => vec![End::Committed(Evidence::default())],
            Fate::Aborted => vec![End::Aborted],
            Fate::UnknownThenCommitted => vec![End::Unknown, End::Committed(Evidence::default())],
            Fate::UnknownThenAborted => vec![End::Unknown, End::Aborted],
            Fate::Unknown => vec![End::Unknown],
            Fate::Open => vec![],
            Fate::Parked => vec![End::Parked(Evidence::default())],
        };
        for how in ends {
            end(store, card, id, how).await;
        }
    }
    memory
}

/// The last that headquarters was told of each transaction.
async fn told(store: &Store) -> BTreeMap<Uuid, CardTransaction> {
    let (mut facts, mut after) = (BTreeMap::new(), ClassCursor::default());
    loop {
        let page = store.read(move |r| r.class_events_after(Class::Ledger, after, 100)).await.unwrap();
        let Some(last) = page.last() else { return facts };
        after = last.cursor;
        for logged in page.iter().filter(|logged| logged.event.kind == "card.transaction") {
            let fact: CardTransaction = logged.event.data_as().unwrap();
            facts.insert(fact.transaction_id, fact);
        }
    }
}

fn name(value: impl serde::Serialize) -> String {
    json!(value).as_str().unwrap().to_owned()
}

/// Adds to a number of a JSON object.
fn add(object: &mut Map<String, Value>, member: &str, by: i64) {
    let sum = object.get(member).and_then(Value::as_i64).unwrap_or(0) + by;
    object.insert(member.into(), json!(sum));
}

/// Sums, and tenders.
type Told = (Map<String, Value>, Map<String, Value>);

/// The sums of some facts by kind, worked out here and in no other place.
fn kinds<'f>(facts: impl Iterator<Item = &'f CardTransaction>) -> Value {
    let mut kinds: BTreeMap<String, Told> = BTreeMap::new();
    for fact in facts {
        let (sum, tenders) = kinds.entry(name(fact.kind)).or_default();
        let gifts =
            fact.items.iter().filter(|item| item.category == Category::Gift).map(|item| item.quantity);
        for (member, by) in [
            ("count", 1),
            ("amount_fen", fact.principal_fen.0 + fact.bonus_fen.0),
            ("principal_fen", fact.principal_fen.0),
            ("bonus_fen", fact.bonus_fen.0),
            ("points", fact.points),
            ("points_earned", fact.points_earned),
            ("points_used", fact.points_used),
            ("discount_fen", fact.discount_fen.unwrap_or_default().0),
            ("coupons", sign(fact) * i64::from(fact.coupon.is_some())),
            ("gifts", sign(fact) * i64::from(gifts.sum::<u32>())),
        ] {
            add(sum, member, by);
        }
        for tender in &fact.tenders {
            add(tenders, &name(tender.kind), sign(fact) * tender.amount_fen.0);
        }
    }
    let whole = |(kind, (mut sum, tenders)): (String, Told)| {
        sum.insert("tenders".into(), Value::Object(tenders));
        (kind, Value::Object(sum))
    };
    Value::Object(kinds.into_iter().map(whole).collect())
}

fn sign(fact: &CardTransaction) -> i64 {
    if matches!(fact.kind, TransactionKind::Refund | TransactionKind::Void) { -1 } else { 1 }
}

/// What `/v1/stats` has to say of a day.
fn expected(day: &str, memory: &Memory, told: &BTreeMap<Uuid, CardTransaction>) -> Value {
    let facts: Vec<&CardTransaction> = told
        .values()
        .filter(|fact| fact.outcome == Outcome::Committed && memory.days[&fact.transaction_id] == day)
        .collect();
    let issued = |which: &dyn Fn(&str, &str) -> bool| -> u64 {
        let of = memory.issued.iter().filter(|((on, who, at), _)| *on == day && which(who, at));
        of.map(|(_, cards)| cards).sum()
    };
    let share = |member: &str, who: &str, which: &dyn Fn(&str, &str) -> bool| {
        let mine = facts.iter().copied().filter(|fact| which(&fact.operator, fact.till.as_str()));
        let (cards, kinds) = (issued(which), kinds(mine));
        let nothing = cards == 0 && kinds == json!({});
        (!nothing).then(|| json!({ member: who, "issued": cards, "kinds": kinds }))
    };
    let by_operator: Vec<_> =
        OPERATORS.iter().filter_map(|who| share("operator", who, &|operator, _| operator == *who)).collect();
    let by_till: Vec<_> = TILLS.iter().filter_map(|at| share("till", at, &|_, till| till == *at)).collect();
    let by_tender: Vec<_> = TENDERS
        .iter()
        .filter_map(|kind| {
            let used: Vec<_> =
                facts.iter().filter(|fact| fact.tenders.iter().any(|tender| tender.kind == *kind)).collect();
            let fen = |fact: &CardTransaction| {
                let mine = fact.tenders.iter().filter(|tender| tender.kind == *kind);
                sign(fact) * mine.map(|tender| tender.amount_fen.0).sum::<i64>()
            };
            let sum: i64 = used.iter().map(|fact| fen(fact)).sum();
            (!used.is_empty())
                .then(|| json!({ "tender": name(kind), "count": used.len(), "amount_fen": sum }))
        })
        .collect();
    let settled = |id: &Uuid| told.get(id).is_some_and(|fact| fact.outcome != Outcome::Unknown);
    let unsettled = memory.days.iter().filter(|(id, on)| **on == day && !settled(id)).count();
    json!({
        "day": day, "business_day_start": "04:00", "timezone": "UTC",
        "issued": issued(&|_, _| true), "unsettled": unsettled, "total": kinds(facts.iter().copied()),
        "by_operator": by_operator, "by_till": by_till, "by_tender": by_tender,
    })
}

/// Every number of the lists, added up, is that of the total.
fn lists_add_up(stats: &Value) {
    for list in ["by_operator", "by_till"] {
        let shares = stats[list].as_array().unwrap();
        for (kind, sum) in stats["total"].as_object().unwrap() {
            for (member, total) in sum.as_object().unwrap().iter().filter(|(_, total)| total.is_i64()) {
                let parts = shares.iter().filter_map(|share| share["kinds"][kind][member].as_i64());
                assert_eq!(json!(parts.sum::<i64>()), *total, "{list} {kind} {member}");
            }
        }
    }
    for tender in stats["by_tender"].as_array().unwrap() {
        let kinds = stats["total"].as_object().unwrap().values();
        let name = tender["tender"].as_str().unwrap();
        let parts = kinds.filter_map(|sum| sum["tenders"][name].as_i64());
        assert_eq!(json!(parts.sum::<i64>()), tender["amount_fen"], "{name}");
    }
}

async fn judge(served: &Served, steps: &[(usize, Deed, Fate)]) {
    let memory = play(&served.store, steps).await;
    let told = told(&served.store).await;
    let token = served.token(&["read"]).await;
    for day in DAYS {
        let stats = served.get(&token, &format!("/v1/stats?day={day}")).await.json();
        assert_eq!(stats, expected(day, &memory, &told));
        lists_add_up(&stats);
    }
}

proptest! {
    #![proptest_config(seed::cases(16))]

    #[test]
    fn figures_add_up_to_the_ledger(steps in prop::collection::vec(deeds(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Box::pin(async {
            let served = Setup::new().serve().await;
            judge(&served, &steps).await;
            served.stop().await;
        }));
    }
}

#[tokio::test]
async fn a_day_without_anything_and_days_that_are_none() {
    let served = Setup::new().serve().await;
    let token = served.token(&["read"]).await;
    let empty = served.get(&token, "/v1/stats?day=2024-02-29").await.json();
    let nothing = json!({
        "day": "2024-02-29", "business_day_start": "04:00", "timezone": "UTC", "issued": 0, "unsettled": 0,
        "total": {}, "by_operator": [], "by_till": [], "by_tender": [],
    });
    assert_eq!(empty, nothing);
    // Today's, when none is named.
    let today = served.get(&token, "/v1/stats").await.json()["day"].as_str().unwrap().to_owned();
    assert!(today.parse::<jiff::civil::Date>().is_ok(), "{today}");
    for bad in ["2026-02-29", "yesterday", "", "2026-11-22T00:00:00Z%00"] {
        let refused = served.get(&token, &format!("/v1/stats?day={bad}")).await;
        assert_eq!(refused.problem(), (422, "day-invalid".into()), "{bad}");
    }
    let other = served.token(&["vehicle"]).await;
    assert_eq!(served.get(&other, "/v1/stats").await.problem(), (403, "scope-missing".into()));
    served.stop().await;
}
