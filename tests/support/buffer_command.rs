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

/// Resident memory at most of a process that is the program by now, in kB. Until it is, the kernel
/// shows what made it, here this test with all that it ever held (228 MB): a child that waits for its
/// maker's address space is already there to be asked.
pub fn most_kb(pid: u32) -> Option<u64> {
    let is = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    if is != std::fs::canonicalize(env!("CARGO_BIN_EXE_baygate")).unwrap() {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(peak.trim().trim_end_matches(" kB").parse().unwrap())
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
    let (since, mut most) = (Instant::now(), 0);
    let status = loop {
        most = most.max(most_kb(child.id()).unwrap_or(0));
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
    Run { output, took: since.elapsed(), most_kb: most }
}

/// Far more than any of it takes: what is longer hangs.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Runs the program; its exit status and all it said.
pub fn run(dir: &Path, words: &[&str]) -> (i32, String) {
    let output = measured(dir, words, DEADLINE).output;
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}
