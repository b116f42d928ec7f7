//! The card's side of AuthenticateEV2 and of EV2 secure messaging, with block chaining and
//! CMAC written for the simulator alone: it shares nothing with the drivers. After the
//! NTAG 424 DNA data sheet rev. 3.0 §9.1 and AN12343 rev. 1.1. What does not live here: commands
//! and files (`desfire`, `files`).

use std::fmt;

use aes::Aes128;
use aes::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};

/// An AES-128 key, or any block.
pub(super) type Block = [u8; 16];

/// How a command or file is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Mac,
    Full,
}

impl Mode {
    /// As a file's settings say it (data sheet table 20).
    pub(super) fn of_settings(byte: u8) -> Option<Self> {
        match byte {
            0 | 2 => Some(Self::Plain),
            1 => Some(Self::Mac),
            3 => Some(Self::Full),
            _ => None,
        }
    }

    pub(super) fn settings(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Mac => 1,
            Self::Full => 3,
        }
    }
}

/// CBC over whole blocks; what is left of the message is dropped.
pub(super) fn encrypt(key: &Block, iv: Block, message: &[u8]) -> Vec<u8> {
    let cipher = Aes128::new(key.into());
    let mut chain = iv;
    let mut out = Vec::with_capacity(message.len());
    for block in message.as_chunks::<16>().0 {
        for (byte, with) in chain.iter_mut().zip(block) {
            *byte ^= with;
        }
        cipher.encrypt_block((&mut chain).into());
        out.extend(chain);
    }
    out
}

/// The reverse.
pub(super) fn decrypt(key: &Block, iv: Block, message: &[u8]) -> Vec<u8> {
    let cipher = Aes128::new(key.into());
    let mut before = iv;
    let mut out = Vec::with_capacity(message.len());
    for block in message.as_chunks::<16>().0 {
        let mut plain = *block;
        cipher.decrypt_block((&mut plain).into());
        out.extend(plain.iter().zip(before).map(|(byte, with)| byte ^ with));
        before = *block;
    }
    out
}

/// NIST SP 800-38B, a bit at a time.
pub(super) fn cmac(key: &Block, message: &[u8]) -> Block {
    cmac_from(key, [0; 16], message)
}

/// The same, chained to what came before.
pub(super) fn cmac_from(key: &Block, iv: Block, message: &[u8]) -> Block {
    let twice = |block: &[u8]| -> Vec<u8> {
        let next = block.iter().skip(1).chain(&[0]);
        let mut shifted: Vec<u8> = block.iter().zip(next).map(|(a, b)| a << 1 | b >> 7).collect();
        if let (Some(last), true) = (shifted.last_mut(), block.first().is_some_and(|byte| byte >> 7 == 1)) {
            *last ^= 0x87;
        }
        shifted
    };
    let whole = !message.is_empty() && message.len().is_multiple_of(16);
    let first = twice(&encrypt(key, [0; 16], &[0; 16]));
    let subkey = if whole { first } else { twice(&first) };
    let mut padded = message.to_vec();
    if !whole {
        padded = pad(message);
    }
    let begin = padded.len().saturating_sub(16);
    for (byte, with) in padded.iter_mut().skip(begin).zip(subkey) {
        *byte ^= with;
    }
    encrypt(key, iv, &padded).last_chunk().copied().unwrap_or_default()
}

/// Every second byte of a CMAC.
pub(super) fn short_mac(key: &Block, message: &[u8]) -> Vec<u8> {
    cmac(key, message).into_iter().skip(1).step_by(2).collect()
}

/// 80 and zeros to the end of a block, always.
fn pad(message: &[u8]) -> Vec<u8> {
    let mut padded = [message, &[0x80]].concat();
    padded.resize(padded.len().next_multiple_of(16), 0);
    padded
}

fn unpad(padded: &[u8]) -> Option<Vec<u8>> {
    let end = padded.iter().rposition(|byte| *byte != 0)?;
    (padded.get(end) == Some(&0x80) && padded.len() - end <= 16)
        .then(|| padded.iter().take(end).copied().collect())
}

pub(super) fn left_turned(block: &[u8]) -> Vec<u8> {
    block.iter().skip(1).chain(block.first()).copied().collect()
}

/// CRC-32 as DESFire has it: not complemented at the end.
pub(super) fn crc_of(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    crc
}

