//! What systemd is told: ready, reloading, stopping, and the watchdog. The
//! watchdog is fed by the loops' heartbeats, not by delivery: a dead broker is
//! no reason to restart.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// A loop that has not turned for this long stops the watchdog's food.
const STUCK_AFTER: Duration = Duration::from_secs(20);

/// Tells systemd; without systemd this does nothing.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
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
