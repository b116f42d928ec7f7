//! The samples of docs/pos.md as they are printed, against the real program with a member's card on
//! its reader.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use baygate::sim::card::{CardSim, Technology as Sim};
use counter_shop::{Shop, blank};
use serde_json::{Value, json};
use tokio::process::Command;

const PAGE: &str = include_str!("../docs/pos.md");
/// Leaves the samples out where its value is 1.
const WITHOUT: &str = "BAYGATE_WITHOUT_SAMPLES";
/// Where the page says that the gateway is.
const ADDRESS: &str = "http://127.0.0.1:8480";

/// The block in that language, at the gateway of the test.
fn sample(language: &str, shop: &Shop) -> String {
    let (_, rest) = PAGE.split_once(&format!("```{language}\n")).unwrap();
    let (code, _) = rest.split_once("\n```").unwrap();
    assert!(code.contains(ADDRESS));
    let log = shop.daemon.as_ref().unwrap().log();
    let ready = log.lines().find(|line| line.contains("local HTTP ready")).unwrap();
    let (_, port) = ready.split_once("127.0.0.1:").unwrap();
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    code.replace(ADDRESS, &format!("http://127.0.0.1:{port}"))
}

/// A card with ¥500, and a till's token.
async fn open() -> (Shop, CardSim, String) {
    let shop = Shop::open("").await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    shop.issue("8800000042", "i-1").await;
    let fen = 50_000;
    let topup =
        json!({ "kind": "topup", "amount_fen": fen, "tenders": [{ "kind": "cash", "amount_fen": fen }] });
    shop.done("/v1/cards/8800000042/transactions", topup, "t-1").await;
    let wanted = json!({ "name": "till", "scopes": ["read", "spend"] });
    let token = shop.done("/v1/tokens", wanted, "k-1").await["token"].as_str().unwrap().to_owned();
    (shop, card, token)
}

/// Runs it; what it said. A missing tool fails; `None` where somebody has said not to run samples.
async fn run(tools: &[&str], program: &str, flag: &str, code: &str, token: &str) -> Option<String> {
    if std::env::var_os(WITHOUT).is_some_and(|word| word == "1") {
        println!("LEFT OUT: {WITHOUT}=1");
        return None;
    }
    for tool in tools {
        let there = Command::new(tool).arg("--version").output().await;
        assert!(
            there.is_ok(),
            "{tool} is not installed; install it, or leave the samples out with {WITHOUT}=1"
        );
    }
    let mut command = Command::new(program);
    let running = command.args([flag, code]).env("SESSION", token).kill_on_drop(true).output();
    let done = tokio::time::timeout(daemon::LONG, running).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{told}\n{code}");
    Some(String::from_utf8(done.stdout).unwrap())
}

async fn balance(shop: &Shop) -> Value {
    shop.get("/v1/cards/8800000042").await.body["balance_fen"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sale_in_curl() {
    let (shop, card, token) = open().await;
    // Not every machine has uuidgen.
    let code = format!("uuidgen() {{ cat /proc/sys/kernel/random/uuid; }}\n{}", sample("sh", &shop));
    if let Some(said) = run(&["curl", "jq"], "sh", "-c", &code, &token).await {
        let (sale, status) = said.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(status, "200", "{said}");
        let sale: Value = serde_json::from_str(sale.lines().last().unwrap()).unwrap();
        assert_eq!((&sale["amount_fen"], &sale["order"]), (&json!(-30_000), &json!("A-17")), "{said}");
        assert!(said.starts_with("12000\t"), "line by line: {said}");
        assert_eq!(balance(&shop).await, 20_000);
    }
    card.remove().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sale_in_python() {
    let (shop, card, token) = open().await;
    let code = sample("python", &shop).replace("bgs_…", &token);
    if let Some(said) = run(&["python3"], "python3", "-c", &code, &token).await {
        assert_eq!(said.trim(), "41150");
        assert_eq!(balance(&shop).await, 41_150);
    }
    card.remove().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sale_in_csharp() {
    let (shop, card, token) = open().await;
    let code = sample("csharp", &shop).replace("bgs_…", &token);
    // The page's own line makes and starts it.
    let line = code.lines().next().unwrap().strip_prefix("// ").unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Sale.cs"), &code).unwrap();
    let line = format!("cd '{}' && {line}", dir.path().display());
    if let Some(said) = run(&["mcs", "mono"], "sh", "-c", &line, &token).await {
        assert_eq!(said.trim(), "41150");
        assert_eq!(balance(&shop).await, 41_150);
    }
    card.remove().await;
    shop.close().await;
}
