//! A purchase SAM on a thread of its own: PC/SC calls can hang inside a driver, and a till that
//! waits for the SAM holds up its reader no longer than our patience. What does not live here:
//! the SAM's slot (`slot`), its commands (`keys::psam`), and who asks it (`keys::till_purse`).

use std::sync::mpsc;
use std::time::Duration;

use super::threads::{self, Lease};
use crate::card::keys::purse::{Approval, Purchase};
use crate::card::keys::{KeyError, PurseKeys};

/// So long one answer of the SAM is waited for, its opening included. A reader has 4 s to tell
/// who a card is, and may have to ask the SAM meanwhile.
pub(super) const PATIENCE: Duration = Duration::from_millis(2500);

type Job = Box<dyn FnOnce(&mut dyn PurseKeys) + Send>;

/// A SAM that is asked across a thread. Dropping it ends the thread after its job.
#[derive(Debug)]
pub(super) struct SamThread {
    jobs: mpsc::SyncSender<Job>,
    lease: Lease,
    patience: Duration,
    terminal: [u8; 6],
}

impl SamThread {
    /// Opens the SAM on its thread.
    ///
    /// # Errors
    /// As `open`; [`KeyError::Sam`] when it takes too long, or too many threads hang already.
    pub(super) fn start(
        open: impl FnOnce() -> Result<Box<dyn PurseKeys>, KeyError> + Send + 'static,
        patience: Duration,
    ) -> Result<Self, KeyError> {
        let silent = KeyError::Sam { what: "its answer to reset", status: None };
        if threads::restart_wanted() {
            return Err(silent);
        }
        let (jobs, queue) = mpsc::sync_channel::<Job>(1);
        let (opened, opening) = mpsc::sync_channel(1);
        let run = move || {
            let mut sam = match open() {
                Ok(sam) => sam,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            if opened.send(Ok(sam.terminal())).is_ok() {
                queue.iter().for_each(|job| job(&mut *sam));
            }
        };
        let lease = threads::start("pcsc-sam", run).map_err(|error| {
            tracing::error!(%error, "no thread for the SAM");
            silent.clone()
        })?;
        let terminal = opening.recv_timeout(patience).unwrap_or_else(|_| {
            lease.abandon();
            Err(silent)
        })?;
        Ok(Self { jobs, lease, patience, terminal })
    }

    /// Asks the SAM. Whoever is told [`KeyError::Sam`] opens it anew: a thread that was given up
    /// ends when its call returns.
    fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        act: impl FnOnce(&mut dyn PurseKeys) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<T, KeyError> {
        let (said, answer) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |sam| {
            // Nobody waits for it any more when that fails.
            let _ = said.send(act(sam));
        });
        let given = self.jobs.try_send(job).map_err(|_| KeyError::Sam { what, status: None });
        given.and_then(|()| {
            answer.recv_timeout(self.patience).unwrap_or_else(|_| {
                self.lease.abandon();
                Err(KeyError::Sam { what, status: None })
            })
        })
    }
}

impl PurseKeys for SamThread {
    fn terminal(&self) -> [u8; 6] {
        self.terminal
    }

    fn approve(&mut self, purchase: &Purchase<'_>) -> Result<Approval, KeyError> {
        let Purchase { serial, opening, amount, moment, .. } = *purchase;
        let store = purchase.store.clone();
        self.ask("its approval", move |sam| {
            sam.approve(&Purchase { store: &store, serial, opening, amount, moment })
        })
    }

    fn confirm(&mut self, approval: &Approval, mac2: &[u8; 4]) -> Result<bool, KeyError> {
        let (approval, mac2) = (approval.clone(), *mac2);
        self.ask("its confirmation", move |sam| sam.confirm(&approval, &mac2))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use super::*;

    /// Opens at once; each confirmation waits for a word.
    #[derive(Debug)]
    struct Slow(Receiver<bool>);

    impl PurseKeys for Slow {
        fn terminal(&self) -> [u8; 6] {
            [7; 6]
        }

        fn approve(&mut self, _: &Purchase<'_>) -> Result<Approval, KeyError> {
            Ok(Approval { terminal_sequence: 1, mac1: [0; 4], session: None })
        }

        fn confirm(&mut self, _: &Approval, _: &[u8; 4]) -> Result<bool, KeyError> {
            Ok(self.0.recv().unwrap_or(false))
        }
    }

    fn slow() -> (Sender<bool>, impl FnOnce() -> Result<Box<dyn PurseKeys>, KeyError> + Send + 'static) {
        let (word, waits) = channel();
        (word, move || Ok(Box::new(Slow(waits)) as Box<dyn PurseKeys>))
    }

    #[test]
    fn a_sam_that_hangs_is_given_up_and_holds_nobody_up() {
        let _alone = threads::ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (word, open) = slow();
        let mut sam = SamThread::start(open, Duration::from_secs(20)).unwrap();
        assert_eq!(sam.terminal(), [7; 6]);
        let approval = Approval { terminal_sequence: 1, mac1: [0; 4], session: None };
        for right in [true, false] {
            word.send(right).unwrap();
            assert_eq!(sam.confirm(&approval, &[0; 4]), Ok(right));
        }
        sam.patience = Duration::from_millis(20);
        let asked = Instant::now();
        let silent = KeyError::Sam { what: "its confirmation", status: None };
        assert_eq!(sam.confirm(&approval, &[0; 4]), Err(silent));
        assert!(asked.elapsed() < Duration::from_secs(10));
        let lease = sam.lease.clone();
        drop(sam);
        assert!(!lease.has_ended());
        // The driver comes back: so does the thread.
        drop(word);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !lease.has_ended() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_opening_that_hangs_or_fails_is_told() {
        let _alone = threads::ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = threads::abandoned_threads();
        let (word, waits) = channel::<()>();
        let hangs = move || {
            assert!(waits.recv().is_err());
            Err(KeyError::NoTerminal)
        };
        let error = SamThread::start(hangs, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, KeyError::Sam { status: None, .. }), "{error}");
        drop(word);
        let deadline = Instant::now() + Duration::from_secs(20);
        while threads::abandoned_threads() > before {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        let error = SamThread::start(|| Err(KeyError::NoTerminal), Duration::from_secs(20)).unwrap_err();
        assert_eq!(error, KeyError::NoTerminal);
    }
}
