//! Commands on files: create, read, write, values, settings. What does not live here:
//! frames, sessions, applications and keys (`super`), and what a file holds (`files`).

use super::super::ev2::Mode;
use super::super::files::{AUTHENTICATION, Access, Change, Contents, File, PARAMETER, Status, Value, Want};
use super::super::ntag424;
use super::{DUPLICATE, Desfire, Done, Kind, LENGTH, OUT_OF_MEMORY};

/// Bytes of all files together: a DESFire of 4 KiB.
const MEMORY: usize = 4096;

impl Desfire {
    /// `CD` standard, `CB` backup, `CC` value; without file identifiers of ISO 7816.
    pub(super) fn create_file(&mut self, ins: u8, number: u8, settings: &[u8]) -> Result<(), Status> {
        let master = self.is_master();
        let files = self.applications.values().flat_map(|one| one.files.values());
        let used: usize = files.map(File::size).sum();
        let application = self.application()?;
        if application.settings & 0x04 == 0 && !master {
            return Err(AUTHENTICATION);
        }
        if application.files.contains_key(&number) {
            return Err(DUPLICATE);
        }
        let (mode, low, high, contents) = match (ins, settings) {
            (0xCD | 0xCB, [mode, low, high, a, b, c]) => {
                let length = length_of(&[*a, *b, *c]);
                if used + length > MEMORY {
                    return Err(OUT_OF_MEMORY);
                }
                let stored = vec![0; length];
                let contents = match ins {
                    0xCD => Contents::Standard(stored),
                    _ => Contents::Backup { stored, waiting: None },
                };
                (mode, low, high, contents)
            }
            (0xCC, [mode, low, high, rest @ .., limited]) => {
                let (&[lower, upper, stored], []) = rest.as_chunks::<4>() else { return Err(LENGTH) };
                let numbers = [lower, upper, stored].map(i32::from_le_bytes);
                let value = Value::new(numbers, *limited).ok_or(PARAMETER)?;
                (mode, low, high, Contents::Value(value))
            }
            _ => return Err(LENGTH),
        };
        let mode = Mode::of_settings(*mode).ok_or(PARAMETER)?;
        let access = Access(u16::from_le_bytes([*low, *high]));
        application.files.insert(number, File { mode, access, contents, dynamic: Vec::new() });
        Ok(())
    }

    /// Header: file, offset, length.
    pub(super) fn read_file(&mut self, ins: u8, body: &[u8]) -> Result<Done, Status> {
        let channel = self.channel.clone();
        let file = self.file(*body.first().ok_or(LENGTH)?)?;
        let mode = file.allow(Want::Read, channel.as_ref())?;
        let clear = self.unseal(mode, ins, body, 7)?;
        let [number, o0, o1, o2, l0, l1, l2] = clear.as_slice() else { return Err(LENGTH) };
        let (offset, length) = (length_of(&[*o0, *o1, *o2]), length_of(&[*l0, *l1, *l2]));
        let file = self.file(*number)?;
        let data = match &file.contents {
            Contents::Standard(stored) if channel.is_none() && !file.dynamic.is_empty() => {
                let (stored, settings) = (stored.clone(), file.dynamic.clone());
                let made = Contents::Standard(self.make_address(&stored, &settings)?);
                let access = Access(0xEEEE);
                File { mode: Mode::Plain, access, contents: made, dynamic: Vec::new() }
                    .read(offset, length)?
            }
            _ => file.read(offset, length)?,
        };
        Ok(Done::with(mode, data))
    }

    /// Counts one reading each time the chip has power.
    fn make_address(&mut self, stored: &[u8], settings: &[u8]) -> Result<Vec<u8>, Status> {
        if !std::mem::replace(&mut self.counted, true) {
            self.readings += 1;
        }
        let [a, b, c, d, e, ..] = self.draw();
        let (uid, readings) = (self.uid.clone(), self.readings);
        let keys = &self.application()?.keys;
        ntag424::mirrored(stored, settings, keys, &uid, readings, [a, b, c, d, e]).ok_or(PARAMETER)
    }

    /// Option, access rights, and on an NTAG 424 what is dynamic.
    pub(super) fn change_settings(&mut self, ins: u8, body: &[u8]) -> Result<Done, Status> {
        let channel = self.channel.clone();
        let number = *body.first().ok_or(LENGTH)?;
        self.file(number)?.allow(Want::Change, channel.as_ref())?;
        let clear = self.unseal(Mode::Full, ins, body, 1)?;
        let [_, option, low, high, dynamic @ ..] = clear.as_slice() else { return Err(LENGTH) };
        let is_dynamic = option & 0x40 != 0;
        let known = is_dynamic != dynamic.is_empty() && ntag424::takes(dynamic);
        if !known || is_dynamic && self.kind != Kind::Ntag424 {
            return Err(PARAMETER);
        }
        let mode = Mode::of_settings(option & !0x40).ok_or(PARAMETER)?;
        let file = self.file(number)?;
        (file.mode, file.access) = (mode, Access(u16::from_le_bytes([*low, *high])));
        file.dynamic = dynamic.to_vec();
        Ok(Done::with(Mode::Mac, Vec::new()))
    }

    pub(super) fn write_file(&mut self, ins: u8, body: &[u8]) -> Result<Done, Status> {
        let channel = self.channel.clone();
        let file = self.file(*body.first().ok_or(LENGTH)?)?;
        let mode = file.allow(Want::Write, channel.as_ref())?;
        let clear = self.unseal(mode, ins, body, 7)?;
        let [number, o0, o1, o2, l0, l1, l2, data @ ..] = clear.as_slice() else { return Err(LENGTH) };
        if data.len() != length_of(&[*l0, *l1, *l2]) || data.is_empty() {
            return Err(LENGTH);
        }
        self.file(*number)?.write(length_of(&[*o0, *o1, *o2]), data)?;
        Ok(Done::with(answer_mode(mode), Vec::new()))
    }

    pub(super) fn get_value(&mut self, ins: u8, body: &[u8]) -> Result<Done, Status> {
        let channel = self.channel.clone();
        let file = self.file(*body.first().ok_or(LENGTH)?)?;
        let (mode, value) = (file.allow(Want::Any, channel.as_ref())?, file.value()?);
        match self.unseal(mode, ins, body, 1)?.as_slice() {
            [_] => Ok(Done::with(mode, value.to_le_bytes().to_vec())),
            _ => Err(LENGTH),
        }
    }

    pub(super) fn change_value(&mut self, ins: u8, body: &[u8]) -> Result<Done, Status> {
        let channel = self.channel.clone();
        let (want, change) = match ins {
            0x0C => (Want::Both, Change::Credit),
            0x1C => (Want::Write, Change::LimitedCredit),
            _ => (Want::Any, Change::Debit),
        };
        let mode = self.file(*body.first().ok_or(LENGTH)?)?.allow(want, channel.as_ref())?;
        let clear = self.unseal(mode, ins, body, 1)?;
        let [number, a, b, c, d] = clear.as_slice() else { return Err(LENGTH) };
        self.file(*number)?.change_value(i32::from_le_bytes([*a, *b, *c, *d]), change)?;
        Ok(Done::with(answer_mode(mode), Vec::new()))
    }
}

/// Answers without data are never enciphered.
fn answer_mode(mode: Mode) -> Mode {
    if mode == Mode::Full { Mode::Mac } else { mode }
}

pub(super) fn length_of([low, middle, high]: &[u8; 3]) -> usize {
    usize::from(*low) | usize::from(*middle) << 8 | usize::from(*high) << 16
}
