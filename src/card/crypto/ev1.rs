//! The AES login of DESFire EV1 and the secure messaging that follows. Its data sheet is not
//! public; facts and vectors are those of "DESFire EV1 Communication Examples" (Elmü, 2016,
//! repository sotechcllc/RFDoorLock), and the CRC of a write that of M. Roland (Stack Overflow
//! 23637322). State machines without I/O on native frames, as `ev2` is. What does not live
//! here: which commands a card knows, and how bytes reach it.
//!
//! ```text
//!  AA KEY ─►               ◄─ E(RndB)       one CBC chain through all three frames
//!  AF E(RndA ‖ RndB') ─►   ◄─ E(RndA')      the session has one key, and one IV that goes on
//!
//!  command   header ‖ data, or header ‖ E(data ‖ CRC of all ‖ 00…): the IV goes on
//!  answer    data ‖ MAC of data and status, or E(data ‖ CRC of data and status ‖ 00…)
//! ```

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::aes128::{AesKey, Block};
use super::ev2::{Forged, Protection, crc32};
use super::{NoRandom, NotProven, random, rotated};

/// AuthenticateAES.
const AUTHENTICATE: u8 = 0xAA;
/// ChangeKey.
const CHANGE_KEY: u8 = 0xC4;
/// GetValue, which answers with a number of 32 bits.
const GET_VALUE: u8 = 0x6C;
const VALUE_BYTES: usize = 4;
/// The next frame of the same command.
const NEXT_FRAME: u8 = 0xAF;
/// Of a CMAC, its first bytes go over the air.
const MAC_BYTES: usize = 8;

/// A login about to begin.
pub struct Login {
    key: AesKey,
    number: u8,
    nonce: Zeroizing<Block>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("key_number", &self.number).finish_non_exhaustive()
    }
}

impl Login {
    /// A login with the key of this number; it ends a session there is.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn new(key: AesKey, number: u8) -> Result<Self, NoRandom> {
        Ok(Self { key, number, nonce: Zeroizing::new(random()?) })
    }

    /// The frame to send.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        vec![AUTHENTICATE, self.number]
    }

    /// Takes the 16 bytes that came with status `AF` and gives the frame to send.
    #[must_use]
    pub fn challenged(self, encrypted: &Block) -> (Challenged, Vec<u8>) {
        let mut theirs = Zeroizing::new([*encrypted]);
        self.key.decrypt_chain(&[0; 16], &mut *theirs);
        let [theirs] = *theirs;
        let theirs = Zeroizing::new(theirs);
        let mut proof = Zeroizing::new([*self.nonce, rotated(&theirs)]);
        self.key.encrypt_chain(encrypted, &mut *proof);
        let [_, last] = *proof;
        let frame = std::iter::once(&NEXT_FRAME).chain(proof.as_flattened()).copied().collect();
        (Challenged { login: self, theirs, last }, frame)
    }
}

/// We answered the card's challenge; it has to answer ours.
pub struct Challenged {
    login: Login,
    theirs: Zeroizing<Block>,
    /// The last block sent: the chain goes on from it.
    last: Block,
}

impl fmt::Debug for Challenged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenged").field("key_number", &self.login.number).finish_non_exhaustive()
    }
}

impl Challenged {
    /// Takes the card's last answer, of 16 bytes.
    ///
    /// # Errors
    /// [`NotProven`] when the card does not have the key.
    pub fn proven(self, encrypted: &[u8]) -> Result<Session, NotProven> {
        let Login { key, nonce, .. } = self.login;
        let mut ours = Zeroizing::new([<Block>::try_from(encrypted).map_err(|_| NotProven)?]);
        key.decrypt_chain(&self.last, &mut *ours);
        if !bool::from(ours.as_flattened().ct_eq(&rotated(&nonce))) {
            return Err(NotProven);
        }
        Ok(Session { key: AesKey::new(mixed(&nonce, &self.theirs)), iv: [0; 16], reads: None })
    }
}

/// The session's key: A[0..4] ‖ B[0..4] ‖ A[12..16] ‖ B[12..16].
fn mixed(a: &Block, b: &Block) -> Zeroizing<Block> {
    let ([a0, _, _, a3], [b0, _, _, b3]) = (quarters(a), quarters(b));
    let mut key = Zeroizing::new([0; 16]);
    for (byte, from) in key.iter_mut().zip([a0, b0, a3, b3].into_iter().flatten()) {
        *byte = *from;
    }
    key
}

fn quarters(block: &Block) -> [&[u8]; 4] {
    let (first, second) = block.split_at(8);
    let ((a, b), (c, d)) = (first.split_at(4), second.split_at(4));
    [a, b, c, d]
}

