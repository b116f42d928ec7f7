//! `adapters/*.toml`: what is known of adapters by their identity string. A
//! profile only takes away (skips a command, forbids an optimisation): the
//! allow-list of what may be sent is code.

use serde::Deserialize;
use toml::Spanned;
use wildmatch::WildMatch;

use super::files::Files;
use crate::event::Text;

/// Whether the driver may try an optimisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Try once, remember the verdict.
    #[default]
    Probe,
    /// Do not even try: it hangs the adapter.
    Never,
}

/// What happens on answers of many frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LongAnswers {
    /// They arrive.
    #[default]
    Fine,
    /// The adapter may stop answering: no more PIDs in a request than fit the lines of a VIN,
    /// however well earlier answers came.
    Freeze,
}

/// One adapter profile.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterProfile {
    /// Its name, for logs.
    pub id: String,
    /// Patterns on the identity string (`*` and `?`), case-insensitive.
    pub patterns: Vec<String>,
    /// Where this is known from.
    pub source: String,
    /// For people.
    pub note: Text,
    /// AT commands never to be sent, upper case without spaces.
    pub skip: Vec<String>,
    /// Several PIDs in one request.
    pub multi_pid: Use,
    /// The digit behind a request that ends the wait early.
    pub response_count: Use,
    /// `ATAT2`, which gives up on a silent car early.
    pub aggressive_timing: Use,
    /// Requests of more than two bytes; `never`: it cuts them off.
    pub long_requests: Use,
    /// Answers of many frames.
    pub long_answers: LongAnswers,
    /// The echo of each character, on which fragile requests depend; `never`: it lies or has none.
    pub echo: Use,
}

impl AdapterProfile {
    /// Whether `command` (any case, with or without spaces) must not be sent.
    #[must_use]
    pub fn skips(&self, command: &str) -> bool {
        self.skip.contains(&normalised(command))
    }

    /// The length of the longest pattern that matches.
    pub(super) fn match_length(&self, identity: &str) -> Option<usize> {
        self.patterns
            .iter()
            .filter(|pattern| WildMatch::new_case_insensitive(pattern).matches(identity.trim()))
            .map(String::len)
            .max()
    }
}

fn normalised(command: &str) -> String {
    command.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_uppercase()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: String,
    #[serde(rename = "match")]
    patterns: Spanned<Vec<String>>,
    source: String,
    note: Text,
    #[serde(default)]
    skip: Vec<Spanned<String>>,
    #[serde(default)]
    multi_pid: Use,
    #[serde(default)]
    response_count: Use,
    #[serde(default)]
    aggressive_timing: Use,
    #[serde(default)]
    long_requests: Use,
    #[serde(default)]
    long_answers: LongAnswers,
    #[serde(default)]
    echo: Use,
}

pub(super) fn load(files: &mut Files, folder: &str) -> Vec<AdapterProfile> {
    let mut profiles = Vec::new();
    for name in files.list(folder) {
        let Some((file, place)) = files.read::<File>(&name) else { continue };
        if file.patterns.get_ref().iter().all(|pattern| pattern.trim().is_empty()) {
            files.error(
                &place,
                file.patterns.span(),
                "match is empty",
                "give identity patterns, e.g. [\"ELM327*\"]",
            );
        }
        for command in &file.skip {
            if !normalised(command.get_ref()).starts_with("AT") {
                let what = format!("{:?} is not an AT command", command.get_ref());
                files.error(
                    &place,
                    command.span(),
                    what,
                    "only adapter commands can be skipped, e.g. \"AT@1\"",
                );
            }
        }
        profiles.push(AdapterProfile {
            id: file.id,
            patterns: file.patterns.into_inner(),
            source: file.source,
            note: file.note,
            skip: file.skip.iter().map(|command| normalised(command.get_ref())).collect(),
            multi_pid: file.multi_pid,
            response_count: file.response_count,
            aggressive_timing: file.aggressive_timing,
            long_requests: file.long_requests,
            long_answers: file.long_answers,
            echo: file.echo,
        });
    }
    profiles
}
