//! The address that an NTAG 424 DNA makes anew at every reading ("SUN", secure
//! dynamic messaging): which tag it was, and its reading counter (NTAG 424 DNA data
//! sheet §9.3, AN12196 rev. 2.0 §3.4). What does not live here: the address itself. The
//! last counter seen of a tag is kept nowhere: a login follows, and proves more (docs/cards.md).

use subtle::ConstantTimeEq;

use super::aes128::{AesKey, Block};

/// PICCDataTag with UID and counter mirrored and a UID of seven bytes (data sheet §9.3.3).
const UID_AND_COUNTER: u8 = 0xC7;

/// What the tag said of itself, once its MAC was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The tag.
    pub uid: [u8; 7],
    /// How often it was read, this time included, by whomever.
    pub counter: u32,
}

/// Deciphers the PICC data; nothing of it is proven yet.
#[must_use]
pub fn decipher(meta: &AesKey, picc_data: &Block) -> Option<Reading> {
    let mut blocks = [*picc_data];
    meta.decrypt_chain(&[0; 16], &mut blocks);
    let [[tag, u0, u1, u2, u3, u4, u5, u6, c0, c1, c2, ..]] = blocks;
    (tag == UID_AND_COUNTER).then_some(Reading {
        uid: [u0, u1, u2, u3, u4, u5, u6],
        counter: u32::from_le_bytes([c0, c1, c2, 0]),
    })
}

/// Whether the tag with this file key made `mac` over `covered` (the part of the
/// address between the two offsets of its settings; often nothing) at this reading.
#[must_use]
pub fn is_genuine(file: &AesKey, reading: &Reading, covered: &[u8], mac: &[u8; 8]) -> bool {
    session_mac_key(file, reading).short_cmac(covered).ct_eq(mac).into()
}

/// Data sheet §9.3.9.1: SV2 = 3CC3 ‖ 0001 ‖ 0080 ‖ UID ‖ counter.
fn session_mac_key(file: &AesKey, reading: &Reading) -> AesKey {
    let [c0, c1, c2, _] = reading.counter.to_le_bytes();
    let [u0, u1, u2, u3, u4, u5, u6] = reading.uid;
    let vector = [0x3C, 0xC3, 0x00, 0x01, 0x00, 0x80, u0, u1, u2, u3, u4, u5, u6, c0, c1, c2];
    AesKey::new(zeroize::Zeroizing::new(file.cmac(&vector)))
}

#[cfg(test)]
mod tests {
    use super::super::unhex;
    use super::*;

    #[test]
    fn as_published() {
        // AN12196 rev. 2.0 §3.4.2.2 and §3.4.4.2.1, keys 0.
        let key = AesKey::factory();
        let reading = decipher(&key, &unhex("EF963FF7828658A599F3041510671E88")).unwrap();
        assert_eq!(reading, Reading { uid: unhex("04DE5F1EACC040"), counter: 61 });
        let session = session_mac_key(&key, &reading);
        assert_eq!(hex::encode_upper(session.expose()), "3FB5F6E3A807A03D5E3570ACE393776F");
        let mac = unhex("94EED9EE65337086");
        assert!(is_genuine(&key, &reading, b"", &mac));
        assert!(!is_genuine(&key, &Reading { counter: 62, ..reading }, b"", &mac), "another reading");
        assert!(!is_genuine(&key, &reading, b"0", &mac), "something covered");
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn one_wrong_bit_is_refused(at in 0usize..64) {
            let key = AesKey::factory();
            let reading = Reading { uid: unhex("04DE5F1EACC040"), counter: 61 };
            let mut mac: [u8; 8] = unhex("94EED9EE65337086");
            mac[at / 8] ^= 1 << (at % 8);
            assert!(!is_genuine(&key, &reading, b"", &mac));
        }
    }
}
