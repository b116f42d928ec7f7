//! The command line: arguments, output, exit codes (contract §1). One file a
//! command, each with `Args` and `async fn run(Args, &Global) -> anyhow::Result<Exit>`.
//! No logic lives here.

pub mod devices;
pub mod protocol_files;
pub mod report_table;
pub mod scan;
pub mod vehicle_target;
pub mod watch;

use std::path::PathBuf;

use crate::config::values::Locale;

/// Options every command takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Configuration file or folder / 配置文件或目录
    #[arg(long, global = true, value_name = "PATH", default_value = "/etc/baygate/baygate.toml")]
    pub config: PathBuf,
    /// Print data as JSON / 以 JSON 输出
    #[arg(long, global = true)]
    pub json: bool,
    /// Language of messages: zh-CN or en / 语言
    #[arg(long, global = true, value_name = "zh-CN|en")]
    pub locale: Option<Locale>,
}

impl Global {
    /// `--locale`, else `LANG`, else Chinese.
    #[must_use]
    pub fn language(&self) -> Locale {
        self.locale.unwrap_or_else(|| match std::env::var("LANG") {
            Ok(lang) if lang.starts_with("en") || lang.starts_with('C') => Locale::En,
            _ => Locale::ZhCn,
        })
    }
}

/// Exit statuses of contract §1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage or invalid configuration.
    Usage = 2,
    /// Device not reachable or held by another process.
    Device = 3,
    /// Refused by policy.
    Refused = 4,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
