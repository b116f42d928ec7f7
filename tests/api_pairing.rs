//! A till gets its token by a code, over real HTTP; the rules in time are
//! tested beside the state machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;

use baygate::api::client::{Client, Method};
use serde_json::{Value, json};
use served::{Reply, Served, Setup};

async fn open(client: &Client) -> Value {
    let wanted = json!({ "till": "till-1", "scopes": ["read", "print"] });
    client.request(Method::POST, "/v1/pairings", Some(&wanted)).await.unwrap().accepted().unwrap()
}

async fn redeem(served: &Served, code: &str) -> Reply {
    let headers = [("Content-Type", "application/json"), ("Accept-Language", "en")];
    served.send("POST", "/v1/pairings/redeem", &headers, &json!({ "code": code }).to_string()).await
}

fn wrong(code: &str) -> String {
    code.chars().map(|digit| if digit == '9' { '0' } else { '9' }).collect()
}

#[tokio::test]
async fn a_till_gets_its_token_once() {
    let served = Setup::new().serve().await;
    let client = served.client().await;
    assert_eq!(redeem(&served, "123456").await.problem(), (403, "no-open-pairing".into()));
    let pairing = open(&client).await;
    let code = pairing["code"].as_str().unwrap();
    assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()));
    assert_eq!(pairing["expires_in_s"], 120);
    let path = format!("/v1/pairings/{}", pairing["id"].as_str().unwrap());
    assert_eq!(client.request(Method::GET, &path, None).await.unwrap().body["state"], "open");

    let redeemed = redeem(&served, code).await;
    assert_eq!(redeemed.status, 200, "{redeemed:?}");
    let got = redeemed.json();
    assert_eq!((&got["till"], &got["scopes"]), (&json!("till-1"), &json!(["read", "print"])));
    let token = got["token"].as_str().unwrap();
    assert_eq!(served.get(token, "/v1/readers").await.status, 200);
    assert_eq!(served.get(token, "/v1/tokens").await.problem().0, 403);
    assert_eq!(redeem(&served, code).await.problem(), (403, "no-open-pairing".into()));
    assert_eq!(client.request(Method::GET, &path, None).await.unwrap().body["state"], "redeemed");
    let tokens = client.request(Method::GET, "/v1/tokens", None).await.unwrap().body;
    assert_eq!(tokens["tokens"][0]["till"], "till-1");
    served.stop().await;
}

#[tokio::test]
async fn five_wrong_codes_close_it_and_the_address_waits_in_the_end() {
    let served = Setup::new().serve().await;
    let client = served.client().await;
    // The right code after five wrong ones: too late; after ten the address waits.
    for after in ["no-open-pairing", "too-many-attempts"] {
        let pairing = open(&client).await;
        let code = pairing["code"].as_str().unwrap();
        for left in (0..5).rev() {
            let reply = redeem(&served, &wrong(code)).await;
            assert_eq!(reply.problem(), (403, "code-wrong".into()));
            assert_eq!(reply.json()["attempts_left"], left);
        }
        assert_eq!(redeem(&served, code).await.problem().1, after);
        let path = format!("/v1/pairings/{}", pairing["id"].as_str().unwrap());
        let view = client.request(Method::GET, &path, None).await.unwrap().body;
        assert_eq!((&view["state"], &view["attempts_left"]), (&json!("exhausted"), &json!(0)));
    }
    let pairing = open(&client).await;
    let reply = redeem(&served, pairing["code"].as_str().unwrap()).await;
    assert_eq!(reply.problem(), (429, "too-many-attempts".into()));
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() > 500);
    served.stop().await;
}

#[tokio::test]
async fn one_at_a_time_for_known_tills_and_never_admin() {
    let served = Setup::new().serve().await;
    let client = served.client().await;
    let ask = |body: Value| {
        let client = client.clone();
        async move {
            let answer = client.request(Method::POST, "/v1/pairings", Some(&body)).await.unwrap();
            (answer.status, answer.body["code"].as_str().unwrap_or("").to_owned())
        }
    };
    // (body, status, code)
    let cases = [
        (json!({ "till": "till-9", "scopes": ["read"] }), 404, "not-found"),
        (json!({ "till": "till-1", "scopes": ["read", "admin"] }), 422, "scopes-invalid"),
        (json!({ "till": "till-1", "scopes": [] }), 422, "scopes-invalid"),
    ];
    for (body, status, code) in cases {
        assert_eq!(ask(body.clone()).await, (status, code.to_owned()), "{body}");
    }
    let pairing = open(&client).await;
    let second = ask(json!({ "till": "till-1", "scopes": ["read"] })).await;
    assert_eq!(second, (409, "pairing-open".into()));
    let path = format!("/v1/pairings/{}", pairing["id"].as_str().unwrap());
    assert_eq!(client.request(Method::DELETE, &path, None).await.unwrap().status, 204);
    assert_eq!(redeem(&served, pairing["code"].as_str().unwrap()).await.problem().1, "no-open-pairing");
    open(&client).await;
    served.stop().await;
}

/// The token could not be committed: the till may try again with the same code.
#[tokio::test]
async fn a_code_is_not_lost_when_the_store_fails() {
    let mut setup = Setup::new();
    setup.limits.tokens = 0;
    let served = setup.serve().await;
    let client = served.client().await;
    let pairing = open(&client).await;
    let code = pairing["code"].as_str().unwrap();
    assert_eq!(redeem(&served, code).await.problem(), (409, "too-many-tokens".into()));
    let path = format!("/v1/pairings/{}", pairing["id"].as_str().unwrap());
    assert_eq!(client.request(Method::GET, &path, None).await.unwrap().body["state"], "open");
    served.stop().await;
}
