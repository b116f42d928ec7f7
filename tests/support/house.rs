//! A shop with the real daemon and headquarters behind it, over a real Mosquitto.
#![allow(dead_code, clippy::unwrap_used)]

use serde_json::{Value, json};
use uuid::Uuid;

use crate::counter_shop::Shop;
use crate::mqtt::{BASE, Listener, Mosquitto, publish};

pub struct House {
    pub shop: Shop,
    broker: Mosquitto,
    told: Listener,
}

impl House {
    /// With these rules beside the usual ones. Nobody has set the clock.
    pub async fn with(rules: &str) -> Self {
        let broker = Mosquitto::start("").await;
        let told = Listener::start(broker.port, "5", &format!("{BASE}/event/gateway/#")).await;
        let shop =
            Shop::open(&format!("{rules}\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n", broker.port)).await;
        let mut house = Self { shop, broker, told };
        house.online().await;
        house
    }

    async fn online(&mut self) {
        self.told.on("/gateway.started").await;
    }

    /// From the next start on a time service has set the clock: it is started.
    pub async fn sets_its_clock(&mut self) {
        let (synced, config) = (self.shop.desk.path("synchronized"), self.shop.desk.config());
        std::fs::write(&synced, "").unwrap();
        let text = std::fs::read_to_string(&config).unwrap();
        let line = format!("time_sync_file = {:?}\n[api]", synced.display().to_string());
        std::fs::write(&config, text.replacen("[api]", &line, 1)).unwrap();
        self.kill_and_restart().await;
    }

    pub async fn kill_and_restart(&mut self) {
        self.shop.kill_and_restart().await;
        self.online().await;
    }

    /// The line to headquarters is cut.
    pub fn loses_its_line(&mut self) {
        self.broker.kill();
    }

    /// What became of a command.
    pub async fn command(&mut self, name: &str, args: &Value) -> Value {
        let id = Uuid::now_v7();
        let payload = json!({ "id": id, "args": args }).to_string();
        publish(self.broker.port, &format!("{BASE}/command/{name}"), &payload, false).await;
        loop {
            let result = self.told.on("/command.result").await["data"].clone();
            if result["command_id"] == json!(id) {
                return result;
            }
        }
    }
}
