//! A clearing that nobody acknowledges must not wait in the adapter for the next car.

use baygate::config::values::VehicleLink;
use baygate::sim::vehicle::{Engine, SlcanProfile};
use baygate::vehicle::adapter::Adapter as Link;
use baygate::vehicle::clear::Delivery;
use baygate::vehicle::gate::Request;

use crate::vehicle_bay::clearing::redeemed;
use crate::vehicle_bay::{bundle, open_store};
use crate::{car, on_tcp};

/// Nobody acknowledges: it must not wait in the adapter for the next car.
#[tokio::test(flavor = "multi_thread")]
async fn a_clearing_that_nobody_acknowledges_is_withdrawn() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    for (asleep, delivery) in [(false, Delivery::Sent), (true, Delivery::NotSent)] {
        let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
        let link: VehicleLink = format!("slcan+tcp://{}?bitrate=500000", sim.name()).parse().unwrap();
        let mut link = Link::open(&link, &bundle(), None, None).await.unwrap();
        assert!(!link.ask(Request::current(0), None).await.unwrap().is_silence());
        if asleep {
            sim.engine(Engine::Off);
        } else {
            sim.engine(Engine::On);
        }
        let answer = link.clear(redeemed(&store).await).await.unwrap();
        assert_eq!((answer.delivery, answer.cleared.is_empty()), (delivery, asleep), "{answer:?}");
        let heard = sim.heard();
        let frame = heard.iter().position(|line| line == "t7DF80104000000000000").unwrap();
        assert_eq!(heard.iter().filter(|line| line.starts_with("t7DF80104")).count(), 1, "{heard:?}");
        let after: Vec<_> = heard[frame + 1..].iter().map(String::as_str).collect();
        let left = after.iter().position(|line| *line == "C").is_some_and(|at| after[at..].contains(&"O"));
        assert_eq!(left, asleep, "off the bus, and on it again: {after:?}");
    }
}

/// The adapter says that nobody acknowledges, and the car's answer comes while it leaves the bus.
#[tokio::test(flavor = "multi_thread")]
async fn a_clearing_that_left_while_it_was_withdrawn_was_sent() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = format!("slcan+tcp://{}?bitrate=500000", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut line, mut buffer, mut waits) = (String::new(), [0; 256], false);
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            for byte in &buffer[..count] {
                if *byte != b'\r' {
                    line.push(char::from(*byte));
                    continue;
                }
                let said = match std::mem::take(&mut line).as_str() {
                    "V" => "V1013\r",
                    "N" => "NSIM1\r",
                    "F" if waits => "F80\r",
                    "F" => "F00\r",
                    "C" if std::mem::take(&mut waits) => "t7E880144000000000000\r\r",
                    "t7DF80201000000000000" => "z\rt7E880641009818000100\r",
                    "t7DF80104000000000000" => {
                        waits = true;
                        "z\r"
                    }
                    frame if frame.starts_with('t') => "z\r",
                    _ => "\r",
                };
                stream.write_all(said.as_bytes()).await.unwrap();
            }
        }
    });
    let mut link = Link::open(&link.parse().unwrap(), &bundle(), None, None).await.unwrap();
    assert!(!link.ask(Request::current(0), None).await.unwrap().is_silence());
    let answer = link.clear(redeemed(&store).await).await.unwrap();
    assert_eq!((answer.delivery, answer.cleared.as_slice()), (Delivery::Sent, &["7E8".to_owned()][..]));
    // It is on the bus again.
    assert!(!link.ask(Request::current(0), None).await.unwrap().is_silence());
    serving.abort();
}

/// The line breaks while the clearing waits: nobody saw it leave, and nobody took it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_clearing_whose_end_was_not_seen_may_still_wait() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = format!("slcan+tcp://{}?bitrate=500000", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut line, mut buffer) = (String::new(), [0; 256]);
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            for byte in &buffer[..count] {
                if *byte != b'\r' {
                    line.push(char::from(*byte));
                    continue;
                }
                let said = match std::mem::take(&mut line).as_str() {
                    "V" => "V1013\r",
                    "N" => "NSIM1\r",
                    "F" => "F00\r",
                    "t7DF80201000000000000" => "z\rt7E880641009818000100\r",
                    "t7DF80104000000000000" => return,
                    frame if frame.starts_with('t') => "z\r",
                    _ => "\r",
                };
                stream.write_all(said.as_bytes()).await.unwrap();
            }
        }
    });
    let mut link = Link::open(&link.parse().unwrap(), &bundle(), None, None).await.unwrap();
    assert!(!link.ask(Request::current(0), None).await.unwrap().is_silence());
    assert_eq!(link.limitation(), None);
    let error = link.clear(redeemed(&store).await).await.expect_err("the line broke");
    assert_eq!(link.limitation().expect("it says so").0, "clear-pending", "{error}");
    // It is emptied by being opened: nothing is remembered beyond this link.
    assert_eq!(link.capabilities_while_clearing().clearing_stays, None);
    serving.await.unwrap();
}
