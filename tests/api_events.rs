//! The event stream: in order, resumed anywhere, across a restart, and never
//! at the cost of anybody else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ledger_rows;
mod served;

use std::time::Duration;

use baygate::api::client::{ClientError, Method};
use baygate::api::sse::SseEvent;
use baygate::event::NewEvent;
use baygate::event::card::{CardTapped, Technology};
use baygate::event::ledger::CardType;
use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};
use served::{PATIENCE, Served, Setup, commit, fact, head_of, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

async fn next<S: Stream<Item = Result<SseEvent, ClientError>> + Unpin>(stream: &mut S) -> SseEvent {
    tokio::time::timeout(PATIENCE, stream.next())
        .await
        .expect("an event in time")
        .expect("not the end")
        .unwrap()
}

fn sequence(event: &SseEvent) -> u64 {
    event.id.as_deref().unwrap().split_once('/').unwrap().1.parse().unwrap()
}

fn tapped() -> NewEvent {
    let data = CardTapped {
        reader: "counter-1".parse().unwrap(),
        till: None,
        uid: "04A1B2C3".parse().unwrap(),
        technology: Technology::Ntag213,
        atr: None,
        code: None,
        member: None,
        latency_ms: 4,
    };
    NewEvent::now("card/04A1B2C3", &data).unwrap()
}

/// A stream on TCP with everything read of it so far.
struct Raw {
    stream: TcpStream,
    text: String,
}

impl Raw {
    /// Opens one and reads until its opening is there.
    async fn open(served: &Served, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        stream.write_all(head_of(served.addr, "GET", path, headers, "").as_bytes()).await.unwrap();
        let mut raw = Self { stream, text: String::new() };
        raw.read_until("\n\n").await;
        raw
    }

    async fn read_until(&mut self, mark: &str) {
        let mut buffer = [0_u8; 4096];
        let reading = async {
            while !self.text.contains(mark) {
                let read = self.stream.read(&mut buffer).await.unwrap();
                assert!(read > 0, "ended before {mark:?}: {}", self.text);
                self.text.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect(mark);
    }

    /// Reads to the end of the connection.
    async fn read_rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the end").unwrap();
        rest
    }
}

#[tokio::test]
async fn from_now_in_order_and_filtered() {
    let served = Setup::new().serve().await;
    commit(&served.store, fact("before")).await;
    let client = served.client().await;
    let mut all = Box::pin(client.events("").await.unwrap());
    let mut cards = Box::pin(client.events("class=card,ledger").await.unwrap());
    for n in 0..5 {
        commit(&served.store, fact(&n.to_string())).await;
    }
    commit(&served.store, tapped()).await;
    for n in 2..7 {
        let event = next(&mut all).await;
        assert_eq!((sequence(&event), event.event.as_str()), (n, "baygate.device.state"));
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(data["specversion"], "1.0");
        assert_eq!(data["sequence"], format!("{n:020}"));
        assert_eq!(event.id.unwrap(), format!("{}/{n}", data["epoch"].as_str().unwrap()));
    }
    let card = next(&mut cards).await;
    assert_eq!((sequence(&card), card.event.as_str()), (7, "baygate.card.tapped"));
    let refused = client.events("class=cards").await.err().unwrap();
    assert!(matches!(refused, ClientError::Refused { status: 400, .. }), "{refused}");
    served.stop().await;
}

/// Each sale is told by its own commit: nothing is committed behind it, and no timer of the stream's
/// ends within the test. How soon is measured (`make bench`, `counter`).
#[tokio::test]
async fn a_sale_is_told_by_its_commit() {
    let mut setup = Setup::new();
    setup.limits.keep_alive = Duration::from_secs(86_400);
    let served = setup.serve().await;
    let client = served.client().await;
    let mut till = Box::pin(client.events("class=ledger,card").await.unwrap());
    let mut card = ledger_rows::card(1, CardType::Named);
    ledger_rows::tap(&served.store, &card).await;
    for n in 0..10 {
        let deed = if n == 0 { ledger_rows::top_up(5_000) } else { ledger_rows::spend(100) };
        let id = ledger_rows::done(&served.store, &mut card, &deed).await;
        let told = next(&mut till).await;
        let data: Value = serde_json::from_str(&told.data).unwrap();
        let (kind, transaction) = (told.event.as_str(), &data["data"]["transaction_id"]);
        assert_eq!((kind, transaction), ("baygate.card.transaction", &json!(id)), "sale {n}");
        assert_eq!(data["data"]["outcome"], "committed");
    }
    served.stop().await;
}

#[tokio::test]
async fn resumes_after_the_last_id_across_a_restart() {
    let served = Setup::new().serve().await;
    let client = served.client().await;
    let mut stream = Box::pin(client.events("").await.unwrap());
    for n in 0..3 {
        commit(&served.store, fact(&n.to_string())).await;
    }
    let first = next(&mut stream).await;
    drop(stream);
    let dir = served.stop().await;

    let served = Setup::in_dir(dir).serve().await;
    let token = served.token(&["read"]).await;
    commit(&served.store, fact("after the restart")).await;
    let (bearer, id) = (format!("Bearer {token}"), first.id.unwrap());
    // The header goes before the address: an EventSource keeps its address for ever.
    let path = format!("/v1/events?after={}/3", id.split_once('/').unwrap().0);
    let mut raw = Raw::open(&served, &path, &[("Authorization", &bearer), ("Last-Event-ID", &id)]).await;
    raw.read_until("after the restart").await;
    let text = &raw.text;
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let sequences: Vec<&str> = ids.iter().map(|id| id.split_once('/').unwrap().1).collect();
    assert_eq!(sequences, ["1", "2", "3", "4"], "{text}");
    assert!(!text.contains("event: reset"));

    let client = served.client().await;
    let mut stream = Box::pin(client.events(&format!("after={id}")).await.unwrap());
    assert_eq!(sequence(&next(&mut stream).await), 2);
    served.stop().await;
}

#[tokio::test]
async fn an_unknown_or_trimmed_position_resets() {
    let served = Setup::new().serve().await;
    for n in 0..6 {
        commit(&served.store, fact(&n.to_string())).await;
    }
    let epoch = served.store.head().borrow().epoch;
    rusqlite::Connection::open(served.dir.path().join("baygate.db"))
        .unwrap()
        .execute("DELETE FROM event WHERE event_offset <= 3", [])
        .unwrap();
    let client = served.client().await;
    // (position, reason of the reset, first sequence)
    let cases = [
        (format!("{epoch}/1"), Some("not-in-log"), 4),
        (format!("{epoch}/99"), Some("not-in-log"), 4),
        (format!("{}/1", uuid::Uuid::nil()), Some("unknown-epoch"), 4),
        ("yesterday".to_owned(), Some("malformed"), 4),
        (format!("{epoch}/-1"), Some("malformed"), 4),
        (format!("{epoch}/18446744073709551615"), Some("not-in-log"), 4),
        (format!("{epoch}/3"), None, 4),
        (format!("{epoch}/5"), None, 6),
    ];
    for (position, reason, first) in cases {
        let mut stream = Box::pin(client.events(&format!("after={position}")).await.unwrap());
        let mut event = next(&mut stream).await;
        if let Some(reason) = reason {
            assert_eq!((event.event.as_str(), event.id), ("reset", None), "{position}");
            let data: Value = serde_json::from_str(&event.data).unwrap();
            assert_eq!(data, json!({ "reason": reason, "epoch": epoch }), "{position}");
            event = next(&mut stream).await;
        }
        assert_eq!(sequence(&event), first, "{position}");
    }
    served.stop().await;
}

/// What was read is gone from the log: the position at its end is still known.
#[tokio::test]
async fn the_end_of_the_log_is_a_position_when_its_rows_are_trimmed() {
    for trim in ["DELETE FROM event WHERE event_offset > 1", "DELETE FROM event"] {
        let served = Setup::new().serve().await;
        for n in 0..3 {
            commit(&served.store, fact(&n.to_string())).await;
        }
        let epoch = served.store.head().borrow().epoch;
        let db = rusqlite::Connection::open(served.dir.path().join("baygate.db")).unwrap();
        db.execute(trim, []).unwrap();
        let client = served.client().await;
        let mut stream = Box::pin(client.events(&format!("after={epoch}/3")).await.unwrap());
        commit(&served.store, fact("next")).await;
        assert_eq!(sequence(&next(&mut stream).await), 4, "{trim}");
        served.stop().await;
    }
}

#[tokio::test]
async fn silence_is_kept_alive_with_the_position() {
    let mut setup = Setup::new();
    setup.limits.keep_alive = Duration::from_millis(20);
    let served = setup.serve().await;
    let token = served.token(&["read"]).await;
    let bearer = format!("Bearer {token}");
    let mut raw = Raw::open(&served, "/v1/events?class=card", &[("Authorization", &bearer)]).await;
    assert!(raw.text.contains("/0\n\n"), "{}", raw.text);
    // Filtered out, but the position moves past it.
    commit(&served.store, fact("not a card")).await;
    raw.read_until("/1\n\n").await;

    let listed = served.client().await.request(Method::GET, "/v1/tokens", None).await.unwrap().body;
    let path = format!("/v1/tokens/{}", listed["tokens"][0]["id"].as_str().unwrap());
    assert_eq!(served.client().await.request(Method::DELETE, &path, None).await.unwrap().status, 204);
    raw.read_rest().await; // the stream of a revoked token ends
    served.stop().await;
}

#[tokio::test]
async fn tickets_are_good_once() {
    let served = Setup::new().serve().await;
    let token = served.token(&["read"]).await;
    let made = served.post(&token, "/v1/events/tickets", &json!({})).await;
    assert_eq!(made.status, 201);
    let path = format!("/v1/events?ticket={}", made.json()["ticket"].as_str().unwrap());
    let raw = Raw::open(&served, &path, &[]).await;
    assert!(raw.text.starts_with("HTTP/1.1 200"), "{}", raw.text);
    let again = served.send("GET", &path, &[], "").await;
    assert_eq!(again.problem(), (401, "ticket-invalid".into()));
    let elsewhere = served.send("GET", &path.replace("events", "readers"), &[], "").await;
    assert_eq!(elsewhere.problem(), (401, "token-missing".into()));
    served.stop().await;
}

#[tokio::test]
async fn streams_are_counted_and_the_rest_works_on() {
    let mut setup = Setup::new();
    setup.limits.streams = 2;
    let served = setup.serve().await;
    let token = served.token(&["read"]).await;
    let client = served.client().await;
    let first = client.events("").await.unwrap();
    let _second = client.events("").await.unwrap();
    let third = served.get(&token, "/v1/events").await;
    assert_eq!(third.problem(), (503, "too-many-streams".into()));
    assert!(third.header("retry-after").is_some());
    assert_eq!(served.get(&token, "/v1/readers").await.status, 200);
    drop(first);
    until("a slot is free again", || async { client.events("").await.is_ok() }).await;
    served.stop().await;
}

/// A client that never reads: it is cut off, its slot is free again, and
/// meanwhile everybody else gets everything.
#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let mut setup = Setup::new();
    setup.limits.streams = 2;
    setup.limits.write_stall = Duration::from_millis(300);
    let served = setup.serve().await;
    let mut deaf = UnixStream::connect(&served.socket).await.unwrap();
    deaf.write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    deaf.read_u8().await.unwrap(); // the answer has begun: it has its slot
    let client = served.client().await;
    let mut good = Box::pin(client.events("").await.unwrap());
    let large = "x".repeat(50_000);
    for n in 1..=40 {
        commit(&served.store, fact(&large)).await;
        // At once: where commits are slow it would soon be deaf as well.
        assert_eq!(sequence(&next(&mut good).await), n);
    }
    until("the deaf client's slot is free", || async { client.events("").await.is_ok() }).await;
    served.stop().await;
}

#[tokio::test]
async fn a_stop_ends_open_streams_at_once() {
    let served = Setup::new().serve().await;
    let token = served.token(&["read"]).await;
    let client = served.client().await;
    let mut stream = Box::pin(client.events("").await.unwrap());
    let bearer = format!("Bearer {token}");
    let raw = Raw::open(&served, "/v1/events", &[("Authorization", &bearer)]).await;
    let _idle = TcpStream::connect(served.addr).await.unwrap();
    let socket = served.socket.clone();
    let _dir = served.stop().await; // asserts 5 s
    assert!(tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().is_none());
    let rest = raw.read_rest().await;
    assert!(rest.ends_with(b"0\r\n\r\n"), "not an orderly end: {:?}", String::from_utf8_lossy(&rest));
    assert!(!socket.exists());
}
