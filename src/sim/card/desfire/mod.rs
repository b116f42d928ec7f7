//! A MIFARE DESFire EV1, EV2 or EV3 in the simulator: applications, AES keys, files, sessions and
//! transactions, behind native commands in ISO 7816 wrapping. After the MF3ICDx1, MF3DHx2 and
//! MF3DHx3 data sheets and AN12343 rev. 1.1; every rule is held here and by no driver. What does
//! not live here: commands on files (`file_commands`), logins and keys (`keys`), a file's
//! contents (`files`), and a session's cryptography (`session`).
//!
//! ```text
//!  90 INS 00 00 [LC body] 00 ──► gathered over AF frames ─► unsealed ─► done ─► sealed ─► 59 bytes a frame
//! ```

mod file_commands;
mod keys;

use std::collections::{BTreeMap, VecDeque};

use file_commands::length_of;

use super::ev2::{Block, Mode};
use super::files::{AUTHENTICATION, File, NO_CHANGES, PARAMETER, Status, Want};
use super::ntag424;
use super::session::{Channel, Login};

const OK: Status = 0x00;
const OUT_OF_MEMORY: Status = 0x0E;
const ILLEGAL_COMMAND: Status = 0x1C;
const INTEGRITY: Status = 0x1E;
const NO_SUCH_KEY: Status = 0x40;
const LENGTH: Status = 0x7E;
const NO_APPLICATION: Status = 0xA0;
const MORE: Status = 0xAF;
const ABORTED: Status = 0xCA;
const DUPLICATE: Status = 0xDE;
const NO_FILE: Status = 0xF0;

/// What fits the data field of a wrapped frame towards the card: 64 bytes of frame, less
/// ISO 14443-4's four and the wrapping's five.
const FRAME_IN: usize = 55;
/// What a frame of an answer holds.
const FRAME_OUT: usize = 59;

/// The card level, as delivered: everybody may list, create and delete.
const CARD: [u8; 3] = [0; 3];

/// A key and its version; all zeros when new.
#[derive(Clone, Copy, Default)]
pub(super) struct Key {
    bytes: Block,
    version: u8,
}

impl Key {
    pub(super) fn bytes(&self) -> Block {
        self.bytes
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("version", &self.version).finish_non_exhaustive()
    }
}

/// An application.
#[derive(Debug, Clone, Default)]
pub(super) struct Application {
    pub(super) settings: u8,
    pub(super) keys: Vec<Key>,
    pub(super) files: BTreeMap<u8, File>,
}

/// A command of which frames are missing.
#[derive(Debug, Clone)]
struct Gathering {
    ins: u8,
    body: Vec<u8>,
    length: usize,
}

/// The card.
#[derive(Debug, Clone)]
pub(super) struct Desfire {
    uid: Vec<u8>,
    pub(super) applications: BTreeMap<[u8; 3], Application>,
    selected: [u8; 3],
    channel: Option<Channel>,
    login: Option<Login>,
    gathering: Option<Gathering>,
    outgoing: VecDeque<Vec<u8>>,
    /// Random numbers given, so that each is another and every run the same.
    drawn: u64,
    /// Logins that failed: for tests of what is tried in vain.
    failed_logins: u32,
    kind: Kind,
    /// Readings of an NTAG 424's dynamic data, and whether this power-up's was counted.
    readings: u32,
    counted: bool,
}

/// Which chip the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    DesfireEv1,
    /// Or EV3.
    DesfireEv2,
    /// One application, long frames, fewer commands.
    Ntag424,
}

/// Status and clear data of a command, and how both are protected.
struct Done {
    mode: Mode,
    data: Vec<u8>,
    /// The session ends with the answer, which has no MAC.
    last: bool,
}

impl Done {
    fn with(mode: Mode, data: Vec<u8>) -> Self {
        Self { mode, data, last: false }
    }
}

impl Desfire {
    /// An EV1 as delivered.
    pub(super) fn ev1_as_delivered(uid: &[u8]) -> Self {
        Self { kind: Kind::DesfireEv1, ..Self::as_delivered(uid) }
    }

