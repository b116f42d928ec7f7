use proptest::prelude::*;

use super::super::lines::{Likely, mask_known, mask_likely};
use super::*;
use crate::link::can::Id;
use crate::vehicle::candump;
use crate::vehicle::recording::Form;

const VIN: &str = "1M8GDM9AXKP042788";

fn lines(frames: &[(Id, Vec<u8>, bool)]) -> String {
    let recording = Recording::new(Form::Candump);
    let mut log = FrameLog::new(recording.clone(), "can0");
    for (id, data, fd) in frames {
        log.frame(&Frame::new(*id, data, *fd).unwrap(), UtcMillis(1_436_509_052_249));
    }
    String::from_utf8(recording.written("can://can0", None).unwrap_or_default()).unwrap()
}

/// A message of a unit, cut up by ISO 15765-2.
fn cut(prefix: &[u8], payload: &[u8]) -> Vec<Vec<u8>> {
    let first = 6 - prefix.len();
    let mut frames = vec![[prefix, &[0x10, payload.len() as u8], &payload[..first]].concat()];
    for (part, number) in payload[first..].chunks(7 - prefix.len()).zip(1_u8..) {
        frames.push([prefix, &[0x20 | number & 0x0F], part].concat());
    }
    frames
}

#[test]
fn lines_are_candumps() {
    let text = lines(&[
        (Id::standard(0x44), vec![0x2A, 0x36], false),
        (Id::extended(0x18FE_CA00), vec![0; 12], true),
    ]);
    assert_eq!(
        text,
        "(1436509052.249000) can0 044#2A36\n(1436509052.249000) can0 18FECA00##0000000000000000000000000\n"
    );
    assert!(text.lines().all(|line| candump::parse(line.as_bytes()).is_some()));
}

#[test]
fn the_number_is_masked_over_all_its_frames() {
    let answer = |head: &[u8]| [head, VIN.as_bytes()].concat();
    for (name, prefix, payload) in [
        ("09 02", &[][..], answer(&[0x49, 0x02, 0x01])),
        ("F190", &[], answer(&[0x62, 0xF1, 0x90])),
        ("F802", &[], answer(&[0x62, 0xF8, 0x02])),
        ("extended addressing", &[0xF1], answer(&[0x62, 0xF1, 0x90])),
    ] {
        let mut frames: Vec<_> =
            cut(prefix, &payload).into_iter().map(|data| (Id::standard(0x7E8), data, false)).collect();
        // Of another unit, in between.
        frames.insert(1, (Id::standard(0x7E9), vec![0x21, b'M', b'8', b'G'], false));
        let text = lines(&frames);
        for piece in ["4D3847", "474D39", "41584B", "4B5030", "303432", "373838"] {
            let elsewhere = piece == "4D3847";
            assert_eq!(text.contains(piece), elsewhere, "{name}: {piece} in {text}");
        }
    }
    let fd = [&[0x00, 20], &answer(&[0x62, 0xF1, 0x90])[..], &[0xCC, 0xCC]].concat();
    assert!(!lines(&[(Id::standard(0x7E8), fd, true)]).contains("4D38"));
    let mut truck = vec![(Id::extended(0x18EC_FF00), vec![0x20, 18, 0, 3, 0xFF, 0xEC, 0xFE, 0], false)];
    for (part, number) in answer(&[]).chunks(7).zip(1_u8..) {
        truck.push((Id::extended(0x18EB_FF00), [&[number], part].concat(), false));
    }
    assert!(!lines(&truck).contains("4D38"), "{}", lines(&truck));
}

/// The rest of a number that never came is not looked for in the next message.
#[test]
fn a_message_that_never_ended_is_forgotten() {
    let begun = [0x10, 0x14, 0x49, 0x02, 0x01, b'1', b'M', b'8'];
    let frame = |unit: u32, data: &[u8]| (Id::standard(unit), data.to_vec(), false);
    let rest = [0x21, b'S', b'P', b'E', b'E', b'D', b'4', b'2'];
    for (name, next) in [
        ("single frame", &[0x03, 0x41, 0x0D, 0x32, 0, 0, 0, 0][..]),
        ("first frame", &[0x10, 0x14, 0x49, 0x04, 0x01, b'X', b'Y', b'Z']),
        ("with an address", &[0xF1, 0x03, 0x41, 0x0D, 0x32, 0, 0, 0]),
    ] {
        let text = lines(&[frame(0x7E8, &begun), frame(0x7E8, next), frame(0x7E8, &rest)]);
        assert!(text.contains("2153504545443432"), "{name}: {text}");
    }
    // Flow control of the same unit ends nothing.
    let text = lines(&[frame(0x7E8, &begun), frame(0x7E8, &[0x30, 0, 0]), frame(0x7E8, &rest)]);
    assert!(text.contains("2130303030303030"), "{text}");
    // More of them than are followed: the last one is.
    let mut frames: Vec<_> = (0..=64).map(|unit| frame(0x700 + unit, &begun)).collect();
    frames.push(frame(0x740, &rest));
    assert!(lines(&frames).ends_with("740#2130303030303030\n"));
}

