//! Clearing codes: asked for by anybody with the scope, confirmed by a person, done once, and
//! only when everything still holds. Over the real HTTP, the real service, a simulated car.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "vehicle_clear/battery.rs"]
mod battery;
mod served;
#[path = "vehicle_clear/uds.rs"]
mod uds;
mod vehicle_bay;

use baygate::api::client::Method;
use baygate::config::tables::Poll;
use baygate::sim::vehicle::{Adapter, CarSpec, Engine, Profile, VehicleSim};
use baygate::store::requests::RequestState;
use baygate::store::tokens::TokenOp;
use baygate::store::{Batch, Op};
use serde_json::{Value, json};
use served::{Served, Setup};
use sha2::Digest as _;
use uuid::Uuid;
use vehicle_bay::Bay;
use vehicle_bay::clearing::{Granted, grant};

const ASK: &str = "/v1/vehicles/bay-1/clear-dtcs";

/// A shop with a car at bay-1, key on, engine off, one confirmed code.
struct Shop<S = VehicleSim> {
    served: Served,
    sim: S,
    bay: Bay,
    /// A script's token.
    script: String,
    /// The token of the till.
    till: String,
}

fn car() -> CarSpec {
    CarSpec { engine: Engine::On, confirmed: vec!["P0420".parse().unwrap()], ..CarSpec::default() }
}

impl Shop {
    async fn open(poll: Poll) -> Self {
        let profile = Profile { adapter: Adapter::default(), car: Some(car()) };
        let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
        let link = format!("elm327+tcp://{}", sim.addr().unwrap());
        Self::at(sim, &link, poll).await
    }

    fn clearings(&self) -> usize {
        self.sim.requests().iter().filter(|request| matches!(request[0], 0x04 | 0x14)).count()
    }
}

impl<S> Shop<S> {
    async fn at(sim: S, link: &str, poll: Poll) -> Self {
        let served = Setup::new().serve().await;
        let bay = Bay::start(&served.store, "bay-1", link, poll);
        let script = served.token(&["vehicle", "read"]).await;
        let till = "bg_till-token-for-tests".to_owned();
        let create = TokenOp::Create {
            id: Uuid::now_v7(),
            name: "till-1".into(),
            sha256: sha2::Sha256::digest(&till).into(),
            scopes: vec!["vehicle".into(), "read".into()],
            till: Some("till-1".into()),
        };
        served.store.commit(Batch::new().op(Op::Token(create))).await.unwrap();
        Self { served, sim, bay, script, till }
    }

