//! Between a silence and the next question nothing of ours may be on the bus: no frame that nobody
//! acknowledged, which a controller repeats until the next car takes it, and no acknowledgement or
//! error flag at a rate that is not the next car's. What lives here: when the controller only
//! listens, and what it hears of the rate meanwhile. What does not: the way there
//! ([`super::join`]).
//!
//! | | rests | which empties it |
//! |---|---|---|
//! | slcan | `C`, then `L` | by leaving the bus |
//! | the kernel, `bitrate=` in the link | in listen-only mode, by the helper; a driver without that mode is set up as it was | by going down |
//! | the kernel, else | cannot: the operator's interface is left as it is | |

use tokio::time::{Instant, timeout_at};

use super::Node;
use super::join::{FirstSound, LISTEN, RATES};
use crate::vehicle::can::bus::{Bus, Join};
use crate::vehicle::error::AdapterError;
use crate::vehicle::polling::Traffic;

impl Node {
    /// Only listens until the next question.
    ///
    /// # Errors
    /// [`AdapterError`] when the bus is no longer usable.
    pub async fn rest(&mut self) -> Result<(), AdapterError> {
        if self.rests_since.is_some() {
            return Ok(());
        }
        match &self.bus {
            Bus::Slcan(_) => {
                self.join(Join::Hear).await?;
                // What it remembers of the question is told now, and gone.
                self.flagged().await?;
                self.rests_since = Some(Instant::now());
            }
            Bus::Kernel(_) => self.rest_interface().await?,
        }
        self.tally.begin_question();
        Ok(())
    }

    /// Where units talk, or are known to answer, the question was acknowledged: nothing waits, and the
    /// interface is not taken from under others.
    async fn rest_interface(&mut self) -> Result<(), AdapterError> {
        let acknowledged = self.width.is_some() || self.tally.traffic(self.begun.elapsed()) == Traffic::Alive;
        let Some(rate) = self.bitrate.filter(|_| self.helped && !acknowledged) else { return Ok(()) };
        match self.set_up(rate, true).await {
            Ok(()) => {
                self.rests_since = Some(Instant::now());
                // Whatever frame comes proves the rate.
                self.bus.pass(&[]);
            }
            Err(AdapterError::Interface(error)) if error.cannot_listen() => self.set_up(rate, false).await?,
            Err(error) => {
                tracing::warn!(bus = self.name, %error, "a question may stay in the controller until somebody acknowledges it");
            }
        }
        Ok(())
    }

    /// Before a question: joins the bus to send, once the rate is not known to be wrong.
    pub(super) async fn rise(&mut self) -> Result<(), AdapterError> {
        let Some(since) = self.rests_since else { return Ok(()) };
        while Instant::now() < since + LISTEN
            && let Ok(heard) = timeout_at(since + LISTEN, self.bus.hear()).await
        {
            self.count(heard?)?;
        }
        self.flagged().await?;
        // Heard once more: a plug that was pulled or put in makes errors, too.
        if self.tally.is_flagged() && self.listen(LISTEN).await? == FirstSound::Nonsense {
            self.change_rate().await?;
        }
        match (&self.bus, self.bitrate) {
            (Bus::Kernel(_), Some(rate)) => self.set_up(rate, false).await?,
            _ => self.join(Join::Ask).await?,
        }
        self.rests_since = None;
        Ok(())
    }

    /// While an slcan adapter rests: the car at hand is at another rate, and is heard at it without a
    /// byte being sent.
    pub(super) async fn follow_rate(&mut self) -> Result<(), AdapterError> {
        if self.rests_since.is_none() || !self.tally.is_nonsense() {
            return Ok(());
        }
        tracing::debug!(bus = self.name, bitrate = self.bitrate.unwrap_or(RATES[0]), "not this bus's rate");
        self.change_rate().await
    }

    /// The car is another one, at another rate.
    async fn change_rate(&mut self) -> Result<(), AdapterError> {
        self.leave().await;
        self.forget();
        self.other_rate()?;
        self.settle_rate().await
    }
}
