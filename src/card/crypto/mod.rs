//! The cryptography that card technologies ask for, as pure functions on bytes.
//! What lives here: AES-CMAC and AN10922 (`aes128`), two-key triple DES (`tdes`),
//! the purse of Chinese CPU cards (`pboc`), the logins and sessions of DESFire EV2, EV3 and
//! NTAG 424 (`ev2`), of DESFire EV1 (`ev1`) and of Ultralight C (`ultralight_c`), the check
//! of an NTAG 424's address (`sun`). What does not: whose key it is and who may ask (`keys`), and how
//! bytes reach a card. Keys are wiped when dropped, and `Debug` prints none of them.

pub mod aes128;
pub mod ev1;
pub mod ev2;
pub mod pboc;
pub mod sun;
pub mod tdes;
pub mod ultralight_c;

/// Bytes from the system's generator, for challenges.
///
/// # Errors
/// [`NoRandom`] where the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// The system gave no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers; check /dev/urandom and the kernel log, then restart the box")]
pub struct NoRandom;

/// The last step of a login did not prove that the card has the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the card did not prove that it has the key; it is not ours, or a forgery: use another card")]
pub struct NotProven;

/// Rotates left by one byte, as all challenge-response logins of NXP do.
pub(in crate::card) fn rotated<const N: usize>(bytes: &[u8; N]) -> [u8; N] {
    let mut turned = *bytes;
    turned.rotate_left(1);
    turned
}

#[cfg(test)]
pub(in crate::card) fn unhex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}
