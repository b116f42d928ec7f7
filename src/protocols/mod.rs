//! `firmware-protocols/`: facts about cars, adapters and cards as data. What lives here:
//! reading those files, checking their *form* (every error with file, line, column
//! and what to do) and handing out plain tables. What does not: decoding, and
//! whether a formula gives what its vectors say (each domain's `verify_vectors`).
//! The formats are described in `firmware-protocols/README.md`.

mod adapters;
mod card_files;
mod card_purse;
mod card_versions;
pub mod cards;
mod dtc_texts;
mod failure_modes;
mod files;
mod in_use_ratios;
mod info_types;
mod makers;
mod monitor_tests;
mod numbers;
mod pids;
mod readiness;
mod wmi;

pub use adapters::{AdapterProfile, LongAnswers, Use};
pub use in_use_ratios::{RatioRow, RatioTable, RatioVector};
pub use info_types::{InfoForm, InfoRow, InfoTable, InfoVector};
pub use monitor_tests::{
    MonitorExpectation, MonitorTestTable, MonitorVector, OxygenScaling, ScalingRow, TestRow,
};
pub use pids::{Maximum, PidRow, PidTable, SignalKind, SignalRow, Vector, VectorValue};
pub use readiness::{MonitorRow, ReadinessTable, ReadinessVector};
pub use wmi::{Maker, Seat, VinTables};

use std::collections::BTreeMap;
use std::path::Path;

use crate::event::Text;
use files::Files;

/// One thing wrong in a protocol file, at a place.
pub type ProtocolError = crate::config::ConfigError;

/// Everything of `firmware-protocols/`, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// PIDs and their signals.
    pub pids: PidTable,
    /// Readiness monitors by bit.
    pub readiness: ReadinessTable,
    /// Service 06 and 05: monitors, tests, units.
    pub monitor_tests: MonitorTestTable,
    /// Service 09: the order of the in-use performance counters.
    pub in_use_ratios: RatioTable,
    /// Service 09: the info types.
    pub info_types: InfoTable,
    /// Adapter profiles.
    pub adapters: Vec<AdapterProfile>,
    /// Where the member record lies on each technology.
    pub cards: Vec<cards::CardLayout>,
    /// Who built a car and where, by its VIN.
    pub vin: VinTables,
    dtc_texts: dtc_texts::DtcTexts,
    maker_lists: makers::MakerLists,
    failure_modes: BTreeMap<u8, Text>,
    version: String,
}

impl Bundle {
    /// Reads the folder `gateway.firmware_protocols`.
    ///
    /// # Errors
    /// Every error of every file, each with its place and a hint.
    pub fn load(dir: &Path) -> Result<Self, Vec<ProtocolError>> {
        let mut files = Files::new(dir);
        let pids = pids::load(&mut files);
        let readiness = readiness::load(&mut files, "obd/readiness.toml");
        let monitor_tests =
            monitor_tests::load(&mut files, "obd/monitor-tests.toml", "obd/units-and-scaling.toml");
        let in_use_ratios = in_use_ratios::load(&mut files, "obd/in-use-ratios.toml");
        let info_types = info_types::load(&mut files, "obd/info-types.toml");
        let dtc_texts = dtc_texts::load(&mut files, "obd/dtc");
        let vin = wmi::load(&mut files, "vin/regions.toml", "vin/makers.toml");
        let maker_lists = makers::load(&mut files, "obd/makers", &vin);
        let failure_modes = failure_modes::load(&mut files, "j1939/failure-modes.toml");
        let adapters = adapters::load(&mut files, "adapters");
        let cards = cards::load(&mut files, "cards");
        let version = files.finish()?;
        Ok(Self {
            pids,
            readiness,
            monitor_tests,
            in_use_ratios,
            info_types,
            adapters,
            cards,
            vin,
            dtc_texts,
            maker_lists,
            failure_modes,
            version,
        })
    }

    /// Forgets vectors and sources, which prove the files (`baygate check`) and decode nothing: for a program
    /// that stays in memory.
    pub fn forget_vectors(&mut self) {
        self.pids.forget_vectors();
        self.monitor_tests.forget_vectors();
        self.in_use_ratios.vectors = Vec::new();
        for layout in &mut self.cards {
            layout.vectors = Vec::new();
            layout.earlier.iter_mut().for_each(|earlier| earlier.vectors = Vec::new());
        }
    }

    /// What a generic code (ISO/SAE) means; `None`: not in the list, show the code alone.
    #[must_use]
    pub fn dtc_text(&self, code: &str) -> Option<Text> {
        self.dtc_texts.get(code)
    }

    /// Every generic code with its text, in order.
    pub fn dtc_texts(&self) -> impl Iterator<Item = (&str, Text)> {
        self.dtc_texts.iter()
    }

    /// What the lists for a brand (a name of `[brands]` in `vin/makers.toml`) say of a code, our own
    /// wording first. None: it is in no list for that brand. Several: the lists may disagree.
    #[must_use]
    pub fn maker_dtc_texts(&self, brand: &str, code: &str) -> Vec<Text> {
        self.maker_lists.texts(brand, code)
    }

    /// The brands whose lists have a code, by name.
    #[must_use]
    pub fn brands_with_dtc(&self, code: &str) -> Vec<&str> {
        self.maker_lists.brands_with(code)
    }

    /// How many texts the lists for a brand hold.
    #[must_use]
    pub fn maker_dtc_text_count(&self, brand: &str) -> usize {
        self.maker_lists.count(brand)
    }

    /// What failure mode `mode` (0 to 31) of a J1939 code says.
    #[must_use]
    pub fn failure_mode(&self, mode: u8) -> Option<&Text> {
        self.failure_modes.get(&mode)
    }

    /// How many codes have a text.
    #[must_use]
    pub fn dtc_text_count(&self) -> usize {
        self.dtc_texts.count()
    }

    /// The profile of an adapter: of all that match its identity string the one with the longest pattern.
    #[must_use]
    pub fn adapter(&self, identity: &str) -> Option<&AdapterProfile> {
        self.adapters
            .iter()
            .filter_map(|profile| profile.match_length(identity).map(|length| (length, profile)))
            .max_by_key(|(length, _)| *length)
            .map(|(_, profile)| profile)
    }

    /// SHA-256 over names and contents of all files, hex: the `protocols_version` of the retained state.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}
