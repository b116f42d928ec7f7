//! `poll = "listen-only"`: the link is held open and nothing is ever written.

use super::Service;
use crate::config::values::VehicleLink;
use crate::event::Text;
use crate::event::device::DeviceStatus;
use crate::link;
use crate::vehicle::elm327::port::{Port, PortError};
use crate::vehicle::error::{AdapterError, VehicleError};

impl Service {
    pub(super) async fn listen(&mut self) -> Result<AdapterError, VehicleError> {
        let VehicleLink::Elm327(transport) = self.table.link.clone();
        let stream = match link::open(&transport, None).await {
            Ok(stream) => stream,
            Err(error) => return Ok(error.into()),
        };
        let mut port = Port::new(stream, None);
        let detail = "nothing is sent to this link; set poll = \"auto\" or \"on-request\" to read cars";
        self.device.set(DeviceStatus::Ready, Some("listen-only"), Some(detail.into())).await?;
        let mut head = self.store.head();
        loop {
            let refusal = Text::new(
                "该链路配置为只听（listen-only），不发送任何请求；请改为 poll = \"on-request\"",
                "this link is configured listen-only and sends nothing; set poll = \"on-request\"",
            );
            self.refuse_requests("listen-only", &refusal).await?;
            tokio::select! {
                heard = port.listen() => match heard {
                    Ok(bytes) => {
                        metrics::counter!("baygate_vehicle_heard_bytes_total", "link" => self.table.id.to_string())
                            .increment(bytes as u64);
                    }
                    Err(PortError::Gone(error)) => return Ok(AdapterError::Gone(error.to_string())),
                    Err(error) => return Ok(AdapterError::Garbled(error.to_string())),
                },
                changed = head.changed() => if changed.is_err() {
                    return Ok(AdapterError::Gone("the log is closed".into()));
                },
            }
        }
    }
}
