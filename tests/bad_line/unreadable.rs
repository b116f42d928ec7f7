//! A line under TLS: the proxy garbles bytes that it cannot read.

use std::path::PathBuf;

use baygate::config::tables::Confirm;

use super::hq::Hq;
use crate::authority::Authority;
use crate::dice::Dice;
use crate::fault_proxy::FaultProxy;
use crate::mqtt::{Mosquitto, free_port};

pub struct UnreadableLine {
    pub proxy: FaultProxy,
    pub hq: Hq,
    /// Its listener in plain text, for those who are not behind the proxy.
    pub broker: Mosquitto,
    folder: tempfile::TempDir,
}

impl UnreadableLine {
    pub async fn start(dice: &mut Dice, confirm: Confirm) -> Self {
        let (encrypted, folder) = (free_port(), tempfile::tempdir().unwrap());
        let with = Authority::new().mosquitto(folder.path(), "127.0.0.1");
        let broker = Mosquitto::start(&format!("listener {encrypted} 127.0.0.1\n{with}")).await;
        let proxy = FaultProxy::start_opaque(encrypted, dice.fork());
        let hq = Hq::start(broker.port, confirm);
        Self { proxy, hq, broker, folder }
    }

    pub fn url(&self) -> String {
        format!("mqtts://127.0.0.1:{}", self.proxy.port)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}
