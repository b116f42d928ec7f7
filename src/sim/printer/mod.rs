//! A simulated card-face printer (Star TCP300) over a pseudo-terminal or TCP, that
//! writes every printed face as a PNG. Written from the maker's manuals; shares
//! nothing with the driver.

mod canvas;
mod image;
mod line;
mod machine;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

pub use canvas::{Canvas, HEIGHT, WIDTH};
pub use machine::{Fault, Machine, Pace, Printed};

use super::presence::{Device, Presence};
use super::transport::{Address, Endpoint, Input};

/// Faces kept in memory.
const KEPT: usize = 1000;

/// How the printer is set up.
#[derive(Debug, Clone, Default)]
pub struct PrinterProfile {
    /// Where printed faces go; none: they are only kept in memory.
    pub folder: Option<PathBuf>,
    /// How long things take.
    pub pace: Pace,
    /// A clerk who puts a blank card in whenever one is waited for and pulls it out when it is done.
    pub attended: bool,
}

/// A printed face.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Face {
    /// From 1, by print.
    pub number: u64,
    /// The picture's file.
    pub path: Option<PathBuf>,
    /// What is on the card now.
    pub printed: Printed,
}

#[derive(Debug)]
struct Shared {
    machine: Machine,
    profile: PrinterProfile,
}

/// Control of a running simulated printer. Dropping it stops the simulator.
#[derive(Debug)]
pub struct PrinterSim {
    shared: Arc<Mutex<Shared>>,
    wake: Arc<Notify>,
    faces: watch::Receiver<Vec<Face>>,
    /// Number of the last face [`PrinterSim::next_face`] gave.
    shown: u64,
    presence: Presence,
}

impl PrinterSim {
    /// Starts on a pseudo-terminal; `link` points at it while it is there.
    ///
    /// # Errors
    /// No terminal to be had, or the link's place is taken.
    pub async fn spawn_pty(profile: PrinterProfile, link: Option<PathBuf>) -> io::Result<Self> {
        Self::spawn(profile, Address::Pty { link }).await
    }

