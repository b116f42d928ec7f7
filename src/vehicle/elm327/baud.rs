//! Finding a serial adapter's rate: open at each, send a probe, look for a prompt.

use std::time::Duration;

use super::port::{Port, PortError};
use super::trace::Trace;
use crate::config::values::Transport;
use crate::link::{self, LinkError};

/// In the order of likelihood: the chip's two defaults, then what makers set.
pub const RATES: [u32; 6] = [38_400, 9_600, 230_400, 115_200, 57_600, 19_200];
/// How long one rate may take altogether. Where none brought a prompt all are tried once more, for
/// longer: a box with much to do reads late, and an adapter may have something to finish first.
const RATE_LIMITS: [Duration; 2] = [Duration::from_millis(700), Duration::from_millis(1_500)];

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
    let tries = RATE_LIMITS.into_iter().flat_map(|limit| rates.clone().map(move |rate| (rate, limit)));
    for (rate, limit) in tries {
        let stream = link::open(transport, Some(rate)).await?;
        let mut port = Port::new(stream, trace.take());
        match tokio::time::timeout(limit, port.resync()).await {
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
