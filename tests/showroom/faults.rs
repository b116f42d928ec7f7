//! What goes wrong in a campaign, and when: drawn from the dice before it happens.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Showroom;
use super::dice::Dice;
use crate::daemon::Daemon;

/// Who is struck in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Another deed on a member's card is begun: struck while it is written.
    Deed,
}

/// What happens to the victims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP for a moment, then SIGKILL.
    FreezeThenKill,
    /// Killed, and killed again while it starts.
    KillTwice,
    /// SIGSTOP for a moment: no kill, and no round.
    Freeze,
    /// SIGTERM, an orderly stop in the middle of everything: no kill, and no round.
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

/// What is to be killed at least, each so often, in so many rounds.
pub fn least(rounds: u64) -> [(Victim, u64); 3] {
    [(Victim::Daemon, rounds / 2), (Victim::Broker, rounds / 4), (Victim::Headquarters, rounds / 4)]
}

/// A campaign: so many rounds of SIGKILL, and now and then something else in between.
pub fn plan(dice: &mut Dice, rounds: u64) -> Vec<Round> {
    loop {
        let mut plan = Vec::new();
        for left in (0..rounds).rev() {
            if left > 1 && dice.percent(20) {
                let blow = dice.pick(&[Blow::Freeze, Blow::Freeze, Blow::Stop]);
                plan.push(Round { blow, ..Round::draw(dice) });
            }
            plan.push(match left {
                0 => Round::near_the_end(&[Victim::Broker, Victim::Headquarters]),
                1 => Round::near_the_end(&[Victim::Daemon, Victim::Broker, Victim::Headquarters]),
                _ => Round::draw(dice),
            });
        }
        let killed = |victim: Victim| {
            plan.iter().filter(|round: &&Round| round.kills() && round.victims.contains(&victim)).count()
        };
        if least(rounds).into_iter().all(|(victim, least)| killed(victim) as u64 >= least) {
            return plan;
        }
    }
}

impl Round {
    /// One that kills.
    pub fn draw(dice: &mut Dice) -> Self {
        let moment = match dice.below(10) {
            0..=3 => Moment::Told(1 + dice.below(60)),
            4..=6 => Moment::Kept(1 + dice.below(60)),
            7 => Moment::Kind(dice.pick(&["card.tapped", "command.result", "vehicle.report"])),
            8 => Moment::Deed,
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
            0..=6 => Blow::Kill,
            7 => Blow::FreezeThenKill,
            _ => Blow::KillTwice,
        };
        let late = dice.pause(match moment {
            Moment::Answered => 20,
            // As long as a deed takes.
            Moment::Deed => 250,
            _ => 60,
        });
        Self { moment, late, victims, blow, away: dice.pause(400) }
    }

    pub fn kills(&self) -> bool {
        !matches!(self.blow, Blow::Freeze | Blow::Stop)
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
        Moment::Deed => {
            let mut begun = room.shop.answers.till.begun.subscribe();
            begun.mark_unchanged();
            let _ = tokio::time::timeout(most, begun.changed()).await;
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

/// With SIGKILL, and counted: it has lived until then.
pub async fn kill_one(room: &mut Showroom, victim: Victim) {
    let ended = match victim {
        Victim::Daemon => room.kill_daemon().await,
        Victim::Broker => room.broker.kill(),
        Victim::Headquarters => room.headquarters.kill().await,
    };
    let ended = ended.expect("it was brought back");
    assert_eq!(ended.signal(), Some(Signal::SIGKILL as i32), "{victim:?} had ended: {ended}");
    *room.killed.entry(victim).or_default() += 1;
}

async fn stop_one(room: &mut Showroom, victim: Victim) {
    match victim {
        Victim::Daemon => room.daemon_ended().await,
        Victim::Broker => room.broker.ended().await,
        Victim::Headquarters => room.headquarters.ended().await,
    }
}

async fn bring_back(room: &mut Showroom, victim: Victim) {
    match victim {
        Victim::Daemon => room.start_daemon(),
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
    }
    for victim in &round.victims {
        match round.blow {
            Blow::Stop => stop_one(room, *victim).await,
            _ => kill_one(room, *victim).await,
        }
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
