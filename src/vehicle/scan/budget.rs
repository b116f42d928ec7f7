//! How long a scan may go on asking for what is worth least.

use std::time::Duration;

/// Times of a scan. J1979 is asked whole, however long it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Since the scan began; so late no question of UDS begins any more.
    pub whole: Duration,
    /// The same, since the first question of UDS.
    pub uds: Duration,
}

impl Default for Budget {
    /// A full scan on a good adapter takes less: what J1979 leaves of it is UDS's.
    fn default() -> Self {
        Self { whole: Duration::from_secs(10), uds: Duration::from_secs(4) }
    }
}
