//! Who gets in: every route without a token, with a wrong scope, from a wrong
//! host or origin, and by another user on the control socket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;

use baygate::api::client::Method;
use baygate::event::Text;
use baygate::health::Trouble;
use serde_json::{Value, json};
use served::{Setup, read_reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Fills the parameters of a path template.
fn filled(path: &str) -> String {
    path.replace("{link}", "bay-1").replace("{vin}", "LSVAG2186E2100001").replace("{id}", "x")
}

#[tokio::test]
async fn every_route_asks_for_its_scope() {
    let served = Setup::new().serve().await;
    let document = served.send("GET", "/openapi.json", &[], "").await.json();
    let open = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/pairings/redeem"];
    let mut closed = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let (method, address) = (method.to_ascii_uppercase(), filled(path));
            let nobody = served.send(&method, &address, &[], "").await;
            if open.contains(&path.as_str()) {
                assert!(![401, 403].contains(&nobody.status), "{method} {path}: {nobody:?}");
                continue;
            }
            assert_eq!(nobody.problem(), (401, "token-missing".into()), "{method} {path}");
            assert!(nobody.header("www-authenticate").is_some());
            let wrong: Vec<&str> = ["read", "spend", "topup", "issue", "print", "vehicle", "admin"]
                .into_iter()
                .filter(|scope| {
                    let needed = operation["security"].as_array().unwrap();
                    !needed.iter().any(|one| one["token"][0] == *scope)
                })
                .collect();
            assert!(wrong.len() < 7, "{method} {path} needs no scope at all");
            let token = served.token(&wrong).await;
            let bearer = format!("Bearer {token}");
            let reply = served.send(&method, &address, &[("Authorization", &bearer)], "").await;
            assert_eq!(reply.problem(), (403, "scope-missing".into()), "{method} {path}");
            closed += 1;
        }
    }
    // What pays out of the drawer asks for more than its route does.
    let path = "/v1/cards/8800000042/return";
    let reply = served.post(&served.token(&["issue"]).await, path, &json!({ "tender": "cash" })).await;
    assert_eq!(reply.problem(), (403, "scope-missing".into()));
    assert_eq!(closed, 53, "a new route: is it in this count on purpose?");
    served.stop().await;
}

#[tokio::test]
async fn tokens_are_shown_once_and_can_be_taken_back() {
    let served = Setup::new().serve().await;
    let made = served.made_token(&["read"]).await;
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("bg_") && token.len() == 46);
    assert_eq!(served.get(token, "/v1/readers").await.status, 200);
    let file = std::fs::read(served.dir.path().join("baygate.db")).unwrap();
    let wal = std::fs::read(served.dir.path().join("baygate.db-wal")).unwrap_or_default();
    let holds = |bytes: &[u8]| bytes.windows(token.len()).any(|window| window == token.as_bytes());
    assert!(!holds(&file) && !holds(&wal), "the token itself is on the disk");

    let admin = served.token(&["admin"]).await;
    let listed = served.get(&admin, "/v1/tokens").await;
    assert!(!listed.body.contains(token), "a token is listed in clear");
    assert_eq!(listed.json()["tokens"].as_array().unwrap().len(), 2);
    let bearer = format!("Bearer {admin}");
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(served.send("DELETE", &path, &[("Authorization", &bearer)], "").await.status, 204);
    assert_eq!(served.get(token, "/v1/readers").await.problem(), (401, "token-missing".into()));
    let again = served.send("DELETE", &path, &[("Authorization", &bearer)], "").await;
    assert_eq!(again.problem(), (404, "not-found".into()));
    served.stop().await;
}

#[tokio::test]
async fn bad_tokens_are_refused_with_what_to_do() {
    let served = Setup::new().serve().await;
    let admin = served.token(&["admin"]).await;
    // (body, status, code)
    let cases = [
        (json!({ "name": "x", "scopes": [] }), 422, "token-invalid"),
        (json!({ "name": "", "scopes": ["read"] }), 422, "token-invalid"),
        (json!({ "name": "a\nb", "scopes": ["read"] }), 422, "token-invalid"),
        (json!({ "name": "x", "scopes": ["fly"] }), 400, "body-invalid"),
        (json!({ "scopes": ["read"] }), 400, "body-invalid"),
        (json!([]), 400, "body-invalid"),
    ];
    for (body, status, code) in cases {
        let reply = served.post(&admin, "/v1/tokens", &body).await;
        assert_eq!(reply.problem(), (status, code.into()), "{body}");
    }
    let bearer = format!("Bearer {admin}");
    let plain = [("Authorization", bearer.as_str()), ("Content-Type", "text/plain")];
    let reply = served.send("POST", "/v1/tokens", &plain, "{}").await;
    assert_eq!(reply.problem(), (415, "body-not-json".into()));
    served.stop().await;
}

