//! `baygate scan`: one vehicle, one full read-only report.

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use uuid::Uuid;

use super::report::{self as page, View};
use super::vehicle_target::{Target, no_trace_through_daemon, refuse, unknown_target};
use super::{Exit, Global, protocol_files, vehicle_daemon};
use crate::clock::UtcMillis;
use crate::config::Config;
use crate::config::values::{Locale, VehicleLink};
use crate::event::maintenance::MaintenanceWarning;
use crate::event::vehicle::VehicleReport;
use crate::ident::DeviceId;
use crate::maintenance;
use crate::protocols::Bundle;
use crate::vehicle::adapter::{Adapter, SessionTrace};
use crate::vehicle::scan::{self, ScanError};
use crate::vehicle::{AdapterError, report};

/// Of what shows that it goes on.
const TICK: Duration = Duration::from_millis(120);

/// Reads one vehicle and prints a full, read-only report / 读取一辆车并打印完整的只读报告
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples / 示例:
  baygate scan elm327+serial:///dev/rfcomm0
  baygate scan elm327+tcp://192.168.0.10:35000 --json
  baygate scan elm327+serial:///dev/ttyUSB0?baud=38400 --trace car.jsonl
  baygate scan can://can0 --trace car.log
  baygate scan bay-1 --html report.html --store-name \"Galaxy Motors\"")]
pub struct Args {
    /// A LINK, or the id of a configured [[vehicle]] / 链路地址或配置中的 id
    #[arg(value_name = "LINK|ID", value_parser = Target::parse)]
    pub target: Target,
    /// Writes every byte, of a bus every frame, with its time, VIN masked / 记录全部字节（总线为全部帧）与时间，VIN 已遮盖
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Writes the report as a page to print and hand out, too / 另存为可打印的网页报告
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// The store's name on the page; default: gateway.store / 报告上的门店名称
    #[arg(long, value_name = "NAME", requires = "html")]
    pub store_name: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Configuration, protocol files, trace file or page cannot be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let locale = global.language();
    let config = protocol_files::configuration(global)?;
    let bundle = protocol_files::load(config.as_ref())?;
    let scanned = async {
        match args.target.clone().resolve(config.as_ref()) {
            Ok(Target::Link(link)) => alone(&link, &args, &bundle, config.as_ref(), locale).await,
            Ok(Target::Configured(id)) if args.trace.is_none() => {
                Ok(vehicle_daemon::scan(&id, global).await.map(|report| (report, Ok(()))))
            }
            Ok(Target::Configured(id)) => Ok(Err(no_trace_through_daemon(&id, locale))),
            Err(error) => Ok(Err(unknown_target(&error))),
        }
    };
    // Dropped and not killed: the progress bar leaves its line, and the adapter is let go of.
    let outcome = tokio::select! {
        outcome = scanned => outcome?,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("{}", locale.pick("已中断，没有报告", "interrupted: there is no report"));
            return Ok(Exit::Failed);
        }
    };
    match outcome {
        Ok((report, traced)) => {
            let exit = show(report, &args, &bundle, config.as_ref(), global)?;
            traced.map(|()| exit)
        }
        Err(exit) => Ok(exit),
    }
}

/// Scans a link that no daemon has: the report with its warnings, and what is wrong with its trace;
/// or the exit status when there is none, the reason being told.
async fn alone(
    link: &VehicleLink,
    args: &Args,
    bundle: &Bundle,
    config: Option<&Config>,
    locale: Locale,
) -> anyhow::Result<Result<(Value, anyhow::Result<()>), Exit>> {
    let begin = |path: &PathBuf| {
        let file = File::create(path).with_context(|| format!("trace file {}", path.display()))?;
        anyhow::Ok(SessionTrace::begin(Box::new(file), link))
    };
    let trace = args.trace.as_ref().map(begin).transpose()?;
    match scan_link(link, bundle, trace, locale).await {
        Ok(report) => {
            let traced = args.trace.as_ref().map_or(Ok(()), |path| {
                was_written(path).with_context(|| format!("trace file {}", path.display()))
            });
            Ok(Ok((joined(&report, warnings(&report, config)?)?, traced)))
        }
        Err(error) => Ok(Err(refuse(&error, locale))),
    }
}

/// A report of which nothing was written down is a full disk.
fn was_written(path: &Path) -> anyhow::Result<()> {
    let file = std::fs::metadata(path)?;
    anyhow::ensure!(!file.is_file() || file.len() > 0, "nothing was written to it; check the disk");
    Ok(())
}

/// Prints the report, and writes the page where one is wanted.
fn show(
    joined: Value,
    args: &Args,
    bundle: &Bundle,
    config: Option<&Config>,
    global: &Global,
) -> anyhow::Result<Exit> {
    if global.json {
        println!("{}", serde_json::to_string_pretty(&joined)?);
    }
    let warnings = joined.get("warnings").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
    let warnings: Vec<MaintenanceWarning> = serde_json::from_value(warnings)?;
    let report: VehicleReport = serde_json::from_value(joined)?;
    let store =
        args.store_name.clone().or_else(|| config.map(|config| config.gateway.source.store.to_string()));
    let view = View {
        report: &report,
        warnings: &warnings,
        bundle,
        locale: global.language(),
        zone: &page::zone(config),
        store: store.as_deref(),
    };
    if !global.json {
        // Set and not empty: no-color.org.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let coloured = std::io::stdout().is_terminal() && !plain;
        print!("{}", page::table::render(view, coloured));
    }
    if let Some(path) = &args.html {
        std::fs::write(path, page::html::render(view)).with_context(|| format!("page {}", path.display()))?;
        eprintln!("{} {}", view.locale.pick("报告已写入", "report written to"), path.display());
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
    trace: Option<SessionTrace>,
    locale: Locale,
) -> Result<VehicleReport, ScanError> {
    let bar = progress_bar();
    bar.set_message(locale.pick("连接适配器", "opening the adapter").to_owned());
    let scanned = scan_with_bar(link, bundle, trace, locale, &bar).await;
    bar.finish_and_clear();
    scanned
}

async fn scan_with_bar(
    link: &VehicleLink,
    bundle: &Bundle,
    trace: Option<SessionTrace>,
    locale: Locale,
    bar: &ProgressBar,
) -> Result<VehicleReport, ScanError> {
    let mut adapter = Adapter::open(link, bundle, None, trace).await?;
    let mut step = |progress: scan::Progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        let request = progress.request.to_string();
        bar.set_message(format!("{request} {}", page::request_in_words(&request, bundle, locale)));
    };
    // Nobody configured this link: it has no id of its own.
    let id = DeviceId::new("scan").map_err(|error| AdapterError::Gone(error.to_string()))?;
    let record = scan::run(&mut adapter, bundle, Uuid::now_v7(), id, &mut step).await?;
    Ok(report::build(&record, bundle))
}

/// Drawn on standard error, and only on a terminal.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:20}] {pos}/{len} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// The same where nobody tells how much there is to do.
pub(super) fn spinner(words: String) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_message(words);
    bar.enable_steady_tick(TICK);
    bar
}
