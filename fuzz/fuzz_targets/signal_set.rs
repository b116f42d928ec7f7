//! Any file as a signal set, any answer against its commands.
#![no_main]

use baygate::vehicle::signal_set::SignalSet;
use libfuzzer_sys::fuzz_target;

const ANSWERS: [&str; 4] =
    ["7E803410578", "7E8102262F1900102030405\n7E8210102030405060708", "18DAF1100462010200", "83F111610100"];

fuzz_target!(|data: &[u8]| {
    let (file, answer) = data.split_at(data.len().saturating_sub(64));
    let answer = String::from_utf8_lossy(answer);
    let Ok(set) = SignalSet::from_json(file) else { return };
    for command in set.commands() {
        for answer in ANSWERS.iter().copied().chain([answer.as_ref()]) {
            let _ = command.decode(answer);
        }
    }
    let _ = set.command(&answer);
});
