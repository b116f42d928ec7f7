//! The till's reader with a card on it. Both live outside the daemon: the card keeps what was
//! written to it when the daemon dies, and lies there again when another one listens.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baygate::api::client::{Answer, Client, Method};
use baygate::sim::card::{CardFault, CardProfile, CardSim, Chip, Technology};
use futures_util::FutureExt as _;
use serde_json::Value;

/// Its id; at `counter-1` cards are only looked at.
pub const READER: &str = "counter-2";
/// A real card takes about so long to write a page or a block. In no time at all a deed would
/// hardly ever be struck.
const ANSWER_TIME: Duration = Duration::from_millis(4);
/// Between two tries to reach a daemon that is dead.
const AGAIN: Duration = Duration::from_millis(10);

/// A member's card as delivered; each number is another chip.
pub fn blank(number: u8) -> Chip {
    let kinds = [Technology::Ntag215, Technology::Classic1k, Technology::Desfire, Technology::Ntag216];
    let mut profile = CardProfile::new(kinds[usize::from(number) % kinds.len()]);
    *profile.uid.last_mut().unwrap() = number;
    profile.direct_transmit = true;
    Chip::new(profile)
}

/// Where the till stands.
#[derive(Debug)]
pub struct Place {
    /// The daemon's control socket.
    pub socket: PathBuf,
    /// Where the daemon listens for cards.
    pub port: u16,
    /// Requests whose connection broke before an answer came.
    pub cut_off: AtomicU64,
}

impl Place {
    pub fn new(socket: PathBuf, port: u16) -> Arc<Self> {
        Arc::new(Self { socket, port, cut_off: AtomicU64::new(0) })
    }

    async fn present(&self, chip: Chip) -> CardSim {
        loop {
            if let Ok(sim) = CardSim::present(("127.0.0.1", self.port), chip.clone()).await {
                sim.slow(ANSWER_TIME);
                return sim;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The card the daemon sees on the reader; nothing when there is none.
    async fn seen(&self, wait_s: u64) -> Option<Value> {
        let path = format!("/v1/readers/{READER}/card?wait={wait_s}");
        loop {
            if let Ok(client) = Client::connect(&self.socket).await
                && let Ok(answer) = client.request(Method::GET, &path, None).await
                && matches!(answer.status, 200 | 204)
            {
                return (answer.status == 200).then_some(answer.body);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// A card that lies on the till's reader.
pub struct Laid {
    place: Arc<Place>,
    sim: CardSim,
}

impl Laid {
    /// Lays it down, once the card before was seen to leave, and until it is seen itself.
    pub async fn lay(place: &Arc<Place>, chip: Chip) -> Self {
        while place.seen(0).await.is_some() {
            tokio::time::sleep(AGAIN).await;
        }
        let sim = place.present(chip).await;
        let mut laid = Self { place: Arc::clone(place), sim };
        laid.shown().await;
        laid
    }

    /// What the daemon shows of it.
    pub async fn shown(&mut self) -> Value {
        let uid = hex::encode_upper(&self.sim.chip().profile().uid);
        loop {
            self.put_back().await;
            if let Some(card) = self.place.seen(1).await.filter(|card| card["uid"] == uid.as_str()) {
                return card;
            }
        }
    }

    /// If it was pulled, or its reader's daemon died.
    async fn put_back(&mut self) {
        if self.sim.gone().now_or_never().is_some() {
            self.sim = self.place.present(rested(&self.sim)).await;
        }
    }

    /// Takes it away; it is to be told.
    pub async fn take(self) -> Chip {
        let chip = rested(&self.sim);
        self.sim.remove().await;
        chip
    }

    /// It leaves at the command behind so many more.
    pub fn pull_after(&self, commands: usize, how: CardFault) {
        self.sim.fault_after(commands, how);
    }

    /// Asks with one key until it is settled, as docs/pos.md has it: the same again when no
    /// answer came; a card that left is put back, and tapped anew where nobody knows. A card that
    /// is held no tap settles.
    pub async fn settle(mut self, path: &str, body: &Value, key: &str) -> (Self, Answer) {
        loop {
            match self.ask(path, body, key).await {
                Some(answer) if answer.status != 202 || answer.body["code"] == "card-held" => {
                    return (self, answer);
                }
                Some(answer) if answer.body["code"] == "tap-again" => {
                    let place = Arc::clone(&self.place);
                    self = Self::lay(&place, self.take().await).await;
                }
                _ => self.put_back().await,
            }
        }
    }

    /// Asks once. The card is put back whenever it leaves meanwhile. `None`: no answer came.
    async fn ask(&mut self, path: &str, body: &Value, key: &str) -> Option<Answer> {
        let Ok(client) = Client::connect(&self.place.socket).await else {
            tokio::time::sleep(AGAIN).await;
            return None;
        };
        let mut asked = std::pin::pin!(client.request_with_key(Method::POST, path, Some(body), Some(key)));
        let answer = loop {
            tokio::select! {
                answer = &mut asked => break answer.ok(),
                () = self.sim.gone() => self.sim = self.place.present(rested(&self.sim)).await,
            }
        };
        if answer.is_none() {
            self.place.cut_off.fetch_add(1, Ordering::Relaxed);
        }
        answer.filter(|answer| answer.status != 503)
    }
}

/// The card without power.
fn rested(sim: &CardSim) -> Chip {
    let mut chip = sim.chip();
    chip.reset();
    chip
}
