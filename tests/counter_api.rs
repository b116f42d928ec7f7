//! Who may do what with a card over HTTP: scopes by kind, somebody logged in, the lease of the
//! reader, keys, and what is refused before any card is asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;

use baygate::api::client::Method;
use serde_json::{Value, json};
use served::{Reply, Served, Setup};

const PIN: &str = "271828182845";
const CARD: &str = "/v1/cards/8800000042/transactions";

async fn ask(served: &Served, token: &str, path: &str, body: &Value, key: Option<&str>) -> Reply {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    headers.extend(key.map(|key| ("Idempotency-Key", key)));
    served.send("POST", path, &headers, &body.to_string()).await
}

fn deal(kind: &str) -> Value {
    json!({ "kind": kind, "amount_fen": 100, "wait_s": 1 })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_asks_for_its_own_scopes() {
    let served = Setup::new().serve().await;
    // (kind, scopes that do not do, scopes that do)
    let cases: [(&str, &[&str], &[&str]); 8] = [
        ("spend", &["topup"], &["spend"]),
        ("redeem", &["topup"], &["spend"]),
        ("topup", &["spend"], &["topup"]),
        ("earn", &["spend"], &["topup"]),
        ("coupon", &["spend"], &["topup"]),
        ("refund", &["spend"], &["spend", "topup"]),
        ("void", &["topup"], &["spend", "topup"]),
        ("adjust", &["spend", "topup"], &["topup", "issue"]),
    ];
    for (n, (kind, lacking, enough)) in cases.into_iter().enumerate() {
        let token = served.token(lacking).await;
        let reply = ask(&served, &token, CARD, &deal(kind), Some(&format!("l{n}"))).await;
        assert_eq!(reply.problem(), (403, "scope-missing".into()), "{kind}");
        let token = served.token(enough).await;
        // Without a key it is refused all the same; with one the reader would be asked.
        let reply = ask(&served, &token, CARD, &deal(kind), None).await;
        assert_eq!(reply.problem(), (400, "idempotency-key-missing".into()), "{kind}");
    }
    let read = served.token(&["read"]).await;
    for path in [CARD, "/v1/cards/8800000042/quotes", "/v1/cards"] {
        assert_eq!(ask(&served, &read, path, &deal("spend"), Some("r")).await.problem().0, 403, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_before_a_card_is_asked_for() {
    let served = Setup::new().serve().await;
    let token = served.token(&["spend", "topup", "issue", "read"]).await;
    let cases: [(&str, Value, (u16, &str)); 9] = [
        (CARD, json!({ "kind": "topup", "amount_fen": -1 }), (422, "request-invalid")),
        (CARD, json!({ "amount_fen": 1 }), (422, "request-invalid")),
        (CARD, json!({ "kind": "transfer", "amount_fen": 1 }), (422, "request-invalid")),
        (CARD, json!({ "kind": "gift" }), (400, "body-invalid")),
        (CARD, json!({ "kind": "spend", "amount_fen": 1.5 }), (400, "body-invalid")),
        (CARD, json!({ "kind": "spend", "amount_fen": 1, "reader": "nowhere" }), (404, "not-found")),
        (CARD, json!({ "quote_id": "0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3" }), (404, "not-found")),
        (
            CARD,
            json!({ "quote_id": "0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3", "amount_fen": 1 }),
            (422, "request-invalid"),
        ),
        ("/v1/cards", json!({ "card_no": "88-42", "type": "named" }), (422, "request-invalid")),
    ];
    for (n, (path, body, expected)) in cases.into_iter().enumerate() {
        let (status, code) = ask(&served, &token, path, &body, Some(&format!("k{n}"))).await.problem();
        assert_eq!((status, code.as_str()), expected, "{body}");
    }
    assert_eq!(served.get(&token, "/v1/transactions?idempotency_key=none").await.status, 404);
    assert_eq!(served.get(&token, "/v1/transactions/none").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_till_somebody_is_logged_in_and_no_other_till_has_the_reader() {
    let served = Setup::new().serve().await;
    let wanted = json!({ "till": "till-1", "scopes": ["read", "spend", "topup", "issue"] });
    let opened = served.client().await.request(Method::POST, "/v1/pairings", Some(&wanted)).await.unwrap();
    let code = json!({ "code": opened.accepted().unwrap()["code"] }).to_string();
    let headers = [("Content-Type", "application/json")];
    let redeemed = served.send("POST", "/v1/pairings/redeem", &headers, &code).await.json();
    let till = redeemed["token"].as_str().unwrap().to_owned();
    assert_eq!(
        ask(&served, &till, CARD, &deal("spend"), Some("a")).await.problem(),
        (403, "operator-needed".into())
    );

    let account = json!({ "id": "li", "name": "李伟", "role": "cashier", "pin": PIN });
    served
        .client()
        .await
        .request(Method::POST, "/v1/operators", Some(&account))
        .await
        .unwrap()
        .accepted()
        .unwrap();
    let login = json!({ "operator": "li", "pin": PIN });
    let session = served.post(&till, "/v1/operator-sessions", &login).await.json();
    let session = session["token"].as_str().unwrap().to_owned();
    // A cashier gives out no cards and puts none right by hand.
    let new = json!({ "card_no": "1", "type": "named" });
    assert_eq!(
        ask(&served, &session, "/v1/cards", &new, Some("b")).await.problem(),
        (403, "scope-missing".into())
    );
    let adjust = json!({ "kind": "adjust", "adjustment": { "points": 1 } });
    assert_eq!(
        ask(&served, &session, CARD, &adjust, Some("c")).await.problem(),
        (403, "scope-missing".into())
    );

    let script = served.token(&["spend"]).await;
    let lease = served.post(&script, "/v1/readers/counter-1/lease", &json!({})).await;
    assert_eq!(lease.status, 200);
    assert_eq!(
        ask(&served, &session, CARD, &deal("spend"), Some("d")).await.problem(),
        (409, "reader-leased".into())
    );
}

/// Contract §7: `{quote_id}`, or `{kind, …}` with these fields.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_says_what_a_transaction_takes() {
    let served = Setup::new().serve().await;
    let document = served.get(&served.token(&["read"]).await, "/openapi.json").await.json();
    let at = |reference: &Value| {
        let path = reference["$ref"].as_str().unwrap().trim_start_matches('#');
        document.pointer(path).unwrap_or_else(|| panic!("{path} leads nowhere")).clone()
    };
    let operation = &document["paths"]["/v1/cards/{card_no}/transactions"]["post"];
    let body = at(&operation["requestBody"]["content"]["application/json"]["schema"]);
    let [of_quote, of_kind] = body["oneOf"].as_array().unwrap().as_slice() else { panic!("{body}") };
    let fields = |schema: &Value| -> Vec<String> {
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let of_quote_fields = ["reader", "quote_id", "tenders", "wait_s", "pin"];
    assert_eq!(
        (fields(of_quote), &of_quote["required"]),
        (of_quote_fields.map(str::to_owned).to_vec(), &json!(["quote_id"]))
    );
    assert_eq!(of_kind["required"], json!(["kind"]));
    for field in [
        "reader",
        "kind",
        "amount_fen",
        "points",
        "coupon",
        "items",
        "tenders",
        "order",
        "original_transaction_id",
        "to_card_no",
        "adjustment",
        "pin",
        "wait_s",
    ] {
        let property = &of_kind["properties"][field];
        assert!(property.is_object(), "{field} is not in the document: {of_kind}");
        assert!(property["type"] != json!("object"), "{field} is free: {property}");
    }
    assert!(of_kind["properties"]["quote_id"].is_null() && of_kind["additionalProperties"] == json!(false));
    for (path, pins) in [("pin", &["pin", "new_pin"][..]), ("return", &["pin"])] {
        let operation = &document["paths"][format!("/v1/cards/{{card_no}}/{path}")]["post"];
        let body = at(&operation["requestBody"]["content"]["application/json"]["schema"]);
        assert!(pins.iter().all(|pin| body["properties"][pin].is_object()), "{path}: {body}");
    }
    let kinds = at(&of_kind["properties"]["kind"]);
    let all = ["topup", "spend", "earn", "redeem", "coupon", "adjust", "transfer", "refund", "void"];
    assert_eq!(kinds["enum"], json!(all));
    // What a line of a sale and a way of paying are.
    for (list, members) in
        [("items", &["sku", "category", "quantity", "price_fen"][..]), ("tenders", &["kind", "amount_fen"])]
    {
        let one = at(&of_kind["properties"][list]["items"]);
        assert_eq!(
            (fields(&one), &one["required"]),
            (members.iter().map(|it| (*it).to_owned()).collect(), &json!(members)),
            "{list}"
        );
    }
    // Every field that the page names, and no sample of it has another.
    const PAGE: &str = include_str!("../docs/pos.md");
    let known = fields(of_kind);
    let (_, table) = PAGE.split_once("| `kind` | scopes | fields |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    for row in table.lines().skip(2) {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let (cell, _) = cell.split_once(" (").unwrap_or((cell, ""));
        for name in cell.split('`').skip(1).step_by(2).map(|name| name.split(':').next().unwrap()) {
            assert!(known.iter().any(|field| field == name), "{name} of {row}");
        }
    }
}
