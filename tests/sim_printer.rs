//! The simulated card-face printer keeps to the maker's manuals (Star TCP300 Series
//! Programmer's Manual, 2003; TCP300II Commands, 2005), over a real pseudo-terminal and socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/wire.rs"]
mod wire;

use std::time::Duration;

use baygate::sim::printer::{Canvas, Fault, HEIGHT, PrinterProfile, PrinterSim, WIDTH};
use wire::Wire;

const ACK: u8 = 0x06;
const NAK: u8 = 0x15;
const DLE: u8 = 0x10;

/// `02 CMD DATA 03 BCC`, the check worked out here again.
fn block(inside: &[u8]) -> Vec<u8> {
    let inside = [inside, &[0x03]].concat();
    let check = inside.iter().fold(0, |check, byte| check ^ byte);
    [&[0x02], inside.as_slice(), &[check]].concat()
}

/// The response's command, status and data; acknowledged.
async fn response(wire: &mut Wire) -> Vec<u8> {
    let mut whole = wire.exactly_bytes(1).await;
    while whole.last() != Some(&0x03) {
        whole.extend(wire.exactly_bytes(1).await);
    }
    let check = wire.exactly_bytes(1).await[0];
    let inside = whole[1..].to_vec();
    assert_eq!(whole[0], 0x02);
    assert_eq!(check, inside.iter().fold(0, |check, byte| check ^ byte));
    wire.send(&[ACK]).await;
    inside[..inside.len() - 1].to_vec()
}

async fn told(wire: &mut Wire, inside: &[u8]) -> u8 {
    wire.send(&block(inside)).await;
    wire.exactly_bytes(1).await[0]
}

/// Sends, is acknowledged, and gives status and data.
async fn done(wire: &mut Wire, inside: &[u8]) -> (u8, String) {
    assert_eq!(told(wire, inside).await, ACK, "{}", String::from_utf8_lossy(inside));
    let answer = response(wire).await;
    assert_eq!(answer[0], inside[0]);
    (answer[1], String::from_utf8(answer[2..].to_vec()).unwrap())
}

fn ok() -> (u8, String) {
    (0x20, String::new())
}

async fn printer() -> (PrinterSim, Wire) {
    let sim = PrinterSim::spawn_pty(PrinterProfile::default(), None).await.unwrap();
    let wire = Wire::serial(&sim.path(), 9_600);
    (sim, wire)
}

#[tokio::test]
async fn a_face_is_printed_as_a_picture_and_the_buffers_survive() {
    let folder = tempfile::tempdir().unwrap();
    let profile = PrinterProfile { folder: Some(folder.path().join("faces")), ..PrinterProfile::default() };
    let mut sim = PrinterSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let mut wire = Wire::tcp(sim.addr().unwrap()).await;
    assert_eq!(done(&mut wire, b"\x40").await, ok());
    assert_eq!(done(&mut wire, b"\x49").await, ok());
    // TCP300II page 31: A3 has dots 0, 1, 5 and 7; the byte at Y 39 ends at dot 319.
    assert_eq!(done(&mut wire, b"\x430,0,A3").await, ok());
    assert_eq!(done(&mut wire, b"\x43479,39,80").await, ok());
    // Page 32: length 2, four bytes: two columns.
    assert_eq!(done(&mut wire, b"\x4D100,1,2,01020408").await, ok());
    assert_eq!(done(&mut wire, b"\x59").await, (0x20, "000000".into()));
    assert_eq!(told(&mut wire, b"\x46").await, ACK);
    assert!(wire.silent(Duration::from_millis(80)).await, "it waits for a card");
    assert!(sim.insert_card());
    assert_eq!(response(&mut wire).await, b"\x46\x20");
    assert_eq!(done(&mut wire, b"\x59").await, (0x20, "200000".into()));
    let faces = sim.printed(1).await;
    let expected = [(0, 0), (0, 1), (0, 5), (0, 7), (479, 319), (100, 8), (100, 17), (101, 10), (101, 19)];
    let face = &faces[0].printed.face;
    assert_eq!(face.dots(), 9);
    assert!(expected.iter().all(|(x, y)| face.dot(*x, *y)));
    // The picture, read back: 480 by 320, black where a dot is.
    let file = std::fs::File::open(faces[0].path.as_ref().unwrap()).unwrap();
    let mut picture = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
    let mut rows = vec![0; picture.output_buffer_size().unwrap()];
    let info = picture.next_frame(&mut rows).unwrap();
    assert_eq!((info.width as usize, info.height as usize, info.line_size), (WIDTH, HEIGHT, WIDTH / 8));
    let black = |x: usize, y: usize| rows[y * 60 + x / 8] >> (7 - x % 8) & 1 == 0;
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            assert_eq!(black(x, y), expected.contains(&(x, y)), "{x},{y}");
        }
    }
    // Without clearing, the next customer gets this face too.
    assert!(!sim.insert_card(), "the exit is blocked");
    assert!(sim.take_card().is_some());
    assert!(sim.insert_card());
    assert_eq!(done(&mut wire, b"\x460").await, ok());
    assert_eq!(sim.printed(2).await[1].printed.face, *face);
    assert_eq!(done(&mut wire, b"\x59").await, (0x20, "100000".into()), "held inside");
    assert_eq!(done(&mut wire, b"\x50").await, ok());
    assert_eq!(done(&mut wire, b"\x50").await, (0x22, String::new()));
    assert_eq!(done(&mut wire, b"\x58").await.0, 0x20);
    sim.stop().await;
}

