//! The mutual login of MIFARE Ultralight C (data sheet MF0ICU2 rev. 3.5 §7.5.5).
//! A state machine without I/O on native frames; wrapping them for a reader is the
//! driver's work.
//!
//! ```text
//!  1A 00 ─►            ◄─ AF E(RndB)
//!  AF E(RndA ‖ RndB') ─► ◄─ 00 E(RndA')      the ' is a turn left by one byte
//! ```

use subtle::ConstantTimeEq;

use super::tdes::{Block, TripleDesKey};
use super::{NoRandom, NotProven, random, rotated};

/// The frame that begins.
pub const BEGIN: [u8; 2] = [0x1A, 0x00];

/// A login about to begin with [`BEGIN`].
#[derive(Debug)]
pub struct Login {
    key: TripleDesKey,
    nonce: Block,
}

/// We answered the card's challenge; it has to answer ours.
#[derive(Debug)]
pub struct Challenged {
    key: TripleDesKey,
    nonce: Block,
    iv: Block,
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

    #[cfg(test)]
    fn with_nonce(key: TripleDesKey, nonce: Block) -> Self {
        Self { key, nonce }
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
