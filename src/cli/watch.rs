//! `baygate watch`: live values of one vehicle until interrupted: like `top` on a
//! terminal, lines elsewhere, JSON Lines with `--json`.

mod board;
mod screen;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::board::Board;
use self::screen::Screen;
pub(super) use self::screen::wanted_to_end;
use super::report::{figure, with_unit};
use super::vehicle_target::{Target, refuse, refuse_adapter, unknown_target};
use super::{Exit, Global, protocol_files, vehicle_daemon};
use crate::clock::UtcMillis;
use crate::config::Config;
use crate::config::values::{Locale, VehicleLink};
use crate::event::vehicle::{PidValue, SignalWindow};
use crate::protocols::Bundle;
use crate::vehicle::adapter::Adapter;
use crate::vehicle::gate::Request;
use crate::vehicle::protocol::{EcuAddress, Protocol};
use crate::vehicle::sampling::Sampling;
use crate::vehicle::scan::{Contact, ScanError, contact};
use crate::vehicle::telemetry::LIVE_PIDS;
use crate::vehicle::{AdapterError, Maxima, decode_pid_within};

/// Not faster than this, however fast the adapter is.
const ROUND: Duration = Duration::from_millis(250);

/// The full scales that a car may give for other PIDs (SAE J1979-DA, PIDs 4F and 50).
const FULL_SCALES: [u8; 2] = [0x4F, 0x50];

/// Shows live values of one vehicle / 显示一辆车的实时数据
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples / 示例:
  baygate watch elm327+serial:///dev/rfcomm0
  baygate watch elm327+tcp://192.168.0.10:35000 0C 0D 05
  baygate watch elm327+tcp://192.168.0.10:35000 010C --json | head -20")]
pub struct Args {
    /// A LINK, or the id of a configured [[vehicle]] / 链路地址或配置中的 id
    #[arg(value_name = "LINK|ID", value_parser = Target::parse)]
    pub target: Target,
    /// Service 01 PIDs in hex; default: load, coolant, speeds, voltage / 要显示的 PID（十六进制）
    #[arg(value_name = "PID", value_parser = parse_pid)]
    pub pids: Vec<Request>,
    /// Stop after so many rounds / 轮询次数
    #[arg(long, value_name = "N")]
    pub rounds: Option<u64>,
}

/// `0C` or `010C`. Only current data: everything else is a scan's business.
fn parse_pid(text: &str) -> Result<Request, String> {
    let whole = if text.len() == 2 { format!("01{text}") } else { text.to_owned() };
    let request = Request::parse(&whole).map_err(|error| error.to_string())?;
    if request.service() == 0x01 {
        Ok(request)
    } else {
        Err(format!("{text}: watch shows current data only; write a PID like 0C or 010C"))
    }
}

/// Runs the command.
///
/// # Errors
/// Configuration or protocol files cannot be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let locale = global.language();
    let config = protocol_files::configuration(global)?;
    let link = match args.target.resolve(config.as_ref()) {
        Ok(Target::Link(link)) => link,
        Ok(Target::Configured(id)) => {
            let wanted =
                if args.pids.is_empty() { Vec::new() } else { names_of(&args.pids, config.as_ref())? };
            let bundle = protocol_files::load(config.as_ref())?;
            return vehicle_daemon::watch(&id, args.rounds, &wanted, &bundle, global).await;
        }
        Err(error) => return Ok(unknown_target(&error)),
    };
    let bundle = protocol_files::load(config.as_ref())?;
    let requests = if args.pids.is_empty() { LIVE_PIDS.map(Request::current).to_vec() } else { args.pids };
    for request in &requests {
        if request.id().and_then(|pid| bundle.pids.get(0x01, pid)).is_none() {
            let zh = format!("PID {request} 不在 firmware-protocols/obd/pids.toml 中，无法解码");
            let en =
                format!("PID {request} is not in firmware-protocols/obd/pids.toml and cannot be decoded");
            eprintln!("{}", locale.pick(&zh, &en));
            return Ok(Exit::Usage);
        }
    }
    let watch = Watch { bundle, requests, json: global.json, rounds: args.rounds };
    let waiting = locale.pick("正在连接适配器和车辆…", "reaching the adapter and the car …");
    let mut shown = Shown::begin(link.to_string(), waiting, global);
    shown.draw(&watch.bundle)?;
    let keys = shown.screen.is_some();
    let ended = tokio::select! {
        ended = watch.run(&link, &mut shown) => ended,
        () = wanted_to_end(keys) => Ok(()),
    };
    // The terminal is given back before anything is said on it.
    shown.end(&watch.bundle);
    match ended {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Ok(refuse_any(&error, locale)),
    }
}

