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
    if let Some(text) = brand.and_then(|brand| by_the_lists(bundle, brand, code)) {
        return Some(text);
    }
    let (zh, en) = match (Meaning::of(code)?, brand) {
        (Meaning::Generic, _) => ("未收录的通用码", "Generic code, not in our list"),
        (Meaning::Maker, None) if !bundle.brands_with_dtc(code).is_empty() => {
            return Some(candidates(bundle, code));
        }
        (Meaning::Maker, _) => ("未收录的厂家自定义码", "Maker-specific code, not in our list"),
    };
    Some(Text::new(zh, en))
}

/// The text with whose list it is; where two lists have the code, both.
fn by_the_lists(bundle: &Bundle, brand: &str, code: &str) -> Option<Text> {
    let name = bundle.vin.brand(brand)?;
    let mut texts = bundle.maker_dtc_texts(brand, code).into_iter();
    let Text { zh, en } = texts.next()?;
    let (mut zh, mut en) = (format!("{zh}（按{}清单", name.zh), format!("{en} (by the list for {}", name.en));
    for other in texts {
        zh.push_str(&format!("；另一清单：{}", other.zh));
        en.push_str(&format!("; another list: {}", other.en));
    }
    Some(Text::new(zh + "）", en + ")"))
}

/// The maker is not known: whose lists have the code, and none of their texts.
fn candidates(bundle: &Bundle, code: &str) -> Text {
    let names: Vec<_> =
        bundle.brands_with_dtc(code).into_iter().filter_map(|brand| bundle.vin.brand(brand)).collect();
    let zh: Vec<_> = names.iter().map(|name| name.zh.as_str()).collect();
    let en: Vec<_> = names.iter().map(|name| name.en.as_str()).collect();
    Text::new(
        format!("厂家自定义码，品牌未知（清单中有此码的：{}）", zh.join("、")),
        format!("Maker-specific code, maker not known (in the lists for {})", en.join(", ")),
    )
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
            (
                Some("honda"),
                "P1259",
                Some("VTEC 系统故障（按本田清单；另一清单：VTEC System Malfunction Rear Bank 1）"),
            ),
            (Some("acura"), "P1259", Some("VTEC 系统故障（按讴歌清单）")),
            (Some("honda"), "P1253", Some("VTEC System Circuit Fault（按本田清单）")),
            (Some("vw"), "P1253", Some("Fuel Consumption Signal Short To Ground（按大众清单）")),
            (Some("toyota"), "P1253", Some("未收录的厂家自定义码")),
            (None, "P1259", Some("厂家自定义码，品牌未知（清单中有此码的：讴歌、本田、大众）")),
            (None, "P1FFF", Some("未收录的厂家自定义码")),
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
        let english = |brand| dtc_words(&bundle, brand, "P1259").unwrap().en;
        assert_eq!(
            english(Some("honda")),
            "VTEC system: fault (by the list for Honda; another list: VTEC System Malfunction Rear Bank 1)"
        );
        assert_eq!(
            english(None),
            "Maker-specific code, maker not known (in the lists for Acura, Honda, Volkswagen)"
        );
    }
}
