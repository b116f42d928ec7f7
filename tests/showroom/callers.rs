//! Tills and scripts that ask over HTTP, ask again when the daemon dies under
//! them, and remember every answer: what was answered once holds for ever.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baygate::api::client::{Answer, Client, Method};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Shop;
use super::dice::Dice;
use super::till::{self, Takings};

/// A print job that was accepted.
#[derive(Debug, Clone)]
pub struct Print {
    pub key: String,
    pub body: Value,
    pub job: Uuid,
}

/// A scan that was settled: `visit` and `started_at` of the report, or the failed request.
#[derive(Debug, Clone)]
pub struct Scan {
    pub key: String,
    pub bay: &'static str,
    pub settled: Value,
}

/// All that callers were told.
#[derive(Debug, Default)]
pub struct Answers {
    pub prints: Mutex<Vec<Print>>,
    pub scans: Mutex<Vec<Scan>>,
    /// Counts scans as they are settled.
    pub settled: watch::Sender<u64>,
    /// Made, and whether it was taken back.
    pub tokens: Mutex<Vec<(Uuid, bool)>>,
    /// UIDs a till was told.
    pub cards: Mutex<BTreeSet<String>>,
    pub till: Takings,
    /// Answers nobody should get.
    pub odd: Mutex<Vec<String>>,
}

impl Answers {
    pub fn odd(&self, what: String) {
        self.odd.lock().unwrap().push(what);
    }
}

