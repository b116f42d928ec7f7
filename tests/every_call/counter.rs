//! The counter's part of a day: a card is given out and topped up, its purse booked by
//! intent and outcome; people, shifts, batches, questions; headquarters' orders. And
//! whether the day has every kind of write the store knows.

use std::collections::BTreeSet;

use baygate::card::purse::changes::adjust;
use baygate::card::purse::{Caps, Context};
use baygate::clock::UtcMillis;
use baygate::config::purse::PurseTable;
use baygate::event::card::{CounterWord, Technology};
use baygate::event::ledger::{CardStanding, CardType, ListedMember};
use baygate::ident::{CardNo, Epoch, Seq};
use baygate::money::{Fen, Holding};
use baygate::store::batches::{BatchOp, NewRow};
use baygate::store::card_pins::{CardPinOp, PinDeed};
use baygate::store::clock_mark::{ClockMark, ClockOp};
use baygate::store::confirmations::{self, ConfirmationOp};
use baygate::store::counter_words::CounterWordsOp;
use baygate::store::hotlist::HotlistOp;
use baygate::store::ledger::{self, End, Evidence, NewTransaction, State, TransactionRow};
use baygate::store::ledger_cards::{self, By, SeenCard};
use baygate::store::operators::{Deed, OperatorOp, PinHash};
use baygate::store::requests::{NewRequest, RequestOp, RequestState};
use baygate::store::shifts::ShiftOp;
use baygate::store::{Batch, Op, card_reports, members};
use serde_json::json;
use uuid::Uuid;

use super::story::{Part, Step, THEN, blob, id, one};

/// All kinds of writes. A new one does not compile until it is named here, and is missing until a
/// step has it.
macro_rules! kinds {
    ($($kind:ident)*) => {
        const KINDS: &[&str] = &[$(stringify!($kind)),*];

        fn kind(op: &Op) -> &'static str {
            match op {
                $(Op::$kind(_) => stringify!($kind)),*
            }
        }
    };
}
kinds!(Device Visit Warning Job Request Batch Confirmation Ledger Card Cursor Outbox Command Report Member
       CardPin Hotlist CounterWords Clock Token Operator Shift);

/// Kinds of writes that no step has.
pub fn missing(steps: &[Step]) -> Vec<&'static str> {
    let had: BTreeSet<&str> = super::story::parts(steps).flat_map(|part| &part.batch.ops).map(kind).collect();
    KINDS.iter().copied().filter(|kind| !had.contains(kind)).collect()
}

fn card_no(number: &str) -> CardNo {
    number.parse().unwrap()
}

fn by() -> By {
    By { operator: "li".into(), till: "till-1".parse().unwrap() }
}

fn request(number: u128, kind: &'static str) -> NewRequest {
    NewRequest {
        id: id(number),
        kind,
        target: "counter-1".into(),
        scope: "till-1".into(),
        idempotency_key: Some(format!("key-{number}")),
        body: json!({ "what": kind }),
    }
}

fn count(table: &str, which: &str) -> String {
    format!("SELECT count(*) FROM {table} WHERE {which}")
}

/// A batch that the store's own functions made: its events get ids of their own, from `number` on.
fn made(name: &str, batch: Batch, probes: &[String], number: u128) -> Part {
    let part = Part::new(name);
    let part = batch.ops.into_iter().zip(probes).fold(part, |part, (op, probe)| part.op(op, probe.clone()));
    assert_eq!(part.probes.len(), probes.len(), "{name}: a probe for each");
    (number..).zip(batch.events).fold(part, |part, (number, mut event)| {
        (event.id, event.time) = (id(number), THEN);
        part.event(event)
    })
}

fn card() -> SeenCard {
    SeenCard {
        card_no: card_no("8800001"),
        uid: "04A1B2C3".parse().unwrap(),
        technology: Technology::Desfire,
        card_type: CardType::Named,
        issuing_store: "SH-0042".parse().unwrap(),
        valid_until: None,
        holding: Holding::default(),
    }
}

