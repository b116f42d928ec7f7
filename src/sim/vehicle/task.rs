//! Plays the adapter's steps over the transport, and the line between it and the host.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::car::Car;
use super::elm::{Elm, Reaction};
use crate::sim::presence::Device;
use crate::sim::transport::{Endpoint, Input};

/// What the handle and the task share.
#[derive(Debug)]
pub(super) struct World {
    pub elm: Elm,
    pub car: Option<Car>,
    /// Printed at once.
    pub unasked: Vec<u8>,
}

/// The adapter as a device that can be plugged in.
pub(super) struct Player {
    pub world: Arc<Mutex<World>>,
    /// Something is to be printed unasked.
    pub wake: Arc<Notify>,
}

/// A reaction being printed.
struct Playing {
    reaction: Reaction,
    /// When the last step was printed.
    since: Instant,
}

/// The way to the host. What the adapter writes may be under way for a while; what comes behind
/// it keeps its distance, as on a radio link or behind a converter's latency timer.
struct Line {
    endpoint: Endpoint,
    /// At which the adapter writes; 0: any.
    rate: u32,
    under_way: VecDeque<(Instant, Vec<u8>)>,
}

impl Line {
    async fn send(&mut self, bytes: &[u8], delay: Duration) {
        if delay.is_zero() && self.under_way.is_empty() {
            self.put(bytes).await;
        } else {
            self.under_way.push_back((Instant::now() + delay, bytes.to_vec()));
        }
    }

    async fn arrive(&mut self) {
        if let Some((_, bytes)) = self.under_way.pop_front() {
            self.put(&bytes).await;
        }
    }

    fn is_wrong_rate(&self) -> bool {
        self.rate != 0 && self.endpoint.baud().is_some_and(|theirs| theirs != self.rate)
    }

    /// At another rate framing errors: what the host reads is as wrong as what the chip reads.
    async fn put(&mut self, bytes: &[u8]) {
        if self.is_wrong_rate() {
            let noise: Vec<u8> = bytes.iter().map(|byte| 0xF8 ^ (byte & 0x07)).collect();
            self.endpoint.write(&noise).await;
        } else {
            self.endpoint.write(bytes).await;
        }
    }
}

pub(super) fn lock(world: &Mutex<World>) -> std::sync::MutexGuard<'_, World> {
    lock_any(world)
}

pub(super) fn lock_any<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panicking test must not take the simulator's state with it.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device for Player {
    fn power_cycle(&mut self) {
        lock(&self.world).elm.power_cycle();
    }

    async fn serve(&mut self, endpoint: Endpoint) {
        let rate = lock(&self.world).elm.adapter.baud;
        let mut line = Line { endpoint, rate, under_way: VecDeque::new() };
        let mut playing = Playing { reaction: Reaction::default(), since: Instant::now() };
        loop {
            let next = playing.reaction.steps.front().map(|step| playing.since + step.after);
            let due = line.under_way.front().map(|(due, _)| *due);
            tokio::select! {
                () = self.wake.notified() => {
                    let unasked = std::mem::take(&mut lock(&self.world).unasked);
                    if !unasked.is_empty() {
                        playing.reaction = Reaction::default();
                        self.write(&mut line, &unasked).await;
                    }
                }
                () = sleep_until(due.unwrap_or(playing.since)), if due.is_some() => line.arrive().await,
                () = sleep_until(next.unwrap_or(playing.since)), if next.is_some() => {
                    if let Some(step) = playing.reaction.steps.pop_front() {
                        playing.since += step.after;
                        self.write(&mut line, &step.bytes).await;
                    }
                }
                input = line.endpoint.read() => match input {
                    Ok(Input::Bytes(bytes)) => {
                        for byte in bytes {
                            self.take(byte, &mut line, &mut playing).await;
                        }
                    }
                    Ok(Input::Left) => {
                        playing.reaction = Reaction::default();
                        line.under_way.clear();
                    }
                    Err(error) => {
                        tracing::debug!(%error, "simulated adapter's transport broke");
                        return;
                    }
                },
            }
        }
    }
}

impl Player {
    async fn take(&self, byte: u8, line: &mut Line, playing: &mut Playing) {
        line.rate = lock(&self.world).elm.adapter.baud;
        if line.is_wrong_rate() {
            lock(&self.world).elm.noise();
            self.write(line, &[byte]).await;
            return;
        }
        if lock(&self.world).elm.is_lost(byte) {
            return;
        }
        if !playing.reaction.steps.is_empty() {
            if playing.reaction.stoppable {
                playing.reaction = Reaction::default();
                let stopped = lock(&self.world).elm.stop();
                self.write(line, &stopped).await;
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
            self.write(line, &step.map(|step| step.bytes).unwrap_or_default()).await;
        }
    }

    async fn write(&self, line: &mut Line, bytes: &[u8]) {
        let (bytes, split, gap, delay) = {
            let elm = &mut lock(&self.world).elm;
            let adapter = &elm.adapter;
            let (split, gap, delay) = (adapter.split_bytes, adapter.split_ms, adapter.line_ms);
            (elm.as_written(bytes), split, gap, Duration::from_millis(delay))
        };
        let split = if split == 0 { bytes.len().max(1) } else { split };
        for piece in bytes.chunks(split) {
            line.send(piece, delay).await;
            if split < bytes.len() {
                tokio::time::sleep(Duration::from_millis(gap)).await;
            }
        }
    }
}
