//! `--replay`: a dongle's session, or a bus.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::super::super::{Exit, Global, packed};
use super::super::{say, unplugged, until_told};
use super::{Args, announce, announce_link};
use crate::sim::vehicle::{BusSim, Recording, ReplaySim, SlcanSim, Tape};

/// Larger is no trace of a session: an hour has about 30 MiB.
const MOST_TRACE_BYTES: u64 = 256 << 20;

/// What a file was recorded of.
enum Recorded {
    Dongle(Recording),
    Bus(Tape),
}

pub(super) async fn run(path: &Path, args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let read = packed::read_to_string(path, MOST_TRACE_BYTES).map_err(anyhow::Error::from);
    let recorded = read.and_then(|text| {
        // candump's lines begin with the time.
        let is_bus = text.trim_start().starts_with('(');
        Ok(if is_bus { Recorded::Bus(Tape::read(&text)?) } else { Recorded::Dongle(Recording::read(&text)?) })
    });
    let on_bus = args.slcan || args.can.is_some();
    match (recorded, on_bus) {
        (Ok(Recorded::Dongle(recording)), false) => dongle(recording, args, global).await,
        (Ok(Recorded::Bus(tape)), true) => bus(tape, args, global).await,
        (Ok(Recorded::Dongle(_)), true) => {
            let zh = "该文件记录的是 ELM327 适配器：请去掉 --slcan 或 --can";
            refuse(path, global, zh, "it was recorded of an ELM327: leave out --slcan and --can")
        }
        (Ok(Recorded::Bus(_)), false) => {
            let zh = "该文件记录的是 CAN 总线：请加 --slcan 或 --can INTERFACE";
            refuse(path, global, zh, "it was recorded of a bus: add --slcan, or --can INTERFACE")
        }
        (Err(error), _) => {
            eprintln!("{}: {error:#}", path.display());
            Ok(Exit::Usage)
        }
    }
}

fn refuse(path: &Path, global: &Global, zh: &str, en: &str) -> anyhow::Result<Exit> {
    eprintln!("{}: {}", path.display(), global.language().pick(zh, en));
    Ok(Exit::Usage)
}

async fn dongle(recording: Recording, args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let sim = match args.listen {
        Some(address) => ReplaySim::spawn_tcp(address, recording).await,
        None => ReplaySim::spawn_pty(recording, args.link_to.clone()).await,
    };
    let sim = match sim {
        Ok(sim) => sim,
        Err(error) => return Ok(unplugged(&error)),
    };
    announce(global, &sim.name(), args.listen.is_some());
    until_told(args.duration).await;
    tell_missed(global, &sim.missed());
    sim.stop().await;
    Ok(Exit::Done)
}

async fn bus(tape: Tape, args: &Args, global: &Global) -> anyhow::Result<Exit> {
    if let Some(interface) = &args.can {
        let sim = match BusSim::replay(interface, tape) {
            Ok(sim) => sim,
            Err(error) => return Ok(unplugged(&error)),
        };
        announce_link(global, interface, &format!("can://{interface}"));
        until_told(args.duration).await;
        tell_missed(global, &sim.missed());
        return Ok(Exit::Done);
    }
    let sim = match SlcanSim::replay(tape, args.listen, args.link_to.clone()).await {
        Ok(sim) => sim,
        Err(error) => return Ok(unplugged(&error)),
    };
    let scheme = if args.listen.is_some() { "tcp" } else { "serial" };
    announce_link(global, &sim.name(), &format!("slcan+{scheme}://{}", sim.name()));
    until_told(args.duration).await;
    tell_missed(global, &sim.missed());
    sim.stop().await;
    Ok(Exit::Done)
}

/// What was asked and the trace does not have: the same report cannot come of it.
fn tell_missed(global: &Global, missed: &BTreeMap<String, u64>) {
    if missed.is_empty() {
        return;
    }
    say(global, &json!({ "missed": missed }), |locale| {
        let list: Vec<String> = missed.iter().map(|(request, times)| format!("{request} ×{times}")).collect();
        format!(
            "{} {}",
            locale.pick("记录中没有的请求：", "requests the trace does not have:"),
            list.join(", ")
        )
    });
}
