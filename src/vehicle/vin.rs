//! What a VIN tells: where the maker has its seat, who built the car, its model year,
//! whether the check digit is right. Pure: the tables come with the bundle, the year
//! from the caller. What does not live here: the VIN's form ([`Vin`]) and the plant and
//! type characters (11, 4 to 8), which every maker uses its own way.

use crate::ident::Vin;
use crate::protocols::{Maker, Seat, VinTables};

/// What the ninth character says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckDigit {
    /// It is the check digit of 49 CFR 565.15 / GB 16735.
    Right,
    /// It is not, and the region demands it (China, North America): most likely a typing error.
    Wrong,
    /// It is not, and the region does not use one.
    Unused,
}

/// What a VIN tells without asking the car.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VinFacts {
    /// Part of the world of the maker's seat.
    pub region: Option<Seat>,
    /// Country of the maker's seat.
    pub country: Option<Seat>,
    /// Who built it.
    pub maker: Option<Maker>,
    /// The model year of position 10. GB 16735 and 49 CFR 565 demand it; some European
    /// makers put something else there, so outside `LH12457` it is a hint.
    pub model_year: Option<u16>,
    /// Position 9.
    pub check_digit: CheckDigit,
}

/// Reads a VIN. `this_year` decides between the two years a character may mean.
#[must_use]
pub fn read(vin: &Vin, tables: &VinTables, this_year: u16) -> VinFacts {
    VinFacts {
        region: tables.region(vin).cloned(),
        country: tables.country(vin).cloned(),
        maker: tables.maker(vin).cloned(),
        model_year: vin.as_str().chars().nth(9).and_then(|code| model_year(code, this_year)),
        check_digit: check_digit(vin),
    }
}

/// How many bytes stand before the VIN in a message that answers with one: 09 02 (SAE J1979), 22
/// F190 (ISO 14229-1 annex C), 22 F802 (SAE J1979-2). `None`: it holds none.
#[must_use]
pub fn place_in(message: &[u8]) -> Option<usize> {
    match message {
        [0x49, 0x02, ..] => Some(2),
        [0x62, 0xF1, 0x90, ..] | [0x62, 0xF8, 0x02, ..] => Some(3),
        _ => None,
    }
}

fn check_digit(vin: &Vin) -> CheckDigit {
    if vin.check_digit_ok() {
        CheckDigit::Right
    } else if vin.as_str().starts_with(['L', 'H', '1', '2', '3', '4', '5', '7']) {
        // GB 16735 for China (L, and H since ISO 3780 gave it to China), 49 CFR 565 for North America.
        CheckDigit::Wrong
    } else {
        CheckDigit::Unused
    }
}

