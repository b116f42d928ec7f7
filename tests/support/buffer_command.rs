//! `baygate buffer`, called in two ways: inside the test, and as the real program, which is measured.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use baygate::cli::{Exit, Global, buffer};
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    args: buffer::Args,
}

/// The command, without a process of its own.
pub async fn command(dir: &Path, words: &[&str]) -> Result<Exit, String> {
    let words = ["buffer", "--data-dir", dir.to_str().unwrap()].into_iter().chain(words.iter().copied());
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    buffer::run(cli.args, &cli.global).await.map_err(|error| format!("{error:#}"))
}

/// What the real program said and took.
pub struct Run {
    pub output: Output,
    pub took: Duration,
    /// Resident memory at most, in kB.
    pub most_kb: u64,
}

/// Runs the program to its end; what is longer than `limit` hangs.
pub fn measured(dir: &Path, words: &[&str], limit: Duration) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_baygate"))
        .args(["buffer", "--locale", "en", "--data-dir"])
        .arg(dir)
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let drain = |mut from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            from.read_to_end(&mut all).unwrap();
            all
        })
    };
    let out = drain(Box::new(child.stdout.take().unwrap()));
    let err = drain(Box::new(child.stderr.take().unwrap()));
    let (since, mut most_kb) = (Instant::now(), 0);
    let status = loop {
        if let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", child.id())) {
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            most_kb = most_kb.max(peak.map_or(0, |kb| kb.trim().trim_end_matches(" kB").parse().unwrap()));
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if since.elapsed() > limit {
            child.kill().unwrap();
            panic!("{words:?} hangs");
        }
        // How finely the memory is sampled.
        std::thread::sleep(Duration::from_millis(5));
    };
    let output = Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() };
    Run { output, took: since.elapsed(), most_kb }
}
