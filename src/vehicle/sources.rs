//! The files of a `[[vehicle]]`: signal sets and DBC databases. What lives here: reading
//! them, refusing a garbled one with its place while the others load. What does not:
//! what they mean (`signal_set`, `dbc`).

use std::path::Path;
use std::sync::Arc;

use super::dbc::Database;
use super::signal_set::SignalSet;
use crate::config::tables::VehicleTable;

/// Larger is no database of a car: the largest public ones have about 2 MiB.
const MOST_BYTES: u64 = 32 << 20;

/// What could be loaded, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `signals`.
    pub sets: Vec<Arc<SignalSet>>,
    /// `dbc`, compiled.
    pub databases: Vec<Arc<Database>>,
}

/// Reads the files of a link. The second part names each that is refused, as
/// `path:line:column: what is wrong`. Blocks.
#[must_use]
pub fn load(table: &VehicleTable) -> (Sources, Vec<String>) {
    let mut refused = Vec::new();
    let mut keep = |path: &Path, error: String| {
        let named = error.starts_with(&path.display().to_string());
        refused.push(if named { error } else { format!("{}: {error}", path.display()) });
    };
    let mut sources = Sources::default();
    for path in &table.signals {
        match read(path).and_then(|bytes| SignalSet::from_file(path, &bytes)) {
            Ok(set) => sources.sets.push(Arc::new(set)),
            Err(error) => keep(path, error),
        }
    }
    for path in &table.dbc {
        let database = read(path).and_then(|bytes| {
            Database::from_bytes(&bytes)
                .map_err(|e| format!("{}:{}:{}: {}", path.display(), e.line, e.column, e.reason))
        });
        match database {
            Ok(database) => sources.databases.push(Arc::new(database)),
            Err(error) => keep(path, error),
        }
    }
    (sources, refused)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let length = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if length > MOST_BYTES {
        return Err(format!("has {length} bytes, at most {MOST_BYTES} are read"));
    }
    std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_garbled_file_is_refused_with_its_place_and_the_others_load() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let table = VehicleTable {
            id: "bay-1".parse().unwrap(),
            link: "elm327+tcp://127.0.0.1:1".parse().unwrap(),
            signals: vec![
                file("garbled.json", "{\"commands\":[\n{\"hdr\":\"7E\",\"cmd\":{},\"signals\":[]}]}"),
                file("good.json", "{\"commands\":[]}"),
                dir.path().join("missing.json"),
            ],
            dbc: vec![
                file("garbled.dbc", "VERSION \"\"\n\nBO_ x Engine: 8 ECM\n"),
                file("good.dbc", "VERSION \"\"\nBO_ 68 Engine: 8 ECM\n"),
            ],
            poll: Default::default(),
        };
        let (sources, refused) = load(&table);
        assert_eq!((sources.sets.len(), sources.databases.len(), refused.len()), (1, 1, 3));
        for (error, words) in
            refused.iter().zip(["garbled.json:2:", "missing.json: cannot be read", "garbled.dbc:3:"])
        {
            assert!(error.contains(words), "{error}");
        }
    }
}
