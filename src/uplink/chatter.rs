//! How much the uplink may say in the log, whatever the other side does. Pure:
//! the caller brings the time.
//!
//! Lines come in kinds, each a name in the source. Of each kind a few may come
//! at once, then one in ten minutes, which says how many were left out: at most
//! [`BURST`] + 6 lines of a kind in an hour, so the whole is bounded by
//! construction. What is left out is still counted in the metrics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Lines of one kind at once.
const BURST: u32 = 5;
/// One more line of a kind after this.
const EVERY: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Kind {
    left: u32,
    /// When the next line may come, while none is left.
    more_at: Instant,
    left_out: u64,
}

/// What was said lately.
#[derive(Debug, Default)]
pub(super) struct Chatter {
    kinds: BTreeMap<&'static str, Kind>,
}

impl Chatter {
    /// Whether a line of this kind may be said now; with how many were left out before it.
    pub(super) fn may(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        let kind = self.kinds.entry(kind).or_insert(Kind { left: BURST, more_at: now + EVERY, left_out: 0 });
        while kind.more_at <= now {
            if kind.left >= BURST {
                kind.more_at = now + EVERY;
                break;
            }
            kind.left += 1;
            kind.more_at += EVERY;
        }
        if kind.left == 0 {
            kind.left_out = kind.left_out.saturating_add(1);
            return None;
        }
        kind.left -= 1;
        Some(std::mem::take(&mut kind.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines in an hour when one is wanted every `pace`, and how many the lines say were left out.
    fn an_hour(pace: Duration) -> (u64, u64) {
        let (start, mut chatter) = (Instant::now(), Chatter::default());
        let (mut now, mut lines, mut left_out) = (start, 0, 0);
        while now < start + Duration::from_secs(3600) {
            if let Some(before) = chatter.may("a kind", now) {
                (lines, left_out) = (lines + 1, left_out + before);
            }
            now += pace;
        }
        (lines, left_out)
    }

    #[test]
    fn an_hour_has_few_lines_however_often_something_is_to_be_said() {
        for pace in [10, 100, 1_000, 30_000, 59_000] {
            let (lines, left_out) = an_hour(Duration::from_millis(pace));
            assert!((6..=11).contains(&lines), "every {pace} ms: {lines} lines");
            assert!(left_out > 0, "every {pace} ms: what is left out is counted");
        }
        assert_eq!(an_hour(Duration::from_secs(601)), (6, 0), "what is rare is all said");
    }

    #[test]
    fn kinds_do_not_silence_each_other() {
        let (now, mut chatter) = (Instant::now(), Chatter::default());
        for _ in 0..100 {
            chatter.may("loud", now);
        }
        assert_eq!(chatter.may("loud", now), None);
        assert_eq!(chatter.may("other", now), Some(0));
        assert_eq!(chatter.may("loud", now + EVERY), Some(96));
    }
}
