//! A command's name, `HDR[.RAX].CMD[|options]`, as the sets' own tools write it: taken apart, and
//! held against a command. What does not live here: what a command is ([`super::command`]).

use std::fmt;

use super::command::Command;

/// A name, taken apart.
#[derive(Debug)]
pub struct Name<'a> {
    header: &'a str,
    answers_on: Option<&'a str>,
    request: Vec<u8>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Name<'a> {
    /// `None` when the text is no name.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (path, options) = text.split_once('|').unwrap_or((text, ""));
        let parts: Vec<&str> = path.split('.').collect();
        let (header, answers_on, request) = match parts.as_slice() {
            [header, request] => (*header, None, *request),
            [header, answers_on, request] => (*header, Some(*answers_on), *request),
            _ => return None,
        };
        let options = options.split(',').filter_map(|option| option.split_once('=')).map(priority).collect();
        Some(Self { header, answers_on, request: hex::decode(request).ok()?, options })
    }
}

/// OBDb's tool writes a priority `c=14` and a protocol `p=9141-2`; the contract (§6) calls the
/// priority `p=`. Two hex digits are no protocol's name, so both are understood.
fn priority<'a>((key, value): (&'a str, &'a str)) -> (&'a str, &'a str) {
    let is_byte = value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    (if key == "p" && is_byte { "c" } else { key }, value)
}

impl Command {
    /// Whether the name without its options is this command's.
    pub(super) fn is_named(&self, name: &Name<'_>) -> bool {
        let same = |ours: Option<&str>, theirs: Option<&str>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => ours.eq_ignore_ascii_case(theirs),
            (None, None) => true,
            _ => false,
        };
        self.header.eq_ignore_ascii_case(name.header)
            && same(self.answers_on.as_deref(), name.answers_on)
            && self.request == name.request
    }

    /// Options that both have, less those that only one has: the higher, the better.
    pub(super) fn likeness(&self, name: &Name<'_>) -> i32 {
        let both = |key: &str, value: &str| {
            name.options.iter().any(|(k, v)| *k == key && v.eq_ignore_ascii_case(value))
        };
        let shared = self.options.iter().filter(|(key, value)| both(key, value)).count();
        let all = self.options.len() + name.options.len();
        i32::try_from(3 * shared).unwrap_or(i32::MAX) - i32::try_from(all).unwrap_or(i32::MAX)
    }
}

/// Its name.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.header)?;
        if let Some(answers_on) = &self.answers_on {
            write!(f, "{answers_on}.")?;
        }
        f.write_str(&hex::encode_upper(&self.request))?;
        let options: Vec<String> = self.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if options.is_empty() { Ok(()) } else { write!(f, "|{}", options.join(",")) }
    }
}
