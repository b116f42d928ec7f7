//! A clearing that nobody acknowledges, on a vcan whose frames are held up on their way out as a
//! controller holds what no other node acknowledges. A vcan has no bit rate, so the driver cannot
//! set it up again and must say that the frame may still leave; and the kernel's slcan driver,
//! which has one, says of every frame at once that it left. The withdrawal by the helper itself
//! is therefore not played here: what it does, down and up, is.

use std::time::{Duration, Instant};

use baygate::link::can::{CanSocket, Frame, Heard, Id};
use baygate::sim::vehicle::{BusSim, CarSpec, Engine};
use baygate::vehicle::adapter::Adapter as Link;
use baygate::vehicle::clear::Delivery;
use baygate::vehicle::gate::Request;

use crate::vehicle_bay::clearing::redeemed;
use crate::vehicle_bay::{bundle, open_store};
use crate::{car, run};

/// Longer than the driver waits for its own frame, and takes to be opened anew.
const HELD: Duration = Duration::from_millis(5000);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make can"]
async fn a_clearing_that_is_held_up_is_told_and_goes_with_the_interface() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let path = "can://vcan7".parse().unwrap();
    for taken_down in [false, true] {
        let sim = BusSim::spawn("vcan7", &CarSpec { engine: Engine::On, ..car(6) }).unwrap();
        let mut link = Link::open(&path, &bundle(), None, None).await.unwrap();
        assert!(!link.ask(Request::current(0), None).await.unwrap().is_silence());
        run("tc", &format!("qdisc add dev vcan7 root netem delay {}ms", HELD.as_millis()));
        // What the service writes down before it is sent: whoever is killed now has said so.
        assert_eq!(link.capabilities().clearing_stays, None);
        assert!(link.capabilities_while_clearing().clearing_stays.is_some());
        let sent = Instant::now();
        let answer = link.clear(redeemed(&store).await).await.unwrap();
        assert!(sent.elapsed() < HELD, "it waited too long to tell");
        assert_eq!((answer.delivery, answer.cleared.as_slice()), (Delivery::Pending, &[][..]), "{answer:?}");
        let (code, words) = link.limitation().expect("it says so");
        assert_eq!(code, "clear-pending", "{words}");
        // It belongs to the interface: whoever opens it next knows of it.
        let known = link.capabilities();
        assert!(known.clearing_stays.is_some());
        drop(link);
        let mut link = Link::open(&path, &bundle(), None, None).await.unwrap();
        assert_eq!(link.limitation(), None);
        link.remember(known);
        assert!(sent.elapsed() < HELD, "it left before the link was open again");
        assert_eq!(link.limitation().expect("it still says so").0, "clear-pending");
        let again = link.clear(redeemed(&store).await).await.unwrap();
        assert_eq!(again.delivery, Delivery::NotSent, "{again:?}");
        let clearings = || sim.requests().into_iter().filter(|request| request[0] == 0x04).count();
        assert_eq!(clearings(), 0);
        if taken_down {
            run("ip", "link set vcan7 down");
            run("ip", "link set vcan7 up");
        }
        // Behind it in the queue, if it is still there: whatever came before this has come.
        let end = Frame::new(Id::standard(0x123), &[1], false).unwrap();
        let mut witness = CanSocket::open("vcan7").unwrap();
        CanSocket::open("vcan7").unwrap().send(&end).await.unwrap();
        let deadline = sent + 8 * HELD;
        loop {
            let heard =
                tokio::time::timeout_at(deadline.into(), witness.hear()).await.expect("the last frame");
            if heard.unwrap() == Heard::Frame(end) {
                break;
            }
        }
        // The car reads the bus by itself.
        while !taken_down && clearings() == 0 {
            assert!(Instant::now() < deadline, "what was only held up must arrive, or nothing is shown here");
            tokio::task::yield_now().await;
        }
        assert_eq!(clearings(), usize::from(!taken_down), "taken down: {taken_down}");
        // Gone with the interface, or seen to leave: then it is told, and no more is held back.
        if taken_down {
            let error = link.voltage().await.expect_err("the interface went down");
            link.ended_by(&error);
            assert_eq!(link.limitation(), None);
        } else {
            link.voltage().await.unwrap();
            assert_eq!(link.limitation().expect("it left late").0, "clear-left-late");
        }
        assert_eq!(link.capabilities().clearing_stays, None);
        run("tc", "qdisc del dev vcan7 root");
    }
}
