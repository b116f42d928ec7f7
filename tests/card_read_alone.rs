//! `baygate card read` where no daemon runs: the reader is opened by the command, the card is read with
//! the keys that can be read and without them, nothing is written; and what is not there is named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/pcscd.rs"]
mod pcscd;
#[path = "support/port.rs"]
mod port;

use std::path::Path;

use baygate::sim::card::{CardSim, Chip, Technology as Sim};
use counter_shop::{Shop, blank};
use serde_json::{Value, json};

/// `baygate card read` as typed, in English: exit status, its JSON, what it says of it.
async fn read(args: &[&str], config: &Path, credentials: Option<&Path>) -> (i32, Value, String) {
    let mut command = daemon::program();
    command.args(["card", "read", "--json", "--locale", "en"]).args(args).arg("--config").arg(config);
    command.env_remove("BAYGATE_LOG").env_remove("CREDENTIALS_DIRECTORY").kill_on_drop(true);
    credentials.map(|folder| command.env("CREDENTIALS_DIRECTORY", folder));
    let done = tokio::time::timeout(daemon::LONG, command.output()).await.unwrap().unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    (done.status.code().unwrap(), serde_json::from_slice(&done.stdout).unwrap_or_default(), told)
}

/// Connects once somebody listens.
async fn present(port: u16, chip: &Chip) -> CardSim {
    let deadline = std::time::Instant::now() + daemon::LONG;
    loop {
        match CardSim::present(("127.0.0.1", port), chip.clone()).await {
            Ok(card) => return card,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_without_keys_and_without_a_card() {
    let mut shop = Shop::open("").await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    shop.issue("8800000042", "i-1").await;
    let earned = json!({ "kind": "earn", "points": 40 });
    shop.done("/v1/cards/8800000042/transactions", earned, "e-1").await;
    let (config, folder, port) = (shop.desk.config(), shop.desk.path("credentials"), shop.port);
    // The daemon has it, and says what it knows.
    let (exit, told, _) = read(&["--reader", "counter-1"], &config, Some(&folder)).await;
    assert_eq!((exit, &told["alone"], &told["member"]["points"]), (0, &Value::Null, &json!(40)), "{told}");
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    let mut running = shop.daemon.take().unwrap();
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(running.ended().await.success());

    // (arguments, with keys, what is said of it)
    let not_asked = "what this store knows of it";
    let cases = [
        (&["--wait", "60", "--reader", "counter-1"][..], Some(folder.as_path()), not_asked),
        (&["--wait", "60"], Some(folder.as_path()), not_asked),
        (&["--wait", "60"], None, "card-keys is not here"),
    ];
    for (args, keys, word) in cases {
        let (reading, card) = tokio::join!(read(args, &config, keys), async {
            let mut card = present(port, &chip).await;
            // It lies there until the command ends.
            tokio::time::timeout(daemon::LONG, card.gone()).await.unwrap();
            card
        });
        let (exit, told, said) = reading;
        assert_eq!(
            (exit, &told["alone"], &told["uid"]),
            (0, &json!(true), &json!("04A1B2C3D45E80")),
            "{said}"
        );
        assert_eq!(
            (&told["technology"], &told["reader"]),
            (&json!("ntag215"), &json!("counter-1")),
            "{told}"
        );
        let points = if keys.is_some() { json!(40) } else { Value::Null };
        assert_eq!(told["member"]["points"], points, "{told}");
        assert!(said.contains(word), "{said}");
        assert_eq!(card.writes(), 0);
    }
    let (exit, _, said) = read(&["--wait", "1"], &config, None).await;
    assert!(exit == 3 && said.contains("no-card"), "{exit}: {said}");
    // Somebody else has the reader.
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (exit, _, said) = read(&["--wait", "60"], &config, None).await;
    assert!(exit == 3 && said.contains("in use by another program"), "{exit}: {said}");
    // A broken credential is said, and the number is all.
    std::fs::write(folder.join("card-keys"), "store SH-0042\n").unwrap();
    let (exit, _, said) = read(&["--wait", "1"], &config, Some(&folder)).await;
    assert!(exit == 3 && said.contains("the line `current VERSION` is missing"), "{exit}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_name_of_a_pcsc_reader() {
    let Some(pcscd) = pcscd::Pcscd::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none.toml");
    let card = present(pcscd.port, &blank(Sim::Classic1k)).await;
    let (exit, told, said) = read(&["--reader", "Virtual PCD 00 00", "--wait", "60"], &none, None).await;
    assert_eq!((exit, &told["technology"]), (0, &json!("mifare-classic-1k")), "{said}");
    assert!(said.contains("without a configuration there are no card keys"), "{said}");
    assert_eq!(card.writes(), 0);
    let (exit, _, said) = read(&["--reader", "ACS ACR122U*"], &none, None).await;
    assert!(exit == 3 && said.contains("no reader is named like"), "{exit}: {said}");
}
