//! `baygate decode`: recorded traffic in, values out, without device or daemon
//! (contract §6).

mod conveyor;
mod dbc;
mod digits;
mod json_lines;
mod signals;

use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{Exit, Global, packed};
use crate::config::values::Locale;
use crate::vehicle::dbc::Database;
use crate::vehicle::signal_set::SignalSet;

/// Bytes written at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Oddities of a database that are shown; the others are counted.
const SHOWN_ODDITIES: usize = 10;

/// Arguments of `baygate decode`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples / 示例:
  baygate decode --dbc car.dbc candump-2026-11-21.log
  candump -L can0 | baygate decode --dbc car.dbc | jq .signals
  echo '{\"id\":\"7E0.0105\",\"response\":\"7E803410578\"}' | baygate decode --signals default.json")]
pub struct Args {
    /// DBC database; the input is a candump log / DBC 数据库文件，输入为 candump 日志
    #[arg(long, value_name = "FILE", required_unless_present = "signals")]
    dbc: Option<PathBuf>,
    /// OBDb signal set; the input is JSON Lines `{"id":"7E0.0105","response":"7E803410578"}` / OBDb 信号集，输入为 JSON Lines
    #[arg(long, value_name = "FILE", conflicts_with = "dbc")]
    signals: Option<PathBuf>,
    /// Default or `-`: standard input / 缺省或 `-` 为标准输入
    #[arg(value_name = "INPUT")]
    input: Option<PathBuf>,
}

/// Runs `baygate decode`.
///
/// # Errors
/// A file that cannot be read, or an output that cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let locale = global.language();
    let outcome = match (&args.dbc, &args.signals) {
        (Some(file), _) => with_database(file, args.input.as_deref(), locale),
        (_, Some(file)) => with_signal_set(file, args.input.as_deref(), locale),
        (None, None) => Ok(Exit::Usage),
    };
    match outcome {
        // `| head` has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(Exit::Done),
        outcome => outcome,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn with_database(file: &Path, input: Option<&Path>, locale: Locale) -> anyhow::Result<Exit> {
    let database = match Database::from_bytes(&read(file)?) {
        Ok(database) => database,
        Err(error) => {
            let refused = locale.pick("此 DBC 文件无法使用", "this DBC file cannot be used");
            eprintln!("{}: {refused}: {error}", file.display());
            return Ok(Exit::Usage);
        }
    };
    warn_of(&database, file);
    let mut out = output();
    let tally = dbc::decode(&database, open(input)?, &mut out)?;
    out.flush()?;
    eprintln!("{}", summary(&tally, locale));
    Ok(if tally.read_nothing() { Exit::Failed } else { Exit::Done })
}

fn with_signal_set(file: &Path, input: Option<&Path>, locale: Locale) -> anyhow::Result<Exit> {
    let set = match SignalSet::from_json(&read(file)?) {
        Ok(set) => set,
        Err(error) => {
            let refused = locale.pick("此信号集无法使用", "this signal set cannot be used");
            eprintln!("{}: {refused}: {error}", file.display());
            return Ok(Exit::Usage);
        }
    };
    let mut out = output();
    let troubles = signals::decode(&set, open(input)?, &mut out)?;
    out.flush()?;
    for trouble in &troubles {
        eprintln!("{}", trouble.text(locale));
    }
    Ok(if troubles.is_empty() { Exit::Done } else { Exit::Failed })
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))
}

fn output() -> BufWriter<io::Stdout> {
    BufWriter::with_capacity(CHUNK_BYTES, io::stdout())
}

fn open(input: Option<&Path>) -> anyhow::Result<Box<dyn BufRead + Send>> {
    Ok(match input {
        Some(path) if path != Path::new("-") => {
            packed::open(path).with_context(|| format!("{}: cannot be read", path.display()))?
        }
        _ => Box::new(BufReader::with_capacity(packed::CHUNK_BYTES, io::stdin())),
    })
}

fn warn_of(database: &Database, file: &Path) {
    for oddity in database.oddities().iter().take(SHOWN_ODDITIES) {
        eprintln!("{}:{}: {}", file.display(), oddity.line, oddity.what);
    }
    let more = database.oddities().len().saturating_sub(SHOWN_ODDITIES);
    if more > 0 {
        eprintln!("{}: … +{more}", file.display());
    }
}

fn summary(tally: &dbc::Tally, locale: Locale) -> String {
    let dbc::Tally { decoded, unknown, without_data, unreadable, first_unreadable_line, .. } = tally;
    let mut text = match locale {
        Locale::ZhCn => {
            format!("已解码 {decoded} 帧；数据库中没有 {unknown} 帧；远程帧与错误帧 {without_data}")
        }
        Locale::En => {
            format!(
                "decoded {decoded} frames; {unknown} not in the database; {without_data} remote or error frames"
            )
        }
    };
    if let Some(line) = first_unreadable_line {
        text += &match locale {
            Locale::ZhCn => format!("；{unreadable} 行不是 candump 格式，首见于第 {line} 行"),
            Locale::En => format!("; {unreadable} lines are not of candump's form, the first is line {line}"),
        };
    }
    text
}
