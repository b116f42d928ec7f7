//! Which model years a command is for, and the model year in a VIN. Pure.

use serde::Deserialize;

use crate::ident::Vin;

/// The codes of position 10, from 1980 on; they begin anew every 30 years
/// (49 CFR 565.15 table VII, GB 16735-2019 table 2).
const CODES: &[u8; 30] = b"ABCDEFGHJKLMNPRSTVWXY123456789";
const FIRST: u16 = 1980;
const CYCLE: u16 = 30;

/// The model year a VIN gives, the latest that is not after `latest`. `None`: the maker
/// does not write it there (many European ones need not).
#[must_use]
pub fn model_year(vin: &Vin, latest: u16) -> Option<u16> {
    let code = vin.as_str().as_bytes().get(9)?;
    let place = CODES.iter().position(|known| known == code)?;
    let first = FIRST + u16::try_from(place).ok()?;
    let cycles = latest.checked_sub(first)? / CYCLE;
    Some(first + cycles * CYCLE)
}

/// `filter`: years from, to, and single ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Years {
    from: Option<u16>,
    to: Option<u16>,
    years: Vec<u16>,
}

impl Years {
    /// Whether a car of this model year is meant. A car of unknown year is meant only
    /// where all are: another year's answer would be decoded wrongly.
    #[must_use]
    pub fn fit(&self, year: Option<u16>) -> bool {
        if self.is_open() {
            return true;
        }
        let Some(year) = year else { return false };
        let in_range = (self.from.is_some() || self.to.is_some())
            && self.from.is_none_or(|from| from <= year)
            && self.to.is_none_or(|to| year <= to);
        // `to` before `from` leaves out what lies between the two.
        let around = matches!((self.from, self.to), (Some(from), Some(to)) if to < from && (year >= from || year <= to));
        in_range || around || self.years.contains(&year)
    }

    fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// `2018-2020`, `2018-`, `-2020`, single years, with `;` between them; nothing where all are meant.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        if self.is_open() {
            return None;
        }
        let mut parts = match (self.from, self.to) {
            (Some(from), Some(to)) if from < to => vec![format!("{from}-{to}")],
            (from, to) => {
                from.map(|from| format!("{from}-")).into_iter().chain(to.map(|to| format!("-{to}"))).collect()
            }
        };
        let mut years = self.years.clone();
        years.sort_unstable();
        parts.extend(years.iter().map(u16::to_string));
        Some(parts.join(";"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenth_character_is_the_year() {
        // 49 CFR 565.15 table VII: A is 1980 and 2010, Y 2000, 1 is 2001, 9 is 2009.
        for (code, latest, year) in [
            ('A', 2027, Some(2010)),
            ('A', 2009, Some(1980)),
            ('Y', 2027, Some(2000)),
            ('1', 2027, Some(2001)),
            ('9', 2027, Some(2009)),
            ('T', 2027, Some(2026)),
            ('V', 2027, Some(2027)),
            ('V', 2026, Some(1997)),
            ('0', 2027, None),
            ('Z', 2027, None),
            ('U', 2027, None),
        ] {
            let vin: Vin = format!("LSVAG2186{code}2100001").parse().unwrap();
            assert_eq!(model_year(&vin, latest), year, "{code}");
        }
    }

    #[test]
    fn filters() {
        for (filter, text, fit, unfit) in [
            ("{}", None, &[None, Some(1999)][..], &[][..]),
            (r#"{"from":2018}"#, Some("2018-"), &[Some(2018), Some(2030)], &[Some(2017), None]),
            (r#"{"to":2017}"#, Some("-2017"), &[Some(2017)], &[Some(2018), None]),
            (r#"{"from":2018,"to":2020}"#, Some("2018-2020"), &[Some(2019)], &[Some(2017), Some(2021)]),
            (r#"{"from":2020,"to":2015}"#, Some("2020-;-2015"), &[Some(2015), Some(2020)], &[Some(2017)]),
            (r#"{"years":[2021,2017]}"#, Some("2017;2021"), &[Some(2017)], &[Some(2018), None]),
            (r#"{"from":2020,"years":[2017]}"#, Some("2020-;2017"), &[Some(2017), Some(2021)], &[Some(2018)]),
        ] {
            let years: Years = serde_json::from_str(filter).unwrap();
            assert_eq!(years.text().as_deref(), text, "{filter}");
            assert!(fit.iter().all(|year| years.fit(*year)), "{filter}");
            assert!(!unfit.iter().any(|year| years.fit(*year)), "{filter}");
        }
    }
}
