//! A simulated 125 kHz reader (EM4100) on a serial line or TCP: while a card lies on it, it
//! says the card's number again and again.
//!
//! ```text
//! 02  ten hex digits  two hex digits: the five bytes XORed  03      every 50 ms, 9600 8N1
//! ```
//! Source: the readers' published output format (RDM6300 and its kin).

use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::sim::presence::{Device, Presence};
use crate::sim::transport::{Address, Endpoint};

/// Between two repetitions.
const REPEAT: Duration = Duration::from_millis(50);

/// Control over the reader and the card on it. Dropping it takes the reader away.
#[derive(Debug)]
pub struct Em4100Sim {
    /// What it says: the bytes of one repetition; none while no card lies there.
    says: watch::Sender<Vec<u8>>,
    /// How often it said something.
    said: watch::Receiver<u64>,
    presence: Presence,
}

#[derive(Debug)]
struct Reader {
    says: watch::Receiver<Vec<u8>>,
    said: watch::Sender<u64>,
}

impl Em4100Sim {
    /// Plugs the reader in, without a card.
    ///
    /// # Errors
    /// The place is taken, or no pseudo-terminal is left.
    pub async fn plug_in(address: Address) -> io::Result<Self> {
        let (says, heard) = watch::channel(Vec::new());
        let (count, said) = watch::channel(0);
        let presence = Presence::begin(Reader { says: heard, said: count }, address).await?;
        Ok(Self { says, said, presence })
    }

    /// What a client opens: a path or `host:port`.
    #[must_use]
    pub fn name(&self) -> String {
        self.presence.name()
    }

    /// Lays a card on it, in place of the one that lies there.
    pub fn lay(&self, number: [u8; 5]) {
        let mut check = 0;
        let mut text = String::from("\u{2}");
        for byte in number {
            check ^= byte;
            text.push_str(&format!("{byte:02X}"));
        }
        text.push_str(&format!("{check:02X}\u{3}"));
        self.babble(text.into_bytes());
    }

    /// Says these bytes instead, whatever they are.
    pub fn babble(&self, bytes: Vec<u8>) {
        self.says.send_replace(bytes);
    }

    /// Waits until somebody was told so many times more.
    pub async fn says_again(&self, times: u64) {
        let mut said = self.said.clone();
        let wanted = *said.borrow() + times;
        // An error: the reader is gone, and says nothing more.
        let _ = said.wait_for(|said| *said >= wanted).await;
    }

    /// Takes the card away.
    pub fn lift(&self) {
        self.babble(Vec::new());
    }

    /// Pulls the reader's cable.
    pub async fn vanish(&mut self) {
        self.presence.vanish().await;
    }

    /// Plugs it in again.
    pub async fn come_back(&mut self) {
        self.presence.come_back().await;
    }

    /// Takes it away for good.
    pub async fn stop(self) {
        self.presence.end().await;
    }
}

impl Device for Reader {
    async fn serve(&mut self, mut endpoint: Endpoint) {
        let mut tick = interval(REPEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // It hears nothing; on TCP this is how somebody comes and goes.
                heard = endpoint.read() => if heard.is_err() { return },
                _ = tick.tick() => {
                    let bytes = self.says.borrow().clone();
                    if !bytes.is_empty() {
                        endpoint.write(&bytes).await;
                        self.said.send_modify(|said| *said += 1);
                    }
                }
            }
        }
    }

    fn power_cycle(&mut self) {}
}