    /// Starts on a TCP listener; port 0 lets the system choose.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn spawn_tcp(address: SocketAddr, profile: PrinterProfile) -> io::Result<Self> {
        Self::spawn(profile, Address::Tcp(address)).await
    }

    async fn spawn(profile: PrinterProfile, address: Address) -> io::Result<Self> {
        if let Some(folder) = &profile.folder {
            std::fs::create_dir_all(folder)?;
        }
        let machine = Machine::new(profile.pace);
        let shared = Arc::new(Mutex::new(Shared { machine, profile }));
        let wake = Arc::new(Notify::new());
        let (faces_set, faces) = watch::channel(Vec::new());
        let worker =
            Worker { shared: Arc::clone(&shared), wake: Arc::clone(&wake), faces: faces_set, count: 0 };
        let presence = Presence::begin(worker, address).await?;
        Ok(Self { shared, wake, faces, shown: 0, presence })
    }

    /// The path a client opens: the link where there is one.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(self.name())
    }

    /// The address a client connects to, on TCP.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.name().parse().ok()
    }

    /// Path or `host:port`.
    #[must_use]
    pub fn name(&self) -> String {
        self.presence.name()
    }

    /// Puts a blank card into the inlet. False: one is in already, or waits in the exit.
    pub fn insert_card(&self) -> bool {
        self.insert_card_with(Canvas::default())
    }

    /// Puts a card into the inlet that was printed before.
    pub fn insert_card_with(&self, face: Canvas) -> bool {
        self.with(|machine| machine.insert(face))
    }

    /// Pulls the card out of the exit.
    pub fn take_card(&self) -> Option<Canvas> {
        self.with(Machine::take)
    }

    /// Opens the cover: what was sent is lost, what runs ends with status 40.
    pub fn open_cover(&self) {
        self.with(|machine| machine.open_cover(Instant::now()));
    }

    /// Closes the cover, which resets the printer.
    pub fn close_cover(&self) {
        self.with(Machine::close_cover);
    }

    /// Lets something go wrong.
    pub fn fault(&self, fault: Fault) {
        self.with(|machine| machine.fault(fault, Instant::now()));
    }

    /// The latest 1000 faces, oldest first.
    #[must_use]
    pub fn faces(&self) -> Vec<Face> {
        self.faces.borrow().clone()
    }

    /// Waits until so many faces were printed, up to 1000.
    pub async fn printed(&mut self, count: usize) -> Vec<Face> {
        match self.faces.wait_for(|faces| faces.len() >= count).await {
            Ok(faces) => faces.clone(),
            Err(_) => Vec::new(),
        }
    }

    /// The next face printed after the last one this gave, while it is remembered; none: the printer stopped.
    pub async fn next_face(&mut self) -> Option<Face> {
        let shown = self.shown;
        let faces = self.faces.wait_for(|faces| faces.iter().any(|face| face.number > shown)).await.ok()?;
        let face = faces.iter().find(|face| face.number > shown)?.clone();
        self.shown = face.number;
        Some(face)
    }

    /// Takes the transport away: the cable is pulled. Returns when it is gone.
    pub async fn vanish(&mut self) {
        self.presence.vanish().await;
    }

    /// Brings the transport back, the printer freshly switched on. Returns when it is there.
    pub async fn return_(&mut self) {
        self.presence.come_back().await;
    }

    /// Stops and takes the transport away.
    pub async fn stop(self) {
        self.presence.end().await;
    }

    fn with<T>(&self, change: impl FnOnce(&mut Machine) -> T) -> T {
        let result = change(&mut lock(&self.shared).machine);
        self.wake.notify_one();
        result
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A panicking test must not take the simulator's state with it.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays the machine over a transport.
struct Worker {
    shared: Arc<Mutex<Shared>>,
    wake: Arc<Notify>,
    faces: watch::Sender<Vec<Face>>,
    /// Faces printed in all, for the pictures' names.
    count: u64,
}

impl Device for Worker {
    fn power_cycle(&mut self) {
        lock(&self.shared).machine.reset();
    }

    async fn serve(&mut self, mut endpoint: Endpoint) {
        loop {
            let (said, deadline) = self.advance();
            if !said.is_empty() {
                endpoint.write(&said).await;
                continue;
            }
            let wait = deadline.unwrap_or_else(Instant::now);
            tokio::select! {
                () = tokio::time::sleep_until(wait.into()), if deadline.is_some() => {}
                () = self.wake.notified() => {}
                input = endpoint.read() => match input {
                    Ok(Input::Bytes(bytes)) => {
                        for byte in bytes {
                            let said = lock(&self.shared).machine.hear(byte, Instant::now());
                            endpoint.write(&said).await;
                        }
                    }
                    Ok(Input::Left) => {}
                    Err(error) => {
                        tracing::debug!(%error, "simulated printer's transport broke");
                        return;
                    }
                },
            }
        }
    }
}

impl Worker {
    /// Lets time pass: what to say, and when to look again.
    fn advance(&mut self) -> (Vec<u8>, Option<Instant>) {
        let mut shared = lock(&self.shared);
        let Shared { machine, profile } = &mut *shared;
        if profile.attended {
            machine.attend();
        }
        let said = machine.tick(Instant::now());
        let fresh = machine.printed();
        let deadline = machine.deadline();
        for printed in fresh {
            self.count += 1;
            let name = format!("face-{:04}.png", self.count);
            let path = profile.folder.as_ref().map(|folder| folder.join(name));
            if let Some(Err(error)) = path.as_ref().map(|path| printed.face.save(path)) {
                tracing::warn!(%error, "a printed face was not saved");
            }
            self.faces.send_modify(|faces| {
                if faces.len() == KEPT {
                    faces.remove(0);
                }
                faces.push(Face { number: self.count, path, printed });
            });
        }
        (said, deadline)
    }
}
