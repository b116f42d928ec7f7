//! AES-128 as cards use it: CBC, CMAC, and the diversification of AN10922. What
//! does not live here: what is encrypted, and for whom.

use std::fmt;

use aes::Aes128;
use aes::cipher::{BlockDecryptMut, BlockEncrypt, BlockEncryptMut, InnerIvInit, KeyInit};
use cbc::{Decryptor, Encryptor};
use zeroize::Zeroizing;

/// One AES block.
pub type Block = [u8; 16];

/// AN10922 rev. 2.2 §2.2.1: the constant that separates diversification with AES-128.
const DIVERSIFY_AES_128: u8 = 0x01;

/// A key of 128 bits.
#[derive(Clone)]
pub struct AesKey(Zeroizing<Block>);

impl fmt::Debug for AesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AesKey(…)")
    }
}

impl AesKey {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Zeroizing<Block>) -> Self {
        Self(bytes)
    }

    /// The key of all zeros that NXP's chips are delivered with.
    #[must_use]
    pub fn factory() -> Self {
        Self(Zeroizing::new([0; 16]))
    }

    /// For the few commands that carry a key to a card, and for keys derived from it.
    pub(in crate::card) fn expose(&self) -> &Block {
        &self.0
    }

    fn cipher(&self) -> Aes128 {
        Aes128::new((&*self.0).into())
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

    /// CMAC (NIST SP 800-38B §6.2, RFC 4493).
    #[must_use]
    pub fn cmac(&self, message: &[u8]) -> Block {
        self.cmac_from([0; 16], message)
    }

    /// A CMAC whose chain begins at `iv`, as a DESFire EV1 has it.
    #[must_use]
    pub(super) fn cmac_from(&self, iv: Block, message: &[u8]) -> Block {
        let (whole, rest) = message.as_chunks::<16>();
        match (rest, whole.split_last()) {
            ([], Some((last, before))) => self.cmac_end(iv, before, last, true),
            _ => self.cmac_end(iv, whole, &padded(rest), false),
        }
    }

    /// The half of a CMAC that NXP's cards send: its odd-indexed bytes
    /// (NTAG 424 DNA data sheet §9.1.3).
    #[must_use]
    pub fn short_cmac(&self, message: &[u8]) -> [u8; 8] {
        let mac = self.cmac(message);
        std::array::from_fn(|i| mac.get(2 * i + 1).copied().unwrap_or_default())
    }

    /// The key of one card (AN10922 rev. 2.2 §2.2.1): not a plain CMAC of the input,
    /// because anything shorter than two blocks is padded to two.
    #[must_use]
    pub fn diversify<const N: usize>(&self, input: &[u8; N]) -> Self {
        const { assert!(N >= 1 && N <= 31, "AN10922 takes 1 to 31 bytes") };
        let mut blocks = [[0; 16]; 2];
        let fill = [DIVERSIFY_AES_128].iter().chain(input).chain(&[0x80]);
        for (byte, from) in blocks.as_flattened_mut().iter_mut().zip(fill) {
            *byte = *from;
        }
        let [first, last] = blocks;
        Self(Zeroizing::new(self.cmac_end([0; 16], &[first], &last, N == 31)))
    }

    /// The end of a CMAC: `last` is a whole block of the message, or was padded.
    fn cmac_end(&self, iv: Block, before: &[Block], last: &Block, whole: bool) -> Block {
        let cipher = self.cipher();
        let mut subkey = Zeroizing::new([0; 16]);
        cipher.encrypt_block((&mut *subkey).into());
        double(&mut subkey);
        if !whole {
            double(&mut subkey);
        }
        let mut state = iv;
        for block in before {
            state = xor(&state, block);
            cipher.encrypt_block((&mut state).into());
        }
        state = xor(&xor(&state, last), &subkey);
        cipher.encrypt_block((&mut state).into());
        state
    }
}

fn xor(a: &Block, b: &Block) -> Block {
    std::array::from_fn(|i| a.get(i).zip(b.get(i)).map_or(0, |(a, b)| a ^ b))
}

