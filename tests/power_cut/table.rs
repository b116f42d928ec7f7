//! The table that a run prints, a line a boot: what was found after the cut
//! before it, and how it was cut itself.

use std::path::Path;
use std::time::Duration;

use super::host::{Boot, Cut, Moment};

#[derive(Default)]
pub struct Table {
    lines: usize,
}

impl Table {
    pub fn new() -> Self {
        println!(
            "{:>4} | {:>7} {:>6} {:>5} {:>5} {:<17} | {:>5} {:>9}  {:<42} disk cache",
            "boot", "ready s", "found", "lost", "wrong", "verify", "told", "promised", "cut"
        );
        Self::default()
    }

    pub fn add(&mut self, cut: Cut, boot: &Boot, promised: usize) {
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
        let moment = match cut.moment {
            Moment::Start(then) => format!("{} after the daemon was called", seconds(then)),
            Moment::Load { told, deeds, then } => format!("{told} told, {deeds} deeds, {}", seconds(then)),
            Moment::Never => "none: all delivered, daemon stopped".into(),
        };
        let cache = match boot.cached {
            Some(cached) => format!("{} of {} pieces lost", cached.unflushed - cached.kept, cached.unflushed),
            None => "-".into(),
        };
        println!(
            "{:>4} | {ready:>7} {kept:>6} {lost:>5} {:>5} {verify:<17} | {:>5} {promised:>9}  {moment:<42} {cache}",
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
