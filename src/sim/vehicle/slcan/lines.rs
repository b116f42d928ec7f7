//! The lines of the protocol that hold a frame (Lawicel CAN232 manual).

use super::SlcanProfile;
use crate::sim::vehicle::car::Frame;

/// Bits a second of `S0` to `S8`.
pub(super) const RATES: [u32; 9] =
    [10_000, 20_000, 50_000, 100_000, 125_000, 250_000, 500_000, 800_000, 1_000_000];

/// A frame of the host, behind its `t`, or, `wide`, `T`.
pub(super) fn parse(wide: bool, text: &str) -> Option<Frame> {
    let (id, rest) = text.split_at_checked(if wide { 8 } else { 3 })?;
    let (length, data) = rest.split_at_checked(1)?;
    let length: usize = length.parse().ok().filter(|length| *length <= 8)?;
    let data = hex::decode(data).ok().filter(|data| data.len() == length)?;
    Some(Frame { id: u32::from_str_radix(id, 16).ok()?, extended: wide, data })
}

/// A frame of the bus.
pub(super) fn print(frame: &Frame, profile: &SlcanProfile) -> Vec<u8> {
    let id = if frame.extended { format!("T{:08X}", frame.id) } else { format!("t{:03X}", frame.id) };
    let time = if profile.stamps { "1A2B" } else { "" };
    let garbage = if profile.garbage { "t7E8ZZ\rW\0\n\r" } else { "" };
    format!("{garbage}{id}{:X}{}{time}\r", frame.data.len(), hex::encode_upper(&frame.data)).into_bytes()
}

/// What a car's engine says of itself.
pub(super) fn chatter() -> Frame {
    Frame { id: 0x280, extended: false, data: vec![0x49, 0x0E, 0, 0, 0, 0, 0, 0] }
}
