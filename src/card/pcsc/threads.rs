//! Threads that may never return. A PC/SC call can hang inside a driver where
//! nothing can interrupt it; such a thread is abandoned and counted (architecture,
//! invariant 7). When it does come back it ends, and the count falls.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;

/// So many hung threads, and the process should be replaced by a fresh one.
pub const MAX_ABANDONED_THREADS: usize = 8;

static ABANDONED: AtomicUsize = AtomicUsize::new(0);

const RUNNING: u8 = 0;
const GIVEN_UP: u8 = 1;
const ENDED: u8 = 2;

/// How many PC/SC threads of this process hang in a call now.
#[must_use]
pub fn abandoned_threads() -> usize {
    ABANDONED.load(Ordering::Relaxed)
}

/// Whether so many threads hang that the daemon should restart itself as soon as
/// no card write runs.
#[must_use]
pub fn restart_wanted() -> bool {
    abandoned_threads() >= MAX_ABANDONED_THREADS
}

/// A thread's owner keeps this. Dropping it does nothing to the thread.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    state: Arc<AtomicU8>,
}

/// Lives on the thread; its drop says that the thread returned, even by a panic.
struct Presence {
    state: Arc<AtomicU8>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.state.swap(ENDED, Ordering::AcqRel) == GIVEN_UP {
            let before = ABANDONED.fetch_sub(1, Ordering::Relaxed);
            metrics::gauge!("baygate_pcsc_abandoned_threads").set(as_gauge(before.saturating_sub(1)));
        }
    }
}

impl Lease {
    /// Whether the thread has returned.
    pub(super) fn has_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == ENDED
    }

    /// Gives the thread up, unless it has ended. Counted once.
    pub(super) fn abandon(&self) {
        let given_up =
            self.state.compare_exchange(RUNNING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if given_up {
            let before = ABANDONED.fetch_add(1, Ordering::Relaxed);
            metrics::gauge!("baygate_pcsc_abandoned_threads").set(as_gauge(before + 1));
            tracing::warn!(abandoned = before + 1, limit = MAX_ABANDONED_THREADS, "pcsc thread abandoned");
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn as_gauge(count: usize) -> f64 {
    count as f64
}

/// Starts a named thread that can be abandoned.
pub(super) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Lease> {
    let state = Arc::new(AtomicU8::new(RUNNING));
    let presence = Presence { state: Arc::clone(&state) };
    // The kernel keeps 15 bytes of a thread's name.
    let name: String = name.chars().filter(char::is_ascii_graphic).take(15).collect();
    thread::Builder::new().name(name).spawn(move || {
        let _presence = presence;
        run();
    })?;
    Ok(Lease { state })
}

/// For tests that abandon threads: they are counted in one place.
#[cfg(test)]
pub(super) static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    #[test]
    fn a_hung_thread_is_counted_until_it_returns() {
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (hold, held) = mpsc::channel::<()>();
        let lease = start("pcsc-test", move || assert!(held.recv().is_err())).unwrap();
        let before = abandoned_threads();
        lease.abandon();
        lease.abandon();
        assert_eq!(abandoned_threads(), before + 1);
        drop(hold);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !lease.has_ended() || abandoned_threads() != before {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        lease.abandon();
        assert_eq!(abandoned_threads(), before, "an ended thread cannot be abandoned");
    }
}
