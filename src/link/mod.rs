//! Byte transports: serial ports and TCP connections, opened exclusively and with
//! errors that say what to do; CAN sockets ([`can`]).
//! What does not live here: what the bytes mean.

pub mod can;
mod holder;
mod serial;

pub use holder::holder_of;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::config::values::Transport;

/// How long a TCP connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Baud rate where nothing says otherwise.
const DEFAULT_BAUD: u32 = 38_400;

/// An open byte stream to a device.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> ByteStream for T {}

/// A device could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The device node is not there.
    #[error("{path} is not there; plug the device in, or run `baygate devices` to see what is")]
    Missing {
        /// The node.
        path: PathBuf,
    },
    /// Another process holds it.
    #[error("{path} is held by another process: {holder}; stop it, or ask the daemon by the link's id")]
    Busy {
        /// The node.
        path: PathBuf,
        /// Who, when it could be found out.
        holder: String,
    },
    /// We may not open it.
    #[error(
        "{path} may not be opened by this user; install the udev rules or add the user to the node's group"
    )]
    Denied {
        /// The node.
        path: PathBuf,
    },
    /// The peer does not answer.
    #[error("{peer} cannot be reached: {source}; check power, address and network")]
    Unreachable {
        /// Host and port.
        peer: String,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else.
    #[error("{what}: {source}")]
    Other {
        /// Which device.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl LinkError {
    /// Stable code for `device.state`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "port-missing",
            Self::Busy { .. } => "port-busy",
            Self::Denied { .. } => "port-denied",
            Self::Unreachable { .. } => "unreachable",
            Self::Other { .. } => "port-error",
        }
    }
}

/// Opens a transport. `baud` overrides the address's rate (probing).
///
/// # Errors
/// [`LinkError`] saying what to do.
pub async fn open(transport: &Transport, baud: Option<u32>) -> Result<Box<dyn ByteStream>, LinkError> {
    match transport {
        Transport::Serial { path, baud: configured } => {
            let rate = baud.or(*configured).unwrap_or(DEFAULT_BAUD);
            serial::open(path, rate).map(|port| Box::new(port) as Box<dyn ByteStream>)
        }
        Transport::Tcp { host, port, interface } => {
            let stream = open_tcp(host, *port, interface.as_deref()).await?;
            Ok(Box::new(stream))
        }
        Transport::Lp { path } | Transport::Folder { path } => Err(LinkError::Other {
            what: path.display().to_string(),
            source: io::Error::new(io::ErrorKind::Unsupported, "this transport is not a byte stream here"),
        }),
    }
}

/// Waits until it is worth trying [`open`] again: at most `longest`, but a
/// serial port that is not there now is noticed as soon as it appears.
pub async fn wait_for_return(transport: &Transport, longest: Duration) {
    match transport {
        Transport::Serial { path, .. } | Transport::Lp { path } if !path.exists() => {
            tokio::time::timeout(longest, serial::appears(path)).await.unwrap_or(());
        }
        _ => tokio::time::sleep(longest).await,
    }
}

async fn open_tcp(host: &str, port: u16, interface: Option<&str>) -> Result<TcpStream, LinkError> {
    let peer = format!("{host}:{port}");
    let unreachable = |source| LinkError::Unreachable { peer: peer.clone(), source };
    let connect = async {
        let address = tokio::net::lookup_host((host, port))
            .await?
            .next()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
        let socket = if address.is_ipv4() {
            tokio::net::TcpSocket::new_v4()?
        } else {
            tokio::net::TcpSocket::new_v6()?
        };
        if let Some(interface) = interface {
            // Every Wi-Fi dongle has the same address: only the interface tells two bays apart.
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connect)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(unreachable)
}
