//! A member's card at the real program: its keys come from a credential, the tap tells who
//! it is, and no key is to be found in the log, the database or what headquarters received.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/headquarters.rs"]
mod headquarters;
mod mqtt;
#[path = "support/secrets.rs"]
mod secrets;

use std::path::Path;
use std::sync::Arc;

use baygate::api::client::{Client, Method};
use baygate::card::apdu::Response;
use baygate::card::keys::{KeyStore, credential};
use baygate::card::medium::{PrepareOutcome, PrepareStep, Preparing};
use baygate::card::probe::Answer;
use baygate::card::record::{Coupon, MemberRecord};
use baygate::event::card::{MemberStatus, Technology};
use baygate::event::ledger::CardType;
use baygate::protocols::Bundle;
use baygate::sim::card::{CardProfile, CardSim, Chip, Technology as Sim};
use daemon::{Daemon, Desk};
use headquarters::Headquarters;
use mqtt::{Mosquitto, free_port, until};
use nix::sys::signal::Signal;
use secrets::Secrets;

const STORE: &str = "SH-0042";
const PURPOSES: [&str; 5] = ["record", "debit", "credit", "manage", "sun"];

/// The credential as docs/card-keys.md has it made, of keys that nothing else looks like.
fn credential(secrets: &mut Secrets) -> String {
    let mut text = format!("store {STORE}\ncurrent 1\n");
    for (place, purpose) in (1_u8..).zip(PURPOSES) {
        let key: [u8; 16] =
            std::array::from_fn(|i| (i as u8).wrapping_mul(73).wrapping_add(place * 41) ^ 0x5A);
        secrets.add(format!("master key {purpose}"), &key);
        text.push_str(&format!("1 {purpose} {}\n", hex::encode(key)));
    }
    text
}

/// A card issued with the credential's keys.
fn issued(sim: Sim, technology: Technology, card_no: &str, credential: &str) -> Chip {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols");
    let layouts = Bundle::load(&folder).unwrap().cards;
    let layout = layouts.iter().find(|layout| layout.technologies.contains(&technology)).unwrap();
    let mut profile = CardProfile::new(sim);
    profile.direct_transmit = true;
    let uid = hex::encode_upper(&profile.uid).parse().unwrap();
    let keys = credential::parse(credential.as_bytes(), &STORE.parse().unwrap()).unwrap();
    let record = MemberRecord {
        card_no: card_no.parse().unwrap(),
        member_type: CardType::Named,
        status: MemberStatus::Active,
        issuing_store: STORE.parse().unwrap(),
        tier: 2,
        discount_class: 0,
        valid_until: None,
        principal_fen: 50_000,
        bonus_fen: 2_500,
        points: 300,
        coupons: [Coupon::default(); 4],
        counter: 12,
        last: None,
        key_version: 1,
    };
    let mut chip = Chip::new(profile);
    let keys: Arc<dyn KeyStore> = Arc::new(keys);
    let mut step = Preparing::start(uid, technology, layout, &record, &keys, false).unwrap();
    let outcome = loop {
        step = match step {
            PrepareStep::Done(outcome) => break outcome,
            PrepareStep::Reset(preparing) => {
                chip.reset();
                preparing.answer(&Answer::Reset)
            }
            PrepareStep::Transmit(command, preparing) => {
                let answer = Response::parse(&chip.apdu(&command.to_bytes())).unwrap();
                preparing.answer(&Answer::Response(answer))
            }
        };
    };
    assert_eq!(outcome, PrepareOutcome::Prepared, "{technology:?}");
    chip.reset();
    chip
}

