//! Serial ports: opened for us alone (`TIOCEXCL` and `flock`, both by the
//! serialport crate), and the wait for a pulled one to come back.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio_serial::{ClearBuffer, ErrorKind, SerialPort, SerialPortBuilderExt, SerialStream};

use super::LinkError;
use super::holder::holder_of;

/// How often a missing node is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) fn open(path: &Path, baud: u32) -> Result<SerialStream, LinkError> {
    if !path.exists() {
        return Err(LinkError::Missing { path: path.to_owned() });
    }
    let port = tokio_serial::new(path.to_string_lossy(), baud)
        .exclusive(true)
        .open_native_async()
        .map_err(|error| explain(path, error))?;
    // What arrived before we came belongs to nobody's question.
    if let Err(error) = port.clear(ClearBuffer::All) {
        tracing::debug!(port = %path.display(), %error, "old input not cleared");
    }
    Ok(port)
}

fn explain(path: &Path, error: tokio_serial::Error) -> LinkError {
    let path = path.to_owned();
    let busy = |path: std::path::PathBuf| {
        let holder = holder_of(&path)
            .unwrap_or_else(|| "it could not be found out which; try `sudo fuser -v` on the node".into());
        LinkError::Busy { path, holder }
    };
    match error.kind {
        // EBUSY of TIOCEXCL, EWOULDBLOCK of flock.
        ErrorKind::NoDevice | ErrorKind::Io(io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy) => {
            busy(path)
        }
        ErrorKind::Io(io::ErrorKind::NotFound) => LinkError::Missing { path },
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => LinkError::Denied { path },
        _ if !path.exists() => LinkError::Missing { path },
        _ => LinkError::Other { what: path.display().to_string(), source: error.into() },
    }
}

/// Returns as soon as the node is there.
pub(super) async fn appears(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
