//! The mutual login of MIFARE Ultralight C (data sheet MF0ICU2 rev. 3.5 §7.5.5).
//! A state machine without I/O on native frames; wrapping them for a reader is the
//! driver's work.
//!
//! ```text
//!  1A 00 ─►            ◄─ AF E(RndB)
//!  AF E(RndA ‖ RndB') ─► ◄─ 00 E(RndA')      the ' is a turn left by one byte
//! ```

use std::fmt;

use subtle::ConstantTimeEq;

use super::tdes::{Block, TripleDesKey};
use super::{NoRandom, NotProven, random, rotated};

/// The frame that begins.
pub const BEGIN: [u8; 2] = [0x1A, 0x00];

/// A login about to begin with [`BEGIN`].
#[derive(Clone)]
pub struct Login {
    key: TripleDesKey,
    nonce: Block,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// We answered the card's challenge; it has to answer ours.
#[derive(Clone)]
pub struct Challenged {
    key: TripleDesKey,
    nonce: Block,
    iv: Block,
}

impl fmt::Debug for Challenged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenged(…)")
    }
}

impl Login {
    /// With a challenge of our own.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn new(key: TripleDesKey) -> Result<Self, NoRandom> {
        Ok(Self { key, nonce: random()? })
    }

    /// Takes the eight bytes behind `AF` and gives the frame to send.
    #[must_use]
    pub fn challenged(self, encrypted: &Block) -> (Challenged, [u8; 17]) {
        let Self { key, nonce } = self;
        let mut theirs = [*encrypted];
        key.decrypt_chain(&[0; 8], &mut theirs);
        let [theirs] = theirs;
        let mut proof = [nonce, rotated(&theirs)];
        // One chain through the whole exchange: each IV is the block before.
        key.encrypt_chain(encrypted, &mut proof);
        let mut frame = [0xAF; 17];
        for (byte, from) in frame.iter_mut().skip(1).zip(proof.as_flattened()) {
            *byte = *from;
        }
        let [_, iv] = proof;
        (Challenged { key, nonce, iv }, frame)
    }
}

impl Challenged {
    /// Takes the eight bytes behind `00`.
    ///
    /// # Errors
    /// [`NotProven`] when the card does not have the key.
    pub fn proven(self, encrypted: &Block) -> Result<(), NotProven> {
        let mut ours = [*encrypted];
        self.key.decrypt_chain(&self.iv, &mut ours);
        let [ours] = ours;
        if bool::from(ours.ct_eq(&rotated(&self.nonce))) { Ok(()) } else { Err(NotProven) }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::super::unhex;
    use super::*;

    fn login() -> Login {
        let key = TripleDesKey::new(Zeroizing::new(unhex("49454D4B41455242214E4143554F5946")));
        Login { key, nonce: unhex("A8AF3B256C75ED40") }
    }

    #[test]
    fn as_published() {
        // MF0ICU2 data sheet rev. 3.5, numerical example of the authentication.
        let (challenged, frame) = login().challenged(&unhex("577293FD2F34CA51"));
        assert_eq!(hex::encode_upper(frame), "AF0A638559FC7737F9F15D7862EBBE967A");
        assert_eq!(challenged.proven(&unhex("3B884FA07C137CE1")), Ok(()));
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(64))]

        #[test]
        fn one_wrong_bit_is_refused(at in 0usize..64) {
            let (challenged, _) = login().challenged(&unhex("577293FD2F34CA51"));
            let mut answer: [u8; 8] = unhex("3B884FA07C137CE1");
            answer[at / 8] ^= 1 << (at % 8);
            assert_eq!(challenged.proven(&answer), Err(NotProven));
        }
    }
}
