//! What becomes of each frame that a bus says without being asked: a line of the recording, and
//! by the link's DBC databases a sample of the windows now filling. What lives here: that path,
//! from the socket's buffer on. What does not: who opens the socket and takes the windows
//! (`service::overhear`), decoding (`passive`), and the form of a recording (`recording`).

use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::UtcMillis;
use crate::link::can::{CanSocket, Frame, Heard, InterfaceError, interface};
use crate::vehicle::dbc::Database;
use crate::vehicle::passive::Passive;
use crate::vehicle::recording::frames::FrameLog;
use crate::vehicle::telemetry::Taken;

/// Frames decoded at a time before others have their turn: a quarter of a second of a full bus.
const A_BREATH: u64 = 1000;

/// The windows now filling, one by database.
#[derive(Debug)]
pub struct Collected {
    /// A visit is open: what is heard outside belongs to no car.
    wanted: bool,
    windows: Vec<Passive>,
    log: FrameLog,
}

impl Collected {
    /// Of a link with these databases, kept by `log`.
    #[must_use]
    pub fn new(databases: &[Arc<Database>], log: FrameLog) -> Self {
        let windows = databases.iter().map(|database| Passive::new(Arc::clone(database))).collect();
        Self { wanted: false, windows, log }
    }

    /// Whether what comes now belongs to a visit; at its end the windows are dropped.
    pub fn want(&mut self, wanted: bool) {
        if self.wanted && !wanted {
            self.take();
        }
        self.wanted = wanted;
    }

    /// Takes in a frame that passed at `time`.
    pub fn frame(&mut self, frame: &Frame, time: UtcMillis) {
        self.log.frame(frame, time);
        if self.wanted {
            for window in &mut self.windows {
                window.decode_frame(frame.id().number(), frame.id().is_extended(), frame.data(), time);
            }
        }
    }

    /// Frames decoded, and frames that a database does not know, since the beginning and over all databases.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let counts = self.windows.iter().map(Passive::counts);
        counts.fold((0, 0), |(decoded, unknown), (d, u)| (decoded + d, unknown + u))
    }

    /// Ends the windows: all databases' as one.
    pub fn take(&mut self) -> Option<Taken> {
        self.windows.iter_mut().fold(None, |all, window| join(all, window.take()))
    }
}

/// Two windows as one.
#[must_use]
pub fn join(one: Option<Taken>, other: Option<Taken>) -> Option<Taken> {
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

/// What was collected so far.
pub fn lock(heard: &Mutex<Collected>) -> std::sync::MutexGuard<'_, Collected> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As long as the link is open. An interface that goes down comes back while it is, where a
/// clearing was withdrawn: then it is heard again.
pub async fn overhear(link: String, mut socket: CanSocket, heard: Arc<Mutex<Collected>>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::can::Id;
    use crate::vehicle::recording::{Form, Recording};

    fn database(text: &str) -> Arc<Database> {
        Arc::new(Database::from_bytes(text.as_bytes()).unwrap())
    }

    /// Frames as the kernel writes them, over a socket that counts as a CAN socket does.
    #[tokio::test]
    async fn what_was_not_read_in_time_is_counted() {
        use std::net::UdpSocket;
        use std::time::{Duration, Instant};

        use nix::sys::socket::{setsockopt, sockopt};
        const SENT: u64 = 2000;
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let _recorder = metrics::set_default_local_recorder(&recorder);
        let [bus, ours] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        bus.connect(ours.local_addr().unwrap()).unwrap();
        setsockopt(&ours, sockopt::RxqOvfl, &1).unwrap();
        setsockopt(&ours, sockopt::RcvBuf, &4096).unwrap();
        let mut frame = 0x280_u32.to_ne_bytes().to_vec();
        frame.extend([8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        for _ in 0..SENT {
            bus.send(&frame).unwrap();
        }
        let socket = CanSocket::over(ours.into(), "can0").unwrap();
        let recording = Recording::new(Form::Candump);
        let collected = Arc::new(Mutex::new(Collected::new(&[], FrameLog::new(recording, "can0"))));
        let task = tokio::spawn(overhear("bay-1".into(), socket, collected));
        let counted = |name: &str| {
            let text = recorder.handle().render();
            let line = text.lines().find(|line| line.starts_with(&format!("{name}{{link=\"bay-1\"}}")));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let counts =
            || ["baygate_vehicle_heard_frames_total", "baygate_vehicle_overheard_dropped_total"].map(counted);
        let deadline = Instant::now() + Duration::from_secs(30);
        // How many were lost is told with the next one that is not.
        let mut sent = SENT;
        while counts().iter().sum::<u64>() != sent {
            assert!(Instant::now() < deadline, "{:?} of {sent}", counts());
            tokio::time::sleep(Duration::from_millis(5)).await;
            if counts()[0] > 0 && counts()[1] == 0 {
                bus.send(&frame).unwrap();
                sent += 1;
            }
        }
        assert!(counts()[0] > 0 && counts()[1] > 1000, "{:?}", counts());
        task.abort();
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
        // Each database was asked about each frame.
        assert_eq!(collected.counts(), (2, 2));
        collected.frame(&engine, UtcMillis(4));
        collected.want(false);
        collected.want(true);
        assert_eq!(told(collected.take()), None, "that was the car before");
        let kept = recording.written("can://can0", None).unwrap();
        assert_eq!(String::from_utf8(kept).unwrap().lines().count(), 4);
    }
}
