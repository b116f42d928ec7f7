use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::link::can::{Frame, Id};

const NOW: Duration = Duration::ZERO;
const ROOM: usize = 1 << 20;

fn hex_of(frames: &[Vec<u8>]) -> Vec<String> {
    frames.iter().map(hex::encode_upper).collect()
}

/// Everything a sender sends to a receiver that says "all at once".
fn cut(form: Form, payload: &[u8]) -> Vec<Vec<u8>> {
    let mut sender = Sender::new(form, payload.to_vec()).unwrap();
    let mut frames = Vec::new();
    let mut now = NOW;
    loop {
        match sender.next(now) {
            Next::Send(frame) => frames.push(frame),
            Next::Wait(_) => {
                let flow = Form { prefix_out: form.prefix_in, ..form }.frame(&[0x30, 0, 0], &[]).0;
                sender.on_frame(&flow, now);
                now += Duration::from_millis(1);
            }
            Next::Done => return frames,
            Next::Failed(error) => panic!("{error}"),
        }
    }
}

#[test]
fn published_messages_are_cut_as_printed() {
    // Source: ELM327 data sheet, "Multiline Responses", the VIN of the example car.
    let vin = [&[0x49, 0x02, 0x01][..], b"1D4GP00R55B123456"].concat();
    assert_eq!(
        hex_of(&cut(Form::default(), &vin)),
        ["1014490201314434", "2147503030523535", "2242313233343536"]
    );
    // Source: SAE J1979, a request of one PID; padding as ELM327 adapters send it.
    assert_eq!(hex_of(&cut(Form::default(), &[0x01, 0x0C])), ["02010C0000000000"]);
    // Source: ISO 15765-2:2016 §9.6.2, §10.3.4: the longer single frame of CAN FD; an address in front.
    assert_eq!(
        hex_of(&cut(Form::default().fd(64), &[0x22; 8])),
        ["00082222222222222222CCCC".replace("CC", "00")]
    );
    assert_eq!(hex_of(&cut(Form::extended(0x10, 0xF1), &[0x3E, 0x00])), ["10023E0000000000"]);
    let unpadded = Form { padding: None, ..Form::default() };
    assert_eq!(hex_of(&cut(unpadded, &[0x3E, 0x00])), ["023E00"]);
}

#[test]
fn length_escape_beyond_4095() {
    let frames = cut(Form::default(), &[0xAA; 4096]);
    assert_eq!(hex::encode_upper(&frames[0]), "100000001000AAAA");
    assert_eq!(hex::encode_upper(&cut(Form::default(), &[0xAA; 4095])[0]), "1FFFAAAAAAAAAAAA");
}

#[test]
fn block_size_and_separation_are_kept() {
    let mut sender = Sender::new(Form::default(), vec![7; 6 + 7 * 3]).unwrap();
    let ms = Duration::from_millis;
    assert!(matches!(sender.next(NOW), Next::Send(_)));
    assert_eq!(sender.next(NOW), Next::Wait(N_BS));
    sender.on_frame(&[0x30, 2, 0x14], ms(5));
    assert!(matches!(sender.next(ms(5)), Next::Send(frame) if frame[0] == 0x21));
    assert_eq!(sender.next(ms(6)), Next::Wait(ms(25)));
    assert!(matches!(sender.next(ms(25)), Next::Send(frame) if frame[0] == 0x22));
    assert_eq!(sender.next(ms(26)), Next::Wait(ms(25) + N_BS), "the block is over");
    sender.on_frame(&[0x30, 0, 0xF3], ms(30));
    assert!(matches!(sender.next(ms(30)), Next::Send(frame) if frame[0] == 0x23));
    assert_eq!(sender.next(ms(31)), Next::Done);
    for (coded, pause) in [
        (0x00, NOW),
        (0x7F, ms(127)),
        (0xF1, Duration::from_micros(100)),
        (0xF9, Duration::from_micros(900)),
        (0x80, ms(127)),
        (0xFA, ms(127)),
    ] {
        assert_eq!(separation(coded), pause, "{coded:02X}");
    }
}

#[test]
fn a_sender_waits_within_bounds() {
    let failed = |control: &[&[u8]], at: Duration| {
        let mut sender = Sender::new(Form::default(), vec![7; 20]).unwrap();
        let _ = sender.next(NOW);
        control.iter().for_each(|frame| sender.on_frame(frame, NOW));
        match sender.next(at) {
            Next::Failed(error) => Some(error),
            _ => None,
        }
    };
    assert_eq!(failed(&[], N_BS), Some(SendError::NoFlowControl));
    assert_eq!(failed(&[], N_BS - Duration::from_millis(1)), None);
    assert_eq!(failed(&[&[0x32, 0, 0]], NOW), Some(SendError::Overflow));
    assert_eq!(failed(&[&[0x33, 0, 0]], NOW), Some(SendError::Reserved(3)));
    assert_eq!(failed(&[&[0x31, 0, 0][..]; 10], NOW), None);
    assert_eq!(failed(&[&[0x31, 0, 0][..]; 11], NOW), Some(SendError::WaitsForever));
    assert_eq!(failed(&[&[0x21, 0, 0], &[]], NOW), None);
}

