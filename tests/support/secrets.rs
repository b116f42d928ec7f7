//! Looks for secrets where they must not be: logs, database files, MQTT traffic. A
//! secret is recognised in the forms in which programs show bytes.
#![allow(dead_code, clippy::indexing_slicing)]

use base64::Engine as _;

/// So many bytes of a secret are a leak; shorter secrets count whole.
const ENOUGH: usize = 6;

/// Secrets of a test, by name.
#[derive(Default)]
pub struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    /// Adds one, of at least three bytes: fewer are found by chance.
    pub fn add(&mut self, name: impl Into<String>, bytes: &[u8]) {
        assert!(bytes.len() >= 3, "too short to look for");
        if !self.0.iter().any(|(_, known)| known == bytes) {
            self.0.push((name.into(), bytes.to_vec()));
        }
    }

    /// Which secrets stand in these bytes, and in which form.
    pub fn found_in(&self, haystack: &[u8]) -> Vec<String> {
        let lower = one_space(&haystack.to_ascii_lowercase());
        let mut found = Vec::new();
        for (name, secret) in &self.0 {
            let part = &secret[..secret.len().min(ENOUGH)];
            for (form, needle, folded) in forms(part) {
                if contains(if folded { &lower } else { haystack }, &needle) {
                    found.push(format!("{name} ({form})"));
                }
            }
        }
        found
    }
}

/// Runs of spaces and newlines, as pretty printers make them, as one space.
fn one_space(text: &[u8]) -> Vec<u8> {
    let mut folded: Vec<u8> = Vec::with_capacity(text.len());
    for byte in text {
        let space = byte.is_ascii_whitespace();
        if !space {
            folded.push(*byte);
        } else if folded.last() != Some(&b' ') {
            folded.push(b' ');
        }
    }
    folded
}

/// (form, needle, whether letters are compared in lower case and spaces folded)
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>, bool)> {
    let joined = |between: &str, show: fn(&u8) -> String| {
        secret.iter().map(show).collect::<Vec<_>>().join(between).into_bytes()
    };
    let hex = |byte: &u8| format!("{byte:02x}");
    let mut forms = vec![
        ("hex", joined("", hex), true),
        ("hex with spaces", joined(" ", hex), true),
        ("hex with colons", joined(":", hex), true),
        ("hex with dashes", joined("-", hex), true),
        ("hex in a list", joined(", ", hex), true),
        ("hex in a list", joined(", 0x", hex), true),
        ("decimal list", joined(", ", u8::to_string), true),
        ("decimal JSON", joined(",", u8::to_string), true),
    ];
    // Three bytes stand in any file of some size by chance.
    if secret.len() > 3 {
        forms.push(("raw", secret.to_vec(), false));
    }
    // Base64 depends on what stands before: drop the characters that others share.
    for before in 0..3 {
        let text = base64::engine::general_purpose::STANDARD_NO_PAD
            .encode([vec![0; before], secret.to_vec()].concat());
        let from = (8 * before).div_ceil(6);
        let to = 8 * (before + secret.len()) / 6;
        if to - from >= 5 {
            forms.push(("base64", text.as_bytes()[from..to].to_vec(), false));
        }
    }
    forms
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}
