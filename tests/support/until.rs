//! Waiting for a condition, not for a time: asked again and again, with a deadline.
#![allow(dead_code, clippy::panic)] // each test file uses its part

use std::time::{Duration, Instant};

pub const LONG: Duration = Duration::from_secs(60);

/// Until the probe finds something.
pub async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(LONG, what, probe).await
}

/// Likewise, for what takes its time.
pub async fn until_within<T>(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let often = Duration::from_millis(10);
    until_ok(limit, often, async || probe().await.ok_or(what)).await
}

/// Likewise, where the probe costs something, and knows what is missing: its last word is shown.
pub async fn until_ok<T, E: std::fmt::Display>(
    limit: Duration,
    often: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(found) => return found,
            Err(missing) => assert!(start.elapsed() < limit, "waited {limit:?} in vain: {missing}"),
        }
        tokio::time::sleep(often).await;
    }
}
