//! Keys everybody knows: those cards leave the factory with, and those of public
//! applications. What lives here: the list, for issuing (an empty card opens with
//! one of them, and with nothing else) and for finding a card that was never
//! secured. What does not: keys of ours.

use zeroize::Zeroizing;

use super::ClassicLogin;
use crate::card::apdu::Command;
use crate::card::crypto::{NoRandom, aes128::AesKey, ev1, ev2, tdes::TripleDesKey, ultralight_c};

/// A public key of a Classic sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassicKey {
    /// Its bytes; they protect nothing.
    pub key: [u8; 6],
    /// Where it is published.
    pub source: &'static str,
}

impl ClassicKey {
    /// Login with it as key A, which under the access bits of a card as delivered does everything.
    #[must_use]
    pub fn login(&self, block: u8) -> ClassicLogin {
        ClassicLogin { load: Command::load_key(&self.key), authenticate: Command::authenticate(block) }
    }
}

/// What nearly all of them are delivered with.
pub const DELIVERED: ClassicKey =
    ClassicKey { key: [0xFF; 6], source: "MIFARE Classic EV1 data sheet §8.6.3: delivery state" };

/// Public Classic keys, in the order in which an empty card is asked. A Classic
/// counts no failures, so that asking costs nothing; a failed login halts the card.
pub const CLASSIC: &[ClassicKey] = &[
    DELIVERED,
    ClassicKey {
        key: [0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5],
        source: "NXP AN10787: key A of the application directory; early transport key A",
    },
    ClassicKey {
        key: [0xB0, 0xB1, 0xB2, 0xB3, 0xB4, 0xB5],
        source: "early transport key B (Philips, Infineon)",
    },
    ClassicKey { key: [0xD3, 0xF7, 0xD3, 0xF7, 0xD3, 0xF7], source: "NXP AN1304: key A of NDEF sectors" },
    ClassicKey { key: [0x00; 6], source: "compatible chips delivered blank" },
];

/// Password and PACK of an NTAG21x as delivered (NTAG213/215/216 data sheet §8.5.7).
pub const TAG_PASSWORD: ([u8; 4], [u8; 2]) = ([0xFF; 4], [0x00; 2]);

/// Key of an Ultralight C as delivered (MF0ICU2 data sheet §7.5.6).
pub const ULTRALIGHT_C: [u8; 16] = *b"IEMKAERB!NACUOYF";

/// All keys of a DESFire or NTAG 424 as delivered (NTAG 424 DNA data sheet §8.2.3.4);
/// version 0. A new DESFire card has DES keys of zeros until its first change.
pub const EV2: [u8; 16] = [0x00; 16];

/// PSC of an SLE4442 as delivered (SLE4442 data sheet, delivery state).
pub const PSC: [u8; 3] = [0xFF; 3];

/// First login to an application whose key `number` is still the delivered one ([`EV2`]).
///
/// # Errors
/// [`NoRandom`].
pub fn ev2_login(number: u8) -> Result<ev2::Login, NoRandom> {
    ev2::Login::first(AesKey::factory(), number)
}

/// The same on a DESFire EV1.
///
/// # Errors
/// [`NoRandom`].
pub fn ev1_login(number: u8) -> Result<ev1::Login, NoRandom> {
    ev1::Login::new(AesKey::factory(), number)
}

/// Login to an Ultralight C as delivered.
///
/// # Errors
/// [`NoRandom`].
pub fn ultralight_c_login() -> Result<ultralight_c::Login, NoRandom> {
    ultralight_c::Login::new(TripleDesKey::new(Zeroizing::new(ULTRALIGHT_C)))
}

/// The command that presents the code an SLE4442 is delivered with. A card that does not have it
/// counts a try.
#[must_use]
pub fn psc() -> Command {
    Command::new([0xFF, 0x20, 0x00, 0x00]).with_data(&PSC).secret().counted_by_the_card()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_presented_as_key_a() {
        let login = CLASSIC[1].login(7);
        assert_eq!(hex::encode_upper(login.load.to_bytes()), "FF82000006A0A1A2A3A4A5");
        assert_eq!(hex::encode_upper(login.authenticate.to_bytes()), "FF860000050100076000");
    }

    #[test]
    fn the_ultralight_c_key_is_the_published_one() {
        assert_eq!(hex::encode_upper(ULTRALIGHT_C), "49454D4B41455242214E4143554F5946");
    }
}
