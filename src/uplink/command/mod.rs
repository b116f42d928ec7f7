//! Commands of headquarters: reading them and deciding about them, without I/O.
//! What does not live here: their rows and results in the log (`desk`), and the
//! packet's acknowledgement (`driver`), which follows the commit.

mod hotlist;
mod table;

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::{TimeQuality, UtcMillis};

pub use table::{Begin, CONFIG_PUT, HANDLERS, Handler, handler};

/// A command as it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Its id: acts at most once.
    pub id: Uuid,
    /// The last part of its topic.
    pub name: String,
    /// After this it must not act. Absent: never expires.
    pub expires_at: Option<UtcMillis>,
    /// Its arguments.
    pub args: Value,
}

/// A command's JSON. Unknown fields are taken.
#[derive(Deserialize)]
struct Wire {
    id: Uuid,
    #[serde(default)]
    expires_at: Option<UtcMillis>,
    #[serde(default)]
    args: Value,
}

/// The payload is not a command: it cannot even be answered.
#[derive(Debug, thiserror::Error)]
#[error(
    "a command's payload is not what it must be ({reason}); headquarters must send {{\"id\":UUID,\"expires_at\":…,\"args\":{{…}}}}"
)]
pub struct Malformed {
    reason: String,
}

/// What becomes of a command.
#[derive(Debug, Clone, Copy)]
pub enum Decision {
    /// It runs.
    Run(&'static Handler),
    /// It does not, for this reason.
    Refuse(Refusal),
    /// It came too late.
    Expire,
}

/// Why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such command in this version.
    Unknown,
    /// Its expiry cannot be judged: this box's clock is not set.
    ClockUnsynced,
    /// The same id came with other arguments.
    SameIdOtherArgs,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown command",
            Self::ClockUnsynced => "clock not synchronised: only read-only commands run",
            Self::SameIdOtherArgs => "same id with other arguments",
        })
    }
}

impl Order {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(name: &str, payload: &[u8]) -> Result<Self, Malformed> {
        let wire: Wire =
            serde_json::from_slice(payload).map_err(|error| Malformed { reason: error.to_string() })?;
        Ok(Self { id: wire.id, name: name.to_owned(), expires_at: wire.expires_at, args: wire.args })
    }

    /// Tells a repetition from another command with the same id: SHA-256 of name
    /// and arguments, members in alphabetical order.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut args = self.args.clone();
        args.sort_all_objects();
        Sha256::new()
            .chain_update(&self.name)
            .chain_update([0])
            .chain_update(args.to_string())
            .finalize()
            .into()
    }

    /// Decides at `now`. Without a synchronised clock nothing expires and only
    /// read-only commands run.
    #[must_use]
    pub fn decide(&self, now: UtcMillis, quality: TimeQuality) -> Decision {
        match handler(&self.name) {
            Some(handler) => self.decide_for(handler, now, quality),
            None => Decision::Refuse(Refusal::Unknown),
        }
    }

    fn decide_for(&self, handler: &'static Handler, now: UtcMillis, quality: TimeQuality) -> Decision {
        match quality {
            TimeQuality::Synced if self.expires_at.is_some_and(|at| at <= now) => Decision::Expire,
            TimeQuality::Unsynced if !handler.read_only => Decision::Refuse(Refusal::ClockUnsynced),
            _ => Decision::Run(handler),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0192f1d0-0000-7000-8000-000000000001";

    fn order(name: &str, rest: &str) -> Order {
        Order::parse(name, format!(r#"{{"id":"{ID}"{rest}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn decisions() {
        let now = UtcMillis(1_000_000);
        let late = r#","expires_at":"1970-01-01T00:16:39.000Z""#;
        // (name, command, rest, quality, expected)
        for (case, name, rest, quality, expected) in [
            ("runs", "ping", "", TimeQuality::Synced, "run"),
            ("late", "ping", late, TimeQuality::Synced, "expire"),
            ("late by a clock nobody trusts", "ping", late, TimeQuality::Unsynced, "run"),
            ("unknown", "self.destruct", "", TimeQuality::Synced, "refuse"),
        ] {
            let got = match order(name, rest).decide(now, quality) {
                Decision::Run(_) => "run",
                Decision::Refuse(_) => "refuse",
                Decision::Expire => "expire",
            };
            assert_eq!(got, expected, "{case}");
        }
    }

    #[test]
    fn what_changes_something_waits_for_the_time() {
        static WRITES: Handler =
            Handler { name: "config.put", read_only: false, begin: |_| Err("not in this test".into()) };
        let command = order("config.put", r#","expires_at":"2026-11-22T00:00:00.000Z""#);
        let before = UtcMillis::parse("2026-11-21T00:00:00.000Z").unwrap();
        let after = UtcMillis::parse("2026-11-23T00:00:00.000Z").unwrap();
        for now in [UtcMillis(0), before, after] {
            let decision = command.decide_for(&WRITES, now, TimeQuality::Unsynced);
            assert!(matches!(decision, Decision::Refuse(Refusal::ClockUnsynced)), "{now}: {decision:?}");
        }
        assert!(matches!(command.decide_for(&WRITES, before, TimeQuality::Synced), Decision::Run(_)));
        assert!(matches!(command.decide_for(&WRITES, after, TimeQuality::Synced), Decision::Expire));
    }

    #[test]
    fn the_digest_knows_repetition_from_forgery() {
        let one = order("vehicle.scan", r#","args":{"link":"bay-1","a":1}"#);
        let same = order("vehicle.scan", r#","args":{"a":1,"link":"bay-1"},"future":true"#);
        let other = order("vehicle.scan", r#","args":{"link":"bay-2","a":1}"#);
        assert_eq!(one.digest(), same.digest());
        assert_ne!(one.digest(), other.digest());
    }

    #[test]
    fn garbage_is_malformed() {
        for payload in ["", "{", "[]", r#"{"id":"x"}"#, r#"{"args":{}}"#, r#"{"id":null}"#] {
            assert!(Order::parse("ping", payload.as_bytes()).is_err(), "{payload}");
        }
    }
}
