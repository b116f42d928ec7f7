//! How much may be under way at once. What lives here: the publishes in
//! flight, the line's measured rate, and the byte limit that follows from it.
//! What does not: which event goes next (`session`).
//!
//! Everything not yet acknowledged stands in front of the next urgent event: in
//! the client, in the kernel's buffer, in the modem. So the limit is what the
//! line carries in [`QUEUE`] beyond its own round trip (the idea of BBR, RFC
//! draft-cardwell-iccrg-bbr: rate × delay), never more than the configured bytes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::event::Class;

/// One publish, within one connection.
pub type Token = u64;

/// What may queue in front of an urgent event, as time on the line.
const QUEUE: Duration = Duration::from_millis(400);
/// The limit before anything was measured, in bytes: a quarter second at 256 kbit/s.
const FIRST_LIMIT: u64 = 8 * 1024;
/// How long the best measured rate counts.
const RATE_MEMORY: Duration = Duration::from_secs(5);
/// Samples kept, at most.
const SAMPLES: usize = 256;

/// A publish without its PUBACK.
#[derive(Debug, Clone, Copy, Hash)]
struct Flying {
    class: Class,
    bytes: u64,
    sent_at: Instant,
    delivered_before: u64,
    /// What may have been through already of the packet that was on the line when
    /// this one was sent: it does not count.
    half_through: u64,
}

/// The publishes in flight and what they tell of the line.
#[derive(Debug, Clone, Hash)]
pub struct Flow {
    max_count: usize,
    max_bytes: u64,
    /// By token, which is the order they went out in.
    flying: BTreeMap<Token, Flying>,
    /// Bytes in flight, by class.
    bytes: [u64; Class::ALL.len()],
    delivered: u64,
    /// Measured rates, each higher than all after it: the first is the best that counts.
    samples: VecDeque<(Instant, u64)>,
    /// The quickest answer, and the size of its packet.
    quickest: Option<(Duration, u64)>,
}

impl Flow {
    /// For a new connection: `max_count` publishes, `max_bytes` bytes.
    #[must_use]
    pub fn new(max_count: usize, max_bytes: u64) -> Self {
        Self {
            max_count: max_count.max(1),
            max_bytes,
            flying: BTreeMap::new(),
            bytes: [0; Class::ALL.len()],
            delivered: 0,
            samples: VecDeque::new(),
            quickest: None,
        }
    }

    /// Whether a packet of `class` and `bytes` may go now. Bytes of lower
    /// classes do not count against a higher one, so that it never waits for
    /// their acknowledgements. A packet over the limit goes when it is alone.
    #[must_use]
    pub fn admits(&self, class: Class, bytes: u64) -> bool {
        if self.flying.len() >= self.max_count {
            return false;
        }
        let total: u64 = self.bytes.iter().sum();
        let rivals: u64 = self.bytes.iter().take(class as usize + 1).sum();
        let within = |used: u64, limit: u64| used == 0 || used.saturating_add(bytes) <= limit;
        within(rivals, self.limit_bytes()) && within(total, self.max_bytes)
    }

    /// A publish went out.
    pub fn sent(&mut self, token: Token, class: Class, bytes: u64, now: Instant) {
        let delivered_before = self.delivered;
        let half_through = self.first().map_or(0, |flying| {
            let passed = now.saturating_duration_since(flying.sent_at).as_micros();
            let most = u128::from(self.rate().unwrap_or(0)) * passed / 1_000_000;
            flying.bytes.min(u64::try_from(most).unwrap_or(u64::MAX))
        });
        self.count(class, |of| of.saturating_add(bytes));
        self.flying.insert(token, Flying { class, bytes, sent_at: now, delivered_before, half_through });
    }

