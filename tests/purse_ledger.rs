//! The journal itself: readers and refunds that race, limits, and cards that are not what they were;
//! killed at any moment, damaged and full: `harm`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "purse_ledger/harm.rs"]
mod harm;
mod purse_counter;
mod store_setup;

use baygate::card::purse::changes::adjust;
use baygate::card::purse::journal::Journal;
use baygate::card::purse::quote::{Sale, quote};
use baygate::card::purse::settle::{Became, Standing};
use baygate::card::purse::{Caps, Plan};
use baygate::config::purse::PurseTable;
use baygate::event::Class;
use baygate::event::card::Technology;
use baygate::event::ledger::{
    CardStanding, CardStatus, CardType, Category, Counters, Item, Outcome, Proof, Tender, TenderKind,
};
use baygate::money::{Fen, Holding};
use baygate::store::ledger::{End, Evidence, NewTransaction, State};
use baygate::store::ledger_cards::{By, issued};
use baygate::store::outbox::ClassCursor;
use baygate::store::requests::{NewRequest, RequestOp, RequestState};
use baygate::store::{Batch, Op, Store, StoreError};
use purse_counter::{DAYS, FakeCard, Shop, request, told, transaction};
use store_setup::options;
use uuid::Uuid;

fn plan(fen: i64) -> Plan {
    adjust(Fen(fen), Fen(0), 0).unwrap()
}

fn after(plan: &Plan, holding: &Holding) -> Holding {
    plan.after(holding, &Caps::of(&PurseTable::default(), CardType::Named, 4)).unwrap()
}

/// Tap, intent; gives its id and what the card is to hold.
async fn begin(shop: &Shop, card: &FakeCard, plan: &Plan) -> (Uuid, Holding) {
    assert!(shop.tap(card).await.standing.is_ok());
    let after = after(plan, &card.holding);
    let new = transaction(card, plan, shop.ask(card).await, &after, vec![], DAYS[0]);
    (shop.journal().begin(new).await.unwrap().fact.transaction_id, after)
}

async fn done(shop: &Shop, card: &mut FakeCard, fen: i64) -> Uuid {
    let (id, after) = begin(shop, card, &plan(fen)).await;
    card.write(&after, id);
    shop.journal().end(id, End::Committed(Evidence::default())).await.unwrap();
    id
}

async fn statuses(store: &Store) -> Vec<CardStatus> {
    let events =
        store.read(|r| r.class_events_after(Class::Ledger, ClassCursor::default(), 500)).await.unwrap();
    let of = events.iter().filter(|logged| logged.event.kind == "card.status");
    of.map(|logged| logged.event.data_as().unwrap()).collect()
}

#[tokio::test]
async fn an_answer_that_nobody_has_follows_the_key_to_its_end() {
    let shop = Shop::open().await;
    let mut card = FakeCard::new(1);
    let (id, after) = begin(&shop, &card, &plan(500)).await;
    let asked = || async { shop.store().read(move |r| r.request(id)).await.unwrap().unwrap() };
    assert_eq!(asked().await.state, RequestState::Running);
    card.write(&after, id);
    let first = shop.journal().end(id, End::Unknown).await.unwrap();
    assert_eq!((first.outcome, first.balance_after_fen, first.counter), (Outcome::Unknown, None, None));
    assert_eq!(asked().await.state, RequestState::Running, "whoever asks gets 202");
    // The same key with another body is a conflict, whatever came of the first.
    let row = asked().await;
    let other = NewRequest {
        id: Uuid::now_v7(),
        kind: "card.transaction",
        target: "counter-1".into(),
        scope: "till-1".into(),
        idempotency_key: Some(first.idempotency_key.clone()),
        body: serde_json::json!({ "card_no": "another" }),
    };
    let insert = Batch::new().op(Op::Request(RequestOp::Insert(other)));
    assert!(matches!(shop.store().commit(insert).await, Err(StoreError::KeyConflict)), "{row:?}");
    // What the card signed is not lost with the answer.
    let counters = Some(Counters { online: 3, offline: 4 });
    let evidence = Evidence { counters, proof: None };
    let tap = shop.journal().tap(card.seen(), card.last, evidence).await.unwrap();
    assert_eq!((tap.standing, tap.settled.map(|(settled, _)| settled)), (Ok(Standing::Same), Some(id)));
    assert_eq!(asked().await.state, RequestState::Done);
    let told = told(shop.store()).await;
    assert_eq!(told.len(), 2);
    assert_eq!(
        (told[1].outcome, told[1].settles, told[1].counter),
        (Outcome::Committed, Some(true), Some(1))
    );
    assert_eq!((told[1].balance_after_fen, told[1].counters), (Some(Fen(500)), counters));
}

