//! A job's fields: their values as text, and the filters a template may put
//! behind a placeholder (`{{card_no|group}}`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::fault::FaceError;
use crate::event::Text;

/// The longest value, in characters.
const MAX_CHARACTERS: usize = 512;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    /// As it is.
    Plain,
    /// In groups of four: `8800 0042 0000 1234`.
    Group,
    /// An integer with thousands separators: `12,800`.
    Number,
    /// An integer of fen as yuan: `1,234.50`.
    Yuan,
}

impl Filter {
    pub(super) const NAMES: [&'static str; 3] = ["group", "number", "yuan"];

    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "group" => Some(Self::Group),
            "number" => Some(Self::Number),
            "yuan" => Some(Self::Yuan),
            _ => None,
        }
    }
}

/// Checked values by field name.
#[derive(Debug)]
pub(super) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Takes a JSON object of texts and integers.
    pub(super) fn read(data: &Value) -> Result<Self, FaceError> {
        let Value::Object(members) = data else {
            let what = Text::new(
                "必须是 JSON 对象，例如 {\"card_no\":\"…\"}",
                "must be a JSON object, e.g. {\"card_no\":\"…\"}",
            );
            return Err(FaceError::BadValue { field: "fields".into(), what });
        };
        let read = members.iter().filter(|(_, value)| !value.is_null());
        read.map(|(name, value)| Ok((name.clone(), text_of(name, value)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// The value as it is printed; an absent field prints nothing.
    pub(super) fn print(&self, field: &str, filter: Filter) -> Result<String, FaceError> {
        let Some(value) = self.0.get(field) else { return Ok(String::new()) };
        let integer = || {
            value.parse::<i64>().map_err(|_| {
                let what = Text::new("必须是整数", "must be an integer");
                FaceError::BadValue { field: field.to_owned(), what }
            })
        };
        Ok(match filter {
            Filter::Plain => value.clone(),
            Filter::Group => grouped(value),
            Filter::Number => thousands(&integer()?.to_string()),
            Filter::Yuan => {
                let fen = integer()?;
                let sign = if fen < 0 { "-" } else { "" };
                let fen = fen.unsigned_abs();
                format!("{sign}{}.{:02}", thousands(&(fen / 100).to_string()), fen % 100)
            }
        })
    }
}

fn text_of(field: &str, value: &Value) -> Result<String, FaceError> {
    let bad = |zh: &str, en: &str| FaceError::BadValue { field: field.to_owned(), what: Text::new(zh, en) };
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        _ => return Err(bad("必须是文字或整数", "must be a text or an integer")),
    };
    if text.chars().any(char::is_control) {
        return Err(bad("含有控制字符，请删除", "holds a control character; remove it"));
    }
    if text.chars().count() > MAX_CHARACTERS {
        return Err(bad("超过 512 个字符，请缩短", "has more than 512 characters; shorten it"));
    }
    Ok(text)
}

/// Groups of four characters, counted from the left.
fn grouped(text: &str) -> String {
    let plain: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    plain.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

fn thousands(integer: &str) -> String {
    let (sign, digits) = integer.strip_prefix('-').map_or(("", integer), |digits| ("-", digits));
    let mut text = String::from(sign);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_for_people() {
        let fields = Fields::read(&json!({
            "card": "8800004200001234", "short": "A1", "points": 1_280_000, "few": 12,
            "fen": 123_450, "debt": -5, "gone": null
        }))
        .unwrap();
        for (field, filter, expected) in [
            ("card", Filter::Group, "8800 0042 0000 1234"),
            ("short", Filter::Group, "A1"),
            ("points", Filter::Number, "1,280,000"),
            ("few", Filter::Number, "12"),
            ("fen", Filter::Yuan, "1,234.50"),
            ("debt", Filter::Yuan, "-0.05"),
            ("gone", Filter::Plain, ""),
        ] {
            assert_eq!(fields.print(field, filter).unwrap(), expected, "{field}");
        }
        assert!(!fields.has("gone"));
        assert!(fields.print("short", Filter::Number).is_err());
    }

    #[test]
    fn other_values_are_refused() {
        for bad in [json!([]), json!({"a": 1.5}), json!({"a": ["x"]}), json!({"a": "x\u{7}"}), json!(1)] {
            assert!(Fields::read(&bad).is_err(), "{bad}");
        }
    }
}
