//! Application protocol data units as types. What lives here: commands in their
//! short form (ISO/IEC 7816-4:2020 §5.1), responses, status words, and the
//! pseudo-APDUs of contactless readers that identification uses (PC/SC 2.01
//! part 3 §3.2.2). What does not: what a card's answer means (`probe`), and
//! every command that needs a key or changes a card.

use std::fmt;

use zeroize::Zeroizing;

/// The longest response to a short command: 256 bytes and the status word.
pub const MAX_RESPONSE_BYTES: usize = 258;

/// A response did not have the form of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "response of {len} bytes: expected 2 to {MAX_RESPONSE_BYTES}, the last two being the status word; \
     the reader or card is faulty, try another card, then another reader"
)]
pub struct ResponseError {
    /// How many bytes came.
    pub len: usize,
}

/// SW1 and SW2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusWord(pub u16);

impl StatusWord {
    /// No further qualification (ISO/IEC 7816-4:2020 table 5).
    pub const OK: Self = Self(0x9000);
    /// DESFire wrapped: more frames follow (91AF).
    pub const DESFIRE_MORE: Self = Self(0x91AF);
    /// DESFire wrapped: done (9100).
    pub const DESFIRE_OK: Self = Self(0x9100);

    /// SW1.
    #[must_use]
    pub fn sw1(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// SW2.
    #[must_use]
    pub fn sw2(self) -> u8 {
        self.0.to_be_bytes()[1]
    }

    /// With SW1 = 6C: the `Le` that would have been right.
    #[must_use]
    pub fn right_le(self) -> Option<u8> {
        (self.sw1() == 0x6C).then(|| self.sw2())
    }
}

impl fmt::Display for StatusWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}", self.0)
    }
}

/// A short command APDU. Its bytes are wiped when it is dropped, and `Debug`
/// shows the data field only where it is not [`secret`](Self::secret).
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    header: [u8; 4],
    data: Zeroizing<Vec<u8>>,
    le: Option<u8>,
    secret: bool,
    costs_a_try: bool,
}

impl Command {
    /// Class, instruction and parameters alone (case 1).
    #[must_use]
    pub fn new(header: [u8; 4]) -> Self {
        Self { header, data: Zeroizing::default(), le: None, secret: false, costs_a_try: false }
    }

    /// With a data field. Nothing beyond 255 bytes fits a short command: the
    /// rest is cut off, which no caller in this house comes near.
    #[must_use]
    pub fn with_data(mut self, data: &[u8]) -> Self {
        self.data = Zeroizing::new(data.get(..255).unwrap_or(data).to_vec());
        self
    }

    /// Says that the data field holds a key, password, PIN or PSC: it is shown nowhere.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Says that the card counts this command if what it presents is wrong, and locks itself
    /// in the end: who did not hear the answer does not send it again.
    #[must_use]
    pub fn counted_by_the_card(mut self) -> Self {
        self.costs_a_try = true;
        self
    }

    /// Whether the card may have [counted](Self::counted_by_the_card) it.
    #[must_use]
    pub fn costs_a_try(&self) -> bool {
        self.costs_a_try
    }

    /// With `Le`; 0 asks for up to 256 bytes.
    #[must_use]
    pub fn expecting(mut self, le: u8) -> Self {
        self.le = Some(le);
        self
    }

    /// Get Data, UID (PC/SC part 3 §3.2.2.1.3).
    #[must_use]
    pub fn get_uid() -> Self {
        Self::new([0xFF, 0xCA, 0x00, 0x00]).expecting(0)
    }

    /// Read Binary from a block or page (PC/SC part 3 §3.2.2.1.8).
    #[must_use]
    pub fn read_block(block: u8, le: u8) -> Self {
        Self::new([0xFF, 0xB0, 0x00, block]).expecting(le)
    }

    /// Load a key into the reader's volatile slot 0 (PC/SC part 3 §3.2.2.1.4).
    #[must_use]
    pub fn load_key(key: &[u8; 6]) -> Self {
        Self::new([0xFF, 0x82, 0x00, 0x00]).with_data(key).secret()
    }

    /// General Authenticate with key A of slot 0 (PC/SC part 3 §3.2.2.1.6).
    #[must_use]
    pub fn authenticate(block: u8) -> Self {
        Self::authenticate_with(block, ClassicKeyType::A)
    }

    /// General Authenticate with the key of slot 0 as key A or B.
    #[must_use]
    pub fn authenticate_with(block: u8, key: ClassicKeyType) -> Self {
        Self::new([0xFF, 0x86, 0x00, 0x00]).with_data(&[0x01, 0x00, block, key as u8, 0x00])
    }

    /// Direct transmit to the PN53x inside some readers (ACR122U API v2.04 §6.1).
    /// Readers that do not know it answer with an error status.
    #[must_use]
    pub fn direct_transmit(pn53x: &[u8]) -> Self {
        Self::new([0xFF, 0x00, 0x00, 0x00]).with_data(pn53x)
    }

    /// DESFire native command in ISO wrapping, without data.
    #[must_use]
    pub fn desfire(ins: u8) -> Self {
        Self::new([0x90, ins, 0x00, 0x00]).expecting(0)
    }

