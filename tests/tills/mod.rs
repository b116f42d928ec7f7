//! Tills with people at them, over real HTTP.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;

use baygate::api::client::Method;
use serde_json::json;

use crate::served::{Reply, Served, Setup, devices};

pub const PIN: &str = "271828182845";
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
    let json = [("Content-Type", "application/json")];
    let reply = served.send("POST", "/v1/pairings/redeem", &json, &code).await;
    reply.json()["token"].as_str().unwrap().to_owned()
}

/// Makes an account and logs in at the till; the session's token.
pub async fn person(served: &Served, till: &str, id: &str, role: &str) -> String {
    let wanted = json!({ "id": id, "name": "李伟", "role": role, "pin": PIN });
    let client = served.client().await;
    client.request(Method::POST, "/v1/operators", Some(&wanted)).await.unwrap();
    let wanted = json!({ "operator": id, "pin": PIN });
    let reply = served.post(till, "/v1/operator-sessions", &wanted).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["token"].as_str().unwrap().to_owned()
}

/// A request with an idempotency key.
pub async fn post_with_key(
    served: &Served,
    token: &str,
    path: &str,
    body: &serde_json::Value,
    key: &str,
) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers =
        [("Authorization", &*bearer), ("Content-Type", "application/json"), ("Idempotency-Key", key)];
    served.send("POST", path, &headers, &body.to_string()).await
}
