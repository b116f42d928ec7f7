//! A card is moved to newer keys behind a till operation, cut at every command, and finished by
//! its next tap: balance and counter stay what they are, no key is ever tried in vain, and
//! in the end the new keys alone open it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
#[path = "support/port.rs"]
mod port;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use baygate::card::counter::{By, Deal, ISSUE, IssueAsked, REKEY, TRANSACTION};
use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::{KeyVersion, Purpose};
use baygate::card::member::{MemberPolicy, Members};
use baygate::event::ledger::{CardType, Tender, TenderKind, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::Fen;
use baygate::protocols::Bundle;
use baygate::protocols::cards::CardLayout;
use baygate::sim::card::{CardFault, CardProfile, CardSim, Chip, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::requests::{NewRequest, RequestOp, RequestState};
use baygate::store::{Batch, Offset, Op, Reader};
use counter::{Gateway, PATIENCE, Running, vpcd_table};
use port::free_port;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;
use zeroize::Zeroizing;

const STORE: &str = "SH-0042";
const CARD_NO: &str = "8800000042";

/// Keys of these versions, as far as they are held; the last version is the current one.
fn members(versions: std::ops::RangeInclusive<u8>, held: Held) -> Arc<Members> {
    static LAYOUTS: OnceLock<Vec<Arc<CardLayout>>> = OnceLock::new();
    let layouts = LAYOUTS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols");
        Bundle::load(&folder).unwrap().cards.into_iter().map(Arc::new).collect()
    });
    let current = KeyVersion(*versions.end());
    let masters = versions.flat_map(|version| {
        let of_all = Purpose::ALL.into_iter().enumerate();
        of_all.filter(move |(_, purpose)| held(version, *purpose)).map(move |(place, purpose)| {
            let mut key = [version; 16];
            key[0] = u8::try_from(place).unwrap() + 1;
            ((KeyVersion(version), purpose), Zeroizing::new(key))
        })
    });
    let keys = SealedKeys::new(STORE.parse().unwrap(), current, masters.collect());
    let policy = MemberPolicy::of(STORE.parse().unwrap(), &["own"], jiff::tz::TimeZone::UTC);
    Arc::new(Members { keys: Arc::new(keys), layouts: layouts.clone(), policy })
}

struct Shop {
    gateway: Gateway,
    port: u16,
    service: Option<Running>,
}

impl Shop {
    fn new() -> Self {
        Self { gateway: Gateway::new(), port: free_port(), service: None }
    }

    /// From now on with these keys.
    async fn with_keys(&mut self, versions: std::ops::RangeInclusive<u8>) {
        self.with_keys_held(versions, |_, _| true).await;
    }

    async fn with_keys_held(&mut self, versions: std::ops::RangeInclusive<u8>, held: Held) {
        if let Some(service) = self.service.take() {
            service.stop().await;
        }
        let table = vpcd_table("counter-1", self.port);
        self.service = Some(self.gateway.serve_members(table, Some(members(versions, held))));
    }

    async fn until<T, F>(&self, what: &str, find: F) -> T
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