/// What the signals of these PIDs are called; the request itself for one that is not known.
fn names_of(pids: &[Request], config: Option<&Config>) -> anyhow::Result<Vec<String>> {
    let bundle = protocol_files::load(config)?;
    let of = |request: &Request| match request.id().and_then(|pid| bundle.pids.get(0x01, pid)) {
        Some(row) => row.signals.iter().map(|signal| signal.name.clone()).collect(),
        None => vec![request.to_string()],
    };
    Ok(pids.iter().flat_map(of).collect())
}

fn refuse_any(error: &ScanError, locale: Locale) -> Exit {
    match error {
        ScanError::Adapter(error) => refuse_adapter(error, locale),
        ScanError::NoAnswer { .. } => refuse(error, locale),
    }
}

struct Watch {
    bundle: Bundle,
    requests: Vec<Request>,
    json: bool,
    rounds: Option<u64>,
}

impl Watch {
    async fn run(&self, link: &VehicleLink, shown: &mut Shown) -> Result<(), ScanError> {
        let mut adapter = Adapter::open(link, &self.bundle, None, None).await?;
        let mut sampling = Sampling::default();
        match contact(&mut adapter).await? {
            Contact::Silent(why) => return Err(ScanError::NoAnswer { why }),
            Contact::Answers(_, units) => sampling.met(&units),
        }
        if adapter.protocol() == Some(Protocol::J1939) {
            let why = "the bus speaks J1939, which has no PIDs; `baygate scan` reads its codes".into();
            return Err(ScanError::NoAnswer { why });
        }
        let first = adapter.ask(Request::current(0x00), None).await?;
        adapter.learn(&first, &self.bundle.pids).await?;
        let pids: Vec<u8> = self.requests.iter().flat_map(|request| request.parameters()).copied().collect();
        let maxima = self.full_scales(&mut adapter, &mut sampling, &pids).await?;
        let mut tick = interval(ROUND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut done = 0;
        while self.rounds.is_none_or(|rounds| done < rounds) {
            tick.tick().await;
            let heard = self.ask(&mut adapter, &mut sampling, &pids, &maxima).await?;
            let round: Vec<_> = heard.into_iter().map(|(unit, value)| (unit.to_string(), value)).collect();
            // The reader of our output left: done.
            if shown.round(&round, self).is_err() {
                return Ok(());
            }
            done += 1;
        }
        Ok(())
    }

    /// What each unit gave as full scale, where a value that is shown depends on it: as in a report.
    async fn full_scales(
        &self,
        adapter: &mut Adapter,
        sampling: &mut Sampling,
        pids: &[u8],
    ) -> Result<BTreeMap<EcuAddress, Maxima>, AdapterError> {
        let row = |pid: &u8| self.bundle.pids.get(0x01, *pid);
        let depends = |pid: &u8| row(pid).is_some_and(|row| row.signals.iter().any(|s| s.maximum.is_some()));
        let mut given: BTreeMap<EcuAddress, Vec<PidValue>> = BTreeMap::new();
        if pids.iter().any(depends) {
            for (unit, value) in self.ask(adapter, sampling, &FULL_SCALES, &BTreeMap::new()).await? {
                given.entry(unit).or_default().push(value);
            }
        }
        Ok(given.into_iter().map(|(unit, values)| (unit, Maxima::of(&values))).collect())
    }

    async fn ask(
        &self,
        adapter: &mut Adapter,
        sampling: &mut Sampling,
        pids: &[u8],
        maxima: &BTreeMap<EcuAddress, Maxima>,
    ) -> Result<Vec<(EcuAddress, PidValue)>, AdapterError> {
        let (table, usual) = (&self.bundle.pids, Maxima::default());
        let outcomes = match sampling.ask(adapter, table, pids).await {
            Err(error) if error.is_fatal() => return Err(error),
            other => other.unwrap_or_default(),
        };
        let values = outcomes.iter().flat_map(|outcome| {
            outcome.messages.iter().flat_map(|message| {
                let data = message.payload.get(2..).unwrap_or_default();
                let within = maxima.get(&message.sender).unwrap_or(&usual);
                let row = table.get(0x01, outcome.pid);
                let decoded = row.and_then(|row| decode_pid_within(row, data, within).ok());
                decoded.into_iter().flatten().map(|value| (message.sender.clone(), value))
            })
        });
        Ok(values.collect())
    }
}

/// Where the values go, and what was seen of them.
pub(super) struct Shown {
    title: String,
    /// Said until there is a value.
    waiting: String,
    locale: Locale,
    board: Board,
    pub(super) screen: Option<Screen>,
}

impl Shown {
    pub(super) fn begin(title: String, waiting: &str, global: &Global) -> Self {
        let screen = if global.json { None } else { Screen::enter() };
        let board = Board::new(Instant::now().into_std());
        let waiting = waiting.to_owned();
        let mut shown = Self { title, waiting, locale: global.language(), board, screen };
        shown.title.push_str(shown.locale.pick("  按 q 结束", "  q ends"));
        shown
    }

