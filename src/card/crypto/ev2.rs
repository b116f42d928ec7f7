//! The AES login of DESFire EV2/EV3 and NTAG 424 DNA and the secure messaging that
//! follows (NTAG 424 DNA data sheet rev. 3.0 §9.1; AN12196 rev. 2.0). State machines
//! without I/O on native frames: instruction and data, without the wrapping 90…00.
//! What does not live here: which commands a card knows, and how bytes reach it.
//!
//! ```text
//!  71 KEY 00 ─►             ◄─ E(RndB)                            first login
//!  AF E(RndA ‖ RndB') ─►    ◄─ E(TI ‖ RndA' ‖ capabilities)       TI names the session, counter 0
//!  77 KEY    ─►  …          ◄─ E(RndA')                           later: TI and counter stay
//! ```

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::aes128::{AesKey, Block};
use super::{NoRandom, NotProven, random, rotated};

/// AuthenticateEV2First.
const FIRST: u8 = 0x71;
/// AuthenticateEV2NonFirst.
const NON_FIRST: u8 = 0x77;
/// ChangeKey.
const CHANGE_KEY: u8 = 0xC4;
/// The next frame of the same command.
const NEXT_FRAME: u8 = 0xAF;

/// How a file or command is protected (data sheet §9.1.8 to §9.1.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Nothing; the command counter still goes on.
    Plain,
    /// A MAC.
    Mac,
    /// Enciphered, with a MAC.
    Full,
}

/// A login about to begin.
pub struct Login {
    key: AesKey,
    number: u8,
    nonce: Zeroizing<Block>,
    /// Name and counter of the session that a later login keeps.
    kept: Option<([u8; 4], u16)>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("key_number", &self.number).finish_non_exhaustive()
    }
}

impl Login {
    /// The first login after the application was selected, with the key of this number.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn first(key: AesKey, number: u8) -> Result<Self, NoRandom> {
        Ok(Self { key, number, nonce: Zeroizing::new(random()?), kept: None })
    }

    /// A login with another key within a session.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn within(session: Session, key: AesKey, number: u8) -> Result<Self, NoRandom> {
        Ok(Self {
            key,
            number,
            nonce: Zeroizing::new(random()?),
            kept: Some((session.name, session.counter)),
        })
    }

    #[cfg(test)]
    pub(in crate::card) fn key(&self) -> &AesKey {
        &self.key
    }

    /// The frame to send.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        match self.kept {
            None => vec![FIRST, self.number, 0x00],
            Some(_) => vec![NON_FIRST, self.number],
        }
    }

    /// Takes the 16 bytes that came with status `AF` and gives the frame to send.
    #[must_use]
    pub fn challenged(self, encrypted: &Block) -> (Challenged, Vec<u8>) {
        let mut theirs = Zeroizing::new([*encrypted]);
        self.key.decrypt_chain(&[0; 16], &mut *theirs);
        let [theirs] = *theirs;
        let theirs = Zeroizing::new(theirs);
        let mut proof = Zeroizing::new([*self.nonce, rotated(&theirs)]);
        self.key.encrypt_chain(&[0; 16], &mut *proof);
        let frame = std::iter::once(&NEXT_FRAME).chain(proof.as_flattened()).copied().collect();
        (Challenged { login: self, theirs }, frame)
    }
}

/// We answered the card's challenge; it has to answer ours.
pub struct Challenged {
    login: Login,
    theirs: Zeroizing<Block>,
}

impl fmt::Debug for Challenged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenged").field("key_number", &self.login.number).finish_non_exhaustive()
    }
}

impl Challenged {
    /// Takes the card's last answer: 32 bytes of a first login, 16 of a later one.
    ///
    /// # Errors
    /// [`NotProven`] when the card does not have the key.
    pub fn proven(self, encrypted: &[u8]) -> Result<Session, NotProven> {
        let Login { key, nonce, kept, .. } = self.login;
        let (blocks, []) = encrypted.as_chunks::<16>() else { return Err(NotProven) };
        let mut blocks = Zeroizing::new(blocks.to_vec());
        key.decrypt_chain(&[0; 16], &mut blocks);
        let (name, counter, ours) = match (kept, blocks.as_flattened()) {
            (None, [t0, t1, t2, t3, rest @ ..]) if rest.len() == 28 => ([*t0, *t1, *t2, *t3], 0, rest),
            (Some((name, counter)), rest) if rest.len() == 16 => (name, counter, rest),
            _ => return Err(NotProven),
        };
        let ours = ours.get(..16).unwrap_or_default();
        if !bool::from(ours.ct_eq(&rotated(&nonce))) {
            return Err(NotProven);
        }
        let derived =
            |label: [u8; 2]| AesKey::new(Zeroizing::new(key.cmac(&vector(label, &nonce, &self.theirs)[..])));
        Ok(Session { enc: derived([0xA5, 0x5A]), mac: derived([0x5A, 0xA5]), name, counter })
    }
}

/// SV1 and SV2 (data sheet §9.1.7): label ‖ 0001 ‖ 0080 ‖ A[0..2] ‖ (A[2..8] ⊕ B[0..6]) ‖ B[6..16] ‖ A[8..16].
fn vector(label: [u8; 2], a: &Block, b: &Block) -> Zeroizing<[u8; 32]> {
    let crossed = a.iter().skip(2).take(6).zip(b).map(|(a, b)| a ^ b);
    let bytes = label
        .into_iter()
        .chain([0x00, 0x01, 0x00, 0x80])
        .chain(a.iter().copied().take(2))
        .chain(crossed)
        .chain(b.iter().copied().skip(6))
        .chain(a.iter().copied().skip(8));
    let mut vector = Zeroizing::new([0; 32]);
    for (byte, from) in vector.iter_mut().zip(bytes) {
        *byte = from;
    }
    vector
}

