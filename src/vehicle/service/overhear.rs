//! What a car's bus says without being asked, beside what it is asked: by the link's DBC
//! databases into windows, and into the recording. What lives here: who hears it. Over the
//! kernel a second socket on the same interface, which hears every frame and sends nothing; on
//! slcan and on a link that only listens the link itself shows what passes. What does not: what becomes of a frame (`overheard`), and the commit (`visits`).

use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;

use super::Service;
use crate::clock::UtcMillis;
use crate::config::values::VehicleLink;
use crate::link::can::{CanSocket, InterfaceError};
use crate::vehicle::adapter::Adapter;
use crate::vehicle::can::Witness;
use crate::vehicle::dbc::Database;
use crate::vehicle::overheard::{Collected, join, lock, overhear};
use crate::vehicle::recording::frames::FrameLog;
use crate::vehicle::telemetry::Taken;

/// What is overheard of a link, as long as this lives.
pub(super) struct Overhearing {
    heard: Arc<Mutex<Collected>>,
    /// An ear of its own; `None`: the link shows its frames.
    task: Option<JoinHandle<()>>,
}

impl Drop for Overhearing {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Overhearing {
    /// Opens an ear beside the link.
    ///
    /// # Errors
    /// [`InterfaceError`] saying what to do.
    fn beside(
        link: String,
        interface: &str,
        databases: &[Arc<Database>],
        log: FrameLog,
    ) -> Result<Self, InterfaceError> {
        let socket = CanSocket::open(interface)?;
        let heard = Arc::new(Mutex::new(Collected::new(databases, log)));
        let task = tokio::spawn(overhear(link, socket, Arc::clone(&heard)));
        Ok(Self { heard, task: Some(task) })
    }

    /// With the link's own ear: to be shown every frame.
    fn through(databases: &[Arc<Database>], log: FrameLog) -> (Self, Witness) {
        let heard = Arc::new(Mutex::new(Collected::new(databases, log)));
        let theirs = Arc::clone(&heard);
        let witness: Witness = Arc::new(move |frame| lock(&theirs).frame(frame, UtcMillis::now()));
        (Self { heard, task: None }, witness)
    }

    fn collected(&self) -> std::sync::MutexGuard<'_, Collected> {
        lock(&self.heard)
    }
}

impl Service {
    /// With the link opened: an ear beside it, or its own.
    pub(super) fn begin_overhearing(&mut self, adapter: &mut Adapter) {
        self.overhearing = None;
        let databases = &self.sources.databases;
        // The link's own socket has the kernel keep away all but answers.
        if let VehicleLink::Can { interface, .. } = &self.table.link {
            match Overhearing::beside(self.table.id.to_string(), interface, databases, self.log()) {
                Ok(overhearing) => {
                    self.overhearing = Some(overhearing);
                    return;
                }
                Err(error) => tracing::warn!(link = %self.table.id, %error, "the bus is not overheard"),
            }
        }
        if let Some(witness) = self.overhear_link() {
            adapter.set_witness(witness);
        }
    }

    /// Through the link's own ear. `None`: a dongle has none.
    pub(super) fn overhear_link(&mut self) -> Option<Witness> {
        self.overhearing = None;
        if matches!(self.table.link, VehicleLink::Elm327(_)) {
            return None;
        }
        let (overhearing, witness) = Overhearing::through(&self.sources.databases, self.log());
        self.overhearing = Some(overhearing);
        Some(witness)
    }

    fn log(&self) -> FrameLog {
        let interface = match &self.table.link {
            VehicleLink::Can { interface, .. } => interface.as_str(),
            VehicleLink::Elm327(_) | VehicleLink::Slcan { .. } => "slcan",
        };
        FrameLog::new(self.recording.clone(), interface)
    }

    /// What is heard counts while a visit is open.
    pub(super) fn overhear_visit(&self) {
        if let Some(overhearing) = &self.overhearing {
            overhearing.collected().want(self.visit.is_some());
        }
    }

    /// Whether a window may fill without a question.
    pub(super) fn is_overhearing(&self) -> bool {
        self.overhearing.is_some() && !self.sources.databases.is_empty()
    }

    /// Ends the window: what was asked and what was overheard.
    pub(super) fn take_window(&mut self) -> Option<Taken> {
        let overheard = self.overhearing.as_ref().and_then(|overhearing| overhearing.collected().take());
        join(self.window.take(), overheard)
    }
}
