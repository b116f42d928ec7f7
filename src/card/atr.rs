//! The answer to reset. What lives here: its form (ISO/IEC 7816-3:2006 §8.2), and
//! what its historical bytes say of a contactless card (PC/SC 2.01 part 3
//! §3.1.3.2.3 and its supplement of standards and card names). What does not:
//! whether the reader tells the truth; `probe` asks the card.

/// The longest ATR (ISO/IEC 7816-3:2006 §8.2.1: TS and at most 32 characters).
pub const MAX_ATR_BYTES: usize = 33;

/// The bytes are not an answer to reset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("answer to reset, byte {offset}: expected {expected}")]
pub struct AtrError {
    /// Where, from 0.
    pub offset: usize,
    /// What should have been there.
    pub expected: &'static str,
}

/// One group of interface bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InterfaceBytes {
    /// TAi.
    pub ta: Option<u8>,
    /// TBi.
    pub tb: Option<u8>,
    /// TCi.
    pub tc: Option<u8>,
    /// TDi.
    pub td: Option<u8>,
}

/// How the card sends its bits, told by TS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convention {
    /// TS = 3B.
    Direct,
    /// TS = 3F.
    Inverse,
}

/// A well-formed answer to reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerToReset {
    /// By TS.
    pub convention: Convention,
    /// Groups in order: TA1…TD1, TA2…TD2, …
    pub interface: Vec<InterfaceBytes>,
    /// The historical bytes.
    pub historical: Vec<u8>,
    /// The check byte, present unless T=0 is the only protocol.
    pub tck: Option<u8>,
}

/// Reads bytes one by one and knows where it is.
struct Scanner<'b> {
    bytes: &'b [u8],
    offset: usize,
}

impl Scanner<'_> {
    fn next(&mut self, expected: &'static str) -> Result<u8, AtrError> {
        let byte = self.bytes.get(self.offset).copied();
        let byte = byte.ok_or(AtrError { offset: self.offset, expected })?;
        self.offset += 1;
        Ok(byte)
    }

    fn group(&mut self, follows: u8) -> Result<InterfaceBytes, AtrError> {
        let mut take = |bit: u8, name| (follows & bit != 0).then(|| self.next(name)).transpose();
        Ok(InterfaceBytes {
            ta: take(0x10, "TA")?,
            tb: take(0x20, "TB")?,
            tc: take(0x40, "TC")?,
            td: take(0x80, "TD")?,
        })
    }
}

impl AnswerToReset {
    /// Reads an ATR, all of it.
    ///
    /// # Errors
    /// [`AtrError`] naming the first byte that is not as the standard says.
    pub fn parse(bytes: &[u8]) -> Result<Self, AtrError> {
        if bytes.len() > MAX_ATR_BYTES {
            return Err(AtrError { offset: MAX_ATR_BYTES, expected: "the end (33 bytes at most)" });
        }
        let mut scanner = Scanner { bytes, offset: 0 };
        let convention = match scanner.next("TS")? {
            0x3B => Convention::Direct,
            0x3F => Convention::Inverse,
            _ => return Err(AtrError { offset: 0, expected: "TS 3B or 3F" }),
        };
        let t0 = scanner.next("T0")?;
        let (interface, needs_check) = interface_groups(&mut scanner, t0 & 0xF0)?;
        let historical =
            (0..t0 & 0x0F).map(|_| scanner.next("a historical byte")).collect::<Result<Vec<u8>, _>>()?;
        let tck = needs_check.then(|| scanner.next("TCK")).transpose()?;
        if tck.is_some() && bytes.iter().skip(1).fold(0, |sum, byte| sum ^ byte) != 0 {
            return Err(AtrError {
                offset: scanner.offset - 1,
                expected: "TCK, the XOR of T0 and all after it",
            });
        }
        if scanner.offset != bytes.len() {
            return Err(AtrError { offset: scanner.offset, expected: "the end" });
        }
        Ok(Self { convention, interface, historical, tck })
    }

    /// What a contactless reader says the storage card is: the historical bytes
    /// `80 4F 0C RID SS NN NN 00 00 00 00` of PC/SC part 3.
    #[must_use]
    pub fn storage_card(&self) -> Option<StorageCard> {
        let rest = self.historical.strip_prefix(&[0x80, 0x4F])?;
        let rest = rest.get(1..)?.strip_prefix(&[0xA0, 0x00, 0x00, 0x03, 0x06])?;
        match rest {
            [standard, high, low, ..] => {
                Some(StorageCard { standard: *standard, name: u16::from_be_bytes([*high, *low]) })
            }
            _ => None,
        }
    }

    /// Whether this is the ATR that readers make up for an ISO/IEC 14443-4 card:
    /// `3B 8n 80 01` and the historical bytes of the ATS (PC/SC part 3 §3.1.3.2.3.1).
    #[must_use]
    pub fn is_contactless_cpu(&self) -> bool {
        let td: Vec<Option<u8>> = self.interface.iter().map(|group| group.td).collect();
        td.starts_with(&[Some(0x80), Some(0x01)]) && self.storage_card().is_none()
    }
}

/// TA1…TDn, and whether a TCK follows: a TDi names a protocol other than T=0.
fn interface_groups(scanner: &mut Scanner<'_>, first: u8) -> Result<(Vec<InterfaceBytes>, bool), AtrError> {
    let mut groups = Vec::new();
    let mut needs_check = false;
    let mut follows = first;
    while follows != 0 {
        let group = scanner.group(follows)?;
        follows = group.td.map_or(0, |td| td & 0xF0);
        needs_check |= group.td.is_some_and(|td| td & 0x0F != 0);
        groups.push(group);
    }
    Ok((groups, needs_check))
}