#[tokio::test]
async fn unknown_addresses_and_methods_are_problems_in_the_askers_language() {
    let served = Setup::new().serve().await;
    // (method, path, language, status, code, detail begins)
    let cases = [
        ("GET", "/v2", "en", 404, "no-such-route", "there is no such address"),
        ("GET", "/v2", "zh-CN,zh;q=0.9", 404, "no-such-route", "没有此接口"),
        ("PUT", "/v1/readers", "en", 405, "method-not-allowed", "this address knows only GET"),
        ("BREW", "/healthz", "en", 405, "method-not-allowed", "this address knows only GET"),
        ("GET", "/v1/pairings/redeem", "zh", 405, "method-not-allowed", "此地址只支持 POST"),
        ("GET", "/v1/readers", "fr", 401, "token-missing", "a valid token is needed"),
    ];
    for (method, path, language, status, code, begins) in cases {
        let reply = served.send(method, path, &[("Accept-Language", language)], "").await;
        assert_eq!(reply.problem(), (status, code.into()), "{method} {path}");
        assert!(reply.json()["detail"].as_str().unwrap().starts_with(begins), "{reply:?}");
    }
    served.stop().await;
}

#[tokio::test]
async fn hosts_and_origins() {
    let mut setup = Setup::new();
    setup.table.allowed_hosts = vec!["gateway.store.example".into()];
    setup.table.allowed_origins = vec!["https://till.example".into()];
    let served = setup.serve().await;
    let port = served.addr.port();
    let own = format!("127.0.0.1:{port}");
    // (name, headers, status, code)
    type Case<'c> = (&'c str, Vec<(&'c str, &'c str)>, u16, &'c str);
    let cases: [Case<'_>; 10] = [
        ("own address", vec![("Host", own.as_str())], 200, ""),
        ("localhost", vec![("Host", "localhost")], 200, ""),
        ("allowed host", vec![("Host", "gateway.store.example:8480")], 200, ""),
        ("rebinding", vec![("Host", "evil.example")], 403, "host-not-allowed"),
        ("another address", vec![("Host", "192.0.2.7")], 403, "host-not-allowed"),
        ("two hosts", vec![("Host", "localhost"), ("Host", "evil.example")], 403, "host-not-allowed"),
        ("allowed origin", vec![("Host", "localhost"), ("Origin", "https://till.example")], 200, ""),
        (
            "foreign origin",
            vec![("Host", "localhost"), ("Origin", "https://evil.example")],
            403,
            "origin-not-allowed",
        ),
        (
            "plain origin",
            vec![("Host", "localhost"), ("Origin", "http://till.example")],
            403,
            "origin-not-allowed",
        ),
        ("null origin", vec![("Host", "localhost"), ("Origin", "null")], 403, "origin-not-allowed"),
    ];
    for (name, headers, status, code) in cases {
        let reply = served.send("GET", "/healthz", &headers, "").await;
        assert_eq!(reply.status, status, "{name}: {reply:?}");
        let cors = reply.header("access-control-allow-origin");
        if code.is_empty() {
            let origin = headers.iter().find(|(n, _)| *n == "Origin").map(|(_, v)| *v);
            assert_eq!(cors, origin, "{name}");
        } else {
            assert_eq!(reply.problem().1, code, "{name}");
            assert_eq!(cors, None, "{name}");
        }
    }
    // HTTP/1.0 may come without a host: refused, too.
    let mut stream = tokio::net::TcpStream::connect(served.addr).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(read_reply(&mut stream).await.problem(), (403, "host-not-allowed".into()));
    served.stop().await;
}

#[tokio::test]
async fn preflights_are_answered_for_allowed_origins_only() {
    let mut setup = Setup::new();
    setup.table.allowed_origins = vec!["https://till.example".into()];
    let served = setup.serve().await;
    let preflight = |origin: &'static str| {
        [("Host", "localhost"), ("Origin", origin), ("Access-Control-Request-Method", "POST")]
    };
    let reply = served.send("OPTIONS", "/v1/print-jobs", &preflight("https://till.example"), "").await;
    assert_eq!(reply.status, 204);
    assert!(reply.header("access-control-allow-headers").unwrap().contains("Idempotency-Key"));
    assert!(reply.header("access-control-allow-methods").unwrap().contains("POST"));
    let reply = served.send("OPTIONS", "/v1/print-jobs", &preflight("https://evil.example"), "").await;
    assert_eq!(reply.problem(), (403, "origin-not-allowed".into()));
    // A refusal is readable for the allowed page.
    let headers = [("Host", "localhost"), ("Origin", "https://till.example")];
    let reply = served.send("GET", "/v1/readers", &headers, "").await;
    assert_eq!(reply.problem().0, 401);
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://till.example"));
    served.stop().await;
}

