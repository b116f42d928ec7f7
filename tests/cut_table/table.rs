//! What is cut: every technology, every operation, every way. A new one does not compile, or fails,
//! until it is named here.

use baygate::card::counter::Life;
use baygate::event::card::Technology;
use baygate::event::ledger::TransactionKind;
use baygate::sim::card::{CardFault, Technology as Sim};
use clap::ValueEnum;

/// An enumeration and the list of all that it has.
macro_rules! all {
    ($(#[$doc:meta])* $name:ident: $($one:ident)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($one),* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$one),*];
        }
    };
}
all! {
    /// What a counter does with a card that writes to it.
    Operation: Issue Topup Spend Mixed Earn Redeem Coupon Adjust Give Take Refund Void Replace Return Extend Rekey
}
all! {
    /// What becomes of the command at the cut.
    Way: Unheard Lost Torn Refused Garbled Silent SilentUnheard Killed
}
all! {
    /// Test programs: each has the columns of its own.
    Part: Money Points Undone Issues Life Keys
}

/// Whether a technology's column is run.
pub enum Cell {
    Run,
    /// Nothing is ever written to it: this is refused, or can never be asked.
    Excused(&'static str),
}

impl Part {
    pub fn program(self) -> &'static str {
        match self {
            Self::Money => "cuts_money",
            Self::Points => "cuts_points",
            Self::Undone => "cuts_undone",
            Self::Issues => "cuts_issue",
            Self::Life => "cuts_life",
            Self::Keys => "counter_rekey",
        }
    }
}

impl Operation {
    pub fn part(self) -> Part {
        match self {
            Self::Topup | Self::Spend | Self::Mixed => Part::Money,
            Self::Earn | Self::Redeem | Self::Coupon | Self::Adjust => Part::Points,
            Self::Give | Self::Take | Self::Refund | Self::Void => Part::Undone,
            Self::Issue => Part::Issues,
            Self::Replace | Self::Return | Self::Extend => Part::Life,
            Self::Rekey => Part::Keys,
        }
    }
}

/// The operations of a kind of transaction.
pub fn of_kind(kind: TransactionKind) -> &'static [Operation] {
    use TransactionKind as Kind;
    match kind {
        // A card moves to newer keys behind a transaction.
        Kind::Topup => &[Operation::Topup, Operation::Rekey],
        Kind::Spend => &[Operation::Spend, Operation::Mixed],
        Kind::Earn => &[Operation::Earn],
        Kind::Redeem => &[Operation::Redeem],
        Kind::Coupon => &[Operation::Coupon],
        Kind::Adjust => &[Operation::Adjust],
        Kind::Transfer => &[Operation::Give, Operation::Take],
        Kind::Refund => &[Operation::Refund],
        Kind::Void => &[Operation::Void],
    }
}

/// The operation of an end, or of another last day.
pub fn of_life(life: &Life) -> Operation {
    match life {
        Life::Return { .. } => Operation::Return,
        Life::Replace { .. } => Operation::Replace,
        Life::Extend { .. } => Operation::Extend,
    }
}

/// The way that a fault is one of; the kill is a silence that nobody waits for.
pub fn way(fault: CardFault) -> Way {
    match fault {
        CardFault::PullUnheard => Way::Unheard,
        CardFault::Pull => Way::Lost,
        CardFault::PullTorn => Way::Torn,
        CardFault::Status(_) => Way::Refused,
        CardFault::Garbage | CardFault::Empty | CardFault::Half => Way::Garbled,
        CardFault::Mute => Way::Silent,
        CardFault::MuteUnheard => Way::SilentUnheard,
    }
}

impl Way {
    /// What the card does at the cut; what comes instead of an answer is another thing at each command.
    pub fn fault(self, at: usize) -> CardFault {
        let garbled = [CardFault::Garbage, CardFault::Half, CardFault::Empty];
        match self {
            Self::Unheard => CardFault::PullUnheard,
            Self::Lost => CardFault::Pull,
            Self::Torn => CardFault::PullTorn,
            Self::Refused => CardFault::Status(0x6300),
            Self::Garbled => garbled[at % garbled.len()],
            Self::Silent | Self::Killed => CardFault::Mute,
            Self::SilentUnheard => CardFault::MuteUnheard,
        }
    }

    /// Differs from `Lost` and `Silent` only where the command changes the card.
    pub fn at_writes_only(self) -> bool {
        matches!(self, Self::Torn | Self::SilentUnheard)
    }
}

/// The simulated cards of a technology.
pub fn cards(technology: Technology) -> &'static [Sim] {
    match technology {
        Technology::MifareClassic1k => &[Sim::Classic1k],
        Technology::MifareClassic4k => &[Sim::Classic4k],
        Technology::Ntag213 => &[Sim::Ntag213],
        Technology::Ntag215 => &[Sim::Ntag215],
        Technology::Ntag216 => &[Sim::Ntag216],
        Technology::Ntag424 => &[Sim::Ntag424],
        Technology::Ultralight => &[Sim::UltralightEv1, Sim::UltralightEv1Large],
        Technology::UltralightC => &[Sim::UltralightC],
        Technology::Desfire => &[Sim::Desfire, Sim::DesfireEv1],
        Technology::Cpu => &[Sim::Cpu, Sim::Bank],
        Technology::Sle4442 => &[Sim::Sle4442],
        Technology::Iso15693 => &[Sim::Icode],
        // A number and nothing to write to: the account is at headquarters.
        Technology::Em4100
        | Technology::Magstripe
        | Technology::Barcode
        | Technology::Qr
        | Technology::Unknown => &[],
    }
}

/// The row and column of the table.
pub fn cell(sim: Sim, operation: Operation) -> Cell {
    match (sim, operation) {
        (Sim::UltralightEv1, _) => Cell::Excused("48 bytes: too small for the record"),
        (Sim::Bank, _) => Cell::Excused("another issuer's card"),
        (Sim::Icode, _) => Cell::Excused("only says who it is: the account is at headquarters"),
        (Sim::Cpu, Operation::Rekey) => Cell::Excused("its keys are its maker's to change"),
        (Sim::Sle4442, Operation::Rekey) => {
            Cell::Excused("a code that may be torn is not changed on a card with money on it")
        }
        (
            Sim::Classic1k
            | Sim::Classic4k
            | Sim::UltralightEv1Large
            | Sim::UltralightC
            | Sim::Ntag213
            | Sim::Ntag215
            | Sim::Ntag216
            | Sim::Desfire
            | Sim::DesfireEv1
            | Sim::Ntag424
            | Sim::Cpu
            | Sim::Sle4442,
            _,
        ) => Cell::Run,
    }
}

/// The whole table.
pub fn all() -> impl Iterator<Item = (Sim, Operation)> {
    let of = |operation| Sim::value_variants().iter().map(move |sim| (*sim, operation));
    Operation::ALL.iter().copied().flat_map(of)
}

pub fn is_excused(sim: Sim, operation: Operation) -> bool {
    matches!(cell(sim, operation), Cell::Excused(_))
}

/// The columns of a program.
pub fn columns(part: Part) -> Vec<(Sim, Operation)> {
    let of_part = all().filter(|(_, operation)| operation.part() == part);
    of_part.filter(|(sim, operation)| !is_excused(*sim, *operation)).collect()
}
