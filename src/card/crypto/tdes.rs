//! Two-key triple DES, and single DES where the purse of Chinese CPU cards still
//! asks for it. What does not live here: what is encrypted, and for whom.

use std::fmt;

use cbc::{Decryptor, Encryptor};
use des::cipher::{BlockDecryptMut, BlockEncrypt, BlockEncryptMut, InnerIvInit, KeyInit};
use des::{Des, TdesEde2};
use zeroize::Zeroizing;

/// One DES block.
pub type Block = [u8; 8];

/// A double-length key.
#[derive(Clone)]
pub struct TripleDesKey(Zeroizing<[u8; 16]>);

impl fmt::Debug for TripleDesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TripleDesKey(…)")
    }
}

impl TripleDesKey {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; 16]>) -> Self {
        Self(bytes)
    }

    /// One block.
    #[must_use]
    pub fn encrypt(&self, block: &Block) -> Block {
        let mut block = *block;
        self.cipher().encrypt_block((&mut block).into());
        block
    }

    /// CBC over whole blocks.
    pub fn encrypt_chain(&self, iv: &Block, blocks: &mut [Block]) {
        let mut chain = Encryptor::inner_iv_init(self.cipher(), iv.into());
        blocks.iter_mut().for_each(|block| chain.encrypt_block_mut(block.into()));
    }

    /// The reverse of [`encrypt_chain`](Self::encrypt_chain).
    pub fn decrypt_chain(&self, iv: &Block, blocks: &mut [Block]) {
        let mut chain = Decryptor::inner_iv_init(self.cipher(), iv.into());
        blocks.iter_mut().for_each(|block| chain.decrypt_block_mut(block.into()));
    }

    /// The key one level below: its halves are the input and the input's complement,
    /// encrypted (JR/T 0025, two-level dispersion: issuer, then card).
    #[must_use]
    pub fn disperse(&self, input: &Block) -> Self {
        let mut bytes = Zeroizing::new([0; 16]);
        let halves = Zeroizing::new([self.encrypt(input), self.encrypt(&input.map(|b| !b))]);
        bytes.copy_from_slice(halves.as_flattened());
        Self(bytes)
    }

    /// Left half ⊕ right half, as a single DES key (JR/T 0025: the key of a TAC).
    #[must_use]
    pub fn folded(&self) -> DesKey {
        let (halves, _) = self.0.as_chunks::<8>();
        let folded = halves.iter().fold(Zeroizing::new([0; 8]), |sum, half| Zeroizing::new(xor(&sum, half)));
        DesKey(folded)
    }

    fn cipher(&self) -> TdesEde2 {
        TdesEde2::new((&*self.0).into())
    }
}

/// A single-length key; only for sessions and TACs of the CPU card purse.
#[derive(Clone)]
pub struct DesKey(Zeroizing<Block>);

impl fmt::Debug for DesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DesKey(…)")
    }
}

impl DesKey {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Zeroizing<Block>) -> Self {
        Self(bytes)
    }

    /// The left four bytes of the CBC-MAC over the message, which always ends in
    /// 80 and zeros, also when it was whole blocks (JR/T 0025, MAC of a transaction).
    #[must_use]
    pub fn mac(&self, message: &[u8]) -> [u8; 4] {
        let cipher = Des::new((&*self.0).into());
        let (whole, rest) = message.as_chunks::<8>();
        let mut last = [0; 8];
        for (byte, from) in last.iter_mut().zip(rest.iter().chain(&[0x80])) {
            *byte = *from;
        }
        let mut state = [0; 8];
        for block in whole.iter().chain(std::iter::once(&last)) {
            state = xor(&state, block);
            cipher.encrypt_block((&mut state).into());
        }
        let [a, b, c, d, ..] = state;
        [a, b, c, d]
    }
}

fn xor(a: &Block, b: &Block) -> Block {
    (u64::from_be_bytes(*a) ^ u64::from_be_bytes(*b)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::unhex;
    use super::*;

    fn key(text: &str) -> TripleDesKey {
        TripleDesKey::new(Zeroizing::new(unhex(text)))
    }

    #[test]
    fn single_des_within_triple_des() {
        // NBS SP 500-20, variable key known answer: key 8001010101010101, plain 0, cipher 95A8D72813DAA94D.
        // With equal halves triple DES is single DES.
        let key = key("80010101010101018001010101010101");
        assert_eq!(hex::encode_upper(key.encrypt(&[0; 8])), "95A8D72813DAA94D");
    }

    #[test]
    fn keys_show_nothing_of_themselves() {
        let key = key("11223344556677888877665544332211");
        assert_eq!(format!("{key:?}"), "TripleDesKey(…)");
        assert_eq!(format!("{:?}", key.folded()), "DesKey(…)");
        assert_eq!(*key.folded().0, unhex("9955551111555599"), "11⊕88, 22⊕77, …");
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(128))]

        #[test]
        fn what_was_encrypted_comes_back(key: [u8; 16], iv: [u8; 8], text: Vec<[u8; 8]>) {
            let key = TripleDesKey::new(Zeroizing::new(key));
            let mut blocks = text.clone();
            key.encrypt_chain(&iv, &mut blocks);
            key.decrypt_chain(&iv, &mut blocks);
            assert_eq!(blocks, text);
        }

        #[test]
        fn zeros_at_the_end_count(key: [u8; 8], message in proptest::collection::vec(0u8.., 0..40)) {
            let key = DesKey::new(Zeroizing::new(key));
            let longer: Vec<u8> = message.iter().copied().chain([0]).collect();
            assert_ne!(key.mac(&message), key.mac(&longer));
        }
    }
}
