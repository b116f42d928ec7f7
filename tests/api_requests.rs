//! What tills ask for: readers, cars, scans and faces, with services played by
//! the test at the other side of the store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;

use std::sync::Arc;
use std::time::Duration;

use baygate::api::client::Method;
use baygate::clock::UtcMillis;
use baygate::event::card::{CardTapped, Technology};
use baygate::event::device::{DeviceKind, DeviceState, DeviceStatus, PrintState};
use baygate::event::maintenance::{Confidence, MaintenanceWarning, Severity};
use baygate::event::vehicle::VehicleReport;
use baygate::event::{Class, EventData, NewEvent, Text};
use baygate::store::cursors::CursorOp;
use baygate::store::devices::{CardInField, DeviceOp};
use baygate::store::jobs::JobOp;
use baygate::store::requests::{RequestOp, RequestRow, RequestState};
use baygate::store::visits::VisitOp;
use baygate::store::warnings::WarningOp;
use baygate::store::{Batch, Op, Store};
use serde_json::{Value, json};
use served::{PATIENCE, Served, Setup, commit, devices, fact};
use uuid::Uuid;

const VIN: &str = "LSVAG2186E2100001";

async fn apply(store: &Store, ops: Vec<Op>) {
    store.commit(Batch { ops, ..Batch::new() }).await.unwrap();
}

fn card() -> CardInField {
    CardInField {
        reader: "counter-1".parse().unwrap(),
        uid: "04A1B2C3".parse().unwrap(),
        technology: Technology::Ntag213,
        atr: Some("3B8F8001".into()),
        since: UtcMillis::now(),
    }
}

fn report(visit: Uuid) -> Value {
    json!({
        "visit": visit, "vin": VIN, "link": "bay-1", "assessable": true, "odometer_km": 48210.3,
        "started_at": "2026-11-21T08:15:30.123Z",
        "ecus": [{ "address": "7E8", "mil": true, "dtcs": [{ "code": "P0420" }, { "code": "P0300" }] }],
    })
}

fn warning(visit: Uuid) -> MaintenanceWarning {
    MaintenanceWarning {
        visit,
        vin: Some(VIN.parse().unwrap()),
        order: None,
        link: "bay-1".parse().unwrap(),
        warning_id: Uuid::now_v7(),
        rule: "battery-low".into(),
        rule_version: 1,
        severity: Severity::Advise,
        title: Text::new("蓄电池电压低", "Battery low"),
        advice: Text::new("检查", "Check it"),
        evidence: Vec::new(),
        confidence: Confidence::Measured,
        parts: None,
        first_seen: UtcMillis::now(),
    }
}

fn raise(visit: Uuid) -> Op {
    Op::Warning(WarningOp::Raise { car: VIN.into(), warning: Box::new(warning(visit)) })
}

async fn arrive(store: &Store) -> Uuid {
    let visit = Uuid::now_v7();
    let open = VisitOp::Open {
        visit,
        link: "bay-1".parse().unwrap(),
        vin: None,
        protocol: "iso15765-4-11bit-500k".into(),
    };
    let told = VisitOp::Report {
        visit,
        vin: Some(VIN.parse().unwrap()),
        report: serde_json::value::to_raw_value(&report(visit)).unwrap(),
    };
    apply(store, vec![Op::Visit(open), Op::Visit(told), raise(visit)]).await;
    visit
}

/// Plays the vehicle's service: takes the next scan.
async fn take_scan(store: &Store) -> RequestRow {
    let mut head = store.head();
    loop {
        head.borrow_and_update();
        let open = store.read(|r| r.open_requests("vehicle.scan", Some("bay-1"))).await.unwrap();
        if let Some(row) = open.into_iter().next() {
            apply(store, vec![Op::Request(RequestOp::Start { id: row.id })]).await;
            return row;
        }
        tokio::time::timeout(PATIENCE, head.changed()).await.expect("a request").unwrap();
    }
}

async fn settle(store: &Store, id: Uuid, state: RequestState, outcome: Value) {
    apply(store, vec![Op::Request(RequestOp::Settle { id, state, outcome })]).await;
}

