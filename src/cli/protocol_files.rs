//! Where a command that runs without the daemon finds `firmware-protocols/`, the
//! rules and the configured links.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Global;
use super::daemon::NotLoaded;
use crate::config::{self, Config};
use crate::maintenance::Rules;
use crate::protocols::Bundle;

/// The configuration, if there is one. A missing file is none; a wrong one is an error.
///
/// # Errors
/// Every error of the files.
pub fn configuration(global: &Global) -> anyhow::Result<Option<Config>> {
    if !global.config.exists() {
        return Ok(None);
    }
    match config::load(&global.config) {
        Ok(config) => Ok(Some(config)),
        Err(errors) => Err(NotLoaded(errors).into()),
    }
}

/// Loads the protocol files: those of the configuration, else of the installation,
/// else of the working folder.
///
/// # Errors
/// None found, or every error in them.
pub fn load(config: Option<&Config>) -> anyhow::Result<Bundle> {
    let installed = PathBuf::from("/usr/share/baygate/firmware-protocols");
    let dir = match config {
        Some(config) => config.gateway.firmware_protocols.clone(),
        None if installed.is_dir() => installed,
        None => PathBuf::from("firmware-protocols"),
    };
    load_from(&dir)
}

/// Loads the rules: of the configuration's `share_dir`, else of the installation,
/// else of the working folder.
///
/// # Errors
/// None found, or every error in them.
pub fn rules(config: Option<&Config>) -> anyhow::Result<Rules> {
    let installed = PathBuf::from("/usr/share/baygate");
    let share = match config {
        Some(config) => config.gateway.share_dir.clone(),
        None if installed.is_dir() => installed,
        None => PathBuf::from("config"),
    };
    let dir = share.join("rules");
    Rules::load(&dir)
        .map_err(|errors| anyhow::anyhow!("{}", joined(&errors)))
        .with_context(|| format!("rules in {}", dir.display()))
}

fn load_from(dir: &Path) -> anyhow::Result<Bundle> {
    Bundle::load(dir)
        .map_err(|errors| anyhow::anyhow!("{}", joined(&errors)))
        .with_context(|| format!("protocol files in {}", dir.display()))
}

fn joined(errors: &[config::ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