    /// Its PUBACK came. False for a token this connection does not know.
    pub fn acknowledged(&mut self, token: Token, now: Instant) -> bool {
        let Some(flying) = self.flying.remove(&token) else { return false };
        let took = now.saturating_duration_since(flying.sent_at).max(Duration::from_micros(100));
        self.count(flying.class, |of| of.saturating_sub(flying.bytes));
        self.delivered += flying.bytes;
        let bytes =
            u128::from((self.delivered - flying.delivered_before).saturating_sub(flying.half_through));
        let rate = u64::try_from(bytes * 1_000_000 / took.as_micros()).unwrap_or(u64::MAX);
        if self.quickest.is_none_or(|(quickest, _)| took < quickest) {
            self.quickest = Some((took, flying.bytes));
        }
        while self.samples.back().is_some_and(|(_, earlier)| *earlier <= rate) {
            self.samples.pop_back();
        }
        self.samples.push_back((now, rate));
        while self.samples.len() > SAMPLES
            || self.samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RATE_MEMORY)
        {
            self.samples.pop_front();
        }
        true
    }

    /// The line's rate as measured, in bytes a second.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.samples.front().map(|(_, rate)| *rate)
    }

    /// Bytes that may be in flight now.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        let (Some(rate), Some((took, bytes))) = (self.rate(), self.quickest) else {
            return FIRST_LIMIT.min(self.max_bytes);
        };
        // The quickest answer, less its packet's own time on the line, is the distance;
        // beyond half a second it is queueing.
        let own = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1));
        let time = QUEUE + took.saturating_sub(own).min(Duration::from_millis(500));
        let limit = u128::from(rate) * time.as_micros() / 1_000_000;
        u64::try_from(limit).unwrap_or(u64::MAX).clamp(1, self.max_bytes)
    }

    /// Publishes without PUBACK.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// How many there may be.
    #[must_use]
    pub fn max_count(&self) -> usize {
        self.max_count
    }

    /// When the oldest publish without PUBACK went out.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.first().map(|flying| flying.sent_at)
    }

    fn first(&self) -> Option<&Flying> {
        self.flying.first_key_value().map(|(_, flying)| flying)
    }

    fn count(&mut self, class: Class, change: impl FnOnce(u64) -> u64) {
        if let Some(bytes) = self.bytes.get_mut(class as usize) {
            *bytes = change(*bytes);
        }
    }

    /// What the bytes in flight need on the line as measured, generously
    /// (four times; 1 kB/s while nothing was measured).
    #[must_use]
    pub fn drain_time(&self) -> Duration {
        let bytes: u64 = self.bytes.iter().sum();
        Duration::from_millis(bytes.saturating_mul(4000) / self.rate().unwrap_or(4000).max(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of `rate` bytes a second and `trip` round trip, always kept full with `size`-byte packets.
    fn fill(rate: u64, trip: Duration, size: u64, seconds: u64) -> Flow {
        let start = Instant::now();
        let mut flow = Flow::new(64, 128 * 1024);
        let (mut line_free, mut due) = (start, VecDeque::new());
        let (mut now, mut token) = (start, 0);
        while now < start + Duration::from_secs(seconds) {
            while flow.admits(Class::Telemetry, size) {
                flow.sent(token, Class::Telemetry, size, now);
                line_free = line_free.max(now) + Duration::from_micros(size * 1_000_000 / rate);
                due.push_back((token, line_free + trip));
                token += 1;
            }
            let (token, at) = due.pop_front().unwrap();
            now = at;
            flow.acknowledged(token, now);
        }
        flow
    }

    #[test]
    fn the_limit_follows_the_line() {
        // (name, bytes a second, round trip ms, packet, least, most)
        let table = [
            ("256 kbit/s, near", 32_000, 20, 2_000, 8_000, 16_000),
            ("256 kbit/s, far", 32_000, 300, 2_000, 12_000, 30_000),
            ("fast", 100_000_000, 1, 2_000, 128 * 1024, 128 * 1024),
            ("satellite", 500_000, 600, 1_000, 60_000, 128 * 1024),
        ];
        for (name, rate, trip, size, least, most) in table {
            let seconds = if rate > 1_000_000 { 1 } else { 20 };
            let flow = fill(rate, Duration::from_millis(trip), size, seconds);
            let limit = flow.limit_bytes();
            assert!((least..=most).contains(&limit), "{name}: {limit}");
        }
    }

    #[test]
    fn a_higher_class_does_not_wait_for_a_lower_one() {
        let now = Instant::now();
        let mut flow = Flow::new(64, 128 * 1024);
        flow.sent(1, Class::Telemetry, 60_000, now);
        assert!(!flow.admits(Class::Telemetry, 100), "the line is full for its own class");
        assert!(flow.admits(Class::Ledger, 60_000));
        flow.sent(2, Class::Ledger, 60_000, now);
        assert!(!flow.admits(Class::Card, 10_000), "ledger counts against card");
        assert!(flow.acknowledged(1, now) && !flow.acknowledged(1, now));
    }

    #[test]
    fn an_oversize_packet_goes_alone() {
        let now = Instant::now();
        let mut flow = Flow::new(64, 1_000);
        assert!(flow.admits(Class::Card, 5_000));
        flow.sent(1, Class::Card, 5_000, now);
        assert!(!flow.admits(Class::Card, 1));
    }
}
