//! `baygate check`: everything that can be wrong before a device is touched.

use std::path::Path;

use super::{Exit, Global};
use crate::config::{self, Config};
use crate::gateway::assets::{self, Assets};

/// Check configuration, rules, templates and protocol data; touches no device
/// / 检查配置、规则、模板与协议数据，不接触任何设备
#[derive(Debug, clap::Args)]
#[command(after_help = "Example / 示例:\n  baygate check --config ./baygate.toml")]
pub struct Args {}

pub async fn run(_: Args, global: &Global) -> anyhow::Result<Exit> {
    let findings = match config::load(&global.config) {
        Ok(config) => check_assets(&config),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    };
    report(&global.config, &findings, global);
    Ok(if findings.is_empty() { Exit::Done } else { Exit::Usage })
}

fn check_assets(config: &Config) -> Vec<String> {
    match Assets::load(config) {
        Ok(assets) => assets::verify(&assets, config),
        Err(errors) => errors,
    }
}

fn report(path: &Path, findings: &[String], global: &Global) {
    if global.json {
        println!("{}", serde_json::json!({"config": path, "ok": findings.is_empty(), "errors": findings}));
        return;
    }
    for finding in findings {
        println!("{finding}");
    }
    let locale = global.language();
    if findings.is_empty() {
        println!("{}: {}", path.display(), locale.pick("没有发现错误", "no errors found"));
    } else {
        println!("{} {}", findings.len(), locale.pick("个错误", "error(s)"));
    }
}
