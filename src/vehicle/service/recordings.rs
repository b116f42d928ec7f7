//! What was heard before a warning is written down. The rules commit their warnings;
//! this service looks at the warnings of its own visit whenever something was
//! committed, and asks the rules for nothing. What is kept lies in memory: a restart
//! loses it, so no durable cursor is needed.

use uuid::Uuid;

use super::Service;
use crate::vehicle::error::VehicleError;

impl Service {
    /// Writes down what was heard when a warning has come to the open visit.
    pub(super) async fn save_at_warning(&mut self) -> Result<(), VehicleError> {
        let Some(visit) = self.visit.as_ref().filter(|visit| visit.reported).map(|visit| visit.id) else {
            return Ok(());
        };
        let fresh = self.fresh_warnings(visit).await?;
        if fresh.is_empty() {
            return Ok(());
        }
        self.warnings_seen.extend(fresh);
        let Some(text) = self.recording.written(&self.table.link.to_string(), self.vin().as_ref()) else {
            return Ok(());
        };
        match self.store.keep_recording(visit, self.recording.form().extension(), text).await {
            Ok(file) => {
                tracing::info!(link = %self.table.id, %visit, file, "recorded what led to the warning")
            }
            Err(error) => tracing::warn!(link = %self.table.id, %visit, %error, "no recording kept"),
        }
        Ok(())
    }

    /// Warnings that this visit raised and that were not seen yet.
    async fn fresh_warnings(&self, visit: Uuid) -> Result<Vec<Uuid>, VehicleError> {
        let standing = self
            .store
            .read(move |r| {
                let Some(row) = r.visit(visit)? else { return Ok(Vec::new()) };
                let car = row.vin.map_or_else(|| format!("visit/{visit}"), |vin| vin.to_string());
                r.standing_warnings(&car)
            })
            .await?;
        let ours = standing.into_iter().filter(|standing| standing.warning.visit == visit);
        Ok(ours.map(|standing| standing.id).filter(|id| !self.warnings_seen.contains(id)).collect())
    }

    /// Warnings that stand already when a visit is found open: what led to them is gone.
    pub(super) async fn overlook_old_warnings(&mut self, visit: Uuid) -> Result<(), VehicleError> {
        self.warnings_seen = self.fresh_warnings(visit).await?;
        Ok(())
    }
}
