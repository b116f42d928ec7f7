//! A shop whose keys change: a reader's service on a real store, started again with other versions.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use baygate::card::counter::{By, Deal, ISSUE, IssueAsked, REKEY, TRANSACTION};
use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::till_purse::TillPurse;
use baygate::card::keys::{KeyVersion, Purpose};
use baygate::card::member::{MemberPolicy, Members};
use baygate::event::ledger::{CardType, Tender, TenderKind, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::Fen;
use baygate::protocols::Bundle;
use baygate::protocols::cards::CardLayout;
use baygate::sim::card::{CardProfile, CardSim, Chip, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::requests::{NewRequest, RequestOp, RequestState};
use baygate::store::{Batch, Offset, Op, Reader};
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::counter::{Gateway, PATIENCE, Running, vpcd_table};
use crate::port::free_port;

const STORE: &str = "SH-0042";
const CARD_NO: &str = "8800000042";

/// The key of a purpose, by its place in [`Purpose::ALL`].
pub fn master(version: u8, place: usize) -> [u8; 16] {
    let mut key = [version; 16];
    key[0] = u8::try_from(place).unwrap() + 1;
    key
}

/// Keys of these versions, as far as they are held; the last version is the current one.
fn members(
    versions: std::ops::RangeInclusive<u8>,
    held: Held,
    purse: Option<Arc<TillPurse>>,
) -> Arc<Members> {
    static LAYOUTS: OnceLock<Vec<Arc<CardLayout>>> = OnceLock::new();
    let layouts = LAYOUTS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols");
        Bundle::load(&folder).unwrap().cards.into_iter().map(Arc::new).collect()
    });
    let current = KeyVersion(*versions.end());
    let masters = versions.flat_map(|version| {
        let of_all = Purpose::ALL.into_iter().enumerate();
        of_all.filter(move |(_, purpose)| held(version, *purpose)).map(move |(place, purpose)| {
            ((KeyVersion(version), purpose), Zeroizing::new(master(version, place)))
        })
    });
    let keys = SealedKeys::new(STORE.parse().unwrap(), current, masters.collect()).with_purse(purse);
    let policy = MemberPolicy::of(STORE.parse().unwrap(), &["own"], jiff::tz::TimeZone::UTC);
    Arc::new(Members { keys: Arc::new(keys), layouts: layouts.clone(), policy })
}

pub struct Shop {
    pub gateway: Gateway,
    port: u16,
    pub service: Option<Running>,
    /// Where CPU cards come.
    pub purse: Option<Arc<TillPurse>>,
}

impl Shop {
    pub fn new() -> Self {
        Self { gateway: Gateway::new(), port: free_port(), service: None, purse: None }
    }

    /// From now on with these keys.
    pub async fn with_keys(&mut self, versions: std::ops::RangeInclusive<u8>) {
        self.with_keys_held(versions, |_, _| true).await;
    }

    pub async fn with_keys_held(&mut self, versions: std::ops::RangeInclusive<u8>, held: Held) {
        if let Some(service) = self.service.take() {
            service.stop().await;
        }
        let table = vpcd_table("counter-1", self.port);
        let members = members(versions, held, self.purse.clone());
        self.service = Some(self.gateway.serve_members(table, Some(members)));
    }

    /// As `kill -9` would, and started again with these keys.
    pub async fn killed(&mut self, versions: std::ops::RangeInclusive<u8>) {
        self.service.take().unwrap().kill().await;
        self.gateway.open_again().await;
        self.with_keys(versions).await;
    }

    /// Nobody has a move in hand.
    pub async fn at_rest(&self, what: &str) {
        let hands = self.gateway.store.hands().clone();
        self.until(what, move |r| {
            let open = r.open_requests(REKEY, None).unwrap();
            let held = open.iter().any(|row| hands.have(row.body["id"].as_str().unwrap().parse().unwrap()));
            (!held).then_some(())
        })
        .await;
    }