    /// An EV2 as delivered: no applications.
    pub(super) fn as_delivered(uid: &[u8]) -> Self {
        Self {
            uid: uid.to_vec(),
            applications: BTreeMap::new(),
            selected: CARD,
            channel: None,
            login: None,
            gathering: None,
            outgoing: VecDeque::new(),
            drawn: 0,
            failed_logins: 0,
            kind: Kind::DesfireEv2,
            readings: 0,
            counted: false,
        }
    }

    /// The same engine as an NTAG 424, whose application is there from the beginning.
    pub(super) fn with_one(uid: &[u8], name: [u8; 3], application: Application) -> Self {
        let applications = BTreeMap::from([(name, application)]);
        Self { applications, kind: Kind::Ntag424, ..Self::as_delivered(uid) }
    }

    /// The field went away: sessions and what was not committed are gone.
    pub(super) fn reset(&mut self) {
        self.selected = CARD;
        self.counted = false;
        self.forget();
    }

    fn frames(&self) -> (usize, usize) {
        match self.kind {
            Kind::DesfireEv1 | Kind::DesfireEv2 => (FRAME_IN, FRAME_OUT),
            Kind::Ntag424 => (usize::MAX, 256),
        }
    }

    pub(super) fn failed_logins(&self) -> u32 {
        self.failed_logins
    }

    pub(super) fn application_keys(&self) -> Vec<Block> {
        self.applications.values().flat_map(|one| one.keys.iter().map(Key::bytes)).collect()
    }

    /// Of what is committed in the file of this number, in whichever application has it.
    pub(super) fn cell_mut(&mut self, file: usize, offset: usize) -> Option<&mut u8> {
        let file = u8::try_from(file).ok()?;
        self.applications.values_mut().find_map(|one| one.files.get_mut(&file))?.cell_mut(offset)
    }

    #[cfg(test)]
    fn has_session(&self) -> bool {
        self.channel.is_some()
    }

    pub(super) fn select(&mut self, name: [u8; 3]) -> Result<(), Status> {
        self.forget();
        self.selected = CARD;
        if name != CARD && !self.applications.contains_key(&name) {
            return Err(NO_APPLICATION);
        }
        self.selected = name;
        Ok(())
    }

    fn forget(&mut self) {
        self.channel = None;
        self.login = None;
        self.gathering = None;
        self.outgoing.clear();
        self.roll_back();
    }

    fn roll_back(&mut self) -> bool {
        let files = self.applications.values_mut().flat_map(|application| application.files.values_mut());
        // Each one, whatever the ones before it say.
        files.map(|file| u32::from(file.abort())).sum::<u32>() > 0
    }

    fn application(&mut self) -> Result<&mut Application, Status> {
        self.applications.get_mut(&self.selected).ok_or(ILLEGAL_COMMAND)
    }

    /// Answers what is behind `90 INS 00 00`, with the status word.
    pub(super) fn wrapped(&mut self, ins: u8, rest: &[u8]) -> Vec<u8> {
        let body = match rest {
            [] | [0] => &[][..],
            [length, body @ .., 0] if usize::from(*length) == body.len() => body,
            _ => return vec![0x67, 0x00],
        };
        let (status, data) = self.frame(ins, body);
        [data.as_slice(), &[0x91, status]].concat()
    }

    fn frame(&mut self, ins: u8, body: &[u8]) -> (Status, Vec<u8>) {
        if body.len() > self.frames().0 {
            return self.fail(LENGTH);
        }
        if ins != MORE {
            self.outgoing.clear();
            self.login = None;
            self.gathering = None;
            return self.gather(ins, body.to_vec());
        }
        if let Some(login) = self.login.take() {
            return match login.finish(body) {
                Some((channel, answer)) => {
                    self.channel = Some(channel);
                    (OK, answer)
                }
                None => {
                    self.failed_logins += 1;
                    self.fail(AUTHENTICATION)
                }
            };
        }
        if let Some(Gathering { ins, body: so_far, length }) = self.gathering.take() {
            let body = [so_far.as_slice(), body].concat();
            return if body.len() > length { self.fail(LENGTH) } else { self.gather(ins, body) };
        }
        match self.outgoing.pop_front() {
            Some(frame) if body.is_empty() => (self.more_or_ok(), frame),
            _ => self.fail(ABORTED),
        }
    }

