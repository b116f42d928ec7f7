//! What a reader driver reports to the service. The drivers (`pcsc`, `vpcd`, `em4100`) know
//! bytes and cables; the service knows the log.

use std::time::Instant;

use tokio::sync::mpsc;

use super::verdict::{CardIdentity, Refusal};
use crate::event::Text;
use crate::event::device::DeviceStatus;

/// One report, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// A card is in the field of one of the table's readers.
    Tapped {
        /// Which of them (a PC/SC reader name; one fixed name for the others).
        slot: String,
        /// The card.
        card: CardIdentity,
        /// When the reader signalled it.
        seen: Instant,
    },
    /// The card told last for that slot is gone.
    Removed {
        /// Which.
        slot: String,
    },
    /// A card was presented that will not do.
    Refused(Refusal),
    /// No card is in any of the table's readers.
    AllEmpty,
    /// How the device is.
    State(Condition),
}

/// A device state with its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub status: DeviceStatus,
    /// Stable code; `None` when ready.
    pub reason: Option<&'static str>,
    /// For people: what is wrong and what to do.
    pub text: Option<Text>,
}

impl Condition {
    pub(super) fn plain(status: DeviceStatus) -> Self {
        Self { status, reason: None, text: None }
    }

    pub(super) fn because(status: DeviceStatus, reason: &'static str, zh: String, en: String) -> Self {
        Self { status, reason: Some(reason), text: Some(Text { zh, en }) }
    }
}

/// The service has stopped listening; the driver ends too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unheard;

/// Where a driver reports to. Waits when the log is slow: readers are then looked at later.
#[derive(Debug, Clone)]
pub(super) struct Reports(pub mpsc::Sender<Report>);

impl Reports {
    pub(super) async fn tell(&self, report: Report) -> Result<(), Unheard> {
        self.0.send(report).await.map_err(|_| Unheard)
    }
}
