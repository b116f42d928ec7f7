//! Errands to the driver of one reader, and between them what its lights say. What lives here:
//! that neither disturbs the other. A sign is given off at once and nobody waits for it; the next
//! errand waits for its end, which is short, so that it never falls between the commands of a
//! conversation. What does not: what the lights mean to a reader (`feedback`).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::card::feedback::{Sign, Signing};
use crate::card::medium::{PrepareOutcome, WriteOutcome};
use crate::card::work::{Errand, Work, WorkStep, Worked};
use crate::config::tables::Feedback;

/// The longest conversation with a card: preparing one takes a second or two at 106 kbit/s.
const ERRAND_LIMIT: Duration = Duration::from_secs(8);
/// The longest sign sounds 0.4 s.
const SIGN_LIMIT: Duration = Duration::from_secs(2);

/// The way to one reader's driver.
pub(crate) struct Signs {
    setting: Feedback,
    errands: mpsc::Sender<Errand>,
    /// The end of the sign that runs.
    running: Mutex<Option<oneshot::Receiver<Worked>>>,
}

impl Signs {
    pub(crate) fn new(setting: Feedback, errands: mpsc::Sender<Errand>) -> Self {
        Self { setting, errands, running: Mutex::new(None) }
    }

    /// Lets the reader show it, where it can. A sign that comes while another runs is left out.
    pub(super) fn show(&self, slot: &str, sign: Sign) {
        let Some(signing) = Signing::of(self.setting, slot, sign) else { return };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running
            .as_mut()
            .is_some_and(|end| matches!(end.try_recv(), Err(oneshot::error::TryRecvError::Empty)))
        {
            return;
        }
        let (done, end) = oneshot::channel();
        let errand = Errand { slot: slot.to_owned(), step: Work::sign(signing), done };
        *running = self.errands.try_send(errand).is_ok().then_some(end);
    }

    /// A conversation with the card, by the driver.
    pub(super) async fn errand(&self, slot: &str, step: WorkStep) -> Option<Worked> {
        let writes = step.writes();
        self.sign_ended().await;
        if writes {
            self.show(slot, Sign::HoldStill);
            self.sign_ended().await;
        }
        let (done, end) = oneshot::channel();
        let errand = Errand { slot: slot.to_owned(), step, done };
        let worked = async {
            self.errands.send(errand).await.ok()?;
            end.await.ok()
        };
        let worked = timeout(ERRAND_LIMIT, worked).await.ok().flatten();
        match &worked {
            Some(Worked::Written(WriteOutcome::Written)) => self.show(slot, Sign::Accepted),
            // Reading it is the proof.
            Some(Worked::Prepared(PrepareOutcome::Prepared)) => {}
            _ if writes => self.show(slot, Sign::Refused),
            _ => {}
        }
        worked
    }

    async fn sign_ended(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(end) = running {
            // A reader that does not come back from it is the driver's affair.
            let _ = timeout(SIGN_LIMIT, end).await;
        }
    }
}
