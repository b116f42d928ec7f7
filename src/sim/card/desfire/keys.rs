//! Logins and the change of keys. What does not live here: a session's cryptography
//! (`session`), and who may do what with files (`files`).

use std::collections::VecDeque;

use super::super::ev2::{Block, Mode, crc_of, encrypt};
use super::super::files::{AUTHENTICATION, PERMISSION_DENIED, Status};
use super::super::session::Login;
use super::{Desfire, Done, ILLEGAL_COMMAND, INTEGRITY, Key, Kind, LENGTH, MORE, NO_SUCH_KEY};

impl Desfire {
    pub(super) fn log_in(&mut self, ins: u8, body: &[u8]) -> Result<Done, Status> {
        let number = match (ins, body) {
            // Each chip has its own: AuthenticateEV2 came with EV2.
            (0xAA, _) if self.kind != Kind::DesfireEv1 => return Err(ILLEGAL_COMMAND),
            (0x71 | 0x77, _) if self.kind == Kind::DesfireEv1 => return Err(ILLEGAL_COMMAND),
            // The length of what the terminal can do is 0 here.
            (0x71, [number, 0]) | (0x77 | 0xAA, [number]) => *number,
            _ => return Err(LENGTH),
        };
        let key = self.application().map_err(|_| NO_SUCH_KEY)?.keys.get(usize::from(number)).copied();
        let key = key.ok_or(NO_SUCH_KEY)?;
        let within = self.channel.take();
        if ins == 0x77 && within.is_none() {
            return Err(AUTHENTICATION);
        }
        self.roll_back();
        let (nonce, name) = (self.draw(), self.draw());
        let name = name.first_chunk().copied().unwrap_or_default();
        let kept = within.as_ref().filter(|_| ins == 0x77);
        let login = match ins {
            0xAA => Login::ev1(number, key.bytes, nonce),
            _ => Login::ev2(number, key.bytes, nonce, name, kept),
        };
        self.outgoing = VecDeque::from([login.challenge()]);
        self.login = Some(login);
        Err(MORE)
    }

    pub(super) fn draw(&mut self) -> Block {
        self.drawn += 1;
        let text = [self.drawn.to_be_bytes(), [0x5D; 8]].concat();
        encrypt(&[0x42; 16], [0; 16], &text).first_chunk().copied().unwrap_or_default()
    }

    pub(super) fn is_master(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.number() == 0)
    }

    /// The new key enciphered; of a key that is not the session's own, mixed with the one
    /// before and with its CRC.
    pub(super) fn change_key(&mut self, ins: u8, body: &[u8]) -> Result<Done, Status> {
        let channel = self.channel.clone().ok_or(AUTHENTICATION)?;
        let clear = self.unseal(Mode::Full, ins, body, 1)?;
        let (number, data) = clear.split_first().ok_or(LENGTH)?;
        let own = channel.number() == *number;
        let application = self.application()?;
        let allowed = match application.settings >> 4 {
            0xE => own,
            0xF => false,
            key => channel.number() == key || (*number == 0 && own),
        };
        if !allowed || (*number == 0 && application.settings & 0x01 == 0) {
            return Err(PERMISSION_DENIED);
        }
        let key = application.keys.get_mut(usize::from(*number)).ok_or(NO_SUCH_KEY)?;
        let (given, rest) = data.split_first_chunk::<16>().ok_or(LENGTH)?;
        let (bytes, version) = match (own, rest) {
            (true, [version]) => (*given, *version),
            (false, [version, crc @ ..]) if crc.len() == 4 => {
                let new: Block = std::array::from_fn(|i| {
                    given.get(i).zip(key.bytes.get(i)).map_or(0, |(given, old)| given ^ old)
                });
                if crc != crc_of(&new).to_le_bytes() {
                    return Err(INTEGRITY);
                }
                (new, *version)
            }
            _ => return Err(LENGTH),
        };
        *key = Key { bytes, version };
        Ok(Done { mode: Mode::Full, data: Vec::new(), last: own })
    }
}
