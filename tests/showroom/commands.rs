//! Headquarters' command desk: gives commands and gives them again until their
//! result is told. Each id may act once, whatever is killed and however often it comes.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::BASE;
use super::dice::Dice;
use super::stream::Stream;

/// A command and how often it went to the broker.
#[derive(Debug, Clone)]
pub struct Order {
    pub id: Uuid,
    pub name: &'static str,
    pub args: Value,
    pub sent: u32,
}

#[derive(Debug, Default)]
pub struct Orders {
    pub given: Mutex<Vec<Order>>,
}

pub struct CommandDesk {
    pub port: u16,
    pub orders: Arc<Orders>,
    pub stream: Arc<Stream>,
    /// Each goes out once; only what the broker did not take goes again.
    pub once: bool,
}

impl CommandDesk {
    /// Until `stop`, and then until every command has its result.
    pub async fn work(self, mut dice: Dice, stop: CancellationToken) {
        loop {
            let waiting = self.waiting();
            if stop.is_cancelled() && waiting.is_empty() {
                return;
            }
            for order in waiting {
                if !self.once || order.sent == 0 {
                    self.send(&order).await;
                }
            }
            if !stop.is_cancelled() && dice.percent(50) {
                let bay = dice.pick(&["bay-1", "bay-2"]);
                let (name, args) = dice.pick(&[("ping", None), ("ping", None), ("vehicle.scan", Some(bay))]);
                let args = args.map_or(json!({}), |bay| json!({ "link": bay }));
                let order = Order { id: dice.uuid(), name, args, sent: 0 };
                self.orders.given.lock().unwrap().push(order.clone());
                self.send(&order).await;
            }
            let given = self.orders.given.lock().unwrap().clone();
            if !self.once && !given.is_empty() && dice.percent(30) {
                // Long answered, perhaps: it must stay silent.
                self.send(&given[usize::try_from(dice.below(given.len() as u64)).unwrap()]).await;
            }
            tokio::time::sleep(Duration::from_millis(150) + dice.pause(300)).await;
        }
    }

    /// Without result so far.
    fn waiting(&self) -> Vec<Order> {
        let given = self.orders.given.lock().unwrap().clone();
        self.stream.with(|heard| {
            let answered = |id: Uuid| {
                heard.of("command.result").iter().any(|data| data["command_id"] == id.to_string().as_str())
            };
            given.into_iter().filter(|order| !answered(order.id)).collect()
        })
    }

    async fn send(&self, order: &Order) {
        let payload = json!({ "id": order.id, "args": order.args }).to_string();
        let topic = format!("{BASE}/command/{}", order.name);
        let sent = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-t", &topic, "-m", &payload])
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status();
        // A frozen or dead broker takes nothing: later, then.
        if matches!(tokio::time::timeout(Duration::from_secs(5), sent).await, Ok(Ok(status)) if status.success())
        {
            let mut given = self.orders.given.lock().unwrap();
            given.iter_mut().filter(|known| known.id == order.id).for_each(|known| known.sent += 1);
        }
    }
}