/// A session: wraps commands and opens answers, one after the other. Its key is wiped when it
/// is dropped.
pub struct Session {
    key: AesKey,
    /// The last block of the chain that all commands and answers make together.
    iv: Block,
    /// The last command reads so many bytes, and its answer is enciphered.
    reads: Option<usize>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// The frame of a command: `header` (file number, offset, …) is never enciphered. Only
    /// `data` gets a MAC or is enciphered; a command without any goes as it is, and counts in
    /// the chain. With [`Protection::Full`] such a one reads a file.
    #[must_use]
    pub fn command(
        &mut self,
        protection: Protection,
        instruction: u8,
        header: &[u8],
        data: &[u8],
    ) -> Vec<u8> {
        let plain = Zeroizing::new([&[instruction], header, data].concat());
        let is_full = protection == Protection::Full;
        self.reads = (is_full && data.is_empty()).then(|| length_asked(instruction, header));
        if is_full && !data.is_empty() {
            let body = Zeroizing::new([data, &crc32(&plain).to_le_bytes()].concat());
            return [&[instruction], header, &self.encipher(&body)].concat();
        }
        let mac = self.mac(&plain);
        let carries_mac = protection == Protection::Mac && !data.is_empty();
        let mac: &[u8] = if carries_mac { &mac } else { &[] };
        [&plain[..], mac].concat()
    }

    /// Opens the answer to the last command: `status` is the second byte of the status word,
    /// `body` what came before it.
    ///
    /// # Errors
    /// [`Forged`]; the session must then be given up.
    pub fn answer(&mut self, status: u8, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Forged> {
        if let Some(length) = self.reads {
            return self.decipher(length, status, body);
        }
        let (data, mac) = body.split_last_chunk::<MAC_BYTES>().ok_or(Forged)?;
        let right = self.mac(&[data, &[status]].concat());
        if !bool::from(right.ct_eq(mac)) {
            return Err(Forged);
        }
        Ok(Zeroizing::new(data.to_vec()))
    }

    /// The frame that changes the card's key `number`. Of a key other than the session's own the
    /// card wants to see the `earlier` one too.
    #[must_use]
    pub(in crate::card) fn change_key(
        &mut self,
        number: u8,
        new: &AesKey,
        version: u8,
        earlier: Option<&AesKey>,
    ) -> Vec<u8> {
        let mut data = Zeroizing::new(Vec::with_capacity(27));
        data.extend_from_slice(&[CHANGE_KEY, number]);
        match earlier {
            None => data.extend_from_slice(new.expose()),
            Some(earlier) => {
                data.extend(new.expose().iter().zip(earlier.expose()).map(|(new, earlier)| new ^ earlier));
            }
        }
        data.push(version);
        let check = crc32(&data).to_le_bytes();
        data.extend_from_slice(&check);
        if earlier.is_some() {
            data.extend_from_slice(&crc32(new.expose()).to_le_bytes());
        }
        self.reads = None;
        let sealed = self.encipher(data.get(2..).unwrap_or_default());
        [&[CHANGE_KEY, number], sealed.as_slice()].concat()
    }

    /// CMAC over a message, from where the chain is; the chain goes on from it.
    fn mac(&mut self, message: &[u8]) -> [u8; MAC_BYTES] {
        self.iv = self.key.cmac_from(self.iv, message);
        let [a, b, c, d, e, f, g, h, ..] = self.iv;
        [a, b, c, d, e, f, g, h]
    }

    /// Filled with zeros: the card knows how long it is.
    fn encipher(&mut self, data: &[u8]) -> Vec<u8> {
        let mut blocks = vec![[0; 16]; data.len().div_ceil(16)];
        for (byte, from) in blocks.as_flattened_mut().iter_mut().zip(data) {
            *byte = *from;
        }
        self.key.encrypt_chain(&self.iv, &mut blocks);
        self.iv = blocks.last().copied().unwrap_or(self.iv);
        blocks.as_flattened().to_vec()
    }

    fn decipher(&mut self, length: usize, status: u8, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Forged> {
        let (blocks, []) = body.as_chunks::<16>() else { return Err(Forged) };
        let last = blocks.last().copied().ok_or(Forged)?;
        let mut plain = Zeroizing::new(blocks.to_vec());
        self.key.decrypt_chain(&self.iv, &mut plain);
        self.iv = last;
        let data = unpadded(plain.as_flattened(), length, status).ok_or(Forged)?;
        Ok(Zeroizing::new(data.to_vec()))
    }
}

/// How much a reading asks for: a value, or the last three bytes of file, offset and length.
fn length_asked(instruction: u8, header: &[u8]) -> usize {
    if instruction == GET_VALUE {
        return VALUE_BYTES;
    }
    let length = header.last_chunk::<3>().copied().unwrap_or_default();
    length.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

/// So much data, its CRC, and nothing but zeros behind, or 80 and zeros. The length has to be
/// known: behind some data a CRC that begins with 00 is right for that data and 00 as well.
fn unpadded(plain: &[u8], length: usize, status: u8) -> Option<&[u8]> {
    let (data, rest) = plain.split_at_checked(length)?;
    let (check, fill) = rest.split_first_chunk::<4>()?;
    let is_fill = matches!(fill.first(), None | Some(0 | 0x80)) && fill.iter().skip(1).all(|byte| *byte == 0);
    let covered = Zeroizing::new([data, &[status]].concat());
    (is_fill && fill.len() <= 16 && crc32(&covered).to_le_bytes() == *check).then_some(data)
}

#[cfg(test)]
#[path = "ev1_tests.rs"]
mod tests;
