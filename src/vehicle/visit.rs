//! When a visit begins and ends. A pure state machine: what was seen on the
//! link goes in with the time since start, actions come out. The service
//! carries them out; nothing here sends or stores.
//!
//! ```text
//!            car answers                    gone longer than its patience
//!   Away ───────────────► Here{vin} ──────────────────────────────────────► Away
//!            arrive        │   ▲ same VIN, or back in time                 depart
//!                          └───┘  other VIN: depart(swapped) + arrive
//! ```
//! The ladder of presence: port open → prompt → voltage of a car → 0100 answers → VIN.
//! A car without OBD answers (ignition off, battery car, secure gateway) is no
//! visit yet and is not called silent: the service says in the link's state what it sees.

use std::time::Duration;

use crate::event::vehicle::DepartureReason;
use crate::ident::Vin;

/// How long something must last before it ends a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// No car's voltage at the plug.
    pub unplugged: Duration,
    /// Voltage, and no ECU answers.
    pub ignition_off: Duration,
    /// The adapter itself is away: dongles reconnect within seconds.
    pub link_lost: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            unplugged: Duration::from_secs(3),
            ignition_off: Duration::from_secs(10),
            link_lost: Duration::from_secs(15),
        }
    }
}

/// What one look at the link showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The adapter is away.
    LinkDown,
    /// The adapter answers; below 6 V no car is plugged in.
    NoCar,
    /// A car's voltage; the bus was not asked.
    Powered,
    /// The bus was asked and no ECU answers.
    BusSilent,
    /// ECUs answer.
    Car(SeenVin),
}

/// What is known of the VIN at a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenVin {
    /// Not asked this time.
    NotAsked,
    /// Asked; the car gives none, or nothing that is one.
    NotGiven,
    /// Asked and read.
    Read(Vin),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The visit ends.
    Depart(DepartureReason),
    /// A visit begins.
    Arrive(Option<Vin>),
    /// The running visit's VIN became known.
    Identify(Vin),
}

/// Where the link stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// No visit.
    Away,
    /// A visit is open.
    Here(Here),
}

/// An open visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// The car, when known.
    pub vin: Option<Vin>,
    /// Since when the car is not seen.
    pub missing_since: Option<Duration>,
    /// The car was out of sight since its VIN was last read: it may be another one.
    pub doubtful: bool,
    /// The visit was found open at start and not yet confirmed.
    pub recovered: bool,
}

impl Presence {
    /// A visit found open in the store at start.
    #[must_use]
    pub fn recovered(vin: Option<Vin>, now: Duration) -> Self {
        Self::Here(Here { vin, missing_since: Some(now), doubtful: true, recovered: true })
    }

    /// Whether the next look at an answering car must read the VIN.
    #[must_use]
    pub fn wants_vin(&self) -> bool {
        match self {
            Self::Away => true,
            Self::Here(here) => here.doubtful || here.missing_since.is_some(),
        }
    }

    /// The next state and what is to be done.
    #[must_use]
    pub fn next(self, seen: Seen, now: Duration, patience: &Patience) -> (Self, Vec<Action>) {
        match (self, seen) {
            (Self::Away, Seen::Car(vin)) => arrive(vin),
            (Self::Away, _) => (Self::Away, Vec::new()),
            (Self::Here(here), Seen::Car(vin)) => here.car_answers(vin),
            (Self::Here(here), Seen::Powered) => {
                // Power is back or was never away. If it was away, somebody may have changed cars.
                let doubtful = here.doubtful || here.missing_since.is_some();
                let missing_since = here.missing_since.filter(|_| here.recovered);
                here.unless_over(
                    Here { doubtful, missing_since, ..here.clone() },
                    now,
                    patience.link_lost,
                    DepartureReason::LinkLost,
                )
            }
            (Self::Here(here), Seen::LinkDown) => {
                here.missing(now, patience.link_lost, DepartureReason::LinkLost)
            }
            (Self::Here(here), Seen::NoCar) => {
                here.missing(now, patience.unplugged, DepartureReason::Unplugged)
            }
            (Self::Here(here), Seen::BusSilent) => {
                here.missing(now, patience.ignition_off, DepartureReason::IgnitionOff)
            }
        }
    }
}

fn arrive(vin: SeenVin) -> (Presence, Vec<Action>) {
    let vin = match vin {
        SeenVin::Read(vin) => Some(vin),
        SeenVin::NotGiven | SeenVin::NotAsked => None,
    };
    let here = Here { vin: vin.clone(), missing_since: None, doubtful: false, recovered: false };
    (Presence::Here(here), vec![Action::Arrive(vin)])
}

impl Here {
    fn car_answers(self, seen: SeenVin) -> (Presence, Vec<Action>) {
        let stays = |vin: Option<Vin>, doubtful, recovered| {
            Presence::Here(Self { vin, missing_since: None, doubtful, recovered })
        };
        match (seen, self.vin) {
            // The same car. (`recovered` ends: the crash lost nothing of it.)
            (SeenVin::Read(read), Some(known)) if read == known => {
                (stays(Some(known), false, false), Vec::new())
            }
            // After a crash only the same VIN proves the same visit.
            (seen, _) if self.recovered && seen != SeenVin::NotAsked => {
                change(DepartureReason::LinkLost, seen)
            }
            (SeenVin::Read(read), Some(_)) => change(DepartureReason::Swapped, SeenVin::Read(read)),
            // It said nothing of its VIN before and does now. If it was out of sight meanwhile
            // it may be another car, but nothing proves it: the visit is given the name.
            (SeenVin::Read(read), None) => {
                (stays(Some(read.clone()), false, false), vec![Action::Identify(read)])
            }
            (SeenVin::NotGiven, vin) => (stays(vin, false, false), Vec::new()),
            (SeenVin::NotAsked, vin) => (stays(vin, self.doubtful, self.recovered), Vec::new()),
        }
    }

    fn missing(self, now: Duration, patience: Duration, reason: DepartureReason) -> (Presence, Vec<Action>) {
        // What happened between crash and start is not known: only that the link was lost.
        let reason = if self.recovered { DepartureReason::LinkLost } else { reason };
        let since = self.missing_since.unwrap_or(now);
        let still = Self { missing_since: Some(since), doubtful: true, ..self.clone() };
        self.unless_over(still, now, patience, reason)
    }

    /// `still`, unless the car is missing for longer than `patience`.
    fn unless_over(
        &self,
        still: Self,
        now: Duration,
        patience: Duration,
        reason: DepartureReason,
    ) -> (Presence, Vec<Action>) {
        match still.missing_since {
            Some(since) if now.saturating_sub(since) >= patience => {
                (Presence::Away, vec![Action::Depart(reason)])
            }
            _ => (Presence::Here(still), Vec::new()),
        }
    }
}

fn change(reason: DepartureReason, seen: SeenVin) -> (Presence, Vec<Action>) {
    let (next, arrived) = arrive(seen);
    let mut actions = vec![Action::Depart(reason)];
    actions.extend(arrived);
    (next, actions)
}

#[cfg(test)]
mod tests;
