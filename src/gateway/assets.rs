//! Data that the gateway loads beside its configuration: protocol data, rules,
//! card faces. Loaded as a whole or refused as a whole, so that a reload never
//! leaves half of the old and half of the new.

use std::sync::Arc;

use super::plan::printing_tills;
use crate::card::medium;
use crate::config::Config;
use crate::maintenance::{self, Rules};
use crate::printer::Faces;
use crate::printer::after_sale::FILLED;
use crate::printer::template::Field;
use crate::protocols::Bundle;
use crate::vehicle;

/// Everything loaded.
#[derive(Clone)]
pub struct Assets {
    /// `firmware-protocols/`.
    pub bundle: Arc<Bundle>,
    /// `rules/`.
    pub rules: Arc<Rules>,
    /// `templates/` and `fonts/`.
    pub faces: Arc<Faces>,
}

impl Assets {
    /// Loads from the folders that the configuration names.
    ///
    /// # Errors
    /// Every error found, each as `file:line:column: what (hint)`.
    pub fn load(config: &Config) -> Result<Self, Vec<String>> {
        let gateway = &config.gateway;
        let texts = |errors: Vec<_>| -> Vec<String> { errors.iter().map(ToString::to_string).collect() };
        let bundle = Bundle::load(&gateway.firmware_protocols).map_err(texts);
        let rules = Rules::load(&gateway.share_dir.join("rules")).map_err(texts);
        let faces = Faces::new(&gateway.share_dir);
        let faults: Vec<String> = faces.faults().iter().map(ToString::to_string).collect();
        match (bundle, rules) {
            (Ok(bundle), Ok(rules)) if faults.is_empty() => {
                Ok(Self { bundle: Arc::new(bundle), rules: Arc::new(rules), faces: Arc::new(faces) })
            }
            (bundle, rules) => {
                let errors = [bundle.err(), rules.err(), Some(faults)];
                Err(errors.into_iter().flatten().flatten().collect())
            }
        }
    }

    /// The same without what only `baygate check` needs.
    #[must_use]
    pub fn serving(mut self) -> Self {
        Arc::make_mut(&mut self.bundle).forget_vectors();
        self
    }
}

/// What `baygate check` does beyond loading: vectors, rule examples, the templates in use.
#[must_use]
pub fn verify(assets: &Assets, config: &Config) -> Vec<String> {
    let mut findings: Vec<String> =
        vehicle::verify_vectors(&assets.bundle).iter().map(ToString::to_string).collect();
    findings.extend(medium::verify_vectors(&assets.bundle.cards).iter().map(ToString::to_string));
    if let Err(errors) = maintenance::verify_vectors(&assets.rules) {
        findings.extend(errors.iter().map(ToString::to_string));
    }
    for printer in &config.printers {
        if let Err(error) = assets.faces.fields(&printer.template) {
            findings.push(format!("printer {:?}: {error}", printer.id.as_str()));
        }
    }
    for till in printing_tills(config) {
        let declared = assets.faces.fields(&till.template).unwrap_or_default();
        let unknown = |field: &&Field| field.required && !FILLED.contains(&field.name.as_str());
        findings.extend(declared.iter().filter(unknown).map(|field| {
            format!(
                "till {:?}: print_on = [\"transaction\"], but nobody gives the field {:?} of {} (mark it optional: \"{}?\" in data-fields)",
                till.till.as_str(), field.name, till.template, field.name
            )
        }));
    }
    for table in &config.vehicles {
        findings.extend(vehicle::sources::load(table).1);
    }
    findings.sort();
    findings.dedup();
    findings
}
