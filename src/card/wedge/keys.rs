//! From the keys of a keyboard that is a scanner to the text it typed. Pure. What lives here: the
//! kernel's event as bytes (linux/input.h `struct input_event`), keys as characters in the US
//! layout (linux/input-event-codes.h), the end of a scan, and what a person typed, which is not
//! kept. What does not: what a text is (`scan`).

use std::time::Duration;

use zeroize::Zeroize;

/// The kernel's event: two machine words of time, type, code, value.
pub(super) const EVENT_BYTES: usize = 2 * size_of::<usize>() + 8;
/// The longest text of one scan: three tracks of a stripe have 226 characters (ISO/IEC 7811-2,
/// 7811-6), a member's QR code fewer.
const MAX_TEXT: usize = 512;

/// A scanner types a key every few milliseconds; who takes longer between two is a person.
pub(super) const BY_HAND: Duration = Duration::from_millis(100);

const EV_SYN: u16 = 0x00;
const EV_KEY: u16 = 0x01;
const SYN_DROPPED: u16 = 3;
const RELEASED: i32 = 0;
const PRESSED: i32 = 1;
const KEY_TAB: u16 = 15;
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

/// What the bytes of an event say, and when it was, by the kernel's clock; none: nothing that
/// matters, a key that repeats itself too.
pub(super) fn event(bytes: &[u8; EVENT_BYTES]) -> Option<(Key, Duration)> {
    let (seconds, rest) = bytes.split_first_chunk()?;
    let (micros, _) = rest.split_first_chunk()?;
    let word = |bytes| u64::try_from(usize::from_ne_bytes(bytes)).unwrap_or_default();
    let at = Duration::from_secs(word(*seconds)).saturating_add(Duration::from_micros(word(*micros)));
    key(bytes).map(|key| (key, at))
}

fn key(bytes: &[u8; EVENT_BYTES]) -> Option<Key> {
    let [.., t0, t1, c0, c1, v0, v1, v2, v3] = *bytes;
    let (kind, code) = (u16::from_ne_bytes([t0, t1]), u16::from_ne_bytes([c0, c1]));
    match (kind, code, i32::from_ne_bytes([v0, v1, v2, v3])) {
        (EV_KEY, code, PRESSED) => Some(Key::Down(code)),
        (EV_KEY, code, RELEASED) => Some(Key::Up(code)),
        (EV_SYN, SYN_DROPPED, _) => Some(Key::Lost),
        _ => None,
    }
}

/// Why what Enter or Tab ended is no scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoScan {
    /// Keys were lost, or it is too long.
    Damaged,
    /// A person typed it: it may be anything, a password too.
    ByHand,
}

/// Makes texts of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Typing {
    text: String,
    /// Which keys are held that change others, a bit each.
    held: u8,
    caps: bool,
    damaged: bool,
    by_hand: bool,
    /// When the last key went down.
    last: Duration,
}

