//! The first prompt. What lives here: opening the link at a rate at which the adapter answers,
//! and why nobody did. Nothing is set up, and nothing but probes is sent.

use super::baud::{ProbeError, open_probing};
use super::port::{Port, PortError};
use super::trace::Trace;
use crate::config::values::Transport;
use crate::link;
use crate::vehicle::error::AdapterError;

/// Attempts at the first prompt while a Bluetooth serial port connects.
const BLUETOOTH_ATTEMPTS: u32 = 4;

/// Opens the link and waits for the first prompt; the rate, where it was found by trying,
/// `remembered_baud` first.
///
/// # Errors
/// [`AdapterError`] saying what to do.
pub(super) async fn contact(
    transport: &Transport,
    remembered_baud: Option<u32>,
    trace: Option<Trace>,
) -> Result<(Port, Option<u32>), AdapterError> {
    match transport {
        // A Bluetooth serial port has no rate, and each opening dials the adapter anew.
        Transport::Serial { baud: None, .. } if !is_bluetooth(transport) => {
            let (port, rate) = open_probing(transport, remembered_baud, trace).await.map_err(unprobed)?;
            Ok((port, Some(rate)))
        }
        _ => {
            let mut port = Port::new(link::open(transport, None).await?, trace);
            first_contact(&mut port, is_bluetooth(transport)).await?;
            Ok((port, None))
        }
    }
}

fn unprobed(error: ProbeError) -> AdapterError {
    match error {
        ProbeError::Link(link) => AdapterError::Link(link),
        ProbeError::NoRate { bytes_seen: 0 } => AdapterError::Silent,
        ProbeError::NoRate { bytes_seen } => {
            AdapterError::Garbled(format!("{bytes_seen} byte(s) at six rates, none with a prompt"))
        }
    }
}

/// `/dev/rfcomm*` (BlueZ): opens at once and connects within some seconds.
fn is_bluetooth(transport: &Transport) -> bool {
    let Transport::Serial { path, .. } = transport else { return false };
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rfcomm"))
}

/// Waits for the first prompt. Each attempt takes two to three seconds.
async fn first_contact(port: &mut Port, dials_first: bool) -> Result<(), AdapterError> {
    let attempts = if dials_first { BLUETOOTH_ATTEMPTS } else { 1 };
    for _ in 1..attempts {
        match port.resync().await {
            Ok(()) => return Ok(()),
            Err(PortError::NoPrompt { bytes: 0, .. }) => {}
            Err(error) => return Err(no_first_contact(&error)),
        }
    }
    port.resync().await.map_err(|error| no_first_contact(&error))
}

fn no_first_contact(error: &PortError) -> AdapterError {
    match error {
        PortError::Gone(error) => AdapterError::Gone(error.to_string()),
        PortError::NoPrompt { bytes: 0, .. } => AdapterError::Silent,
        PortError::NoPrompt { .. } | PortError::Flood | PortError::Restarted | PortError::Misheard => {
            AdapterError::Garbled(error.to_string())
        }
    }
}
