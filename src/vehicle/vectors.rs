//! Proof of the protocol files: every vector of every OBD table is decoded, and what
//! the code does not confirm is returned. `baygate check` and the tests call it.

use super::in_use_ratio::in_use_ratios;
use super::{monitor_test, obd, pids};
use crate::protocols::Bundle;

/// A vector of the protocol files that the code does not confirm.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{file}: {what} is {found} and should be {expected}; correct the row or the vector")]
pub struct VectorFailure {
    /// The file, below `firmware-protocols/`.
    pub file: &'static str,
    /// Which vector, and what of it.
    pub what: String,
    /// By the vector.
    pub expected: String,
    /// By the code.
    pub found: String,
}

/// Decodes every vector of the bundle's OBD tables; what differs is returned.
#[must_use]
pub fn verify_vectors(bundle: &Bundle) -> Vec<VectorFailure> {
    let mut failures = pids::vector_failures(&bundle.pids);
    failures.extend(monitor_test::vector_failures(bundle));
    failures.extend(readiness_failures(bundle));
    failures.extend(ratio_failures(bundle));
    failures.extend(info_failures(bundle));
    failures
}

fn readiness_failures(bundle: &Bundle) -> Vec<VectorFailure> {
    let table = &bundle.readiness;
    let differs = |vector: &crate::protocols::ReadinessVector| {
        let expected = obd::MonitorStatus {
            mil: vector.mil,
            dtc_count: vector.dtc_count,
            readiness: vector.readiness.clone(),
        };
        let found = obd::MonitorStatus::read(vector.data, table);
        (found != expected).then(|| VectorFailure {
            file: "obd/readiness.toml",
            what: format!("data {}", hex::encode_upper(vector.data)),
            expected: format!("{expected:?}"),
            found: format!("{found:?}"),
        })
    };
    table.vectors.iter().filter_map(differs).collect()
}

fn ratio_failures(bundle: &Bundle) -> Vec<VectorFailure> {
    let table = &bundle.in_use_ratios;
    let differs = |vector: &crate::protocols::RatioVector| {
        let found = in_use_ratios(vector.info, &vector.data, table);
        (found != vector.ratios).then(|| VectorFailure {
            file: "obd/in-use-ratios.toml",
            what: format!("info {:02X}, data {}", vector.info, hex::encode_upper(&vector.data)),
            expected: format!("{:?}", vector.ratios),
            found: format!("{found:?}"),
        })
    };
    table.vectors.iter().filter_map(differs).collect()
}

fn info_failures(bundle: &Bundle) -> Vec<VectorFailure> {
    let table = &bundle.info_types;
    let differs = |vector: &crate::protocols::InfoVector| {
        let form = table.get(vector.info).map(|row| row.form);
        let found = form.map(|form| obd::info_items(form, &vector.data)).unwrap_or_default();
        (found != vector.items).then(|| VectorFailure {
            file: "obd/info-types.toml",
            what: format!("info {:02X}, data {}", vector.info, hex::encode_upper(&vector.data)),
            expected: format!("{:?}", vector.items),
            found: format!("{found:?}"),
        })
    };
    table.vectors.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_tables_confirm_their_vectors_and_a_wrong_vector_of_each_is_found() {
        let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
        assert_eq!(verify_vectors(&bundle), []);
        let mut wrong = bundle.clone();
        wrong.readiness.vectors[0].data[2] ^= 1;
        wrong.in_use_ratios.vectors[0].data[0] ^= 1;
        wrong.info_types.vectors[0].data[0] ^= 1;
        wrong.monitor_tests.vectors[0].data[4] ^= 1;
        let found = verify_vectors(&wrong);
        let files: Vec<&str> = found.iter().map(|failure| failure.file).collect();
        assert_eq!(
            files,
            ["obd/monitor-tests.toml", "obd/readiness.toml", "obd/in-use-ratios.toml", "obd/info-types.toml"]
        );
        assert!(found[3].to_string().contains("info 02, data 30"), "{}", found[3]);
    }
}
