//! An SLE4442 in the slot of an ACS reader: main memory, protection bits, code and error counter.
//! After the SLE4442 data sheet, and the ACR38x reference manual v6.02 §9.2.2.6 for the
//! commands. What does not live here: other cards (`chip`).

const OK: [u8; 2] = [0x90, 0x00];
const FAILED: [u8; 2] = [0x63, 0x00];
const UNSUPPORTED: [u8; 2] = [0x6A, 0x81];
/// The chip's name at the reader.
const CARD_TYPE: u8 = 0x06;
const MEMORY: usize = 256;
const PROTECTABLE: usize = 32;
const ALL_TRIES: u8 = 0x07;
/// Memory as the maker writes and protects it: address and bytes (dumps of cards as delivered).
const AS_DELIVERED: [(usize, &[u8]); 3] = [
    (0, &[0xA2, 0x13, 0x10, 0x91]),
    (4, &[0xFF, 0xFF, 0x81, 0x15]),
    (21, &[0xD2, 0x76, 0x00, 0x00, 0x04, 0x00]),
];

/// The card, and what its reader knows of it.
#[derive(Debug, Clone)]
pub(super) struct Sle4442 {
    memory: [u8; MEMORY],
    protected: [bool; PROTECTABLE],
    code: [u8; 3],
    /// A bit for each try.
    counter: u8,
    /// Wrong codes at all: the card itself forgets them at a right one.
    refused: u32,
    /// The right code was presented since it has power.
    open: bool,
    /// The reader was told what it is.
    selected: bool,
}

impl Sle4442 {
    pub(super) fn as_delivered() -> Self {
        let (mut memory, mut protected) = ([0xFF; MEMORY], [false; PROTECTABLE]);
        for (at, bytes) in AS_DELIVERED {
            memory.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
            protected.iter_mut().skip(at).take(bytes.len()).for_each(|bit| *bit = true);
        }
        let (code, counter) = ([0xFF; 3], ALL_TRIES);
        Self { memory, protected, code, counter, refused: 0, open: false, selected: false }
    }

    pub(super) fn reset(&mut self) {
        self.open = false;
        self.selected = false;
    }

    pub(super) fn stored(&self) -> &[u8] {
        &self.memory
    }

    pub(super) fn cell_mut(&mut self, at: usize) -> Option<&mut u8> {
        self.memory.get_mut(at)
    }

    /// Writes a serial and its complement, and protects both.
    pub(super) fn name(&mut self, serial: &[u8]) {
        let both = serial.iter().copied().chain(serial.iter().map(|byte| !byte));
        for ((place, bit), byte) in self.memory.iter_mut().zip(&mut self.protected).skip(8).zip(both) {
            (*place, *bit) = (byte, true);
        }
    }

    pub(super) fn tries_left(&self) -> u32 {
        self.counter.count_ones()
    }

    /// Wrong codes at all.
    pub(super) fn refused(&self) -> u32 {
        self.refused
    }

    pub(super) fn code(&self) -> [u8; 3] {
        self.code
    }

    /// Somebody else's code.
    pub(super) fn set_code(&mut self, code: [u8; 3]) {
        self.code = code;
    }

    /// Answers a pseudo-APDU behind its class byte.
    pub(super) fn apdu(&mut self, ins: u8, p1: u8, p2: u8, rest: &[u8]) -> Vec<u8> {
        let data = rest.split_first().filter(|(len, data)| usize::from(**len) == data.len());
        let data = data.map_or(&[][..], |(_, data)| data);
        if let (0xA4, 0, 0, [kind]) = (ins, p1, p2, data) {
            self.reset();
            self.selected = *kind == CARD_TYPE;
            return if self.selected { OK } else { FAILED }.to_vec();
        }
        match (ins, p1, rest) {
            (0x20 | 0xB0..=0xB2 | 0xD0..=0xD2, ..) if !self.selected => FAILED.to_vec(),
            (0xB0, 0, [len]) => match self.memory.get(p2.into()..usize::from(p2) + usize::from(*len)) {
                Some(bytes) if !bytes.is_empty() => [bytes, &OK].concat(),
                _ => FAILED.to_vec(),
            },
            (0xB1, 0, [4]) => {
                let code = if self.open { self.code } else { [0; 3] };
                [&[self.counter], &code[..], &OK].concat()
            }
            (0xB2, 0, [4]) => [&self.protection()[..], &OK].concat(),
            (0x20, 0, _) => self.present(data),
            (0xD0, 0, _) => {
                self.write(p2.into(), data);
                OK.to_vec()
            }
            (0xD1, 0, _) => {
                self.protect(p2.into(), data);
                OK.to_vec()
            }
            (0xD2, 0, _) if p2 == 1 => {
                if let (Ok(code), true) = (data.try_into(), self.open) {
                    self.code = code;
                }
                OK.to_vec()
            }
            _ => UNSUPPORTED.to_vec(),
        }
    }

