//! Time that is doubted. Durations come from the monotonic clock
//! ([`std::time::Instant`]); wall time is carried as UTC milliseconds together
//! with its quality (`trust`). What does not live here: the watcher that tells of a
//! clock being set (that is the gateway's, it commits `gateway.clock`).

mod trust;

use std::fmt;
use std::sync::OnceLock;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use trust::{Reading, STEP_MS, TIME_SYNC_FILE, read, trust};

/// How far a wall-clock reading can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeQuality {
    /// A time service has set the clock, and nobody else since.
    Synced,
    /// Best guess only.
    Unsynced,
}

impl TimeQuality {
    /// The name in an envelope.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Unsynced => "unsynced",
        }
    }
}

/// Milliseconds since 1970-01-01 UTC. Prints and serialises as RFC 3339 with
/// milliseconds, as the contract asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcMillis(pub i64);

impl UtcMillis {
    /// Now, by the wall clock.
    #[must_use]
    pub fn now() -> Self {
        Self(Timestamp::now().as_millisecond())
    }

    /// Reads an RFC 3339 time.
    ///
    /// # Errors
    /// [`jiff::Error`] saying what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, jiff::Error> {
        text.parse::<Timestamp>().map(|t| Self(t.as_millisecond()))
    }
}

impl fmt::Display for UtcMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "1970-01-01T00:00:00.000Z"),
        }
    }
}

impl Serialize for UtcMillis {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UtcMillis {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for UtcMillis {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "UtcMillis".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

/// How far the wall clock is trusted now.
#[must_use]
pub fn quality() -> TimeQuality {
    read().quality
}

/// This boot's identity (`/proc/sys/kernel/random/boot_id`), a random one where the kernel gives none.
#[must_use]
pub fn boot_id() -> uuid::Uuid {
    static BOOT: OnceLock<uuid::Uuid> = OnceLock::new();
    *BOOT.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or_else(uuid::Uuid::new_v4)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_and_print_with_milliseconds() {
        for text in ["2026-11-21T08:15:30.123Z", "1970-01-01T00:00:00.000Z", "2026-11-21T08:15:30.000Z"] {
            assert_eq!(UtcMillis::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            UtcMillis::parse("2026-11-21T16:15:30.123+08:00").unwrap().to_string(),
            "2026-11-21T08:15:30.123Z"
        );
    }
}