    pub async fn until<T, F>(&self, what: &str, find: F) -> T
    where
        T: Send + 'static,
        F: Fn(&Reader<'_>) -> Option<T> + Send + Clone + 'static,
    {
        let mut head = self.gateway.store.head();
        let wait = async {
            loop {
                head.borrow_and_update();
                let find = find.clone();
                if let Some(found) = self.gateway.store.read(move |r| Ok(find(r))).await.unwrap() {
                    return found;
                }
                // What is in hand is no row: it is looked at again and again.
                let _ = tokio::time::timeout(std::time::Duration::from_millis(20), head.changed()).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(found) => found,
            Err(_) => panic!("never: {what}; {:?}", self.gateway.told().await.last()),
        }
    }

    pub async fn lay(&self, chip: &Chip) -> CardSim {
        let mut chip = chip.clone();
        chip.reset();
        let card = loop {
            match CardSim::present(("127.0.0.1", self.port), chip.clone()).await {
                Ok(card) => break card,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.until("the tap", |r| (!r.cards_in_field().unwrap().is_empty()).then_some(())).await;
        card
    }

    pub async fn take_away(&self, card: CardSim) -> Chip {
        let chip = card.chip();
        card.remove().await;
        self.until("the card is gone", |r| r.cards_in_field().unwrap().is_empty().then_some(())).await;
        chip
    }

    pub async fn done(&self, kind: &'static str, body: Value) {
        let id = Uuid::now_v7();
        let request = NewRequest {
            id,
            kind,
            target: "counter-1".into(),
            scope: "till-1".into(),
            idempotency_key: None,
            body,
        };
        self.gateway.store.commit(Batch::new().op(Op::Request(RequestOp::Insert(request)))).await.unwrap();
        let row = self
            .until("an answer", move |r| r.request(id).unwrap().filter(|row| row.state.is_settled()))
            .await;
        assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
        if kind == TRANSACTION {
            let state = self.gateway.store.read(move |r| r.transaction_state(id)).await.unwrap();
            assert_eq!(state, Some(State::Committed));
        }
    }

    pub async fn issue(&self) {
        let asked = IssueAsked {
            card_no: number(),
            card_type: CardType::Named,
            tier: 0,
            discount_class: 0,
            valid_until: None,
            wait_s: Some(30),
            by: by(),
        };
        self.done(ISSUE, json!(asked)).await;
    }

    pub async fn top_up(&self, fen: i64) {
        let deal = Deal {
            card_no: number(),
            kind: TransactionKind::Topup,
            amount_fen: Some(Fen(fen)),
            points: None,
            coupon: None,
            items: Vec::new(),
            tenders: vec![Tender { kind: TenderKind::Cash, amount_fen: Fen(fen) }],
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
        };
        self.done(TRANSACTION, json!(deal)).await;
    }

    /// The journal has nothing open.
    pub async fn moved(&self, what: &str) {
        self.until(&format!("the move is over: {what}"), |r| {
            r.open_requests(REKEY, None).unwrap().is_empty().then_some(())
        })
        .await;
    }

    /// What the card told that lies there, or was there last.
    pub async fn member(&self) -> Value {
        let last = self.gateway.store.head().borrow().last;
        let store = &self.gateway.store;
        let told = store.read(move |r| r.events_after(Offset((last.0 - 20).max(0)), 100)).await.unwrap();
        let tap = |kind: &str| kind == "card.tapped" || kind == "card.refused";
        let last = told.iter().rfind(|logged| tap(&logged.event.kind)).unwrap();
        let data: Value = serde_json::from_str(last.event.data.get()).unwrap();
        data["member"].clone()
    }

    /// Why the card that lies there was refused.
    pub async fn refusal(&self) -> Value {
        let head = self.gateway.store.head();
        self.until("the card is refused", move |r| {
            let from = (head.borrow().last.0 - 20).max(0);
            let last = r.events_after(Offset(from), 100).unwrap().pop()?;
            let data: Value = serde_json::from_str(last.event.data.get()).unwrap();
            (last.event.kind == "card.refused").then(|| data["reason"].clone())
        })
        .await
    }

    pub async fn holds(&self) -> (Option<Fen>, u32) {
        let row = self.gateway.store.read(|r| r.member_card(&number())).await.unwrap().unwrap();
        assert_eq!(row.held, None);
        (row.seen.holding.balance(), row.seen.holding.counter)
    }
}

/// Whether the store holds a key: by version and purpose.
pub type Held = fn(u8, Purpose) -> bool;

pub fn number() -> CardNo {
    CARD_NO.parse().unwrap()
}

fn by() -> By {
    By { operator: "li".into(), till: "till-1".parse().unwrap() }
}

pub fn blank(sim: Sim) -> Chip {
    let mut profile = CardProfile::new(sim);
    profile.direct_transmit = true;
    Chip::new(profile)
}

/// Passwords and logins that the card refused.
pub fn tried_in_vain(chip: &Chip) -> u32 {
    u32::from(chip.wrong_passwords()) + chip.failed_logins()
}
