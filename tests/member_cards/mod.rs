//! Member cards of one store on simulated chips: keys, a record, and cards given out with them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use baygate::card::apdu::Response;
use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::{KeyStore, KeyVersion, Purpose};
use baygate::card::medium::{PrepareOutcome, PrepareStep, Preparing};
use baygate::card::member::{MemberPolicy, Members};
use baygate::card::probe::Answer;
use baygate::card::record::{Coupon, MemberRecord};
use baygate::event::card::{MemberStatus, Technology};
use baygate::event::ledger::CardType;
use baygate::ident::CardUid;
use baygate::protocols::Bundle;
use baygate::sim::card::fmcos::Masters;
use baygate::sim::card::{CardProfile, CardSim, Chip, Technology as Sim};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::counter::Gateway;

pub const STORE: &str = "SH-0042";
pub fn keys(from: u8) -> Arc<SealedKeys> {
    let masters = Purpose::ALL.into_iter().enumerate().map(|(place, purpose)| {
        ((KeyVersion(1), purpose), Zeroizing::new([from + u8::try_from(place).unwrap(); 16]))
    });
    Arc::new(SealedKeys::new(STORE.parse().unwrap(), KeyVersion(1), masters.collect()))
}

/// The shipped layouts are read once.
pub fn members() -> Arc<Members> {
    static MEMBERS: OnceLock<Arc<Members>> = OnceLock::new();
    Arc::clone(MEMBERS.get_or_init(load_members))
}

pub fn load_members() -> Arc<Members> {
    let bundle = Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")).unwrap();
    let policy = MemberPolicy::of(STORE.parse().unwrap(), &["own"], jiff::tz::TimeZone::UTC);
    Arc::new(Members { keys: keys(1), layouts: bundle.cards.into_iter().map(Arc::new).collect(), policy })
}

pub fn record() -> MemberRecord {
    MemberRecord {
        card_no: "8800000042".parse().unwrap(),
        member_type: CardType::Named,
        status: MemberStatus::Active,
        issuing_store: STORE.parse().unwrap(),
        tier: 3,
        discount_class: 0,
        valid_until: None,
        principal_fen: 50_000,
        bonus_fen: 2_500,
        points: 300,
        coupons: [Coupon { kind: 7, left: 5 }, Coupon::default(), Coupon::default(), Coupon::default()],
        counter: 12,
        last: None,
        key_version: 1,
    }
}

pub fn empty(sim: Sim) -> Chip {
    let mut profile = CardProfile::new(sim);
    profile.direct_transmit = true;
    Chip::new(profile).named()
}

pub fn uid(chip: &Chip) -> String {
    hex::encode_upper(chip.shown())
}

pub fn issue_with(sim: Sim, technology: Technology, record: &MemberRecord, keys: Arc<SealedKeys>) -> Chip {
    prepared(empty(sim), technology, record, keys)
}

/// A CPU card as its maker personalises it for the tests' keys, given out.
pub fn cpu_card() -> Chip {
    let record = MemberRecord { principal_fen: 0, bonus_fen: 0, ..record() };
    prepared(personalised(), Technology::Cpu, &record, keys(1))
}

pub fn personalised() -> Chip {
    let masters = Masters { maintain: [7; 16], purchase: [6; 16], load: [0x47; 16], tac: [0x5A; 16] };
    Chip::with_purse(CardProfile::new(Sim::Cpu), &masters)
}

pub fn prepared(
    mut chip: Chip,
    technology: Technology,
    record: &MemberRecord,
    keys: Arc<SealedKeys>,
) -> Chip {
    let layout = members().layout(technology).unwrap();
    let uid: CardUid = uid(&chip).parse().unwrap();
    let keys: Arc<dyn KeyStore> = keys;
    let mut step = Preparing::start(uid, technology, &layout, record, &keys, false).unwrap();
    loop {
        step = match step {
            PrepareStep::Done(outcome) => {
                assert_eq!(outcome, PrepareOutcome::Prepared, "{technology:?}");
                break;
            }
            PrepareStep::Reset(preparing) => {
                chip.reset();
                preparing.answer(&Answer::Reset)
            }
            PrepareStep::Transmit(command, preparing) => {
                let answer = Response::parse(&chip.apdu(&command.to_bytes())).unwrap();
                preparing.answer(&Answer::Response(answer))
            }
        };
    }
    chip.reset();
    chip
}

pub fn issue(sim: Sim, technology: Technology, record: &MemberRecord) -> Chip {
    issue_with(sim, technology, record, keys(1))
}

pub async fn present(port: u16, chip: Chip) -> CardSim {
    CardSim::present(("127.0.0.1", port), chip).await.unwrap()
}

/// The last event of that type.
pub async fn last(gateway: &Gateway, kind: &str) -> Value {
    gateway.told().await.into_iter().rfind(|(told, _)| told == kind).unwrap().1
}
