//! A reader's service on a real store, cards that can be cut at any command, and what was told.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use baygate::card::counter::{By, Deal, ISSUE, IssueAsked, PREPARE, TRANSACTION};
use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::{KeyVersion, Purpose};
use baygate::card::member::{MemberPolicy, Members};
use baygate::event::Class;
use baygate::event::ledger::{CardType, Tender, TenderKind, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::{Fen, Holding};
use baygate::protocols::Bundle;
use baygate::sim::card::fmcos::Masters;
use baygate::sim::card::{CardFault, CardProfile, CardSim, Chip, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::outbox::ClassCursor;
use baygate::store::requests::{NewRequest, RequestOp, RequestRow, RequestState};
use baygate::store::{Batch, Op};
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::counter::{self, Gateway, PATIENCE, vpcd_table};
use crate::port::free_port;

pub const STORE: &str = "SH-0042";

pub fn members() -> Arc<Members> {
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

/// Keys of the CPU cards' purses; the SAM of `cpu_shop` has the first, its headquarters the second.
pub const PURCHASE: [u8; 16] = [6; 16];
pub const LOAD: [u8; 16] = [0x47; 16];

/// As delivered, or as the maker of a CPU card personalises it for the keys of `members`.
pub fn blank(sim: Sim, n: usize) -> Chip {
    let mut profile = CardProfile::new(sim);
    let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
    let last = profile.uid.len();
    profile.uid[last - 2..].copy_from_slice(&[high, low]);
    profile.direct_transmit = true;
    if sim == Sim::Cpu {
        let masters = Masters { maintain: [7; 16], purchase: PURCHASE, load: LOAD, tac: [0x5A; 16] };
        return Chip::with_purse(profile, &masters);
    }
    Chip::new(profile)
}

/// What each card had lost of tries when it was laid on a reader, by the reader's port.
static LAID: Mutex<BTreeMap<(u16, Vec<u8>), u32>> = Mutex::new(BTreeMap::new());

pub fn by() -> By {
    By { operator: "li".into(), till: "till-1".parse().unwrap() }
}

pub struct Shop {
    pub gateway: Gateway,
    pub port: u16,
}

impl Shop {
    /// Reads the store until something is found.
    pub async fn until<T, F>(&self, what: &str, find: F) -> T
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
    pub async fn lay(&self, chip: &Chip) -> CardSim {
        let mut chip = chip.clone();
        chip.reset();
        LAID.lock().unwrap().insert(self.key(&chip), chip.tries_lost());
        let uid = hex::encode_upper(chip.shown());
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

    fn key(&self, chip: &Chip) -> (u16, Vec<u8>) {
        (self.port, chip.profile().uid.clone())
    }

    /// Whatever was done and cut while the card lay there, it cost one try at most.
    pub async fn take_away(&self, card: CardSim) -> Chip {
        let chip = card.chip();
        let laid = LAID.lock().unwrap().get(&self.key(&chip)).copied();
        let lost = chip.tries_lost();
        assert!(
            laid.is_none_or(|laid| lost <= laid + 1),
            "{lost} tries lost, {laid:?} when it was laid there"
        );
        card.remove().await;
        self.until("the card is gone", |r| r.cards_in_field().unwrap().is_empty().then_some(())).await;
        chip
    }

    pub async fn ask(&self, kind: &'static str, body: Value) -> Uuid {
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
    pub async fn answered(&self, id: Uuid) -> RequestRow {
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

    pub async fn request(&self, id: Uuid) -> RequestRow {
        self.gateway.store.read(move |r| r.request(id)).await.unwrap().unwrap()
    }

    pub async fn known(&self, card_no: &CardNo) -> Option<Holding> {
        let card_no = card_no.clone();
        let row = self.gateway.store.read(move |r| r.member_card(&card_no)).await.unwrap();
        row.map(|row| {
            assert_eq!(row.held, None);
            row.seen.holding
        })
    }

    /// What was told of class ledger: type and data.
    pub async fn told(&self) -> Vec<(String, Value)> {
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

    pub async fn issue(&self, card_no: &CardNo) -> Uuid {
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

    pub async fn deal(&self, card_no: &CardNo, kind: TransactionKind, fen: i64) -> Uuid {
        let tenders = match kind {
            TransactionKind::Topup => vec![Tender { kind: TenderKind::Cash, amount_fen: Fen(fen) }],
            _ => Vec::new(),
        };
        let deal = Deal { amount_fen: Some(Fen(fen)), tenders, ..deal(card_no, kind) };
        self.ask(TRANSACTION, json!(deal)).await
    }
}

pub fn number(n: usize) -> CardNo {
    format!("88{n:06}").parse().unwrap()
}

/// A shop at our own virtual reader.
pub fn shop() -> (Shop, counter::Running) {
    let shop = Shop { gateway: Gateway::new(), port: free_port() };
    let service = shop.gateway.serve_members(vpcd_table("counter-1", shop.port), Some(members()));
    (shop, service)
}

/// What becomes of the command at the cut.
pub const FAULTS: [CardFault; 5] = [
    CardFault::PullUnheard,
    CardFault::Pull,
    CardFault::PullTorn,
    CardFault::Status(0x6300),
    CardFault::Garbage,
];

/// A deal of this kind, without amounts.
pub fn deal(card_no: &CardNo, kind: TransactionKind) -> Deal {
    Deal {
        card_no: card_no.clone(),
        kind,
        amount_fen: None,
        points: None,
        coupon: None,
        items: Vec::new(),
        tenders: Vec::new(),
        order: None,
        original_transaction_id: None,
        to_card_no: None,
        adjustment: None,
        pin_checked: false,
        life: None,
        wait_s: Some(30),
        quoted: None,
        by: by(),
        idempotency_key: "k".into(),
    }
}
