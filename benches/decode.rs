//! Passive decoding: the same database and the same candump log for `baygate
//! decode --dbc` (start, reading the database and writing JSON Lines included) and
//! for a loop over cantools (only decoding counted, nothing printed).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod setup;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use setup::daemon::program;
use setup::figures::{Figure, Found, median};
use setup::{RUNS, number, peers};

/// Messages of the database.
const MESSAGES: usize = 60;

fn main() {
    let frames = number("BAYGATE_BENCH_FRAMES", 200_000);
    let folder = setup::folder();
    let (dbc, log) = (folder.path().join("car.dbc"), folder.path().join("car.log"));
    std::fs::write(&dbc, database()).unwrap();
    std::fs::write(&log, candump(frames)).unwrap();

    let (mut ours, mut theirs, mut signals) = (Vec::new(), Vec::new(), 0);
    for _ in 0..RUNS {
        ours.push(rate(frames, baygate(&dbc, &log)));
        let (decoded, found, seconds) = cantools(&dbc, &log);
        assert_eq!(decoded, frames, "cantools decodes every frame");
        signals = found;
        theirs.push(rate(frames, seconds));
    }
    assert_eq!(values(&dbc, &log), signals, "both see the same signals");

    let mut found = Found::default();
    let (us, them) = (median(ours), median(theirs));
    found.figures.push(Figure::ratio("DBC decoding, frames", "/s", us, them, Some(50.0)));
    found.notes.push(format!(
        "decode: {frames} frames of {MESSAGES} messages, {signals} values, classic CAN; peer cantools 40.2.3"
    ));
    found.keep("decode");
}

#[allow(clippy::cast_precision_loss)]
fn rate(frames: usize, seconds: f64) -> f64 {
    frames as f64 / seconds
}

fn baygate(dbc: &Path, log: &Path) -> f64 {
    let begun = Instant::now();
    let done = program().args(["decode", "--dbc"]).arg(dbc).arg(log).stdout(Stdio::null()).status().unwrap();
    assert!(done.success());
    begun.elapsed().as_secs_f64()
}

/// How many values ours prints for the log.
fn values(dbc: &Path, log: &Path) -> usize {
    let done = program().args(["decode", "--dbc"]).arg(dbc).arg(log).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let count = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["signals"].as_object().unwrap().len()
    };
    text.lines().map(count).sum()
}

fn cantools(dbc: &Path, log: &Path) -> (usize, usize, f64) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/cantools_decode.py");
    let done = Command::new(peers()).arg(script).arg(dbc).arg(log).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let [frames, signals, seconds] = words[..] else {
        panic!("the peer said {text:?}: {}", String::from_utf8_lossy(&done.stderr))
    };
    (frames.parse().unwrap(), signals.parse().unwrap(), seconds.parse().unwrap())
}

/// Both byte orders, signed and scaled, whole bytes and odd widths, one multiplexer in ten.
fn database() -> String {
    let mut dbc = String::from("VERSION \"\"\n\nBS_:\n\nBU_: ECU\n\n");
    for message in 0..MESSAGES {
        writeln!(dbc, "BO_ {} M{message}: 8 ECU", 0x100 + message * 7).unwrap();
        let signals: &[&str] = match message % 10 {
            0 => &[
                "Mode M : 0|4@1+ (1,0) [0|0] \"\" ECU",
                "Left m0 : 8|16@1+ (0.1,0) [0|0] \"bar\" ECU",
                "Right m1 : 8|16@1- (0.1,-40) [0|0] \"bar\" ECU",
                "Count : 56|8@1+ (1,0) [0|0] \"\" ECU",
            ],
            n if n % 2 == 0 => &[
                "Speed : 7|16@0+ (0.01,0) [0|0] \"km/h\" ECU",
                "Torque : 23|12@0- (0.5,0) [0|0] \"Nm\" ECU",
                "Gear : 27|4@0+ (1,0) [0|0] \"\" ECU",
                "Temperature : 39|8@0+ (1,-40) [0|0] \"degC\" ECU",
                "Odometer : 47|24@0+ (0.1,0) [0|0] \"km\" ECU",
            ],
            _ => &[
                "WheelA : 0|13@1+ (0.03125,0) [0|0] \"km/h\" ECU",
                "WheelB : 13|13@1+ (0.03125,0) [0|0] \"km/h\" ECU",
                "WheelC : 26|13@1+ (0.03125,0) [0|0] \"km/h\" ECU",
                "WheelD : 39|13@1+ (0.03125,0) [0|0] \"km/h\" ECU",
                "Brake : 52|1@1+ (1,0) [0|0] \"\" ECU",
                "Steering : 53|11@1- (0.5,0) [0|0] \"deg\" ECU",
            ],
        };
        for signal in signals {
            writeln!(dbc, " SG_ {signal}").unwrap();
        }
        dbc.push('\n');
    }
    dbc
}

/// The messages in turn, their bytes from a generator that is the same every time.
fn candump(frames: usize) -> String {
    let mut log = String::with_capacity(frames * 48);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for frame in 0..frames {
        // xorshift64 (Marsaglia 2003): any bytes do, but the same each run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let message = frame % MESSAGES;
        let mut data = state;
        if message.is_multiple_of(10) {
            // A multiplexer that selects one of the two it has.
            data &= !0x0E00_0000_0000_0000;
        }
        let (second, micro) = (frame / 9000, frame % 9000 * 111);
        writeln!(log, "({}.{micro:06}) can0 {:03X}#{data:016X}", 1_700_000_000 + second, 0x100 + message * 7)
            .unwrap();
    }
    log
}
