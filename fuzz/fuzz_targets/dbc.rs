//! Any file as a DBC, any frame against what it says; any line of a candump log.
#![no_main]

use baygate::vehicle::candump;
use baygate::vehicle::dbc::{Database, Selectors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = candump::parse(data);
    let Ok(database) = Database::from_bytes(data) else { return };
    let mut selectors = Selectors::default();
    for message in database.messages() {
        for length in [0, 1, 7, 8, 64] {
            message.decode(&vec![0xA5; length], &mut selectors, |_, signal, raw| {
                let _ = (signal.value(raw), signal.text(raw));
            });
        }
    }
});
