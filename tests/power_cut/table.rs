//! The table that a run prints, a line a boot: what was found after the cut
//! before it, and how it was cut itself.

use std::path::Path;
use std::time::Duration;

use super::host::{Boot, Moment};

#[derive(Default)]
pub struct Table {
    lines: usize,
}

impl Table {
    pub fn new() -> Self {
        println!(
            "{:>4} | {:>8} {:>6} {:>6} {:>5} {:<17} | {:>5} {:>9}  cut",
            "boot", "ready s", "found", "lost", "wrong", "verify", "told", "promised"
        );
        Self::default()
    }

    pub fn add(&mut self, moment: Moment, boot: &Boot, promised: usize) {
        self.lines += 1;
        let ready = boot.ready.map_or_else(|| "-".into(), |ready| format!("{:.1}", ready.as_secs_f64()));
        let (kept, lost, torn) = match &boot.found {
            Some(found) => (found.kept.to_string(), found.lost.len().to_string(), found.wrong.len()),
            None => ("-".into(), "-".into(), 0),
        };
        let verify = match boot.verified {
            Some((sound, running)) => format!(
                "{}, {}",
                if sound { "sound" } else { "not sound" },
                if running { "running" } else { "before" }
            ),
            None => "-".into(),
        };
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let cut = match moment {
            Moment::Start(then) => format!("{} after the daemon was called", seconds(then)),
            Moment::Load(told, then) => format!("{told} acknowledgements and {}", seconds(then)),
            Moment::Never => "none: delivered, stopped".into(),
        };
        println!(
            "{:>4} | {ready:>8} {kept:>6} {lost:>6} {:>5} {verify:<17} | {:>5} {promised:>9}  {cut}",
            self.lines,
            torn + boot.wrong.len(),
            boot.told,
        );
    }

    /// Where it is not well, the disk stays to be looked at.
    pub fn assert_well(&self, boot: &Boot, folder: &Path) {
        assert!(boot.is_well(), "boot {}: {boot:#?}\nthe disk is kept in {}", self.lines, folder.display());
    }
}
