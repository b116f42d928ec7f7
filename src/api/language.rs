//! Which of the house's two languages an asker wants (RFC 9110 §12.5.4).

use crate::config::values::Locale;

/// The best of Chinese and English by `Accept-Language`, else `default`.
#[must_use]
pub fn negotiate(header: Option<&str>, default: Locale) -> Locale {
    let Some(header) = header else { return default };
    let mut best: Option<(f32, Locale)> = None;
    for range in header.split(',').take(16) {
        let mut parts = range.split(';').map(str::trim);
        let tag = parts.next().unwrap_or("").to_ascii_lowercase();
        let quality = parts.find_map(|p| p.strip_prefix("q=")).map_or(Ok(1.0), str::parse).unwrap_or(0.0);
        let locale = match tag.split('-').next() {
            Some("zh") => Locale::ZhCn,
            Some("en") => Locale::En,
            Some("*") => default,
            _ => continue,
        };
        if quality > 0.0 && best.is_none_or(|(so_far, _)| quality > so_far) {
            best = Some((quality, locale));
        }
    }
    best.map_or(default, |(_, locale)| locale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_asker_is_heard() {
        // (header, default, expected)
        let cases = [
            (None, Locale::ZhCn, Locale::ZhCn),
            (Some("en"), Locale::ZhCn, Locale::En),
            (Some("en-GB,en;q=0.8"), Locale::ZhCn, Locale::En),
            (Some("zh-TW"), Locale::En, Locale::ZhCn),
            (Some("en;q=0.3, zh;q=0.9"), Locale::En, Locale::ZhCn),
            (Some("fr, *;q=0.1"), Locale::En, Locale::En),
            (Some("fr"), Locale::ZhCn, Locale::ZhCn),
            (Some("en;q=0"), Locale::ZhCn, Locale::ZhCn),
            (Some("en;q=x, ;;,"), Locale::ZhCn, Locale::ZhCn),
        ];
        for (header, default, expected) in cases {
            assert_eq!(negotiate(header, default), expected, "{header:?}");
        }
    }
}