    fn round(&mut self, round: &[(String, PidValue)], watch: &Watch) -> std::io::Result<()> {
        self.board.take(round, Instant::now().into_std());
        if self.screen.is_some() { self.draw(&watch.bundle) } else { print(round, watch, self.locale) }
    }

    /// What the daemon sampled over a window.
    pub(super) fn window(&mut self, signals: &[SignalWindow], bundle: &Bundle) -> std::io::Result<()> {
        self.board.take_window(signals, Instant::now().into_std());
        self.draw(bundle)
    }

    /// Draws what is known now, in the size that the terminal has now.
    pub(super) fn draw(&self, bundle: &Bundle) -> std::io::Result<()> {
        let Some(screen) = &self.screen else { return Ok(()) };
        screen.draw(&self.lines(bundle, Screen::size().1))
    }

    fn lines(&self, bundle: &Bundle, height: usize) -> Vec<String> {
        let name = |pid: &str, signal: &str| signal_name(bundle, pid, signal, self.locale);
        let words = (self.title.as_str(), self.waiting.as_str());
        self.board.lines(words, &name, self.locale, Instant::now().into_std(), height)
    }

    /// Gives the terminal back and leaves the last picture on it.
    pub(super) fn end(mut self, bundle: &Bundle) {
        if self.screen.take().is_some() {
            println!("{}", self.lines(bundle, usize::MAX).join("\n"));
        }
    }
}

fn print(round: &[(String, PidValue)], watch: &Watch, locale: Locale) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let time = UtcMillis::now();
    if watch.json {
        for (ecu, value) in round {
            let line = json!({
                "time": time, "ecu": ecu, "pid": value.pid, "name": value.name,
                "value": value.value, "unit": value.unit
            });
            writeln!(out, "{line}")?;
        }
    } else {
        let one = |(ecu, value): &(String, PidValue)| {
            let name = signal_name(&watch.bundle, &value.pid, &value.name, locale);
            format!("{ecu} {name} {}", with_unit(&figure(&value.value), &value.unit))
        };
        writeln!(out, "{time}  {}", round.iter().map(one).collect::<Vec<_>>().join(" · "))?;
    }
    out.flush()
}

/// A signal's name for people: its PID's where that has one signal, else with its own. The
/// daemon's windows tell no PID: there it is looked for by the signal.
pub(super) fn signal_name(bundle: &Bundle, pid: &str, signal: &str, locale: Locale) -> String {
    let number = pid.get(2..).and_then(|pid| u8::from_str_radix(pid, 16).ok());
    let row = match number {
        Some(pid) => bundle.pids.get(0x01, pid),
        None => bundle.pids.iter().find(|row| row.signals.iter().any(|known| known.name == signal)),
    };
    match row {
        Some(row) if row.signals.len() == 1 => locale.pick(&row.name.zh, &row.name.en).to_owned(),
        Some(row) => format!("{} · {signal}", locale.pick(&row.name.zh, &row.name.en)),
        None => signal.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_of_current_data_only() {
        assert_eq!(parse_pid("0C"), Ok(Request::current(0x0C)));
        assert_eq!(parse_pid("010c"), Ok(Request::current(0x0C)));
        assert!(parse_pid("04FF").unwrap_err().contains("read-only"));
        assert!(parse_pid("0902").unwrap_err().contains("current data only"));
        assert!(parse_pid("xx").is_err());
    }
}