/// The model year of position 10: ISO 3779 / GB 16735 table of years, which repeats
/// after 30 years. Of the years it may mean, the latest that is not after the next year;
/// `None`: no year character (I, O, Q, U, Z and 0), or all its years lie ahead.
#[must_use]
pub fn model_year(code: char, this_year: u16) -> Option<u16> {
    const CYCLE: &str = "ABCDEFGHJKLMNPRSTVWXY123456789";
    const FIRST: u16 = 1980;
    let first = FIRST + u16::try_from(CYCLE.find(code)?).ok()?;
    let cycles = this_year.saturating_add(1).checked_sub(first)? / 30;
    Some(first + 30 * cycles)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::protocols::Bundle;

    fn tables() -> VinTables {
        Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")).unwrap().vin
    }

    #[test]
    fn public_examples_read_as_they_should() {
        use CheckDigit::{Right, Unused, Wrong};
        let tables = tables();
        // VIN; country; maker's brand; model year; check digit. Sources: 49 CFR 565.15 (1M8…), the manuals of
        // vininfo 1.11.0 (VF1…, XTA…), vin 0.6.2 (5FN…, KND…), nhtsa_vin_decoder 0.1.0 (1HG…, 4JG…), vin_parser
        // 0.0.1 (1GY…), vin_decoder 0.1.1 (JN1…) and of the HEPC API (LVS…), a public page on Tesla's VINs (LRW…).
        // LA9…: made up, for makers of few cars.
        for (vin, country, brand, year, digit) in [
            ("1M8GDM9AXKP042788", Some("US"), None, Some(2019), Right),
            ("LRW3E7FS5PC695355", Some("CN"), Some("tesla"), Some(2023), Right),
            ("LVSFCFME37F107967", Some("CN"), Some("ford"), Some(2007), Right),
            ("LVSFCFME47F107967", Some("CN"), Some("ford"), Some(2007), Wrong),
            ("VF1LM1B0H36666155", Some("FR"), Some("renault"), Some(2003), Unused),
            ("XTAGFK330JY144213", None, None, Some(2018), Unused),
            ("5FNYF5H59HB011946", Some("US"), Some("honda"), Some(2017), Right),
            ("KNDCE3LG2L5073161", Some("KR"), Some("kia"), Some(2020), Right),
            ("1HGCM82633A004352", Some("US"), Some("honda"), Some(2003), Right),
            ("4JGDA5HB7JB158144", Some("US"), Some("mercedes"), Some(2018), Right),
            ("1GYFK63878R248711", Some("US"), Some("cadillac"), Some(2008), Right),
            ("JN1FAAZE0U0000001", Some("JP"), Some("nissan"), None, Unused),
            ("LA9000000R0LC0001", Some("CN"), Some("byd"), Some(2024), Wrong),
            ("LA9000000R0LC1001", Some("CN"), None, Some(2024), Wrong),
        ] {
            let facts = read(&Vin::new(vin).unwrap(), &tables, 2026);
            assert_eq!(facts.country.map(|seat| seat.id).as_deref(), country, "{vin}");
            assert_eq!(facts.maker.map(|maker| maker.brand).as_deref(), brand, "{vin}");
            assert_eq!((facts.model_year, facts.check_digit), (year, digit), "{vin}");
            assert!(facts.region.is_some(), "{vin}");
        }
    }

    #[test]
    fn a_year_letter_means_the_later_year_that_is_not_ahead() {
        for (code, this_year, year) in [
            ('A', 2026, Some(2010)),
            ('T', 2026, Some(2026)),
            ('V', 2026, Some(2027)),
            ('W', 2026, Some(1998)),
            ('9', 2026, Some(2009)),
            ('1', 2029, Some(2001)),
            ('1', 2030, Some(2031)),
            ('B', 1979, None),
            ('U', 2026, None),
            ('Z', 2026, None),
            ('0', 2026, None),
        ] {
            assert_eq!(model_year(code, this_year), year, "{code} in {this_year}");
        }
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn any_vin_reads(vin in "[A-HJ-NPR-Z0-9]{17}", this_year in any::<u16>()) {
            let facts = read(&Vin::new(vin.clone()).unwrap(), &VinTables::default(), this_year);
            if let Some(year) = facts.model_year {
                prop_assert!(year >= 1980 && u32::from(year) <= u32::from(this_year) + 1);
                prop_assert!(u32::from(year) + 30 > u32::from(this_year) + 1);
            }
            prop_assert_eq!(facts.check_digit == CheckDigit::Right, Vin::new(vin).unwrap().check_digit_ok());
        }

        /// The digit that belongs there makes it right, any other wrong: eleven values, one of them fits.
        #[test]
        fn one_check_digit_of_eleven_fits(vin in "[A-HJ-NPR-Z0-9]{17}") {
            let fitting = "0123456789X".chars().filter(|digit| {
                let with = format!("{}{digit}{}", &vin[..8], &vin[9..]);
                Vin::new(with).unwrap().check_digit_ok()
            });
            prop_assert_eq!(fitting.count(), 1);
        }
    }
}
