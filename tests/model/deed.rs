//! What may happen next, and under which settings. A history is a list of deeds.

use baygate::config::tables::{Confirm, MqttVersion};
use baygate::event::Class;

use super::dice::Dice;

/// What stays the same over a history (but for `Reload`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Setting {
    pub confirm: Confirm,
    pub version: MqttVersion,
    pub window: u16,
    pub bytes: u64,
    pub packet: u64,
    /// Seed of the jitter.
    pub jitter: u64,
}

impl Setting {
    pub fn small(confirm: Confirm, version: MqttVersion) -> Self {
        Self { confirm, version, window: 3, bytes: 250, packet: 500, jitter: 1 }
    }

    pub fn by_headquarters(&self) -> bool {
        self.confirm == Confirm::Headquarters
    }

    pub fn sees_refusals(&self) -> bool {
        self.version == MqttVersion::V5
    }
}

/// The last place in a queue, whatever its length.
pub const LAST: usize = usize::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deed {
    /// A row of a class and a size is committed.
    Commit(Class, u64),
    /// The broker takes the publish at a place of those in flight; its PUBACK arrives.
    Take(usize),
    /// The broker refuses it with a reason code. With 3.1.1 it says nothing and drops it.
    Refuse(usize, u8),
    /// The line is cut: so many publishes in flight still reached the broker, their PUBACKs nobody.
    Cut(usize),
    /// The broker dies and forgets: queue, session, messages under way.
    BrokerDies,
    /// The broker's queue overflows: the oldest row for headquarters is dropped, its PUBACK long sent.
    BrokerDrops,
    /// A connection, with our session present on the broker or lost; `narrow`: it allows one publish in flight.
    Connect { present: bool, narrow: bool },
    /// Headquarters takes what the broker holds for it and says its word.
    HeadquartersTakes,
    /// The oldest word under way reaches us.
    WordComes,
    /// The word that came last comes again (a second copy of it, lower than what came since).
    WordAgain,
    /// Somebody wrote in our name: headquarters names a position ahead of ours in this epoch.
    Stranger(Class),
    /// The clock moves to the machine's next deadline.
    Wait,
    /// The noted positions are committed.
    Note,
    /// The gateway dies and starts: memory gone, the disk as committed.
    Restart,
    /// The gateway stops in order and starts with another window.
    Reload,
    /// Headquarters changes the replay rate.
    Rate(u32),
    /// The disk takes no commit; again: it does.
    DiskFull,
    /// The oldest unsent row of a class is trimmed, its gap told.
    Trim(Class),
}

/// Two classes stand for all: what crosses classes needs no third but the gateway's gaps.
const CLASSES: [Class; 2] = [Class::Ledger, Class::Card];

/// Every kind of deed, for short histories.
pub fn all(setting: &Setting) -> Vec<Deed> {
    let mut deeds = core(setting);
    deeds.extend([
        Deed::Commit(CLASSES[0], setting.packet + 100),
        Deed::Connect { present: true, narrow: true },
        Deed::Reload,
        Deed::Rate(1),
        Deed::Rate(0),
        Deed::DiskFull,
        Deed::Trim(CLASSES[1]),
    ]);
    if setting.sees_refusals() {
        deeds.extend([0x10, 0x90, 0x97].map(|code| Deed::Refuse(0, code)));
        deeds.push(Deed::Refuse(LAST, 0x87));
    }
    if setting.by_headquarters() {
        deeds.extend([Deed::WordAgain, Deed::Stranger(CLASSES[0])]);
    }
    deeds
}

/// The deeds that make most of the trouble, for longer histories.
pub fn core(setting: &Setting) -> Vec<Deed> {
    let mut deeds = CLASSES.map(|class| Deed::Commit(class, 100)).to_vec();
    deeds.extend([
        Deed::Take(0),
        Deed::Take(LAST),
        Deed::Cut(0),
        Deed::Cut(LAST),
        Deed::Connect { present: true, narrow: false },
        Deed::Connect { present: false, narrow: false },
        Deed::Wait,
        Deed::Note,
        Deed::Restart,
    ]);
    if setting.sees_refusals() {
        deeds.extend([0x87, 0x99].map(|code| Deed::Refuse(0, code)));
    } else if setting.by_headquarters() {
        deeds.push(Deed::Refuse(0, 0x87));
    }
    if setting.by_headquarters() {
        deeds.extend([Deed::BrokerDies, Deed::BrokerDrops, Deed::HeadquartersTakes, Deed::WordComes]);
    }
    deeds
}

/// A setting for a long history.
pub fn any_setting(dice: &mut Dice) -> Setting {
    Setting {
        confirm: dice.pick(&[Confirm::Broker, Confirm::Headquarters]),
        version: dice.pick(&[MqttVersion::V5, MqttVersion::V5, MqttVersion::V311]),
        window: dice.pick(&[1, 2, 3, 8, 64]),
        bytes: dice.pick(&[300, 2_000, 128 * 1024]),
        packet: dice.pick(&[1_000, 100_000]),
        jitter: dice.number(),
    }
}

/// Any deed: peaceful ones more often, or a history would never get far.
pub fn any(dice: &mut Dice, setting: &Setting) -> Deed {
    let class = dice.pick(&Class::ALL);
    loop {
        let deed = match dice.below(100) {
            0..=19 => Deed::Commit(class, 20 + dice.below(setting.packet.min(2_000))),
            20..=20 => Deed::Commit(class, setting.packet + 1 + dice.below(100)),
            21..=49 => Deed::Take(0),
            50..=54 => Deed::Take(dice.below(8)),
            55..=58 => {
                let code = dice.pick(&[0x10_u8, 0x80, 0x83, 0x87, 0x90, 0x91, 0x95, 0x97, 0x99]);
                Deed::Refuse(dice.below(4), code)
            }
            59..=60 => Deed::Cut(dice.pick(&[0, 1, 2, LAST])),
            61 if dice.below(2) == 0 => Deed::BrokerDies,
            61 => Deed::BrokerDrops,
            62..=68 => Deed::Connect { present: dice.below(2) == 0, narrow: dice.below(4) == 0 },
            69..=73 => Deed::HeadquartersTakes,
            74..=79 => Deed::WordComes,
            80 => Deed::WordAgain,
            81 if dice.below(8) == 0 => Deed::Stranger(class),
            82..=88 => Deed::Wait,
            89..=93 => Deed::Note,
            94 => Deed::Restart,
            95 if dice.below(4) == 0 => Deed::Reload,
            96 => Deed::Rate(dice.pick(&[0, 0, 1, 20])),
            97 if dice.below(4) == 0 => Deed::DiskFull,
            98 => Deed::Trim(class),
            _ => continue,
        };
        let hidden = matches!(deed, Deed::Refuse(..)) && !setting.sees_refusals();
        // What 3.1.1 hides from us, a broker's PUBACK cannot prove: the contract says so.
        if hidden && !setting.by_headquarters() {
            continue;
        }
        return deed;
    }
}
