//! PINs: their form, their slow hash, and the comparison. What does not live here: how
//! often somebody may try (`lockout`), and where the hash is kept (`store::operators`).

use argon2::password_hash::{Error, Output, ParamsString, PasswordHash, SaltString};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::store::operators::PinHash;

/// Memory of one hash, in KiB. Of OWASP's equally strong minimums (Password Storage Cheat
/// Sheet, "Argon2id": 46 MiB and 1 pass, 19 and 2, 12 and 3, 9 and 4, 7 and 5) the one with
/// the least memory: the daemon has 30 MB in all, and one hash runs at a time.
const MEMORY_KIB: u32 = 7_168;
/// Passes over that memory, of the same line.
const PASSES: u32 = 5;
/// A hash from the database that wants more memory than this, in KiB, is rotten.
const MOST_MEMORY_KIB: u32 = 65_536;
/// What is asked of the allocator for a hash, at least, in KiB. Only what is used is ever
/// backed by memory; but what is larger than 32 MiB, glibc gives back to the system at once
/// (mallopt(3), M_MMAP_THRESHOLD), while 7 MiB stay with the heap: 7 MB more after each of the
/// first logins, measured.
const ASKED_KIB: usize = 33 * 1024;
/// Bytes of a hash (RFC 9106 §4: 256 bits).
const HASH_BYTES: usize = 32;
/// Bytes of a salt (RFC 9106 §4 step 4: 16 is recommended).
const SALT_BYTES: usize = 16;
/// Digits of a PIN. Six leave a million to guess from: more than a century at the pace that
/// `lockout` allows.
const DIGITS: std::ops::RangeInclusive<usize> = 6..=12;
/// Nothing longer is worth hashing.
const LONGEST: usize = 64;

/// A PIN as typed. `Debug` prints nothing; the memory is wiped when it is dropped.
#[derive(Clone)]
pub(super) struct Pin(Zeroizing<String>);

impl From<String> for Pin {
    fn from(typed: String) -> Self {
        Self(Zeroizing::new(typed))
    }
}

/// What a request keeps of a PIN: nothing. Said with `skip_serializing_if`, because
/// `skip_serializing` would leave the field out of the OpenAPI document as well.
pub(super) fn never_kept(_: &Option<Pin>) -> bool {
    true
}

/// Nothing of it, even where somebody forgets [`never_kept`].
impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

/// By hand: what serde says of a wrong type repeats the value, and the answer is shown and logged.
impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Typed;
        impl Visitor<'_> for Typed {
            type Value = Pin;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a PIN as text, in quotes")
            }
            fn visit_str<E: de::Error>(self, typed: &str) -> Result<Pin, E> {
                Ok(Pin::from(typed.to_owned()))
            }
            fn visit_string<E: de::Error>(self, typed: String) -> Result<Pin, E> {
                Ok(Pin::from(typed))
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Pin, E> {
                Err(no_text())
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Pin, E> {
                Err(no_text())
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Pin, E> {
                Err(no_text())
            }
        }
        // As a string, serde_json would refuse a number before asking, and repeat it.
        deserializer.deserialize_any(Typed)
    }
}

fn no_text<E: de::Error>() -> E {
    E::custom("a PIN is text: put it in quotes")
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pin(…)")
    }
}

/// What came of comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is the PIN.
    Right,
    /// It is not.
    Wrong,
    /// What is stored is no hash of ours: a new PIN must be set.
    Unreadable,
}

