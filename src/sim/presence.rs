//! The coming and going of a simulated device: it is plugged in, its cable is
//! pulled, it is put back under the same name. What does not live here: what it says.

use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::transport::{Address, Endpoint};

/// Before another attempt when a device cannot return.
const PAUSE: Duration = Duration::from_millis(100);

/// A device that can be plugged in.
pub trait Device: Send + 'static {
    /// Talks until the transport breaks. Dropped in the middle when the cable is pulled.
    fn serve(&mut self, endpoint: Endpoint) -> impl Future<Output = ()> + Send;
    /// Its power was cut.
    fn power_cycle(&mut self);
}

/// Control over a device's presence. Dropping it takes the device away.
#[derive(Debug)]
pub struct Presence {
    wanted: watch::Sender<bool>,
    there: watch::Receiver<Option<String>>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
    /// The last name, for while the device is away.
    name: String,
}

impl Presence {
    /// Plugs the device in.
    ///
    /// # Errors
    /// See [`Endpoint::open`].
    pub async fn begin(device: impl Device, address: Address) -> io::Result<Self> {
        let endpoint = Endpoint::open(&address).await?;
        let name = endpoint.name();
        // A returning listener must come back on the port the client knows.
        let address = match (&address, name.parse()) {
            (Address::Tcp(_), Ok(bound)) => Address::Tcp(bound),
            _ => address,
        };
        let (wanted, wanted_seen) = watch::channel(true);
        let (there_set, there) = watch::channel(Some(name.clone()));
        let stop = CancellationToken::new();
        let run = run(device, endpoint, address, wanted_seen, there_set);
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            stopped.run_until_cancelled(run).await;
        });
        Ok(Self { wanted, there, stop, task: Some(task), name })
    }

    /// What a client opens: a path or `host:port`.
    #[must_use]
    pub fn name(&self) -> String {
        self.there.borrow().clone().unwrap_or_else(|| self.name.clone())
    }

    /// Pulls the cable. Returns when the device is gone.
    pub async fn vanish(&mut self) {
        self.wanted.send_replace(false);
        let _ = self.there.wait_for(Option::is_none).await;
    }

    /// Puts the device back. Returns when it is there.
    pub async fn come_back(&mut self) {
        self.wanted.send_replace(true);
        let _ = self.there.wait_for(Option::is_some).await;
    }

    /// Takes the device away for good.
    pub async fn end(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn run(
    mut device: impl Device,
    first: Endpoint,
    address: Address,
    mut wanted: watch::Receiver<bool>,
    there: watch::Sender<Option<String>>,
) {
    let mut endpoint = Some(first);
    loop {
        if let Some(open) = endpoint.take() {
            there.send_replace(Some(open.name()));
            tokio::select! {
                () = device.serve(open) => {}
                _ = until(&mut wanted, false) => {}
            }
            device.power_cycle();
            there.send_replace(None);
        }
        if !until(&mut wanted, true).await {
            return;
        }
        match Endpoint::open(&address).await {
            Ok(open) => endpoint = Some(open),
            Err(error) => {
                tracing::warn!(%error, "simulated device cannot return");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Waits until the device is to be there or not. False: nobody controls it any more.
async fn until(wanted: &mut watch::Receiver<bool>, there: bool) -> bool {
    wanted.wait_for(|wanted| *wanted == there).await.is_ok()
}
