//! `obd/dtc-texts.toml`: what generic trouble codes mean, in both languages.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::files::Files;
use crate::event::Text;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    codes: BTreeMap<String, Spanned<Text>>,
}

pub(super) fn load(files: &mut Files, name: &str) -> BTreeMap<String, Text> {
    let Some((file, place)) = files.read::<File>(name) else {
        return BTreeMap::new();
    };
    if file.source.trim().is_empty() {
        files.error(&place, 0..0, "source is empty", "say where the definitions come from");
    }
    for (code, text) in &file.codes {
        if !is_code(code) {
            let what = format!("{code:?} is not a trouble code");
            files.error(
                &place,
                text.span(),
                what,
                "a code is P, C, B or U, a digit 0-3 and three hex digits, e.g. P0420",
            );
        }
        if text.get_ref().zh.trim().is_empty() || text.get_ref().en.trim().is_empty() {
            let what = format!("{code} lacks a text");
            files.error(&place, text.span(), what, "give both zh and en");
        }
    }
    file.codes.into_iter().map(|(code, text)| (code, text.into_inner())).collect()
}

/// Five characters as SAE J2012 prints them.
fn is_code(code: &str) -> bool {
    match code.as_bytes() {
        [b'P' | b'C' | b'B' | b'U', b'0'..=b'3', rest @ ..] => {
            rest.len() == 3 && rest.iter().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b))
        }
        _ => false,
    }
}