/// A login that waits for the terminal's proof.
#[derive(Clone)]
pub(super) struct Login {
    number: u8,
    key: Block,
    nonce: Block,
    name: [u8; 4],
    /// The counter that a later login goes on from.
    kept: Option<u16>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Login {
    /// The first login gives the session `name`; a later one keeps that of `within`.
    pub(super) fn begin(
        number: u8,
        key: Block,
        nonce: Block,
        name: [u8; 4],
        within: Option<&Channel>,
    ) -> Self {
        Self {
            number,
            key,
            nonce,
            name: within.map_or(name, |channel| channel.name),
            kept: within.map(|channel| channel.counter),
        }
    }

    pub(super) fn challenge(&self) -> Vec<u8> {
        encrypt(&self.key, [0; 16], &self.nonce)
    }

    /// Takes E(RndA ‖ RndB') and gives the session and the card's answer.
    pub(super) fn finish(self, proof: &[u8]) -> Option<(Channel, Vec<u8>)> {
        let clear = decrypt(&self.key, [0; 16], proof);
        let (theirs, ours) = clear.split_at_checked(16)?;
        if proof.len() != 32 || ours != left_turned(&self.nonce) {
            return None;
        }
        let answer = match self.kept {
            // TI, RndA', then what card and terminal can do: nothing special.
            None => [self.name.as_slice(), &left_turned(theirs), &[0; 12]].concat(),
            Some(_) => left_turned(theirs),
        };
        let crossed: Vec<u8> =
            theirs.iter().skip(2).zip(self.nonce.iter().take(6)).map(|(a, b)| a ^ b).collect();
        let vector = |label: [u8; 2]| {
            let rest = self.nonce.iter().skip(6).chain(theirs.iter().skip(8)).copied();
            label
                .into_iter()
                .chain([0x00, 0x01, 0x00, 0x80])
                .chain(theirs.iter().take(2).copied())
                .chain(crossed.iter().copied())
                .chain(rest)
                .collect::<Vec<u8>>()
        };
        let channel = Channel {
            number: self.number,
            enc: cmac(&self.key, &vector([0xA5, 0x5A])),
            mac: cmac(&self.key, &vector([0x5A, 0xA5])),
            name: self.name,
            counter: self.kept.unwrap_or(0),
        };
        Some((channel, encrypt(&self.key, [0; 16], &answer)))
    }
}

/// A session as the card has it.
#[derive(Clone)]
pub(super) struct Channel {
    number: u8,
    enc: Block,
    mac: Block,
    name: [u8; 4],
    counter: u16,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Channel {
    /// Which key opened it.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    pub(super) fn mac_of(&self, first: u8, rest: &[u8]) -> Vec<u8> {
        let message = [&[first][..], &self.counter.to_le_bytes(), &self.name, rest].concat();
        short_mac(&self.mac, &message)
    }

    fn iv(&self, label: [u8; 2]) -> Block {
        let text = [label.as_slice(), &self.name, &self.counter.to_le_bytes(), &[0; 8]].concat();
        encrypt(&self.enc, [0; 16], &text).first_chunk().copied().unwrap_or_default()
    }

    /// Header and clear data of a command; `None` where its MAC or form is wrong.
    pub(super) fn open(&self, mode: Mode, ins: u8, body: &[u8], header: usize) -> Option<Vec<u8>> {
        if mode == Mode::Plain {
            return Some(body.to_vec());
        }
        let (said, mac) = body.split_at_checked(body.len().checked_sub(8)?)?;
        if self.mac_of(ins, said) != mac {
            return None;
        }
        let (head, data) = said.split_at_checked(header)?;
        if mode == Mode::Mac || data.is_empty() {
            return Some(said.to_vec());
        }
        if !data.len().is_multiple_of(16) {
            return None;
        }
        let clear = unpad(&decrypt(&self.enc, self.iv([0xA5, 0x5A]), data))?;
        Some([head, &clear].concat())
    }

