//! What a car's bus says without being asked, beside what it is asked: by the link's DBC
//! databases into windows, and into the recording. What lives here: who hears it. Over the
//! kernel a second socket on the same interface, which hears every frame and sends nothing,
//! where there are databases; else, on slcan and on a link that only listens, the link itself
//! shows what passes. What does not: decoding (`passive`), the form of a recording
//! (`recording`), and the commit (`visits`).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use super::Service;
use crate::clock::UtcMillis;
use crate::config::values::VehicleLink;
use crate::link::can::{CanSocket, Frame, Heard, InterfaceError, interface};
use crate::vehicle::adapter::Adapter;
use crate::vehicle::can::Witness;
use crate::vehicle::dbc::Database;
use crate::vehicle::passive::Passive;
use crate::vehicle::recording::frames::FrameLog;
use crate::vehicle::telemetry::Taken;

/// Frames decoded at a time before others have their turn: a quarter of a second of a full bus.
const A_BREATH: u64 = 1000;

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

/// The windows now filling, one by database.
struct Collected {
    /// A visit is open: what is heard outside belongs to no car.
    wanted: bool,
    windows: Vec<Passive>,
    log: FrameLog,
}

impl Collected {
    fn new(databases: &[Arc<Database>], log: FrameLog) -> Self {
        let windows = databases.iter().map(|database| Passive::new(Arc::clone(database))).collect();
        Self { wanted: false, windows, log }
    }

    fn want(&mut self, wanted: bool) {
        if self.wanted && !wanted {
            self.take();
        }
        self.wanted = wanted;
    }

    fn frame(&mut self, frame: &Frame, time: UtcMillis) {
        self.log.frame(frame, time);
        if self.wanted {
            for window in &mut self.windows {
                window.decode_frame(frame.id().number(), frame.id().is_extended(), frame.data(), time);
            }
        }
    }

    fn take(&mut self) -> Option<Taken> {
        self.windows.iter_mut().fold(None, |all, window| join(all, window.take()))
    }
}

/// Two windows as one.
fn join(one: Option<Taken>, other: Option<Taken>) -> Option<Taken> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.from = one.from.min(other.from);
            one.to = one.to.max(other.to);
            one.signals.extend(other.signals);
            Some(one)
        }
        (one, other) => one.or(other),
    }
}

fn lock(heard: &Mutex<Collected>) -> std::sync::MutexGuard<'_, Collected> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As long as the link is open. An interface that goes down comes back while it is, where a
/// clearing was withdrawn: then it is heard again.
async fn overhear(link: String, mut socket: CanSocket, heard: Arc<Mutex<Collected>>) {
    loop {
        let error = overhear_until_down(&link, &mut socket, &heard).await;
        tracing::debug!(link, %error, "the bus is no longer overheard");
        let InterfaceError::Down { name } = error else { return };
        socket = loop {
            interface::comes_up(&name).await;
            match CanSocket::open(&name) {
                Ok(opened) => break opened,
                Err(InterfaceError::Down { .. }) => {}
                Err(error) => {
                    tracing::warn!(link, %error, "the bus is not overheard");
                    return;
                }
            }
        };
    }
}

async fn overhear_until_down(link: &str, socket: &mut CanSocket, heard: &Mutex<Collected>) -> InterfaceError {
    let link = link.to_owned();
    let frames_total = metrics::counter!("baygate_vehicle_heard_frames_total", "link" => link.clone());
    let lost_total = metrics::counter!("baygate_vehicle_overheard_dropped_total", "link" => link);
    let mut lost = 0;
    loop {
        let mut next = match socket.hear().await {
            Ok(first) => Some(first),
            Err(error) => return error,
        };
        let mut frames = 0;
        let outcome = {
            let mut heard = lock(heard);
            let time = UtcMillis::now();
            loop {
                if let Some(Heard::Frame(frame)) = next {
                    heard.frame(&frame, time);
                }
                frames += u64::from(matches!(next, Some(Heard::Frame(_) | Heard::Other)));
                if next.is_none() || frames >= A_BREATH {
                    break Ok(());
                }
                match socket.heard() {
                    Ok(heard) => next = heard,
                    Err(error) => break Err(error),
                }
            }
        };
        frames_total.increment(frames);
        lost_total.increment(socket.dropped().wrapping_sub(lost).into());
        lost = socket.dropped();
        if let Err(error) = outcome {
            return error;
        }
        tokio::task::yield_now().await;
    }
}

impl Service {
    /// With the link opened: an ear beside it, or its own.
    pub(super) fn begin_overhearing(&mut self, adapter: &mut Adapter) {
        self.overhearing = None;
        let databases = &self.sources.databases;
        if let VehicleLink::Can { interface, .. } = &self.table.link
            && !databases.is_empty()
        {
            match Overhearing::beside(self.table.id.to_string(), interface, databases, self.log()) {
                Ok(overhearing) => self.overhearing = Some(overhearing),
                Err(error) => tracing::warn!(link = %self.table.id, %error, "the bus is not overheard"),
            }
            return;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::can::Id;
    use crate::vehicle::recording::{Form, Recording};

    fn database(text: &str) -> Arc<Database> {
        Arc::new(Database::from_bytes(text.as_bytes()).unwrap())
    }

    #[test]
    fn frames_of_a_visit_become_one_window_of_all_databases() {
        let databases = [
            database("VERSION \"\"\nBO_ 68 Engine: 8 ECM\n SG_ Speed : 0|16@1+ (0.25,0) [0|0] \"rpm\" X\n"),
            database("VERSION \"\"\nBO_ 69 Body: 8 BCM\n SG_ Door : 0|1@1+ (1,0) [0|0] \"\" X\n"),
        ];
        let recording = Recording::new(Form::Candump);
        let mut collected = Collected::new(&databases, FrameLog::new(recording.clone(), "can0"));
        let engine = Frame::new(Id::standard(68), &[0xA0, 0x0F], false).unwrap();
        let body = Frame::new(Id::standard(69), &[1], false).unwrap();
        let told = |taken: Option<Taken>| {
            let taken = taken?;
            let names: Vec<_> = taken.signals.into_iter().map(|s| (s.name, s.last)).collect();
            Some((taken.from.0, taken.to.0, names))
        };
        collected.frame(&engine, UtcMillis(1));
        assert_eq!(told(collected.take()), None, "no car is there");
        collected.want(true);
        collected.frame(&engine, UtcMillis(3));
        collected.frame(&body, UtcMillis(2));
        let names = vec![("Engine.Speed".to_owned(), 1000.0), ("Body.Door".to_owned(), 1.0)];
        assert_eq!(told(collected.take()), Some((2, 3, names)));
        collected.frame(&engine, UtcMillis(4));
        collected.want(false);
        collected.want(true);
        assert_eq!(told(collected.take()), None, "that was the car before");
        let kept = recording.written("can://can0", None).unwrap();
        assert_eq!(String::from_utf8(kept).unwrap().lines().count(), 4);
    }
}
