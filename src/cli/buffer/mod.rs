//! `baygate buffer`: look into, dump, check, set aside, copy and bring back the
//! local database. Only `restore` and `release` need the daemon stopped.

mod disk;
mod export;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Exit, Global};
use crate::config::values::Locale;
use crate::event::{Class, Source};
use crate::store::hold::{self, Held};
use crate::store::inspect::Inspection;
use crate::store::{Offset, Stats, StoreError, backup};

/// Events read at once while exporting.
const PAGE: usize = 500;

const EXAMPLES: &str = "Examples / 示例:
  baygate buffer export --class ledger > ledger.jsonl
  baygate buffer verify --json
  baygate buffer backup /mnt/usb/baygate-backup.db
  systemctl stop baygate && baygate buffer restore /mnt/usb/baygate-backup.db";

/// The local database: status, export, verify, quarantine, backup, restore, release / 本地数据库
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Data folder, instead of the configuration's / 数据目录(默认取配置文件)
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What it holds: sizes, unsent events, gaps, readers / 概况
    #[command(after_help = "Example / 示例: baygate buffer status --json")]
    Status,
    /// Events as JSON Lines of CloudEvents, in order / 导出事件
    #[command(
        after_help = "Example / 示例: baygate buffer export --class card --unsent --output cards.jsonl"
    )]
    Export(export::Wanted),
    /// Read and check everything / 完整校验
    #[command(after_help = "Example / 示例: baygate buffer verify /mnt/usb/baygate-backup.db")]
    Verify {
        /// A backup instead of the database / 校验备份文件
        file: Option<PathBuf>,
    },
    /// Events the broker will never take / 被隔离的事件
    #[command(after_help = "Example / 示例: baygate buffer quarantine dump > refused.jsonl")]
    Quarantine {
        #[command(subcommand)]
        command: Quarantine,
    },
    /// Copy the database while the daemon runs / 在线备份
    #[command(after_help = "Example / 示例: baygate buffer backup /mnt/usb/baygate-backup.db")]
    Backup {
        /// New file / 目标文件
        file: PathBuf,
    },
    /// Bring a backup back; the daemon must be stopped / 恢复备份(须先停止服务)
    #[command(after_help = "Example / 示例: baygate buffer restore /mnt/usb/baygate-backup.db")]
    Restore {
        /// The backup / 备份文件
        file: PathBuf,
    },
    /// Let card writes go on after damage or a restore, once the ledger was compared with
    /// headquarters; the daemon must be stopped / 核对账务后恢复写卡(须先停止服务)
    #[command(after_help = "Example / 示例: baygate buffer release")]
    Release,
}

#[derive(Debug, clap::Subcommand)]
enum Quarantine {
    /// Which and why / 列出
    List,
    /// Their envelopes as JSON Lines / 导出内容
    Dump,
}

fn class(text: &str) -> Result<Class, String> {
    Class::parse(text).ok_or_else(|| {
        let known: Vec<&str> = Class::ALL.iter().map(|class| class.as_str()).collect();
        format!("one of {}", known.join(", "))
    })
}

/// Runs the command.
///
/// # Errors
/// What keeps it from being done, for standard error; exit status 1.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let (data_dir, known) = match args.data_dir {
        Some(dir) => (dir, crate::config::load(&global.config).ok().map(|config| config.gateway.source)),
        None => match crate::config::load(&global.config) {
            Ok(config) => (config.gateway.data_dir, Some(config.gateway.source)),
            Err(errors) => return Ok(super::daemon::report(&super::daemon::NotLoaded(errors).into())),
        },
    };
    let out = Output { json: global.json, locale: global.language() };
    let command = args.command;
    // Files and SQLite block; nothing else runs here.
    tokio::task::spawn_blocking(move || out.run(command, &data_dir, known))
        .await?
        .map_err(|error| out.explained(error))
}

#[derive(Debug, Clone, Copy)]
struct Output {
    json: bool,
    locale: Locale,
}

