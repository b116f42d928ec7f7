//! In-use performance ratios: how often a monitor completed against how often the
//! car was driven so that it could (service 09, info types 08 and 0B). Pure. The
//! order of the counters stands in `firmware-protocols/`. Source: SAE J1979 appendix G.

use serde_json::{Map, Value};

use crate::protocols::{RatioRow, RatioTable};

/// The objects of a report's `iupr`, from the items of info type 08 (spark) or 0B
/// (compression), as [`super::obd::info_bytes`] gives them:
///
/// - `{"monitor":"general","ignition_cycles":3337,"conditions":1024}`: how often the engine
///   was started, and how often the general conditions of a drive cycle were met;
/// - `{"monitor":"catalyst","bank":1,"completed":824,"conditions":945,"ratio":0.871958}` for
///   each monitor in the order of the standard: `completed` is how often it ran to its end,
///   `conditions` how often its own conditions were met. `bank` only where banks count apart;
///   `ratio` only where `conditions` is not zero. Names are those of `readiness`.
///
/// A pair behind the last row of the table is `{"monitor":"unknown_10",…}` with its place.
/// Counters of 16 bits that the car keeps for its whole life: they all halve when one is full.
#[must_use]
pub fn in_use_ratios(info: u8, items: &[u8], table: &RatioTable) -> Vec<Value> {
    let rows: &[RatioRow] = match info {
        0x08 => &table.spark,
        0x0B => &table.compression,
        _ => return Vec::new(),
    };
    let counters: Vec<u16> =
        items.chunks_exact(2).filter_map(|two| Some(u16::from_be_bytes(two.try_into().ok()?))).collect();
    let pairs: Vec<(u16, u16)> =
        counters.chunks_exact(2).filter_map(|two| Some((*two.first()?, *two.get(1)?))).collect();
    let Some(((conditions, cycles), monitors)) = pairs.split_first() else { return Vec::new() };
    let general = object([
        ("monitor", "general".into()),
        ("ignition_cycles", (*cycles).into()),
        ("conditions", (*conditions).into()),
    ]);
    std::iter::once(general)
        .chain(
            monitors.iter().enumerate().map(|(place, (completed, conditions))| {
                pair(rows.get(place), place, *completed, *conditions)
            }),
        )
        .collect()
}

fn pair(row: Option<&RatioRow>, place: usize, completed: u16, conditions: u16) -> Value {
    let name = row.map_or_else(|| format!("unknown_{}", place + 1), |row| row.name.clone());
    let mut object = Map::from_iter([("monitor".to_owned(), Value::String(name))]);
    if let Some(bank) = row.and_then(|row| row.bank) {
        object.insert("bank".into(), bank.into());
    }
    object.insert("completed".into(), completed.into());
    object.insert("conditions".into(), conditions.into());
    if conditions != 0 {
        let ratio = f64::from(completed) / f64::from(conditions);
        object.insert("ratio".into(), ((ratio * 1e6).round() / 1e6).into());
    }
    Value::Object(object)
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::protocols::Bundle;

    fn table() -> &'static RatioTable {
        static TABLE: LazyLock<RatioTable> =
            LazyLock::new(|| Bundle::load(std::path::Path::new("firmware-protocols")).unwrap().in_use_ratios);
        &TABLE
    }

    #[test]
    fn sixteen_items_twenty_and_more() {
        let table = table();
        for (items, objects, last) in [
            (0, 0, None),
            (1, 0, None),
            (2, 1, Some("general")),
            (16, 8, Some("evap")),
            (20, 10, Some("secondary_oxygen_sensor")),
            (24, 12, Some("unknown_11")),
        ] {
            let found = in_use_ratios(0x08, &vec![0; items * 2], table);
            assert_eq!(found.len(), objects, "{items}");
            assert_eq!(found.last().map(|object| object["monitor"].as_str().unwrap()), last);
        }
        assert_eq!(in_use_ratios(0x0B, &[0; 36], table).len(), 9);
        assert!(in_use_ratios(0x04, &[0; 36], table).is_empty());
    }

    proptest! {
        #![proptest_config(crate::seed::cases(128))]

        #[test]
        fn every_counter_stands_where_the_car_wrote_it(
            counters in proptest::collection::vec(any::<u16>(), 0..40),
            odd in any::<bool>(),
        ) {
            let table = table();
            let mut items: Vec<u8> = counters.iter().flat_map(|counter| counter.to_be_bytes()).collect();
            if odd { items.push(0); }
            let found = in_use_ratios(0x08, &items, table);
            prop_assert_eq!(found.len(), counters.len() / 2);
            for (place, object) in found.iter().enumerate() {
                let [first, second] = if place == 0 { ["conditions", "ignition_cycles"] } else { ["completed", "conditions"] };
                prop_assert_eq!(object[first].as_u64(), Some(u64::from(counters[place * 2])));
                prop_assert_eq!(object[second].as_u64(), Some(u64::from(counters[place * 2 + 1])));
            }
        }

        #[test]
        fn never_panics(info in any::<u8>(), items in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = in_use_ratios(info, &items, table());
        }
    }
}
