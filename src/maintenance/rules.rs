//! `config/rules/*.toml`: rules read, compiled and checked. A folder with any
//! error is refused as a whole, with every error and its place: half a set of
//! rules would look like a healthy car.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use toml::Spanned;

use super::evaluate::placeholders;
use super::expression::{Evaluator, Expression, Limits};
use super::vectors::{RuleVector, VectorFile, verify_vectors};
use crate::config::{ConfigError, read_toml};
use crate::event::Text;
use crate::event::maintenance::{Confidence, Severity};

/// Bounds that keep a warning's event far below the contract's 64 KiB.
const MAX_TEXT_CHARS: usize = 1_000;
const MAX_EVIDENCE: usize = 16;

/// All rules.
#[derive(Debug, Clone)]
pub struct Rules {
    rules: Vec<Rule>,
    limits: Limits,
    version: String,
}

/// One rule, compiled.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Stable id, e.g. `coolant-overheat`.
    pub id: String,
    /// Rises when its meaning changes.
    pub version: u32,
    /// How urgent.
    pub severity: Severity,
    /// How well founded.
    pub confidence: Confidence,
    /// One line, with `{evidence}` placeholders.
    pub title: Text,
    /// What to do, with placeholders.
    pub advice: Text,
    /// Parts that may be needed.
    pub parts: Option<Vec<String>>,
    /// Self-tests.
    pub vectors: Vec<RuleVector>,
    pub(super) applies: Option<Expression>,
    pub(super) when: Expression,
    pub(super) cleared_when: Option<Expression>,
    pub(super) evidence: Vec<EvidenceRow>,
}

#[derive(Debug, Clone)]
pub(super) struct EvidenceRow {
    pub(super) name: String,
    pub(super) value: Expression,
    pub(super) unit: Option<String>,
    pub(super) limit: Option<Value>,
}

impl Rules {
    /// Reads and checks a folder of rules, runs every rule's vectors.
    ///
    /// # Errors
    /// Every error found, each with file, line, column and what to do.
    pub fn load(dir: &Path) -> Result<Self, Vec<ConfigError>> {
        let hint = || {
            Some(
                "point `gateway.share_dir` at the folder that holds `rules/`, or install it again".to_owned(),
            )
        };
        let entries = std::fs::read_dir(dir)
            .map_err(|error| vec![ConfigError::whole(dir, format!("cannot be read: {error}"), hint())])?;
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        paths.sort();
        if paths.is_empty() {
            return Err(vec![ConfigError::whole(dir, "holds no rules (*.toml)", hint())]);
        }
        let mut files = Vec::new();
        let mut errors = Vec::new();
        for path in paths {
            match std::fs::read_to_string(&path) {
                Ok(text) => files.push((path, text)),
                Err(error) => {
                    let what = format!("cannot be read: {error}");
                    errors.push(ConfigError::whole(path, what, Some("rules are UTF-8 text files".into())));
                }
            }
        }
        let rules = Self::parse(&files);
        match rules {
            Ok(rules) if errors.is_empty() => Ok(rules),
            Ok(_) => Err(errors),
            Err(more) => {
                errors.extend(more);
                Err(errors)
            }
        }
    }

    /// Reads texts as if they were files of those names.
    ///
    /// # Errors
    /// Every error found.
    pub fn parse(files: &[(PathBuf, String)]) -> Result<Self, Vec<ConfigError>> {
        let mut builder = Builder {
            compiler: Evaluator::new(Limits::default()),
            rules: Vec::new(),
            ids: BTreeSet::new(),
            errors: Vec::new(),
        };
        let mut digest = Sha256::new();
        for (path, text) in files {
            digest.update(text);
            digest.update([0]);
            match read_toml::<File>(path, text) {
                Ok(file) => file.rule.into_iter().for_each(|rule| builder.rule(&Place { path, text }, rule)),
                Err(error) => builder.errors.push(error),
            }
        }
        let rules =
            Self { rules: builder.rules, limits: Limits::default(), version: hex::encode(digest.finalize()) };
        let mut errors = builder.errors;
        if let Err(wrong) = verify_vectors(&rules) {
            errors.extend(wrong);
        }
        if errors.is_empty() { Ok(rules) } else { Err(errors) }
    }

    /// The same rules under other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What one rule may cost.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// All rules, in file order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// SHA-256 of the files' texts, hex.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rule: Vec<RuleFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    id: Spanned<String>,
    version: u32,
    severity: Severity,
    confidence: Confidence,
    title: Spanned<Text>,
    advice: Spanned<Text>,
    applies: Option<Spanned<String>>,
    when: Spanned<String>,
    cleared_when: Option<Spanned<String>>,
    parts: Option<Vec<String>>,
    #[serde(default)]
    evidence: Vec<EvidenceFile>,
    #[serde(default)]
    vector: Vec<Spanned<VectorFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceFile {
    name: String,
    value: Spanned<String>,
    unit: Option<String>,
    limit: Option<Value>,
}

/// The file a rule stands in.
pub(super) struct Place<'f> {
    pub(super) path: &'f Path,
    pub(super) text: &'f str,
}

impl Place<'_> {
    pub(super) fn error(&self, offset: usize, what: impl Into<String>, hint: &str) -> ConfigError {
        ConfigError::at(self.path, self.text, offset, what, Some(hint.to_owned()))
    }
}

struct Builder {
    compiler: Evaluator,
    rules: Vec<Rule>,
    ids: BTreeSet<String>,
    errors: Vec<ConfigError>,
}

