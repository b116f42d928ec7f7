//! A counter of the tests for CPU cards: a purchase SAM in its slot, and headquarters behind it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use baygate::card::apdu::{Command, Response};
use baygate::card::crypto::pboc;
use baygate::card::crypto::tdes::TripleDesKey;
use baygate::card::keys::psam::{Channel, ChannelError, Psam};
use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::till_purse::{Headquarters, Load, Opener, TillPurse};
use baygate::card::keys::{KeyError, KeyVersion, Purpose, PurseKeys};
use baygate::card::member::{MemberPolicy, Members};
use baygate::event::ledger::TransactionKind;
use baygate::ident::CardNo;
use baygate::sim::card::Chip;
use baygate::sim::card::psam::Psam as SimulatedPsam;
use baygate::store::ledger::{State, TransactionRow};
use baygate::store::requests::RequestState;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::counter::{Gateway, Running, vpcd_table};
use crate::cut_shop::{LOAD, PURCHASE, STORE, Shop, members};
use crate::port::free_port;

pub const TERMINAL: [u8; 6] = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55];

/// A slot with the simulated SAM in it; it can fall silent just before it checks a card.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Mutex<SimulatedPsam>>, pub Arc<AtomicBool>);

impl Slot {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(SimulatedPsam::new(PURCHASE, 1, TERMINAL))), Arc::default())
    }

    pub fn opener(&self) -> Box<Opener> {
        let slot = self.clone();
        Box::new(move || -> Result<Box<dyn PurseKeys>, KeyError> {
            Ok(Box::new(Psam::open(slot.clone(), [0x10, 0x01])?))
        })
    }

    /// Its power is gone for a moment.
    pub fn power_off(&self) {
        self.0.lock().unwrap().reset();
    }

    pub fn tries_left(&self) -> u8 {
        self.0.lock().unwrap().tries_left()
    }
}

impl Channel for Slot {
    fn transmit(&mut self, command: &Command) -> Result<Response, ChannelError> {
        let command = command.to_bytes();
        if command.starts_with(&[0x80, 0x72]) && self.1.load(Ordering::Relaxed) {
            return Err(ChannelError);
        }
        Response::parse(&self.0.lock().unwrap().apdu(&command)).map_err(|_| ChannelError)
    }
}

/// Has the load key; agrees to every load whose MAC1 is right.
#[derive(Debug)]
pub struct Hq;

impl Headquarters for Hq {
    fn load_mac2(&self, load: &Load) -> Result<[u8; 4], KeyError> {
        let key = TripleDesKey::new(Zeroizing::new(LOAD)).disperse(&load.serial);
        let session = pboc::load_session(&key, load.random, load.online_sequence);
        assert_eq!(pboc::load_mac1(&session, load.balance, &load.terms), load.mac1);
        Ok(pboc::load_mac2(&session, &load.terms))
    }
}

pub fn with_purse(purse: Option<TillPurse>) -> Option<Arc<Members>> {
    let masters = Purpose::ALL.into_iter().enumerate().map(|(place, purpose)| {
        ((KeyVersion(1), purpose), Zeroizing::new([1 + u8::try_from(place).unwrap(); 16]))
    });
    let keys = SealedKeys::new(STORE.parse().unwrap(), KeyVersion(1), masters.collect());
    let keys = keys.with_purse(purse.map(Arc::new));
    let policy = MemberPolicy::of(STORE.parse().unwrap(), &["own"], jiff::tz::TimeZone::UTC);
    Some(Arc::new(Members { keys: Arc::new(keys), layouts: members().layouts.clone(), policy }))
}

pub fn till(opener: Box<Opener>) -> TillPurse {
    TillPurse::new(opener, jiff::tz::TimeZone::UTC)
}

/// A counter at our own virtual reader, with a SAM and a line to headquarters.
pub fn counter_with(slot: &Slot) -> (Shop, Running) {
    let shop = Shop { gateway: Gateway::new(), port: free_port() };
    let purse = till(slot.opener()).with_headquarters(Arc::new(Hq));
    let service = shop.gateway.serve_members(vpcd_table("counter-1", shop.port), with_purse(Some(purse)));
    (shop, service)
}

/// Issues a card, puts 50 yuan on it, and gives the chip and the commands of that.
pub async fn issued(shop: &Shop, card_no: &CardNo, chip: &Chip) -> (Chip, Uuid, usize) {
    let card = shop.lay(chip).await;
    let issue = shop.issue(card_no).await;
    let row = shop.answered(issue).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    let begun = card.apdus().len();
    let first = shop.deal(card_no, TransactionKind::Topup, 5_000).await;
    let row = shop.answered(first).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    let commands = card.apdus().len() - begun;
    (shop.take_away(card).await, first, commands)
}

pub async fn transaction(shop: &Shop, id: Uuid) -> TransactionRow {
    shop.gateway.store.read(move |r| r.transaction(id)).await.unwrap().unwrap()
}

/// Settled, or nobody here can settle it now.
pub async fn at_rest(shop: &Shop, id: Uuid) -> State {
    shop.until("an outcome", move |r| {
        let state = r.transaction_state(id).unwrap();
        state.filter(|state| *state != State::Intent)
    })
    .await
}

pub async fn held(shop: &Shop, card_no: &CardNo) -> Option<String> {
    let card_no = card_no.clone();
    shop.gateway.store.read(move |r| r.member_card(&card_no)).await.unwrap().unwrap().held
}
