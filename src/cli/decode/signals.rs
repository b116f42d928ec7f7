//! `decode --signals`: answers of cars in, values out, a JSON document a line
//! (contract §6).

use std::io::{self, BufRead, Write};

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::config::values::Locale;
use crate::vehicle::signal_set::{SignalSet, Value};

/// One line of input.
#[derive(Deserialize)]
struct Answer {
    id: String,
    response: String,
}

/// A line that gave nothing.
#[derive(Debug)]
pub struct Trouble {
    line: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    NoAnswer(serde_json::Error),
    NoCommand(String),
}

impl Trouble {
    /// For people.
    pub fn text(&self, locale: Locale) -> String {
        let line = self.line;
        match (&self.kind, locale) {
            (Kind::NoAnswer(error), Locale::ZhCn) => {
                format!("第 {line} 行：不是 {{\"id\":…,\"response\":…}}：{error}")
            }
            (Kind::NoAnswer(error), Locale::En) => {
                format!("line {line}: this is not {{\"id\":…,\"response\":…}}: {error}")
            }
            (Kind::NoCommand(id), Locale::ZhCn) => format!("第 {line} 行：信号集中没有命令 {id}"),
            (Kind::NoCommand(id), Locale::En) => format!("line {line}: the signal set has no command {id}"),
        }
    }
}

/// Decodes every line of `input` to `out`; a command that the set does not have
/// gives no signals. Returns the lines that gave nothing for such a reason.
///
/// # Errors
/// Reading or writing failed.
pub fn decode(set: &SignalSet, input: impl BufRead, out: &mut impl Write) -> io::Result<Vec<Trouble>> {
    let mut troubles = Vec::new();
    for (at, line) in input.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answer: Answer = match serde_json::from_str(&line) {
            Ok(answer) => answer,
            Err(error) => {
                troubles.push(Trouble { line: at + 1, kind: Kind::NoAnswer(error) });
                continue;
            }
        };
        let Some(command) = set.command(&answer.id) else {
            writeln!(out, "{}", json!({ "id": answer.id, "signals": {} }))?;
            troubles.push(Trouble { line: at + 1, kind: Kind::NoCommand(answer.id) });
            continue;
        };
        let signals: Map<String, Json> = command
            .decode(&answer.response)
            .into_iter()
            .map(|(id, value)| (id.to_owned(), json_value(value)))
            .collect();
        writeln!(out, "{}", json!({ "id": answer.id, "signals": signals }))?;
    }
    Ok(troubles)
}

fn json_value(value: Value) -> Json {
    match value {
        Value::Number(number) => json!(number),
        Value::Text(text) => Json::String(text),
    }
}
