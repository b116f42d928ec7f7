//! `baygate check`: everything that can be wrong before a device is touched.

use std::path::Path;

use super::{Exit, Global};
use crate::config::pushed::Pushed;
use crate::config::{self, Config};
use crate::gateway::assets::{self, Assets};

/// Check configuration, rules, templates and protocol data; touches no device
/// / 检查配置、规则、模板与协议数据，不接触任何设备
#[derive(Debug, clap::Args)]
#[command(after_help = "Example / 示例:\n  baygate check --config ./baygate.toml")]
pub struct Args {}

pub async fn run(_: Args, global: &Global) -> anyhow::Result<Exit> {
    let (findings, pushed) = match config::load(&global.config) {
        Ok(config) => (check_assets(&config), Pushed::read(&config.gateway.data_dir).ok().flatten()),
        Err(errors) => (errors.iter().map(ToString::to_string).collect(), None),
    };
    report(&global.config, &findings, pushed.map(|pushed| pushed.version), global);
    Ok(if findings.is_empty() { Exit::Done } else { Exit::Usage })
}

fn check_assets(config: &Config) -> Vec<String> {
    match Assets::load(config) {
        Ok(assets) => assets::verify(&assets, config),
        Err(errors) => errors,
    }
}

/// `pushed`: the version of headquarters' rules that are in it.
fn report(path: &Path, findings: &[String], pushed: Option<u64>, global: &Global) {
    if global.json {
        let mut report = serde_json::json!({"config": path, "ok": findings.is_empty(), "errors": findings});
        if let (Some(members), Some(version)) = (report.as_object_mut(), pushed) {
            members.insert("headquarters_version".into(), version.into());
        }
        println!("{report}");
        return;
    }
    for finding in findings {
        println!("{finding}");
    }
    let locale = global.language();
    if let Some(version) = pushed {
        println!("{} {version}", locale.pick("含总部下发的规则，版本", "with headquarters' rules, version"));
    }
    if findings.is_empty() {
        println!("{}: {}", path.display(), locale.pick("没有发现错误", "no errors found"));
    } else {
        println!("{} {}", findings.len(), locale.pick("个错误", "error(s)"));
    }
}