/// Pulled before the write, laid on another reader, brought back and written.
#[tokio::test]
async fn no_tap_decides_what_another_reader_writes() {
    let shop = Shop::open().await;
    let mut card = FakeCard::new(1);
    assert!(shop.tap(&card).await.standing.is_ok());
    let after = after(&plan(500), &card.holding);
    let new = transaction(&card, &plan(500), shop.ask(&card).await, &after, vec![], DAYS[0]);
    let in_hand = shop.journal().begin(new).await.unwrap();
    let id = in_hand.fact.transaction_id;
    // The other reader has a journal of its own.
    let elsewhere = Journal::new(shop.store().clone()).tap(card.seen(), card.last, Evidence::default()).await;
    assert!(matches!(elsewhere, Err(StoreError::LedgerRefused { .. })), "{elsewhere:?}");
    card.write(&after, id);
    let told = shop.journal().end(id, End::Committed(Evidence::default())).await.unwrap();
    assert_eq!((told.outcome, told.counter), (Outcome::Committed, Some(1)));
    drop(in_hand);
    assert_eq!(shop.tap(&card).await.standing, Ok(Standing::Same));
    // Who gave the card up leaves it to the next tap.
    let (given_up, _) = begin(&shop, &card, &plan(1)).await;
    assert_eq!(shop.tap(&card).await.settled, Some((given_up, Became::Aborted)));
}

#[tokio::test]
async fn cards_that_are_not_what_they_were_are_held() {
    // (what, the card as it comes back, code)
    type Change = fn(&mut FakeCard);
    let cases: [(&str, Change, &str); 4] = [
        ("an old image", |card| card.holding = Holding::default(), "counter-behind"),
        ("another past", |card| card.holding.principal_fen = Fen(9_999), "counter-forked"),
        ("another chip", |card| card.uid = "04FFFFFF".parse().unwrap(), "uid-differs"),
        ("a coupon more", |card| card.holding.coupons.push(baygate::money::CouponId(1)), "counter-forked"),
    ];
    for (what, change, code) in cases {
        let shop = Shop::open().await;
        let mut card = FakeCard::new(1);
        done(&shop, &mut card, 700).await;
        let mut other = card.clone();
        change(&mut other);
        assert_eq!(shop.tap(&other).await.standing, Err(code.to_owned()), "{what}");
        assert_eq!(shop.tap(&card).await.standing, Err(code.to_owned()), "{what}: which is the true one?");
        let new = transaction(
            &card,
            &plan(1),
            shop.ask(&card).await,
            &after(&plan(1), &card.holding),
            vec![],
            DAYS[0],
        );
        assert!(matches!(shop.journal().begin(new).await, Err(StoreError::LedgerRefused { .. })), "{what}");
        let alarm = &statuses(shop.store()).await[0];
        assert_eq!((alarm.held.as_deref(), alarm.counter_expected), (Some(code), Some(1)), "{what}");
        // A person looks and takes the card in hand for the true one.
        let card_no = card.card_no.clone();
        let row = shop.store().read(move |r| r.member_card(&card_no)).await.unwrap().unwrap();
        let by = By { operator: "zhao".into(), till: "till-1".parse().unwrap() };
        shop.store()
            .commit(row.release(other.seen(), None, Some("compared".into()), by).unwrap())
            .await
            .unwrap();
        assert_eq!(shop.tap(&other).await.standing, Ok(Standing::Same), "{what}");
        done(&shop, &mut other, 1).await;
    }
}

/// A held card with an open transaction: its release parks it, or is refused.
#[tokio::test]
async fn a_release_leaves_nothing_open() {
    let shop = Shop::open().await;
    let mut card = FakeCard::new(1);
    done(&shop, &mut card, 700).await;
    let (id, _) = begin(&shop, &card, &plan(1)).await;
    let copy = FakeCard { uid: "04FFFFFF".parse().unwrap(), ..card.clone() };
    assert_eq!(shop.tap(&copy).await.standing, Err("uid-differs".to_owned()));
    let card_no = card.card_no.clone();
    let row = shop.store().read(move |r| r.member_card(&card_no)).await.unwrap().unwrap();
    let by = || By { operator: "zhao".into(), till: "till-1".parse().unwrap() };
    let another = row.release(FakeCard::new(2).seen(), None, None, by());
    assert!(matches!(another, Err(StoreError::LedgerRefused { .. })), "{another:?}");
    let release = || row.release(copy.seen(), None, None, by()).unwrap();
    let early = shop.store().commit(release()).await;
    assert!(matches!(early, Err(StoreError::LedgerRefused { .. })), "{early:?}");
    let open = shop.open_of(&card).await.unwrap();
    let mut batch = open.end(End::Parked(Evidence::default())).unwrap();
    let Batch { ops, events, .. } = release();
    batch.ops.extend(ops);
    batch.events.extend(events);
    shop.store().commit(batch).await.unwrap();
    assert_eq!(shop.tap(&copy).await.standing, Ok(Standing::Same));
    let state = shop.store().read(move |r| r.transaction_state(id)).await.unwrap();
    assert_eq!(state, Some(State::Parked));
}

