//! The card's side of AuthenticateAES and of a DESFire EV1's secure messaging: one key, and one
//! chain through every command and answer. Written for the simulator alone, after the facts in
//! "DESFire EV1 Communication Examples" (Elmü 2016), whose exchanges it is held to. What does
//! not live here: commands and files (`desfire`, `files`).

use std::fmt;

use super::ev2::{Block, Mode, cmac_from, crc_of, decrypt, encrypt, left_turned};

/// A login that waits for the terminal's proof.
#[derive(Clone)]
pub(super) struct Login {
    number: u8,
    key: Block,
    nonce: Block,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Login {
    pub(super) fn begin(number: u8, key: Block, nonce: Block) -> Self {
        Self { number, key, nonce }
    }

    pub(super) fn challenge(&self) -> Vec<u8> {
        encrypt(&self.key, [0; 16], &self.nonce)
    }

    /// Takes E(RndA ‖ RndB'), chained to the challenge, and gives session and answer.
    pub(super) fn finish(self, proof: &[u8]) -> Option<(Channel, Vec<u8>)> {
        let before = *self.challenge().last_chunk()?;
        let clear = decrypt(&self.key, before, proof);
        let (theirs, ours) = clear.split_at_checked(16)?;
        if proof.len() != 32 || ours != left_turned(&self.nonce) {
            return None;
        }
        let answer = encrypt(&self.key, *proof.last_chunk()?, &left_turned(theirs));
        let four = |block: &[u8], from: usize| block.iter().skip(from).take(4).copied().collect::<Vec<u8>>();
        let parts = [four(theirs, 0), four(&self.nonce, 0), four(theirs, 12), four(&self.nonce, 12)];
        let key = *parts.concat().first_chunk()?;
        Some((Channel { number: self.number, key, chain: [0; 16], to_the_end: false }, answer))
    }
}

/// A session as the card has it.
#[derive(Clone)]
pub(super) struct Channel {
    number: u8,
    key: Block,
    /// Last block of all that was said.
    chain: Block,
    /// A file is being read to its end: the terminal has to be shown where that is.
    to_the_end: bool,
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

    fn mac(&mut self, message: &[u8]) -> Vec<u8> {
        self.chain = cmac_from(&self.key, self.chain, message);
        self.chain.iter().take(8).copied().collect()
    }

    /// Header and clear data of a command; `None` where its MAC, CRC or form is wrong.
    pub(super) fn open(&mut self, mode: Mode, ins: u8, body: &[u8], header: usize) -> Option<Vec<u8>> {
        self.to_the_end = ins == 0xBD && body.iter().skip(4).all(|byte| *byte == 0);
        let (head, data) = body.split_at_checked(header)?;
        match mode {
            Mode::Full if !data.is_empty() => self.decipher(ins, head, data),
            Mode::Mac if !data.is_empty() => {
                let (said, mac) = body.split_at_checked(body.len().checked_sub(8)?)?;
                (self.mac(&[&[ins], said].concat()) == mac && said.len() >= header).then(|| said.to_vec())
            }
            _ => {
                self.mac(&[&[ins], body].concat());
                Some(body.to_vec())
            }
        }
    }

    /// Data, the CRC over command, header and data, and zeros; between them in ChangeKey, of
    /// another key than the session's, the new key's CRC.
    fn decipher(&mut self, ins: u8, head: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let length = clear_length(ins, head)?;
        let of_another = ins == 0xC4 && head != [self.number];
        let behind = if of_another { 4 } else { 0 };
        if sealed.len() != (length + 4 + behind).next_multiple_of(16) {
            return None;
        }
        let clear = decrypt(&self.key, self.chain, sealed);
        self.chain = *sealed.last_chunk()?;
        let (data, rest) = clear.split_at_checked(length)?;
        let (crc, rest) = rest.split_at_checked(4)?;
        let (behind, fill) = rest.split_at_checked(behind)?;
        let right = crc_of(&[&[ins], head, data].concat()).to_le_bytes() == crc;
        (right && fill.iter().all(|byte| *byte == 0)).then(|| [head, data, behind].concat())
    }

