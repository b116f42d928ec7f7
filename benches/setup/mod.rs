//! What the benchmarks share: figures and the table made of them, the daemon as a
//! child process, a real broker, and logs filled beforehand.
#![allow(dead_code)] // each benchmark uses its part

pub mod broker;
pub mod daemon;
pub mod figures;
pub mod fill;
pub mod process;

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressBarIter, ProgressStyle};

/// Alternating runs of a comparison; the median counts.
pub const RUNS: usize = 5;

/// A new folder on the disk under test: the build folder's, never a memory file system.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Where figures wait for the table.
pub fn kept(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("figures");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// A number from the environment, to make a run shorter while trying.
pub fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The same rounds, with a bar on a terminal that says how many there were and how long it will take.
pub fn rounds<I: ExactSizeIterator>(of: &'static str, all: I) -> ProgressBarIter<I> {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {elapsed} + {eta}").unwrap();
    let length = u64::try_from(all.len()).unwrap();
    ProgressBar::new(length).with_style(style).with_prefix(of).wrap_iter(all)
}

/// The Python that has the peers written in it (`benches/peers`, installed by `make bench`).
pub fn peers() -> PathBuf {
    let python = std::env::var_os("BAYGATE_PEERS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin/python"),
        PathBuf::from,
    );
    assert!(python.exists(), "{} is not there: use `make bench`", python.display());
    python
}

/// Where the peers written for Node.js lie (`benches/peers`, installed by `make bench`).
pub fn node_peers() -> PathBuf {
    let folder = std::env::var_os("BAYGATE_NODE_PEERS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/peers/node_modules"),
        PathBuf::from,
    );
    assert!(folder.exists(), "{} is not there: use `make bench`", folder.display());
    folder
}
