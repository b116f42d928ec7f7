//! What the kernel keeps from us: frames of others never reach the process while filters are set.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baygate::link::can::{CanSocket, Frame, Heard, Id, Pass};
use baygate::sim::vehicle::BusSim;
use baygate::vehicle::adapter::Adapter as Link;
use baygate::vehicle::gate::Request;

use crate::kernel::{raw, raw_write};
use crate::vehicle_bay::bundle;

/// Flags of `can_id` (linux/can.h): 29 bits, remote.
const EXTENDED: u32 = 0x8000_0000;
const REMOTE: u32 = 0x4000_0000;
/// Foreign: other ids around those of the answers, and the answers' number as 29 bits or as a remote frame.
const FOREIGN: [u32; 7] =
    [0x123, 0x7E7, 0x7F0, 0x7DF, 0x7E8 | EXTENDED, 0x7E8 | REMOTE, 0x18FF_1234 | EXTENDED];
/// In the second and third byte of every frame written here; the simulated car never says it.
const MARK: [u8; 2] = [0xF0, 0x0D];
/// Rounds of them, and after each one answer.
const ROUNDS: u8 = 100;
/// Nothing on a vcan takes so long.
const SOON: Duration = Duration::from_secs(10);

/// As it lies in memory (`struct can_frame`).
fn frame(id: u32, first: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&id.to_ne_bytes());
    bytes[4] = 8;
    bytes[8] = first;
    bytes[9..11].copy_from_slice(&MARK);
    bytes
}

/// Answers and everything else up to the last answer.
async fn heard(socket: &mut CanSocket) -> (usize, usize) {
    let (mut answers, mut others) = (0, 0);
    loop {
        match tokio::time::timeout(SOON, socket.hear()).await.expect("silence").unwrap() {
            Heard::Frame(frame) if frame.id() == Id::standard(0x7E8) => {
                answers += 1;
                if frame.data().first() == Some(&(ROUNDS - 1)) {
                    return (answers, others);
                }
            }
            _ => others += 1,
        }
    }
}

/// A socket without filters is the witness that the foreign frames were on the bus.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make can"]
async fn a_filtered_socket_hears_the_answers_alone() {
    let mut everything = CanSocket::open("vcan9").unwrap();
    let mut answers = CanSocket::open("vcan9").unwrap();
    answers.pass(&[Pass { id: Id::standard(0x7E8), mask: 0x7F8 }]).unwrap();
    let talker = raw("vcan9");
    for round in 0..ROUNDS {
        FOREIGN.iter().for_each(|id| raw_write(&talker, &frame(*id, round)));
        raw_write(&talker, &frame(0x7E8, round));
    }
    let rounds = usize::from(ROUNDS);
    assert_eq!(heard(&mut everything).await, (rounds, rounds * FOREIGN.len()));
    assert_eq!(heard(&mut answers).await, (rounds, 0));
    assert_eq!((everything.dropped(), answers.dropped()), (0, 0));
}

/// The link itself, while its questions are open on a bus that talks.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make can"]
async fn while_a_question_is_open_no_foreign_frame_reaches_us() {
    let sim = BusSim::spawn("vcan9", &crate::car(6)).unwrap();
    let talks = Arc::new(AtomicBool::new(true));
    let said = Arc::new(AtomicUsize::new(0));
    let (going, count) = (Arc::clone(&talks), Arc::clone(&said));
    let thread = std::thread::spawn(move || {
        let talker = raw("vcan9");
        while going.load(Ordering::Relaxed) {
            FOREIGN.iter().for_each(|id| raw_write(&talker, &frame(*id, 0)));
            count.fetch_add(FOREIGN.len(), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut link = Link::open(&"can://vcan9".parse().unwrap(), &bundle(), None, None).await.unwrap();
    // The first question empties the socket of what came while the link only listened.
    link.ask(Request::current(0x00), None).await.unwrap();
    let reached: Arc<Mutex<Vec<Frame>>> = Arc::default();
    let kept = Arc::clone(&reached);
    link.set_witness(Arc::new(move |frame| kept.lock().unwrap().push(*frame)));
    let before = said.load(Ordering::Relaxed);
    for round in 0..10 {
        for request in [Request::current(0x0C), Request::vehicle_info(0x02)] {
            let answer = link.ask(request, None).await.unwrap();
            assert!(!answer.messages.is_empty(), "{round}: {request}");
        }
    }
    let foreign_on_the_bus = said.load(Ordering::Relaxed) - before;
    talks.store(false, Ordering::Relaxed);
    thread.join().unwrap();
    drop(sim);
    println!("{foreign_on_the_bus} foreign frames were on the bus meanwhile");
    assert!(foreign_on_the_bus > 100, "{foreign_on_the_bus}");
    let reached = reached.lock().unwrap();
    let foreign: Vec<_> = reached.iter().filter(|frame| frame.data().get(1..3) == Some(&MARK)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let answers = reached.iter().filter(|frame| frame.id().number() >= 0x7E8).count();
    assert!(answers >= 20 + 10 * 2, "{answers}: a line for each value, and more for each VIN");
}