/// One fen more on the card: the intent as it goes in, and its row as the journal gives it.
fn top_up(transaction_id: Uuid) -> (NewTransaction, TransactionRow) {
    let plan = adjust(Fen(1), Fen(0), 0).unwrap();
    let context = Context {
        transaction_id,
        card_no: card_no("8800001"),
        uid: card().uid,
        issuing_store: card().issuing_store,
        operator: "li".into(),
        till: "till-1".parse().unwrap(),
        order: None,
        offline: false,
        idempotency_key: "key-200".into(),
    };
    let caps = Caps::of(&PurseTable::default(), CardType::Named, 4);
    let (before, after) = (Holding::default(), plan.after(&Holding::default(), &caps).unwrap());
    let new = NewTransaction {
        fact: plan.fact(&context).unwrap(),
        technology: Technology::Desfire,
        business_day: "2026-11-21".into(),
        before: before.clone(),
        after: after.clone(),
        earlier: Vec::new(),
        takes_fen: Fen(0),
        day_cap: None,
    };
    let mut fact = new.fact.clone();
    (fact.balance_after_fen, fact.points_after, fact.counter) =
        (after.balance(), Some(after.points), Some(after.counter));
    let row = TransactionRow {
        no: 1,
        fact,
        state: State::Intent,
        business_day: new.business_day.clone(),
        technology: new.technology,
        before,
        after,
        begun_at: THEN,
        ended_at: None,
        told_unknown: false,
    };
    (new, row)
}

pub fn counter() -> Vec<Step> {
    let purse = id(200);
    let (new, row) = top_up(purse);
    let intent = ledger::intend(new).unwrap();
    let outcome = row.end(End::Committed(Evidence::default())).unwrap();
    let settle = RequestOp::Settle { id: purse, state: RequestState::Done, outcome: json!({}) };
    let transaction = |state: &str| count("card_transaction", &format!("id = {} AND {state}", blob(purse)));
    let asked = |number| count("request", &format!("id = {}", blob(id(number))));
    let given = ledger_cards::issued(card(), None, "2026-11-21".into(), by()).unwrap();
    let lost = card_no("8800002");
    let report = card_reports::stands(&lost, CardStanding::Active, CardStanding::Lost, None, by()).unwrap();
    let member = ListedMember { card_type: CardType::Named, tier: 1, discount_class: 0, valid_until: None };
    let listed = members::listed(&card_no("8800003"), None, member, "new", by()).unwrap();
    let rows =
        [4, 5].map(|n| NewRow { card_no: card_no(&format!("880000{n}")), asked: json!({}), face: None });
    let operator = OperatorOp {
        operator: "li".into(),
        place: "control".into(),
        deed: Deed::Add {
            name: "李".into(), role: "cashier", pin: PinHash("$argon2id$".into()), card: None
        },
    };
    let pin = CardPinOp { card_no: card_no("8800001"), deed: PinDeed::Set(PinHash("$argon2id$".into())) };
    let stopped = HotlistOp::Put { version: 7, as_of: THEN, cards: vec![card_no("8800006")] };
    let word = (card_no("8800006"), CounterWord::default());
    let words = CounterWordsOp { as_of: THEN, words: vec![word] };
    let mark = ClockMark { boot: id(207), wall_at_boot: UtcMillis(0), epoch: Epoch(id(208)), first: Seq(1) };
    vec![
        one(made("give-out", given, &[count("member_card", "card_no = '8800001'")], 220)),
        // The intent is on the disk before the first byte goes to the card.
        one(Part::new("intent")
            .op(Op::Request(RequestOp::Insert(request(200, "card.top-up"))), asked(200))
            .op(intent, transaction("1"))),
        one(made("outcome", outcome, &[transaction("state = 'committed'")], 222)
            .op(Op::Request(settle), count("request", &format!("id = {} AND state = 'done'", blob(purse))))),
        one(Part::new("open-till")
            .op(Op::Operator(operator), count("operator", "id = 'li'"))
            .op(
                Op::Shift(ShiftOp::Open { id: id(201), till: "till-1".into(), by: "li".into() }),
                count("shift", &format!("id = {}", blob(id(201)))),
            )
            .op(Op::Confirmation(ConfirmationOp::Ask(request(202, confirmations::KIND))), asked(202))
            // The batch itself is a request; rows without one are swept away.
            .op(Op::Request(RequestOp::Insert(request(203, "card.batch"))), asked(203))
            .op(
                Op::Batch(BatchOp::Insert { batch: id(203), rows: rows.to_vec() }),
                format!("{} AND n = 2", count("batch_row", &format!("batch = {}", blob(id(203))))),
            )),
        one(made("card-lost", report, &[count("card_report", "card_no = '8800002'")], 224)),
        one(made("list-member", listed, &[count("listed_member", "card_no = '8800003'")], 226)
            .op(Op::CardPin(pin), count("card_pin", "card_no = '8800001'"))
            .op(Op::Hotlist(stopped), count("hotlist", "card_no = '8800006'"))
            .op(Op::CounterWords(words), count("counter_word", "card_no = '8800006'"))
            .op(Op::Clock(ClockOp::Mark(mark)), count("meta", "key = 'clock'"))),
    ]
}