impl Typing {
    /// Takes a key, and when it was; the text that Enter or Tab ended: scanners are set to either.
    pub(super) fn key(&mut self, key: Key, at: Duration) -> Option<Result<String, NoScan>> {
        if matches!(key, Key::Down(_)) {
            let since = at.saturating_sub(std::mem::replace(&mut self.last, at));
            if self.is_open() && since > BY_HAND {
                self.by_hand = true;
                self.text.zeroize();
            }
        }
        match key {
            Key::Lost => {
                self.damaged = true;
                // A key that came up unseen must not be held for ever.
                self.held = 0;
                None
            }
            Key::Down(KEY_ENTER | KEY_KPENTER | KEY_TAB) => {
                let text = std::mem::take(&mut self.text);
                let damaged = std::mem::take(&mut self.damaged);
                if std::mem::take(&mut self.by_hand) {
                    return Some(Err(NoScan::ByHand));
                }
                if damaged {
                    return Some(Err(NoScan::Damaged));
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

    /// Forgets what was typed without an end. A person may have paused: up to its end it stays theirs.
    pub(super) fn forget(&mut self) {
        self.text.zeroize();
        *self = Self { caps: self.caps, by_hand: self.by_hand, ..Self::default() };
    }

    fn type_in(&mut self, code: u16) {
        let shifts = (1 << SHIFTS.len()) - 1;
        if self.by_hand || self.held & !shifts != 0 {
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
        bytes_at(key, Duration::ZERO)
    }

    pub(crate) fn bytes_at(key: Key, at: Duration) -> [u8; EVENT_BYTES] {
        let (kind, code, value) = match key {
            Key::Down(code) => (EV_KEY, code, PRESSED),
            Key::Up(code) => (EV_KEY, code, RELEASED),
            Key::Lost => (EV_SYN, SYN_DROPPED, 0),
        };
        let word = |number: u64| usize::try_from(number).unwrap().to_ne_bytes();
        let (seconds, micros) = (word(at.as_secs()), word(at.subsec_micros().into()));
        [&seconds[..], &micros, &kind.to_ne_bytes(), &code.to_ne_bytes(), &value.to_ne_bytes()]
            .concat()
            .try_into()
            .unwrap()
    }

    fn typed(keys: &[Key]) -> Vec<Result<String, NoScan>> {
        let mut typing = Typing::default();
        keys.iter().filter_map(|key| typing.key(*key, Duration::ZERO)).collect()
    }

    /// Each key so many milliseconds behind the one before.
    fn typed_by(keys: &[(Key, u64)]) -> Vec<Result<String, NoScan>> {
        let (mut typing, mut now) = (Typing::default(), Duration::from_secs(1_780_000_000));
        let told = keys.iter().filter_map(|(key, after)| {
            now += Duration::from_millis(*after);
            let (key, at) = event(&bytes_at(*key, now)).unwrap();
            typing.key(key, at)
        });
        told.collect()
    }

    #[test]
    fn what_a_person_types_is_no_scan() {
        const ENTER: Key = Key::Down(28);
        let (a, b) = (Key::Down(30), Key::Down(48));
        let by_hand = || Err(NoScan::ByHand);
        let cases = [
            (
                "a scanner",
                vec![(a, 0), (b, 8), (ENTER, 8), (a, 9_000), (ENTER, 100)],
                vec![Ok("ab".to_owned()), Ok("a".to_owned())],
            ),
            ("a pause between keys", vec![(a, 0), (b, 101), (a, 1), (ENTER, 1)], vec![by_hand()]),
            ("a pause before Enter", vec![(a, 0), (b, 1), (ENTER, 101)], vec![by_hand()]),
            (
                "a scan behind it",
                vec![(a, 0), (b, 300), (ENTER, 90), (a, 1), (ENTER, 1)],
                vec![by_hand(), Ok("a".to_owned())],
            ),
            ("keys lost among them", vec![(a, 0), (b, 300), (Key::Lost, 1), (ENTER, 90)], vec![by_hand()]),
        ];
        for (name, keys, expected) in cases {
            assert_eq!(typed_by(&keys), expected, "{name}");
        }
        // Forgotten in between, it is still what a person types; the next line is a scan again.
        let mut typing = Typing::default();
        for (key, at_ms) in [(a, 0), (b, 300)] {
            assert_eq!(typing.key(key, Duration::from_millis(at_ms)), None);
        }
        assert!(typing.text.is_empty());
        typing.forget();
        assert!(!typing.is_open());
        assert_eq!(typing.key(a, Duration::from_secs(3)), None);
        assert_eq!(typing.key(ENTER, Duration::from_secs(3)), Some(by_hand()));
        assert_eq!(typing, Typing { last: Duration::from_secs(3), ..Typing::default() });
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
            ("Tab", vec![Key::Down(a), Key::Down(15), Key::Down(one), ENTER], vec![text("a"), text("1")]),
            (
                "Tab and Enter, or carriage return and line feed",
                [
                    Key::Down(a),
                    Key::Down(15),
                    ENTER,
                    Key::Down(a),
                    ENTER,
                    Key::Down(control),
                    Key::Down(36),
                    Key::Up(control),
                ]
                .into(),
                vec![text("a"), text("a")],
            ),
            (
                "a scanner that types capitals with caps lock, letter by letter",
                vec![
                    Key::Down(caps),
                    Key::Up(caps),
                    Key::Down(a),
                    Key::Down(caps),
                    Key::Up(caps),
                    Key::Down(a),
                    ENTER,
                ],
                vec![text("Aa")],
            ),
            (
                "the number block, whole, whatever num lock says",
                [69, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 98, 55, 96].map(Key::Down).into(),
                vec![text("789-456+1230./*")],
            ),
            (
                "lost keys",
                vec![Key::Down(a), Key::Lost, Key::Down(a), ENTER, Key::Down(a), ENTER],
                vec![Err(NoScan::Damaged), text("a")],
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
        assert_eq!(typed(&keys), [Err(NoScan::Damaged)]);
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Every text that such a keyboard can type comes through, as the kernel's bytes too.
        #[test]
        fn every_text_is_read(text in "[ -~]{1,200}") {
            let mut keys = keys_of(&text);
            keys.push(Key::Down(28));
            let through: Vec<Key> = keys.iter().filter_map(|key| event(&bytes_of(*key)).map(|(key, _)| key)).collect();
            assert_eq!(through, keys);
            assert_eq!(typed(&through), [Ok(text)]);
        }

        /// Whatever a keyboard sends, a text is short and printable.
        #[test]
        fn no_keys_make_trouble(
            events in proptest::collection::vec((0_u16..4, 0_u16..800, -2_i32..4), 0..900), time in 0_u8..,
        ) {
            let mut typing = Typing::default();
            for (kind, code, value) in events {
                let mut bytes = [time; EVENT_BYTES];
                let tail = [&kind.to_ne_bytes()[..], &code.to_ne_bytes(), &value.to_ne_bytes()].concat();
                bytes[EVENT_BYTES - 8..].copy_from_slice(&tail);
                if let Some(Some(Ok(text))) = event(&bytes).map(|(key, at)| typing.key(key, at)) {
                    assert!((1..=MAX_TEXT).contains(&text.len()));
                    assert!(text.bytes().all(|byte| (0x20..0x7F).contains(&byte)), "{text:?}");
                }
            }
        }
    }
}
