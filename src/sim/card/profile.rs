//! Which card lies on the reader: technology, UID, and the answer to reset a PC/SC
//! reader makes of them (PC/SC 2.01.14 part 3, §3.1.3.2.3).

/// What the card is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Technology {
    /// MIFARE Classic 1K (S50, FM11RF08).
    #[value(name = "classic-1k")]
    Classic1k,
    /// MIFARE Classic 4K (S70).
    #[value(name = "classic-4k")]
    Classic4k,
    /// MIFARE Ultralight EV1 (MF0UL11).
    #[value(name = "ultralight-ev1")]
    UltralightEv1,
    /// MIFARE Ultralight EV1 with 128 bytes (MF0UL21).
    #[value(name = "ultralight-ev1-128")]
    UltralightEv1Large,
    /// MIFARE Ultralight C (MF0ICU2).
    #[value(name = "ultralight-c")]
    UltralightC,
    /// NTAG213.
    Ntag213,
    /// NTAG215.
    Ntag215,
    /// NTAG216.
    Ntag216,
    /// MIFARE DESFire EV2.
    #[value(name = "desfire")]
    Desfire,
    /// MIFARE DESFire EV1.
    #[value(name = "desfire-ev1")]
    DesfireEv1,
    /// NTAG 424 DNA.
    Ntag424,
    /// A processor card of the FMCOS kind (FM1208).
    Cpu,
    /// A bank card: a processor card with a payment directory and none of ours.
    Bank,
    /// ICODE SLI, ISO 15693.
    Icode,
    /// SLE4442, a contact memory card in an ACS reader.
    Sle4442,
}

/// A card to tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardProfile {
    /// What the card is.
    pub technology: Technology,
    /// 4, 7 or 8 bytes.
    pub uid: Vec<u8>,
    /// Instead of the answer to reset that belongs to the technology.
    pub atr: Option<Vec<u8>>,
    /// The reader passes `FF000000 LC D442…` to the card as an ACR122U does; else 6A81.
    pub direct_transmit: bool,
    /// Key A and B of every sector of a Classic card.
    pub key: [u8; 6],
}

impl CardProfile {
    /// A card of this kind with a UID of the right length.
    #[must_use]
    pub fn new(technology: Technology) -> Self {
        let uid: &[u8] = match technology {
            Technology::Classic1k | Technology::Classic4k => &[0x3A, 0x91, 0xC4, 0x5E],
            Technology::Cpu | Technology::Bank => &[0x6B, 0x20, 0x17, 0xD9],
            // Its issuer's: none has one as delivered.
            Technology::Sle4442 => &[0x51, 0x0E, 0x44, 0x42, 0x9C, 0x07],
            Technology::Icode => &[0xE0, 0x04, 0x01, 0x50, 0x2B, 0x11, 0x7C, 0x05],
            _ => &[0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0x5E, 0x80],
        };
        Self { technology, uid: uid.to_vec(), atr: None, direct_transmit: false, key: [0xFF; 6] }
    }

    /// The same card with another UID.
    #[must_use]
    pub fn with_uid(mut self, uid: &[u8]) -> Self {
        self.uid = uid.to_vec();
        self
    }

    /// The card in a reader that names every one an Ultralight (PC/SC card name 0003).
    #[must_use]
    pub fn misnamed(mut self) -> Self {
        self.atr = Some(storage_atr(0x03, 0x0003));
        self
    }

