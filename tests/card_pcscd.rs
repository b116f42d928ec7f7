//! Cards at readers behind the real pcscd, through its virtual reader driver.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/counter.rs"]
mod counter;
#[path = "support/pcscd.rs"]
mod pcscd;
#[path = "support/vpcd_card.rs"]
mod vpcd_card;

use baygate::card::pcsc::{MAX_ABANDONED_THREADS, abandoned_threads, list_readers, restart_wanted};
use baygate::event::card::Technology;
use baygate::event::device::DeviceStatus::{Absent, Degraded, Failed, Ready};
use counter::{Gateway, pcsc_table};
use pcscd::Pcscd;
use vpcd_card::{CLASSIC_1K_ATR, DOUBTFUL_ATR, Reply, TestCard, bytes, uid_only};

#[tokio::test(flavor = "multi_thread")]
async fn two_readers_tell_their_cards_apart() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let first = gateway.serve(pcsc_table("counter-1", "Virtual PCD 00 00"));
    let second = gateway.serve(pcsc_table("counter-2", "Virtual PCD 00 01"));
    gateway.expect_state("counter-1", Ready, None).await;
    gateway.expect_state("counter-2", Ready, None).await;
    let one = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, "04A1B2C3");
    // This one is asked, disturbed by the asking, powered anew and asked again.
    let two = TestCard::insert(pcscd.port + 1, DOUBTFUL_ATR, |apdu| {
        Reply::Bytes(match apdu {
            [0xFF, 0, 0, 0, 3, 0xD4, 0x42, 0x60] => bytes("D543019000"),
            [0xFF, 0xB0, 0, 3, 4] => bytes("E1103E009000"),
            other => uid_only(&bytes("04BD0F8ACD1190"), other),
        })
    });
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3"]).await;
    gateway.expect_cards("counter-2", &["tapped 04BD0F8ACD1190"]).await;
    let field = gateway.in_field().await;
    assert_eq!(
        field.iter().map(|row| row.technology).collect::<Vec<_>>(),
        [Technology::MifareClassic1k, Technology::Ntag215]
    );
    assert_eq!(field[0].atr.as_deref(), Some(CLASSIC_1K_ATR));
    assert!(list_readers().unwrap().iter().all(|reader| reader.card_present));
    one.remove();
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3", "removed 04A1B2C3"]).await;
    two.remove();
    gateway.expect_cards("counter-2", &["tapped 04BD0F8ACD1190", "removed 04BD0F8ACD1190"]).await;
    assert!(gateway.in_field().await.is_empty());
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_card_is_removed_before_the_next_is_told() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let service = gateway.serve(pcsc_table("counter-1", "Virtual PCD 00 00"));
    let uids = ["04A1B2C3", "04D5E6F7", "04A1B2C3"];
    let told: Vec<String> =
        uids.iter().flat_map(|uid| [format!("tapped {uid}"), format!("removed {uid}")]).collect();
    for (index, uid) in uids.into_iter().enumerate() {
        // The next is at the door before the reader has noticed that the last one left.
        let card = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, uid);
        let expected: Vec<&str> = told.iter().take(2 * index + 1).map(String::as_str).collect();
        gateway.expect_cards("counter-1", &expected).await;
        card.remove();
    }
    let expected: Vec<&str> = told.iter().map(String::as_str).collect();
    gateway.expect_cards("counter-1", &expected).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_hangs_delays_no_other_and_recovers() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let hung = gateway.serve(pcsc_table("counter-1", "Virtual PCD 00 00"));
    let good = gateway.serve(pcsc_table("counter-2", "Virtual PCD 00 01"));
    // One table over both readers: within a table, too, nobody waits for the other.
    let both = gateway.serve(pcsc_table("counter-3", "Virtual PCD*"));
    for reader in ["counter-1", "counter-2", "counter-3"] {
        gateway.expect_state(reader, Ready, None).await;
    }
    let mute = TestCard::insert(pcscd.port, CLASSIC_1K_ATR, |_| Reply::Never);
    while mute.apdus.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let card = TestCard::with_uid(pcscd.port + 1, CLASSIC_1K_ATR, "04A1B2C3");
    gateway.expect_cards("counter-2", &["tapped 04A1B2C3"]).await;
    gateway.expect_cards("counter-3", &["tapped 04A1B2C3"]).await;
    assert!(gateway.cards("counter-1").await.is_empty(), "the good reader was served while the other hung");
    gateway.expect_cards("counter-1", &["refused no-answer"]).await;
    let state = gateway.expect_state("counter-1", Failed, Some("reader-hung")).await;
    let detail = state.detail.unwrap();
    assert!(detail.contains("USB") && detail.contains("读卡器"), "{detail}");
    gateway.expect_state("counter-3", Degraded, Some("reader-hung")).await;
    assert!(abandoned_threads() >= 1);
    card.remove();
    gateway.expect_cards("counter-2", &["tapped 04A1B2C3", "removed 04A1B2C3"]).await;

    mute.remove();
    let healed = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, "04D5E6F7");
    gateway.expect_cards("counter-1", &["refused no-answer", "tapped 04D5E6F7"]).await;
    gateway.expect_state("counter-1", Ready, None).await;
    gateway.expect_state("counter-3", Ready, None).await;
    wait_until("threads that returned are no longer counted", || abandoned_threads() == 0).await;
    drop(healed);
    for service in [hung, good, both] {
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pcscd_may_die_and_return() {
    let Some(mut pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let service = gateway.serve(pcsc_table("counter-1", "Virtual PCD 00 00"));
    gateway.expect_state("counter-1", Ready, None).await;
    let card = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, "04A1B2C3");
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3"]).await;
    pcscd.kill();
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3", "removed 04A1B2C3"]).await;
    let state = gateway.expect_state("counter-1", Absent, Some("pcscd-missing")).await;
    let detail = state.detail.unwrap();
    assert!(
        detail.contains("systemctl enable --now pcscd.socket") && detail.contains("没有运行"),
        "{detail}"
    );
    drop(card);
    for round in 0..2 {
        pcscd.start_again();
        gateway.expect_state("counter-1", Ready, None).await;
        if round == 0 {
            pcscd.kill();
            gateway.expect_state("counter-1", Absent, Some("pcscd-missing")).await;
        }
    }
    let card = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, "04D5E6F7");
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3", "removed 04A1B2C3", "tapped 04D5E6F7"]).await;
    drop(card);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pcscd_that_hangs_is_noticed_and_does_not_hold_up_the_stop() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let service = gateway.serve(pcsc_table("counter-1", "Virtual PCD 00 00"));
    let idle = gateway.serve(pcsc_table("counter-2", "Virtual PCD 00 01"));
    gateway.expect_state("counter-1", Ready, None).await;
    gateway.expect_state("counter-2", Ready, None).await;
    pcscd.signal("STOP");
    idle.stop().await;
    gateway.expect_state("counter-1", Failed, Some("pcscd-hung")).await;
    pcscd.signal("CONT");
    gateway.expect_state("counter-1", Ready, None).await;
    let card = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, "04A1B2C3");
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3"]).await;
    drop(card);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_same_card_is_not_told_twice() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let table = pcsc_table("counter-1", "Virtual PCD*");
    let service = gateway.serve(table.clone());
    let card = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, "04A1B2C3");
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3"]).await;
    service.stop().await;
    assert_eq!(gateway.in_field().await.len(), 1, "an orderly stop is not a removal");

    // Still there: adopted silently. The second reader's card comes after it in the
    // log, so that a second `tapped` of the first would be seen.
    let service = gateway.serve(table.clone());
    while card.apdus.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let second = TestCard::with_uid(pcscd.port + 1, CLASSIC_1K_ATR, "04112233");
    let mut expected = vec!["tapped 04A1B2C3", "tapped 04112233"];
    gateway.expect_cards("counter-1", &expected).await;
    second.remove();
    expected.push("removed 04112233");
    gateway.expect_cards("counter-1", &expected).await;
    assert_eq!(gateway.in_field().await[0].uid.as_str(), "04A1B2C3", "the first is still there");
    card.remove();
    expected.push("removed 04A1B2C3");
    gateway.expect_cards("counter-1", &expected).await;

    // Replaced while nobody looked.
    let card = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, "04A1B2C3");
    expected.push("tapped 04A1B2C3");
    gateway.expect_cards("counter-1", &expected).await;
    service.stop().await;
    card.remove();
    let other = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, "04D5E6F7");
    let service = gateway.serve(table.clone());
    expected.extend(["removed 04A1B2C3", "tapped 04D5E6F7"]);
    gateway.expect_cards("counter-1", &expected).await;
    service.stop().await;

    // Taken while nobody looked.
    other.remove();
    let service = gateway.serve(table);
    expected.push("removed 04D5E6F7");
    gateway.expect_cards("counter-1", &expected).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_by_that_name_is_said() {
    let Some(_pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let service = gateway.serve(pcsc_table("counter-1", "ACS ACR122U*"));
    let state = gateway.expect_state("counter-1", Absent, Some("reader-missing")).await;
    let detail = state.detail.unwrap();
    assert!(detail.contains("baygate devices") && detail.contains("ACS ACR122U*"), "{detail}");
    let trouble = &gateway.health.troubles()[0];
    assert!(!trouble.blocks_ready && !trouble.text.zh.is_empty());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_held_by_another_program_is_said() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let service = gateway.serve(pcsc_table("counter-1", "Virtual PCD 00 00"));
    gateway.expect_state("counter-1", Ready, None).await;
    // Its only card: nobody else can connect as long as `held` lives.
    let card = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, "04A1B2C3");
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3"]).await;
    service.stop().await;
    let held = hold(pcsc::ShareMode::Exclusive);
    let service = gateway.serve(pcsc_table("counter-1", "Virtual PCD 00 00"));
    let mut expected = vec!["tapped 04A1B2C3", "removed 04A1B2C3", "refused reader-busy"];
    gateway.expect_cards("counter-1", &expected).await;
    let state = gateway.expect_state("counter-1", Failed, Some("reader-busy")).await;
    assert!(state.detail.unwrap().contains("Close other card software"));
    // The other program lets go: the card that still lies there is served without another tap.
    drop(held);
    expected.push("tapped 04A1B2C3");
    gateway.expect_cards("counter-1", &expected).await;
    gateway.expect_state("counter-1", Ready, None).await;
    drop(card);
    service.stop().await;
}

