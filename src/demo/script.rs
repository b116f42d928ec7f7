//! What the simulated people do: a customer taps a card, a mechanic plugs in a
//! dongle, the cashier prints a face. Round after round until told to stop.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Mutex;

use super::member::{self, Issuer};
use super::stage::Props;
use crate::api::client::{Client, Method};
use crate::ident::Vin;
use crate::sim::card::{CardSim, Chip};
use crate::sim::vehicle::{CarSpec, SpecError};

/// One round. Each step waits a moment, as people do. The car that the last
/// demonstration left at the bay does not come first: it would only go on with its visit.
pub async fn play(props: Arc<Mutex<Props>>, issuer: Arc<Issuer>, client: Client, still_here: Option<Vin>) {
    let comes_first = cars(0).ok().and_then(|car| car.vin);
    let first =
        u32::from(still_here.is_some() && still_here.as_ref().map(Vin::as_str) == comes_first.as_deref());
    for round in first.. {
        moment(700).await;
        match issuer.card(round) {
            Ok(card) => tap(&props, card).await,
            Err(error) => tracing::warn!(%error, "the simulated card is not right"),
        }
        moment(600).await;
        plug(&props, round).await;
        moment(700).await;
        print(&client, round).await;
        moment(1500).await;
        props.lock().await.card = None;
        moment(9_000).await;
        props.lock().await.vehicle.unplug();
        moment(6_000).await;
    }
}

async fn moment(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

async fn tap(props: &Mutex<Props>, chip: Chip) {
    let mut props = props.lock().await;
    if props.reader_pulled {
        return;
    }
    match CardSim::present(props.reader, chip).await {
        Ok(card) => props.card = Some(card),
        Err(error) => tracing::warn!(%error, "the simulated card found no reader"),
    }
}

/// A petrol car with a worn catalyst, then one that runs hot.
async fn plug(props: &Mutex<Props>, round: u32) {
    let car = cars(round);
    let props = props.lock().await;
    match car.and_then(|car| props.vehicle.plug(&car)) {
        Ok(()) if round % 2 == 1 => {
            if let Err(error) = props.vehicle.set("coolant", 118.0) {
                tracing::warn!(%error, "the simulated car has no coolant signal");
            }
        }
        Ok(()) => {}
        Err(error) => tracing::warn!(%error, "the simulated car is not right"),
    }
}

fn cars(round: u32) -> Result<CarSpec, SpecError> {
    Ok(match round % 2 {
        0 => CarSpec {
            vin: Some("LSVAG2180E2100001".into()),
            confirmed: vec!["P0420".parse()?],
            pending: vec!["P0171".parse()?],
            ..CarSpec::default()
        },
        _ => CarSpec { vin: Some("LFV2A21K5D4100002".into()), ..CarSpec::default() },
    })
}

/// The cashier asks for a face, over the same interface as a POS would.
async fn print(client: &Client, round: u32) {
    let card_no = member::card_no(round);
    let body = json!({
        "printer": "face-1",
        "card_no": card_no,
        "fields": {
            "card_no": card_no,
            "points": member::points(round),
            "balance_fen": 36_800,
            "offer": "下次保养工时八折",
            "offer_en": "20% off labour at your next service",
            "qr": format!("https://example.com/m/{card_no}")
        }
    });
    match client.request(Method::POST, "/v1/print-jobs", Some(&body)).await {
        Ok(answer) if answer.status < 300 => {}
        Ok(answer) => {
            tracing::warn!(status = answer.status, body = %answer.body, "the print job was not taken")
        }
        Err(error) => tracing::warn!(%error, "the print job could not be sent"),
    }
}