/// IEEE 802.3 without the final complement (data sheet §10.6.1).
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ ((crc & 1) * 0xEDB8_8320))
    })
}

/// An answer did not carry the right MAC, or was not of the right form. The session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the card's answer has a wrong MAC; somebody or something changed it on its way: present the card again"
)]
pub struct Forged;

/// A session: wraps commands and opens answers, one after the other. Its keys are
/// wiped when it is dropped.
pub struct Session {
    enc: AesKey,
    mac: AesKey,
    name: [u8; 4],
    counter: u16,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("counter", &self.counter).finish_non_exhaustive()
    }
}

impl Session {
    /// The frame of a command: `header` (file number, offset, …) is never enciphered,
    /// `data` is with [`Protection::Full`].
    #[must_use]
    pub fn command(&self, protection: Protection, instruction: u8, header: &[u8], data: &[u8]) -> Vec<u8> {
        let mut frame = vec![instruction];
        frame.extend_from_slice(header);
        match protection {
            Protection::Full if !data.is_empty() => frame.extend(self.encipher(data)),
            _ => frame.extend_from_slice(data),
        }
        if protection != Protection::Plain {
            let body = frame.get(1..).unwrap_or_default();
            let mac = self.mac_over(instruction, self.counter, body);
            frame.extend(mac);
        }
        frame
    }

    /// Opens the answer to the last command: `status` is the second byte of the
    /// status word, `body` what came before it. Counts the command.
    ///
    /// # Errors
    /// [`Forged`]; the session must then be given up.
    pub fn answer(
        &mut self,
        protection: Protection,
        status: u8,
        body: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Forged> {
        self.counter = self.counter.checked_add(1).ok_or(Forged)?;
        if protection == Protection::Plain {
            return Ok(Zeroizing::new(body.to_vec()));
        }
        let (data, mac) = body.split_last_chunk::<8>().ok_or(Forged)?;
        if !bool::from(self.mac_over(status, self.counter, data).ct_eq(mac)) {
            return Err(Forged);
        }
        match protection {
            Protection::Full if !data.is_empty() => self.decipher(data),
            _ => Ok(Zeroizing::new(data.to_vec())),
        }
    }

    /// The frame that changes the card's key `number` (data sheet §10.6.1). Of a key
    /// other than the session's own the card wants to see the `earlier` one too.
    #[must_use]
    pub(in crate::card) fn change_key(
        &self,
        number: u8,
        new: &AesKey,
        version: u8,
        earlier: Option<&AesKey>,
    ) -> Vec<u8> {
        let mut data = Zeroizing::new(Vec::with_capacity(21));
        match earlier {
            None => {
                data.extend_from_slice(new.expose());
                data.push(version);
            }
            Some(earlier) => {
                data.extend(new.expose().iter().zip(earlier.expose()).map(|(new, earlier)| new ^ earlier));
                data.push(version);
                data.extend_from_slice(&crc32(new.expose()).to_le_bytes());
            }
        }
        self.command(Protection::Full, CHANGE_KEY, &[number], &data)
    }

    /// How many commands this session has counted.
    #[must_use]
    pub fn counter(&self) -> u16 {
        self.counter
    }

    /// Data sheet §9.1.9: CMAC over the first byte, counter, name and the rest.
    fn mac_over(&self, first: u8, counter: u16, rest: &[u8]) -> [u8; 8] {
        let mut message = Zeroizing::new(Vec::with_capacity(7 + rest.len()));
        message.push(first);
        message.extend_from_slice(&counter.to_le_bytes());
        message.extend_from_slice(&self.name);
        message.extend_from_slice(rest);
        self.mac.short_cmac(&message)
    }

    /// Data sheet §9.1.4: the IV is the label, the name and the counter, enciphered.
    fn iv(&self, label: [u8; 2]) -> Block {
        let [l0, l1] = label;
        let [t0, t1, t2, t3] = self.name;
        let [c0, c1] = self.counter.to_le_bytes();
        let mut iv = [[l0, l1, t0, t1, t2, t3, c0, c1, 0, 0, 0, 0, 0, 0, 0, 0]];
        self.enc.encrypt_chain(&[0; 16], &mut iv);
        let [iv] = iv;
        iv
    }

    /// Padding method 2 (ISO/IEC 9797-1), always.
    fn encipher(&self, data: &[u8]) -> Vec<u8> {
        let mut blocks = vec![[0; 16]; data.len() / 16 + 1];
        for (byte, from) in blocks.as_flattened_mut().iter_mut().zip(data.iter().chain(&[0x80])) {
            *byte = *from;
        }
        self.enc.encrypt_chain(&self.iv([0xA5, 0x5A]), &mut blocks);
        blocks.as_flattened().to_vec()
    }

    fn decipher(&self, data: &[u8]) -> Result<Zeroizing<Vec<u8>>, Forged> {
        let (blocks, []) = data.as_chunks::<16>() else { return Err(Forged) };
        let mut blocks = Zeroizing::new(blocks.to_vec());
        self.enc.decrypt_chain(&self.iv([0x5A, 0xA5]), &mut blocks);
        let mut plain = Zeroizing::new(blocks.as_flattened().to_vec());
        let end = plain.iter().rposition(|byte| *byte != 0).ok_or(Forged)?;
        if plain.get(end) != Some(&0x80) {
            return Err(Forged);
        }
        plain.truncate(end);
        Ok(plain)
    }
}

#[cfg(test)]
#[path = "ev2_tests.rs"]
mod tests;