/// Standard and name of a storage card, as the reader tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageCard {
    /// SS: 03 ISO/IEC 14443 A part 3, 0B ISO/IEC 15693 part 3, …
    pub standard: u8,
    /// NN: see [`StorageName`].
    pub name: u16,
}

/// Card names of the PC/SC part 3 supplement that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageName {
    /// 0001, and 0036 (Plus 2K at SL1, which answers as a Classic).
    Classic1k,
    /// 0002, and 0037 (Plus 4K at SL1).
    Classic4k,
    /// 0003 and 0000: Ultralight, any NTAG21x, and on some readers a Classic. Ask the card.
    Doubtful,
    /// 003A.
    UltralightC,
    /// 003D, Ultralight EV1.
    Ultralight,
    /// Any card of ISO/IEC 15693.
    Vicinity,
    /// A name this version has no technology for.
    Other,
}

impl StorageCard {
    /// The name as identification needs it.
    #[must_use]
    pub fn kind(self) -> StorageName {
        match (self.standard, self.name) {
            (0x09..=0x0C, _) | (_, 0x0014) => StorageName::Vicinity,
            (_, 0x0001 | 0x0036) => StorageName::Classic1k,
            (_, 0x0002 | 0x0037) => StorageName::Classic4k,
            (_, 0x0003 | 0x0000) => StorageName::Doubtful,
            (_, 0x003A) => StorageName::UltralightC,
            (_, 0x003D) => StorageName::Ultralight,
            _ => StorageName::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AnswerToReset, AtrError> {
        AnswerToReset::parse(&hex::decode(text.replace(' ', "")).unwrap())
    }

    #[test]
    fn storage_cards_name_themselves() {
        // ATRs as they stand in the public list of pcsc-tools (smartcard_list.txt) and in
        // the ACR122U API v2.04 §3.1; the last two from published reader traces.
        let cases = [
            ("Classic 1K", "3B8F8001804F0CA000000306030001000000006A", StorageName::Classic1k),
            ("Classic 4K", "3B8F8001804F0CA0000003060300020000000069", StorageName::Classic4k),
            ("Ultralight or NTAG", "3B8F8001804F0CA0000003060300030000000068", StorageName::Doubtful),
            ("ICODE SLI", "3B8F8001804F0CA0000003060B00140000000077", StorageName::Vicinity),
            ("Plus 2K at SL1", "3B8F8001804F0CA000000306030036000000005D", StorageName::Classic1k),
        ];
        for (name, text, expected) in cases {
            let atr = parse(text).unwrap();
            assert_eq!(atr.storage_card().unwrap().kind(), expected, "{name}");
            assert!(!atr.is_contactless_cpu(), "{name}");
        }
    }

    #[test]
    fn processor_cards_are_told_apart() {
        // (name, ATR, historical bytes, contactless) — pcsc-tools' list; the bank card from a published trace.
        let cases = [
            ("DESFire", "3B8180018080", "80", true),
            ("phone", "3B80800101", "", true),
            ("bank card", "3B8B80010031C0640844037700900037", "0031C06408440377009000", true),
            ("JCOP contact", "3BF81800FF8131FE454A434F507632343143", "4A434F5076323431", false),
            ("SLE4442", "3B04A2131091", "A2131091", false),
        ];
        for (name, text, historical, contactless) in cases {
            let atr = parse(text).unwrap();
            assert_eq!(hex::encode_upper(&atr.historical), historical, "{name}");
            assert_eq!(atr.is_contactless_cpu(), contactless, "{name}");
            assert_eq!(atr.storage_card(), None, "{name}");
        }
    }

    #[test]
    fn interface_bytes_and_check() {
        let jcop = parse("3BF81800FF8131FE454A434F507632343143").unwrap();
        assert_eq!(
            jcop.interface.first(),
            Some(&InterfaceBytes { ta: Some(0x18), tb: Some(0), tc: Some(0xFF), td: Some(0x81) })
        );
        assert_eq!((jcop.interface.len(), jcop.tck), (3, Some(0x43)));
        assert_eq!(jcop.convention, Convention::Direct);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("nothing", "", 0),
            ("no TS", "00", 0),
            ("cut in the interface bytes", "3BF818", 3),
            ("cut in the historical bytes", "3B8F8001804F0C", 7),
            ("no TCK", "3B80 8001", 4),
            ("TCK wrong", "3B8180018081", 5),
            ("too much", "3B04A213109100", 6),
            ("far too much", &"3B".repeat(40), 33),
        ];
        for (name, text, offset) in cases {
            assert_eq!(parse(text).unwrap_err().offset, offset, "{name}");
        }
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(0u8.., 0..64)) {
            if let Ok(atr) = AnswerToReset::parse(&bytes) {
                assert!(atr.historical.len() <= 15 && bytes.len() <= MAX_ATR_BYTES);
                let _ = (atr.storage_card().map(StorageCard::kind), atr.is_contactless_cpu());
            }
        }

        #[test]
        fn a_flipped_bit_behind_ts_never_passes_the_check(bit in 8usize..160) {
            let mut bytes = hex::decode("3B8F8001804F0CA000000306030001000000006A").unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(AnswerToReset::parse(&bytes).is_err());
        }
    }
}