#[tokio::test]
async fn readers_with_their_card() {
    let served = Setup::new().serve().await;
    let token = served.token(&["read"]).await;
    let fresh = served.get(&token, "/v1/readers").await.json();
    let plain = json!({ "id": "counter-1", "kind": "pcsc", "till": "till-1", "state": "starting" });
    assert_eq!(fresh, json!({ "readers": [plain] }));

    let state = DeviceState { state: DeviceStatus::Failed, reason: Some("busy".into()), detail: None };
    let told = DeviceOp::State { kind: DeviceKind::Reader, id: "counter-1".parse().unwrap(), state };
    apply(&served.store, vec![Op::Device(told), Op::Device(DeviceOp::CardPresent(card()))]).await;
    let reader = served.get(&token, "/v1/readers").await.json()["readers"][0].clone();
    assert_eq!((&reader["state"], &reader["reason"]), (&json!("failed"), &json!("busy")));
    assert_eq!(reader["card"]["uid"], "04A1B2C3");
    // A reload shows at once.
    served.directory.send_replace(Arc::default());
    assert_eq!(served.get(&token, "/v1/readers").await.json(), json!({ "readers": [] }));
    served.stop().await;
}

#[tokio::test]
async fn a_till_waits_for_a_card() {
    let served = Setup::new().serve().await;
    let token = served.token(&["read"]).await;
    assert_eq!(served.get(&token, "/v1/readers/counter-1/card").await.status, 204);
    assert_eq!(served.get(&token, "/v1/readers/counter-9/card").await.problem().0, 404);
    assert_eq!(served.get(&token, "/v1/readers/counter-1/card?wait=x").await.problem().0, 400);
    let (reply, ()) = tokio::join!(served.get(&token, "/v1/readers/counter-1/card?wait=30"), async {
        commit(&served.store, fact("something else")).await;
        apply(&served.store, vec![Op::Device(DeviceOp::CardPresent(card()))]).await;
    });
    assert_eq!((reply.status, &reply.json()["uid"]), (200, &json!("04A1B2C3")));
    assert_eq!(reply.json().get("code"), None);
    // A code that was scanned is told as it is, like in `card.tapped`.
    let tapped = CardTapped {
        reader: "counter-1".parse().unwrap(),
        till: None,
        uid: "04A1B2C3".parse().unwrap(),
        technology: Technology::Qr,
        atr: None,
        code: Some("8800000042".into()),
        member: None,
        latency_ms: 4,
    };
    commit(&served.store, NewEvent::now("card/04A1B2C3", &tapped).unwrap()).await;
    let there = served.get(&token, "/v1/readers/counter-1/card").await.json();
    assert_eq!((&there["uid"], &there["code"]), (&json!("04A1B2C3"), &json!("8800000042")));
    served.stop().await;
}

