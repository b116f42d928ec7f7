//! Units that take their time, on a bus and through a dongle: "wait" is believed for as long as
//! ISO 14229-2 allows, "busy" is asked again.

use baygate::sim::vehicle::{Adapter, CarSpec, Profile, SlcanProfile, VehicleSim};
use baygate::vehicle::adapter::Adapter as Link;
use baygate::vehicle::answer::{Answer, BUSY_REPEATS};
use baygate::vehicle::gate::Request;

use crate::on_tcp;
use crate::vehicle_bay::bundle;

/// A question to each of both links; what was answered and what the car was asked.
async fn asked(car: &CarSpec, request: Request) -> [(Answer, Vec<Vec<u8>>); 2] {
    let sim = on_tcp(SlcanProfile::default(), car).await;
    let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
    let mut link = Link::open(&link.parse().unwrap(), &bundle(), None, None).await.unwrap();
    let on_bus = link.ask(request, None).await.unwrap();

    let profile = Profile { adapter: Adapter::default(), car: Some(car.clone()) };
    let dongle = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", dongle.name());
    let mut link = Link::open(&link.parse().unwrap(), &bundle(), None, None).await.unwrap();
    let by_dongle = link.ask(request, None).await.unwrap();
    [(on_bus, sim.requests()), (by_dongle, dongle.requests())]
}

/// Three seconds lie between "wait" and the answer, which is longer than any adapter listens.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_says_wait_is_waited_for() {
    let vin = Request::data_by_identifier(0xF190);
    let car = CarSpec { units: 1, uds_waits: 1, pending_gap_ms: 3000, ..CarSpec::default() };
    for (answer, _) in asked(&car, vin).await {
        assert_eq!((answer.pending.len(), answer.refusals.len()), (0, 0), "{answer:?}");
        let told: Vec<_> = answer.messages.iter().map(|message| &message.payload[3..]).collect();
        assert_eq!(told, [b"1M8GDM9AXKP042788"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_unit_is_asked_again_and_not_without_end() {
    let rpm = Request::current(0x0C);
    let car = CarSpec { units: 1, busy_replies: 2, ..CarSpec::default() };
    for (answer, requests) in asked(&car, rpm).await {
        assert_eq!(answer.messages.len(), 1, "{answer:?}");
        assert_eq!(requests, [[0x01, 0x0C]; 3]);
    }
    let busy = CarSpec { busy_replies: u8::MAX, ..car };
    for (answer, requests) in asked(&busy, rpm).await {
        assert_eq!(answer.trouble().as_deref(), Some("7E8: busy, repeat the request (21)"));
        assert_eq!(requests.len(), 1 + usize::from(BUSY_REPEATS));
    }
}
