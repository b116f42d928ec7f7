//! What an NTAG 424 DNA is beside a DESFire: one application with five keys and three files
//! that are there from the beginning, and an address that it makes anew at every reading
//! (secure dynamic messaging). After the NTAG 424 DNA data sheet rev. 3.0 §8 and §9.3, and
//! AN12196 rev. 2.0. What does not live here: sessions, rights and commands (`desfire`).

use super::desfire::{Application, Desfire, Key};
use super::ev2::{Block, Mode, cmac, encrypt, short_mac};
use super::files::{Access, Contents, File};

/// The application's name (data sheet §8.2.2).
pub(super) const NAME: [u8; 7] = [0xD2, 0x76, 0x00, 0x00, 0x85, 0x01, 0x01];
/// The engine's own number for it.
pub(super) const APPLICATION: [u8; 3] = [0x01, 0x00, 0x00];

/// The capability container: NDEF file E104 of 256 bytes, file E105 of 128 (NFC Forum Type 4).
const CONTAINER: [u8; 23] = [
    0x00, 0x17, 0x20, 0x01, 0x00, 0x00, 0xFF, 0x04, 0x06, 0xE1, 0x04, 0x01, 0x00, 0x00, 0x00, 0x05, 0x06,
    0xE1, 0x05, 0x00, 0x80, 0x82, 0x83,
];

/// As delivered: container, NDEF file and a file for whatever one likes (data sheet §8.2.3.1, table 4).
pub(super) fn as_delivered(uid: &[u8]) -> Desfire {
    let file = |mode, access, contents| File {
        mode,
        access: Access(access),
        contents: Contents::Standard(contents),
        dynamic: Vec::new(),
    };
    let mut container = CONTAINER.to_vec();
    container.resize(32, 0);
    let files = [
        (1, file(Mode::Plain, 0xE000, container)),
        (2, file(Mode::Plain, 0xEEE0, vec![0; 256])),
        (3, file(Mode::Full, 0x2330, vec![0; 128])),
    ];
    let application = Application { settings: 0x01, keys: vec![Key::default(); 5], files: files.into() };
    Desfire::with_one(uid, APPLICATION, application)
}

/// The commands it has (data sheet §10).
pub(super) fn knows(ins: u8) -> bool {
    matches!(ins, 0x71 | 0x77 | 0xAF | 0xAD | 0x8D | 0xC4 | 0x64 | 0xF5 | 0x5F | 0x51 | 0x60)
}

/// What follows the access rights in the settings of a file with dynamic data: who it was and
/// which reading, enciphered, then a MAC. Only this one form is known here.
struct Dynamic {
    meta_key: u8,
    file_key: u8,
    picc: usize,
    covered: usize,
    mac: usize,
}

fn dynamic(settings: &[u8]) -> Option<Dynamic> {
    // UID and counter mirrored, in ASCII.
    let [0xC1, low, high, offsets @ ..] = settings else { return None };
    let [picc, covered, mac] = offsets.as_chunks::<3>().0 else { return None };
    let offset = |bytes: &[u8; 3]| usize::from(bytes[0]) | usize::from(bytes[1]) << 8;
    let rights = u16::from_le_bytes([*low, *high]);
    let nibble = |shift: u16| u8::try_from(rights >> shift & 0xF).unwrap_or(0xF);
    Some(Dynamic {
        meta_key: nibble(12),
        file_key: nibble(8),
        picc: offset(picc),
        covered: offset(covered),
        mac: offset(mac),
    })
}

/// Whether settings are such as it takes.
pub(super) fn takes(settings: &[u8]) -> bool {
    settings.is_empty() || settings.len() == 12 && dynamic(settings).is_some()
}

/// The file as whoever has no session reads it at reading `counter`.
pub(super) fn mirrored(
    stored: &[u8],
    settings: &[u8],
    keys: &[Key],
    uid: &[u8],
    counter: u32,
    tail: [u8; 5],
) -> Option<Vec<u8>> {
    let of = dynamic(settings)?;
    let key = |number: u8| keys.get(usize::from(number)).map(Key::bytes);
    let mut bytes = stored.to_vec();
    let picc = hex::encode_upper(picc_data(&key(of.meta_key)?, uid, counter, tail));
    bytes.get_mut(of.picc..of.picc + 32)?.copy_from_slice(picc.as_bytes());
    let covered = bytes.get(of.covered..of.mac)?.to_vec();
    let mac = hex::encode_upper(mac(&key(of.file_key)?, uid, counter, &covered));
    bytes.get_mut(of.mac..of.mac + 16)?.copy_from_slice(mac.as_bytes());
    Some(bytes)
}

/// Tag, UID, counter and random bytes, enciphered (data sheet §9.3.4).
fn picc_data(meta: &Block, uid: &[u8], counter: u32, tail: [u8; 5]) -> Vec<u8> {
    let count = counter.to_le_bytes();
    let clear = [&[0xC7][..], uid, count.get(..3).unwrap_or_default(), &tail].concat();
    encrypt(meta, [0; 16], &clear)
}

/// Data sheet §9.3.8 and §9.3.9.
fn mac(file: &Block, uid: &[u8], counter: u32, covered: &[u8]) -> Vec<u8> {
    let count = counter.to_le_bytes();
    let vector =
        [&[0x3C, 0xC3, 0x00, 0x01, 0x00, 0x80][..], uid, count.get(..3).unwrap_or_default()].concat();
    short_mac(&cmac(file, &vector), covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AN12196 rev. 2.0 §3.4: keys of zeros, UID 04DE5F1EACC040, reading 61.
    #[test]
    fn an_address_as_published() {
        let uid = hex::decode("04DE5F1EACC040").unwrap();
        let published = hex::decode("EF963FF7828658A599F3041510671E88").unwrap();
        let clear = super::super::ev2::decrypt(&[0; 16], [0; 16], &published);
        let tail = clear[11..].try_into().unwrap();
        assert_eq!(picc_data(&[0; 16], &uid, 61, tail), published);
        assert_eq!(hex::encode_upper(mac(&[0; 16], &uid, 61, &[])), "94EED9EE65337086");
    }
}
