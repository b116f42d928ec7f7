//! From the keys of a keyboard that is a scanner to the text it typed. Pure. What lives here: the
//! kernel's event as bytes (linux/input.h `struct input_event`), keys as characters in the US
//! layout (linux/input-event-codes.h), the end of a scan. What does not: what a text is (`scan`).

/// The kernel's event: two machine words of time, type, code, value.
pub(super) const EVENT_BYTES: usize = 2 * size_of::<usize>() + 8;
/// The longest text of one scan: three tracks of a stripe have 226 characters (ISO/IEC 7811-2,
/// 7811-6), a member's QR code fewer.
const MAX_TEXT: usize = 512;

const EV_SYN: u16 = 0x00;
const EV_KEY: u16 = 0x01;
const SYN_DROPPED: u16 = 3;
const RELEASED: i32 = 0;
const PRESSED: i32 = 1;
const KEY_ENTER: u16 = 28;
const KEY_KPENTER: u16 = 96;
const KEY_CAPSLOCK: u16 = 58;
/// Left and right, of each.
const SHIFTS: [u16; 2] = [42, 54];
/// Control, alt and meta: what is typed with them is no character.
const OTHERS: [u16; 6] = [29, 97, 56, 100, 125, 126];

/// Keys in the order of their codes from the first of each row: alone, and with shift.
const ROWS: [(u16, &str, &str); 9] = [
    (2, "1234567890-=", "!@#$%^&*()_+"),
    (16, "qwertyuiop[]", "QWERTYUIOP{}"),
    (30, "asdfghjkl;'`", "ASDFGHJKL:\"~"),
    (43, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
    (55, "*", "*"),
    (57, " ", " "),
    // The number block.
    (71, "789-456+1230.", "789-456+1230."),
    (98, "/", "/"),
    (117, "=", "="),
];

/// One event of the kernel that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A key went down.
    Down(u16),
    /// A key came up.
    Up(u16),
    /// Events were lost.
    Lost,
}

/// What the bytes of an event say; none: nothing that matters, a key that repeats itself too.
pub(super) fn event(bytes: &[u8; EVENT_BYTES]) -> Option<Key> {
    let [.., t0, t1, c0, c1, v0, v1, v2, v3] = *bytes;
    let (kind, code) = (u16::from_ne_bytes([t0, t1]), u16::from_ne_bytes([c0, c1]));
    match (kind, code, i32::from_ne_bytes([v0, v1, v2, v3])) {
        (EV_KEY, code, PRESSED) => Some(Key::Down(code)),
        (EV_KEY, code, RELEASED) => Some(Key::Up(code)),
        (EV_SYN, SYN_DROPPED, _) => Some(Key::Lost),
        _ => None,
    }
}

/// A scan that is none: keys were lost, or it is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// Makes texts of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Typing {
    text: String,
    /// Which keys are held that change others, a bit each.
    held: u8,
    caps: bool,
    damaged: bool,
}

impl Typing {
    /// Takes a key; the text that Enter ended.
    pub(super) fn key(&mut self, key: Key) -> Option<Result<String, Damaged>> {
        match key {
            Key::Lost => {
                self.damaged = true;
                // A key that came up unseen must not be held for ever.
                self.held = 0;
                None
            }
            Key::Down(KEY_ENTER | KEY_KPENTER) => {
                let text = std::mem::take(&mut self.text);
                if std::mem::take(&mut self.damaged) {
                    return Some(Err(Damaged));
                }
                (!text.is_empty()).then_some(Ok(text))
            }
            Key::Down(KEY_CAPSLOCK) => {
                self.caps = !self.caps;
                None
            }
            Key::Down(code) => {
                match modifier(code) {
                    Some(bit) => self.held |= bit,
                    None => self.type_in(code),
                }
                None
            }
            Key::Up(code) => {
                self.held &= !modifier(code).unwrap_or_default();
                None
            }
        }
    }

    /// Whether a scan was begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        self.damaged || !self.text.is_empty()
    }

    /// Forgets what was typed without an end.
    pub(super) fn forget(&mut self) {
        *self = Self { caps: self.caps, ..Self::default() };
    }

    fn type_in(&mut self, code: u16) {
        let shifts = (1 << SHIFTS.len()) - 1;
        if self.held & !shifts != 0 {
            return;
        }
        let Some((alone, shifted)) = character(code) else { return };
        let shift = (self.held & shifts != 0) != (self.caps && alone.is_ascii_alphabetic());
        if self.text.len() < MAX_TEXT {
            self.text.push(if shift { shifted } else { alone });
        } else {
            self.damaged = true;
        }
    }
}

/// The bit of a key that changes others.
fn modifier(code: u16) -> Option<u8> {
    let at = SHIFTS.iter().chain(&OTHERS).position(|held| *held == code)?;
    Some(1 << at)
}

