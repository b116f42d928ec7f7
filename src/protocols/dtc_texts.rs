//! `obd/dtc/*.toml`: what generic trouble codes mean, in both languages. What lives
//! here: the files' form and the sentence a row stands for: a component, where it
//! sits and what is wrong with it, each worded once in `terms.toml`. What does not:
//! makers' own codes ([`super::makers`]) and how a report shows a code.
//!
//! Three thousand sentences in two languages would be the largest thing a daemon keeps in
//! memory and hardly ever reads: they are put together once to check them, and again when
//! one is asked for.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::files::{Files, Place};
use crate::event::Text;

/// The file of words, beside the files of codes.
const TERMS: &str = "obd/dtc/terms.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsFile {
    source: String,
    conditions: BTreeMap<String, Spanned<Text>>,
    components: BTreeMap<String, Spanned<Text>>,
}

/// The words, by name.
#[derive(Debug, Clone, PartialEq, Default)]
struct Terms {
    conditions: BTreeMap<String, Text>,
    components: BTreeMap<String, Text>,
}

impl From<TermsFile> for Terms {
    fn from(file: TermsFile) -> Self {
        let plain = |words: BTreeMap<String, Spanned<Text>>| {
            words.into_iter().map(|(id, text)| (id, text.into_inner())).collect()
        };
        Self { conditions: plain(file.conditions), components: plain(file.components) }
    }
}

/// What the generic codes mean.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct DtcTexts {
    terms: Terms,
    codes: BTreeMap<Box<str>, Row>,
}

impl DtcTexts {
    pub(super) fn get(&self, code: &str) -> Option<Text> {
        self.codes.get(code).and_then(|row| self.text(row))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Text)> {
        self.codes.iter().filter_map(|(code, row)| Some((&**code, self.text(row)?)))
    }

    pub(super) fn count(&self) -> usize {
        self.codes.len()
    }

    fn text(&self, row: &Row) -> Option<Text> {
        match row {
            // It was put together when it was read.
            Row::Words(words) => sentence(&self.terms, words).ok(),
            Row::Text(text) => Some(text.as_ref().clone()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    codes: BTreeMap<String, Spanned<Row>>,
    /// The same, for codes found in one public list only.
    #[serde(default)]
    codes_one_list: BTreeMap<String, Spanned<Row>>,
}

/// A row: words to look up (`"o2@b1s2 sig_low"`) or a text of its own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Row {
    Words(Box<str>),
    Text(Box<Text>),
}

pub(super) fn load(files: &mut Files, folder: &str) -> DtcTexts {
    let names = files.list(folder);
    let Some((terms, place)) = files.read::<TermsFile>(TERMS) else { return DtcTexts::default() };
    check_terms(files, &place, &terms);
    let mut texts = DtcTexts { terms: terms.into(), codes: BTreeMap::new() };
    for name in names.iter().filter(|name| *name != TERMS) {
        if let Some((file, place)) = files.read::<File>(name) {
            add(files, &place, file, &mut texts);
        }
    }
    texts
}

fn check_terms(files: &mut Files, place: &Place, terms: &TermsFile) {
    if terms.source.trim().is_empty() {
        files.error(place, 0..0, "source is empty", "say where the definitions come from");
    }
    for (id, text) in terms.conditions.iter().chain(&terms.components) {
        check_text(files, place, id, text);
    }
}

fn check_text(files: &mut Files, place: &Place, what: &str, text: &Spanned<Text>) {
    if text.get_ref().zh.trim().is_empty() || text.get_ref().en.trim().is_empty() {
        files.error(place, text.span(), format!("{what} lacks a text"), "give both zh and en");
    }
}

fn add(files: &mut Files, place: &Place, file: File, texts: &mut DtcTexts) {
    if file.source.trim().is_empty() {
        files.error(place, 0..0, "source is empty", "say where the definitions come from");
    }
    for (code, row) in file.codes.into_iter().chain(file.codes_one_list) {
        let span = row.span();
        if !is_generic(&code) {
            let what = format!("{code:?} is not a generic trouble code");
            let hint = "generic are P0, P2, P34 to P39, B0, C0, U0 and U3, each with three hex digits; \
                        a maker's own code belongs into obd/makers/";
            files.error(place, span.clone(), what, hint);
        }
        let row = row.into_inner();
        match &row {
            Row::Words(words) => {
                if let Err(what) = sentence(&texts.terms, words) {
                    let hint = "write COMPONENT[@PLACE…] [CONDITION] with words of terms.toml";
                    files.error(place, span, format!("{code}: {what}"), hint);
                    continue;
                }
            }
            Row::Text(text) => {
                check_text(files, place, &code, &Spanned::new(span.clone(), text.as_ref().clone()));
            }
        }
        if texts.codes.insert(code.as_str().into(), row).is_some() {
            files.error(place, span, format!("{code} has two texts"), "leave one of them out");
        }
    }
}

/// Whether ISO/SAE gives the code its meaning: SAE J2012 §6 (first two digits).
fn is_generic(code: &str) -> bool {
    is_code(code)
        && match code.as_bytes() {
            [b'P', b'3', digit, ..] => matches!(digit, b'4'..=b'9'),
            [b'P', b'0' | b'2', ..] | [b'B' | b'C' | b'U', b'0', ..] | [b'U', b'3', ..] => true,
            _ => false,
        }
}

/// Five characters as SAE J2012 prints them.
pub(super) fn is_code(code: &str) -> bool {
    match code.as_bytes() {
        [b'P' | b'C' | b'B' | b'U', b'0'..=b'3', rest @ ..] => {
            rest.len() == 3 && rest.iter().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b))
        }
        _ => false,
    }
}

