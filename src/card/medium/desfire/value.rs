//! The value file of a DESFire: principal and bonus together, in fen. A record whose money is
//! not in it is none, so that who has the debit key, which writes records and takes off, puts no
//! money on a card: Credit takes the credit key. What does not live here: when it is asked
//! (`read`), changed (`write`) and created (`format`).

use crate::card::record::MemberRecord;
use crate::protocols::cards::ValuePlace;

/// GetValue.
pub(super) const GET: u8 = 0x6C;
/// CreateValueFile.
pub(super) const CREATE: u8 = 0xCC;
/// Credit and Debit, done by CommitTransaction.
const CREDIT: u8 = 0x0C;
const DEBIT: u8 = 0xDC;
/// LimitedCredit is off: it would let the debit key give back what it took.
const NO_LIMITED_CREDIT: u8 = 0x00;

/// What the file must hold beside this record; `None`: more than one can.
pub(super) fn of(record: &MemberRecord) -> Option<i32> {
    i32::try_from(record.balance_fen()).ok()
}

/// An answer to GetValue: low byte first.
pub(super) fn read(bytes: &[u8]) -> Option<i32> {
    bytes.try_into().ok().map(i32::from_le_bytes)
}

/// The command and amount from one value to another; `None`: nothing moves.
pub(super) fn change(from: i32, to: i32) -> Option<(u8, [u8; 4])> {
    let command = if to > from { CREDIT } else { DEBIT };
    (from != to).then(|| (command, from.abs_diff(to).to_le_bytes()))
}

/// Behind CreateValueFile: file, communication settings, rights low byte first, lower and upper
/// limit, value, LimitedCredit (MF3ICDx1 data sheet). Never below nothing.
pub(super) fn created(place: &ValuePlace, protection: u8) -> Vec<u8> {
    let [low, high] = place.access.to_le_bytes();
    let limits = [0, i32::MAX, 0].map(i32::to_le_bytes);
    [&[place.file, protection, low, high], limits.as_flattened(), &[NO_LIMITED_CREDIT]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_for_a_value() {
        let hex = |bytes: &[u8]| hex::encode_upper(bytes);
        let created = created(&ValuePlace { file: 3, access: 0x1F20 }, 0x03);
        assert_eq!(hex(&created), "0303201F00000000FFFFFF7F0000000000");
        assert_eq!(change(100, 70), Some((0xDC, [30, 0, 0, 0])));
        assert_eq!(change(0, 0x0102_0304), Some((0x0C, [4, 3, 2, 1])));
        assert_eq!(change(i32::MAX, 0), Some((0xDC, [0xFF, 0xFF, 0xFF, 0x7F])));
        assert_eq!(change(7, 7), None);
        assert_eq!(read(&[0x4B, 0, 0, 0]), Some(75));
        for wrong in [&[][..], &[1, 2, 3], &[0; 5]] {
            assert_eq!(read(wrong), None);
        }
    }
}
