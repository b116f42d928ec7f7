//! Whether the wall clock is to be believed.
//!
//! A time service says so by touching a file at each success
//! ([`TIME_SYNC_FILE`], `[gateway] time_sync_file`); it is asked rather than
//! `adjtimex(2)`, which has no safe binding. A clock that steps although the
//! service did not touch its file was set by somebody else (`date -s`, a bad
//! clock chip, a virtual machine that slept): from then on it is doubted, until
//! the service touches the file again.
//!
//! Steps are noticed by comparison with the time since boot, which nobody sets
//! and which goes on in suspend.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use super::{TimeQuality, UtcMillis};

/// What `systemd-timesyncd` touches (systemd-timesyncd.service(8)).
pub const TIME_SYNC_FILE: &str = "/run/systemd/timesync/synchronized";
/// Smaller steps are the ordinary work of NTP, in milliseconds.
pub const STEP_MS: i64 = 1_000;
/// Both clocks must be read within this, or they are read again.
const TOGETHER: Duration = Duration::from_millis(20);

/// What the clocks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub wall: UtcMillis,
    /// How far it is trusted.
    pub quality: TimeQuality,
    /// What the wall clock, as it stands now, would have said at boot. Changes when it is set.
    pub wall_at_boot: UtcMillis,
    /// How long the wall clock has not been set, as far as this process saw.
    pub steady: Duration,
}

/// What is remembered from reading to reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trust {
    wall_at_boot: i64,
    steady_since: Duration,
    /// When the service last touched its file, as last seen.
    touched: Option<SystemTime>,
    /// This touch is not believed any more.
    doubted: Option<SystemTime>,
}

impl Trust {
    fn begin(wall_at_boot: i64, up: Duration, touched: Option<SystemTime>) -> Self {
        Self { wall_at_boot, steady_since: up, touched, doubted: None }
    }

    /// Takes a reading, `up` after boot.
    fn judge(&mut self, wall_at_boot: i64, up: Duration, touched: Option<SystemTime>) -> TimeQuality {
        if wall_at_boot.abs_diff(self.wall_at_boot) >= STEP_MS.unsigned_abs() {
            self.steady_since = up;
            if touched == self.touched {
                self.doubted = touched;
            }
        }
        self.wall_at_boot = wall_at_boot;
        self.touched = touched;
        if touched.is_some() && touched != self.doubted { TimeQuality::Synced } else { TimeQuality::Unsynced }
    }
}

struct State {
    file: Option<PathBuf>,
    trust: Option<Trust>,
}

static STATE: Mutex<State> = Mutex::new(State { file: None, trust: None });

/// Names the file that the time service touches; what was doubted before is forgotten.
pub fn trust(file: &Path) {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    if state.file.as_deref() != Some(file) {
        *state = State { file: Some(file.to_owned()), trust: None };
    }
}

/// Reads the clocks.
#[must_use]
pub fn read() -> Reading {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let file = state.file.as_deref().unwrap_or(Path::new(TIME_SYNC_FILE));
    let touched = std::fs::metadata(file).and_then(|file| file.modified()).ok();
    let (wall, up) = together();
    let wall_at_boot = wall.0.saturating_sub(i64::try_from(up.as_millis()).unwrap_or(i64::MAX));
    let trust = state.trust.get_or_insert_with(|| Trust::begin(wall_at_boot, up, touched));
    let quality = trust.judge(wall_at_boot, up, touched);
    let steady = up.saturating_sub(trust.steady_since);
    Reading { wall, quality, wall_at_boot: UtcMillis(wall_at_boot), steady }
}

/// Both clocks at one moment: a process that was stopped in between reads again.
fn together() -> (UtcMillis, Duration) {
    let mut before = since_boot();
    let mut tries = 0;
    loop {
        let (wall, after) = (UtcMillis::now(), since_boot());
        tries += 1;
        if after.saturating_sub(before) < TOGETHER || tries == 5 {
            return (wall, after);
        }
        before = after;
    }
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_believed_until_somebody_else_sets_it() {
        const DAY: i64 = 86_400_000;
        let touch = |n: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(n));
        let mut trust = Trust::begin(0, Duration::ZERO, None);
        // (what happens, wall at boot, touched, seconds since boot, believed, steady since)
        let story = [
            ("nobody sets it", 0, None, 2, false, 0),
            ("set by hand", 5 * DAY, None, 4, false, 4),
            ("the service steps it, its word is not there yet", 9 * DAY, None, 6, false, 6),
            ("the service says so", 9 * DAY, touch(1), 8, true, 6),
            ("slewed", 9 * DAY + 400, touch(1), 10, true, 6),
            ("slewed further", 9 * DAY + 900, touch(1), 12, true, 6),
            ("the service again", 9 * DAY + 900, touch(2), 14, true, 6),
            ("set by hand", 3659 * DAY, touch(2), 16, false, 16),
            ("nothing new", 3659 * DAY, touch(2), 18, false, 16),
            ("the service has set it right", 9 * DAY, touch(3), 20, true, 20),
            ("the service steps it, its word follows", 8 * DAY, touch(3), 22, false, 22),
            ("its word", 8 * DAY, touch(4), 24, true, 22),
            ("the service is gone", 8 * DAY, None, 26, false, 22),
        ];
        for (what, wall_at_boot, touched, up, believed, steady_since) in story {
            let quality = trust.judge(wall_at_boot, Duration::from_secs(up), touched);
            assert_eq!(quality == TimeQuality::Synced, believed, "{what}");
            assert_eq!(trust.steady_since, Duration::from_secs(steady_since), "{what}");
        }
    }
}