#[tokio::test]
async fn cars_present_and_what_is_known_of_one() {
    let served = Setup::new().serve().await;
    let token = served.token(&["read"]).await;
    let empty = served.get(&token, "/v1/vehicles").await.json();
    assert_eq!(empty, json!({ "vehicles": [{ "link": "bay-1", "state": "starting", "warnings": [] }] }));
    assert_eq!(served.get(&token, &format!("/v1/vehicles/{VIN}")).await.problem().0, 404);

    let visit = arrive(&served.store).await;
    let car = served.get(&token, "/v1/vehicles").await.json()["vehicles"][0].clone();
    assert_eq!(car["visit"]["visit"], json!(visit));
    assert_eq!(car["visit"]["vin"], VIN);
    let summary = json!({
        "dtc_count": 2, "mil": true, "assessable": true, "odometer_km": 48210.3,
        "started_at": "2026-11-21T08:15:30.123Z",
    });
    assert_eq!(car["visit"]["report"], summary);
    assert_eq!(car["warnings"][0]["rule"], "battery-low");

    let known = served.get(&token, &format!("/v1/vehicles/{}", VIN.to_lowercase())).await.json();
    assert_eq!(known["report"]["ecus"][0]["dtcs"][0]["code"], "P0420");
    assert_eq!(known["report"]["warnings"][0]["rule"], "battery-low");
    assert_eq!(known["visits"][0]["visit"], json!(visit));
    for wrong in ["x", "%FF%FE", "LSVAG2186E2100002"] {
        let reply = served.get(&token, &format!("/v1/vehicles/{wrong}")).await;
        assert!([400, 404].contains(&reply.problem().0), "{wrong}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_scan_gives_the_report_with_the_warnings_it_raised() {
    let served = Setup::new().serve().await;
    let token = served.token(&["vehicle"]).await;
    let visit = Uuid::now_v7();
    apply(&served.store, vec![Op::Cursor(CursorOp::Advance { name: "maintenance", to: Default::default() })])
        .await;
    let store = &served.store;
    let (reply, ()) = tokio::join!(served.post(&token, "/v1/vehicles/bay-1/scan", &Value::Null), async {
        let row = take_scan(store).await;
        let told = fact("the report's event");
        commit(store, NewEvent { kind: VehicleReport::TYPE, class: Class::Vehicle, ..told }).await;
        settle(store, row.id, RequestState::Done, report(visit)).await;
        // The rules run after the report is there; the answer waits for them.
        let goal = store.head().borrow().last;
        let caught_up = Op::Cursor(CursorOp::Advance { name: "maintenance", to: goal });
        apply(store, vec![raise(visit), caught_up]).await;
    });
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["vin"], VIN);
    assert_eq!(reply.json()["warnings"][0]["rule"], "battery-low");
    served.stop().await;
}

#[tokio::test]
async fn a_scan_that_fails_says_why_and_one_for_nobody_is_404() {
    let served = Setup::new().serve().await;
    let token = served.token(&["vehicle"]).await;
    let nowhere = served.post(&token, "/v1/vehicles/bay-7/scan", &json!({})).await;
    assert_eq!(nowhere.problem(), (404, "not-found".into()));
    // (outcome, code, English detail)
    let cases = [
        (
            json!({ "code": "no-car", "text": { "zh": "没有车", "en": "no car answers; plug in the dongle" } }),
            "no-car",
            "no car answers; plug in the dongle",
        ),
        (json!({ "error": "interrupted" }), "interrupted", "interrupted"),
        (json!({ "error": "Bus init: ERROR" }), "device-failed", "Bus init: ERROR"),
        (json!(null), "device-failed", "the device could not do it; check the device and try again"),
    ];
    for (outcome, code, detail) in cases {
        let (reply, ()) = tokio::join!(served.post(&token, "/v1/vehicles/bay-1/scan", &Value::Null), async {
            let row = take_scan(&served.store).await;
            settle(&served.store, row.id, RequestState::Failed, outcome.clone()).await;
        });
        assert_eq!(reply.problem(), (502, code.into()), "{outcome}");
        assert_eq!(reply.json()["detail"], detail);
    }
    served.stop().await;
}

#[tokio::test]
async fn a_long_scan_is_followed_and_its_key_finds_it_again() {
    let mut setup = Setup::new();
    setup.limits.outcome_wait = Duration::from_millis(50);
    let served = setup.serve().await;
    let token = served.token(&["vehicle"]).await;
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "scan-1")];
    let reply = served.send("POST", "/v1/vehicles/bay-1/scan", &headers, "").await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let location = reply.header("location").unwrap().to_owned();
    assert_eq!(served.get(&token, &location).await.json()["state"], "pending");
    // Asking again with the key starts nothing new.
    let again = served.send("POST", "/v1/vehicles/bay-1/scan", &headers, "").await;
    assert_eq!(again.header("location"), Some(location.as_str()));
    let row = take_scan(&served.store).await;
    assert_eq!(served.get(&token, &location).await.json()["state"], "running");
    settle(&served.store, row.id, RequestState::Done, report(Uuid::now_v7())).await;
    let settled = served.get(&token, &location).await.json();
    assert_eq!((&settled["state"], &settled["outcome"]["warnings"]), (&json!("done"), &json!([])));
    let replayed = served.send("POST", "/v1/vehicles/bay-1/scan", &headers, "").await;
    assert_eq!((replayed.status, &replayed.json()["vin"]), (200, &json!(VIN)));
    assert_eq!(served.get(&token, "/v1/requests/x").await.problem().0, 404);
    served.stop().await;
}

fn face() -> Value {
    json!({ "printer": "face-1", "card_no": "SH-0042-1", "fields": { "name": "王先生" } })
}

async fn print(served: &Served, token: &str, key: &str, body: &Value) -> served::Reply {
    let bearer = format!("Bearer {token}");
    let headers =
        [("Authorization", bearer.as_str()), ("Idempotency-Key", key), ("Content-Type", "application/json")];
    served.send("POST", "/v1/print-jobs", &headers, &body.to_string()).await
}