/// Connects to the card in the first reader as another program would.
fn hold(mode: pcsc::ShareMode) -> pcsc::Card {
    let context = pcsc::Context::establish(pcsc::Scope::User).unwrap();
    let deadline = std::time::Instant::now() + counter::PATIENCE;
    loop {
        match context.connect(c"Virtual PCD 00 00", mode, pcsc::Protocols::ANY) {
            Ok(card) => return card,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_held_and_reset_by_another_program_is_told_all_the_same() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let card = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, "04A1B2C3");
    let mut other = hold(pcsc::ShareMode::Shared);
    let transaction = other.transaction().unwrap();
    let service = gateway.serve(pcsc_table("counter-1", "Virtual PCD 00 00"));
    // The service has to wait for its turn. Whether it had connected before the reset, and
    // so gets to see it, is not in the test's hands; the card must be told either way.
    gateway.expect_state("counter-1", Ready, None).await;
    wait_for_thread("pcsc-card-").await;
    transaction.end(pcsc::Disposition::ResetCard).map_err(|(_, error)| error).unwrap();
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3"]).await;
    drop((other, card));
    service.stop().await;
}

async fn wait_for_thread(prefix: &str) {
    let there = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .any(|name| name.starts_with(prefix))
    };
    while !there() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sam_is_never_a_member_card() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let mut table = pcsc_table("sam-1", "Virtual PCD 00 00");
    table.role = baygate::config::tables::ReaderRole::Sam;
    let sam = gateway.serve(table);
    let counter = gateway.serve(pcsc_table("counter-1", "Virtual PCD 00 01"));
    gateway.expect_state("sam-1", Degraded, Some("sam-missing")).await;
    let module = TestCard::with_uid(pcscd.port, "3B00", "04A1B2C3");
    gateway.expect_state("sam-1", Ready, None).await;
    let card = TestCard::with_uid(pcscd.port + 1, CLASSIC_1K_ATR, "04D5E6F7");
    gateway.expect_cards("counter-1", &["tapped 04D5E6F7"]).await;
    assert!(gateway.cards("sam-1").await.is_empty());
    assert!(module.apdus.lock().unwrap().is_empty(), "not a word to the module");
    drop((module, card));
    sam.stop().await;
    counter.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_hung_threads_are_said_to_the_operator() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let services: Vec<_> = (0..MAX_ABANDONED_THREADS)
        .map(|index| gateway.serve(pcsc_table(&format!("r-{index}"), "Virtual PCD 00 00")))
        .collect();
    let last = gateway.serve(pcsc_table("counter-1", "Virtual PCD 00 01"));
    for index in 0..MAX_ABANDONED_THREADS {
        gateway.expect_state(&format!("r-{index}"), Ready, None).await;
    }
    gateway.expect_state("counter-1", Ready, None).await;
    pcscd.signal("STOP");
    // None of them can return: each is given up within the time a stop may take.
    futures_util::future::join_all(services.into_iter().map(counter::Running::stop)).await;
    assert!(restart_wanted());
    let said = || gateway.health.troubles().into_iter().find(|trouble| trouble.part == "pcsc-threads");
    wait_until("the trouble is said", || said().is_some()).await;
    let trouble = said().unwrap();
    assert!(trouble.blocks_ready && trouble.text.zh.contains("USB") && trouble.text.en.contains("restarts"));
    pcscd.signal("CONT");
    wait_until("the threads have returned", || abandoned_threads() == 0).await;
    wait_until("the trouble is over", || said().is_none()).await;
    gateway.expect_state("counter-1", Ready, None).await;
    last.stop().await;
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + counter::PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_may_come_and_go() {
    let Some(mut pcscd) = Pcscd::start_without_readers() else { return };
    let gateway = Gateway::new();
    let service = gateway.serve(pcsc_table("counter-1", "Virtual PCD*"));
    gateway.expect_state("counter-1", Absent, Some("reader-missing")).await;
    pcscd.plug_in();
    gateway.expect_state("counter-1", Ready, None).await;
    let card = TestCard::with_uid(pcscd.port, CLASSIC_1K_ATR, "04A1B2C3");
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3"]).await;
    drop(card);
    pcscd.unplug();
    gateway.expect_cards("counter-1", &["tapped 04A1B2C3", "removed 04A1B2C3"]).await;
    gateway.expect_state("counter-1", Absent, Some("reader-missing")).await;
    service.stop().await;
}