#[tokio::test]
async fn readiness_tells_its_reasons() {
    let served = Setup::new().serve().await;
    let trouble = |part: &str, blocks_ready| Trouble {
        part: part.into(),
        code: "not-authorised".into(),
        text: Text::new("口令错误", "wrong password"),
        blocks_ready,
    };
    assert_eq!(served.send("GET", "/readyz", &[], "").await.json(), json!({ "ready": true, "troubles": [] }));
    served.health.trouble(trouble("uplink", false));
    let reply = served.send("GET", "/readyz", &[], "").await;
    assert_eq!((reply.status, &reply.json()["troubles"][0]["text"]["en"]), (200, &json!("wrong password")));
    served.health.trouble(trouble("writer", true));
    let reply = served.send("GET", "/readyz", &[], "").await;
    assert_eq!((reply.status, &reply.json()["ready"]), (503, &json!(false)));
    served.health.well("writer");
    assert_eq!(served.send("GET", "/readyz", &[], "").await.status, 200);
    assert_eq!(served.send("GET", "/healthz", &[], "").await.body, "ok\n");
    served.stop().await;
}

#[tokio::test]
async fn the_control_socket_needs_no_token_and_sees_everything() {
    let served = Setup::new().serve().await;
    let client = served.client().await;
    for path in ["/v1/readers", "/v1/vehicles", "/v1/tokens", "/metrics", "/readyz"] {
        let answer = client.request(Method::GET, path, None).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let refused = client.request(Method::GET, "/v2", None).await.unwrap().accepted().unwrap_err();
    assert_eq!(refused.to_string(), "there is no such address; see /openapi.json (no-such-route)");
    served.stop().await;
}

/// Another user, let in by the file's mode, is refused by its credentials.
#[tokio::test]
async fn another_user_on_the_control_socket_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let served = Setup::new().serve().await;
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(served.dir.path(), 0o755);
    let ask = || async {
        let mut child = tokio::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "socat", "-t0", "-"])
            .arg(format!("UNIX-CONNECT:{}", served.socket.display()))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("setpriv and socat are installed");
        let mut input = child.stdin.take().unwrap();
        // Without the right to connect, socat is gone before it reads.
        let _ =
            input.write_all(b"GET /v1/tokens HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        // The input stays open: a client that hangs up gets no answer.
        let mut output = (Vec::new(), String::new());
        child.stdout.take().unwrap().read_to_end(&mut output.0).await.unwrap();
        child.stderr.take().unwrap().read_to_string(&mut output.1).await.unwrap();
        output
    };
    let by_mode = ask().await;
    assert!(by_mode.1.contains("Permission denied"), "{by_mode:?}");
    mode(&served.socket, 0o666);
    let by_credentials = ask().await;
    let reply = read_reply(&mut by_credentials.0.as_slice()).await;
    assert_eq!(reply.problem(), (403, "not-an-admin".into()));
    served.stop().await;
}

#[tokio::test]
async fn figures_hold_no_personal_data_and_are_open_on_this_machine() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let mut setup = Setup::new();
    setup.metrics = recorder.handle();
    let _ = metrics::set_global_recorder(recorder);
    let served = setup.serve().await;
    let token = served.token(&["read"]).await;
    served.get(&token, "/v1/vehicles/LSVAG2186E2100001").await;
    let text = served.send("GET", "/metrics", &[], "").await.body;
    assert!(text.contains("baygate_api_requests_total{"), "{text}");
    assert!(text.contains("route=\"/v1/vehicles/{vin}\""), "{text}");
    assert!(!text.contains("LSVAG2186E2100001") && !text.contains(&token), "{text}");
    served.stop().await;
}

#[tokio::test]
async fn the_document_is_whole() {
    let served = Setup::new().serve().await;
    let document = served.send("GET", "/openapi.json", &[], "").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    found.push(target.clone());
                }
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target} is missing");
    }
    served.stop().await;
}
