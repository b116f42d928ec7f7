//! SLE4442 contact memory cards behind a reader of ACS: its pseudo-APDUs, what their answers
//! mean, and the serial that a card without one gets at its issue. Pure. What does not live
//! here: the conversations (`probe`, `medium::contact`), and whose code it is (`keys`).
//!
//! ```text
//!  0 "A2131091" · 4 the maker's ── 8 serial · 14 its complement ── 20 the maker's ── 32 … 255 ours
//!    └ protected for ever by the maker   └ protected for ever at issue
//! ```
//! Commands after the ACR38x reference manual v6.02 §9.2.2.6, and the same in those of ACR39x and
//! ACR1281U-C1; memory and code after the SLE4442 data sheet (256 bytes, 32 of which can be
//! protected; a code of three bytes, and three tries).

use super::apdu::{Command, Response};
use super::crypto::{NoRandom, random};
use crate::ident::{CardUid, IdentError};

/// Historical bytes of its answer to reset: the first four bytes of its memory.
pub(super) const HISTORICAL: [u8; 4] = [0xA2, 0x13, 0x10, 0x91];
/// The bytes that can be protected, with everything that tells who it is.
pub(super) const HEAD_BYTES: u8 = 32;
/// Where the serial is, which no SLE4442 has as delivered, and behind it its complement.
pub(super) const SERIAL_AT: u8 = 8;
const SERIAL_BYTES: usize = 6;
/// What a card without a serial shows: its maker's bytes, the same on many.
const MAKERS_BYTES: usize = 8;
/// The ACS readers' name of the chip.
const CARD_TYPE: u8 = 0x06;
/// Bytes of protection bits that an ACR38 sends behind what was read.
const PROTECTION_BYTES: usize = 4;
/// All tries of the error counter: three bits, each try clears one.
pub(super) const ALL_TRIES: u8 = 3;
const COUNTER_BITS: u8 = 0x07;

/// A serial as it stands on the card: itself and its complement, so that a torn one is none.
pub(super) type Serial = [u8; 2 * SERIAL_BYTES];

/// Names the chip to the reader, which powers it anew.
pub(super) fn select() -> Command {
    Command::new([0xFF, 0xA4, 0x00, 0x00]).with_data(&[CARD_TYPE])
}

/// Reads main memory, which everybody may.
pub(super) fn read(at: u8, len: u8) -> Command {
    Command::new([0xFF, 0xB0, 0x00, at]).expecting(len)
}

/// Reads how many tries the code has left; presents nothing.
pub(super) fn error_counter() -> Command {
    Command::new([0xFF, 0xB1, 0x00, 0x00]).expecting(4)
}

/// Writes main memory. A card that was not shown its code does nothing, and the reader does
/// not know: what was written is read back.
pub(super) fn write(at: u8, data: &[u8]) -> Command {
    Command::new([0xFF, 0xD0, 0x00, at]).with_data(data)
}

/// Protects bytes for ever, each only if the card has it as it is given here.
pub(super) fn protect(at: u8, data: &[u8]) -> Command {
    Command::new([0xFF, 0xD1, 0x00, at]).with_data(data)
}

/// The bytes that a read brought.
pub(super) fn bytes_of(response: &Response, len: u8) -> Option<&[u8]> {
    let data = response.ok()?;
    let len = usize::from(len);
    let whole = data.len() == len || data.len() == len + PROTECTION_BYTES;
    data.get(..len).filter(|_| whole)
}

/// Tries that are left, by the answer to [`error_counter`].
pub(super) fn tries_left(response: &Response) -> Option<u8> {
    let [counter, _, _, _] = response.ok()? else { return None };
    u8::try_from((counter & COUNTER_BITS).count_ones()).ok()
}

/// What the card made of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presented {
    /// It may be written until it loses power.
    Right,
    /// It counted a try.
    Wrong,
    /// The reader did not say.
    Unheard,
}

/// By the answer to a code: `90` and the error counter, full again when it was right. 9000 is no
/// success here: the card is locked.
pub(super) fn presented(response: &Response) -> Presented {
    match response.status.0.to_be_bytes() {
        [0x90, COUNTER_BITS] => Presented::Right,
        [0x90, _] => Presented::Wrong,
        _ => Presented::Unheard,
    }
}

