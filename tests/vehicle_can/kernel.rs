//! The kernel's own ISO-TP as a peer, and raw bytes onto a bus. Written from
//! linux/can/isotp.h; nothing here uses the code under test.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use baygate::link::can::Id;
use socket2::{Domain, Protocol, Socket, Type};
use socketcan::{CanAddr, CanSocket, ExtendedId, Socket as _, SocketOptions, StandardId};

const PF_CAN: i32 = 29;
const CAN_ISOTP: i32 = 6;
const SOL_CAN_ISOTP: i32 = 106;
const OPTS: i32 = 1;
const RECV_FC: i32 = 2;
const LL_OPTS: i32 = 5;
const EXTEND_ADDR: u32 = 0x002;
const TX_PADDING: u32 = 0x004;
const RX_EXT_ADDR: u32 = 0x200;

/// How the kernel is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// FD frames of so many bytes; 0 classic.
    pub frame_bytes: usize,
    /// First bytes of the frames the kernel sends and receives.
    pub addresses: Option<(u8, u8)>,
    pub block_size: u8,
    pub st_min: u8,
    pub padding: Option<u8>,
}

struct Handle<'s>(&'s Socket);
impl AsRawFd for Handle<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
impl SocketOptions for Handle<'_> {}

/// A socket that does ISO-TP in the kernel.
pub struct KernelIsoTp(Socket);

impl KernelIsoTp {
    /// `listens` is what it receives, `says` what it sends.
    pub fn open(interface: &str, listens: Id, says: Id, options: Options) -> Self {
        let socket = Socket::new(Domain::from(PF_CAN), Type::DGRAM, Some(Protocol::from(CAN_ISOTP))).unwrap();
        let (sends, receives) = options.addresses.unwrap_or_default();
        let mut flags = if options.padding.is_some() { TX_PADDING } else { 0 };
        if options.addresses.is_some() {
            flags |= EXTEND_ADDR | RX_EXT_ADDR;
        }
        // can_isotp_options: flags, frame_txtime, ext_address, txpad, rxpad, rx_ext_address.
        let mut bytes = flags.to_ne_bytes().to_vec();
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend([sends, options.padding.unwrap_or(0), 0, receives]);
        let handle = Handle(&socket);
        handle.set_socket_option_bytes(SOL_CAN_ISOTP, OPTS, &bytes).unwrap();
        let flow = [options.block_size, options.st_min, 0];
        handle.set_socket_option_bytes(SOL_CAN_ISOTP, RECV_FC, &flow).unwrap();
        if options.frame_bytes > 8 {
            let link = [72, u8::try_from(options.frame_bytes).unwrap(), 0];
            handle.set_socket_option_bytes(SOL_CAN_ISOTP, LL_OPTS, &link).unwrap();
        }
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let address = CanAddr::from_iface_isotp(interface, id(listens), id(says)).unwrap();
        socket.bind(&address.into_sock_addr()).unwrap();
        Self(socket)
    }

    pub fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; 10_000];
        let count = (&self.0).read(&mut bytes).unwrap();
        bytes.truncate(count);
        bytes
    }

    pub fn write(&self, payload: &[u8]) {
        assert_eq!((&self.0).write(payload).unwrap(), payload.len());
    }
}

fn id(id: Id) -> socketcan::Id {
    if id.is_extended() {
        socketcan::Id::Extended(ExtendedId::new(id.number()).unwrap())
    } else {
        socketcan::Id::Standard(StandardId::new(u16::try_from(id.number()).unwrap()).unwrap())
    }
}

/// A socket for raw bytes.
pub fn raw(interface: &str) -> CanSocket {
    CanSocket::open(interface).unwrap()
}

/// Writes a frame as it lies in memory (`struct can_frame`); waits while the queue is full.
pub fn raw_write(socket: &CanSocket, frame: &[u8; 16]) {
    while nix::unistd::write(socket, frame).is_err() {
        std::thread::yield_now();
    }
}

/// An error frame (`CAN_ERR_FLAG` and a class), as a controller's driver makes it.
pub fn error_frame(class: u32, data: [u8; 8]) -> [u8; 16] {
    let mut frame = [0; 16];
    frame[..4].copy_from_slice(&(class | 0x2000_0000).to_ne_bytes());
    frame[4] = 8;
    frame[8..].copy_from_slice(&data);
    frame
}
