//! `vin/*.toml`: who built a car and where, by the beginning of its VIN. What lives
//! here: the tables' form and look-ups by characters. What does not: model year and
//! check digit, which are rules and not tables (`vehicle::vin`).

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::files::{Files, Place};
use crate::event::Text;
use crate::ident::Vin;

/// The order of characters in ISO 3780 ranges: letters without I, O, Q, then 1 to 9, then 0.
const ORDER: &str = "ABCDEFGHJKLMNPRSTUVWXYZ1234567890";

/// A part of the world or a country a VIN names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// `asia`, or the country as in ISO 3166, `CN`.
    pub id: String,
    /// For people.
    pub name: Text,
}

/// Who built the car.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    /// The maker's name, e.g. 一汽-大众.
    pub name: Text,
    /// The brand whose facts the cars share, e.g. `vw` (a name of `[brands]`).
    pub brand: String,
}

/// Regions, countries, makers and brands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VinTables {
    /// By the first character.
    regions: BTreeMap<char, Seat>,
    /// By the first two characters.
    countries: BTreeMap<String, Seat>,
    brands: BTreeMap<String, Text>,
    makers: Vec<Maker>,
    /// Three characters, or six for makers of few cars, to an index of `makers`.
    by_wmi: BTreeMap<String, usize>,
}

impl VinTables {
    /// The part of the world of the maker's seat; `None`: the character is not given to any.
    #[must_use]
    pub fn region(&self, vin: &Vin) -> Option<&Seat> {
        self.regions.get(&vin.as_str().chars().next()?)
    }

    /// The country of the maker's seat; `None`: not in the table.
    #[must_use]
    pub fn country(&self, vin: &Vin) -> Option<&Seat> {
        self.countries.get(vin.as_str().get(..2)?)
    }

    /// Who built the car; `None`: not in the table. A 9 in the third place means a maker
    /// of few cars, told apart by characters 12 to 14 too (ISO 3780).
    #[must_use]
    pub fn maker(&self, vin: &Vin) -> Option<&Maker> {
        let vin = vin.as_str();
        let wmi = vin.get(..3)?;
        let index = if wmi.ends_with('9') {
            self.by_wmi.get(&format!("{wmi}{}", vin.get(11..14)?))
        } else {
            self.by_wmi.get(wmi)
        };
        self.makers.get(*index?)
    }

    /// The name of a brand.
    #[must_use]
    pub fn brand(&self, id: &str) -> Option<&Text> {
        self.brands.get(id)
    }

    /// How many manufacturer identifiers are known.
    #[must_use]
    pub fn wmi_count(&self) -> usize {
        self.by_wmi.len()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Regions {
    source: String,
    region: Vec<Region>,
    country: Vec<Country>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Region {
    id: String,
    first: Spanned<String>,
    name: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Country {
    id: String,
    codes: Vec<Spanned<String>>,
    name: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Makers {
    source: String,
    brands: BTreeMap<String, Text>,
    makers: BTreeMap<String, MakerRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MakerRow {
    name: Text,
    brand: Spanned<String>,
    #[serde(default)]
    wmi: Vec<Spanned<String>>,
    /// The same, for those found in one public list only.
    #[serde(default)]
    wmi_one_list: Vec<Spanned<String>>,
}

pub(super) fn load(files: &mut Files, regions: &str, makers: &str) -> VinTables {
    let mut tables = VinTables::default();
    if let Some((file, place)) = files.read::<Regions>(regions) {
        add_regions(files, &place, file, &mut tables);
    }
    if let Some((file, place)) = files.read::<Makers>(makers) {
        add_makers(files, &place, file, &mut tables);
    }
    tables
}

fn add_regions(files: &mut Files, place: &Place, file: Regions, tables: &mut VinTables) {
    check_source(files, place, &file.source);
    for row in file.region {
        for first in row.first.get_ref().chars() {
            let seat = Seat { id: row.id.clone(), name: row.name.clone() };
            if !ORDER.contains(first) || tables.regions.insert(first, seat).is_some() {
                let what = format!("{first:?} of {} is no VIN character, or stands twice", row.id);
                files.error(
                    place,
                    row.first.span(),
                    what,
                    "each of A-Z (without I, O, Q), 1-9 and 0 once at most",
                );
            }
        }
    }
    for row in file.country {
        for codes in row.codes {
            let Some(range) = country_codes(codes.get_ref()) else {
                let what = format!("{:?} of {} is no range", codes.get_ref(), row.id);
                files.error(place, codes.span(), what, "first two characters from-to, e.g. \"LA-L0\"");
                continue;
            };
            for code in range {
                let seat = Seat { id: row.id.clone(), name: row.name.clone() };
                if let Some(other) = tables.countries.insert(code.clone(), seat) {
                    let what = format!("{code} belongs to {} and to {}", other.id, row.id);
                    files.error(place, codes.span(), what, "correct one of the ranges");
                }
            }
        }
    }
}

/// `LA-L0`: every code from LA to L0 in ISO 3780 order.
fn country_codes(range: &str) -> Option<Vec<String>> {
    let (from, to) = range.split_once('-')?;
    let (mut from, mut to) = (from.chars(), to.chars());
    let (first, from_second) = (from.next()?, from.next()?);
    let (to_first, to_second) = (to.next()?, to.next()?);
    if first != to_first || !ORDER.contains(first) || from.next().is_some() || to.next().is_some() {
        return None;
    }
    let span = ORDER.find(from_second)?..=ORDER.find(to_second)?;
    Some(ORDER.get(span)?.chars().map(|second| format!("{first}{second}")).collect::<Vec<_>>())
        .filter(|codes| !codes.is_empty())
}

fn add_makers(files: &mut Files, place: &Place, file: Makers, tables: &mut VinTables) {
    check_source(files, place, &file.source);
    for (id, row) in file.makers {
        if !file.brands.contains_key(row.brand.get_ref()) {
            let what = format!("{id}: there is no brand {:?}", row.brand.get_ref());
            files.error(place, row.brand.span(), what, "add it under [brands]");
        }
        tables.makers.push(Maker { name: row.name, brand: row.brand.into_inner() });
        for wmi in row.wmi.into_iter().chain(row.wmi_one_list) {
            let span = wmi.span();
            let wmi = wmi.into_inner();
            if !is_wmi(&wmi) {
                let what = format!("{id}: {wmi:?} is no manufacturer identifier");
                let hint = "three VIN characters, e.g. LFV; six (1-3 and 12-14) if the third is 9";
                files.error(place, span.clone(), what, hint);
            }
            if tables.by_wmi.insert(wmi.clone(), tables.makers.len() - 1).is_some() {
                files.error(place, span, format!("{wmi} stands twice"), "leave one of them out");
            }
        }
    }
    tables.brands = file.brands;
}

fn is_wmi(wmi: &str) -> bool {
    let small = wmi.as_bytes().get(2) == Some(&b'9');
    wmi.len() == if small { 6 } else { 3 } && wmi.chars().all(|c| ORDER.contains(c))
}

fn check_source(files: &mut Files, place: &Place, source: &str) {
    if source.trim().is_empty() {
        files.error(place, 0..0, "source is empty", "say where this is known from");
    }
}
