//! What people type in about a visit, over HTTP on a real store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod reports;
mod served;

use baygate::event::vehicle::{DepartureReason, VehicleReport};
use baygate::store::visits::VisitOp;
use baygate::store::{Batch, Offset, Op, Store};
use serde_json::{Value, json};
use served::{Served, Setup};
use uuid::Uuid;

const READ: &str = "1M8GDM9AXKP042788";
const OTHER: &str = "LSVAG2186E2100001";

async fn apply(store: &Store, op: VisitOp) {
    store.commit(Batch::new().op(Op::Visit(op))).await.unwrap();
}

async fn arrive(store: &Store, vin: Option<&str>) -> Uuid {
    let visit = Uuid::now_v7();
    let vin = vin.map(|vin| vin.parse().unwrap());
    let open = VisitOp::Open { visit, link: "bay-1".parse().unwrap(), vin, protocol: "iso9141-2".into() };
    apply(store, open).await;
    visit
}

async fn report(store: &Store, visit: Uuid, change: impl FnOnce(&mut VehicleReport)) {
    let mut report = VehicleReport { visit, vin: None, ..reports::report() };
    change(&mut report);
    let told = serde_json::value::to_raw_value(&report).unwrap();
    apply(store, VisitOp::Report { visit, vin: report.vin, report: told }).await;
}

async fn depart(store: &Store, visit: Uuid) {
    apply(store, VisitOp::Close { visit, reason: DepartureReason::Unplugged }).await;
}

/// Reports in the log.
async fn told(store: &Store) -> Vec<Value> {
    let events = store.read(|r| r.events_after(Offset(0), 1000)).await.unwrap();
    let reports = events.iter().filter(|logged| logged.event.kind == "vehicle.report");
    reports.map(|logged| serde_json::from_str(logged.event.data.get()).unwrap()).collect()
}

struct Desk {
    served: Served,
    token: String,
}

impl Desk {
    async fn new() -> Self {
        let served = Setup::new().serve().await;
        let token = served.token(&["vehicle", "read"]).await;
        Self { served, token }
    }

    async fn type_in(&self, visit: Uuid, body: Value) -> (u16, Value) {
        self.type_in_with(visit, body, None).await
    }

    async fn type_in_with(&self, visit: Uuid, body: Value, key: Option<&str>) -> (u16, Value) {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        headers.extend(key.map(|key| ("Idempotency-Key", key)));
        let path = format!("/v1/visits/{visit}");
        let reply = self.served.send("POST", &path, &headers, &body.to_string()).await;
        if reply.status != 200 {
            reply.problem();
        }
        (reply.status, reply.json())
    }
}

#[tokio::test]
async fn facts_go_into_the_report_that_stands_and_into_the_log() {
    let desk = Desk::new().await;
    let store = &desk.served.store;
    let visit = arrive(store, None).await;
    report(store, visit, |_| {}).await;
    assert!(told(store).await.is_empty());

    let body = json!({
        "vin": READ.to_lowercase(), "odometer_km": 48210, "order": "R-117", "purpose": "pre-inspection",
        "card_no": "8800-1", "consent": true,
    });
    let (status, answer) = desk.type_in(visit, body.clone()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["notices"], json!([]));
    assert_eq!(answer["card_no"], "8800-1");
    let view = &answer["visit"];
    assert_eq!(
        (&view["vin"], &view["vin_typed"], &view["order"]),
        (&json!(READ), &json!(true), &json!("R-117"))
    );
    assert_eq!((&view["odometer_km"], &view["odometer_source"]), (&json!(48210.0), &json!("dashboard")));
    assert_eq!((&view["purpose"], &view["consent"]), (&json!("pre-inspection"), &json!(true)));

    let logged = told(store).await;
    assert_eq!(logged.len(), 1, "headquarters is told");
    for (member, value) in [
        ("visit", json!(visit)),
        ("vin", json!(READ)),
        ("vin_typed", json!(true)),
        ("vin_check", json!("ok")),
        ("order", json!("R-117")),
        ("odometer_km", json!(48210.0)),
        ("odometer_source", json!("dashboard")),
        ("purpose", json!("pre-inspection")),
        ("card_no", json!("8800-1")),
    ] {
        assert_eq!(logged[0][member], value, "{member}");
    }
    assert!(logged[0]["consent_at"].is_string());
    let car = desk.served.get(&desk.token, &format!("/v1/vehicles/{READ}")).await.json();
    assert_eq!(car["report"]["odometer_km"], 48210.0, "found under the typed VIN");

    // Once more is no second effect; consent taken back takes the card out.
    assert_eq!(desk.type_in(visit, body).await.0, 200);
    assert_eq!(told(store).await.len(), 1);
    let (_, answer) = desk.type_in(visit, json!({ "consent": false })).await;
    assert_eq!((answer.get("card_no"), answer["visit"].get("consent")), (None, None));
    let logged = told(store).await;
    assert_eq!((logged.len(), logged[1].get("card_no"), logged[1].get("consent_at")), (2, None, None));
    assert_eq!(logged[1]["order"], "R-117", "the rest stays");
}

