//! The one thing that changes a car.

use baygate::config::tables::Poll;
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Engine};
use baygate::store::tokens::TokenOp;
use baygate::store::{Batch, Op};
use serde_json::json;
use sha2::Digest as _;

use super::faulty;
use super::list::judge;
use super::served::Setup;
use super::tap::tapped;
use super::vehicle_bay::Bay;

/// With a person's word the clearing goes out once; before it, and after it, never.
#[tokio::test(flavor = "multi_thread")]
async fn clearing_goes_out_once_and_only_behind_a_confirmation() {
    clearing_goes_out_once(CarSpec { engine: Engine::On, ..faulty() }, "010C", "04").await;
    let only_uds = CarSpec { engine: Engine::On, obd: false, j1979_2: true, ..faulty() };
    clearing_goes_out_once(only_uds, "22F40C", "14FFFFFF").await;
}

/// `before`: the last question, whether the engine stands.
async fn clearing_goes_out_once(car: CarSpec, before: &str, clearing: &str) {
    let served = Setup::new().serve().await;
    let (sim, tap) = tapped(SimAdapter::default(), Some(car)).await;
    let bay = Bay::start(&served.store, "bay-1", &tap.link(), Poll::Auto);
    bay.nth("vehicle.report", 1).await;
    let till = "bg_till-of-the-read-only-proof";
    let create = TokenOp::Create {
        id: uuid::Uuid::now_v7(),
        name: "till-1".into(),
        sha256: sha2::Sha256::digest(till).into(),
        scopes: vec!["vehicle".into()],
        till: Some("till-1".into()),
    };
    served.store.commit(Batch::new().op(Op::Token(create))).await.unwrap();
    let bearer = format!("Bearer {till}");
    let asked =
        served.send("POST", "/v1/vehicles/bay-1/clear-dtcs", &[("Authorization", &bearer)], "").await.json();
    assert_eq!(judge("asked", &tap.heard()), [""; 0], "asking is not doing");
    let path = format!("/v1/confirmations/{}", asked["id"].as_str().unwrap());
    let word = json!({"confirm": true, "operator": "Li"});
    // Said by many at once.
    let replies = futures_util::future::join_all((0..4).map(|_| served.post(till, &path, &word))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "{replies:?}");
    bay.scan().await;
    bay.stop().await;
    assert_eq!(judge("confirmed", &tap.heard()), [clearing]);
    // And the adapter cannot repeat it: another command stands between it and an empty line.
    let text = String::from_utf8(tap.heard()).unwrap();
    let between = text.split(&format!("\r{clearing}\r")).collect::<Vec<_>>();
    assert_eq!(between.len(), 2, "the whole conversation: {text:?}");
    assert!(between[0].ends_with(before) && between[1].starts_with("XXXXXXXX\r"), "{text:?}");
    let cleared = sim.requests().into_iter().filter(|request| matches!(request[0], 0x04 | 0x14));
    assert_eq!(cleared.collect::<Vec<_>>(), [hex::decode(clearing).unwrap()]);
}