    /// The answer with status 00.
    pub(super) fn seal(&mut self, mode: Mode, data: &[u8]) -> Vec<u8> {
        let covered = [data, &[0x00]].concat();
        if mode != Mode::Full || data.is_empty() {
            let mac = self.mac(&covered);
            return [data, &mac].concat();
        }
        let mark: &[u8] = if self.to_the_end { &[0x80] } else { &[] };
        let mut clear = [data, &crc_of(&covered).to_le_bytes(), mark].concat();
        clear.resize(clear.len().next_multiple_of(16), 0);
        let sealed = encrypt(&self.key, self.chain, &clear);
        self.chain = sealed.last_chunk().copied().unwrap_or_default();
        sealed
    }
}

/// How much a command carries: nothing marks its end.
fn clear_length(ins: u8, head: &[u8]) -> Option<usize> {
    match (ins, head) {
        (0x3D, [_, _, _, _, a, b, c]) => Some(usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16),
        // A key and its version.
        (0xC4, _) => Some(17),
        // How it is protected, and the rights.
        (0x5F, _) => Some(3),
        // An amount.
        (0x0C | 0x1C | 0xDC, _) => Some(4),
        _ => None,
    }
}

/// How long a command's body is, data of `clear` bytes behind a header of `header`.
pub(super) fn sealed_length(mode: Mode, header: usize, clear: usize) -> usize {
    match mode {
        Mode::Plain => header + clear,
        Mode::Mac => header + clear + 8,
        Mode::Full => header + (clear + 4).next_multiple_of(16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    fn block(text: &str) -> Block {
        bytes(text).try_into().unwrap()
    }

    fn channel(number: u8, key: &str) -> Channel {
        Channel { number, key: block(key), chain: [0; 16], to_the_end: false }
    }

    /// The published login with key 1, seen from the card.
    #[test]
    fn a_login_as_published() {
        let key = block("10182028303840485058606870788088");
        let login = Login::begin(1, key, block("626FFBD45CAF334ACCA45599304F5B17"));
        assert_eq!(hex::encode_upper(login.challenge()), "B351CB2465D4F33AC627FD6E87A168F2");
        let proof = bytes("044B6CAC343A0865895149649CA8DDE1 F5AC4EC67BD208900AF02F049E05F0B0");
        let (channel, answer) = login.clone().finish(&proof).unwrap();
        assert_eq!(hex::encode_upper(answer), "A2EE144B1012FBEB7B2F11132D95A454");
        assert_eq!(hex::encode_upper(channel.key), "40E7D271626FFBD49C530E3D304F5B17");
        for bit in 0..proof.len() * 8 {
            let mut wrong = proof.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(login.clone().finish(&wrong).is_none(), "bit {bit}");
        }
        assert!(login.finish(&proof[..16]).is_none());
    }

    /// The session behind it as published: what the card has to answer, one after the other.
    #[test]
    fn a_session_as_published() {
        let mut channel = channel(1, "40E7D271626FFBD49C530E3D304F5B17");
        let counting: Vec<u8> = (0..0x50).collect();
        let first = [bytes("05000000340000").as_slice(), &counting[..0x34]].concat();
        let rest = [bytes("053400001C0000").as_slice(), &counting[0x34..]].concat();
        for (ins, body, data, mac) in [
            (0xCD, bytes("05001100500000"), vec![], "A75316AD1596B953"),
            (0x6F, vec![], vec![5], "2D5FF67FFEC9D2D3"),
            (0xF5, vec![5], bytes("00001100500000"), "2AAC7517024E09DC"),
            (0x3D, first, vec![], "765C9DAA50ECB62F"),
            (0x3D, rest, vec![], "3E0AED986B8B0F37"),
            (0xBD, bytes("05000000300000"), counting[..0x30].to_vec(), "4C65F1F842262BAC"),
        ] {
            assert_eq!(channel.open(Mode::Plain, ins, &body, 0).unwrap(), body, "{ins:02X}");
            let answer = channel.seal(Mode::Plain, &data);
            assert_eq!(hex::encode_upper(answer), hex::encode_upper(data) + mac, "{ins:02X}");
        }
    }

    /// The published changes of key 1 and of the session's own.
    #[test]
    fn key_changes_as_published() {
        let other = "01 E7ECCB6BD1CA64BC161A12B1C024F7143033740 8C8A87EACAB7A1FF18951FCA3";
        let mut by_master = channel(0, "C2A1E47BD8100044FE6D00A74D7AB17C");
        let mut stale = by_master.clone();
        let clear = by_master.open(Mode::Full, 0xC4, &bytes(other), 1).unwrap();
        assert_eq!(hex::encode_upper(clear), "0100102030405060708090A0B0B0A0908010BFE37919");
        assert_eq!(hex::encode_upper(by_master.seal(Mode::Full, &[])), "2128D3CD9C9ACFFF");
        assert_eq!(by_master.open(Mode::Full, 0xC4, &bytes(other), 1), None, "said again");
        for bit in 8..8 * 33 {
            let mut wrong = bytes(other);
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(stale.clone().open(Mode::Full, 0xC4, &wrong, 1), None, "bit {bit}");
        }
        assert_eq!(stale.open(Mode::Full, 0x3D, &bytes(other), 1), None, "another command");
        let own = "00 E9F85E219496C2B58C1090DC3935FAE9 E840CF61B383D9531946256B1F110C10";
        let clear = channel(0, "F44B26F5C05DDD7110772281C4D066E8").open(Mode::Full, 0xC4, &bytes(own), 1);
        assert_eq!(hex::encode_upper(clear.unwrap()), "0000102030405060708090A0B0B0A0908010");
    }

    #[test]
    fn what_is_written_has_its_mac() {
        let key = "40E7D271626FFBD49C530E3D304F5B17";
        let said = bytes("02000000020000 BEEF");
        let mac = channel(2, key).mac(&[&[0x3D], said.as_slice()].concat());
        let body = [said.clone(), mac].concat();
        assert_eq!(body.len(), sealed_length(Mode::Mac, 7, 2));
        assert_eq!(channel(2, key).open(Mode::Mac, 0x3D, &body, 7), Some(said.clone()));
        assert_eq!(channel(2, key).open(Mode::Mac, 0x3D, &said, 7), None);
        for bit in 0..8 * body.len() {
            let mut wrong = body.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(channel(2, key).open(Mode::Mac, 0x3D, &wrong, 7), None, "bit {bit}");
        }
    }
}
