//! A recording vehicle: the simulator behind a wire that keeps every byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Profile, SlcanProfile, SlcanSim, VehicleSim};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::list::is_reading;

/// A wire with an ear on it: everything the gateway sends is kept, and passed on.
pub struct Tap {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tap {
    pub async fn before(adapter: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((gateway, _)) = listener.accept().await {
                let Ok(adapter) = TcpStream::connect(adapter).await else { continue };
                for side in [&gateway, &adapter] {
                    side.set_nodelay(true).unwrap();
                }
                let (mut from, mut back) = gateway.into_split();
                let (mut answers, mut to) = adapter.into_split();
                let passing = async {
                    let mut buffer = [0; 512];
                    while let Ok(count @ 1..) = from.read(&mut buffer).await {
                        record.lock().unwrap().extend_from_slice(&buffer[..count]);
                        if to.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                    }
                };
                let answering = async {
                    let _ = tokio::io::copy(&mut answers, &mut back).await;
                };
                tokio::select! { () = passing => {}, () = answering => {} }
            }
        });
        Self { address, heard, task }
    }

    pub fn link(&self) -> String {
        format!("elm327+tcp://{}", self.address)
    }

    pub fn slcan(&self) -> String {
        format!("slcan+tcp://{}", self.address)
    }

    pub fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }

    /// The services that were asked, each once.
    pub fn services(&self) -> std::collections::BTreeSet<String> {
        let text = String::from_utf8(self.heard()).unwrap();
        text.split('\r').filter(|c| is_reading(c)).map(|command| command[..2].to_owned()).collect()
    }
}

pub async fn tapped(adapter: SimAdapter, car: Option<CarSpec>) -> (VehicleSim, Tap) {
    let profile = Profile { adapter, car };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let tap = Tap::before(sim.addr().unwrap()).await;
    (sim, tap)
}

pub async fn tapped_bus(profile: SlcanProfile, car: &CarSpec) -> (SlcanSim, Tap) {
    let sim = SlcanSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile, car).await.unwrap();
    let tap = Tap::before(sim.name().parse().unwrap()).await;
    (sim, tap)
}
