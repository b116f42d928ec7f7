//! Leases of readers: while a till works with a card, no other till's work goes to the same
//! reader. In memory and short: freed when the till does not renew it, and by a restart.
//! Events of the reader are everybody's all the same.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ident::DeviceId;

/// Who has a reader, for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// A token's id, or `control`.
    pub holder: String,
    /// The till it speaks for.
    pub till: Option<String>,
    until: Instant,
}

impl Lease {
    /// How long it still holds.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}

/// All leases. There are never more than readers.
#[derive(Debug, Default)]
pub struct Leases(Mutex<HashMap<DeviceId, Lease>>);

impl Leases {
    fn with<T>(&self, now: Instant, change: impl FnOnce(&mut HashMap<DeviceId, Lease>) -> T) -> T {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|_, lease| now < lease.until);
        change(&mut leases)
    }

    /// Takes or renews one.
    ///
    /// # Errors
    /// The lease that another has.
    pub fn take(
        &self,
        reader: &DeviceId,
        holder: &str,
        till: Option<&str>,
        length: Duration,
        now: Instant,
    ) -> Result<(), Lease> {
        self.with(now, |leases| match leases.get(reader) {
            Some(other) if other.holder != holder => Err(other.clone()),
            _ => {
                let till = till.map(str::to_owned);
                leases.insert(reader.clone(), Lease { holder: holder.to_owned(), till, until: now + length });
                Ok(())
            }
        })
    }

    /// Gives one back; whether there was one.
    ///
    /// # Errors
    /// The lease that another has.
    pub fn give_back(&self, reader: &DeviceId, holder: &str, now: Instant) -> Result<bool, Lease> {
        self.with(now, |leases| match leases.get(reader) {
            Some(other) if other.holder != holder => Err(other.clone()),
            _ => Ok(leases.remove(reader).is_some()),
        })
    }

    /// Who has a reader.
    #[must_use]
    pub fn of(&self, reader: &DeviceId, now: Instant) -> Option<Lease> {
        self.with(now, |leases| leases.get(reader).cloned())
    }

    /// Gives back what a token had that was taken back.
    pub fn give_back_all(&self, holder: &str, now: Instant) {
        self.with(now, |leases| leases.retain(|_, lease| lease.holder != holder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn one_till_at_a_time_until_it_lets_go_or_forgets() {
        let (leases, now) = (Leases::default(), Instant::now());
        let reader: DeviceId = "counter-1".parse().unwrap();
        let take = |holder: &str, at| leases.take(&reader, holder, Some("till"), MINUTE, at);
        take("a", now).unwrap();
        assert_eq!(take("b", now).unwrap_err().holder, "a");
        take("a", now + MINUTE / 2).unwrap();
        assert_eq!(take("b", now + MINUTE).unwrap_err().left(now + MINUTE), MINUTE / 2);
        take("b", now + MINUTE * 3 / 2).unwrap();
        let late = now + MINUTE * 3 / 2;
        assert!(leases.give_back(&reader, "a", late).is_err());
        assert_eq!(leases.give_back(&reader, "b", late), Ok(true));
        assert_eq!(leases.give_back(&reader, "b", late), Ok(false));
        take("a", late).unwrap();
        leases.give_back_all("a", late);
        assert_eq!(leases.of(&reader, late), None);
    }
}