/// Who a card is by its first [`HEAD_BYTES`]: its serial, or its maker's bytes while it has none.
///
/// # Errors
/// There are no bytes.
pub(super) fn uid_of(head: &[u8]) -> Result<CardUid, IdentError> {
    let serial = head.get(usize::from(SERIAL_AT)..).and_then(<[u8]>::first_chunk::<{ 2 * SERIAL_BYTES }>);
    match serial {
        Some(bytes) if is_whole(bytes) => CardUid::from_bytes(bytes.get(..SERIAL_BYTES).unwrap_or_default()),
        _ => CardUid::from_bytes(head.get(..MAKERS_BYTES).unwrap_or(head)),
    }
}

/// Whether it has no serial yet.
pub(super) fn is_nameless(uid: &CardUid) -> bool {
    uid.as_str().len() != 2 * SERIAL_BYTES
}

/// A serial that no other card has.
///
/// # Errors
/// [`NoRandom`].
pub(super) fn new_serial() -> Result<Serial, NoRandom> {
    let mut serial = [0; 2 * SERIAL_BYTES];
    let bytes = with_complement(&random::<SERIAL_BYTES>()?);
    serial.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(serial)
}

/// The serial as it stands on the card that shows it.
pub(super) fn serial_of(uid: &CardUid) -> Vec<u8> {
    with_complement(&hex::decode(uid.as_str()).unwrap_or_default())
}

fn with_complement(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().chain(bytes.iter().map(|byte| !byte)).collect()
}

fn is_whole(serial: &Serial) -> bool {
    let (bytes, complement) = serial.split_at(SERIAL_BYTES);
    bytes.iter().zip(complement).all(|(byte, complement)| *byte == !complement)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(text: &str) -> Response {
        Response::parse(&hex::decode(text).unwrap()).unwrap()
    }

    /// ACR38x reference manual v6.02 §9.2.2.6, ACR1281U API §5.1.6.
    #[test]
    fn commands_are_the_makers() {
        for (name, command, bytes) in [
            ("select", select(), "FFA400000106"),
            ("read", read(0, HEAD_BYTES), "FFB0000020"),
            ("error counter", error_counter(), "FFB1000004"),
            ("write", write(0x40, &[1, 2]), "FFD00040020102"),
            ("protect", protect(8, &[0xAB]), "FFD1000801AB"),
        ] {
            assert_eq!(hex::encode_upper(command.to_bytes()), bytes, "{name}");
        }
    }

    #[test]
    fn answers_mean_what_the_manual_says() {
        for (told, meant) in [
            ("9007", Presented::Right),
            ("9000", Presented::Wrong),
            ("9003", Presented::Wrong),
            ("9001", Presented::Wrong),
            ("6300", Presented::Unheard),
            ("6A81", Presented::Unheard),
        ] {
            assert_eq!(presented(&answer(told)), meant, "{told}");
        }
        for (told, left) in [
            ("07FFFFFF9000", Some(3)),
            ("03FFFFFF9000", Some(2)),
            ("06FFFFFF9000", Some(2)),
            ("04FFFFFF9000", Some(1)),
            ("00FFFFFF9000", Some(0)),
            ("079000", None),
            ("07FFFFFF6300", None),
        ] {
            assert_eq!(tries_left(&answer(told)), left, "{told}");
        }
        assert_eq!(bytes_of(&answer("01029000"), 2), Some(&[1, 2][..]));
        assert_eq!(bytes_of(&answer("0102FFFFFFFF9000"), 2), Some(&[1, 2][..]), "an ACR38's protection bits");
        assert_eq!(bytes_of(&answer("0102FF9000"), 2), None);
    }

    #[test]
    fn a_card_without_a_serial_shows_its_makers_bytes() {
        let mut head = [0xFF; 32];
        head[..8].copy_from_slice(&[0xA2, 0x13, 0x10, 0x91, 0xFF, 0xFF, 0x81, 0x15]);
        let nameless = uid_of(&head).unwrap();
        assert_eq!(nameless.as_str(), "A2131091FFFF8115");
        assert!(is_nameless(&nameless));
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn a_torn_serial_is_none(
            written in 0..12_usize,
            bytes in proptest::array::uniform6(0u8..),
            head in proptest::array::uniform32(0u8..),
        ) {
            let serial = with_complement(&bytes);
            let mut torn = [0xFF; 32];
            torn[8..8 + written].copy_from_slice(&serial[..written]);
            // Only a serial with zeros in it is whole before its last byte.
            prop_assert!(bytes.contains(&0) || is_nameless(&uid_of(&torn).unwrap()));
            torn[8..20].copy_from_slice(&serial);
            let uid = uid_of(&torn).unwrap();
            prop_assert_eq!(uid.as_str(), hex::encode_upper(bytes));
            prop_assert_eq!(serial_of(&uid), serial);
            uid_of(&head).unwrap();
        }
    }
}
