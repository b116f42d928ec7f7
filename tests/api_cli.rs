//! `baygate pair` and `baygate token` against a daemon that really serves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;

use baygate::api::client::Method;
use baygate::cli::{Exit, Global, daemon, pair, token};
use clap::Parser as _;
use serde_json::{Value, json};
use served::{Served, Setup, until};

#[derive(clap::Parser)]
struct Token {
    #[command(flatten)]
    args: token::Args,
    #[command(flatten)]
    global: Global,
}

#[derive(clap::Parser)]
struct Pair {
    #[command(flatten)]
    args: pair::Args,
    #[command(flatten)]
    global: Global,
}

/// A configuration that names the socket.
fn config(served: &Served) -> String {
    let file = served.dir.path().join("baygate.toml");
    let text = format!(
        "[gateway]\nstore = \"SH-0042\"\nid = \"gw-1\"\n\n[api]\ncontrol_socket = {:?}\n",
        served.socket.display().to_string()
    );
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

async fn run_token(config: &str, words: &[&str]) -> Exit {
    let line = [&["token"], words, &["--json", "--config", config]].concat();
    let Token { args, global } = Token::try_parse_from(line).unwrap();
    token::run(args, &global).await.unwrap_or_else(|error| daemon::report(&error))
}

async fn run_pair(config: &str, words: &[&str]) -> Exit {
    let line = [&["pair"], words, &["--json", "--config", config]].concat();
    let Pair { args, global } = Pair::try_parse_from(line).unwrap();
    pair::run(args, &global).await.unwrap_or_else(|error| daemon::report(&error))
}

async fn tokens(served: &Served) -> Vec<Value> {
    let listed = served.client().await.request(Method::GET, "/v1/tokens", None).await.unwrap().body;
    listed["tokens"].as_array().unwrap().clone()
}

#[tokio::test]
async fn tokens_come_and_go() {
    let served = Setup::new().serve().await;
    let config = config(&served);
    let made = run_token(&config, &["create", "--name", "reports", "--scopes", "read,print"]).await;
    assert_eq!(made, Exit::Done);
    let listed = tokens(&served).await;
    assert_eq!((&listed[0]["name"], &listed[0]["scopes"]), (&json!("reports"), &json!(["read", "print"])));
    assert_eq!(run_token(&config, &["list"]).await, Exit::Done);
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(run_token(&config, &["revoke", id]).await, Exit::Done);
    assert!(tokens(&served).await[0]["revoked_at"].is_string());
    assert_eq!(run_token(&config, &["revoke", id]).await, Exit::Usage);
    assert!(Token::try_parse_from(["token", "create", "--name", "x", "--scopes", "fly"]).is_err());
    served.stop().await;
}

#[tokio::test]
async fn nobody_there_is_exit_3_and_a_bad_configuration_exit_2() {
    let served = Setup::new().serve().await;
    let file = config(&served);
    let _dir = served.stop().await;
    assert_eq!(run_token(&file, &["list"]).await, Exit::Device);
    assert_eq!(run_pair(&file, &["--till", "till-1"]).await, Exit::Device);
    std::fs::write(&file, "[gatewax]\n").unwrap();
    assert_eq!(run_token(&file, &["list"]).await, Exit::Usage);
}

#[tokio::test]
async fn pairing_waits_for_the_till() {
    let served = Setup::new().serve().await;
    let config = config(&served);
    assert_eq!(run_pair(&config, &["--till", "till-9"]).await, Exit::Usage);
    let (exit, ()) = tokio::join!(run_pair(&config, &["--till", "till-1", "--scopes", "read"]), async {
        // Without the code a till can only guess: five guesses close the pairing.
        let typed = json!({ "code": "nonsense" }).to_string();
        let guess =
            || served.send("POST", "/v1/pairings/redeem", &[("Content-Type", "application/json")], &typed);
        until("all attempts are used up", || async {
            let reply = guess().await.json();
            reply["attempts_left"] == 0
        })
        .await;
    });
    assert_eq!(exit, Exit::Failed);
    assert!(tokens(&served).await.is_empty());
    served.stop().await;
}
