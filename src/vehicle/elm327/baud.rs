//! Finding a serial adapter's rate: open at each, send a probe, look for a prompt.

use std::time::Duration;

use super::port::{Port, PortError};
use super::trace::Trace;
use crate::config::values::Transport;
use crate::link::{self, LinkError};

/// In the order of likelihood: the chip's two defaults, then what makers set.
pub const RATES: [u32; 6] = [38_400, 9_600, 230_400, 115_200, 57_600, 19_200];
/// How long one rate may take altogether.
const RATE_LIMIT: Duration = Duration::from_millis(700);

/// Opens a serial port at the rate at which the adapter answers.
///
/// # Errors
/// [`ProbeError`]: the port cannot be opened, or no rate brings a prompt.
pub async fn open_probing(
    transport: &Transport,
    remembered: Option<u32>,
    trace: Option<Trace>,
) -> Result<(Port, u32), ProbeError> {
    let mut trace = trace;
    let mut bytes_seen = 0;
    let rates = remembered.into_iter().chain(RATES.into_iter().filter(|rate| Some(*rate) != remembered));
    for rate in rates {
        let stream = link::open(transport, Some(rate)).await?;
        let mut port = Port::new(stream, trace.take());
        match tokio::time::timeout(RATE_LIMIT, port.resync()).await {
            Ok(Ok(())) => return Ok((port, rate)),
            Ok(Err(PortError::Gone(error))) => {
                return Err(ProbeError::Link(LinkError::Other {
                    what: transport.to_string(),
                    source: error,
                }));
            }
            Ok(Err(PortError::NoPrompt { bytes, .. })) => bytes_seen += bytes,
            Ok(Err(PortError::Flood | PortError::Restarted | PortError::Misheard)) => bytes_seen += 1,
            Err(_) => bytes_seen += port.bytes_received(),
        }
        trace = port.take_trace();
    }
    Err(ProbeError::NoRate { bytes_seen })
}

/// No rate was found.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The port cannot be opened.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Opened, but no prompt at any rate.
    #[error("no rate of {RATES:?} brings a prompt ({bytes_seen} byte(s) came)")]
    NoRate {
        /// How much came at all: zero means silence, more means garbage.
        bytes_seen: usize,
    },
}