fn all_files(dir: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all_files(&entry.path(), into),
            kind if kind.is_file() => {
                into.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap()));
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_tells_the_member_and_no_key() {
    let mosquitto = Mosquitto::start("").await;
    let mut headquarters = Headquarters::open(mosquitto.port);
    let (desk, port) = (Desk::new(), free_port());
    let mut secrets = Secrets::default();
    let keys = credential(&mut secrets);
    let folder = desk.path("credentials");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("card-keys"), &keys).unwrap();
    desk.write(&format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nconfirm = \"headquarters\"\n\n\
         [[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{port}\"\n",
        mosquitto.port
    ));
    let mut daemon = Daemon::spawn_with(&desk.config(), |command| {
        command.env("CREDENTIALS_DIRECTORY", &folder).env("BAYGATE_LOG", "trace");
    });
    daemon.says("baygate is running").await;
    let client = Client::connect(desk.path("control.sock")).await.unwrap();

    // One number on two chips would be a copy.
    for (card_no, sim, technology) in [
        ("8800000040", Sim::Ntag215, Technology::Ntag215),
        ("8800000041", Sim::Classic1k, Technology::MifareClassic1k),
        ("8800000042", Sim::Desfire, Technology::Desfire),
        ("8800000043", Sim::DesfireEv1, Technology::Desfire),
        ("8800000044", Sim::Ntag424, Technology::Ntag424),
    ] {
        let chip = issued(sim, technology, card_no, &keys);
        let card = until("the reader listens", async || {
            CardSim::present(("127.0.0.1", port), chip.clone()).await.ok()
        })
        .await;
        let uid = hex::encode_upper(&card.chip().profile().uid);
        let data = loop {
            let heard = headquarters.hears("the tap").await.event;
            if heard["type"] == "baygate.card.tapped" && heard["data"]["uid"] == uid {
                break heard["data"].clone();
            }
            assert_ne!(heard["type"], "baygate.card.refused", "{heard}");
        };
        assert_eq!(data["member"]["card_no"], card_no, "{data}");
        assert_eq!(data["member"]["balance_fen"], 52_500, "{data}");
        assert_eq!(data["member"]["authentic"], true, "{data}");
        let shown = client.request(Method::GET, "/v1/readers/counter-1/card", None).await.unwrap();
        assert_eq!(shown.status, 200, "{shown:?}");
        assert!(format!("{shown:?}").contains(card_no), "{shown:?}");
        card.chip().application_keys().iter().for_each(|key| secrets.add("an application's key", key));
        // What went over the reader's wire is secret as well: keys loaded, passwords presented.
        for apdu in card.apdus() {
            match apdu.as_slice() {
                [0xFF, 0x82, _, _, 6, key @ ..] => secrets.add("a Classic key", key),
                [0xFF, 0x00, .., 0x1B, a, b, c, d] => secrets.add("a tag's password", &[*a, *b, *c, *d]),
                _ => {}
            }
        }
        assert_eq!(card.writes(), 0);
        // This daemon traces; what a store's does stands above debug.
        let log = daemon.log();
        let told = log
            .lines()
            .find(|line| line.contains(&uid) && !line.contains(" DEBUG ") && !line.contains(" TRACE "));
        assert_eq!(told, None, "who was here stands in the log");
        assert!(log.contains(&uid), "and is not looked for in vain");
        card.remove().await;
    }

    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
    let mut places = vec![("the log".to_owned(), daemon.log().into_bytes())];
    for received in &headquarters.seen {
        places.push(("what headquarters got".into(), received.event.to_string().into_bytes()));
    }
    all_files(&desk.path("data"), &mut places);
    assert!(places.len() > 5 && places[0].1.len() > 500, "there is something to look through");
    for (place, bytes) in places {
        assert_eq!(secrets.found_in(&bytes), Vec::<String>::new(), "in {place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_credential_is_told_and_cards_are_still_identified() {
    let mosquitto = Mosquitto::start("").await;
    let mut headquarters = Headquarters::open(mosquitto.port);
    let (desk, port) = (Desk::new(), free_port());
    let folder = desk.path("credentials");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("card-keys"), "store ELSEWHERE\ncurrent 1\n").unwrap();
    desk.write(&format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n\n\
         [[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{port}\"\n",
        mosquitto.port
    ));
    let mut daemon = Daemon::spawn_with(&desk.config(), |command| {
        command.env("CREDENTIALS_DIRECTORY", &folder);
    });
    daemon.says("card keys cannot be used").await;
    let client = Client::connect(desk.path("control.sock")).await.unwrap();
    let ready = client.request(Method::GET, "/readyz", None).await.unwrap();
    assert!(format!("{ready:?}").contains("card-keys"), "{ready:?}");
    let card = until("the reader listens", async || {
        CardSim::tap(("127.0.0.1", port), CardProfile::new(Sim::Ntag215)).await.ok()
    })
    .await;
    let tapped = loop {
        let heard = headquarters.hears("the tap").await.event;
        if heard["type"] == "baygate.card.tapped" {
            break heard;
        }
    };
    assert_eq!(tapped["data"].get("member"), None);
    card.remove().await;
    daemon.kill().await;
}