/// Asks until an answer comes: a dead daemon and one that stops give none.
pub async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&Value>,
    key: Option<&str>,
) -> Answer {
    loop {
        if let Ok(client) = Client::connect(socket).await
            && let Ok(answer) = client.request_with_key(method.clone(), path, body, key).await
            && answer.status != 503
        {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn work(load: &mut JoinSet<()>, shop: &Arc<Shop>, dice: &mut Dice, stop: &CancellationToken) {
    for (till, printer) in [(1, "face-1"), (2, "face-1"), (3, "face-2")] {
        load.spawn(prints(printer, till, Arc::clone(shop), dice.fork(), stop.clone()));
    }
    for bay in ["bay-1", "bay-2"] {
        load.spawn(scans(bay, Arc::clone(shop), dice.fork(), stop.clone()));
    }
    load.spawn(tokens(Arc::clone(shop), dice.fork(), stop.clone()));
    load.spawn(cards(Arc::clone(shop), stop.clone()));
    load.spawn(till::work(Arc::clone(shop), dice.fork(), stop.clone()));
}

async fn prints(printer: &'static str, till: u32, shop: Arc<Shop>, mut dice: Dice, stop: CancellationToken) {
    let mut mine: Vec<Print> = Vec::new();
    while !stop.is_cancelled() {
        let count = mine.len() + 1;
        let card_no = format!("88{till}{count:05}");
        let fields = json!({ "card_no": card_no, "points": count, "offer": "下次保养工时八折",
            "qr": format!("https://example.com/m/{card_no}") });
        let body = json!({ "printer": printer, "card_no": card_no, "fields": fields });
        let key = format!("print-{till}-{count}");
        let Some(job) = print(&shop, &body, &key).await else { return };
        mine.push(Print { key, body, job });
        shop.answers.prints.lock().unwrap().push(mine[count - 1].clone());
        if dice.percent(30) {
            let earlier = &mine[usize::try_from(dice.below(count as u64)).unwrap()];
            assert_same_job(&shop, earlier).await;
        }
        while !is_over(&shop, job).await {
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        tokio::time::sleep(dice.pause(150)).await;
    }
}

async fn print(shop: &Shop, body: &Value, key: &str) -> Option<Uuid> {
    let answer = ask(&shop.socket, Method::POST, "/v1/print-jobs", Some(body), Some(key)).await;
    let job = answer.body["job"].as_str().and_then(|job| job.parse().ok());
    if answer.status != 202 || job.is_none() {
        shop.answers.odd(format!("print {key}: {answer:?}"));
    }
    job
}

/// The same key gives the same job, whatever was killed in between.
pub async fn assert_same_job(shop: &Shop, earlier: &Print) {
    if let Some(job) = print(shop, &earlier.body, &earlier.key).await
        && job != earlier.job
    {
        shop.answers.odd(format!("print {}: job {} and then {job}", earlier.key, earlier.job));
    }
}

async fn is_over(shop: &Shop, job: Uuid) -> bool {
    let answer = ask(&shop.socket, Method::GET, &format!("/v1/print-jobs/{job}"), None, None).await;
    if answer.status != 200 {
        shop.answers.odd(format!("job {job} was accepted: {answer:?}"));
        return true;
    }
    matches!(answer.body["state"].as_str(), Some("done" | "failed"))
}

async fn scans(bay: &'static str, shop: Arc<Shop>, mut dice: Dice, stop: CancellationToken) {
    let mut mine: Vec<Scan> = Vec::new();
    while !stop.is_cancelled() {
        let key = format!("scan-{bay}-{}", mine.len());
        let settled = scan(&shop, bay, &key).await;
        mine.push(Scan { key, bay, settled });
        shop.answers.scans.lock().unwrap().push(mine[mine.len() - 1].clone());
        shop.answers.settled.send_modify(|count| *count += 1);
        if dice.percent(30) {
            let earlier = &mine[usize::try_from(dice.below(mine.len() as u64)).unwrap()];
            assert_same_scan(&shop, earlier).await;
        }
        // The bay's own looks need the adapter too.
        tokio::time::sleep(Duration::from_millis(500) + dice.pause(2500)).await;
    }
}

/// The settled answer of a scan.
async fn scan(shop: &Shop, bay: &str, key: &str) -> Value {
    let mut answer =
        ask(&shop.socket, Method::POST, &format!("/v1/vehicles/{bay}/scan"), None, Some(key)).await;
    let mut location = None;
    loop {
        let body = &answer.body;
        let report = |body: &Value| {
            let report = body.get("report").unwrap_or(body);
            json!({ "visit": report["visit"], "started_at": report["started_at"] })
        };
        match (answer.status, body["state"].as_str()) {
            (202, _) => location = answer.location.clone().or(location),
            (200, None) => return report(body),
            (200, Some("done")) => return report(&body["outcome"]),
            (200, Some("failed")) => return json!({ "failed": body["id"] }),
            (200, Some("pending" | "running")) => {}
            (502, _) => return json!({ "failed": body["request"] }),
            _ => {
                shop.answers.odd(format!("scan {key}: {answer:?}"));
                return Value::Null;
            }
        }
        let Some(location) = &location else {
            shop.answers.odd(format!("scan {key} without Location: {answer:?}"));
            return Value::Null;
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = ask(&shop.socket, Method::GET, location, None, None).await;
    }
}

/// The same key gives the same settled answer.
pub async fn assert_same_scan(shop: &Shop, earlier: &Scan) {
    let settled = scan(shop, earlier.bay, &earlier.key).await;
    if settled != earlier.settled {
        shop.answers.odd(format!("scan {}: {} and then {settled}", earlier.key, earlier.settled));
    }
}

async fn tokens(shop: Arc<Shop>, mut dice: Dice, stop: CancellationToken) {
    let mut count = 0;
    while !stop.is_cancelled() {
        count += 1;
        let body = json!({ "name": format!("till {count}"), "scopes": ["read"] });
        let answer = ask(&shop.socket, Method::POST, "/v1/tokens", Some(&body), None).await;
        let Some(id) = answer.body["id"].as_str().and_then(|id| id.parse().ok()) else {
            shop.answers.odd(format!("token: {answer:?}"));
            continue;
        };
        shop.answers.tokens.lock().unwrap().push((id, false));
        // At most 500 may live.
        if dice.percent(80) {
            ask(&shop.socket, Method::DELETE, &format!("/v1/tokens/{id}"), None, None).await;
            let mut tokens = shop.answers.tokens.lock().unwrap();
            tokens.iter_mut().filter(|(of, _)| *of == id).for_each(|(_, revoked)| *revoked = true);
        }
        tokio::time::sleep(dice.pause(100)).await;
    }
}

async fn cards(shop: Arc<Shop>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let answer = ask(&shop.socket, Method::GET, "/v1/readers/counter-1/card?wait=1", None, None).await;
        match (answer.status, answer.body["uid"].as_str()) {
            (200, Some(uid)) => {
                shop.answers.cards.lock().unwrap().insert(uid.to_owned());
            }
            (204, _) => {}
            _ => shop.answers.odd(format!("card: {answer:?}")),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