    fn more_or_ok(&self) -> Status {
        if self.outgoing.is_empty() { OK } else { MORE }
    }

    /// An error ends the session and what was not committed.
    fn fail(&mut self, status: Status) -> (Status, Vec<u8>) {
        self.forget();
        (status, Vec::new())
    }

    /// Runs a command once all its frames are there; only writing has several.
    fn gather(&mut self, ins: u8, body: Vec<u8>) -> (Status, Vec<u8>) {
        if let (0x3D | 0x8D, [number, _, _, _, a, b, c, ..]) = (ins, body.as_slice()) {
            let clear = length_of(&[*a, *b, *c]);
            let channel = self.channel.clone();
            let mode = match self.file(*number).and_then(|file| file.allow(Want::Write, channel.as_ref())) {
                Ok(mode) => mode,
                Err(status) => return self.fail(status),
            };
            let length = match &self.channel {
                Some(channel) => channel.sealed_length(mode, 7, clear),
                None => 7 + clear,
            };
            if body.len() < length {
                self.gathering = Some(Gathering { ins, body, length });
                return (MORE, Vec::new());
            }
            if body.len() > length {
                return self.fail(LENGTH);
            }
        }
        match self.run(ins, &body) {
            Ok(Done { last: true, .. }) => {
                self.channel = None;
                (OK, Vec::new())
            }
            Ok(Done { mode, data, .. }) => {
                let sealed = match &mut self.channel {
                    Some(channel) => channel.seal(mode, &data),
                    None => data,
                };
                // GetVersion comes in three parts; all else as it fits.
                let frames = match ins {
                    0x60 => {
                        let (first, rest) = sealed.split_at_checked(7).unwrap_or((&sealed, &[]));
                        let (second, third) = rest.split_at_checked(7).unwrap_or((rest, &[]));
                        vec![first, second, third]
                    }
                    _ => sealed.chunks(self.frames().1).collect(),
                };
                self.outgoing = frames.into_iter().map(<[u8]>::to_vec).collect();
                let first = self.outgoing.pop_front().unwrap_or_default();
                (self.more_or_ok(), first)
            }
            Err(MORE) => (MORE, self.outgoing.pop_front().unwrap_or_default()),
            Err(status) => self.fail(status),
        }
    }

    fn file(&mut self, number: u8) -> Result<&mut File, Status> {
        self.application()?.files.get_mut(&number).ok_or(NO_FILE)
    }

    /// Clear header and data; without a session a command is as it came.
    fn unseal(&mut self, mode: Mode, ins: u8, body: &[u8], header: usize) -> Result<Vec<u8>, Status> {
        match &mut self.channel {
            Some(channel) => channel.open(mode, ins, body, header).ok_or(INTEGRITY),
            None => Ok(body.to_vec()),
        }
    }

    fn run(&mut self, ins: u8, body: &[u8]) -> Result<Done, Status> {
        match ins {
            _ if self.kind == Kind::Ntag424 && !ntag424::knows(ins) => Err(ILLEGAL_COMMAND),
            0x71 | 0x77 | 0xAA => self.log_in(ins, body),
            0x5A => {
                let name = body.try_into().map_err(|_| LENGTH)?;
                self.select(name)?;
                Ok(Done::with(Mode::Plain, Vec::new()))
            }
            0xBD | 0xAD => self.read_file(ins, body),
            0x3D | 0x8D => self.write_file(ins, body),
            0x6C => self.get_value(ins, body),
            0x0C | 0x1C | 0xDC => self.change_value(ins, body),
            0xC4 => self.change_key(ins, body),
            0x5F => self.change_settings(ins, body),
            0x51 => {
                self.channel.as_ref().ok_or(AUTHENTICATION)?;
                self.unseal(Mode::Full, ins, body, 0)?;
                Ok(Done::with(Mode::Full, self.uid.clone()))
            }
            // The answers of all others have a MAC within a session.
            _ => {
                let clear = match &mut self.channel {
                    Some(channel) => channel.open_managed(ins, body).ok_or(INTEGRITY)?,
                    None => body.to_vec(),
                };
                Ok(Done::with(Mode::Mac, self.managed(ins, &clear)?))
            }
        }
    }

