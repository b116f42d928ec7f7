//! What a mistyped word was probably meant to be.

/// The known word nearest to a mistyped one.
pub(super) fn closest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|word| (strsim::jaro_winkler(typed, word), word))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

/// The TOML reader's message, and a suggestion when it is about an unknown key or value.
pub(super) fn explain(message: &str) -> (String, Option<String>) {
    let message = message.trim_end().replace('\n', "; ");
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let hint = if unknown {
        let typed = quoted.next().unwrap_or("");
        let known: Vec<&str> = quoted.collect();
        match closest(typed, known.iter().copied()) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None => Some(format!("known here: {}", known.join(", "))),
        }
    } else {
        None
    };
    let short =
        if unknown { message.split(", expected").next().unwrap_or(&message).to_owned() } else { message };
    (short, hint)
}
