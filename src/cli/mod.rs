//! The command line: arguments, output, exit codes (contract §1). One file a
//! command, each with `Args` and `async fn run(Args, &Global) -> anyhow::Result<Exit>`.
//! No logic lives here.

mod asyncapi;
pub mod buffer;
mod can_helper;
mod card;
mod check;
mod completions;
pub mod daemon;
mod decode;
mod demo;
pub mod devices;
mod man;
pub mod operator;
mod packed;
pub mod pair;
mod print;
pub mod protocol_files;
pub mod report;
mod run;
pub mod scan;
mod schema;
mod simulate;
mod terminal_secret;
pub mod token;
mod vehicle_daemon;
pub mod vehicle_target;
pub mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, values::Locale};

/// Baygate: the in-store edge gateway / 门店边缘网关
#[derive(Debug, Parser)]
#[command(name = "baygate", version, max_term_width = 110, propagate_version = true)]
#[command(
    after_help = "Examples / 示例:\n  baygate demo --for 20s\n  baygate devices\n  baygate check && baygate run"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon / 运行守护进程
    Run(run::Args),
    /// The whole product on simulated devices / 在模拟设备上演示整套产品
    Demo(demo::Args),
    /// Check configuration, rules, templates and protocol data / 检查配置、规则、模板与协议数据
    Check(check::Args),
    /// List what is plugged in, with the configuration lines for it / 列出接入的设备及其配置
    Devices(devices::Args),
    /// One full read-only report of a vehicle / 读取车辆并输出完整只读报告
    Scan(scan::Args),
    /// Live values of a vehicle / 车辆实时数据
    Watch(watch::Args),
    /// Decode recorded CAN traffic / 解码录制的 CAN 数据
    Decode(decode::Args),
    /// Look into, check, copy and bring back the local database / 查看、校验、备份与恢复本地数据库
    Buffer(buffer::Args),
    /// Member cards: issue, top up, charge, look up, block; figures of the day / 会员卡：发卡、充值、消费、查询、挂失与统计
    Card(card::Args),
    /// Draw, print and follow card faces / 卡面的生成、打印与查询
    Print(print::Args),
    /// Pair a till / 给收银机配对
    Pair(pair::Args),
    /// Add, list, change, lock and unlock people at the tills / 管理收银台操作员
    Operator(operator::Args),
    /// Create, list and revoke tokens / 管理访问令牌
    Token(token::Args),
    /// Run a simulated vehicle, card, printer or headquarters / 运行模拟车辆、会员卡、打印机或总部
    Simulate(simulate::Args),
    /// Print JSON Schema, OpenAPI and AsyncAPI documents / 输出接口与事件的模式文档
    Schema(schema::Args),
    /// Print shell completions / 输出命令补全脚本
    Completions(completions::Args),
    /// Print the man page / 输出手册页
    Man(man::Args),
    #[command(hide = true)]
    CanHelper(can_helper::Args),
}

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
    /// `--locale`, else the configuration's, else `LANG`, else Chinese.
    #[must_use]
    pub fn language(&self) -> Locale {
        let chosen = self.locale.or_else(|| config::locale(&self.config));
        chosen.unwrap_or_else(|| match std::env::var("LANG") {
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

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Threads for blocking work, at most: four for readers of the database, the others for
/// faces, rules and names to be resolved.
const BLOCKING_THREADS: usize = 12;

/// Parses the arguments, runs the command, gives the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if !matches!(cli.command, Command::Run(_)) {
        leave_when_nobody_reads();
    }
    // The demo tells its own story: only what is wrong belongs beside it.
    log_to_stderr(if matches!(cli.command, Command::Run(_)) { "info" } else { "error" });
    // Two workers serve a store with room to spare; blocking work has threads of its own, a few:
    // each keeps what it once allocated, and a swarm of links would call up dozens.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(cli));
            // A blocking thread that hangs in a driver must not keep the process alive.
            runtime.shutdown_timeout(std::time::Duration::from_millis(500));
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => daemon::report(&error).into(),
    }
}

/// `baygate … | head` has seen enough: that is no panic. The daemon goes on whoever reads.
fn leave_when_nobody_reads() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if text.starts_with("failed printing to stdout: Broken pipe") {
            std::process::exit(Exit::Done as i32);
        }
        usual(panic);
    }));
}

async fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let global = cli.global;
    match cli.command {
        Command::Run(args) => run::run(args, &global).await,
        Command::Demo(args) => demo::run(args, &global).await,
        Command::Devices(args) => devices::run(args, &global).await,
        Command::Scan(args) => scan::run(args, &global).await,
        Command::Watch(args) => watch::run(args, &global).await,
        Command::Decode(args) => decode::run(args, &global).await,
        Command::Buffer(args) => buffer::run(args, &global).await,
        Command::Simulate(args) => simulate::run(args, &global).await,
        Command::Card(args) => card::run(args, &global).await,
        Command::Print(args) => print::run(args, &global).await,
        Command::Pair(args) => pair::run(args, &global).await,
        Command::Operator(args) => operator::run(args, &global).await,
        Command::Token(args) => token::run(args, &global).await,
        Command::Check(args) => check::run(args, &global).await,
        Command::Schema(args) => schema::run(args, &global).await,
        Command::Completions(args) => completions::run(args, &global).await,
        Command::Man(args) => man::run(args, &global).await,
        Command::CanHelper(args) => can_helper::run(args, &global).await,
    }
}

/// Logs go to standard error; `BAYGATE_LOG` sets the level. What the MQTT library complains about,
/// packets included, the uplink says itself, in bounds.
fn log_to_stderr(level: &str) {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_env("BAYGATE_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new(format!("{level},usvg=error,mqtt5=error,rumqttc=off"))
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// The clap command, for completions and the man page.
fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}
