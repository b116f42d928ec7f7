//! Reader threads that never return, in the real program: it replaces itself when too many hang,
//! and not before the card that is being written is written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/pcscd.rs"]
mod pcscd;
#[path = "support/port.rs"]
mod port;

use std::time::{Duration, Instant};

use baygate::api::client::Method;
use baygate::card::pcsc::MAX_ABANDONED_THREADS;
use baygate::sim::card::{CardSim, Technology as Sim};
use counter_shop::{Shop, blank};
use nix::sys::signal::Signal;
use pcscd::Pcscd;
use serde_json::{Value, json};

const DEALS: &str = "/v1/cards/8800000042/transactions";
/// How long the sale is made to take. Threads are given up 2 s after they were told to end; a
/// conversation with a card may take 8 s.
const SALE: Duration = Duration::from_millis(6_000);

fn topup(fen: i64) -> Value {
    let cash = [json!({ "kind": "cash", "amount_fen": fen })];
    json!({ "reader": "counter-1", "kind": "topup", "amount_fen": fen, "tenders": cash })
}

async fn hears(card: &CardSim, more_than: usize) {
    let deadline = Instant::now() + daemon::LONG;
    while card.apdus().len() <= more_than {
        assert!(Instant::now() < deadline, "the write never began");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_restarts_itself_behind_the_write_and_not_in_it() {
    let Some(pcscd) = Pcscd::start() else { return };
    let mut shop = Shop::open("").await;
    let alone = std::fs::read_to_string(shop.desk.config()).unwrap();
    shop.daemon.take().unwrap().kill().await;
    let watching: String = (0..MAX_ABANDONED_THREADS)
        .map(|n| format!("\n[[reader]]\nid = \"r-{n}\"\nkind = \"pcsc\"\nname = \"Not plugged in {n}\"\n"))
        .collect();
    std::fs::write(shop.desk.config(), format!("{alone}{watching}")).unwrap();
    shop.start_again().await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    let blank = json!({ "reader": "counter-1", "card_no": "8800000042", "type": "named" });
    shop.done("/v1/cards", blank, "i-1").await;
    shop.done(DEALS, topup(40_000), "t-1").await;
    let before = card.apdus().len();
    shop.done(DEALS, topup(7), "t-2").await;
    let begun = card.apdus().len();
    let commands = begun - before;

    pcscd.signal("STOP");
    card.slow(SALE / u32::try_from(commands).unwrap());
    let (client, sale) =
        (shop.client.clone(), json!({ "reader": "counter-1", "kind": "spend", "amount_fen": 7 }));
    let asked =
        tokio::spawn(
            async move { client.request_with_key(Method::POST, DEALS, Some(&sale), Some("s-1")).await },
        );
    hears(&card, begun).await;
    // Each of their threads hangs in a call, and none comes back.
    std::fs::write(shop.desk.config(), &alone).unwrap();
    let daemon = shop.daemon.as_mut().unwrap();
    daemon.signal(Signal::SIGHUP);
    let sold = asked.await.unwrap().unwrap();
    assert_eq!(sold.status, 200, "{sold:?}\n{}", daemon.log());
    assert_eq!(card.apdus().len(), begun + commands, "the whole sale");

    assert!(!daemon.ended().await.success(), "systemd is to start it again");
    assert!(daemon.log().contains("the daemon restarts itself"), "{}", daemon.log());
    pcscd.signal("CONT");
    let log = rusqlite::Connection::open(shop.desk.path("data/baygate.db")).unwrap();
    let said = "SELECT data ->> 'reason' FROM event WHERE kind = 'gateway.stopping' ORDER BY event_offset DESC LIMIT 1";
    let said: String = log.query_row(said, [], |row| row.get(0)).unwrap();
    assert_eq!(said, "reader-threads-hang");
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    shop.start_again().await;
    let _card = shop.lay(chip).await;
    assert_eq!(shop.member().await["balance_fen"], 40_000);
}