impl Builder {
    fn rule(&mut self, place: &Place<'_>, file: RuleFile) {
        let span = file.id.span();
        let id = file.id.into_inner();
        let plain = (1..=64).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !plain {
            self.wrong(
                place,
                &span,
                format!("rule id {id:?} is not valid"),
                "use a-z, 0-9 and -, at most 64",
            );
        }
        if !self.ids.insert(id.clone()) {
            self.wrong(
                place,
                &span,
                format!("rule {id:?} stands twice"),
                "give each rule its own id, in all files",
            );
        }
        if file.evidence.len() > MAX_EVIDENCE {
            self.wrong(
                place,
                &span,
                format!("rule {id:?} has more than {MAX_EVIDENCE} evidence rows"),
                "keep the ones that matter",
            );
        }
        let names: Vec<&str> = file.evidence.iter().map(|row| row.name.as_str()).collect();
        self.texts(place, &file.title, &names);
        self.texts(place, &file.advice, &names);
        let vectors: Vec<RuleVector> =
            file.vector.into_iter().filter_map(|vector| self.vector(place, vector)).collect();
        self.coverage(place, &span, &id, &vectors);
        let applies = file.applies.map(|text| self.compile(place, &text));
        let cleared_when = file.cleared_when.map(|text| self.compile(place, &text));
        let when = self.compile(place, &file.when);
        let evidence: Vec<EvidenceRow> = file
            .evidence
            .into_iter()
            .filter_map(|row| {
                let value = self.compile(place, &row.value)?;
                Some(EvidenceRow { name: row.name, value, unit: row.unit, limit: row.limit })
            })
            .collect();
        // What did not compile has its error; without its condition a rule cannot be built.
        if let (Some(when), None | Some(Some(_)), None | Some(Some(_))) = (when, &applies, &cleared_when) {
            self.rules.push(Rule {
                id,
                version: file.version,
                severity: file.severity,
                confidence: file.confidence,
                title: file.title.into_inner(),
                advice: file.advice.into_inner(),
                parts: file.parts,
                vectors,
                applies: applies.flatten(),
                when,
                cleared_when: cleared_when.flatten(),
                evidence,
            });
        }
    }

    fn wrong(&mut self, place: &Place<'_>, span: &Range<usize>, what: impl Into<String>, hint: &str) {
        self.errors.push(place.error(span.start, what, hint));
    }

    fn texts(&mut self, place: &Place<'_>, text: &Spanned<Text>, evidence: &[&str]) {
        let span = text.span();
        for side in [&text.get_ref().zh, &text.get_ref().en] {
            if side.trim().is_empty() || side.chars().count() > MAX_TEXT_CHARS {
                self.wrong(
                    place,
                    &span,
                    "a text is empty or too long",
                    "give both zh and en, at most 1000 characters",
                );
            }
            for name in placeholders(side).filter(|name| !evidence.contains(name)) {
                let what = format!("{{{name}}} is not evidence of this rule");
                self.wrong(
                    place,
                    &span,
                    what,
                    "add a [[rule.evidence]] with that name, or take the placeholder out",
                );
            }
        }
    }

    fn vector(&mut self, place: &Place<'_>, vector: Spanned<VectorFile>) -> Option<RuleVector> {
        let offset = vector.span().start;
        RuleVector::build(place, offset, vector.into_inner()).map_err(|error| self.errors.push(error)).ok()
    }

    fn coverage(&mut self, place: &Place<'_>, span: &Range<usize>, id: &str, vectors: &[RuleVector]) {
        use super::vectors::Expected::{Clear, Raise, Unknown};
        for expected in [Raise, Clear, Unknown] {
            if !vectors.iter().any(|vector| vector.expected == expected) {
                let what = format!("rule {id:?} has no vector that expects {:?}", expected.as_str());
                self.wrong(place, span, what, "add [[rule.vector]] with expect and car: one that raises, one that clears, one that cannot know");
            }
        }
    }

    fn compile(&mut self, place: &Place<'_>, text: &Spanned<String>) -> Option<Expression> {
        match self.compiler.compile(text.get_ref()) {
            Ok(expression) => Some(expression),
            Err(error) => {
                let offset = offset_within(place.text, text.span(), error.line, error.column);
                let hint = "an expression asks `car`, e.g. 'car.coolant_temperature > 118'; statements, loops and functions are not part of it";
                self.errors.push(place.error(offset, format!("expression: {}", error.what), hint));
                None
            }
        }
    }
}

/// The file offset of a place within a TOML string: behind its quotes, `line` and
/// `column` from 1 counted in the source text (an escape counts as one character).
fn offset_within(text: &str, span: Range<usize>, line: usize, column: usize) -> usize {
    let raw = text.get(span.clone()).unwrap_or("");
    let quotes = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
    let escapes = raw.starts_with('"');
    let mut body = raw.char_indices().skip(quotes).peekable();
    if quotes == 3 {
        body.next_if(|(_, c)| *c == '\r');
        body.next_if(|(_, c)| *c == '\n');
    }
    let (mut at_line, mut at_column) = (1, 1);
    let mut last = quotes;
    while let Some((offset, c)) = body.next() {
        last = offset;
        if (at_line, at_column) == (line, column) {
            break;
        }
        if escapes && c == '\\' {
            body.next();
        }
        if c == '\n' {
            (at_line, at_column) = (at_line + 1, 1);
        } else {
            at_column += 1;
        }
    }
    span.start + last
}