    /// The answer to reset.
    #[must_use]
    pub fn answer_to_reset(&self) -> Vec<u8> {
        if let Some(atr) = &self.atr {
            return atr.clone();
        }
        match self.technology {
            Technology::Classic1k => storage_atr(0x03, 0x0001),
            Technology::Classic4k => storage_atr(0x03, 0x0002),
            Technology::UltralightEv1
            | Technology::UltralightEv1Large
            | Technology::Ntag213
            | Technology::Ntag215
            | Technology::Ntag216 => storage_atr(0x03, 0x0003),
            Technology::UltralightC => storage_atr(0x03, 0x003A),
            Technology::Sle4442 => vec![0x3B, 0x04, 0xA2, 0x13, 0x10, 0x91],
            Technology::Icode => storage_atr(0x0B, 0x0014),
            Technology::Desfire
            | Technology::DesfireEv1
            | Technology::Ntag424
            | Technology::Cpu
            | Technology::Bank => {
                let historical = self.historical();
                let length = u8::try_from(historical.len()).unwrap_or(15) & 0x0F;
                with_check([&[0x3B, 0x80 | length, 0x80, 0x01], historical.as_slice()].concat())
            }
        }
    }

    /// Answer to select (ISO 14443-4), for cards that have one: length byte to historical bytes.
    #[must_use]
    pub fn answer_to_select(&self) -> Option<Vec<u8>> {
        let interface: &[u8] = match self.technology {
            Technology::Desfire | Technology::DesfireEv1 => &[0x75, 0x77, 0x81, 0x02],
            Technology::Ntag424 => &[0x77, 0x77, 0x71, 0x02],
            Technology::Cpu | Technology::Bank => &[0x78, 0x80, 0x90, 0x02],
            _ => return None,
        };
        let rest = [interface, &self.historical()].concat();
        let length = u8::try_from(rest.len() + 1).unwrap_or(u8::MAX);
        Some([&[length], rest.as_slice()].concat())
    }

    fn historical(&self) -> Vec<u8> {
        match self.technology {
            Technology::Desfire | Technology::DesfireEv1 | Technology::Ntag424 => vec![0x80],
            // FM1208: issuer bytes, then the serial number.
            Technology::Cpu => {
                let serial = self.uid.get(..8).unwrap_or(&self.uid);
                [&[0x20, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00], serial].concat()
            }
            Technology::Bank => vec![0x00, 0x31, 0xC1, 0x73, 0xC8, 0x40, 0x00, 0x00, 0x90, 0x00],
            _ => Vec::new(),
        }
    }
}

/// `3B 8F 80 01 80 4F 0C A000000306 SS NNNN 00000000 TCK`.
fn storage_atr(standard: u8, name: u16) -> Vec<u8> {
    let [high, low] = name.to_be_bytes();
    let mut atr = vec![0x3B, 0x8F, 0x80, 0x01, 0x80, 0x4F, 0x0C, 0xA0, 0x00, 0x00, 0x03, 0x06];
    atr.extend([standard, high, low, 0, 0, 0, 0]);
    with_check(atr)
}

/// Appends TCK: all bytes after the first together are zero (ISO 7816-3 §8.2.5).
fn with_check(mut atr: Vec<u8>) -> Vec<u8> {
    atr.push(atr.iter().skip(1).fold(0, |check, byte| check ^ byte));
    atr
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as listed in the public `smartcard_list.txt` of pcsc-tools.
    #[test]
    fn answers_to_reset_are_the_known_ones() {
        for (technology, atr) in [
            (Technology::Classic1k, "3B8F8001804F0CA000000306030001000000006A"),
            (Technology::Classic4k, "3B8F8001804F0CA0000003060300020000000069"),
            (Technology::Ntag213, "3B8F8001804F0CA0000003060300030000000068"),
            (Technology::Icode, "3B8F8001804F0CA0000003060B00140000000077"),
            (Technology::Desfire, "3B8180018080"),
            (Technology::Bank, "3B8A80010031C173C8400000900090"),
        ] {
            assert_eq!(
                hex::encode_upper(CardProfile::new(technology).answer_to_reset()),
                atr,
                "{technology:?}"
            );
        }
        let misnamed = CardProfile::new(Technology::Classic1k).misnamed();
        assert_eq!(hex::encode_upper(misnamed.answer_to_reset()), "3B8F8001804F0CA0000003060300030000000068");
    }
}
