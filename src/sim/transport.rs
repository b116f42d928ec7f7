//! Where a simulated device is plugged in: a pseudo-terminal (optionally under a
//! stable link, so that hot plug can be played) or a TCP listener that serves one
//! client at a time. What does not live here: what the bytes mean.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_serial::{SerialPort, SerialStream};

/// A client that does not read for so long loses what was to be written, as on a real wire.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);

/// Where a simulator listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A pseudo-terminal; `link` is made to point at it while it is there.
    Pty {
        /// Stable path, replaced if it is a dangling link already.
        link: Option<PathBuf>,
    },
    /// A TCP listener; port 0 lets the system choose.
    Tcp(SocketAddr),
}

/// What a read brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes from the client.
    Bytes(Vec<u8>),
    /// The TCP client left; the next one may come.
    Left,
}

/// An open transport. Dropping it takes the device away.
#[derive(Debug)]
pub struct Endpoint {
    kind: Kind,
    /// The link to remove when the device vanishes.
    link: Option<PathBuf>,
    /// What a client opens: a path or `host:port`.
    name: String,
}

#[derive(Debug)]
enum Kind {
    Pty {
        master: Box<SerialStream>,
        /// Held open so that a client's closing is no hang-up, as on a real port.
        _slave: Box<SerialStream>,
    },
    Tcp {
        listener: TcpListener,
        client: Option<TcpStream>,
    },
}

impl Endpoint {
    /// Plugs the device in.
    ///
    /// # Errors
    /// No pseudo-terminal left, the address is taken, or the link's place is held by a real file.
    pub async fn open(address: &Address) -> io::Result<Self> {
        match address {
            Address::Pty { link } => {
                let (master, slave) = SerialStream::pair()?;
                let name = slave.name().ok_or_else(|| {
                    io::Error::other("the pseudo-terminal has no name; is /dev/pts mounted?")
                })?;
                if let Some(link) = link {
                    place_link(Path::new(&name), link)?;
                }
                let kind = Kind::Pty { master: Box::new(master), _slave: Box::new(slave) };
                Ok(Self { kind, link: link.clone(), name })
            }
            Address::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let name = listener.local_addr()?.to_string();
                Ok(Self { kind: Kind::Tcp { listener, client: None }, link: None, name })
            }
        }
    }

    /// What a client opens: the link if there is one, else the terminal's path or `host:port`.
    #[must_use]
    pub fn name(&self) -> String {
        self.link.as_ref().map_or_else(|| self.name.clone(), |link| link.display().to_string())
    }

    /// The rate the other side set on its end (`TCGETS2`), where there is such a thing.
    #[must_use]
    pub fn baud(&self) -> Option<u32> {
        match &self.kind {
            Kind::Pty { master, .. } => master.baud_rate().ok(),
            Kind::Tcp { .. } => None,
        }
    }

    /// Waits for bytes, on TCP for a client first. Safe to cancel.
    ///
    /// # Errors
    /// What the system says of the pseudo-terminal or the listener.
    pub async fn read(&mut self) -> io::Result<Input> {
        let mut buffer = [0_u8; 512];
        let count = match &mut self.kind {
            Kind::Pty { master, .. } => master.read(&mut buffer).await?,
            Kind::Tcp { listener, client } => {
                let stream = match client {
                    Some(stream) => stream,
                    None => {
                        let (stream, _) = listener.accept().await?;
                        stream.set_nodelay(true)?;
                        client.insert(stream)
                    }
                };
                let count = stream.read(&mut buffer).await.unwrap_or(0);
                if count == 0 {
                    *client = None;
                    return Ok(Input::Left);
                }
                count
            }
        };
        Ok(Input::Bytes(buffer.get(..count).unwrap_or_default().to_vec()))
    }

    /// Writes to whoever is there; what nobody takes is lost.
    pub async fn write(&mut self, bytes: &[u8]) {
        let write = async {
            match &mut self.kind {
                Kind::Pty { master, .. } => master.write_all(bytes).await,
                Kind::Tcp { client: Some(stream), .. } => stream.write_all(bytes).await,
                Kind::Tcp { client: None, .. } => Ok(()),
            }
        };
        if !matches!(tokio::time::timeout(WRITE_PATIENCE, write).await, Ok(Ok(()))) {
            tracing::debug!(bytes = bytes.len(), "simulated device had no reader");
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            let ours = std::fs::read_link(link).is_ok_and(|target| target == Path::new(&self.name));
            if ours && let Err(error) = std::fs::remove_file(link) {
                tracing::warn!(link = %link.display(), %error, "link of a simulated device stays behind");
            }
        }
    }
}

/// Points `link` at `target` atomically; refuses to replace anything but a link.
fn place_link(target: &Path, link: &Path) -> io::Result<()> {
    if let Ok(found) = std::fs::symlink_metadata(link)
        && !found.file_type().is_symlink()
    {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} is a real file; choose another --link-to", link.display()),
        ));
    }
    let mut fresh = link.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let _ = std::fs::remove_file(&fresh);
    std::os::unix::fs::symlink(target, &fresh)?;
    std::fs::rename(&fresh, link)
}
