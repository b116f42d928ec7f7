//! What systemd is told: ready, reloading, stopping, and the watchdog. The
//! watchdog is fed by the loops' heartbeats, not by delivery: a dead broker is
//! no reason to restart.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// A loop that has not turned for this long stops the watchdog's food.
const STUCK_AFTER: Duration = Duration::from_secs(20);

/// How long systemd waits for a salvage's next word, instead of its `TimeoutStartSec=`, by default
/// 90 s (systemd.service(5)): killed by it, the salvage would begin again for ever. Some
/// steps have no rows to tell (SQLite's check of a table, a sync of the whole file): minutes on
/// a slow card.
const NEXT_WORD: Duration = Duration::from_secs(600);

/// Tells systemd; without systemd this does nothing.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// A start goes on, `rows` into the salvage of a damaged database.
pub fn salvaging(rows: u64) {
    let wait = NotifyState::ExtendTimeoutUsec(u32::try_from(NEXT_WORD.as_micros()).unwrap_or(u32::MAX));
    tell(&[wait, NotifyState::Status(&format!("salvaging a damaged database: {rows} rows read"))]);
}

/// Feeds the watchdog until `stop`, while all loops turn.
pub async fn feed_watchdog(health: Health, stop: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let every = limit / 3;
    loop {
        let stuck = health.stuck(STUCK_AFTER);
        if stuck.is_empty() {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(loops = ?stuck, "loops do not turn; the watchdog is not fed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}
