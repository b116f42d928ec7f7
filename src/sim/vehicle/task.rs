//! Plays the adapter's steps over the transport and lets the transport come and go.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::car::Car;
use super::elm::{Elm, Reaction};
use crate::sim::transport::{Address, Endpoint, Input};

/// What the handle and the task share.
#[derive(Debug)]
pub(super) struct World {
    pub elm: Elm,
    pub car: Option<Car>,
    /// Printed at once.
    pub unasked: Vec<u8>,
}

/// The task's way to the world and to its handle.
pub(super) struct Task {
    pub world: Arc<Mutex<World>>,
    pub wake: Arc<Notify>,
    /// Whether the transport is to be there.
    pub wanted: watch::Receiver<bool>,
    /// Whether and where it is.
    pub there: watch::Sender<Option<String>>,
    pub address: Address,
    pub stop: CancellationToken,
}

/// A reaction being printed.
struct Playing {
    reaction: Reaction,
    /// When the last step was printed.
    since: Instant,
}

pub(super) fn lock(world: &Mutex<World>) -> std::sync::MutexGuard<'_, World> {
    // A panicking test must not take the simulator's state with it.
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the transport's presence is to be as said. False: the handle is gone.
async fn until(wanted: &mut watch::Receiver<bool>, there: bool) -> bool {
    wanted.wait_for(|wanted| *wanted == there).await.is_ok()
}

impl Task {
    /// Runs until stopped.
    pub async fn run(mut self, first: Endpoint) {
        let mut endpoint = Some(first);
        while !self.stop.is_cancelled() {
            if let Some(open) = endpoint.take() {
                self.there.send_replace(Some(open.name()));
                self.serve(open).await;
                self.there.send_replace(None);
                lock(&self.world).elm.power_cycle();
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                handled = until(&mut self.wanted, true) => if !handled { return },
            }
            match Endpoint::open(&self.address).await {
                Ok(open) => endpoint = Some(open),
                Err(error) => {
                    tracing::warn!(%error, "simulated adapter cannot return");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Until the transport is to vanish or breaks.
    async fn serve(&mut self, mut endpoint: Endpoint) {
        let mut playing = Playing { reaction: Reaction::default(), since: Instant::now() };
        let mut wanted = self.wanted.clone();
        loop {
            let next = playing.reaction.steps.front().map(|step| playing.since + step.after);
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = until(&mut wanted, false) => return,
                () = self.wake.notified() => {
                    let unasked = std::mem::take(&mut lock(&self.world).unasked);
                    if !unasked.is_empty() {
                        playing.reaction = Reaction::default();
                        self.write(&mut endpoint, &unasked).await;
                    }
                }
                () = sleep_until(next.unwrap_or(playing.since)), if next.is_some() => {
                    if let Some(step) = playing.reaction.steps.pop_front() {
                        playing.since += step.after;
                        self.write(&mut endpoint, &step.bytes).await;
                    }
                }
                input = endpoint.read() => match input {
                    Ok(Input::Bytes(bytes)) => {
                        for byte in bytes {
                            self.take(byte, &mut endpoint, &mut playing).await;
                        }
                    }
                    Ok(Input::Left) => playing.reaction = Reaction::default(),
                    Err(error) => {
                        tracing::debug!(%error, "simulated adapter's transport broke");
                        return;
                    }
                },
            }
        }
    }

    async fn take(&self, byte: u8, endpoint: &mut Endpoint, playing: &mut Playing) {
        let rate = lock(&self.world).elm.adapter.baud;
        if rate != 0 && endpoint.baud().is_some_and(|theirs| theirs != rate) {
            lock(&self.world).elm.noise();
            // Framing errors: what the host reads is as wrong as what the chip read.
            self.write(endpoint, &[0xF8 ^ (byte & 0x07)]).await;
            return;
        }
        if !playing.reaction.steps.is_empty() {
            if playing.reaction.stoppable {
                playing.reaction = Reaction::default();
                let stopped = lock(&self.world).elm.stop();
                self.write(endpoint, &stopped).await;
            }
            return;
        }
        {
            let mut world = lock(&self.world);
            let World { elm, car, .. } = &mut *world;
            *playing = Playing { reaction: elm.feed(byte, car.as_mut()), since: Instant::now() };
        }
        // What needs no waiting is printed before the next byte is looked at.
        while playing.reaction.steps.front().is_some_and(|step| step.after.is_zero()) {
            let step = playing.reaction.steps.pop_front();
            self.write(endpoint, &step.map(|step| step.bytes).unwrap_or_default()).await;
        }
    }

    async fn write(&self, endpoint: &mut Endpoint, bytes: &[u8]) {
        let split = match lock(&self.world).elm.adapter.split_bytes {
            0 => bytes.len().max(1),
            split => split,
        };
        for piece in bytes.chunks(split) {
            endpoint.write(piece).await;
            if split < bytes.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}