    /// A try is spent before the code is compared, and all are given back if it was right.
    fn present(&mut self, code: &[u8]) -> Vec<u8> {
        if code.len() != self.code.len() {
            return FAILED.to_vec();
        }
        if self.counter == 0 {
            return vec![0x90, 0x00];
        }
        self.counter &= self.counter - 1;
        self.open = code == self.code;
        if self.open {
            self.counter = ALL_TRIES;
        } else {
            self.refused += 1;
        }
        vec![0x90, self.counter]
    }

    /// What the card does not let happen does not: its reader says nothing of it.
    fn write(&mut self, at: usize, data: &[u8]) {
        if !self.open {
            return;
        }
        for (at, byte) in (at..).zip(data) {
            let closed = self.protected.get(at).copied().unwrap_or(false);
            if let (Some(place), false) = (self.memory.get_mut(at), closed) {
                *place = *byte;
            }
        }
    }

    fn protect(&mut self, at: usize, data: &[u8]) {
        for (at, byte) in (at..).zip(data) {
            let same = self.open && self.memory.get(at) == Some(byte);
            if let (Some(bit), true) = (self.protected.get_mut(at), same) {
                *bit = true;
            }
        }
    }

    /// A bit a byte, the lowest first, 0: protected.
    fn protection(&self) -> [u8; PROTECTABLE / 8] {
        let mut bits = [0; PROTECTABLE / 8];
        for (byte, flags) in bits.iter_mut().zip(self.protected.chunks(8)) {
            *byte = flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(!flag));
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(card: &mut Sle4442, apdu: &str) -> String {
        let bytes = hex::decode(apdu).unwrap();
        hex::encode_upper(card.apdu(bytes[1], bytes[2], bytes[3], &bytes[4..]))
    }

    /// By the data sheet: nothing is written without the code, nothing protected ever, and three
    /// wrong codes in a row are the end.
    #[test]
    fn the_card_looks_after_itself() {
        let mut card = Sle4442::as_delivered();
        assert_eq!(ask(&mut card, "FFB0000004"), "6300", "the reader does not know the card yet");
        for (apdu, answer) in [
            ("FFA400000106", "9000"),
            ("FFB0000008", "A2131091FFFF81159000"),
            ("FFB2000004", "00FF1FF89000"),
            ("FFD0004001AA", "9000"),
            ("FFB0004001", "FF9000"),
            ("FFB1000004", "070000009000"),
            ("FF20000003000000", "9006"),
            ("FF20000003FFFFFF", "9007"),
            ("FFB1000004", "07FFFFFF9000"),
            ("FFD0004001AA", "9000"),
            ("FFB0004001", "AA9000"),
            ("FFD000000100", "9000"),
            ("FFB0000001", "A29000"),
            ("FFD00008020102", "9000"),
            ("FFD10008020103", "9000"),
            ("FFD00008020506", "9000"),
            ("FFB0000802", "01069000"),
            ("FFD2000103010203", "9000"),
            ("FFA400000106", "9000"),
            ("FFD0004001BB", "9000"),
            ("FFB0004001", "AA9000"),
            ("FF20000003FFFFFF", "9006"),
            ("FF20000003FFFFFF", "9004"),
            ("FF20000003010203", "9007"),
            ("FF20000003FFFFFF", "9006"),
            ("FF20000003FFFFFF", "9004"),
            ("FF20000003FFFFFF", "9000"),
            ("FF20000003010203", "9000"),
            ("FFB1000004", "000000009000"),
            ("FFCA000000", "6A81"),
        ] {
            assert_eq!(ask(&mut card, apdu), answer, "{apdu}");
        }
    }
}
