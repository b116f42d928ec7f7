//! A frame of a CAN bus, and its form in the kernel's memory (linux/can.h). Pure.

/// Marks 29 bits (`CAN_EFF_FLAG`).
const EXTENDED: u32 = 0x8000_0000;
/// Marks a remote frame (`CAN_RTR_FLAG`).
const REMOTE: u32 = 0x4000_0000;
/// Marks an error frame (`CAN_ERR_FLAG`).
const ERROR: u32 = 0x2000_0000;
/// Size of `struct can_frame` (`CAN_MTU`).
const CLASSIC_BYTES: usize = 16;
/// Size of `struct canfd_frame` (`CANFD_MTU`).
pub(super) const FD_BYTES: usize = 72;
/// `CANFD_BRS`: the data phase is faster.
const BIT_RATE_SWITCH: u8 = 0x01;
/// Where the data begin in both structs.
const HEAD: usize = 8;

/// An arbitration ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    raw: u32,
    extended: bool,
}

impl Id {
    /// 11 bits; higher ones are cut off.
    #[must_use]
    pub const fn standard(id: u32) -> Self {
        Self { raw: id & 0x7FF, extended: false }
    }

    /// 29 bits; higher ones are cut off.
    #[must_use]
    pub const fn extended(id: u32) -> Self {
        Self { raw: id & 0x1FFF_FFFF, extended: true }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.raw
    }

    /// 29 bits.
    #[must_use]
    pub const fn is_extended(self) -> bool {
        self.extended
    }

    /// As the kernel writes it in frames and filters.
    #[must_use]
    pub(super) const fn kernel(self) -> u32 {
        if self.extended { self.raw | EXTENDED } else { self.raw }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.extended { write!(f, "{:08X}", self.raw) } else { write!(f, "{:03X}", self.raw) }
    }
}

/// A data frame, classic or FD.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    id: Id,
    data: [u8; 64],
    length: u8,
    fd: bool,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}{}", self.id, if self.fd { "#" } else { "" }, hex::encode_upper(self.data()))
    }
}

impl Frame {
    /// `None`: more than 8 bytes, on FD more than 64, or a length that no FD frame has.
    #[must_use]
    pub fn new(id: Id, data: &[u8], fd: bool) -> Option<Self> {
        let fits =
            if fd { matches!(data.len(), 0..=8 | 12 | 16 | 20 | 24 | 32 | 48 | 64) } else { data.len() <= 8 };
        let mut bytes = [0; 64];
        bytes.get_mut(..data.len()).filter(|_| fits)?.copy_from_slice(data);
        Some(Self { id, data: bytes, length: u8::try_from(data.len()).ok()?, fd })
    }

    /// Its arbitration ID.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    /// Its data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// CAN FD.
    #[must_use]
    pub fn is_fd(&self) -> bool {
        self.fd
    }

    /// As a raw socket takes it.
    #[must_use]
    pub(super) fn kernel_bytes(&self) -> Vec<u8> {
        let mut bytes = self.id.kernel().to_ne_bytes().to_vec();
        bytes.extend([self.length, if self.fd { BIT_RATE_SWITCH } else { 0 }, 0, 0]);
        bytes.extend_from_slice(&self.data);
        bytes.truncate(if self.fd { FD_BYTES } else { CLASSIC_BYTES });
        bytes
    }
}

/// What an error frame says (linux/can/error.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BusTrouble {
    /// The controller left the bus (`CAN_ERR_BUSOFF`).
    pub bus_off: bool,
    /// It is back (`CAN_ERR_RESTARTED`).
    pub restarted: bool,
    /// Frames on the bus make no sense at this bit rate (`CAN_ERR_PROT`, `CAN_ERR_BUSERROR`), or the
    /// receive error counter says so (`CAN_ERR_CRTL_RX_PASSIVE`).
    pub nonsense: bool,
    /// Nobody acknowledged a frame of ours (`CAN_ERR_ACK`).
    pub unacknowledged: bool,
    /// The controller is error-passive (`CAN_ERR_CRTL_{RX,TX}_PASSIVE`).
    pub passive: bool,
    /// The controller itself lost frames (`CAN_ERR_CRTL_RX_OVERFLOW`).
    pub overrun: bool,
}

