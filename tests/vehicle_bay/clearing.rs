//! A clearing that a person said yes to, as it stands in the store.

use baygate::store::confirmations::{ConfirmationOp, KIND};
use baygate::store::requests::{NewRequest, RequestOp};
use baygate::store::{Batch, Op, Store};
use baygate::vehicle::clear::WHAT;
use baygate::vehicle::gate::clear::ClearRequest;
use serde_json::{Value, json};
use uuid::Uuid;

/// The question and the request that it lets through.
pub struct Granted {
    pub confirmation: Uuid,
    pub request: Uuid,
}

/// Asks for the clearing of the car at `bay-1` and has Li say yes to it at till-1; whoever serves
/// the link finds it there.
pub async fn grant(store: &Store, visit: &Value, codes: &[&str]) -> Granted {
    let (confirmation, request) = (Uuid::now_v7(), Uuid::now_v7());
    let row = |id, kind: &'static str, body| NewRequest {
        id,
        kind,
        target: "bay-1".into(),
        scope: "control".into(),
        idempotency_key: None,
        body,
    };
    let asked = json!({"what": WHAT, "visit": visit, "method": "obd", "codes": codes, "asked_by": "control"});
    let by = json!({"confirmed_by": "till-1", "operator": "Li"});
    let body = json!({"confirmation": confirmation, "visit": visit});
    let batch = Batch::new()
        .op(Op::Confirmation(ConfirmationOp::Ask(row(confirmation, KIND, asked))))
        .op(Op::Confirmation(ConfirmationOp::Grant { id: confirmation, by }))
        .op(Op::Request(RequestOp::Insert(row(request, WHAT, body))));
    store.commit(batch).await.unwrap();
    Granted { confirmation, request }
}

/// The same, used up: what an adapter takes.
pub async fn redeemed(store: &Store) -> ClearRequest {
    let Granted { confirmation, request } = grant(store, &Value::Null, &[]).await;
    ClearRequest::new(store.redeem(confirmation, "bay-1", request).await.unwrap()).unwrap()
}
