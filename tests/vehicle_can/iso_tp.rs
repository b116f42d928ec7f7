//! ISO-TP of ours against the kernel's, in both directions.

use std::time::{Duration, Instant};

use baygate::link::can::{CanSocket, Frame, Heard, Id};
use baygate::vehicle::can::isotp::{Conversations, Event, Form, Next, Output, Receiver, Sender};

use crate::kernel::{KernelIsoTp, Options};

/// The shorter messages have half of all bytes.
const HALF: usize = 2895;
/// A frame takes so long at 500 kbit/s, and none on vcan: the kernel's sender begins to wait
/// for flow control when it has heard its own frame, and ignores one that comes before.
const A_FRAME: Duration = Duration::from_micros(230);
/// Nothing on a vcan takes so long.
const SOON: Duration = Duration::from_secs(3);
/// So many lengths between two words about how far it is.
const TOLD_EVERY: usize = 256;

/// `BAYGATE_STRIDE`: of the longer messages one in so many, where time is short. Usually all.
pub fn stride() -> usize {
    std::env::var("BAYGATE_STRIDE").ok().and_then(|text| text.parse().ok()).filter(|n| *n > 0).unwrap_or(1)
}

/// Every length up to some frames and the last ones, between them by the stride.
fn lengths(range: std::ops::RangeInclusive<usize>) -> impl Iterator<Item = usize> {
    let stride = stride();
    range.filter(move |length| *length < 200 || *length > 4080 || length.is_multiple_of(stride))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place.wrapping_mul(31) ^ (place >> 5) ^ length) as u8).collect()
}

const OURS: Id = Id::standard(0x7E0);
const THEIRS: Id = Id::standard(0x7E8);

/// Whoever waits for every length wants to see how far it is.
fn tell(interface: &str, way: &str, length: usize, begun: Instant) {
    if length.is_multiple_of(TOLD_EVERY) {
        println!("{interface}: {length} bytes {way} after {:.0} s", begun.elapsed().as_secs_f64());
    }
}

/// We send, the kernel puts together.
async fn to_the_kernel(interface: &str, form: Form, options: Options, lengths: impl Iterator<Item = usize>) {
    let kernel = KernelIsoTp::open(interface, OURS, THEIRS, options);
    let mut socket = CanSocket::open(interface).unwrap();
    socket.pass(&[baygate::link::can::Pass { id: THEIRS, mask: 0x7FF }]).unwrap();
    let begun = Instant::now();
    for length in lengths {
        let whole = payload(length);
        let mut sender = Sender::new(form, whole.clone()).unwrap();
        loop {
            match sender.next(begun.elapsed()) {
                Next::Send(data) => {
                    let frame = Frame::new(OURS, &data, form.frame_bytes > 8).unwrap();
                    socket.send(&frame).await.unwrap();
                }
                Next::Wait(until) => {
                    let pause = until.saturating_sub(begun.elapsed());
                    if let Ok(heard) = tokio::time::timeout(pause, socket.hear()).await
                        && let Heard::Frame(frame) = heard.unwrap()
                    {
                        sender.on_frame(frame.data(), begun.elapsed());
                    }
                }
                Next::Done => break,
                Next::Failed(error) => panic!("{length}: {error}"),
            }
        }
        assert_eq!(kernel.read(), whole, "{length}");
        tell(interface, "to the kernel", length, begun);
    }
}

/// The kernel sends, we put together; in blocks of `length % blocks`.
async fn from_the_kernel(
    interface: &str,
    form: Form,
    options: Options,
    blocks: usize,
    lengths: impl Iterator<Item = usize>,
) {
    let kernel = KernelIsoTp::open(interface, OURS, THEIRS, options);
    let mut socket = CanSocket::open(interface).unwrap();
    socket.pass(&[baygate::link::can::Pass { id: THEIRS, mask: 0x7FF }]).unwrap();
    let begun = Instant::now();
    for length in lengths {
        let mut receiver = Receiver::new(form, (length % blocks) as u8, 0);
        let whole = payload(length);
        kernel.write(&whole);
        let came = loop {
            // What is there already is read without asking the runtime: there are a million.
            let heard = match socket.heard().unwrap() {
                Some(heard) => heard,
                None => {
                    let heard = tokio::time::timeout(SOON, socket.hear()).await;
                    heard.unwrap_or_else(|_| panic!("{length}: silence")).unwrap()
                }
            };
            let Heard::Frame(frame) = heard else { continue };
            let step = receiver.on_frame(frame.data(), 1 << 20, begun.elapsed());
            if let Some(reply) = step.reply {
                if blocks > 1 {
                    std::thread::sleep(A_FRAME);
                }
                socket.send(&Frame::new(OURS, &reply, form.frame_bytes > 8).unwrap()).await.unwrap();
            }
            match step.events.into_iter().next() {
                Some(Event::Whole(payload)) => break payload,
                Some(Event::Broken { why, .. }) => panic!("{length}: {why:?}"),
                None => {}
            }
        };
        assert_eq!(came, whole, "{length}");
        tell(interface, "from the kernel", length, begun);
    }
    assert_eq!(socket.dropped(), 0);
}