/// What a raw socket gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A data frame.
    Frame(Frame),
    /// An error frame of the controller.
    Trouble(BusTrouble),
    /// Something without data: a remote frame.
    Other,
}

/// Reads what a raw socket gave; `None`: too short for anything.
pub(super) fn from_kernel(bytes: &[u8]) -> Option<Heard> {
    let (&id, rest) = bytes.split_first_chunk::<4>()?;
    let id = u32::from_ne_bytes(id);
    let length = usize::from(*rest.first()?);
    let data = bytes.get(HEAD..)?.get(..length)?;
    if id & ERROR != 0 {
        return Some(Heard::Trouble(trouble(id, data)));
    }
    if id & REMOTE != 0 {
        return Some(Heard::Other);
    }
    let id = if id & EXTENDED == 0 { Id::standard(id) } else { Id::extended(id) };
    Frame::new(id, data, bytes.len() == FD_BYTES).map(Heard::Frame)
}

/// Classes of error frames and the controller's byte (linux/can/error.h).
fn trouble(id: u32, data: &[u8]) -> BusTrouble {
    let class = |bit: u32| id & bit != 0;
    let controller = data.get(1).copied().filter(|_| class(0x04)).unwrap_or(0);
    // Byte 3: where in the frame; 19 and 1B are the slot and delimiter of the acknowledgement.
    let at_acknowledgement = class(0x08) && matches!(data.get(3), Some(0x19 | 0x1B));
    BusTrouble {
        bus_off: class(0x40),
        restarted: class(0x100),
        nonsense: (class(0x08) || class(0x80)) && !at_acknowledgement || controller & 0x10 != 0,
        unacknowledged: class(0x20) || at_acknowledgement,
        passive: controller & 0x30 != 0,
        overrun: controller & 0x01 != 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_of_the_kernel() {
        // Source: linux/can.h and linux/can/error.h, little end first as on every box we ship for.
        let classic = Frame::new(Id::standard(0x7DF), &[2, 1, 0], false).unwrap();
        assert_eq!(classic.kernel_bytes()[4..11], [3, 0, 0, 0, 2, 1, 0]);
        assert_eq!(classic.kernel_bytes().len(), 16);
        let wide = Frame::new(Id::extended(0x18DB_33F1), &[0; 12], true).unwrap();
        assert_eq!(wide.kernel_bytes()[..6], [0xF1, 0x33, 0xDB, 0x98, 12, 1]);
        assert_eq!(Frame::new(Id::standard(1), &[0; 9], true), None);
        assert_eq!(Frame::new(Id::standard(1), &[0; 12], false), None);

        let error = |class: u32, controller: u8| {
            let mut bytes = (class | ERROR).to_ne_bytes().to_vec();
            bytes.extend([8, 0, 0, 0, 0, controller, 0, 0, 0, 0, 0, 0]);
            from_kernel(&bytes)
        };
        let trouble = BusTrouble::default();
        assert_eq!(error(0x40, 0), Some(Heard::Trouble(BusTrouble { bus_off: true, ..trouble })));
        assert_eq!(error(0x88, 0), Some(Heard::Trouble(BusTrouble { nonsense: true, ..trouble })));
        let passive = BusTrouble { passive: true, nonsense: true, ..trouble };
        assert_eq!(error(0x04, 0x10), Some(Heard::Trouble(passive)));
        let mut nobody = (0x88 | ERROR).to_ne_bytes().to_vec();
        nobody.extend([8, 0, 0, 0, 0, 0, 0x80, 0x19, 0, 0, 0, 0]);
        let unacknowledged = Heard::Trouble(BusTrouble { unacknowledged: true, ..trouble });
        assert_eq!(from_kernel(&nobody), Some(unacknowledged), "an asleep car is no wrong rate");
        assert_eq!(error(0x20, 0), Some(Heard::Trouble(BusTrouble { unacknowledged: true, ..trouble })));
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn what_is_written_is_read(id in 0_u32..0x2000_0000, extended: bool, data in proptest::collection::vec(any::<u8>(), 0..9), fd: bool) {
            let id = if extended { Id::extended(id) } else { Id::standard(id) };
            let frame = Frame::new(id, &data, fd).unwrap();
            prop_assert_eq!(from_kernel(&frame.kernel_bytes()), Some(Heard::Frame(frame)));
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = from_kernel(&bytes);
        }
    }
}