#[test]
fn a_receiver_keeps_the_rules() {
    let frames = |list: &[&str], step: Duration| {
        let mut receiver = Receiver::new(Form::default(), 2, 5);
        let mut said = Vec::new();
        for (count, frame) in (0_u32..).zip(list) {
            let step = receiver.on_frame(&hex::decode(frame).unwrap(), 100, step * count);
            said.extend(step.reply.map(|reply| hex::encode_upper(&reply)));
            said.extend(step.events.into_iter().map(|event| match event {
                Event::Whole(payload) => format!("whole {}", payload.len()),
                Event::Broken { why, .. } => format!("{why:?}"),
            }));
        }
        said
    };
    let ms = Duration::from_millis(1);
    for (name, list, expected) in [
        ("single", &["03410D00AAAAAAAA"][..], &["whole 3"][..]),
        ("single of nothing", &["00410D00AAAAAAAA"], &[]),
        ("single longer than its frame", &["07410D"], &[]),
        ("eight in a classic frame", &["0811111111111111"], &[]),
        (
            "block of two",
            &[
                "101C111111111111",
                "2111111111111111",
                "2211111111111111",
                "2311111111111111",
                "2411AAAAAAAAAAAA",
            ],
            &["3002050000000000", "3002050000000000", "whole 28"],
        ),
        (
            "a frame twice",
            &["1014111111111111", "2111111111111111", "2111111111111111"],
            &["3002050000000000", "WrongNumber { expected: 2, found: 1 }"],
        ),
        ("too long", &["1FFF111111111111"], &["3200000000000000", "TooLong { length: 4095 }"]),
        (
            "another begins",
            &["1014111111111111", "1008111111111111", "211111AAAAAAAAAA"],
            &["3002050000000000", "3002050000000000", "Interrupted", "whole 8"],
        ),
        (
            "a single between",
            &["1014111111111111", "03410D00AAAAAAAA"],
            &["3002050000000000", "Interrupted", "whole 3"],
        ),
        ("rest of something", &["2111111111111111"], &[]),
        ("first frame that fits a single", &["1007111111111111"], &["3002050000000000"]),
        ("first frame of six", &["1006111111111111"], &[]),
        ("escape without need", &["100000000FFF1111"], &[]),
        ("a short one in the middle", &["1014111111111111", "21111111"], &["3002050000000000"]),
        ("flow control and reserved kinds", &["3000000000000000", "4111111111111111", ""], &[]),
    ] {
        assert_eq!(frames(list, ms), expected, "{name}");
    }
    let late = frames(&["1014111111111111", "2111111111111111"], N_CR);
    assert_eq!(late, ["3002050000000000", "TimedOut"]);
}

/// A channel that loses, doubles and swaps frames as `fates` say. Frames swap only with
/// neighbours: four bits of number cannot tell a frame from the sixteenth after it.
fn through(fates: &mut impl Iterator<Item = u8>, frames: &mut VecDeque<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut came = Vec::new();
    while let Some(frame) = frames.pop_front() {
        match fates.next().unwrap_or(9) {
            0 => {}
            1 => came.extend([frame.clone(), frame]),
            2 => {
                came.extend(frames.pop_front());
                came.push(frame);
            }
            _ => came.push(frame),
        }
    }
    came
}

/// Both machines at once, time jumping to whatever is waited for. What came whole.
fn converse(payload: &[u8], form: Form, block: u8, st_min: u8, fates: Vec<u8>) -> Vec<Vec<u8>> {
    let theirs = Form { prefix_out: form.prefix_in, prefix_in: form.prefix_out, ..form };
    let mut sender = Sender::new(form, payload.to_vec()).unwrap();
    let mut receiver = Receiver::new(theirs, block, st_min);
    let mut fates = fates.into_iter();
    let (mut now, mut whole) = (NOW, Vec::new());
    for _ in 0..payload.len() + 100 {
        let mut out = VecDeque::new();
        let wait = loop {
            match sender.next(now) {
                Next::Send(frame) => out.push_back(frame),
                Next::Wait(until) => break Some(until),
                Next::Done | Next::Failed(_) => break None,
            }
        };
        let mut replies = VecDeque::new();
        let nothing_came = out.is_empty();
        for frame in through(&mut fates, &mut out) {
            let step = receiver.on_frame(&frame, ROOM, now);
            replies.extend(step.reply);
            whole.extend(step.events.into_iter().filter_map(|event| match event {
                Event::Whole(payload) => Some(payload),
                Event::Broken { .. } => None,
            }));
        }
        let answered = !replies.is_empty();
        for reply in through(&mut fates, &mut replies) {
            sender.on_frame(&reply, now);
        }
        match wait {
            None => break,
            Some(until) if nothing_came || !answered => now = until,
            Some(_) => {}
        }
    }
    whole
}

