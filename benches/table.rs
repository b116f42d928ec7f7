//! The one table of all benchmarks: printed, and with `SAVE=1` written into
//! `docs/benchmarks.md` between its marks, with the machine and the versions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod setup;

use std::path::Path;
use std::process::Command;

use setup::figures::{Found, table};

const BENCHES: [&str; 9] =
    ["append", "drain", "start", "idle", "tap", "counter", "vehicle", "decode", "buses"];
const BEGIN: &str = "<!-- figures: written by `make bench SAVE=1` -->\n";
const END: &str = "<!-- end of figures -->\n";

fn main() {
    let (mut figures, mut notes) = (Vec::new(), Vec::new());
    for bench in BENCHES {
        let kept = setup::kept(&format!("{bench}.json"));
        match std::fs::read(&kept) {
            Ok(bytes) => {
                let found: Found = serde_json::from_slice(&bytes).unwrap();
                figures.extend(found.figures);
                notes.extend(found.notes);
            }
            Err(error) => println!("no figures of {bench}: {error}"),
        }
    }
    let table = table(&figures);
    let text = format!(
        "{}\n{table}\n{}",
        machine(),
        notes.iter().map(|note| format!("- {note}\n")).collect::<String>()
    );
    println!("{text}");
    if std::env::var_os("SAVE").is_some_and(|save| save == "1") {
        save(&text);
    }
    if figures.iter().any(|figure| figure.holds == Some(false)) {
        std::process::exit(1);
    }
}

fn save(text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("docs/benchmarks.md has its marks");
    let (_, after) = rest.split_once(END).expect("docs/benchmarks.md has its marks");
    std::fs::write(&path, format!("{before}{BEGIN}\n{text}\n{END}{after}")).unwrap();
    println!("written to docs/benchmarks.md");
}

/// What the figures were taken on.
fn machine() -> String {
    let first = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned()))
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = said("uname", &["-r"], 0);
    format!(
        "`make bench` on {}: {}, {cores} cores, Linux {}, {}; {}, SQLite {}, {}, pcscd {}.\n",
        said("date", &["+%Y-%m-%d"], 0),
        first("/proc/cpuinfo", "model name"),
        kernel.split('-').next().unwrap_or(&kernel),
        first("/etc/os-release", "PRETTY_NAME"),
        said("rustc", &["--version"], 0),
        rusqlite::version(),
        said("/usr/sbin/mosquitto", &["-h"], 0),
        said("/usr/sbin/pcscd", &["--version"], 0)
            .split_whitespace()
            .nth(2)
            .unwrap_or("?")
            .trim_end_matches('.'),
    )
}

/// A line of what a program says.
fn said(program: &str, arguments: &[&str], line: usize) -> String {
    let said = Command::new(program).args(arguments).output();
    let text = said.map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().nth(line).unwrap_or("?").to_owned()
}
