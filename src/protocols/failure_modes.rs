//! `j1939/failure-modes.toml`: what the failure mode of a J1939 code says, in both languages.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::files::Files;
use crate::event::Text;

/// Five bits.
const MOST: u8 = 31;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    modes: BTreeMap<String, Spanned<Text>>,
}

pub(super) fn load(files: &mut Files, name: &str) -> BTreeMap<u8, Text> {
    let Some((file, place)) = files.read::<File>(name) else {
        return BTreeMap::new();
    };
    if file.source.trim().is_empty() {
        files.error(&place, 0..0, "source is empty", "say where the definitions come from");
    }
    let mut modes = BTreeMap::new();
    for (mode, text) in file.modes {
        match mode.parse() {
            Ok(mode @ 0..=MOST)
                if !text.get_ref().zh.trim().is_empty() && !text.get_ref().en.trim().is_empty() =>
            {
                modes.insert(mode, text.into_inner());
            }
            Ok(0..=MOST) => {
                files.error(&place, text.span(), format!("{mode} lacks a text"), "give both zh and en")
            }
            _ => {
                let what = format!("{mode:?} is not a failure mode");
                files.error(&place, text.span(), what, "a failure mode is a number from 0 to 31");
            }
        }
    }
    if let Some(missing) = (0..=MOST).find(|mode| !modes.contains_key(mode)) {
        files.error(&place, 0..0, format!("failure mode {missing} is missing"), "list 0 to 31");
    }
    modes
}
