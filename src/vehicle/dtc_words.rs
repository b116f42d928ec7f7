//! The words of a trouble code for a car whose maker is known or not. What lives here:
//! the choice between the generic text, the maker's, and saying that there is none. What
//! does not: the texts (`protocols`).

use crate::event::Text;
use crate::protocols::Bundle;

/// What to show beside `code` (`P0420`). `brand`: of the car's maker, from its VIN
/// ([`crate::vehicle::vin`]); without it a maker's own code is not worded, for the same
/// digits mean something else on another make. `None`: `code` is no trouble code.
#[must_use]
pub fn dtc_words(bundle: &Bundle, brand: Option<&str>, code: &str) -> Option<Text> {
    if let Some(text) = bundle.dtc_text(code) {
        return Some(text);
    }
    if let Some((brand, text)) =
        brand.and_then(|brand| Some((bundle.vin.brand(brand)?, bundle.maker_dtc_text(brand, code)?)))
    {
        return Some(Text {
            zh: format!("{}（按{}清单）", text.zh, brand.zh),
            en: format!("{} (by the list for {})", text.en, brand.en),
        });
    }
    let (zh, en) = match Meaning::of(code)? {
        Meaning::Generic => ("未收录的通用码", "Generic code, not in our list"),
        Meaning::Maker => ("未收录的厂家自定义码", "Maker-specific code, not in our list"),
    };
    Some(Text { zh: zh.into(), en: en.into() })
}

/// Who gives a code its meaning, by its first digits (SAE J2012 §6).
enum Meaning {
    Generic,
    Maker,
}

impl Meaning {
    fn of(code: &str) -> Option<Self> {
        let [system @ (b'P' | b'C' | b'B' | b'U'), kind @ b'0'..=b'3', rest @ ..] = code.as_bytes() else {
            return None;
        };
        if rest.len() != 3 || !rest.iter().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b)) {
            return None;
        }
        let generic = match (system, kind) {
            (_, b'0') | (b'P', b'2') | (b'U', b'3') => true,
            (b'P', b'3') => matches!(rest, [b'4'..=b'9', ..]),
            _ => false,
        };
        Some(if generic { Self::Generic } else { Self::Maker })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_makers_code_is_worded_for_that_maker_only() {
        let bundle = Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")).unwrap();
        for (brand, code, zh) in [
            (None, "P0420", Some("三元催化器（1 列）效率低于限值")),
            (Some("honda"), "P0420", Some("三元催化器（1 列）效率低于限值")),
            (Some("honda"), "P1259", Some("VTEC 系统故障（按本田清单）")),
            (None, "P1259", Some("未收录的厂家自定义码")),
            (Some("byd"), "P1259", Some("未收录的厂家自定义码")),
            (Some("no such brand"), "B1234", Some("未收录的厂家自定义码")),
            (None, "P3000", Some("未收录的厂家自定义码")),
            (None, "P3FFF", Some("未收录的厂家自定义码")),
            (None, "P3999", Some("未收录的通用码")),
            (None, "U3000", Some("未收录的通用码")),
            (None, "P0ABC", Some("未收录的通用码")),
            (None, "P04200", None),
            (None, "p0420", None),
            (None, "", None),
        ] {
            assert_eq!(
                dtc_words(&bundle, brand, code).map(|text| text.zh).as_deref(),
                zh,
                "{brand:?} {code}"
            );
        }
    }
}