#[tokio::test]
async fn what_the_car_told_is_not_typed_over() {
    let desk = Desk::new().await;
    let store = &desk.served.store;
    let visit = arrive(store, Some(READ)).await;
    report(store, visit, |report| {
        report.vin = READ.parse().ok();
        (report.odometer_km, report.odometer_source) = (Some(51_000.4), Some("obd".into()));
    })
    .await;
    let (status, problem) = desk.type_in(visit, json!({ "vin": OTHER, "order": "R-1" })).await;
    assert_eq!((status, &problem["code"]), (409, &json!("vin-conflict")));
    assert!(problem["text"]["zh"].as_str().unwrap().contains(READ));
    assert!(told(store).await.is_empty(), "nothing of it took effect");
    let (_, answer) = desk.type_in(visit, json!({ "vin": READ, "odometer_km": 48210 })).await;
    assert_eq!(answer["notices"][0]["code"], "odometer-differs");
    let logged = told(store).await;
    assert_eq!((&logged[0]["odometer_km"], &logged[0]["odometer_source"]), (&json!(51000.4), &json!("obd")));
    assert_eq!(logged[0].get("vin_typed"), None);

    // Typed in first, read later: the car's counts, and the view says so.
    depart(store, visit).await;
    let visit = arrive(store, None).await;
    desk.type_in(visit, json!({ "vin": OTHER })).await;
    apply(store, VisitOp::Identify { visit, vin: READ.parse().unwrap() }).await;
    let car = desk.served.get(&desk.token, "/v1/vehicles").await.json()["vehicles"][0]["visit"].clone();
    assert_eq!((&car["vin"], &car["vin_conflict"]), (&json!(READ), &json!(true)));
    assert_eq!(car.get("vin_typed"), None);
}

#[tokio::test]
async fn earlier_visits_tell_what_is_plausible() {
    let desk = Desk::new().await;
    let store = &desk.served.store;
    let first = arrive(store, Some(READ)).await;
    desk.type_in(first, json!({ "odometer_km": 48210, "odometer_source": "order" })).await;
    depart(store, first).await;
    let second = arrive(store, None).await;
    for (km, notices) in [
        (48215.0, json!([])),
        (4821.0, json!(["odometer-went-back"])),
        (482100.0, json!(["odometer-jumped"])),
    ] {
        let (status, answer) = desk.type_in(second, json!({ "vin": READ, "odometer_km": km })).await;
        let codes: Vec<_> =
            answer["notices"].as_array().unwrap().iter().map(|notice| notice["code"].clone()).collect();
        assert_eq!((status, json!(codes)), (200, notices), "{km}");
    }
}

