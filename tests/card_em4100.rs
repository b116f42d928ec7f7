//! Cards at a reader of kind `em4100`: a simulated reader on a pseudo-terminal and on TCP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/counter.rs"]
mod counter;

use baygate::config::tables::{Feedback, ReaderKind, ReaderRole, ReaderTable};
use baygate::event::card::Technology;
use baygate::event::device::DeviceStatus;
use baygate::sim::card::Em4100Sim;
use baygate::sim::transport::Address;
use baygate::store::devices::{CardInField, DeviceOp};
use baygate::store::{Batch, Op};
use counter::Gateway;

/// 0008844356 in print.
const CARD: [u8; 5] = [0x10, 0x00, 0x86, 0xF4, 0x44];
const OTHER: [u8; 5] = [0x01, 0x02, 0x03, 0x04, 0x05];

fn table(link: &str) -> ReaderTable {
    ReaderTable {
        id: "counter-1".parse().unwrap(),
        kind: ReaderKind::Em4100,
        name: None,
        listen: None,
        link: Some(link.parse().unwrap()),
        device: None,
        technology: None,
        role: ReaderRole::Card,
        globs: Default::default(),
        feedback: Feedback::Auto,
    }
}

fn tcp() -> Address {
    Address::Tcp("127.0.0.1:0".parse().unwrap())
}

async fn at_terminal(folder: &tempfile::TempDir) -> (Em4100Sim, ReaderTable) {
    let link = folder.path().join("reader");
    let sim = Em4100Sim::plug_in(Address::Pty { link: Some(link.clone()) }).await.unwrap();
    (sim, table(&format!("serial://{}", link.display())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_is_said_again_and_again_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let by_tcp = Em4100Sim::plug_in(tcp()).await.unwrap();
    let address = format!("tcp://{}", by_tcp.name());
    for (sim, table) in [at_terminal(&folder).await, (by_tcp, table(&address))] {
        let gateway = Gateway::new();
        let service = gateway.serve(table);
        gateway.expect_state("counter-1", DeviceStatus::Ready, None).await;
        sim.lay(CARD);
        gateway.expect_cards("counter-1", &["tapped 100086F444"]).await;
        assert_eq!(gateway.in_field().await.first().unwrap().technology, Technology::Em4100);
        // Whoever told each repetition would have told them before the next card.
        sim.says_again(12).await;
        sim.lay(OTHER);
        let all = ["tapped 100086F444", "removed 100086F444", "tapped 0102030405", "removed 0102030405"];
        gateway.expect_cards("counter-1", all.get(..3).unwrap()).await;
        sim.lift();
        gateway.expect_cards("counter-1", &all).await;
        assert!(gateway.in_field().await.is_empty());
        service.stop().await;
        sim.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_card_is_refused_with_a_word_and_noise_is_no_card() {
    let folder = tempfile::tempdir().unwrap();
    let (sim, table) = at_terminal(&folder).await;
    let gateway = Gateway::new();
    let service = gateway.serve(table);
    gateway.expect_state("counter-1", DeviceStatus::Ready, None).await;
    sim.babble(b"\xFF\x00 no frame at all \x03".to_vec());
    sim.babble(b"\x02100086F44427\x03".to_vec());
    gateway.expect_cards("counter-1", &["refused unreadable"]).await;
    sim.lay(CARD);
    gateway.expect_cards("counter-1", &["refused unreadable", "tapped 100086F444"]).await;
    service.stop().await;
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_pulled_ends_the_card_and_comes_back_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sim, table) = at_terminal(&folder).await;
    let gateway = Gateway::new();
    let service = gateway.serve(table);
    sim.lay(CARD);
    gateway.expect_cards("counter-1", &["tapped 100086F444"]).await;
    sim.vanish().await;
    gateway.expect_cards("counter-1", &["tapped 100086F444", "removed 100086F444"]).await;
    gateway.expect_state("counter-1", DeviceStatus::Absent, Some("port-missing")).await;
    sim.come_back().await;
    let all = ["tapped 100086F444", "removed 100086F444", "tapped 100086F444"];
    gateway.expect_cards("counter-1", &all).await;
    service.stop().await;
    sim.stop().await;
}

/// What an earlier run left in the field: the same card is not told again, an empty field ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_tells_no_card_twice() {
    for still_there in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (sim, table) = at_terminal(&folder).await;
        let gateway = Gateway::new();
        let row = CardInField {
            reader: "counter-1".parse().unwrap(),
            uid: "100086F444".parse().unwrap(),
            technology: Technology::Em4100,
            atr: None,
            since: baygate::clock::UtcMillis::now(),
        };
        gateway.store.commit(Batch::new().op(Op::Device(DeviceOp::CardPresent(row)))).await.unwrap();
        if still_there {
            sim.lay(CARD);
        }
        let service = gateway.serve(table);
        if still_there {
            gateway.expect_state("counter-1", DeviceStatus::Ready, None).await;
            sim.says_again(12).await;
            sim.lift();
        }
        gateway.expect_cards("counter-1", &["removed 100086F444"]).await;
        service.stop().await;
        sim.stop().await;
    }
}
