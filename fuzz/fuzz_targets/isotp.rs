//! Any frames, of any form, to reassembly: never more kept than its bound, and never an
//! answer but flow control; any answers to a message going out.
#![no_main]

use std::time::Duration;

use baygate::link::can::{Frame, Id};
use baygate::vehicle::can::isotp::{Conversations, Event, Form, Next, Output, Sender};
use libfuzzer_sys::fuzz_target;

const MOST_BYTES: usize = 8192;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, mut rest)) = data.split_first() else { return };
    let form = match choice & 0x03 {
        0 => Form::default(),
        1 => Form::extended(0x10, 0xF1),
        2 => Form::mixed(0x10),
        _ => Form::default().fd(64),
    };
    let mut conversations = Conversations::new(MOST_BYTES);
    for unit in 0..4 {
        let (sender, reply_to) = (Id::standard(0x7E8 + unit), Id::standard(0x7E0 + unit));
        assert!(conversations.listen(sender, reply_to, form, choice >> 4, 0));
    }
    let mut sender = Sender::new(form, vec![0x5A; usize::from(choice) * 17 + 1]).ok();
    let mut now = Duration::ZERO;
    while let Some((&head, more)) = rest.split_first() {
        let length = usize::from(head >> 2).min(more.len());
        let (bytes, left) = more.split_at(length);
        rest = left;
        now += Duration::from_millis(u64::from(head) * 5);
        if let Some(sender) = &mut sender {
            if let Next::Send(frame) = sender.next(now) {
                assert!(frame.len() <= 64);
            }
            sender.on_frame(bytes, now);
        }
        let id = Id::standard(0x7E8 + u32::from(head & 0x03));
        let fd = length > 8;
        let outputs = Frame::new(id, bytes, fd).map(|frame| conversations.on_frame(&frame, now));
        for output in outputs.into_iter().flatten().chain(conversations.on_time(now)) {
            match output {
                Output::Send(flow) => {
                    let at = usize::from(matches!(choice & 0x03, 1 | 2));
                    assert_eq!(flow.data()[at] >> 4, 3, "only flow control is sent");
                }
                Output::Event(_, Event::Whole(payload)) => assert!(payload.len() <= MOST_BYTES),
                Output::Event(_, Event::Broken { beginning, .. }) => assert!(beginning.len() <= MOST_BYTES),
            }
        }
    }
});
