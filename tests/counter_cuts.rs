//! Cut at every command: a card is issued, topped up and charged through the reader's service,
//! and each command in turn is lost, half done, or answered with an error. Then the card is
//! tapped again: it holds the old or the new, the journal says which, and the sum is right to
//! the fen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
#[path = "support/pcscd.rs"]
mod pcscd;
#[path = "support/port.rs"]
mod port;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use baygate::card::counter::{By, Deal, ISSUE, IssueAsked, PREPARE, TRANSACTION};
use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::{KeyVersion, Purpose};
use baygate::card::member::{MemberPolicy, Members};
use baygate::event::Class;
use baygate::event::ledger::{CardTransaction, CardType, Outcome, Tender, TenderKind, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::{Fen, Holding};
use baygate::protocols::Bundle;
use baygate::sim::card::{CardFault, CardProfile, CardSim, Chip, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::outbox::ClassCursor;
use baygate::store::requests::{NewRequest, RequestOp, RequestRow, RequestState};
use baygate::store::{Batch, Op};
use counter::{Gateway, PATIENCE, pcsc_table, vpcd_table};
use pcscd::Pcscd;
use port::free_port;
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

const STORE: &str = "SH-0042";

fn members() -> Arc<Members> {
    static MEMBERS: OnceLock<Arc<Members>> = OnceLock::new();
    let load = || {
        let bundle = Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")).unwrap();
        let masters = Purpose::ALL.into_iter().enumerate().map(|(place, purpose)| {
            ((KeyVersion(1), purpose), Zeroizing::new([1 + u8::try_from(place).unwrap(); 16]))
        });
        let keys = SealedKeys::new(STORE.parse().unwrap(), KeyVersion(1), masters.collect());
        let policy = MemberPolicy::of(STORE.parse().unwrap(), &["own"], jiff::tz::TimeZone::UTC);
        let layouts = bundle.cards.into_iter().map(Arc::new).collect();
        Arc::new(Members { keys: Arc::new(keys), layouts, policy })
    };
    Arc::clone(MEMBERS.get_or_init(load))
}

fn blank(sim: Sim, n: usize) -> Chip {
    let mut profile = CardProfile::new(sim);
    let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
    let last = profile.uid.len();
    profile.uid[last - 2..].copy_from_slice(&[high, low]);
    profile.direct_transmit = true;
    Chip::new(profile)
}

fn by() -> By {
    By { operator: "li".into(), till: "till-1".parse().unwrap() }
}

struct Shop {
    gateway: Gateway,
    port: u16,
}

impl Shop {
    /// Reads the store until something is found.
    async fn until<T, F>(&self, what: &str, find: F) -> T
    where
        T: Send + 'static,
        F: Fn(&baygate::store::Reader<'_>) -> Option<T> + Send + Clone + 'static,
    {
        let mut head = self.gateway.store.head();
        let wait = async {
            loop {
                head.borrow_and_update();
                let find = find.clone();
                if let Some(found) = self.gateway.store.read(move |r| Ok(find(r))).await.unwrap() {
                    return found;
                }
                head.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    /// Lays a card on the reader and waits until it was told.
    async fn lay(&self, chip: &Chip) -> CardSim {
        let mut chip = chip.clone();
        chip.reset();
        let uid = hex::encode_upper(&chip.profile().uid);
        let card = loop {
            match CardSim::present(("127.0.0.1", self.port), chip.clone()).await {
                Ok(card) => break card,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.until("the tap", move |r| {
            r.cards_in_field().unwrap().iter().any(|row| row.uid.as_str() == uid).then_some(())
        })
        .await;
        card
    }

    async fn take_away(&self, card: CardSim) -> Chip {
        let chip = card.chip();
        card.remove().await;
        self.until("the card is gone", |r| r.cards_in_field().unwrap().is_empty().then_some(())).await;
        chip
    }

    async fn ask(&self, kind: &'static str, body: Value) -> Uuid {
        let request = NewRequest {
            id: Uuid::now_v7(),
            kind,
            target: "counter-1".into(),
            scope: "till-1".into(),
            idempotency_key: Some(Uuid::new_v4().to_string()),
            body,
        };
        let id = request.id;
        self.gateway.store.commit(Batch::new().op(Op::Request(RequestOp::Insert(request)))).await.unwrap();
        id
    }

    /// Waits until it is settled, or nobody knows before the next tap.
    async fn answered(&self, id: Uuid) -> RequestRow {
        self.until("an answer", move |r| {
            let row = r.request(id).unwrap().unwrap();
            let unknown = r.transaction_state(id).unwrap() == Some(State::Unknown);
            let left =
                |row: &RequestRow| row.state == RequestState::Running && row.body["issue"] == json!(id);
            let waits = unknown || r.open_requests(PREPARE, None).unwrap().iter().any(left);
            (row.state.is_settled() || waits).then_some(row)
        })
        .await
    }

    async fn request(&self, id: Uuid) -> RequestRow {
        self.gateway.store.read(move |r| r.request(id)).await.unwrap().unwrap()
    }

    async fn known(&self, card_no: &CardNo) -> Option<Holding> {
        let card_no = card_no.clone();
        let row = self.gateway.store.read(move |r| r.member_card(&card_no)).await.unwrap();
        row.map(|row| {
            assert_eq!(row.held, None);
            row.seen.holding
        })
    }

    /// What was told of class ledger: type and data.
    async fn told(&self) -> Vec<(String, Value)> {
        let (mut told, mut after) = (Vec::new(), ClassCursor::default());
        loop {
            let store = &self.gateway.store;
            let page = store.read(move |r| r.class_events_after(Class::Ledger, after, 500)).await.unwrap();
            let Some(last) = page.last() else { return told };
            after = last.cursor;
            told.extend(page.iter().map(|logged| {
                (logged.event.kind.to_string(), serde_json::from_str(logged.event.data.get()).unwrap())
            }));
        }
    }

    async fn issue(&self, card_no: &CardNo) -> Uuid {
        let asked = IssueAsked {
            card_no: card_no.clone(),
            card_type: CardType::Named,
            tier: 0,
            discount_class: 0,
            valid_until: None,
            wait_s: Some(30),
            by: by(),
        };
        self.ask(ISSUE, json!(asked)).await
    }

    async fn deal(&self, card_no: &CardNo, kind: TransactionKind, fen: i64) -> Uuid {
        let tenders = match kind {
            TransactionKind::Topup => vec![Tender { kind: TenderKind::Cash, amount_fen: Fen(fen) }],
            _ => Vec::new(),
        };
        let deal = Deal {
            card_no: card_no.clone(),
            kind,
            amount_fen: Some(Fen(fen)),
            points: None,
            coupon: None,
            items: Vec::new(),
            tenders,
            order: None,
            original_transaction_id: None,
            adjustment: None,
            wait_s: Some(30),
            quoted: None,
            by: by(),
            idempotency_key: "k".into(),
        };
        self.ask(TRANSACTION, json!(deal)).await
    }
}

fn number(n: usize) -> CardNo {
    format!("88{n:06}").parse().unwrap()
}

/// A shop at our own virtual reader.
fn shop() -> (Shop, counter::Running) {
    let shop = Shop { gateway: Gateway::new(), port: free_port() };
    let service = shop.gateway.serve_members(vpcd_table("counter-1", shop.port), Some(members()));
    (shop, service)
}

/// What becomes of the command at the cut.
const FAULTS: [CardFault; 5] = [
    CardFault::PullUnheard,
    CardFault::Pull,
    CardFault::PullTorn,
    CardFault::Status(0x6300),
    CardFault::Garbage,
];

/// Every command of a top-up and of a sale, in turn, on one card that goes on living.
async fn money_is_cut(
    (shop, service): (Shop, counter::Running),
    sim: Sim,
    faults: &[CardFault],
    step: usize,
) {
    let card_no = number(1);
    let card = shop.lay(&blank(sim, 1)).await;
    let issue = shop.issue(&card_no).await;
    let row = shop.answered(issue).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    let begun = card.apdus().len();
    let first = shop.deal(&card_no, TransactionKind::Topup, 5_000).await;
    assert_eq!(shop.answered(first).await.state, RequestState::Done);
    let commands = card.apdus().len() - begun;
    assert!(commands > 15, "{commands}");
    let mut chip = shop.take_away(card).await;
    let mut ours = vec![first];
    let mut became = [0; 2];
    for at in (0..commands).filter(|at| at % step == 0 || at + 1 == commands) {
        for (n, fault) in faults.iter().copied().enumerate() {
            let kind = if (at + n) % 2 == 0 { TransactionKind::Topup } else { TransactionKind::Spend };
            let what = format!("{sim:?} {kind:?} {fault:?} at command {at}");
            let card = shop.lay(&chip).await;
            let before = shop.known(&card_no).await.unwrap();
            card.fault_after(at, fault);
            let id = shop.deal(&card_no, kind, 7).await;
            shop.answered(id).await;
            chip = shop.take_away(card).await;
            // The next tap.
            let card = shop.lay(&chip).await;
            let (row, request) = (
                shop.gateway.store.read(move |r| r.transaction(id)).await.unwrap().unwrap(),
                shop.request(id).await,
            );
            let after = shop.known(&card_no).await.unwrap();
            match row.state {
                State::Committed => {
                    became[0] += 1;
                    assert_eq!((request.state, &after), (RequestState::Done, &row.after), "{what}");
                }
                State::Aborted => {
                    became[1] += 1;
                    assert_eq!((request.state, &after), (RequestState::Failed, &before), "{what}");
                }
                other => panic!("{what}: {other:?}"),
            }
            ours.push(id);
            chip = shop.take_away(card).await;
        }
    }
    assert!(became[0] > 0 && became[1] > 10 / step, "{became:?}");
    // The card is the sum of what was told of it.
    let told = shop.told().await;
    let facts: Vec<CardTransaction> = told
        .iter()
        .filter(|(kind, _)| kind == "card.transaction")
        .map(|(_, data)| serde_json::from_value(data.clone()).unwrap())
        .collect();
    let (mut fen, mut count) = (0, 0);
    for id in &ours {
        let last = facts.iter().rfind(|fact| fact.transaction_id == *id).unwrap();
        assert_ne!(last.outcome, Outcome::Unknown);
        if last.outcome == Outcome::Committed {
            (fen, count) = (fen + last.amount_fen.0, count + 1);
        }
    }
    let holds = shop.known(&card_no).await.unwrap();
    assert_eq!((holds.balance(), holds.counter), (Some(Fen(fen)), count));
    assert!(shop.gateway.store.read(|r| r.open_transactions()).await.unwrap().is_empty());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_on_a_ntag_is_cut_at_every_command() {
    money_is_cut(shop(), Sim::Ntag215, &FAULTS, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_on_a_classic_is_cut_at_every_command() {
    money_is_cut(shop(), Sim::Classic1k, &FAULTS, 1).await;
}

/// The same through the real pcscd, at every fifth command: there a card that leaves takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn money_through_the_real_pcscd_is_cut() {
    let Some(pcscd) = Pcscd::start() else { return };
    let shop = Shop { gateway: Gateway::new(), port: pcscd.port };
    let table = pcsc_table("counter-1", "Virtual PCD 00 00");
    let service = shop.gateway.serve_members(table, Some(members()));
    money_is_cut((shop, service), Sim::Classic1k, &[CardFault::Pull, CardFault::Status(0x6300)], 5).await;
}

/// Every command of an issue, in turn, each on a card of its own; what was cut is issued again.
async fn issue_is_cut(sim: Sim) {
    let (shop, service) = shop();
    let card = shop.lay(&blank(sim, 0)).await;
    let begun = card.apdus().len();
    let issue = shop.issue(&number(0)).await;
    assert_eq!(shop.answered(issue).await.state, RequestState::Done);
    let commands = card.apdus()[begun..].to_vec();
    shop.take_away(card).await;
    let mut n = 0;
    let mut again = 0;
    for (at, command) in commands.iter().enumerate() {
        for fault in FAULTS {
            // A trailer whose half is ones locks its sector for ever, lock bytes of ones the whole
            // chip: such a card is thrown away.
            let is_trailer = command[1] == 0xD6 && command.len() == 21 && command[3] % 4 == 3;
            let is_lock = command[1] == 0xD6 && command.len() == 9 && command[3] == 2;
            if fault == CardFault::PullTorn && (is_trailer || is_lock) {
                continue;
            }
            n += 1;
            let (card_no, what) = (number(n), format!("{sim:?} {fault:?} at command {at}"));
            let card = shop.lay(&blank(sim, n)).await;
            card.fault_after(at, fault);
            let id = shop.issue(&card_no).await;
            shop.answered(id).await;
            let chip = shop.take_away(card).await;
            let card = shop.lay(&chip).await;
            let request = shop.request(id).await;
            assert!(request.state.is_settled(), "{what}: {request:?}");
            if request.state == RequestState::Failed && shop.known(&card_no).await.is_none() {
                again += 1;
                let second = shop.issue(&card_no).await;
                let row = shop.answered(second).await;
                assert_eq!(
                    row.state,
                    RequestState::Done,
                    "{what}: {:?} after {:?}",
                    row.outcome,
                    request.outcome
                );
            }
            assert_eq!(shop.known(&card_no).await, Some(Holding::default()), "{what}");
            let chip = shop.take_away(card).await;
            // It is a card like any other.
            let card = shop.lay(&chip).await;
            let topup = shop.deal(&card_no, TransactionKind::Topup, 100).await;
            let row = shop.answered(topup).await;
            assert_eq!(row.state, RequestState::Done, "{what}: {:?}", row.outcome);
            shop.take_away(card).await;
        }
    }
    assert!(again > 30, "{again}");
    let told = shop.told().await;
    let mut issued: Vec<&str> = told
        .iter()
        .filter(|(kind, _)| kind == "card.issued")
        .map(|(_, data)| data["card_no"].as_str().unwrap())
        .collect();
    assert_eq!(issued.len(), n + 1);
    issued.sort_unstable();
    issued.dedup();
    assert_eq!(issued.len(), n + 1, "each card is given out once");
    assert!(shop.gateway.store.read(|r| r.open_requests(PREPARE, None)).await.unwrap().is_empty());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issue_of_a_ntag_is_cut_at_every_command() {
    issue_is_cut(Sim::Ntag215).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issue_of_a_classic_is_cut_at_every_command() {
    issue_is_cut(Sim::Classic1k).await;
}
