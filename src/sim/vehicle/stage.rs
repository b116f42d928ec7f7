//! Where a script is played: an ELM327 with its car, an slcan adapter on a bus, an interface
//! of the kernel. What lives here: which steps each can do, and who is told to.

use super::adapter::Adapter;
use super::bus::BusSim;
use super::fault::Fault;
use super::script::Action;
use super::slcan::{SlcanFault, SlcanSim};
use super::spec::SpecError;
use super::{Car, VehicleSim};

/// A running simulator that a [`super::Script`] plays on.
#[derive(Debug)]
pub enum Stage<'a> {
    /// An ELM327.
    Elm327(&'a mut VehicleSim),
    /// An slcan adapter.
    Slcan(&'a mut SlcanSim),
    /// An interface of the kernel.
    Interface(&'a mut BusSim),
}

/// What kind of stage it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An ELM327: every step but a truck.
    Elm327,
    /// An slcan adapter: what happens to the car, to the cable and to the adapter's lines.
    Slcan,
    /// An interface of the kernel: what happens to the car and on the bus.
    Interface,
}

impl<'a> From<&'a mut VehicleSim> for Stage<'a> {
    fn from(sim: &'a mut VehicleSim) -> Self {
        Self::Elm327(sim)
    }
}

impl<'a> From<&'a mut SlcanSim> for Stage<'a> {
    fn from(sim: &'a mut SlcanSim) -> Self {
        Self::Slcan(sim)
    }
}

impl<'a> From<&'a mut BusSim> for Stage<'a> {
    fn from(sim: &'a mut BusSim) -> Self {
        Self::Interface(sim)
    }
}

impl Place {
    /// Whether a step can be done there at all.
    pub(super) fn can(self, action: &Action) -> bool {
        match action {
            Action::Plug(spec) | Action::Swap(spec) => self != Self::Elm327 || spec.truck.is_none(),
            Action::Vanish | Action::Return => self != Self::Interface,
            Action::Garble => true,
            Action::GarbleEvery(_) | Action::Nulls | Action::BrownOut | Action::Freeze => {
                self != Self::Interface
            }
            _ => self == Self::Elm327 || is_of_the_car(action),
        }
    }
}

impl Stage<'_> {
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Elm327(_) => Place::Elm327,
            Self::Slcan(_) => Place::Slcan,
            Self::Interface(_) => Place::Interface,
        }
    }

    pub(super) async fn happen(&mut self, action: &Action) -> Result<(), SpecError> {
        match self {
            Self::Elm327(sim) => on_elm327(sim, action).await?,
            Self::Slcan(sim) => match action {
                Action::Garble => sim.fault(SlcanFault::Garble),
                Action::GarbleEvery(every) => sim.fault(SlcanFault::GarbleEvery(*every)),
                Action::Nulls => sim.fault(SlcanFault::Nulls),
                Action::BrownOut => sim.fault(SlcanFault::BrownOut),
                Action::Freeze => sim.fault(SlcanFault::Freeze),
                Action::Vanish => sim.vanish().await,
                Action::Return => sim.come_back().await,
                Action::Unplug => sim.unplug(),
                Action::Plug(spec) | Action::Swap(spec) => sim.swap(spec)?,
                _ => return sim.with_car(|car| in_car(car, action)).unwrap_or(Ok(())),
            },
            Self::Interface(sim) => match action {
                Action::Garble => sim.garble(),
                Action::Unplug => sim.unplug(),
                Action::Plug(spec) | Action::Swap(spec) => sim.swap(spec)?,
                _ => return sim.with_car(|car| in_car(car, action)).unwrap_or(Ok(())),
            },
        }
        Ok(())
    }
}

/// What happens in the car and needs no adapter.
fn is_of_the_car(action: &Action) -> bool {
    matches!(
        action,
        Action::Drop
            | Action::Half
            | Action::Delay(_)
            | Action::Pending(_)
            | Action::Unplug
            | Action::Engine(_)
            | Action::BatteryV(_)
            | Action::Set(_)
            | Action::Drift(_)
    )
}

fn in_car(car: &mut Car, action: &Action) -> Result<(), SpecError> {
    match action {
        Action::Drop => car.miss(1),
        Action::Half => car.halve(),
        Action::Delay(span) => car.delay(span.0),
        Action::Pending(times) => car.postpone(*times),
        Action::Engine(engine) => car.turn(*engine),
        Action::BatteryV(volts) => car.battery(Some(*volts)),
        Action::Set(held) => return car.set(&held.signal, held.value),
        Action::Drift(drift) => return car.drift(&drift.signal, drift.to, drift.over.0),
        _ => {}
    }
    Ok(())
}

async fn on_elm327(sim: &mut VehicleSim, action: &Action) -> Result<(), SpecError> {
    let fault = match action {
        Action::Drop => Fault::DropReply,
        Action::Garble => Fault::Garble,
        Action::GarbleEvery(every) => Fault::GarbleEvery(*every),
        Action::Delay(span) => Fault::Delay(span.0),
        Action::Half => Fault::HalfThenSilence,
        Action::Nulls => Fault::Nulls,
        Action::Say(text) => Fault::Say(text.clone()),
        Action::LoseInTurn(span) => Fault::LoseInTurn { span: *span, from: 0 },
        Action::LoseEnds(every) => Fault::LoseEnds(*every),
        Action::Pending(times) => Fault::Pending(*times),
        Action::BrownOut => Fault::BrownOut,
        Action::Freeze => Fault::Freeze,
        Action::Vanish => {
            sim.vanish().await;
            return Ok(());
        }
        Action::Return => {
            sim.return_().await;
            return Ok(());
        }
        Action::Adapter(name) => {
            let adapter = Adapter::named(name).map_err(|error| SpecError::Script(error.to_string()))?;
            sim.replace_adapter(adapter);
            return Ok(());
        }
        Action::Unplug => {
            sim.unplug();
            return Ok(());
        }
        Action::Plug(car) | Action::Swap(car) => return sim.plug(car),
        Action::Engine(engine) => {
            sim.engine(*engine);
            return Ok(());
        }
        Action::BatteryV(volts) => {
            sim.battery(Some(*volts));
            return Ok(());
        }
        Action::Set(held) => return sim.set(&held.signal, held.value),
        Action::Drift(drift) => return sim.drift(&drift.signal, drift.to, drift.over.0),
    };
    sim.fault(fault);
    Ok(())
}
