//! What goes wrong in a campaign, and when: drawn from the dice before it happens.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Showroom;
use super::dice::Dice;
use crate::daemon::Daemon;

/// Who is struck in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Daemon,
    Broker,
    Headquarters,
}

/// What a round waits for before it strikes.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    /// So many more events told to the till.
    Told(u64),
    /// So many more events new to headquarters.
    Kept(u64),
    /// Another event of this type.
    Kind(&'static str),
    /// Another answer to a till that asked for a scan: struck within milliseconds.
    Answered,
}

/// What happens to the victims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    Kill,
    /// SIGSTOP for a moment.
    Freeze,
    FreezeThenKill,
    /// Killed, and killed again while it starts.
    KillTwice,
    /// SIGTERM: an orderly stop in the middle of everything.
    Stop,
}

#[derive(Debug)]
pub struct Round {
    pub moment: Moment,
    /// After the moment.
    pub late: Duration,
    pub victims: Vec<Victim>,
    pub blow: Blow,
    pub away: Duration,
}

impl Round {
    pub fn draw(dice: &mut Dice) -> Self {
        let moment = match dice.below(10) {
            0..=4 => Moment::Told(1 + dice.below(90)),
            5..=7 => Moment::Kept(1 + dice.below(90)),
            8 => Moment::Kind(dice.pick(&["card.tapped", "command.result", "vehicle.report"])),
            9 if dice.percent(60) => Moment::Answered,
            _ => Moment::Kind("vehicle.signals"),
        };
        let mut victims = Vec::new();
        while victims.is_empty() {
            victims = [(Victim::Daemon, 60), (Victim::Broker, 35), (Victim::Headquarters, 35)]
                .into_iter()
                .filter(|(_, chance)| dice.percent(*chance))
                .map(|(victim, _)| victim)
                .collect();
        }
        // Struck, and brought back, in any order.
        if dice.percent(50) {
            victims.reverse();
        }
        let blow = match dice.below(10) {
            0..=4 => Blow::Kill,
            5 | 6 => Blow::Freeze,
            7 => Blow::FreezeThenKill,
            8 => Blow::KillTwice,
            _ => Blow::Stop,
        };
        let late = dice.pause(if matches!(moment, Moment::Answered) { 20 } else { 60 });
        Self { moment, late, victims, blow, away: dice.pause(400) }
    }

    /// The last two: all die at once; then the daemon alone lives on to the end, so that
    /// nothing is put right by its next start.
    pub fn near_the_end(victims: &[Victim]) -> Self {
        let victims = victims.to_vec();
        let (late, away) = (Duration::ZERO, Duration::from_millis(200));
        Self { moment: Moment::Kept(20), late, victims, blow: Blow::Kill, away }
    }
}

/// Waits for the moment, but not for ever: what is dead or held back makes no events.
pub async fn wait_for(room: &Showroom, moment: Moment) {
    let most = Duration::from_secs(if matches!(moment, Moment::Kind(_) | Moment::Answered) { 10 } else { 4 });
    let stream = &room.shop.stream;
    match moment {
        Moment::Told(more) => {
            let goal = stream.with(|heard| heard.events.len() as u64) + more;
            stream.hears(most, |heard| heard.events.len() as u64 >= goal).await;
        }
        Moment::Kept(more) => {
            let mut kept = room.headquarters.kept.clone();
            let goal = *kept.borrow() + more;
            let _ = tokio::time::timeout(most, kept.wait_for(|kept| *kept >= goal)).await;
        }
        Moment::Kind(kind) => {
            let goal = stream.with(|heard| heard.of(kind).len()) + 1;
            stream.hears(most, |heard| heard.of(kind).len() >= goal).await;
        }
        Moment::Answered => {
            let mut answered = room.shop.answers.settled.subscribe();
            answered.mark_unchanged();
            let _ = tokio::time::timeout(most, answered.changed()).await;
        }
    }
}

fn signal(room: &Showroom, victim: Victim, signal: Signal) {
    let pid = match victim {
        Victim::Daemon => room.daemon.as_ref().map(Daemon::pid),
        Victim::Broker => room.broker.pid(),
        Victim::Headquarters => room.headquarters.pid(),
    };
    if let Some(pid) = pid {
        kill(Pid::from_raw(pid), signal).unwrap();
    }
}

async fn kill_one(room: &mut Showroom, victim: Victim) {
    match victim {
        Victim::Daemon => room.kill_daemon().await,
        Victim::Broker => room.broker.kill(),
        Victim::Headquarters => room.headquarters.kill().await,
    }
}

async fn bring_back(room: &mut Showroom, victim: Victim) {
    match victim {
        Victim::Daemon => room.daemon = Some(Daemon::spawn(&room.desk.config())),
        Victim::Broker => room.broker.up().await,
        Victim::Headquarters => room.headquarters.up(),
    }
}

pub async fn strike(room: &mut Showroom, dice: &mut Dice, round: &Round) {
    if matches!(round.blow, Blow::Freeze | Blow::FreezeThenKill) {
        for victim in &round.victims {
            signal(room, *victim, Signal::SIGSTOP);
        }
        // As long as was drawn: input, like the moments below; nothing is waited for.
        tokio::time::sleep(round.away).await;
    }
    if round.blow == Blow::Freeze {
        for victim in &round.victims {
            signal(room, *victim, Signal::SIGCONT);
        }
        return;
    }
    if round.blow == Blow::Stop {
        for victim in &round.victims {
            signal(room, *victim, Signal::SIGTERM);
        }
        if round.victims.contains(&Victim::Daemon) {
            room.daemon_ended().await;
        }
    }
    for victim in &round.victims {
        kill_one(room, *victim).await;
    }
    if round.blow == Blow::KillTwice {
        for victim in &round.victims {
            bring_back(room, *victim).await;
        }
        // Anywhere between the first instruction and the work.
        tokio::time::sleep(dice.pause(600)).await;
        for victim in &round.victims {
            kill_one(room, *victim).await;
        }
    }
    tokio::time::sleep(round.away).await;
    for victim in &round.victims {
        bring_back(room, *victim).await;
    }
}