/// Padding method 2 of ISO/IEC 9797-1 within one block.
fn padded(rest: &[u8]) -> Block {
    let mut block = [0; 16];
    for (byte, from) in block.iter_mut().zip(rest.iter().chain(&[0x80])) {
        *byte = *from;
    }
    block
}

/// Doubling in GF(2^128) (SP 800-38B §5.3: R128 is 87), without a branch on the key.
fn double(block: &mut Block) {
    let value = u128::from_be_bytes(*block);
    let carry = (value >> 127) * 0x87;
    *block = ((value << 1) ^ carry).to_be_bytes();
}

#[cfg(test)]
mod tests {
    use super::super::unhex;
    use super::*;

    fn key(text: &str) -> AesKey {
        AesKey::new(Zeroizing::new(unhex(text)))
    }

    #[test]
    fn cmac_as_published() {
        // RFC 4493 §4, the four examples.
        let key = key("2B7E151628AED2A6ABF7158809CF4F3C");
        let message = "6BC1BEE22E409F96E93D7E117393172AAE2D8A571E03AC9C9EB76FAC45AF8E5130C81C46A35CE411E5FBC1191A0A52EFF69F2445DF4F9B17AD2B417BE66C3710";
        for (bytes, expected) in [
            (0, "BB1D6929E95937287FA37D129B756746"),
            (16, "070A16B46B4D4144F79BDD9DD04A287C"),
            (40, "DFA66747DE9AE63030CA32611497C827"),
            (64, "51F0BEBF7E3B9D92FC49741779363CFE"),
        ] {
            let mac = key.cmac(&hex::decode(&message[..2 * bytes]).unwrap());
            assert_eq!(hex::encode_upper(mac), expected, "{bytes} bytes");
        }
    }

    #[test]
    fn diversified_as_published() {
        // AN10922 rev. 2.2 §2.2.1, the worked example.
        let master = key("00112233445566778899AABBCCDDEEFF");
        let of_card = master.diversify(&unhex::<17>("04782E21801D803042F54E585020416275"));
        assert_eq!(hex::encode_upper(of_card.expose()), "A8DD63A3B89D54B37CA802473FDA9175");
        // Short input: NTAG 424's example of a key per UID; a plain CMAC would give 721E2C01….
        let master = key("F3F9377698707B688EAF84ABE39E3791");
        let of_card = master.diversify(&unhex::<7>("04DEADBEEFFEED"));
        assert_eq!(hex::encode_upper(of_card.expose()), "0BB408BAFF98B6EE9F2E1585777F6A51");
        let plain = hex::encode_upper(master.cmac(&unhex::<8>("0104DEADBEEFFEED")));
        assert!(plain.starts_with("721E2C01"), "{plain}");
    }

    #[test]
    fn a_full_input_is_not_padded() {
        let master = key("00112233445566778899AABBCCDDEEFF");
        let mut message = [0xA5; 32];
        message[0] = 1;
        assert_eq!(*master.diversify(&[0xA5; 31]).expose(), master.cmac(&message));
    }

    #[test]
    fn a_key_shows_nothing_of_itself() {
        assert_eq!(format!("{:?}", key("2B7E151628AED2A6ABF7158809CF4F3C")), "AesKey(…)");
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn what_was_encrypted_comes_back(key: [u8; 16], iv: [u8; 16], text: Vec<[u8; 16]>) {
            let key = AesKey::new(Zeroizing::new(key));
            let mut blocks = text.clone();
            key.encrypt_chain(&iv, &mut blocks);
            key.decrypt_chain(&iv, &mut blocks);
            assert_eq!(blocks, text);
        }

        #[test]
        fn one_bit_changes_the_mac(key: [u8; 16], mut message in proptest::collection::vec(0u8.., 1..80), at: usize) {
            let key = AesKey::new(Zeroizing::new(key));
            let before = key.short_cmac(&message);
            let bit = at % (8 * message.len());
            message[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(key.short_cmac(&message), before);
        }
    }
}
