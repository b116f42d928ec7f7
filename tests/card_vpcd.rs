//! Cards at a reader of kind `vpcd`: raw bytes against our listener.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/counter.rs"]
mod counter;
#[path = "support/port.rs"]
mod port;
#[path = "support/vpcd_card.rs"]
mod vpcd_card;

use std::io::{Read, Write};
use std::net::TcpListener;

use baygate::event::card::Technology;
use baygate::event::device::DeviceStatus;
use baygate::store::devices::{CardInField, DeviceOp};
use baygate::store::{Batch, Op};
use counter::{Gateway, vpcd_table};
use port::free_port;
use vpcd_card::{CLASSIC_1K_ATR, DOUBTFUL_ATR, PHONE_ATR, Reply, TestCard, bytes, connect, frame, uid_only};

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_and_a_removal_are_told_with_all_that_is_known() {
    let (gateway, port) = (Gateway::new(), free_port());
    let service = gateway.serve(vpcd_table("counter-1", port));
    gateway.expect_state("counter-1", DeviceStatus::Ready, None).await;
    let card = TestCard::with_uid(port, CLASSIC_1K_ATR, "04A1B2C3");
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3"]).await;
    let field = gateway.in_field().await;
    assert_eq!(field[0].uid.as_str(), "04A1B2C3");
    assert_eq!(field[0].technology, Technology::MifareClassic1k);
    card.remove();
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3", "removed 04A1B2C3"]).await;
    assert!(gateway.in_field().await.is_empty());
    let told = gateway.told().await;
    let (_, data) = told.iter().find(|(kind, _)| kind == "card.tapped").unwrap();
    assert_eq!(data["till"], "till-1");
    assert_eq!(data["technology"], "mifare-classic-1k");
    assert_eq!(data["atr"], CLASSIC_1K_ATR);
    assert!(data["latency_ms"].is_u64());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn technologies_are_asked_of_the_card() {
    let (gateway, port) = (Gateway::new(), free_port());
    let service = gateway.serve(vpcd_table("counter-1", port));
    let ntag = TestCard::insert(port, DOUBTFUL_ATR, |apdu| {
        Reply::Bytes(match apdu {
            [0xFF, 0xB0, 0, 3, 4] => bytes("E1106D009000"),
            other => uid_only(&bytes("04BD0F8ACD1190"), other),
        })
    });
    gateway.expect_cards("counter-1", &["tapped 04BD0F8ACD1190"]).await;
    assert_eq!(gateway.in_field().await[0].technology, Technology::Ntag216);
    ntag.remove();
    let all = ["tapped 04BD0F8ACD1190", "removed 04BD0F8ACD1190", "tapped 08112233"];
    gateway.expect_cards("counter-1", &all[..2]).await;
    let phone = TestCard::with_uid(port, PHONE_ATR, "08112233");
    gateway.expect_cards("counter-1", &all).await;
    assert_eq!(gateway.in_field().await[0].technology, Technology::Cpu);
    phone.remove();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_leaves_during_identification_is_not_half_told() {
    let (gateway, port) = (Gateway::new(), free_port());
    let service = gateway.serve(vpcd_table("counter-1", port));
    let brief = TestCard::insert(port, DOUBTFUL_ATR, |apdu| match apdu {
        [0xFF, 0xCA, ..] => Reply::Bytes(bytes("04BD0F8ACD11909000")),
        _ => Reply::Leave,
    });
    let next = TestCard::with_uid(port, CLASSIC_1K_ATR, "04A1B2C3");
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3"]).await;
    drop((brief, next));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_thrown_out_and_the_next_card_is_served() {
    let (gateway, port) = (Gateway::new(), free_port());
    let service = gateway.serve(vpcd_table("counter-1", port));
    let mut expected = Vec::new();
    for (name, atr_answer) in [
        ("an ATR of 34 bytes", frame(&[0x3B; 34])),
        ("a frame of 64 KiB", vec![0xFF; 70_000]),
        ("a web server's words", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ] {
        println!("{name}");
        let mut line = connect(port);
        let _ = line.write_all(&atr_answer);
        let mut rest = Vec::new();
        // Ends when the other side cuts the line.
        let _ = line.read_to_end(&mut rest);
        expected.push("refused unreadable");
    }
    let half = TestCard::insert(port, CLASSIC_1K_ATR, |_| Reply::Bytes(vec![0x90]));
    expected.push("refused unreadable");
    gateway.expect_cards("counter-1", &expected).await;
    let good = TestCard::with_uid(port, CLASSIC_1K_ATR, "04A1B2C3");
    expected.push("tapped 04A1B2C3");
    gateway.expect_cards("counter-1", &expected).await;
    drop((half, good));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_card_and_one_without_uid_are_refused_with_a_word_for_the_cashier() {
    let (gateway, port) = (Gateway::new(), free_port());
    let service = gateway.serve(vpcd_table("counter-1", port));
    let silent = TestCard::insert(port, CLASSIC_1K_ATR, |_| Reply::Never);
    gateway.expect_cards("counter-1", &["refused no-answer"]).await;
    silent.remove();
    let nameless = TestCard::insert(port, "3B04A2131091", |_| Reply::Bytes(vec![0x6A, 0x81]));
    gateway.expect_cards("counter-1", &["refused no-answer", "refused unreadable"]).await;
    for (_, data) in gateway.told().await.iter().filter(|(kind, _)| kind == "card.refused") {
        assert!(data["text"]["zh"].as_str().unwrap().contains("卡"));
        assert!(data["text"]["en"].as_str().unwrap().contains("card"));
    }
    nameless.remove();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_said_and_recovered_from() {
    let port = free_port();
    let holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let gateway = Gateway::new();
    let service = gateway.serve(vpcd_table("counter-1", port));
    let state = gateway.expect_state("counter-1", DeviceStatus::Failed, Some("address-in-use")).await;
    let detail = state.detail.unwrap();
    assert!(detail.contains("listen") && detail.contains("停止"), "{detail}");
    let troubles = gateway.health.troubles();
    assert_eq!(
        (troubles[0].part.as_str(), troubles[0].code.as_str()),
        ("reader/counter-1", "address-in-use")
    );
    drop(holder);
    gateway.expect_state("counter-1", DeviceStatus::Ready, None).await;
    service.stop().await;
    assert!(gateway.health.troubles().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_left_by_a_crash_is_settled() {
    let (gateway, port) = (Gateway::new(), free_port());
    let row = CardInField {
        reader: "counter-1".parse().unwrap(),
        uid: "04A1B2C3".parse().unwrap(),
        technology: Technology::MifareClassic1k,
        atr: None,
        since: baygate::clock::UtcMillis(1),
    };
    gateway.store.commit(Batch::new().op(Op::Device(DeviceOp::CardPresent(row)))).await.unwrap();
    let service = gateway.serve(vpcd_table("counter-1", port));
    gateway.expect_cards("counter-1", &["removed 04A1B2C3"]).await;
    assert!(gateway.in_field().await.is_empty());
    service.stop().await;
}
