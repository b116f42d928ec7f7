//! `poll = "listen-only"`: once it is proven that nothing can be sent to the car, the link is held
//! open and nothing more is written. A bus that talks is a car that is there: its visit has no VIN
//! and no report, and what the link's databases make of the frames belongs to it. Of a dongle only
//! bytes are counted.

use tokio::time::{Instant, sleep_until};

use super::Service;
use super::visits::Surroundings;
use crate::config::values::VehicleLink;
use crate::event::Text;
use crate::event::device::DeviceStatus;
use crate::event::vehicle::Adapter as AdapterFacts;
use crate::vehicle::can::Ear;
use crate::vehicle::elm327::SilentDongle;
use crate::vehicle::error::{AdapterError, VehicleError};
use crate::vehicle::visit::{Seen, SeenVin};

/// Whoever hears and cannot speak.
enum Listener {
    Elm327(Box<SilentDongle>),
    Can(Box<Ear>),
}

impl Listener {
    async fn open(link: &VehicleLink) -> Result<Self, AdapterError> {
        match link {
            VehicleLink::Elm327(transport) => {
                Ok(Self::Elm327(Box::new(SilentDongle::open(transport).await?)))
            }
            VehicleLink::Can { .. } | VehicleLink::Slcan { .. } => {
                Ok(Self::Can(Box::new(Ear::open(link).await?)))
            }
        }
    }

    /// Bytes, or on CAN frames, heard. Safe to cancel.
    async fn hear(&mut self) -> Result<usize, AdapterError> {
        match self {
            Self::Elm327(dongle) => dongle.hear().await,
            Self::Can(ear) => ear.hear().await,
        }
    }

    fn counter(&self) -> &'static str {
        match self {
            Self::Elm327(_) => "baygate_vehicle_heard_bytes_total",
            Self::Can(_) => "baygate_vehicle_heard_frames_total",
        }
    }

    fn limitation(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Elm327(_) => None,
            Self::Can(ear) => ear.limitation(),
        }
    }
}

impl Service {
    pub(super) async fn listen(&mut self) -> Result<AdapterError, VehicleError> {
        let mut listener = match Listener::open(&self.table.link).await {
            Ok(listener) => listener,
            Err(error) => return Ok(error),
        };
        if let Listener::Can(ear) = &mut listener
            && let Some(witness) = self.overhear_link()
        {
            ear.set_witness(witness);
        }
        let (mut frames, mut next_look) = (0, Instant::now() + self.timing.pace.look);
        let mut head = self.store.head();
        // Somebody may have asked before.
        head.mark_changed();
        let refusal = Text::new(
            "该链路配置为只听（listen-only），不发送任何请求；请改为 poll = \"on-request\"",
            "this link is configured listen-only and sends nothing; set poll = \"on-request\"",
        );
        loop {
            match listener.limitation() {
                Some((code, detail)) => {
                    self.device.set(DeviceStatus::Degraded, Some(code), Some(detail)).await?;
                }
                None => {
                    let detail =
                        "nothing is sent to this link; set poll = \"auto\" or \"on-request\" to read cars";
                    self.device.set(DeviceStatus::Ready, Some("listen-only"), Some(detail.into())).await?;
                }
            }
            tokio::select! {
                heard = listener.hear() => match heard {
                    Ok(count) => {
                        frames += count;
                        metrics::counter!(listener.counter(), "link" => self.table.id.to_string())
                            .increment(count as u64);
                    }
                    Err(error) => return Ok(error),
                },
                () = sleep_until(next_look) => {
                    if let Listener::Can(ear) = &mut listener {
                        let talked = std::mem::take(&mut frames) > 0;
                        if !talked && let Err(error) = ear.check().await {
                            return Ok(error);
                        }
                        self.look_by_ear(ear, talked).await?;
                    }
                    next_look = Instant::now() + self.timing.pace.look;
                }
                changed = head.changed() => {
                    if changed.is_err() {
                        return Ok(AdapterError::Gone("the log is closed".into()));
                    }
                    // A query, so not at every breath of the bus.
                    self.refuse_requests("listen-only", &refusal).await?;
                }
            }
        }
    }

    /// A second of silence begins to count against the visit, a frame ends that.
    async fn look_by_ear(&mut self, ear: &mut Ear, talked: bool) -> Result<(), VehicleError> {
        if talked {
            ear.proven();
            let adapter =
                AdapterFacts { identity: ear.identity().to_owned(), firmware: None, voltage_v: None };
            let met = Surroundings { protocol: ear.protocol(), adapter };
            self.saw(Seen::Car(SeenVin::NotAsked), Some(met)).await?;
        } else {
            ear.forget();
            self.saw(Seen::BusSilent, None).await?;
        }
        self.overhear_visit();
        self.end_window().await
    }
}