/// The card's row is lost with a damaged file, its open transaction is not: another chip with
/// the number does not settle it.
#[tokio::test]
async fn another_chip_does_not_settle_what_is_open() {
    let shop = Shop::open().await;
    let card = FakeCard::new(1);
    begin(&shop, &card, &plan(500)).await;
    let dir = shop.close().await;
    let raw = rusqlite::Connection::open(dir.path().join("baygate.db")).unwrap();
    raw.execute("DELETE FROM member_card", []).unwrap();
    drop(raw);
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    let copy = FakeCard { uid: "04FFFFFF".parse().unwrap(), ..card.clone() };
    let tap = Journal::new(store.clone()).tap(copy.seen(), copy.last, Evidence::default()).await.unwrap();
    assert_eq!((tap.standing, tap.settled), (Err("uid-differs".to_owned()), None));
    assert_eq!(store.read(|r| r.open_transactions()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_card_is_given_out_once_and_stands_as_it_was_told() {
    let shop = Shop::open().await;
    let card = FakeCard::new(1);
    let by = || By { operator: "li".into(), till: "till-1".parse().unwrap() };
    let issue = || issued(card.seen(), Some("gold".into()), DAYS[0].into(), by()).unwrap();
    shop.store().commit(issue()).await.unwrap();
    assert!(matches!(shop.store().commit(issue()).await, Err(StoreError::LedgerRefused { .. })));
    let figures = shop.store().read(|r| r.figures(DAYS[0])).await.unwrap();
    assert_eq!(figures.issued, [("li".to_owned(), "till-1".to_owned(), 1)]);
    let card_no = card.card_no.clone();
    let row = shop.store().read(move |r| r.member_card(&card_no)).await.unwrap().unwrap();
    let lost = || row.stands(CardStanding::Lost, None, by()).unwrap();
    shop.store().commit(lost()).await.unwrap();
    assert!(shop.store().commit(lost()).await.is_err(), "once");
    assert_eq!(statuses(shop.store()).await.len(), 1, "the second left no event");
}

#[tokio::test]
async fn refunds_that_race_are_one() {
    let shop = Shop::open().await;
    let (mut card, mut other) = (FakeCard::new(1), FakeCard::new(2));
    let original = done(&shop, &mut card, 700).await;
    assert!(shop.tap(&other).await.standing.is_ok());
    // Two tills ask at the same time for the same original, on the card and on the one that took its place.
    let mut intents = Vec::new();
    for card in [&card, &other] {
        let mut back = plan(10);
        back.original = Some(original);
        let after = after(&back, &card.holding);
        intents.push(transaction(card, &back, shop.ask(card).await, &after, vec![], DAYS[0]));
    }
    let second = intents.pop().unwrap();
    let row = shop.journal().begin(intents.pop().unwrap()).await.unwrap();
    assert!(matches!(shop.journal().begin(second.clone()).await, Err(StoreError::LedgerRefused { .. })));
    let first = row.fact.transaction_id;
    shop.journal().end(first, End::Aborted).await.unwrap();
    let row = shop.journal().begin(second.clone()).await.unwrap();
    other.write(&row.after, row.fact.transaction_id);
    shop.journal().end(row.fact.transaction_id, End::Committed(Evidence::default())).await.unwrap();
    let of = shop.store().read(move |r| r.following(original)).await.unwrap();
    assert_eq!(
        of.iter().map(|row| (row.fact.transaction_id, row.state)).collect::<Vec<_>>(),
        [(row.fact.transaction_id, State::Committed)]
    );
    // Judged when one stood there that came to nothing, begun when there is another: as many, not the same.
    assert!(shop.tap(&card).await.standing.is_ok());
    let mut back = plan(10);
    back.original = Some(original);
    let after = after(&back, &card.holding);
    let late = |earlier| transaction(&card, &back, request(&card), &after, earlier, DAYS[0]);
    let refused = shop.journal().begin(late(vec![first])).await;
    assert!(matches!(refused, Err(StoreError::LedgerRefused { .. })), "{refused:?}");
    drop(shop.journal().begin(late(vec![row.fact.transaction_id])).await.unwrap());
}

/// What was judged in an earlier read is judged again where nothing comes between.
#[tokio::test]
async fn what_changed_since_it_was_judged_is_not_begun() {
    for what in ["the card was blocked", "the original was aborted", "the request was settled"] {
        let shop = Shop::open().await;
        let card = FakeCard::new(1);
        let (original, _) = begin(&shop, &card, &plan(5)).await;
        shop.journal().end(original, End::Aborted).await.unwrap();
        let mut next = plan(10);
        next.original = (what == "the original was aborted").then_some(original);
        let asked = shop.ask(&card).await;
        let new = transaction(&card, &next, asked.clone(), &after(&next, &card.holding), vec![], DAYS[0]);
        match what {
            "the card was blocked" => {
                let card_no = card.card_no.clone();
                let row = shop.store().read(move |r| r.member_card(&card_no)).await.unwrap().unwrap();
                let by = By { operator: "zhao".into(), till: "till-1".parse().unwrap() };
                shop.store().commit(row.stands(CardStanding::Blocked, None, by).unwrap()).await.unwrap();
            }
            "the request was settled" => {
                let (state, outcome) = (RequestState::Failed, serde_json::json!({}));
                let settle = RequestOp::Settle { id: asked.id, state, outcome };
                shop.store().commit(Batch::new().op(Op::Request(settle))).await.unwrap();
            }
            _ => {}
        }
        let refused = shop.journal().begin(new).await;
        assert!(matches!(refused, Err(StoreError::LedgerRefused { .. })), "{what}: {refused:?}");
    }
}

/// Whatever the card was written with can be told: else it would be refused before.
#[tokio::test]
async fn what_could_not_be_told_is_never_begun() {
    let shop = Shop::open().await;
    let mut card = FakeCard::new(1);
    assert!(shop.tap(&card).await.standing.is_ok());
    // The largest sale there is, with names that are twice as long in JSON.
    let item =
        Item { sku: "\"".repeat(64), category: Category::Labour, quantity: 10_000, price_fen: Fen(999) };
    let tenders = vec![Tender { kind: TenderKind::Wechat, amount_fen: Fen(999_000_000) }];
    let sale = Sale { items: vec![item; 100], tenders, ..Sale::default() };
    let largest = quote(&card.holding, &sale, &PurseTable::default()).unwrap();
    let after = after(&largest, &card.holding);
    let new = transaction(&card, &largest, shop.ask(&card).await, &after, vec![], DAYS[0]);
    let mut longer = new.clone();
    longer.fact.operator = "x".repeat(10_000);
    let refused = shop.journal().begin(longer).await;
    assert!(matches!(refused, Err(StoreError::LedgerRefused { .. })), "{refused:?}");
    let id = shop.journal().begin(new).await.unwrap().fact.transaction_id;
    card.write(&after, id);
    shop.journal().end(id, End::Unknown).await.unwrap();
    let proof = Proof {
        tac: "F".repeat(16),
        terminal_id: "F".repeat(12),
        terminal_sequence: u64::MAX,
        key_version: 255,
        algorithm: 255,
    };
    let counters = Some(Counters { online: u32::MAX, offline: u32::MAX });
    let told =
        shop.journal().end(id, End::Committed(Evidence { counters, proof: Some(proof) })).await.unwrap();
    assert_eq!(told.settles, Some(true));
}

#[tokio::test]
async fn limits_count_what_is_not_settled() {
    let shop = Shop::open().await;
    let mut card = FakeCard::new(1);
    done(&shop, &mut card, 10_000).await;
    done(&shop, &mut card, -300).await;
    let (id, _) = begin(&shop, &card, &plan(-50)).await;
    let card_no = card.card_no.clone();
    let spent = || {
        let card_no = card_no.clone();
        let (store, technology) = (shop.store().clone(), Technology::Desfire);
        async move { store.read(move |r| r.offline_spent(DAYS[0], technology, &card_no)).await.unwrap() }
    };
    assert_eq!(spent().await, (350, 350));
    shop.journal().end(id, End::Aborted).await.unwrap();
    assert_eq!(spent().await, (300, 300));
}

/// Each reader was permitted by what it had read: together they would be over the day's limit.
#[tokio::test]
async fn two_readers_do_not_pass_the_days_limit() {
    let shop = Shop::open().await;
    let mut cards = [FakeCard::new(1), FakeCard::new(2)];
    let mut intents = Vec::new();
    for card in &mut cards {
        done(&shop, card, 10_000).await;
        // Points count at their worth.
        let pay = adjust(Fen(-500), Fen(0), 0).unwrap();
        let new = transaction(card, &pay, shop.ask(card).await, &after(&pay, &card.holding), vec![], DAYS[0]);
        intents.push(NewTransaction { day_cap: Some(Fen(1_000)), takes_fen: Fen(501), ..new });
    }
    let _first = shop.journal().begin(intents.remove(0)).await.unwrap();
    let second = shop.journal().begin(intents.remove(0)).await;
    assert!(matches!(second, Err(StoreError::LedgerRefused { .. })), "{second:?}");
}