#[tokio::test]
async fn a_face_is_queued_once_a_key() {
    let served = Setup::new().serve().await;
    let (token, other) = (served.token(&["print"]).await, served.token(&["print"]).await);
    let first = print(&served, &token, "k1", &face()).await;
    assert_eq!(first.status, 202, "{first:?}");
    let job = first.json()["job"].clone();
    assert_eq!(first.header("location"), Some(format!("/v1/print-jobs/{}", job.as_str().unwrap()).as_str()));
    assert_eq!(
        (&first.json()["state"], &first.json()["template"]),
        (&json!("queued"), &json!("member-face.svg"))
    );
    let again = print(&served, &token, "k1", &face()).await;
    assert_eq!((again.status, &again.json()["job"]), (202, &job));
    let mut changed = face();
    changed["fields"]["name"] = json!("李女士");
    assert_eq!(
        print(&served, &token, "k1", &changed).await.problem(),
        (422, "idempotency-key-reused".into())
    );
    assert_ne!(print(&served, &other, "k1", &face()).await.json()["job"], job, "keys belong to their token");
    assert_eq!(print(&served, &token, "", &face()).await.problem(), (400, "idempotency-key-invalid".into()));

    let printer = "face-1".parse().unwrap();
    let waiting = served.store.read(move |r| r.open_print_jobs(&printer)).await.unwrap();
    assert_eq!(waiting.len(), 2);
    let events = served.store.read(|r| r.events_after(Default::default(), 10)).await.unwrap();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|logged| &*logged.event.kind == "printer.job"));
    let open = served.store.read(|r| r.open_requests("print.job", None)).await.unwrap();
    assert!(open.is_empty(), "the request row only keeps the key");
    served.stop().await;
}

#[tokio::test]
async fn a_face_that_cannot_be_is_refused_before_it_is_queued() {
    let served = Setup::new().serve().await;
    let token = served.token(&["print"]).await;
    // (body, status, code)
    let cases = [
        (json!({ "printer": "face-9", "fields": { "name": "x" } }), 404, "not-found"),
        (json!({ "printer": "face-1", "fields": {} }), 422, "face-invalid"),
        (json!({ "printer": "face-1", "fields": "x" }), 422, "face-invalid"),
        (
            json!({ "printer": "face-1", "template": "../x.svg", "fields": { "name": "x" } }),
            422,
            "face-invalid",
        ),
        (json!({ "printer": "face-1", "template": "", "fields": { "name": "x" } }), 422, "face-invalid"),
        (json!({ "printer": "face-1", "card_no": "a b", "fields": { "name": "x" } }), 422, "face-invalid"),
        (json!({ "fields": { "name": "x" } }), 422, "printer-needed"),
        (json!({ "printer": "face-1" }), 400, "body-invalid"),
    ];
    for (body, status, code) in cases {
        let reply = served.post(&token, "/v1/print-jobs", &body).await;
        assert_eq!(reply.problem(), (status, code.into()), "{body}");
    }
    assert!(served.store.read(|r| r.events_after(Default::default(), 10)).await.unwrap().is_empty());
    served.stop().await;
}

#[tokio::test]
async fn a_job_is_taken_back_until_it_begins() {
    let served = Setup::new().serve().await;
    let client = served.client().await;
    let queue = || async {
        let made = client.request(Method::POST, "/v1/print-jobs", Some(&face())).await.unwrap();
        made.accepted().unwrap()["job"].as_str().unwrap().to_owned()
    };
    let waiting = queue().await;
    let path = format!("/v1/print-jobs/{waiting}");
    let cancelled = client.request(Method::DELETE, &path, None).await.unwrap();
    assert_eq!((cancelled.status, &cancelled.body["state"]), (200, &json!("cancelled")));
    assert_eq!(client.request(Method::DELETE, &path, None).await.unwrap().status, 409);
    assert_eq!(client.request(Method::GET, &path, None).await.unwrap().body["state"], "cancelled");

    let begun = queue().await;
    let job = begun.parse().unwrap();
    let printing =
        JobOp::State { job, state: PrintState::Printing, error: None, output: None, attempt: true };
    apply(&served.store, vec![Op::Job(printing)]).await;
    let refused = client.request(Method::DELETE, &format!("/v1/print-jobs/{begun}"), None).await.unwrap();
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("job-begun")));
    served.stop().await;
}

#[tokio::test]
async fn a_printer_that_never_prints_does_not_fill_the_disk() {
    let mut setup = Setup::new();
    setup.limits.print_queue = 2;
    let served = setup.serve().await;
    let token = served.token(&["print"]).await;
    for _ in 0..2 {
        assert_eq!(served.post(&token, "/v1/print-jobs", &face()).await.status, 202);
    }
    let refused = served.post(&token, "/v1/print-jobs", &face()).await;
    assert_eq!(refused.problem(), (503, "print-queue-full".into()));
    served.stop().await;
}

#[tokio::test]
async fn a_face_check_that_panics_costs_one_answer() {
    let mut setup = Setup::new();
    setup.face_check = Arc::new(|_, _| panic!("a bad template"));
    let served = setup.serve().await;
    let token = served.token(&["print"]).await;
    assert_eq!(served.post(&token, "/v1/print-jobs", &face()).await.problem(), (422, "face-invalid".into()));
    assert_eq!(devices().printers.len(), 1);
    assert_eq!(served.send("GET", "/healthz", &[], "").await.status, 200);
    served.stop().await;
}