    /// The answer with status 00, and the command is counted.
    pub(super) fn seal(&mut self, mode: Mode, data: &[u8]) -> Vec<u8> {
        self.counter = self.counter.wrapping_add(1);
        let said = match mode {
            Mode::Plain => return data.to_vec(),
            Mode::Full if !data.is_empty() => encrypt(&self.enc, self.iv([0x5A, 0xA5]), &pad(data)),
            Mode::Mac | Mode::Full => data.to_vec(),
        };
        let mac = self.mac_of(0x00, &said);
        [said, mac].concat()
    }
}

/// How long a command's body is, data of `clear` bytes behind a header of `header`.
pub(super) fn sealed_length(mode: Mode, header: usize, clear: usize) -> usize {
    match mode {
        Mode::Plain => header + clear,
        Mode::Mac => header + clear + 8,
        Mode::Full if clear == 0 => header + 8,
        Mode::Full => header + (clear / 16 + 1) * 16 + 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    fn block(text: &str) -> Block {
        bytes(text).try_into().unwrap()
    }

    /// RFC 4493 §4.
    #[test]
    fn cmac_as_published() {
        let key = block("2B7E151628AED2A6ABF7158809CF4F3C");
        let message =
            bytes("6BC1BEE22E409F96E93D7E117393172AAE2D8A571E03AC9C9EB76FAC45AF8E5130C81C46A35CE411");
        for (length, mac) in [
            (0, "BB1D6929E95937287FA37D129B756746"),
            (16, "070A16B46B4D4144F79BDD9DD04A287C"),
            (40, "DFA66747DE9AE63030CA32611497C827"),
        ] {
            assert_eq!(hex::encode_upper(cmac(&key, &message[..length])), mac, "{length}");
        }
    }

    /// The login that AN12196 rev. 2.0 prints as table 14, seen from the card.
    #[test]
    fn a_login_as_published() {
        let nonce = block("B9E2FC789B64BF237CCCAA20EC7E6E48");
        let login = Login::begin(0, [0; 16], nonce, [0x9D, 0x00, 0xC4, 0xDF], None);
        assert_eq!(hex::encode_upper(login.challenge()), "A04C124213C186F22399D33AC2A30215");
        let proof = bytes("35C3E05A752E0144BAC0DE51C1F22C56B34408A23D8AEA266CAB947EA8E0118D");
        let (channel, answer) = login.clone().finish(&proof).unwrap();
        assert_eq!(
            hex::encode_upper(answer),
            "3FA64DB5446D1F34CD6EA311167F5E4985B89690C04A05F17FA7AB2F08120663"
        );
        assert_eq!(hex::encode_upper(channel.enc), "1309C877509E5A215007FF0ED19CA564");
        assert_eq!(hex::encode_upper(channel.mac), "4C6626F5E72EA694202139295C7A7FC7");
        for bit in 0..proof.len() * 8 {
            let mut wrong = proof.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            // A bit of the first block changes what the card reads as RndB', too.
            assert!(login.clone().finish(&wrong).is_none(), "bit {bit}");
        }
        assert!(login.finish(&proof[..16]).is_none());
    }

    /// WriteData and ChangeFileSettings of AN12196 rev. 2.0, tables 19 and 22, as the card reads them.
    #[test]
    fn commands_as_published() {
        let channel = |counter| Channel {
            number: 3,
            enc: block("7A93D6571E4B180FCA6AC90C9A7488D4"),
            mac: block("FC4AF159B62E549B5812394CAB1918CC"),
            name: [0x76, 0x14, 0x28, 0x1A],
            counter,
        };
        let body = bytes("030000000A00006B5E6804909962FC4E3FF5522CF0F8436C0C53315B9C73AA");
        let clear = channel(0).open(Mode::Full, 0x8D, &body, 7).unwrap();
        assert_eq!(hex::encode_upper(clear), "030000000A00000102030405060708090A");
        assert_eq!(body.len(), sealed_length(Mode::Full, 7, 10));
        assert_eq!(channel(1).open(Mode::Full, 0x8D, &body, 7), None, "a command counts once");
        assert_eq!(channel(0).open(Mode::Full, 0x3D, &body, 7), None, "another command");
        for bit in 0..body.len() * 8 {
            let mut wrong = body.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(channel(0).open(Mode::Full, 0x8D, &wrong, 7), None, "bit {bit}");
        }
        let mut of_key_0 = Channel {
            number: 0,
            enc: block("1309C877509E5A215007FF0ED19CA564"),
            mac: block("4C6626F5E72EA694202139295C7A7FC7"),
            name: [0x9D, 0x00, 0xC4, 0xDF],
            counter: 1,
        };
        let body = bytes("0261B6D97903566E84C3AE5274467E89EAD799B7C1A0EF7A04");
        let clear = of_key_0.open(Mode::Full, 0x5F, &body, 1).unwrap();
        assert_eq!(hex::encode_upper(clear), "024000E0C1F121200000430000430000");
        assert_eq!(hex::encode_upper(of_key_0.seal(Mode::Full, &[])), "57BFF87B1241E93D");
    }
}