#[test]
fn every_length_both_ways_in_every_form() {
    let mixed = Form::mixed(0x55);
    let unpadded = Form { padding: None, ..Form::default() };
    for form in
        [Form::default(), unpadded, Form::extended(0x10, 0xF1), mixed, Form::default().fd(64), mixed.fd(24)]
    {
        for length in (1..300).chain([4094, 4095, 4096, 5000]) {
            let payload: Vec<u8> = (0..length).map(|place: usize| (place ^ (place >> 8)) as u8).collect();
            let whole = converse(&payload, form, (length % 9) as u8, 0xF1, Vec::new());
            assert_eq!(whole, [payload], "{form:?} {length}");
        }
    }
}

#[test]
fn many_conversations_share_one_room() {
    let mut all = Conversations::new(100);
    for unit in 0..4 {
        assert!(all.listen(Id::standard(0x7E8 + unit), Id::standard(0x7E0 + unit), Form::default(), 0, 0));
    }
    let frame = |unit: u32, hex: &str| {
        Frame::new(Id::standard(0x7E8 + unit), &hex::decode(hex).unwrap(), false).unwrap()
    };
    let sent = |outputs: Vec<Output>| -> Vec<String> {
        outputs
            .iter()
            .filter_map(|output| match output {
                Output::Send(frame) => Some(format!("{frame:?}")),
                Output::Event(..) => None,
            })
            .collect()
    };
    for unit in 0..4 {
        let flow = format!("7E{unit}#3000000000000000");
        assert_eq!(sent(all.on_frame(&frame(unit, "1014111111111111"), NOW)), [flow]);
    }
    // The same unit begins anew: its own room is free again. Another does not fit.
    assert_eq!(sent(all.on_frame(&frame(0, "1020111111111111"), NOW)), ["7E0#3000000000000000"]);
    assert_eq!(sent(all.on_frame(&frame(1, "1040111111111111"), NOW)), ["7E1#3200000000000000"]);
    let mut whole = 0;
    for number in 1..3 {
        for unit in 1..4 {
            let outputs = all.on_frame(&frame(unit, &format!("2{number}11111111111111")), NOW);
            whole += outputs.iter().filter(|o| matches!(o, Output::Event(_, Event::Whole(_)))).count();
        }
    }
    assert_eq!(whole, 2, "unit 1 gave its message up");
    assert_eq!(all.on_time(N_CR).len(), 1, "and unit 0 is overdue");
    assert!(all.deadline().is_none());
}

proptest! {
    #![proptest_config(crate::seed::cases(256))]

    #[test]
    fn whatever_the_channel_does_nothing_wrong_comes_whole(
        payload in proptest::collection::vec(any::<u8>(), 1..6000),
        fd: bool,
        prefix: bool,
        block in 0_u8..20,
        st_min: u8,
        fates in proptest::collection::vec(0_u8..40, 0..1000),
        clean: bool,
    ) {
        let form = if prefix { Form::extended(0x10, 0xF1) } else { Form::default() };
        let form = if fd { form.fd(64) } else { form };
        let fates = if clean { Vec::new() } else { fates };
        let whole = converse(&payload, form, block, st_min, fates);
        prop_assert!(whole.iter().all(|came| *came == payload));
        prop_assert!(!clean || whole.len() == 1);
    }

    #[test]
    fn no_frames_panic_and_memory_is_bounded(
        frames in proptest::collection::vec((0_u32..3, proptest::collection::vec(any::<u8>(), 0..9), 0_u64..2000), 0..100),
    ) {
        let mut all = Conversations::new(5000);
        let mut sender = Sender::new(Form::default(), vec![1; 100]).unwrap();
        for unit in 0..3 {
            all.listen(Id::standard(unit), Id::standard(unit + 8), Form::default(), 3, 0);
        }
        let mut now = NOW;
        for (unit, data, pause) in frames {
            now += Duration::from_millis(pause);
            let frame = Frame::new(Id::standard(unit), &data, false).unwrap();
            for output in all.on_frame(&frame, now).into_iter().chain(all.on_time(now)) {
                if let Output::Event(_, Event::Whole(payload)) = output {
                    prop_assert!(payload.len() <= 5000);
                }
            }
            sender.on_frame(&data, now);
            let _ = sender.next(now);
            let _ = parse(&data, data.len());
        }
    }
}
