//! CAN interfaces of the kernel (SocketCAN). What lives here: the frame ([`Frame`]), a
//! raw socket with its filters, error frames and drop counter ([`CanSocket`]), and what
//! the interface is and does ([`interface`]). What does not: what frames mean.

mod frame;
pub mod interface;

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::SockRef;
use socketcan::{CanFdSocket, CanFilter, Socket as _, SocketOptions as _};
use tokio::io::unix::AsyncFd;

pub use frame::{BusTrouble, Frame, Heard, Id};
pub use interface::InterfaceError;

/// Room for what comes while we do not read: two seconds of a full 1 Mbit/s bus at about
/// 900 bytes of kernel memory a frame. The system's limit (net.core.rmem_max) may be lower.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;
/// All classes of error frames (`CAN_ERR_MASK`), as far as the driver tells them.
const ALL_ERRORS: u32 = 0x1FFF_FFFF;
/// In a filter: both marks of the kernel, so that 11 and 29 bits differ and remote frames stay out.
const MARKS: u32 = 0xC000_0000;

/// Which frames the kernel lets through. Error frames always pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// The ID, whose marked bits must be the same …
    pub id: Id,
    /// … as those of a frame. 0: every ID of this length.
    pub mask: u32,
}

/// A raw socket on one interface.
pub struct CanSocket {
    socket: AsyncFd<CanFdSocket>,
    interface: String,
    /// As the kernel counts since the socket was opened.
    dropped: u32,
    fd: bool,
}

impl CanSocket {
    /// Opens a socket that hears everything, error frames too.
    ///
    /// # Errors
    /// [`InterfaceError`] saying what to do.
    pub fn open(name: &str) -> Result<Self, InterfaceError> {
        let state = interface::state(name)?;
        if !state.up {
            return Err(InterfaceError::Down { name: name.to_owned() });
        }
        let explain = |error| InterfaceError::from_io(name, error);
        let socket = CanFdSocket::open(name).map_err(explain)?;
        socket.set_error_filter(ALL_ERRORS).map_err(explain)?;
        socket.set_nonblocking(true).map_err(explain)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1).map_err(|errno| explain(errno.into()))?;
        // Best with CAP_NET_ADMIN, which the daemon has not; the counter tells if it was too little.
        if let Err(error) = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER) {
            tracing::debug!(interface = name, %error, "receive buffer not raised");
        }
        // What it warns of is a descriptor that changes under it; a socket's does not.
        #[expect(deprecated, reason = "its successor can only be called with `unsafe`")]
        let socket = AsyncFd::new(socket).map_err(explain)?;
        Ok(Self { socket, interface: name.to_owned(), dropped: 0, fd: state.fd })
    }

    /// Over a socket that is open already and carries frames as the kernel writes them, one a
    /// message: where there is no CAN, to measure what comes behind it.
    ///
    /// # Errors
    /// What the system says.
    pub fn over(socket: OwnedFd, name: &str) -> io::Result<Self> {
        let socket = CanFdSocket::from(socket);
        socket.set_nonblocking(true)?;
        // As in `open`.
        #[expect(deprecated, reason = "its successor can only be called with `unsafe`")]
        let socket = AsyncFd::new(socket)?;
        Ok(Self { socket, interface: name.to_owned(), dropped: 0, fd: false })
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Whether the interface takes CAN FD frames.
    #[must_use]
    pub fn takes_fd(&self) -> bool {
        self.fd
    }

    /// Frames that the kernel dropped because they were not read in time, since the socket was opened.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Lets only these frames through; none at all: everything.
    ///
    /// # Errors
    /// What the system says.
    pub fn pass(&self, passes: &[Pass]) -> io::Result<()> {
        let socket = self.socket.get_ref();
        if passes.is_empty() {
            return socket.set_filter_accept_all();
        }
        let filters: Vec<CanFilter> =
            passes.iter().map(|pass| CanFilter::new(pass.id.kernel(), pass.mask | MARKS)).collect();
        socket.set_filters(&filters)
    }

    /// Whether frames sent over this socket are heard on it once they have left (as far as the
    /// driver knows) and pass its filters.
    ///
    /// # Errors
    /// What the system says.
    pub fn hear_own(&self, own: bool) -> io::Result<()> {
        self.socket.get_ref().set_recv_own_msgs(own)
    }

    /// Sends a frame; waits while the interface's queue is full.
    ///
    /// # Errors
    /// [`InterfaceError`] when the interface went down or away.
    pub async fn send(&self, frame: &Frame) -> Result<(), InterfaceError> {
        let bytes = frame.kernel_bytes();
        loop {
            let mut ready = self.socket.writable().await.map_err(|error| self.explain(error))?;
            let written = ready.try_io(|socket| Ok(nix::unistd::write(socket.get_ref(), &bytes)?));
            match written {
                Ok(Ok(_)) => return Ok(()),
                // The queue of the interface is full; the socket counts as writable all the same.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                Ok(Err(error)) => return Err(self.explain(error)),
                Err(_) => {}
            }
        }
    }

    /// Waits for a frame. Safe to cancel.
    ///
    /// # Errors
    /// [`InterfaceError`] when the interface went down or away.
    pub async fn hear(&mut self) -> Result<Heard, InterfaceError> {
        loop {
            let mut ready = self
                .socket
                .readable()
                .await
                .map_err(|error| InterfaceError::from_io(&self.interface, error))?;
            match ready.try_io(|socket| receive(socket.get_ref())) {
                Ok(Ok((heard, dropped))) => {
                    self.dropped = dropped.unwrap_or(self.dropped);
                    if let Some(heard) = heard {
                        return Ok(heard);
                    }
                }
                Ok(Err(error)) => return Err(InterfaceError::from_io(&self.interface, error)),
                Err(_) => {}
            }
        }
    }

    /// What is there already, without waiting.
    ///
    /// # Errors
    /// As [`Self::hear`].
    pub fn heard(&mut self) -> Result<Option<Heard>, InterfaceError> {
        loop {
            match receive(self.socket.get_ref()) {
                Ok((heard, dropped)) => {
                    self.dropped = dropped.unwrap_or(self.dropped);
                    if heard.is_some() {
                        return Ok(heard);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(self.explain(error)),
            }
        }
    }

    fn explain(&self, error: io::Error) -> InterfaceError {
        InterfaceError::from_io(&self.interface, error)
    }
}

/// Waits until it is worth trying [`CanSocket::open`] again: at most `longest`, but an
/// interface that is down or away now is noticed as soon as it is up.
pub async fn wait_for_return(interface: &str, longest: std::time::Duration) {
    if interface::state(interface).is_ok_and(|state| state.up) {
        tokio::time::sleep(longest).await;
    } else {
        tokio::time::timeout(longest, interface::comes_up(interface)).await.unwrap_or(());
    }
}

/// One frame, and how many were dropped before it, where the kernel tells.
fn receive(socket: &CanFdSocket) -> io::Result<(Option<Heard>, Option<u32>)> {
    let mut bytes = [0_u8; frame::FD_BYTES];
    let mut control = nix::cmsg_space!(u32);
    let (length, dropped) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let dropped = message.cmsgs().ok().into_iter().flatten().find_map(|part| match part {
            ControlMessageOwned::RxqOvfl(count) => Some(count),
            _ => None,
        });
        (message.bytes, dropped)
    };
    Ok((bytes.get(..length).and_then(frame::from_kernel), dropped))
}