    /// Asks and gives the confirmation's id.
    async fn ask(&self) -> String {
        let reply =
            self.served.send("POST", ASK, &[("Authorization", &format!("Bearer {}", self.script))], "").await;
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    async fn say(&self, token: &str, id: &str, word: Value) -> served::Reply {
        self.served.post(token, &format!("/v1/confirmations/{id}"), &word).await
    }
}

fn yes() -> Value {
    json!({"confirm": true, "operator": "李师傅"})
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_confirmed_cleared_once_and_reported() {
    let shop = Shop::open(Poll::Auto).await;
    shop.bay.nth("vehicle.report", 1).await;
    let bearer = format!("Bearer {}", shop.script);
    let reply = shop.served.send("POST", ASK, &[("Authorization", &bearer)], "").await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let asked = reply.json();
    let id = asked["id"].as_str().unwrap();
    assert_eq!(reply.header("location"), Some(format!("/v1/requests/{id}").as_str()));
    assert_eq!(
        (&asked["method"], &asked["codes"], &asked["state"]),
        (&json!("obd"), &json!(["P0420"]), &json!("waiting"))
    );
    assert!(asked["will_be_lost"]["en"].as_str().unwrap().contains("P0420"));
    assert!(asked["will_be_lost"]["zh"].as_str().unwrap().contains("冻结帧 1 个"));
    let keyed = [("Authorization", bearer.as_str()), ("Idempotency-Key", "k")];
    let other = shop.served.send("POST", ASK, &keyed, "").await;
    assert_eq!(other.problem(), (409, "confirmation-open".into()));
    let again = shop.served.send("POST", ASK, &[("Authorization", &bearer)], "").await;
    assert_eq!(again.problem(), (409, "confirmation-open".into()));

    let list = shop.served.get(&shop.till, "/v1/confirmations").await.json();
    assert_eq!(list["confirmations"][0]["id"], id);
    assert_eq!(shop.say(&shop.script, id, yes()).await.problem(), (403, "person-needed".into()));
    assert_eq!(
        shop.say(&shop.till, id, json!({"confirm": true})).await.problem(),
        (422, "operator-missing".into())
    );
    assert_eq!(shop.clearings(), 0, "asking sends nothing");

    let reply = shop.say(&shop.till, id, yes()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let done = reply.json();
    assert_eq!(done["outcome"], "cleared");
    assert_eq!(done["units"], json!(["7E8", "7E9"]));
    let told = shop.bay.nth("vehicle.cleared", 1).await;
    assert_eq!(told["operator"], "李师傅");
    assert_eq!((&told["confirmed_by"], &told["codes"]), (&json!("till-1"), &json!(["P0420"])));
    assert_eq!(told["confirmation"], id);
    let report = shop.bay.nth("vehicle.report", 2).await;
    assert_eq!(report["ecus"][0]["dtcs"], json!([]), "the fresh report shows what is left");
    let followed = shop.served.get(&shop.script, &format!("/v1/requests/{id}")).await.json();
    assert_eq!((&followed["state"], &followed["outcome"]["operator"]), (&json!("done"), &json!("李师傅")));

    assert_eq!(shop.say(&shop.till, id, yes()).await.problem(), (409, "confirmation-over".into()));
    assert_eq!(shop.sim.requests().iter().filter(|r| r[..] == [0x04]).count(), 1);
    assert_eq!(shop.clearings(), 1);
}

/// Where people have accounts, whoever decides is logged in and of a role that may.
#[tokio::test(flavor = "multi_thread")]
async fn where_people_have_accounts_a_till_alone_decides_nothing() {
    let shop = Shop::open(Poll::OnRequest).await;
    shop.bay.until_reason(None).await;
    shop.bay.scan().await;
    let id = shop.ask().await;
    // What nobody is called is not recorded, not even with a no.
    for name in ["x".repeat(65), "a\u{1b}[2J".to_owned()] {
        let no = json!({"confirm": false, "operator": name});
        assert_eq!(shop.say(&shop.till, &id, no).await.problem(), (422, "operator-missing".into()));
    }
    let pin = "271828182845";
    let chen = json!({"id": "chen", "name": "陈师傅", "role": "technician", "pin": pin});
    let added = shop.served.client().await.request(Method::POST, "/v1/operators", Some(&chen)).await.unwrap();
    assert_eq!(added.status, 201);
    for word in [yes(), json!({"confirm": false})] {
        assert_eq!(shop.say(&shop.till, &id, word).await.problem(), (403, "operator-needed".into()));
    }
    let login = json!({"operator": "chen", "pin": pin});
    let login = shop.served.post(&shop.till, "/v1/operator-sessions", &login).await.json();
    let session = login["token"].as_str().unwrap();
    let no = json!({"confirm": false, "operator": "somebody else"});
    assert_eq!(shop.say(session, &id, no).await.status, 200);
    let told = shop.served.get(&shop.script, &format!("/v1/requests/{id}")).await.json();
    assert_eq!(told["outcome"]["operator"], "陈师傅 (chen)");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_longer_holds_is_not_done() {
    let shop = Shop::open(Poll::OnRequest).await;
    shop.bay.until_reason(None).await;
    let bearer = format!("Bearer {}", shop.script);
    let reply = shop.served.send("POST", ASK, &[("Authorization", &bearer)], "").await;
    assert_eq!(reply.problem(), (409, "report-missing".into()));
    shop.bay.scan().await;

    // A retry finds its question, open or over, whatever was scanned since.
    let keyed = [("Authorization", bearer.as_str()), ("Idempotency-Key", "k")];
    let id = shop.served.send("POST", ASK, &keyed, "").await.json()["id"].clone();
    shop.bay.scan().await;
    let again = shop.served.send("POST", ASK, &keyed, "").await;
    assert_eq!((again.status, &again.json()["id"]), (202, &id), "{again:?}");
    let id = id.as_str().unwrap();
    assert_eq!(shop.say(&shop.till, id, json!({"confirm": false, "operator": "Wang"})).await.status, 200);
    assert_eq!(shop.say(&shop.till, id, yes()).await.problem(), (409, "confirmation-over".into()));
    let again = shop.served.send("POST", ASK, &keyed, "").await;
    assert_eq!((&again.json()["id"], &again.json()["state"]), (&json!(id), &json!("over")));

    // (what happens between question and yes, refusal)
    type Happens = fn(&VehicleSim);
    let happens: [(&str, Happens); 4] = [
        ("engine-running", |sim| sim.engine(Engine::Running)),
        ("battery-low", |sim| sim.battery(Some(11.0))),
        ("engine-state-unknown", |sim| sim.engine(Engine::Off)),
        ("other-vehicle", |sim| {
            sim.swap(&CarSpec { vin: Some("LSVAG2186E2100001".into()), ..car() }).unwrap()
        }),
    ];
    for (refusal, happens) in happens {
        shop.sim.swap(&car()).unwrap();
        shop.bay.scan().await;
        let id = shop.ask().await;
        happens(&shop.sim);
        let reply = shop.say(&shop.till, &id, yes()).await;
        assert_eq!(reply.problem(), (409, refusal.into()), "{reply:?}");
        let followed = shop.served.get(&shop.script, &format!("/v1/requests/{id}")).await.json();
        assert_eq!((&followed["state"], &followed["outcome"]["code"]), (&json!("failed"), &json!(refusal)));
        assert_eq!(shop.clearings(), 0, "{refusal}");
    }
    shop.sim.swap(&CarSpec { engine: Engine::Running, ..car() }).unwrap();
    shop.bay.scan().await;
    let reply = shop.served.send("POST", ASK, &[("Authorization", &bearer)], "").await;
    assert_eq!(reply.problem(), (409, "engine-running".into()), "refused before a person is asked");
    assert_eq!(shop.bay.count("vehicle.cleared").await, 0);
}

/// The power went between the command and its answer: it is told so, and never sent again.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_clearing_is_not_repeated() {
    let shop = Shop::open(Poll::OnRequest).await;
    shop.bay.until_reason(None).await;
    let report = shop.bay.scan().await.outcome.unwrap();
    let Shop { served, sim, bay, .. } = shop;
    bay.stop().await;
    let Granted { confirmation, request } = grant(&served.store, &report["visit"], &["P0420"]).await;
    drop(served.store.redeem(confirmation, "bay-1", request).await.unwrap());
    assert!(served.store.redeem(confirmation, "bay-1", request).await.is_err(), "once");

    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    let bay = Bay::start(&served.store, "bay-1", &link, Poll::OnRequest);
    let told = bay.nth("vehicle.cleared", 1).await;
    assert_eq!((&told["outcome"], &told["operator"]), (&json!("unknown"), &json!("Li")));
    let row = served.store.read(move |r| r.request(request)).await.unwrap().unwrap();
    assert_eq!(row.state, RequestState::Failed);
    assert_eq!(row.outcome.unwrap()["code"], "clear-unknown");
    bay.scan().await;
    assert!(sim.requests().iter().all(|request| request[0] != 0x04));
    bay.stop().await;
}