    async fn lay(&self, chip: &Chip) -> CardSim {
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

    async fn take_away(&self, card: CardSim) -> Chip {
        let chip = card.chip();
        card.remove().await;
        self.until("the card is gone", |r| r.cards_in_field().unwrap().is_empty().then_some(())).await;
        chip
    }

    async fn done(&self, kind: &'static str, body: Value) {
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

    async fn issue(&self) {
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

    async fn top_up(&self, fen: i64) {
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
    async fn moved(&self, what: &str) {
        self.until(&format!("the move is over: {what}"), |r| {
            r.open_requests(REKEY, None).unwrap().is_empty().then_some(())
        })
        .await;
    }

    /// What the card told that lies there, or was there last.
    async fn member(&self) -> Value {
        let last = self.gateway.store.head().borrow().last;
        let store = &self.gateway.store;
        let told = store.read(move |r| r.events_after(Offset((last.0 - 20).max(0)), 100)).await.unwrap();
        let tap = |kind: &str| kind == "card.tapped" || kind == "card.refused";
        let last = told.iter().rfind(|logged| tap(&logged.event.kind)).unwrap();
        let data: Value = serde_json::from_str(last.event.data.get()).unwrap();
        data["member"].clone()
    }

    /// Why the card that lies there was refused.
    async fn refusal(&self) -> Value {
        let head = self.gateway.store.head();
        self.until("the card is refused", move |r| {
            let from = (head.borrow().last.0 - 20).max(0);
            let last = r.events_after(Offset(from), 100).unwrap().pop()?;
            let data: Value = serde_json::from_str(last.event.data.get()).unwrap();
            (last.event.kind == "card.refused").then(|| data["reason"].clone())
        })
        .await
    }

    async fn holds(&self) -> (Option<Fen>, u32) {
        let row = self.gateway.store.read(|r| r.member_card(&number())).await.unwrap().unwrap();
        assert_eq!(row.held, None);
        (row.seen.holding.balance(), row.seen.holding.counter)
    }
}

/// Whether the store holds a key: by version and purpose.
type Held = fn(u8, Purpose) -> bool;

fn number() -> CardNo {
    CARD_NO.parse().unwrap()
}

fn by() -> By {
    By { operator: "li".into(), till: "till-1".parse().unwrap() }
}

fn blank(sim: Sim) -> Chip {
    let mut profile = CardProfile::new(sim);
    profile.direct_transmit = true;
    Chip::new(profile)
}

/// Passwords and logins that the card refused.
fn tried_in_vain(chip: &Chip) -> u32 {
    u32::from(chip.wrong_passwords()) + chip.failed_logins()
}

/// What becomes of the command at the cut.
const FAULTS: [CardFault; 5] = [
    CardFault::PullUnheard,
    CardFault::Pull,
    CardFault::PullTorn,
    CardFault::Status(0x6300),
    CardFault::Garbage,
];

async fn is_cut_everywhere(sim: Sim, half: usize) {
    let mut shop = Shop::new();
    shop.with_keys(1..=1).await;
    let card = shop.lay(&blank(sim)).await;
    shop.issue().await;
    let begun = card.apdus().len();
    shop.top_up(1).await;
    let deal = card.apdus().len() - begun;
    let mut chip = shop.take_away(card).await;

    // Newer keys are there: a mere tap moves nothing, a deal does.
    shop.with_keys(1..=2).await;
    let card = shop.lay(&chip).await;
    assert_eq!((card.writes(), &shop.member().await["key_version"]), (0, &json!(1)));
    let begun = card.apdus().len();
    shop.top_up(1).await;
    shop.until("told", |r| {
        let events = r.events_after(Offset(0), 1000).unwrap();
        events.iter().any(|logged| logged.event.kind == "card.status").then_some(())
    })
    .await;
    shop.moved("at first").await;
    let commands = card.apdus()[begun + deal..].to_vec();
    let old_keys = chip.application_keys();
    chip = shop.take_away(card).await;
    assert!(old_keys.iter().zip(chip.application_keys()).all(|(old, new)| *old != new), "a key was left");
    // Of a card of files: what comes before the record is sealed anew.
    let is_uid = |command: &Vec<u8>| command.starts_with(&[0xFF, 0xCA, 0x00, 0x00]);
    let move_of_files = if old_keys.is_empty() { 0 } else { commands.iter().rposition(is_uid).unwrap() };
    let told = shop.gateway.told().await;
    let (_, status) = told.iter().rfind(|(kind, _)| kind == "card.status").unwrap();
    assert_eq!(
        (&status["status"], &status["operator"], &status["reason"]),
        (&json!("active"), &json!("li"), &json!("keys 1 -> 2"))
    );
    let (mut version, mut sum) = (2_u8, 2_u32);

    for (at, command) in commands.iter().enumerate() {
        for (n, fault) in FAULTS.into_iter().enumerate().filter(|(n, _)| n % 2 == half) {
            // A trailer whose half is ones locks its sector for ever: such a card is replaced. Half a
            // password reaches no card; the simulated one would count it.
            let is_trailer = command[1] == 0xD6 && command.len() == 21 && command[3] % 4 == 3;
            let answers_challenge =
                command.starts_with(&[0x90, 0xAF]) && at > 0 && commands[at - 1].starts_with(&[0x90, 0x71]);
            let is_login = command[1] == 0x00 || answers_challenge;
            if fault == CardFault::PullTorn && (is_trailer || is_login) {
                continue;
            }
            // Reading and writing a record are cut in all ways in `counter_cuts`.
            let is_move = command[1] == 0xD6 && at < 30 || is_login || at < move_of_files;
            if !is_move && (at + n) % 5 > 1 {
                continue;
            }
            let what = format!("{sim:?} {fault:?} at command {at} of {}", commands.len());
            shop.with_keys(version..=version + 1).await;
            let card = shop.lay(&chip).await;
            let begun = card.apdus().len();
            card.fault_after(deal + at, fault);
            shop.top_up(1).await;
            sum += 1;
            // Done, or nobody has it in hand any more.
            let hands = shop.gateway.store.hands().clone();
            let seen = card.apdus().len();
            shop.until(&what, move |r| {
                let open = r.open_requests(REKEY, None).unwrap();
                let held =
                    open.iter().any(|row| hands.have(row.body["id"].as_str().unwrap().parse().unwrap()));
                (!held).then_some(())
            })
            .await;
            let reached = || card.apdus().len() > begun + deal + at;
            let deadline = std::time::Instant::now() + PATIENCE;
            while !reached() {
                assert!(std::time::Instant::now() < deadline, "{what}: only {seen} commands");
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            let hands = shop.gateway.store.hands().clone();
            shop.until(&what, move |r| {
                let open = r.open_requests(REKEY, None).unwrap();
                let held =
                    open.iter().any(|row| hands.have(row.body["id"].as_str().unwrap().parse().unwrap()));
                (!held).then_some(())
            })
            .await;
            chip = shop.take_away(card).await;
            assert_eq!(tried_in_vain(&chip), 0, "{what}: a key was guessed");
            // The next tap finishes it.
            let card = shop.lay(&chip).await;
            shop.moved(&what).await;
            assert_eq!(shop.holds().await, (Some(Fen(sum.into())), sum), "{what}");
            chip = shop.take_away(card).await;
            assert_eq!(tried_in_vain(&chip), 0, "{what}: a key was guessed");
            version += 1;
            let card = shop.lay(&chip).await;
            assert_eq!(shop.member().await["key_version"], version, "{what}");
            chip = shop.take_away(card).await;
        }
    }
    // The new keys alone open it.
    shop.with_keys(version..=version).await;
    let card = shop.lay(&chip).await;
    assert_eq!(shop.member().await["key_version"], version);
    shop.top_up(1).await;
    assert_eq!(shop.holds().await, (Some(Fen((sum + 1).into())), sum + 1));
    shop.take_away(card).await;
    // And the old ones do not.
    shop.with_keys(version - 1..=version - 1).await;
    let card = shop.lay(&chip).await;
    assert_eq!(shop.refusal().await, "key-missing");
    shop.take_away(card).await;
    shop.service.take().unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_moves_to_newer_keys_cut_at_every_command() {
    let mut all = JoinSet::new();
    for sim in [Sim::Ntag215, Sim::UltralightC, Sim::Desfire, Sim::Ntag424, Sim::Classic1k] {
        // A card is done when its commands are: two share the faults.
        all.spawn(is_cut_everywhere(sim, 0));
        all.spawn(is_cut_everywhere(sim, 1));
    }
    all.join_all().await;
}

/// Sells with the card under the keys of versions 1 and 2, twice in one tap, and finds it as it was.
async fn keeps_its_keys(sim: Sim, held: Held) {
    let mut shop = Shop::new();
    shop.with_keys(1..=1).await;
    let card = shop.lay(&blank(sim)).await;
    shop.issue().await;
    let chip = shop.take_away(card).await;
    shop.with_keys_held(1..=2, held).await;
    let card = shop.lay(&chip).await;
    shop.top_up(5).await;
    shop.top_up(5).await;
    let chip = shop.take_away(card).await;
    let card = shop.lay(&chip).await;
    assert_eq!(shop.member().await["key_version"], 1, "{sim:?}");
    assert_eq!(shop.holds().await, (Some(Fen(10)), 2), "{sim:?}");
    assert!(shop.gateway.store.read(|r| r.open_requests(REKEY, None)).await.unwrap().is_empty(), "{sim:?}");
    shop.take_away(card).await;
    shop.service.take().unwrap().stop().await;
}

/// Cards whose keys are not moved go on with the ones they have.
#[tokio::test(flavor = "multi_thread")]
async fn cards_of_other_kinds_keep_their_keys() {
    keeps_its_keys(Sim::Sle4442, |_, _| true).await;
}

/// A card that could not be moved to the end is not touched, and is no worse for it.
#[tokio::test(flavor = "multi_thread")]
async fn without_all_newer_keys_a_card_keeps_its_old_ones() {
    let cases: [(Sim, Held); 3] = [
        (Sim::Desfire, |version, purpose| version == 1 || purpose != Purpose::Manage),
        (Sim::Ntag424, |version, purpose| version == 1 || purpose != Purpose::Sun),
        (Sim::Ntag215, |version, purpose| version == 1 || purpose != Purpose::Debit),
    ];
    for (sim, held) in cases {
        keeps_its_keys(sim, held).await;
    }
}