#[test]
#[ignore = "make can"]
fn every_length_to_the_kernel() {
    runtime().block_on(to_the_kernel("vcan3", Form::default(), Options::default(), lengths(1..=4095)));
}

#[test]
#[ignore = "make can"]
fn every_length_from_the_kernel() {
    runtime().block_on(from_the_kernel("vcan4", Form::default(), Options::default(), 1, lengths(1..=HALF)));
}

#[test]
#[ignore = "make can"]
fn every_longer_length_from_the_kernel() {
    let lengths = lengths(HALF + 1..=4095);
    runtime().block_on(from_the_kernel("vcan3", Form::default(), Options::default(), 1, lengths));
}

#[test]
#[ignore = "make can"]
fn every_form_both_ways() {
    let lengths = || (1..140).chain((140..4095).step_by(331)).chain([4095, 4096, 5000, 8000]);
    runtime().block_on(async {
        for bytes in [12, 24, 64] {
            let options = Options { frame_bytes: bytes, ..Options::default() };
            let form = Form::default().fd(bytes);
            to_the_kernel("vcan2", form, options, lengths()).await;
            from_the_kernel("vcan2", form, options, 40, lengths()).await;
        }
        // We are F1, the kernel is 10.
        let options = Options { addresses: Some((0xF1, 0x10)), ..Options::default() };
        to_the_kernel("vcan2", Form::extended(0x10, 0xF1), options, lengths()).await;
        from_the_kernel("vcan2", Form::extended(0x10, 0xF1), options, 7, lengths()).await;
        // Mixed addressing: one address extension both ways, beside the usual identifiers.
        let options = Options { addresses: Some((0x42, 0x42)), ..Options::default() };
        to_the_kernel("vcan2", Form::mixed(0x42), options, lengths()).await;
        from_the_kernel("vcan2", Form::mixed(0x42), options, 5, lengths()).await;
        // The kernel asks for small blocks with 300 µs between frames, and wants 55 as padding.
        let options = Options { block_size: 3, st_min: 0xF3, padding: Some(0x55), ..Options::default() };
        let form = Form { padding: Some(0x55), ..Form::default() };
        to_the_kernel("vcan2", form, options, (1..400).step_by(7)).await;
        let unpadded = Form { padding: None, ..Form::default() };
        from_the_kernel("vcan2", unpadded, Options::default(), 3, lengths()).await;
        to_the_kernel("vcan2", unpadded, Options::default(), lengths()).await;
    });
}

#[test]
#[ignore = "make can"]
fn four_conversations_at_once() {
    const MESSAGES: usize = 10;
    let senders: Vec<_> = (0..4_u32)
        .map(|unit| {
            let (ours, theirs) = (Id::standard(0x7E0 + unit), Id::standard(0x7E8 + unit));
            let kernel = KernelIsoTp::open("vcan5", ours, theirs, Options::default());
            move || (0..MESSAGES).for_each(|round| kernel.write(&payload(4095 - round * 4 - unit as usize)))
        })
        .collect();
    let came = runtime().block_on(async {
        let mut socket = CanSocket::open("vcan5").unwrap();
        socket.pass(&[baygate::link::can::Pass { id: Id::standard(0x7E8), mask: 0x7F8 }]).unwrap();
        let mut all = Conversations::new(32 * 1024);
        for unit in 0..4 {
            let (ours, theirs) = (Id::standard(0x7E0 + unit), Id::standard(0x7E8 + unit));
            assert!(all.listen(theirs, ours, Form::default(), 8, 0));
        }
        let threads: Vec<_> = senders.into_iter().map(std::thread::spawn).collect();
        let (begun, mut came, mut open, mut most) = (Instant::now(), Vec::new(), [false; 4], 0);
        while came.len() < 4 * MESSAGES {
            let heard = tokio::time::timeout(SOON, socket.hear()).await.expect("silence").unwrap();
            let Heard::Frame(frame) = heard else { continue };
            let unit = (frame.id().number() - 0x7E8) as usize;
            open[unit] = true;
            most = most.max(open.iter().filter(|open| **open).count());
            for output in all.on_frame(&frame, begun.elapsed()) {
                match output {
                    Output::Send(flow) => {
                        std::thread::sleep(A_FRAME);
                        socket.send(&flow).await.unwrap();
                    }
                    Output::Event(from, Event::Whole(payload)) => {
                        open[unit] = false;
                        came.push((from, payload));
                    }
                    Output::Event(from, Event::Broken { why, .. }) => panic!("{from}: {why:?}"),
                }
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(most >= 2, "they did not overlap");
        came
    });
    assert!(came.iter().all(|(_, came)| *came == payload(came.len())));
    for unit in 0..4 {
        assert_eq!(came.iter().filter(|(from, _)| from.number() == 0x7E8 + unit).count(), MESSAGES);
    }
}
