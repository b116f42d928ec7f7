//! `obd/makers/*.toml`: what makers' own trouble codes mean. The same digits mean
//! different things on different cars, so a text is found by brand *and* code. What
//! does not live here: generic codes ([`super::dtc_texts`]) and which brand a car is
//! ([`super::wmi`]).
//!
//! Some thousand rows of which a daemon reads one now and then: a list is kept as the lines it
//! came in and looked through when a code is asked for.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::dtc_texts::is_code;
use super::files::Files;
use super::wmi::VinTables;
use crate::event::Text;

/// All lists: our own wording first, then those that are someone's work.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct MakerLists(Vec<List>);

#[derive(Debug, Clone, PartialEq)]
struct List {
    brands: Box<[Box<str>]>,
    licence: Option<Box<str>>,
    /// `code TAB text`, in English alone, or `code TAB Chinese TAB English`.
    lines: Box<str>,
}

impl MakerLists {
    /// What the lists for `brand` say of `code`: nothing, one text, or several that may disagree.
    pub(super) fn texts(&self, brand: &str, code: &str) -> Vec<Text> {
        self.0.iter().filter(|list| list.is_of(brand)).filter_map(|list| list.get(code)).collect()
    }

    /// The brands whose lists have `code`, by name.
    pub(super) fn brands_with(&self, code: &str) -> Vec<&str> {
        let mut brands = Vec::new();
        for list in self.0.iter().filter(|list| list.get(code).is_some()) {
            brands.extend(list.brands.iter().map(|brand| &**brand));
        }
        brands.sort_unstable();
        brands.dedup();
        brands
    }

    pub(super) fn count(&self, brand: &str) -> usize {
        self.0.iter().filter(|list| list.is_of(brand)).map(|list| list.lines.lines().count()).sum()
    }
}

impl List {
    fn is_of(&self, brand: &str) -> bool {
        self.brands.iter().any(|of| **of == *brand)
    }

    fn get(&self, code: &str) -> Option<Text> {
        let mut line =
            self.lines.lines().find_map(|line| line.strip_prefix(code)?.strip_prefix('\t'))?.split('\t');
        let first = line.next()?;
        Some(Text::new(first, line.next().unwrap_or(first)))
    }
}

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

pub(super) fn load(files: &mut Files, folder: &str, vin: &VinTables) -> MakerLists {
    let mut lists = MakerLists::default();
    for name in files.list(folder) {
        let Some((file, place)) = files.read::<File>(&name) else { continue };
        if file.source.trim().is_empty() {
            files.error(&place, 0..0, "source is empty", "say where the meanings come from");
        }
        if let Some(licence) = file.licence.as_ref().filter(|licence| licence.get_ref().trim().is_empty()) {
            files.error(&place, licence.span(), "licence is empty", "write it, or leave the line out");
        }
        let licence: Option<Box<str>> = file.licence.map(|licence| licence.into_inner().into());
        for brand in &file.brands {
            let (span, brand) = (brand.span(), brand.get_ref());
            if vin.brand(brand).is_none() {
                let what = format!("there is no brand {brand:?}");
                files.error(&place, span.clone(), what, "use a name under [brands] of vin/makers.toml");
            }
            // Two works may word a code each; one work has one text for it.
            let same = |list: &&List| list.is_of(brand) && list.licence == licence;
            let twice = |code: &&String| lists.0.iter().filter(same).any(|list| list.get(code).is_some());
            if let Some(code) = file.codes.keys().find(twice) {
                let what = format!("{brand} has two texts for {code}");
                files.error(&place, span, what, "leave one of them out");
            }
        }
        let mut lines = String::new();
        for (code, row) in file.codes {
            let span = row.span();
            if !is_code(&code) {
                let what = format!("{code:?} is not a trouble code");
                let hint = "a code is P, C, B or U, a digit 0-3 and three hex digits, e.g. P1259";
                files.error(&place, span.clone(), what, hint);
            }
            let texts = match row.into_inner() {
                Row::Both(text) => vec![text.zh, text.en],
                Row::English(en) => vec![en],
            };
            if texts.iter().any(|text| text.trim().is_empty()) {
                files.error(
                    &place,
                    span.clone(),
                    format!("{code} lacks a text"),
                    "give zh and en, or English alone",
                );
            }
            if texts.iter().any(|text| text.contains(char::is_control)) {
                files.error(
                    &place,
                    span,
                    format!("{code} has a tab or a second line"),
                    "write one line of words",
                );
            }
            lines.extend([code.as_str(), "\t", &texts.join("\t"), "\n"]);
        }
        let brands = file.brands.into_iter().map(|brand| brand.into_inner().into()).collect();
        lists.0.push(List { brands, licence, lines: lines.into() });
    }
    lists.0.sort_by_key(|list| list.licence.is_some());
    lists
}