impl Pin {
    /// Whether it may be somebody's PIN: 6 to 12 digits, not all the same and not a plain
    /// run such as 123456 or 987654.
    pub(super) fn may_be_chosen(&self) -> bool {
        let digits = self.0.as_bytes();
        let steps: Vec<i16> = digits
            .windows(2)
            .filter_map(|pair| match pair {
                [first, second] => Some(i16::from(*second) - i16::from(*first)),
                _ => None,
            })
            .collect();
        let a_run = [0, 1, -1].iter().any(|step| steps.iter().all(|found| found == step));
        DIGITS.contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) && !a_run
    }

    /// The hash to keep. Takes tens of milliseconds and 7 MiB: off the async threads.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub(super) fn hashed(&self) -> Result<PinHash, getrandom::Error> {
        let mut bytes = [0_u8; SALT_BYTES];
        getrandom::fill(&mut bytes)?;
        // Neither 16 bytes as a salt nor these parameters are ever refused.
        let salt = SaltString::encode_b64(&bytes).map_err(|_| getrandom::Error::UNSUPPORTED)?;
        self.hashed_with(&salt).map_err(|_| getrandom::Error::UNSUPPORTED)
    }

    fn hashed_with(&self, salt: &SaltString) -> Result<PinHash, Error> {
        let params = Params::new(MEMORY_KIB, PASSES, 1, None)?;
        let hash = PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params)?,
            salt: Some(salt.as_salt()),
            hash: Some(self.slowly(params, salt)?),
        };
        Ok(PinHash(hash.to_string()))
    }

    fn slowly(&self, params: Params, salt: &SaltString) -> Result<Output, Error> {
        let typed = self.0.as_bytes();
        let typed = typed.get(..LONGEST).unwrap_or(typed);
        let mut salt_bytes = [0_u8; 64];
        let salt = salt.decode_b64(&mut salt_bytes)?;
        let blocks = params.block_count();
        let mut memory = Vec::with_capacity(blocks.max(ASKED_KIB));
        memory.resize(blocks, Block::new());
        let mut hash = [0_u8; HASH_BYTES];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
            typed,
            salt,
            &mut hash,
            &mut memory,
        )?;
        metrics::counter!("baygate_operator_pin_hashes_total").increment(1);
        Output::new(&hash)
    }

    /// Compares in constant time. Without a hash (nobody has that id) it takes as long and is
    /// wrong. Off the async threads, as [`Pin::hashed`].
    pub(super) fn judge(&self, stored: Option<&PinHash>) -> Judgement {
        let Some(stored) = stored else {
            let nobody = SaltString::encode_b64(&[0; SALT_BYTES]).and_then(|salt| self.hashed_with(&salt));
            drop(nobody);
            return Judgement::Wrong;
        };
        let compared = PasswordHash::new(&stored.0).and_then(|hash| {
            let params = Params::try_from(&hash)?;
            let (Some(salt), Some(output)) = (hash.salt, hash.hash) else {
                return Err(Error::PhcStringField);
            };
            let ours = hash.algorithm == ARGON2ID_IDENT && hash.version == Some(Version::V0x13.into());
            if !ours || params.m_cost() > MOST_MEMORY_KIB {
                return Err(Error::Algorithm);
            }
            // `Output` compares in constant time.
            Ok(self.slowly(params, &SaltString::from_b64(salt.as_str())?)? == output)
        });
        match compared {
            Ok(true) => Judgement::Right,
            Ok(false) => Judgement::Wrong,
            Err(_) => Judgement::Unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(text: &str) -> Pin {
        Pin::from(text.to_owned())
    }

    #[test]
    fn what_may_be_a_pin() {
        // (typed, may be)
        let cases = [
            ("314159", true),
            ("112233", true),
            ("123457", true),
            ("271828182845", true),
            ("12345", false),
            ("123456", false),
            ("987654", false),
            ("000000", false),
            ("2718281828459", false),
            ("31415a", false),
            ("３１４１５９", false),
            ("", false),
        ];
        for (typed, may) in cases {
            assert_eq!(pin(typed).may_be_chosen(), may, "{typed}");
        }
    }

    #[test]
    fn only_the_pin_is_right_and_no_two_hashes_are_alike() {
        let (first, second) = (pin("314159").hashed().unwrap(), pin("314159").hashed().unwrap());
        assert_ne!(first.0, second.0);
        assert!(first.0.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{}", first.0);
        assert_eq!(pin("314159").judge(Some(&first)), Judgement::Right);
        assert_eq!(pin("314158").judge(Some(&first)), Judgement::Wrong);
        assert_eq!(pin("314159").judge(None), Judgement::Wrong);
        assert_eq!(format!("{:?} {first:?}", pin("314159")), "Pin(…) PinHash(…)");
    }

    /// How long an answer takes must not tell whether somebody has an id.
    #[test]
    fn an_id_that_nobody_has_costs_as_much() {
        let stored = pin("314159").hashed().unwrap();
        for stored in [Some(&stored), None] {
            let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            metrics::with_local_recorder(&recorder, || pin("314158").judge(stored));
            let told = handle.render();
            assert!(told.contains("baygate_operator_pin_hashes_total 1\n"), "{stored:?}: {told}");
        }
    }

    /// RFC 9106 §5.3 is with secret and associated data, which no PIN has; this one is from the
    /// reference implementation's own tests (`phc-winner-argon2`, src/test.c, Argon2id, v = 19).
    #[test]
    fn hashes_of_the_reference_implementation_are_understood() {
        let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert_eq!(pin("password").judge(Some(&PinHash(stored.into()))), Judgement::Right);
        assert_eq!(pin("Password").judge(Some(&PinHash(stored.into()))), Judgement::Wrong);
    }

    #[test]
    fn a_rotten_hash_lets_nobody_in_and_takes_no_memory() {
        let huge = "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        for stored in ["", "314159", "$argon2id$v=19$", huge] {
            assert_eq!(pin("314159").judge(Some(&PinHash(stored.into()))), Judgement::Unreadable, "{stored}");
        }
    }
}
