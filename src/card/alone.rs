//! One card, read at a reader that no daemon has: the daemon's own driver, up to its first word of
//! a card. No errand is ever given to it, so nothing can be written, and no light shown. The log is
//! not asked: what the store knows beside the card (lost, stopped, held) is not part of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::CardError;
use super::member::Members;
use super::report::{Report, Reports};
use super::service::drive;
use super::verdict::{CardIdentity, Refusal};
use crate::config::tables::ReaderTable;
use crate::event::Text;
use crate::event::device::DeviceStatus;

/// What lies on a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A card that showed who it is.
    Card(Box<CardIdentity>),
    /// Something that will not do, and does not even show its number.
    Refused(Refusal),
    /// Nothing came while it was waited for.
    Nothing,
    /// The reader is not there or does not work: what is wrong and what to do.
    NoReader(Text),
}

/// Reads the card on a reader, or waits for one. Without `members` it is identified and no more.
///
/// # Errors
/// [`CardError`].
pub async fn read_one(
    table: ReaderTable,
    members: Option<Arc<Members>>,
    wait: Duration,
) -> Result<Found, CardError> {
    let (sender, mut reports) = mpsc::channel(64);
    // Nobody sends: a driver that lives on errands would end with its channel.
    let (_never, errands) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let driver = drive(table, members, Reports(sender), errands, stop.clone());
    let found = async {
        let found = timeout(wait, first(&mut reports)).await.unwrap_or(Found::Nothing);
        stop.cancel();
        // A driver that waits to be heard ends, too.
        drop(reports);
        found
    };
    let (driven, found) = tokio::join!(driver, found);
    driven.map(|()| found)
}

/// The first word of a card, or of a reader that cannot have one.
async fn first(reports: &mut mpsc::Receiver<Report>) -> Found {
    while let Some(report) = reports.recv().await {
        match report {
            Report::Tapped { card, .. } => return Found::Card(Box::new(card)),
            Report::Refused(refusal) if refusal.is_the_readers() => return Found::NoReader(refusal.text()),
            Report::Refused(refusal) => return Found::Refused(refusal),
            Report::State(condition) => {
                let gone = matches!(condition.status, DeviceStatus::Absent | DeviceStatus::Failed);
                if let Some(text) = condition.text.filter(|_| gone) {
                    return Found::NoReader(text);
                }
            }
            Report::Removed { .. } | Report::AllEmpty => {}
        }
    }
    Found::Nothing
}
