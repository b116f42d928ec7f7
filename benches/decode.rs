//! Passive decoding of one candump log by one database, twice against cantools: as whole
//! programs that read the log and write text, and decoding alone, of frames that lie parsed
//! in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod setup;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use baygate::vehicle::candump::{self, Frame};
use baygate::vehicle::dbc::{Database, Selectors};
use setup::daemon::program;
use setup::figures::{Figure, Found, median};
use setup::{RUNS, number, peers};

/// Messages of the database.
const MESSAGES: usize = 60;
/// Frames whose every value is compared: each message a hundred times.
const COMPARED: usize = 100 * MESSAGES;

fn main() {
    let frames = number("BAYGATE_BENCH_FRAMES", 1_000_000);
    let folder = setup::folder();
    let (dbc, log) = (folder.path().join("car.dbc"), folder.path().join("car.log"));
    std::fs::write(&dbc, database()).unwrap();
    std::fs::write(&log, candump(COMPARED)).unwrap();
    agree(&dbc, &log);
    std::fs::write(&log, candump(frames)).unwrap();

    let (mut program, mut their_program) = (Vec::new(), Vec::new());
    let (mut alone, mut them_alone, mut signals) = (Vec::new(), Vec::new(), 0);
    let parsed = parsed(&log);
    assert_eq!(parsed.len(), frames);
    for _ in setup::rounds("decode", 0..RUNS) {
        program.push(rate(frames, seconds(ours(&dbc), &log)));
        their_program.push(rate(frames, seconds(theirs(&dbc), &log)));
        let (found, seconds) = decoded(&dbc, &parsed);
        alone.push(rate(frames, seconds));
        let (their_frames, their_signals, seconds) = their_decoded(&dbc, &log);
        assert_eq!((frames, found), (their_frames, their_signals), "both find the same values");
        them_alone.push(rate(frames, seconds));
        signals = found;
    }

    let mut found = Found::default();
    let mut tell = |figure, ours, theirs| {
        found.figures.push(Figure::ratio(figure, "/s", median(ours), median(theirs), Some(50.0)));
    };
    tell("candump log to text by a DBC, frames", program, their_program);
    tell("the decoding alone, frames", alone, them_alone);
    found.notes.push(format!(
        "decode: {frames} frames of {MESSAGES} messages, {signals} values, classic CAN; peer cantools 40.2.3"
    ));
    found.keep("decode");
}

#[allow(clippy::cast_precision_loss)]
fn rate(frames: usize, seconds: f64) -> f64 {
    frames as f64 / seconds
}

fn ours(dbc: &Path) -> Command {
    let mut command = program();
    command.args(["decode", "--dbc"]).arg(dbc);
    command
}

/// cantools' own program; `--single-line` is the quicker of its two forms.
fn theirs(dbc: &Path) -> Command {
    let mut command = Command::new(peers());
    command.args(["-m", "cantools", "decode", "--single-line"]).arg(dbc);
    command
}

/// From start to exit, with the log as input; what is written goes nowhere.
fn seconds(mut program: Command, log: &Path) -> f64 {
    program.stdin(File::open(log).unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    assert!(program.status().unwrap().success());
    begun.elapsed().as_secs_f64()
}

/// Both programs say the same of each frame.
fn agree(dbc: &Path, log: &Path) {
    let text = |mut program: Command| {
        let done = program.stdin(File::open(log).unwrap()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let (ours, theirs) = (text(ours(dbc)), text(theirs(dbc)));
    assert_eq!((ours.lines().count(), theirs.lines().count()), (COMPARED, COMPARED));
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        let ((our_name, our_values), (their_name, their_values)) = (our_values(ours), their_values(theirs));
        let same = our_name == their_name
            && our_values.len() == their_values.len()
            // The last digit of a double depends on whether a factor is multiplied or divided by.
            && our_values.iter().zip(&their_values).all(|((our, a), (their, b))| {
                our == their && (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
            });
        assert!(same, "{ours} {theirs}");
    }
}

type Values = (String, BTreeMap<String, f64>);

fn our_values(line: &str) -> Values {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let signals = line["signals"].as_object().unwrap();
    let signals = signals.iter().map(|(name, value)| (name.clone(), value.as_f64().unwrap())).collect();
    (line["message"].as_str().unwrap().to_owned(), signals)
}

/// `(1700000000.000000) can0 107#00… :: M1(WheelA: 1.5 km/h, Brake: 0)`
fn their_values(line: &str) -> Values {
    let (_, told) = line.split_once(" :: ").unwrap();
    let (message, signals) = told.strip_suffix(')').unwrap().split_once('(').unwrap();
    let signal = |text: &str| {
        let (name, value) = text.split_once(": ").unwrap();
        (name.to_owned(), value.split(' ').next().unwrap().parse().unwrap())
    };
    (message.to_owned(), signals.split(", ").map(signal).collect())
}

fn parsed(log: &Path) -> Vec<(u32, [u8; 8])> {
    let text = std::fs::read(log).unwrap();
    let frame = |line: &[u8]| match candump::parse(line)?.frame {
        Frame::Data { id, data, .. } => Some((id, data.as_bytes().try_into().ok()?)),
        _ => None,
    };
    text.split(|&byte| byte == b'\n').filter_map(frame).collect()
}

/// Values found, and seconds of decoding alone.
fn decoded(dbc: &Path, frames: &[(u32, [u8; 8])]) -> (usize, f64) {
    let database = Database::from_bytes(&std::fs::read(dbc).unwrap()).unwrap();
    let (mut selectors, mut signals) = (Selectors::default(), 0);
    let begun = Instant::now();
    for (id, data) in frames {
        let message = database.message(*id, false).unwrap();
        message.decode(data, &mut selectors, |_, signal, raw| {
            black_box((signal.name(), signal.value(raw)));
            signals += 1;
        });
    }
    (signals, begun.elapsed().as_secs_f64())
}

/// The same by cantools: frames, values, seconds.
fn their_decoded(dbc: &Path, log: &Path) -> (usize, usize, f64) {
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
