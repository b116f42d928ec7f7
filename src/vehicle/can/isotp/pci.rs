//! The first bytes of a frame: what kind it is, and what follows. Pure.

/// What a flow control frame says (ISO 15765-2:2016 §9.6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowStatus {
    /// 0: go on.
    Continue,
    /// 1: wait for another flow control.
    Wait,
    /// 2: the message is too long for the receiver.
    Overflow,
    /// 3 to F: reserved; the message is given up (§9.6.5.2).
    Reserved(u8),
}

/// A flow control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Go on, wait or give up.
    pub status: FlowStatus,
    /// Consecutive frames until the next flow control; 0: all.
    pub block_size: u8,
    /// Pause between them, as coded.
    pub st_min: u8,
}

impl Flow {
    /// Go on, under these conditions.
    #[must_use]
    pub fn go_on(block_size: u8, st_min: u8) -> Self {
        Self { status: FlowStatus::Continue, block_size, st_min }
    }

    pub(super) fn bytes(self) -> [u8; 3] {
        let status = match self.status {
            FlowStatus::Continue => 0,
            FlowStatus::Wait => 1,
            FlowStatus::Overflow => 2,
            FlowStatus::Reserved(code) => code & 0x0F,
        };
        [0x30 | status, self.block_size, self.st_min]
    }
}

/// A frame, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pci<'d> {
    /// A whole message.
    Single(&'d [u8]),
    /// The beginning of one.
    First {
        /// Bytes of the whole message.
        length: usize,
        /// Its first bytes: all that the frame holds.
        data: &'d [u8],
    },
    /// The next part.
    Consecutive {
        /// 0 to 15.
        number: u8,
        /// The rest of the frame, padding included.
        data: &'d [u8],
    },
    /// Flow control.
    Flow(Flow),
}

/// A frame that the standard says to ignore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Nothing in it.
    #[error("no byte where the kind of frame should stand")]
    Empty,
    /// Kinds 4 to F.
    #[error("kind {0:X} of byte 0 is reserved, expected 0 to 3")]
    Kind(u8),
    /// A length that the frame does not hold, or that this kind of frame may not have.
    #[error("the frame says {told} byte(s) and holds {held}")]
    Length {
        /// By its control bytes.
        told: usize,
        /// Behind them.
        held: usize,
    },
}

/// Reads the bytes behind an address prefix. `frame_bytes` is the length of the whole
/// frame, the prefix included: above 8 single frames have the longer form (§9.6.2).
///
/// # Errors
/// [`Malformed`]: the frame is to be ignored.
pub fn parse(data: &[u8], frame_bytes: usize) -> Result<Pci<'_>, Malformed> {
    let (&control, rest) = data.split_first().ok_or(Malformed::Empty)?;
    let low = control & 0x0F;
    match control >> 4 {
        0 if frame_bytes <= 8 => single(usize::from(low), rest),
        0 => match rest.split_first() {
            Some((&length, rest)) if low == 0 => single(usize::from(length), rest),
            _ => Err(Malformed::Length { told: usize::from(low), held: rest.len() }),
        },
        1 => first(low, rest),
        2 => Ok(Pci::Consecutive { number: low, data: rest }),
        3 => {
            // Some units leave out what they have no wish for.
            let byte = |place: usize| rest.get(place).copied().unwrap_or(0);
            let status = match low {
                0 => FlowStatus::Continue,
                1 => FlowStatus::Wait,
                2 => FlowStatus::Overflow,
                code => FlowStatus::Reserved(code),
            };
            Ok(Pci::Flow(Flow { status, block_size: byte(0), st_min: byte(1) }))
        }
        kind => Err(Malformed::Kind(kind)),
    }
}

fn single(told: usize, rest: &[u8]) -> Result<Pci<'_>, Malformed> {
    let payload = rest.get(..told).filter(|payload| !payload.is_empty());
    payload.map(Pci::Single).ok_or(Malformed::Length { told, held: rest.len() })
}

fn first(high: u8, rest: &[u8]) -> Result<Pci<'_>, Malformed> {
    let [low, data @ ..] = rest else { return Err(Malformed::Length { told: 0, held: 0 }) };
    let short = usize::from(high) << 8 | usize::from(*low);
    let (length, data) = match (short, data) {
        (0, [a, b, c, d, data @ ..]) => {
            let length = u32::from_be_bytes([*a, *b, *c, *d]);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            // The escape is for lengths that need it (§9.6.3.1).
            let needed = length > super::LONGEST_WITHOUT_ESCAPE;
            (if needed { length } else { 0 }, data)
        }
        (0, _) => (0, data),
        (short, data) => (short, data),
    };
    // A message that fits into one frame may not begin with a first frame (§9.6.3.2).
    if length <= data.len() || data.is_empty() {
        return Err(Malformed::Length { told: length, held: data.len() });
    }
    Ok(Pci::First { length, data })
}
