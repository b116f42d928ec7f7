//! Load from every source there is: cards, cars on a serial line and on TCP,
//! faces asked for by key, tokens made and taken back, sales at three tills (`sales`), which are
//! most of it; and a till that listens. What is acknowledged to a caller is told to the host at once.

use std::time::Duration;

use baygate::api::client::{Client, Method};
use baygate::sim::card::{CardProfile, CardSim, Technology};
use baygate::sim::vehicle::{CarSpec, Profile, VehicleSim};
use futures_util::StreamExt as _;
use serde_json::json;

use super::dice::Dice;
use super::sales;
use super::shop::say;
use super::words::{Fact, Job, Plan, Word};

/// The shop's devices. Their ports lie below those that the kernel gives to outgoing connections:
/// one of these had taken a simulator's.
pub const DEVICES: &str = r#"
[[reader]]
id = "counter-1"
kind = "vpcd"
listen = "127.0.0.1:25963"
[[reader]]
id = "counter-2"
kind = "vpcd"
listen = "127.0.0.1:25964"
[[reader]]
id = "counter-3"
kind = "vpcd"
listen = "127.0.0.1:25965"
[[reader]]
id = "counter-4"
kind = "vpcd"
listen = "127.0.0.1:25966"
[[reader]]
id = "counter-5"
kind = "vpcd"
listen = "127.0.0.1:25967"
[[vehicle]]
id = "bay-1"
link = "elm327+tcp://127.0.0.1:25000"
[[vehicle]]
id = "bay-2"
link = "elm327+serial:///tmp/bay-2?baud=38400"
[[printer]]
id = "face-1"
kind = "png"
link = "file:///data/faces"
"#;

/// Until the power is cut.
pub async fn run(plan: &Plan, client: &Client) {
    let dice = |number: u64| Dice::new(plan.seed.wrapping_add(number));
    tokio::join!(
        listen(plan.after.as_deref(), client),
        taps(25963, dice(1)),
        taps(25964, dice(2)),
        cars(Some("127.0.0.1:25000"), "1M8GDM9AXKP042788", dice(5)),
        cars(None, "LSVAG2186E2100001", dice(6)),
        prints(client, dice(7)),
        tokens(client, dice(8)),
        sales::run(client, ("counter-3", 25965), dice(9)),
        sales::run(client, ("counter-4", 25966), dice(10)),
        sales::run(client, ("counter-5", 25967), dice(11)),
    );
}

/// Pauses of different length, so that commits meet in every way. Nothing waits for them.
async fn pause(dice: &mut Dice, from_ms: u64, to_ms: u64) {
    tokio::time::sleep(Duration::from_millis(dice.between(from_ms, to_ms))).await;
}

/// A till: resumes where it was before the cut, and must not be reset.
async fn listen(after: Option<&str>, client: &Client) {
    let query = after.map_or_else(String::new, |after| format!("after={after}"));
    let mut events = std::pin::pin!(client.events(&query).await.unwrap());
    while let Some(Ok(event)) = events.next().await {
        match event.event.as_str() {
            "reset" => say(&Word::Wrong(format!("the till at {after:?} was reset: {}", event.data))),
            _ => say(&Word::Event(Fact::of(&event.data))),
        }
    }
    say(&Word::Wrong("the event stream ended".into()));
}

async fn taps(port: u16, mut dice: Dice) {
    loop {
        let uid = [4, 1, 2, 3, 4, 5, 6].map(|byte: u8| byte.wrapping_mul(dice.byte() | 1));
        let card = CardProfile::new(Technology::Ntag213).with_uid(&uid);
        // Not before the reader listens.
        if let Ok(card) = CardSim::tap(("127.0.0.1", port), card).await {
            pause(&mut dice, 50, 1500).await;
            card.remove().await;
        }
        pause(&mut dice, 10, 1500).await;
    }
}

/// Cars come and go; some leave in the middle of their report.
async fn cars(address: Option<&str>, vin: &str, mut dice: Dice) {
    let sim = match address {
        Some(address) => VehicleSim::spawn_tcp(address.parse().unwrap(), Profile::default()).await,
        None => VehicleSim::spawn_pty(Profile::default(), Some("/tmp/bay-2".into())).await,
    }
    .unwrap();
    let confirmed = vec!["P0420".parse().unwrap()];
    let car = CarSpec { vin: Some(vin.into()), confirmed, ..CarSpec::default() };
    loop {
        sim.plug(&car).unwrap();
        pause(&mut dice, 1500, 9000).await;
        sim.unplug();
        pause(&mut dice, 200, 1500).await;
    }
}

/// Asks for a face under a key; the job that answers.
pub async fn print(client: &Client, key: &str) -> Result<Job, String> {
    let body = json!({"printer": "face-1", "card_no": "8800001", "fields": {
        "card_no": "8800001", "points": 1250, "offer": "下次保养工时八折", "qr": "https://example.com/m/8800001"}});
    let answer = client.request_with_key(Method::POST, "/v1/print-jobs", Some(&body), Some(key)).await;
    let told = answer.and_then(baygate::api::client::Answer::accepted).map_err(|error| error.to_string())?;
    Ok(Job { key: key.to_owned(), job: told["job"].as_str().unwrap().to_owned() })
}

async fn prints(client: &Client, mut dice: Dice) {
    loop {
        let key = dice.uuid().to_string();
        if let Ok(job) = print(client, &key).await {
            say(&Word::Job(job));
        }
        pause(&mut dice, 200, 1500).await;
    }
}

async fn tokens(client: &Client, mut dice: Dice) {
    loop {
        let wanted = json!({"name": "load", "scopes": ["read"]});
        let made = client.request(Method::POST, "/v1/tokens", Some(&wanted)).await;
        if let Ok(made) = made.and_then(baygate::api::client::Answer::accepted) {
            let id = made["id"].as_str().unwrap();
            say(&Word::Token(id.to_owned()));
            pause(&mut dice, 100, 700).await;
            // Most of them, so that they do not become too many.
            if dice.between(0, 9) < 8 {
                let path = format!("/v1/tokens/{id}");
                // Asked for is not yet told, and from here on both outcomes are right.
                say(&Word::Revoking(id.to_owned()));
                if client.request(Method::DELETE, &path, None).await.is_ok_and(|a| a.status == 204) {
                    say(&Word::Revoked(id.to_owned()));
                }
            }
        }
        pause(&mut dice, 100, 700).await;
    }
}
