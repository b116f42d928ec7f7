//! Any file as a DBC, any frame against what it says.
#![no_main]

use baygate::vehicle::candump;
use baygate::vehicle::dbc::Database;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(database) = Database::from_bytes(data) else { return };
    let mut decoder = database.decoder();
    for message in database.messages() {
        for length in [0, 1, 7, 8, 64] {
            decoder.decode(message, &vec![0xA5; length], |_, _, _| {});
        }
    }
    let _ = std::str::from_utf8(data).map(candump::parse);
});