/// As it was told whole, by the units that tell it.
#[test]
fn a_number_is_known_when_it_came_whole() {
    let mut frames = FrameLines::new("can0");
    let mut pass = |id: Id, data: &[u8]| {
        frames.line(&Frame::new(id, data, false).unwrap(), 0, "");
        frames.numbers().to_vec()
    };
    let answer = [&[0x49, 0x02, 0x01], VIN.as_bytes()].concat();
    let parts = cut(&[], &answer);
    assert!(parts[..2].iter().all(|part| pass(Id::standard(0x7E8), part).is_empty()));
    assert_eq!(pass(Id::standard(0x7E8), &parts[2]), [VIN]);
    assert_eq!(pass(Id::extended(0x18FE_EC00), b"TRUCK*77"), [VIN, "TRUCK"]);
    assert_eq!(pass(Id::extended(0x18FE_EC01), b"0000000*"), [VIN, "TRUCK"]);
}

/// What fills frames up is none, nor is what stands where none was ever set.
#[test]
fn only_a_number_is_one() {
    let told = |frames: &[Vec<u8>]| {
        let mut lines = FrameLines::new("can0");
        for data in frames {
            lines.line(&Frame::new(Id::standard(0x7E9), data, data.len() > 8).unwrap(), 0, "");
        }
        lines.numbers().to_vec()
    };
    let answer = |number: &str| [&[0x62, 0xF1, 0x90], number.as_bytes()].concat();
    let single = |digits: &str| vec![hex::decode(digits).unwrap()];
    // With an address in front the last frame has room for three bytes more.
    let mut filled = cut(&[0xF1], &answer(VIN));
    filled.last_mut().unwrap().resize(8, 0x55);
    let of_fd = |number: &str| vec![[&[0x00, 20], &answer(number)[..], &[0x55; 2]].concat()];
    for (name, frames, expected) in [
        ("none, filled up", single("0362F19055555555"), &[][..]),
        ("none in a message of 09 02", single("0349020055555555"), &[]),
        ("part of one", single("0762F19031324D38"), &[]),
        ("never set", cut(&[], &answer("XXXXXXXXXXXXXXXXX")), &[]),
        ("no VIN", cut(&[], &answer("NOT PROGRAMMED YET")), &[]),
        ("filled up behind it", filled, &[VIN]),
        ("CAN FD", of_fd(VIN), &[VIN]),
        ("never set, CAN FD", of_fd("XXXXXXXXXXXXXXXXX"), &[]),
    ] {
        assert_eq!(told(&frames), expected, "{name}");
    }
}

proptest! {
    #![proptest_config(crate::seed::cases(256))]

    /// Whatever passes: each frame is one line that reads back, and nothing grows.
    #[test]
    fn any_frame_is_a_line(frames in prop::collection::vec((any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..9)), 1..60)) {
        let recording = Recording::new(Form::Candump);
        let mut log = FrameLog::new(recording.clone(), "can0");
        for (id, extended, data) in &frames {
            let id = if *extended { Id::extended(*id) } else { Id::standard(*id) };
            log.frame(&Frame::new(id, data, false).unwrap(), UtcMillis(0));
            prop_assert!(log.lines.mask.open.len() <= MOST_OPEN);
        }
        let mut written = recording.written("can://can0", None).unwrap();
        mask_known(&mut written, VIN);
        mask_likely(&mut written, Likely::Any);
        let text = String::from_utf8(written).unwrap();
        prop_assert_eq!(text.lines().filter(|line| candump::parse(line.as_bytes()).is_some()).count(), frames.len());
    }
}
