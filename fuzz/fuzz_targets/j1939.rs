//! Any frames of a J1939 bus: long messages put together, lamps, codes and the vehicle's
//! number read, the whole made a report, and each frame written down with the number masked.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use baygate::clock::UtcMillis;
use baygate::link::can::{Frame, Id};
use baygate::protocols::Bundle;
use baygate::vehicle::candump;
use baygate::vehicle::j1939::{Listener, Told};
use baygate::vehicle::recording::{Form, Recording, frames::FrameLog};
use libfuzzer_sys::fuzz_target;

static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware-protocols");
    Bundle::load(&folder).expect("the shipped tables are right")
});

fuzz_target!(|data: &[u8]| {
    let (mut listener, mut told) = (Listener::default(), Told::default());
    let recording = Recording::new(Form::Candump);
    let mut log = FrameLog::new(recording.clone(), "can0");
    let mut now = Duration::ZERO;
    // Time, which kind of group, the low half of the identifier, eight bytes.
    for frame in data.chunks(12) {
        let &[later, kind, to, source, ref bytes @ ..] = frame else { return };
        let group = match kind % 4 {
            0 => 0x18EC_0000,
            1 => 0x18EB_0000,
            2 => 0x18FE_0000,
            _ => u32::from(kind) << 21,
        };
        let id = group | u32::from(to) << 8 | u32::from(source & 0x03);
        now += Duration::from_millis(later.into());
        if let Some(heard) = listener.take(id, bytes, now) {
            told.take(heard);
        }
        if let Some(frame) = Frame::new(Id::extended(id), bytes, false) {
            log.frame(&frame, UtcMillis(now.as_millis() as i64));
        }
    }
    let _ = told.vin();
    for ecu in told.ecus(&BUNDLE) {
        assert!(ecu.dtcs.iter().all(|dtc| dtc.source == "j1939"));
    }
    let kept = recording.written("can://can0", None).unwrap_or_default();
    let kept = String::from_utf8(kept).expect("text");
    assert!(kept.lines().all(|line| candump::parse(line.as_bytes()).is_some()));
});