fn character(code: u16) -> Option<(char, char)> {
    ROWS.iter().find_map(|(first, alone, shifted)| {
        let at = usize::from(code.checked_sub(*first)?);
        Some((char::from(*alone.as_bytes().get(at)?), char::from(*shifted.as_bytes().get(at)?)))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The keys a scanner presses for a text.
    pub(crate) fn keys_of(text: &str) -> Vec<Key> {
        let mut keys = Vec::new();
        for wanted in text.chars() {
            let code = (0..128).find(|code| character(*code).is_some_and(|(alone, _)| alone == wanted));
            match code {
                Some(code) => keys.extend([Key::Down(code), Key::Up(code)]),
                None => {
                    let code = (0..128).find(|code| character(*code).is_some_and(|(_, with)| with == wanted));
                    let code = code.unwrap();
                    keys.extend([Key::Down(42), Key::Down(code), Key::Up(code), Key::Up(42)]);
                }
            }
        }
        keys
    }

    /// The kernel's bytes for a key.
    pub(crate) fn bytes_of(key: Key) -> [u8; EVENT_BYTES] {
        let (kind, code, value) = match key {
            Key::Down(code) => (EV_KEY, code, PRESSED),
            Key::Up(code) => (EV_KEY, code, RELEASED),
            Key::Lost => (EV_SYN, SYN_DROPPED, 0),
        };
        let mut bytes = [0x5A; EVENT_BYTES];
        let tail = [&kind.to_ne_bytes()[..], &code.to_ne_bytes(), &value.to_ne_bytes()].concat();
        bytes[EVENT_BYTES - 8..].copy_from_slice(&tail);
        bytes
    }

    fn typed(keys: &[Key]) -> Vec<Result<String, Damaged>> {
        let mut typing = Typing::default();
        keys.iter().filter_map(|key| typing.key(*key)).collect()
    }

    #[test]
    fn what_keys_type() {
        const ENTER: Key = Key::Down(28);
        let (a, one, shift, caps, control) = (30, 2, 42, 58, 29);
        let text = |text: &str| Ok(text.to_owned());
        let cases = [
            ("plain", vec![Key::Down(a), Key::Up(a), Key::Down(one), ENTER], vec![text("a1")]),
            (
                "shift, either, and rolled",
                vec![
                    Key::Down(shift),
                    Key::Down(a),
                    Key::Down(54),
                    Key::Up(shift),
                    Key::Down(one),
                    Key::Up(54),
                    Key::Down(a),
                    ENTER,
                ],
                vec![text("A!a")],
            ),
            (
                "caps lock shifts letters alone",
                vec![Key::Down(caps), Key::Down(a), Key::Down(one), Key::Down(shift), Key::Down(a), ENTER],
                vec![text("A1a")],
            ),
            (
                "no character with control",
                vec![Key::Down(control), Key::Down(a), Key::Up(control), Key::Down(a), ENTER],
                vec![text("a")],
            ),
            ("number block", vec![Key::Down(79), Key::Down(82), Key::Down(96)], vec![text("10")]),
            ("Enter alone is no scan", vec![ENTER, ENTER], vec![]),
            (
                "lost keys",
                vec![Key::Down(a), Key::Lost, Key::Down(a), ENTER, Key::Down(a), ENTER],
                vec![Err(Damaged), text("a")],
            ),
            (
                "keys that are no characters",
                vec![Key::Down(1), Key::Down(59), Key::Down(700), Key::Down(a), ENTER],
                vec![text("a")],
            ),
        ];
        for (name, keys, expected) in cases {
            assert_eq!(typed(&keys), expected, "{name}");
        }
    }

    #[test]
    fn a_text_without_end_is_bounded_and_refused() {
        let mut keys: Vec<Key> = std::iter::repeat_n(Key::Down(30), MAX_TEXT).collect();
        keys.push(Key::Down(28));
        assert_eq!(typed(&keys), [Ok("a".repeat(MAX_TEXT))]);
        keys.insert(0, Key::Down(30));
        assert_eq!(typed(&keys), [Err(Damaged)]);
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Every text that such a keyboard can type comes through, as the kernel's bytes too.
        #[test]
        fn every_text_is_read(text in "[ -~]{1,200}") {
            let mut keys = keys_of(&text);
            keys.push(Key::Down(28));
            let through: Vec<Key> = keys.iter().filter_map(|key| event(&bytes_of(*key))).collect();
            assert_eq!(through, keys);
            assert_eq!(typed(&through), [Ok(text)]);
        }

        /// Whatever a keyboard sends, a text is short and printable.
        #[test]
        fn no_keys_make_trouble(events in proptest::collection::vec((0_u16..4, 0_u16..800, -2_i32..4), 0..900)) {
            let mut typing = Typing::default();
            for (kind, code, value) in events {
                let mut bytes = [0; EVENT_BYTES];
                let tail = [&kind.to_ne_bytes()[..], &code.to_ne_bytes(), &value.to_ne_bytes()].concat();
                bytes[EVENT_BYTES - 8..].copy_from_slice(&tail);
                if let Some(Some(Ok(text))) = event(&bytes).map(|key| typing.key(key)) {
                    assert!((1..=MAX_TEXT).contains(&text.len()));
                    assert!(text.bytes().all(|byte| (0x20..0x7F).contains(&byte)), "{text:?}");
                }
            }
        }
    }
}