    /// The bytes for the reader, wiped when dropped.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(6 + self.data.len()));
        bytes.extend_from_slice(&self.header);
        if let (Ok(lc), false) = (u8::try_from(self.data.len()), self.data.is_empty()) {
            bytes.push(lc);
            bytes.extend_from_slice(&self.data);
        }
        bytes.extend(self.le);
        bytes
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({}", hex::encode_upper(self.header))?;
        if self.secret {
            write!(f, " {} secret bytes", self.data.len())?;
        } else if !self.data.is_empty() {
            write!(f, " {}", hex::encode_upper(self.data.as_slice()))?;
        }
        if let Some(le) = self.le {
            write!(f, " Le {le:02X}")?;
        }
        f.write_str(")")
    }
}

/// Which of a sector's two keys (MIFARE Classic EV1 data sheet §8.6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ClassicKeyType {
    /// Key A.
    A = 0x60,
    /// Key B.
    B = 0x61,
}

/// A response APDU. `Debug` shows how long its data is: it may be a card's PACK, or a record.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The data field.
    pub data: Vec<u8>,
    /// The status word.
    pub status: StatusWord,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({} bytes, {})", self.data.len(), self.status)
    }
}

impl Response {
    /// Splits off the status word.
    ///
    /// # Errors
    /// [`ResponseError`] when there are fewer than two bytes, or more than a short command can bring.
    pub fn parse(bytes: &[u8]) -> Result<Self, ResponseError> {
        match bytes.split_last_chunk::<2>() {
            Some((data, status)) if bytes.len() <= MAX_RESPONSE_BYTES => {
                Ok(Self { data: data.to_vec(), status: StatusWord(u16::from_be_bytes(*status)) })
            }
            _ => Err(ResponseError { len: bytes.len() }),
        }
    }

    /// The data, when the status is 9000.
    #[must_use]
    pub fn ok(&self) -> Option<&[u8]> {
        (self.status == StatusWord::OK).then_some(self.data.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_their_published_bytes() {
        let cases = [
            ("UID, ACR122U API v2.04 §4.1", Command::get_uid(), "FFCA000000"),
            ("read page 4, ACR122U API v2.04 §5.3", Command::read_block(4, 16), "FFB0000410"),
            ("load key, ACR122U API v2.04 §5.1", Command::load_key(&[0xFF; 6]), "FF82000006FFFFFFFFFFFF"),
            (
                "authenticate block 4, ACR122U API v2.04 §5.2",
                Command::authenticate(4),
                "FF860000050100046000",
            ),
            (
                "GET_VERSION by InCommunicateThru",
                Command::direct_transmit(&[0xD4, 0x42, 0x60]),
                "FF00000003D44260",
            ),
            ("DESFire GetVersion, wrapped", Command::desfire(0x60), "9060000000"),
            ("header alone", Command::new([0, 0xA4, 4, 0]), "00A40400"),
        ];
        for (name, command, expected) in cases {
            assert_eq!(hex::encode_upper(command.to_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn a_secret_command_shows_its_header_only() {
        let key = [0x4B, 0x65, 0x79, 0x53, 0xC3, 0xD4];
        let shown = format!("{:?}", Command::load_key(&key));
        assert_eq!(shown, "Command(FF820000 6 secret bytes)");
        let shown = format!("{:?}", Command::authenticate_with(4, ClassicKeyType::B));
        assert_eq!(shown, "Command(FF860000 0100046100)");
        assert_eq!(format!("{:?}", Command::get_uid()), "Command(FFCA0000 Le 00)");
    }

    #[test]
    fn responses_split() {
        // An NTAG216 answering FFCA000000 on an Alcor AK9567, as published with its driver notes.
        let response = Response::parse(&hex::decode("04BD0F8ACD11909000").unwrap()).unwrap();
        assert_eq!(response.ok(), Some(hex::decode("04BD0F8ACD1190").unwrap().as_slice()));
        for (name, bytes) in [("nothing", vec![]), ("half a status", vec![0x90]), ("too long", vec![0; 259])]
        {
            assert_eq!(Response::parse(&bytes), Err(ResponseError { len: bytes.len() }), "{name}");
        }
        assert_eq!(Response::parse(&[0x6C, 0x07]).unwrap().status.right_le(), Some(7));
        assert_eq!(Response::parse(&[0x63, 0x00]).unwrap().ok(), None);
        let pack = Response::parse(&hex::decode("D543009D169000").unwrap()).unwrap();
        assert_eq!(format!("{pack:?}"), "Response(5 bytes, 9000)");
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn parsing_a_response_never_panics(bytes in proptest::collection::vec(0u8.., 0..300)) {
            if let Ok(response) = Response::parse(&bytes) {
                assert_eq!(response.data.len() + 2, bytes.len());
            }
        }

        #[test]
        fn a_command_keeps_its_length_rule(data in proptest::collection::vec(0u8.., 0..300), le in 0u8..) {
            let bytes = Command::new([1, 2, 3, 4]).with_data(&data).expecting(le).to_bytes();
            assert!(bytes.len() <= 261);
            assert_eq!(bytes.last(), Some(&le));
        }
    }
}
