//! `baygate scan`: one vehicle, one full read-only report.

use std::fs::File;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use uuid::Uuid;

use super::report_table;
use super::vehicle_target::{Target, no_trace_through_daemon, refuse, unknown_target};
use super::{Exit, Global, protocol_files, vehicle_daemon};
use crate::clock::UtcMillis;
use crate::config::Config;
use crate::config::values::{Locale, VehicleLink};
use crate::event::vehicle::VehicleReport;
use crate::ident::DeviceId;
use crate::maintenance;
use crate::protocols::Bundle;
use crate::vehicle::adapter::Adapter;
use crate::vehicle::elm327::Trace;
use crate::vehicle::scan::{self, ScanError};
use crate::vehicle::{AdapterError, report};

/// Reads one vehicle and prints a full, read-only report / 读取一辆车并打印完整的只读报告
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples / 示例:
  baygate scan elm327+serial:///dev/rfcomm0
  baygate scan elm327+tcp://192.168.0.10:35000 --json
  baygate scan elm327+serial:///dev/ttyUSB0?baud=38400 --trace car.jsonl
  baygate scan bay-1")]
pub struct Args {
    /// A LINK, or the id of a configured [[vehicle]] / 链路地址或配置中的 id
    #[arg(value_name = "LINK|ID", value_parser = Target::parse)]
    pub target: Target,
    /// Writes every byte with its time, VIN masked / 记录全部字节与时间，VIN 已遮盖
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Configuration, protocol files or trace file cannot be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let locale = global.language();
    let config = protocol_files::configuration(global)?;
    let bundle = protocol_files::load(config.as_ref())?;
    let link = match args.target.resolve(config.as_ref()) {
        Ok(Target::Link(link)) => link,
        Ok(Target::Configured(id)) if args.trace.is_none() => {
            return vehicle_daemon::scan(&id, &bundle, global).await;
        }
        Ok(Target::Configured(id)) => return Ok(no_trace_through_daemon(&id, locale)),
        Err(error) => return Ok(unknown_target(&error)),
    };
    let trace = args
        .trace
        .map(|path| {
            let file = File::create(&path).with_context(|| format!("trace file {}", path.display()))?;
            anyhow::Ok(Trace::begin(Box::new(file), &link.to_string()))
        })
        .transpose()?;
    let report = match scan_link(&link, &bundle, trace, locale).await {
        Ok(report) => report,
        Err(error) => return Ok(refuse(&error, locale)),
    };
    let warnings = warnings(&report, config.as_ref())?;
    if global.json {
        println!("{}", serde_json::to_string_pretty(&joined(&report, warnings)?)?);
    } else {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        print!("{}", report_table::render(&report, &bundle, locale, coloured));
        vehicle_daemon::print_warnings(&warnings.unwrap_or_default(), locale);
    }
    Ok(Exit::Done)
}

/// What the rules say of the report; `None`, with the reason on standard error,
/// where there are no usable rules: the report is worth having without them.
fn warnings(report: &VehicleReport, config: Option<&Config>) -> anyhow::Result<Option<Vec<Value>>> {
    let rules = match protocol_files::rules(config) {
        Ok(rules) => rules,
        Err(error) => {
            eprintln!("baygate: no warnings: {error:#}");
            return Ok(None);
        }
    };
    let warnings = maintenance::warnings_of(&rules, report, UtcMillis::now());
    Ok(Some(warnings.iter().map(serde_json::to_value).collect::<Result<_, _>>()?))
}

/// The report of contract §5 with `warnings` joined in, as the daemon answers it.
fn joined(report: &VehicleReport, warnings: Option<Vec<Value>>) -> anyhow::Result<Value> {
    let mut report = serde_json::to_value(report)?;
    if let (Some(members), Some(warnings)) = (report.as_object_mut(), warnings) {
        members.insert("warnings".into(), Value::Array(warnings));
    }
    Ok(report)
}

/// Opens the link, scans once, and lets go of it.
///
/// # Errors
/// [`ScanError`].
pub async fn scan_link(
    link: &VehicleLink,
    bundle: &Bundle,
    trace: Option<Trace>,
    locale: Locale,
) -> Result<VehicleReport, ScanError> {
    let bar = progress_bar();
    bar.set_message(locale.pick("连接适配器", "opening the adapter").to_owned());
    let scanned = scan_with_bar(link, bundle, trace, &bar).await;
    bar.finish_and_clear();
    scanned
}

async fn scan_with_bar(
    link: &VehicleLink,
    bundle: &Bundle,
    trace: Option<Trace>,
    bar: &ProgressBar,
) -> Result<VehicleReport, ScanError> {
    let mut adapter = Adapter::open(link, bundle, None, trace).await?;
    let mut step = |progress: scan::Progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.request.to_string());
    };
    // Nobody configured this link: it has no id of its own.
    let id = DeviceId::new("scan").map_err(|error| AdapterError::Gone(error.to_string()))?;
    let record = scan::run(&mut adapter, bundle, Uuid::now_v7(), id, &mut step).await?;
    Ok(report::build(&record, bundle))
}

/// Drawn on standard error, and only on a terminal.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