#[tokio::test]
async fn an_old_face_goes_only_by_erasing() {
    let (sim, mut wire) = printer().await;
    let mut old = Canvas::default();
    old.put(7, 0, &[0xFF]);
    for (flags, dots) in [(&b"\x461,0,1"[..], 9), (b"\x461,1,0", 0), (b"\x461,1,1", 1), (b"\x48", 0)] {
        assert_eq!(done(&mut wire, b"\x49").await, ok());
        assert_eq!(done(&mut wire, b"\x438,,01").await, ok(), "Y may be left out");
        assert!(sim.insert_card_with(old.clone()));
        assert_eq!(done(&mut wire, flags).await, ok());
        assert_eq!(sim.take_card().unwrap().dots(), dots, "{flags:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused() {
    let (_sim, mut wire) = printer().await;
    for wrong in [
        &b"\x43480,0,00"[..],
        b"\x430,40,00",
        b"\x430,39,0000",
        b"\x430,0,0",
        b"\x430,0,GG",
        b"\x430,0,",
        b"\x430,0",
        b"\x4D0,0,0,00",
        b"\x4D479,0,1,0000",
        b"\x462",
        b"\x42\x31",
    ] {
        let answer = told(&mut wire, wrong).await;
        if wrong[0] == 0x42 {
            assert_eq!(answer, ACK);
            assert_eq!(response(&mut wire).await, [0x42, 0x41]);
        } else {
            assert_eq!(answer, DLE, "{}", String::from_utf8_lossy(wrong));
        }
    }
    wire.send(b"\x02\x59\x03\x00").await;
    assert_eq!(wire.exactly_bytes(1).await, [NAK]);
    wire.send(&[&[0x02, 0x41][..], &[b'A'; 1025]].concat()).await;
    assert_eq!(wire.exactly_bytes(1).await, [DLE]);
    // A response stays due until it is acknowledged, and blocks meanwhile are not heard.
    wire.send(&block(b"\x59")).await;
    let first = wire.exactly_bytes(12).await;
    wire.send(&block(b"\x40")).await;
    assert!(wire.silent(Duration::from_millis(50)).await);
    wire.send(&[NAK]).await;
    assert_eq!(wire.exactly_bytes(11).await, first[1..]);
    wire.send(&[ACK]).await;
    assert_eq!(done(&mut wire, b"\x40").await, ok());
}

#[tokio::test]
async fn a_wait_can_be_asked_about_cancelled_and_reset() {
    let (sim, mut wire) = printer().await;
    assert_eq!(told(&mut wire, b"\x46").await, ACK);
    assert_eq!(told(&mut wire, b"\x40").await, DLE);
    assert_eq!(done(&mut wire, b"\x59").await, (0x20, "000000".into()));
    assert_eq!(done(&mut wire, b"\x54").await, ok());
    assert_eq!(done(&mut wire, b"\x430,0,FF").await, ok());
    assert_eq!(told(&mut wire, b"\x46").await, ACK);
    assert_eq!(done(&mut wire, b"\x5F").await, ok());
    assert!(sim.insert_card());
    assert_eq!(done(&mut wire, b"\x46").await, ok());
    assert_eq!(sim.take_card().unwrap().dots(), 0, "the reset cleared the buffers");
}

#[tokio::test]
async fn faults_come_when_told() {
    let (mut sim, mut wire) = printer().await;
    sim.fault(Fault::Nak(2));
    assert_eq!(told(&mut wire, b"\x59").await, NAK);
    assert_eq!(told(&mut wire, b"\x59").await, NAK);
    assert_eq!(done(&mut wire, b"\x59").await.0, 0x20);
    sim.fault(Fault::Busy(Duration::from_secs(3600)));
    assert_eq!(told(&mut wire, b"\x59").await, DLE);
    sim.fault(Fault::Busy(Duration::ZERO));
    sim.fault(Fault::Garble);
    assert_eq!(told(&mut wire, b"\x40").await, ACK);
    assert_eq!(wire.exactly_bytes(5).await, [0x02, 0x40, 0x20, 0x03, 0x63 ^ 0x5A]);
    wire.send(&[NAK]).await;
    assert_eq!(response(&mut wire).await, [0x40, 0x20]);
    sim.fault(Fault::Jam);
    assert!(sim.insert_card());
    assert_eq!(done(&mut wire, b"\x46").await, (0x38, String::new()));
    sim.fault(Fault::Status(0x43));
    assert_eq!(done(&mut wire, b"\x46").await, (0x43, String::new()));
    assert_eq!(done(&mut wire, b"\x46").await, ok());
    sim.take_card().unwrap();
    // The cover: what waits ends, what was sent is lost.
    assert_eq!(done(&mut wire, b"\x430,0,FF").await, ok());
    assert_eq!(told(&mut wire, b"\x46").await, ACK);
    sim.open_cover();
    assert_eq!(response(&mut wire).await, [0x46, 0x40]);
    assert_eq!(done(&mut wire, b"\x59").await, (0x20, "000010".into()));
    assert_eq!(done(&mut wire, b"\x46").await, (0x40, String::new()));
    sim.close_cover();
    assert!(sim.insert_card());
    assert_eq!(done(&mut wire, b"\x46").await, ok());
    assert_eq!(sim.take_card().unwrap().dots(), 0);
    sim.fault(Fault::Silence(Duration::from_secs(3600)));
    wire.send(&block(b"\x59")).await;
    assert!(wire.silent(Duration::from_millis(50)).await);
    sim.vanish().await;
    assert!(wire.broken().await);
}