/// The text of `COMPONENT[@PLACE…] [CONDITION]`.
fn sentence(terms: &Terms, words: &str) -> Result<Text, String> {
    let mut words = words.split_ascii_whitespace();
    let mut subject = words.next().unwrap_or_default().split('@');
    let id = subject.next().unwrap_or_default();
    let component = terms.components.get(id).ok_or_else(|| format!("there is no component {id:?}"))?;
    let mut parts = Parts::of(component);
    for place in subject {
        parts.add(place)?;
    }
    let subject = parts.finish();
    let text = match words.next() {
        None => subject,
        Some(id) => {
            let condition =
                terms.conditions.get(id).ok_or_else(|| format!("there is no condition {id:?}"))?;
            if condition.zh.contains("{}") {
                Text {
                    zh: insert_zh(&condition.zh, &subject.zh),
                    en: condition.en.replacen("{}", &subject.en, 1),
                }
            } else {
                Text {
                    zh: join_zh(subject.zh, &condition.zh),
                    en: format!("{}: {}", subject.en, condition.en),
                }
            }
        }
    };
    match words.next() {
        Some(more) => Err(format!("{more:?} is one word too many")),
        None => Ok(Text { zh: text.zh, en: capitalised(text.en) }),
    }
}

/// A component on its way to a subject: its places are gathered first, for the
/// languages want them in different order.
struct Parts<'a> {
    component: &'a Text,
    /// A letter, a number or two of them (`A/B`).
    mark: Option<&'a str>,
    cylinder: Option<&'a str>,
    /// `（1 列 2 号）`, `, bank 1 sensor 2`.
    bank: Option<Text>,
}

impl<'a> Parts<'a> {
    fn of(component: &'a Text) -> Self {
        Self { component, mark: None, cylinder: None, bank: None }
    }

    fn add(&mut self, place: &'a str) -> Result<(), String> {
        let wrong = || format!("{place:?} is no place: A, 1, A/B, c3, b1, b1s2, b1u2 or b1/2");
        match place.as_bytes() {
            [b'b', ..] => self.bank = Some(bank(place).ok_or_else(wrong)?),
            [b'c', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => self.cylinder = place.get(1..),
            [b'A'..=b'Z' | b'0'..=b'9'] | [b'A'..=b'Z' | b'0'..=b'9', b'/', b'A'..=b'Z' | b'0'..=b'9'] => {
                self.mark = Some(place);
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn finish(self) -> Text {
        let (mut zh, mut en) = (self.component.zh.clone(), self.component.en.clone());
        match self.mark {
            Some(mark) if zh.contains("{}") => {
                zh = zh.replacen("{}", mark, 1);
                en = en.replacen("{}", mark, 1);
            }
            Some(mark) => {
                zh = format!("{zh} {mark}");
                en = format!("{en} {mark}");
            }
            None => {
                zh = zh.replacen(" {} ", "", 1);
                en = en.replacen(" {}", "", 1);
            }
        }
        if let Some(cylinder) = self.cylinder {
            zh = format!("{cylinder} 缸{zh}");
            en = format!("{en}, cylinder {cylinder}");
        }
        if let Some(bank) = self.bank {
            zh.push_str(&bank.zh);
            en.push_str(&bank.en);
        }
        Text { zh, en }
    }
}

/// `b1`, `b1s2` (sensor), `b1u2` (unit), `b1/2` (both banks).
fn bank(place: &str) -> Option<Text> {
    let text = match place.as_bytes() {
        [b'b', bank @ b'1'..=b'2'] => {
            let bank = char::from(*bank);
            Text { zh: format!("（{bank} 列）"), en: format!(", bank {bank}") }
        }
        b"b1/2" => Text { zh: "（1、2 列）".into(), en: ", banks 1 and 2".into() },
        [b'b', bank @ b'1'..=b'2', kind @ (b's' | b'u'), number] if number.is_ascii_alphanumeric() => {
            let (bank, number) = (char::from(*bank), char::from(*number));
            let kind = if *kind == b's' { "sensor" } else { "unit" };
            Text {
                zh: format!("（{bank} 列 {number} 号）"), en: format!(", bank {bank} {kind} {number}")
            }
        }
        _ => return None,
    };
    Some(text)
}

/// A space between Latin and Chinese, none between Chinese and Chinese.
fn join_zh(mut subject: String, condition: &str) -> String {
    if subject.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        subject.push(' ');
    }
    subject.push_str(condition);
    subject
}

fn insert_zh(condition: &str, subject: &str) -> String {
    let latin = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let before = if latin(subject.chars().next()) { " " } else { "" };
    let behind = if latin(subject.chars().next_back()) { " " } else { "" };
    condition.replacen("{}", &format!("{before}{subject}{behind}"), 1).trim().to_owned()
}

fn capitalised(text: String) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if first.is_ascii_lowercase() => {
            first.to_ascii_uppercase().to_string() + letters.as_str()
        }
        _ => text,
    }
}
