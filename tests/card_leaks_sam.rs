//! No key, PIN or code to be found where a purchase SAM is in a slot of the real pcscd: CPU cards paid
//! from against the SAM's word, right, wrong and cut off by a `kill -9`, and on the same reader cards
//! that are opened by a password and by a code. Searched as in `card_leaks`, with what the SAM and the
//! cards have inside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cpu_shop;
mod cut_shop;
#[path = "support/daemon.rs"]
mod daemon;
mod leak_shop;
mod mqtt;
#[path = "support/pcscd.rs"]
mod pcscd;
#[path = "support/secrets.rs"]
mod secrets;

use std::sync::Arc;

use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::{KeyVersion, Purpose};
use baygate::card::member::Members;
use baygate::event::ledger::TransactionKind;
use baygate::sim::card::fmcos::Masters;
use baygate::sim::card::psam::Psam;
use baygate::sim::card::{CardProfile, CardSim, Chip, Technology as Sim};
use baygate::store::requests::RequestState;
use counter::{Gateway, vpcd_table};
use cpu_shop::{Hq, Slot, TERMINAL, till};
use cut_shop::{LOAD, STORE};
use leak_shop::{CARD_PIN, PURPOSES, Shop, WRONG_PIN, away, cash, master};
use mqtt::{free_port, port};
use pcscd::Pcscd;
use serde_json::json;
use zeroize::Zeroizing;

const CPU: &str = "8800000047";
/// Keys of the SAM and of the cards' makers: no line of the credential has them.
const PURCHASE: [u8; 16] =
    [0x91, 0x3C, 0xE7, 0x58, 0x0B, 0xA6, 0x4D, 0xF2, 0x6E, 0x15, 0xC9, 0x83, 0x37, 0xDA, 0x70, 0xB4];
const SIGNATURE: [u8; 16] =
    [0x2D, 0xF8, 0x46, 0x9B, 0xE1, 0x07, 0x5C, 0xB3, 0xCA, 0x64, 0x1F, 0x90, 0x7E, 0x35, 0xAD, 0xD8];

/// A member's CPU card with ¥80, loaded at a counter with a line to headquarters and the same keys.
async fn loaded() -> Chip {
    let masters = Purpose::ALL.into_iter().filter(|purpose| PURPOSES.contains(&purpose.name()));
    let masters =
        masters.map(|purpose| ((KeyVersion(1), purpose), Zeroizing::new(master(1, purpose.name()))));
    let keys = SealedKeys::new(STORE.parse().unwrap(), KeyVersion(1), masters.collect());
    let purse = till(Slot::new().opener()).with_headquarters(Arc::new(Hq));
    let members = cut_shop::members();
    let members = Members {
        keys: Arc::new(keys.with_purse(Some(Arc::new(purse)))),
        layouts: members.layouts.clone(),
        policy: members.policy.clone(),
    };
    let counter = cut_shop::Shop { gateway: Gateway::new(), port: free_port() };
    let table = vpcd_table("counter-1", counter.port);
    let service = counter.gateway.serve_members(table, Some(Arc::new(members)));
    let maker =
        Masters { maintain: master(1, "cpu-maintain"), purchase: PURCHASE, load: LOAD, tac: SIGNATURE };
    let chip = Chip::with_purse(CardProfile::new(Sim::Cpu), &maker);
    let (chip, ..) = cpu_shop::issued(&counter, &CPU.parse().unwrap(), &chip).await;
    let card = counter.lay(&chip).await;
    let more = counter.deal(&CPU.parse().unwrap(), TransactionKind::Topup, 3_000).await;
    assert_eq!(counter.answered(more).await.state, RequestState::Done);
    let chip = counter.take_away(card).await;
    service.stop().await;
    chip
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_behind_a_sam_is_said_kept_or_sent() {
    let Some(pcscd) = Pcscd::start() else { return };
    let sam = Chip::sam(Psam::new(PURCHASE, 1, TERMINAL));
    let sam = CardSim::present(("127.0.0.1", pcscd.port + 1), sam).await.unwrap();
    let readers = "[[reader]]\nid = \"counter-1\"\nkind = \"pcsc\"\nname = \"Virtual PCD 00 00\"\n\n\
                   [[reader]]\nid = \"sam-1\"\nkind = \"pcsc\"\nname = \"Virtual PCD 00 01\"\nrole = \"sam\"\n";
    let mut chip = loaded().await;
    let mut shop = Shop::open(readers, pcscd.port).await;
    shop.secrets.add("the SAM's purchase key", &PURCHASE);
    shop.secrets.add("the maker's signature key", &SIGNATURE);
    shop.start(1).await;

    let deals = format!("/v1/cards/{CPU}/transactions");
    let spend = |fen: i64, pin: &str| json!({ "kind": "spend", "amount_fen": fen, "pin": pin });
    let card = shop.lay(chip).await;
    shop.done(&format!("/v1/cards/{CPU}/pin"), json!({ "new_pin": CARD_PIN })).await;
    let wrong = shop.post(&deals, spend(1_000, WRONG_PIN)).await;
    assert_eq!(wrong.body["code"], "pin-wrong", "{wrong:?}");
    let begun = card.apdus().len();
    shop.done(&deals, spend(1_000, CARD_PIN)).await;
    let commands = card.apdus().len() - begun;
    // The SAM's slot is no other reader that could be meant.
    shop.command(&["card", "read"], "¥70.00").await;
    let topup = shop.post(&deals, cash(100)).await;
    assert_eq!(topup.body["code"], "needs-headquarters", "{topup:?}");
    shop.learn(Sim::Cpu, &card);
    chip = away(&card);
    card.remove().await;
    assert_eq!(sam.chip().sam_state(), Some((1, 3)), "the SAM approved it");

    // Killed when the card has paid and the SAM has not checked it.
    chip = shop.killed_in_a_sale(CPU, chip, commands - 1).await;
    shop.start(1).await;
    let card = shop.lay(chip).await;
    shop.done(&deals, spend(500, CARD_PIN)).await;
    let mut imitation = away(&card);
    card.remove().await;
    // What a wrong word of the card makes the program say.
    imitation.imitate();
    let card = shop.lay(imitation).await;
    shop.post(&deals, spend(500, CARD_PIN)).await;
    shop.learn(Sim::Cpu, &card);
    card.remove().await;
    assert_eq!(sam.chip().sam_state().unwrap().1, 2, "the SAM saw a wrong word");

    for (card_no, sim) in [("8800000048", Sim::Ntag215), ("8800000049", Sim::Sle4442)] {
        let mut profile = CardProfile::new(sim);
        profile.direct_transmit = true;
        let card = shop.lay(Chip::new(profile)).await;
        shop.done("/v1/cards", json!({ "card_no": card_no, "type": "named" })).await;
        let deals = format!("/v1/cards/{card_no}/transactions");
        shop.done(&deals, cash(10_000)).await;
        shop.done(&deals, json!({ "kind": "spend", "amount_fen": 1_000 })).await;
        shop.learn(sim, &card);
        card.remove().await;
    }
    shop.people().await;
    assert!(shop.desk.path("data/purchase-sam.json").exists(), "what is kept of the SAM is searched too");
    shop.tells_nothing().await;
}
