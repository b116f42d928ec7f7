//! `obd/makers/*.toml`: what makers' own trouble codes mean. The same digits mean
//! different things on different cars, so a text is found by brand *and* code. What
//! does not live here: generic codes ([`super::dtc_texts`]) and which brand a car is
//! ([`super::wmi`]).

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::dtc_texts::is_code;
use super::files::Files;
use super::wmi::VinTables;
use crate::event::Text;

/// Texts by brand, then by code.
pub(super) type MakerTexts = BTreeMap<String, BTreeMap<String, Text>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Brands of `vin/makers.toml` that share the list.
    brands: Vec<Spanned<String>>,
    source: String,
    /// Licence and copyright line, where the list is someone's work.
    #[serde(default)]
    licence: Option<Spanned<String>>,
    codes: BTreeMap<String, Spanned<Row>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Both(Text),
    /// A list that exists in English only is shown in English.
    English(String),
}

pub(super) fn load(files: &mut Files, folder: &str, vin: &VinTables) -> MakerTexts {
    let mut texts = MakerTexts::new();
    for name in files.list(folder) {
        let Some((file, place)) = files.read::<File>(&name) else { continue };
        if file.source.trim().is_empty() {
            files.error(&place, 0..0, "source is empty", "say where the meanings come from");
        }
        if let Some(licence) = file.licence.filter(|licence| licence.get_ref().trim().is_empty()) {
            files.error(&place, licence.span(), "licence is empty", "write it, or leave the line out");
        }
        let mut list = BTreeMap::new();
        for (code, row) in file.codes {
            let span = row.span();
            if !is_code(&code) {
                let what = format!("{code:?} is not a trouble code");
                let hint = "a code is P, C, B or U, a digit 0-3 and three hex digits, e.g. P1259";
                files.error(&place, span.clone(), what, hint);
            }
            let text = match row.into_inner() {
                Row::Both(text) => text,
                Row::English(en) => Text { zh: en.clone(), en },
            };
            if text.zh.trim().is_empty() || text.en.trim().is_empty() {
                files.error(&place, span, format!("{code} lacks a text"), "give zh and en, or English alone");
            }
            list.insert(code, text);
        }
        for brand in file.brands {
            let span = brand.span();
            let brand = brand.into_inner();
            if vin.brand(&brand).is_none() {
                let what = format!("there is no brand {brand:?}");
                files.error(&place, span.clone(), what, "use a name under [brands] of vin/makers.toml");
            }
            for (code, text) in &list {
                if texts.entry(brand.clone()).or_default().insert(code.clone(), text.clone()).is_some() {
                    let what = format!("{brand} has two texts for {code}");
                    files.error(&place, span.clone(), what, "leave one of them out");
                }
            }
        }
    }
    texts
}