impl Output {
    fn run(self, command: Command, data_dir: &Path, known: Option<Source>) -> anyhow::Result<Exit> {
        match command {
            Command::Status => self.status(&Inspection::open(data_dir)?),
            Command::Export(wanted) => self.export(&wanted, data_dir, known),
            Command::Verify { file } => self.verify(file.as_deref().unwrap_or(data_dir)),
            Command::Quarantine { command } => self.quarantine(&command, &Inspection::open(data_dir)?),
            Command::Backup { file } => self.backup(data_dir, &file),
            Command::Restore { file } => self.restore(data_dir, &file),
            Command::Release => self.release(data_dir),
        }
    }

    fn pick(self, zh: &'static str, en: &'static str) -> &'static str {
        self.locale.pick(zh, en)
    }

    fn bar(self, total: Option<u64>, unit: &str) -> ProgressBar {
        let style = match total {
            Some(_) => ProgressStyle::with_template("{bar:40} {percent}% {pos}/{len} {msg} {eta}"),
            None => ProgressStyle::with_template("{spinner} {pos} {msg} {per_sec}"),
        };
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(unit.to_owned());
        bar
    }

    fn status(self, inspection: &Inspection) -> anyhow::Result<Exit> {
        let stats = inspection.reader().stats()?;
        if self.json {
            let mut value = serde_json::to_value(&stats)?;
            if let Some(object) = value.as_object_mut() {
                object.extend(disk::figures(inspection));
                object.insert("card_writes_held".into(), json!(inspection.reader().card_writes_held()?));
            }
            return print(&value.to_string());
        }
        let held = inspection.reader().card_writes_held()?;
        print(&self.table(&stats, inspection, held))
    }

    fn table(self, stats: &Stats, inspection: &Inspection, held: Option<Held>) -> String {
        let size = |bytes: u64| bytesize::ByteSize(bytes).to_string();
        let epoch = stats.epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string());
        let mut lines = vec![
            format!("{}  {}", self.pick("文件", "file "), inspection.path().display()),
            format!(
                "{}  {} ({} {}), WAL {}",
                self.pick("大小", "size "),
                size(stats.bytes),
                size(stats.free_bytes),
                self.pick("空闲", "free"),
                size(inspection.wal_bytes())
            ),
            disk::line(self.locale, inspection),
            format!("{}  {epoch} (#{})", self.pick("纪元", "epoch"), stats.epochs),
            String::new(),
            format!(
                "{:<12} {:>10} {:>12} {:>10} {:>12} {:>12} {:>12} {:>5}",
                "class", "rows", "bytes", "unsent", "unsent bytes", "last", "delivered", "gaps"
            ),
        ];
        lines.extend(stats.classes.iter().map(|class| {
            format!(
                "{:<12} {:>10} {:>12} {:>10} {:>12} {:>12} {:>12} {:>5}",
                class.class.as_str(),
                class.rows,
                size(class.bytes),
                class.unsent_rows,
                size(class.unsent_bytes),
                class.last.0,
                class.delivered.0,
                class.gaps
            )
        }));
        lines.push(String::new());
        lines.push(format!(
            "{}: {}   {}: {}",
            self.pick("已隔离", "quarantined"),
            stats.quarantined,
            self.pick("未完成请求", "open requests"),
            stats.open_requests
        ));
        if let Some(held) = held {
            lines.push(format!("{} {}", self.pick("暂停写卡,自", "card writes held since"), held.since));
        }
        for (name, at) in &stats.cursors {
            lines.push(format!("{} {name}: {at}", self.pick("读取位置", "cursor")));
        }
        lines.join("\n")
    }

    fn quarantine(self, command: &Quarantine, inspection: &Inspection) -> anyhow::Result<Exit> {
        let reader = inspection.reader();
        if !self.json
            && matches!(command, Quarantine::List)
            && reader.quarantined(Offset(i64::MIN), 1)?.is_empty()
        {
            return print(self.pick("没有被隔离的事件", "nothing is set aside"));
        }
        let mut after = Offset(i64::MIN);
        loop {
            let page = reader.quarantined(after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = Offset(last.offset);
            for event in &page {
                let line = match command {
                    Quarantine::Dump => event.envelope.clone(),
                    Quarantine::List if self.json => serde_json::to_string(event)?,
                    Quarantine::List => {
                        format!("{:>12}  {}  {:<12} {}", event.offset, event.at, event.class, event.reason)
                    }
                };
                print(&line)?;
            }
        }
        Ok(Exit::Done)
    }

    fn backup(self, data_dir: &Path, file: &Path) -> anyhow::Result<Exit> {
        let bar = self.bar(Some(0), self.pick("页", "pages"));
        let stats = backup::backup(data_dir, file, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        self.told(file, "backup", self.pick("已备份到", "backed up to"), &stats)
    }

    fn restore(self, data_dir: &Path, file: &Path) -> anyhow::Result<Exit> {
        let bar = self.bar(Some(0), self.pick("页", "pages"));
        let restored = backup::restore(data_dir, file, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        match restored {
            Ok(restored) => {
                if let (Some(aside), false) = (&restored.aside, self.json) {
                    print(&format!(
                        "{} {}",
                        self.pick("原数据库移至", "the database before is now"),
                        aside.display()
                    ))?;
                }
                self.told(file, "restored", self.pick("已恢复", "brought back"), &restored.stats)
            }
            Err(error) => self.refused(error),
        }
    }

    fn release(self, data_dir: &Path) -> anyhow::Result<Exit> {
        match hold::release(data_dir) {
            Ok(held) => print(&if self.json {
                json!({ "held": held }).to_string()
            } else if held.is_some() {
                self.pick("已恢复写卡", "card writes may go on").to_owned()
            } else {
                self.pick("写卡未被暂停", "card writes were not held").to_owned()
            }),
            Err(error) => self.refused(error),
        }
    }

    /// What needs the daemon stopped says so.
    fn refused(self, error: StoreError) -> anyhow::Result<Exit> {
        let StoreError::Locked { path, pid } = error else { return Err(error.into()) };
        eprintln!(
            "{} {} ({} {pid}); {}",
            self.pick("服务正在使用数据目录", "a running daemon uses the data folder"),
            path.display(),
            self.pick("进程", "process"),
            self.pick(
                "请先停止服务(systemctl stop baygate)再执行",
                "stop it first (systemctl stop baygate), then try again"
            )
        );
        Ok(Exit::Refused)
    }

    /// The usual failures in the operator's language; the others speak for themselves.
    fn explained(self, error: anyhow::Error) -> anyhow::Error {
        if self.locale != Locale::ZhCn {
            return error;
        }
        let text = match error.downcast_ref::<StoreError>() {
            Some(error) if error.is_damage() => {
                "数据库已损坏;启动服务时会逐行抢救,buffer export 可导出仍可读的数据"
            }
            Some(StoreError::NotABackup { .. }) => "该备份不能恢复,原数据库未改动",
            Some(StoreError::TooNew { .. }) => "数据库由更新版本的程序创建,请使用新版本",
            Some(StoreError::File { .. }) => "文件无法读写,请检查路径、权限与磁盘空间",
            Some(error) if error.is_full() => "磁盘已满",
            _ => return error,
        };
        error.context(text)
    }

    fn told(self, file: &Path, key: &str, text: &str, stats: &Stats) -> anyhow::Result<Exit> {
        let rows: u64 = stats.classes.iter().map(|class| class.rows).sum();
        print(&if self.json {
            json!({ key: file, "bytes": stats.bytes, "events": rows }).to_string()
        } else {
            format!(
                "{text} {} ({}, {rows} {})",
                file.display(),
                bytesize::ByteSize(stats.bytes),
                self.pick("条事件", "events")
            )
        })
    }
}

/// One line to standard output; a reader that went away is no failure.
fn print(text: &str) -> anyhow::Result<Exit> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Done),
    }
}
