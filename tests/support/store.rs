//! A store in a folder, with room for everything.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use std::path::Path;

use baygate::event::Source;
use baygate::store::{Store, StoreOptions};

pub fn source() -> Source {
    Source { store: "SH-0042".parse().unwrap(), gateway: "gw-1".parse().unwrap() }
}

pub fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        data_dir: dir.to_owned(),
        source: source(),
        machine_id: None,
        max_bytes: 1 << 30,
        limits: Vec::new(),
    }
}

pub fn open_store(dir: &Path) -> Store {
    Store::open(&options(dir)).unwrap().0
}