    fn managed(&mut self, ins: u8, body: &[u8]) -> Result<Vec<u8>, Status> {
        match (ins, body) {
            (0x60, []) => Ok(self.version()),
            (0x6A, []) if self.selected == CARD => Ok(self.applications.keys().flatten().copied().collect()),
            (0x6A, []) => Err(ILLEGAL_COMMAND),
            (0xCA, [a, b, c, settings, keys]) => {
                self.create_application([*a, *b, *c], *settings, *keys).map(|()| Vec::new())
            }
            (0xDA, name) => self.delete_application(name).map(|()| Vec::new()),
            (0x64, [number]) => {
                let key = self.application()?.keys.get(usize::from(*number)).ok_or(NO_SUCH_KEY)?;
                Ok(vec![key.version])
            }
            (0x6F, []) => Ok(self.application()?.files.keys().copied().collect()),
            (0xF5, [number]) => Ok(self.file(*number)?.settings()),
            (0xCB..=0xCD, [number, settings @ ..]) => {
                self.create_file(ins, *number, settings).map(|()| Vec::new())
            }
            (0xC7, []) => {
                let mut any = false;
                for file in self.application()?.files.values_mut() {
                    any |= file.commit();
                }
                if any { Ok(Vec::new()) } else { Err(NO_CHANGES) }
            }
            (0xA7, []) => {
                if self.roll_back() {
                    Ok(Vec::new())
                } else {
                    Err(NO_CHANGES)
                }
            }
            (0x60 | 0x6A | 0xCA | 0x64 | 0x6F | 0xF5 | 0xC7 | 0xA7, _) => Err(LENGTH),
            _ => Err(ILLEGAL_COMMAND),
        }
    }

    /// Three parts; the UID in the last.
    fn version(&self) -> Vec<u8> {
        let (hardware, software) = match self.kind {
            // 4 KiB, as of a card in the issues of proxmark3 (no. 1292).
            Kind::DesfireEv1 => {
                ([0x04, 0x01, 0x01, 0x01, 0x00, 0x18, 0x05], [0x04, 0x01, 0x01, 0x01, 0x04, 0x18, 0x05])
            }
            Kind::DesfireEv2 => {
                ([0x04, 0x01, 0x01, 0x12, 0x00, 0x18, 0x05], [0x04, 0x01, 0x01, 0x02, 0x01, 0x18, 0x05])
            }
            Kind::Ntag424 => {
                ([0x04, 0x04, 0x02, 0x30, 0x00, 0x11, 0x05], [0x04, 0x04, 0x02, 0x01, 0x02, 0x11, 0x05])
            }
        };
        let batch = [0xCF, 0x39, 0xD4, 0x49, 0x80, 0x34, 0x20];
        [hardware.as_slice(), &software, &self.uid, &batch].concat()
    }

    fn create_application(&mut self, name: [u8; 3], settings: u8, keys: u8) -> Result<(), Status> {
        if self.selected != CARD {
            return Err(ILLEGAL_COMMAND);
        }
        // AES (bits 80), 1 to 14 keys.
        if keys & 0xC0 != 0x80 || !(1..=14).contains(&(keys & 0x0F)) || name == CARD {
            return Err(PARAMETER);
        }
        if self.applications.contains_key(&name) {
            return Err(DUPLICATE);
        }
        let keys = vec![Key::default(); usize::from(keys & 0x0F)];
        self.applications.insert(name, Application { settings, keys, files: BTreeMap::new() });
        Ok(())
    }

    fn delete_application(&mut self, name: &[u8]) -> Result<(), Status> {
        let name: [u8; 3] = name.try_into().map_err(|_| LENGTH)?;
        let own_master = self.selected == name && self.is_master();
        if self.selected != CARD && !own_master {
            return Err(AUTHENTICATION);
        }
        self.applications.remove(&name).map(|_| ()).ok_or(NO_APPLICATION)
    }
}

#[cfg(test)]
mod tests;