#[tokio::test]
async fn refusals_have_codes_and_leave_everything_as_it_was() {
    let desk = Desk::new().await;
    let store = &desk.served.store;
    let visit = arrive(store, None).await;
    for (body, status, code) in [
        (json!({ "vin": "1M8GDM9AXKPO42788" }), 422, "vin-invalid"),
        (json!({ "odometer_km": -1, "order": "R-1" }), 422, "odometer-invalid"),
        (json!({ "odometer_km": 1, "odometer_source": "obd" }), 422, "odometer-source-invalid"),
        (json!({ "order": "" }), 422, "order-invalid"),
        (json!({ "card_no": "8800-1" }), 422, "consent-missing"),
        (json!({ "card_no": "88 00", "consent": true }), 422, "card-no-invalid"),
        (json!({ "purpose": "joyride" }), 400, "body-invalid"),
        (json!({ "odometer": 1 }), 400, "body-invalid"),
    ] {
        let (got, problem) = desk.type_in(visit, body.clone()).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{body}");
    }
    let row = store.read(move |r| r.visit(visit)).await.unwrap().unwrap();
    assert_eq!((row.typed, row.revision), (Default::default(), 0));
    assert_eq!(desk.type_in(Uuid::now_v7(), json!({})).await.0, 404);

    depart(store, visit).await;
    let (status, problem) = desk.type_in(visit, json!({ "order": "R-1" })).await;
    assert_eq!((status, &problem["code"]), (409, &json!("visit-over")));
    // With a report there is somewhere to put it.
    let visit = arrive(store, None).await;
    report(store, visit, |_| {}).await;
    depart(store, visit).await;
    assert_eq!(desk.type_in(visit, json!({ "order": "R-2" })).await.0, 200);
    assert_eq!(told(store).await[0]["order"], "R-2");

    let reader = desk.served.token(&["read"]).await;
    let reply = desk.served.post(&reader, &format!("/v1/visits/{visit}"), &json!({})).await;
    assert_eq!(reply.problem().0, 403);
}

#[tokio::test]
async fn a_key_settles_once() {
    let desk = Desk::new().await;
    let store = &desk.served.store;
    let visit = arrive(store, None).await;
    let first = desk.type_in_with(visit, json!({ "odometer_km": 100 }), Some("k")).await;
    desk.type_in(visit, json!({ "odometer_km": 200 })).await;
    // A retry of the first must not set the reading back.
    assert_eq!(desk.type_in_with(visit, json!({ "odometer_km": 100 }), Some("k")).await, first);
    let row = store.read(move |r| r.visit(visit)).await.unwrap().unwrap();
    assert_eq!(row.typed.odometer_km, Some(200.0));
    let (status, problem) = desk.type_in_with(visit, json!({ "odometer_km": 300 }), Some("k")).await;
    assert_eq!((status, &problem["code"]), (422, &json!("idempotency-key-reused")));

    // Nor is it judged by what the car told since.
    let vin = json!({ "vin": OTHER });
    let first = desk.type_in_with(visit, vin.clone(), Some("v")).await;
    apply(store, VisitOp::Identify { visit, vin: READ.parse().unwrap() }).await;
    assert_eq!(desk.type_in(visit, vin.clone()).await.0, 409);
    assert_eq!(desk.type_in_with(visit, vin, Some("v")).await, first);
}

#[tokio::test]
async fn many_tills_at_once_lose_nothing() {
    let desk = Desk::new().await;
    let visit = arrive(&desk.served.store, None).await;
    report(&desk.served.store, visit, |_| {}).await;
    let (a, b, c, d) = tokio::join!(
        desk.type_in(visit, json!({ "order": "R-1" })),
        desk.type_in(visit, json!({ "purpose": "intake" })),
        desk.type_in(visit, json!({ "odometer_km": 5 })),
        desk.type_in(visit, json!({ "vin": READ })),
    );
    assert_eq!([a.0, b.0, c.0, d.0], [200; 4]);
    let logged = told(&desk.served.store).await;
    let last = logged.last().unwrap();
    assert_eq!(logged.len(), 4);
    assert_eq!(
        (&last["order"], &last["purpose"], &last["odometer_km"], &last["vin"]),
        (&json!("R-1"), &json!("intake"), &json!(5.0), &json!(READ))
    );
}
