//! People at two tills: accounts, pairing, logging in.

use std::sync::Arc;

use baygate::api::client::Method;
use serde_json::{Value, json};

use super::{Reply, Served, Setup, devices};

pub const PIN: &str = "271828182845";
pub const WRONG: &str = "271828182846";
pub const EVERYTHING: &[&str] = &["read", "spend", "topup", "issue", "print", "vehicle"];

/// Serves two tills.
pub async fn shop(setup: Setup) -> Served {
    let served = setup.serve().await;
    let mut directory = devices();
    directory.tills.push("till-2".parse().unwrap());
    served.directory.send(Arc::new(directory)).unwrap();
    served
}

/// Pairs a till; its token.
pub async fn pair(served: &Served, till: &str, scopes: &[&str]) -> String {
    let wanted = json!({ "till": till, "scopes": scopes });
    let opened = served.client().await.request(Method::POST, "/v1/pairings", Some(&wanted)).await.unwrap();
    let code = json!({ "code": opened.accepted().unwrap()["code"] }).to_string();
    let reply =
        served.send("POST", "/v1/pairings/redeem", &[("Content-Type", "application/json")], &code).await;
    reply.json()["token"].as_str().unwrap().to_owned()
}

pub async fn admin(served: &Served, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let answer = served.client().await.request(method, path, body.as_ref()).await.unwrap();
    (answer.status, answer.body)
}

pub async fn add(served: &Served, id: &str, role: &str) {
    let wanted = json!({ "id": id, "name": "李伟", "role": role, "pin": PIN });
    let (status, body) = admin(served, Method::POST, "/v1/operators", Some(wanted)).await;
    assert_eq!(status, 201, "{body}");
}

pub async fn change(served: &Served, id: &str, wanted: Value) -> (u16, Value) {
    admin(served, Method::POST, &format!("/v1/operators/{id}"), Some(wanted)).await
}

pub async fn try_login(served: &Served, till: &str, id: &str, pin: &str) -> Reply {
    served.post(till, "/v1/operator-sessions", &json!({ "operator": id, "pin": pin })).await
}

/// Logs in; the session's token.
pub async fn log_in(served: &Served, till: &str, id: &str) -> String {
    let reply = try_login(served, till, id, PIN).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["token"].as_str().unwrap().to_owned()
}

pub async fn delete(served: &Served, token: &str, path: &str) -> Reply {
    served.send("DELETE", path, &[("Authorization", &format!("Bearer {token}"))], "").await
}

pub async fn record(served: &Served) -> Vec<(String, String, String)> {
    let (_, log) = admin(served, Method::GET, "/v1/operator-log", None).await;
    let text = |line: &Value, member: &str| line[member].as_str().unwrap().to_owned();
    let lines = log["lines"].as_array().unwrap().iter();
    lines.map(|line| (text(line, "what"), text(line, "operator"), text(line, "place"))).collect()
}

/// Makes an account and logs in at the till; the session's token.
pub async fn person(served: &Served, till: &str, id: &str, role: &str) -> String {
    add(served, id, role).await;
    log_in(served, till, id).await
}

/// A request with an idempotency key.
pub async fn post_with_key(served: &Served, token: &str, path: &str, body: &Value, key: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers =
        [("Authorization", &*bearer), ("Content-Type", "application/json"), ("Idempotency-Key", key)];
    served.send("POST", path, &headers, &body.to_string()).await
}
