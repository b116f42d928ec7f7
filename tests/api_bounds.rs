//! Hostile and clumsy clients: bounded, counted, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;

use std::time::Duration;

use serde_json::json;
use served::{Served, Setup, head_of, read_reply, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn well(served: &Served) {
    assert_eq!(served.send("GET", "/healthz", &[], "").await.status, 200);
}

#[tokio::test]
async fn a_body_is_bounded_in_size_and_time() {
    let mut setup = Setup::new();
    setup.limits.body_bytes = 1000;
    setup.limits.body_timeout = Duration::from_millis(100);
    let served = setup.serve().await;
    let admin = served.token(&["admin"]).await;
    let announced = json!({ "name": "x".repeat(2000), "scopes": ["read"] });
    assert_eq!(served.post(&admin, "/v1/tokens", &announced).await.problem(), (413, "body-too-large".into()));

    let head = format!(
        "POST /v1/tokens HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {admin}\r\nContent-Type: application/json\r\n"
    );
    // (name, the rest of the request, status, code)
    let cases = [
        (
            "chunked without end",
            format!(
                "Transfer-Encoding: chunked\r\n\r\n{}",
                format!("100\r\n{}\r\n", "x".repeat(256)).repeat(10)
            ),
            413,
            "body-too-large",
        ),
        ("half a body", "Content-Length: 50\r\n\r\n{\"name\"".into(), 408, "body-too-slow"),
        ("not JSON", "Content-Length: 9\r\n\r\n{\"name\":x".into(), 400, "body-invalid"),
        ("no body", "\r\n".into(), 400, "body-invalid"),
    ];
    for (name, rest, status, code) in cases {
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        stream.write_all(format!("{head}{rest}").as_bytes()).await.unwrap();
        let reply = read_reply(&mut stream).await;
        assert_eq!(reply.problem(), (status, code.into()), "{name}");
        well(&served).await;
    }
    served.stop().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let mut setup = Setup::new();
    setup.limits.head_timeout = Duration::from_millis(200);
    let served = setup.serve().await;
    let mut silent = TcpStream::connect(served.addr).await.unwrap();
    let mut slow = TcpStream::connect(served.addr).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A").await.unwrap();
    well(&served).await;
    for (name, stream) in [("slow", &mut slow), ("silent", &mut silent)] {
        let mut rest = Vec::new();
        let cut = tokio::time::timeout(served::PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(cut.is_ok(), "{name} was not cut off");
    }
    well(&served).await;
    served.stop().await;
}

#[tokio::test]
async fn garbage_and_oversized_heads_cost_one_connection() {
    let mut setup = Setup::new();
    setup.limits.head_timeout = Duration::from_millis(500);
    let served = setup.serve().await;
    let cookie = format!("GET / HTTP/1.1\r\nHost: localhost\r\nCookie: {}\r\n\r\n", "x".repeat(1_000_000));
    let headers = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(500));
    // (name, bytes, status; 0: just cut off)
    let cases: [(&str, Vec<u8>, &[u16]); 6] = [
        ("a TLS hello", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03], &[0, 400]),
        ("an ELM327 prompt", b"ATZ\r\r>ELM327 v1.5\r\n\r\n".to_vec(), &[0, 400]),
        ("a huge header", cookie.into_bytes(), &[0, 431]),
        ("many headers", headers.into_bytes(), &[0, 431]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[0, 400]),
        (
            "two lengths",
            b"POST /v1/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
                .to_vec(),
            &[0, 400],
        ),
    ];
    for (name, bytes, expected) in cases {
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        // The server may hang up in the middle of it.
        let _ = stream.write_all(&bytes).await;
        let reply = read_reply(&mut stream).await;
        assert!(expected.contains(&reply.status), "{name}: {reply:?}");
        well(&served).await;
    }
    served.stop().await;
}

#[tokio::test]
async fn a_flood_of_connections_locks_nobody_out_for_good() {
    let mut setup = Setup::new();
    setup.limits.connections = 4;
    let served = setup.serve().await;
    let token = served.token(&["read"]).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        let asked = head_of(
            served.addr,
            "GET",
            "/v1/readers/counter-1/card?wait=60",
            &[("Authorization", &format!("Bearer {token}"))],
            "",
        );
        stream.write_all(asked.as_bytes()).await.unwrap();
        held.push(stream);
    }
    until("the fifth is turned away", || async {
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        // It may be closed before this is written.
        let _ = stream.write_all(head_of(served.addr, "GET", "/healthz", &[], "").as_bytes()).await;
        read_reply(&mut stream).await.status == 0
    })
    .await;
    // The CLI still gets in.
    let client = served.client().await;
    let answer = client.request(baygate::api::client::Method::GET, "/healthz", None).await.unwrap();
    assert_eq!(answer.status, 200);
    drop(held);
    until("TCP serves again", || async {
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        let _ = stream.write_all(head_of(served.addr, "GET", "/healthz", &[], "").as_bytes()).await;
        read_reply(&mut stream).await.status == 200
    })
    .await;
    served.stop().await;
}

#[tokio::test]
async fn tickets_are_bounded() {
    let served = Setup::new().serve().await;
    let token = served.token(&["read"]).await;
    for _ in 0..256 {
        assert_eq!(served.post(&token, "/v1/events/tickets", &json!({})).await.status, 201);
    }
    let refused = served.post(&token, "/v1/events/tickets", &json!({})).await;
    assert_eq!(refused.problem(), (429, "too-many-tickets".into()));
    well(&served).await;
    served.stop().await;
}
