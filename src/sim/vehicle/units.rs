//! Who is on a CAN bus: the units of a car, those of a truck, or both. What does not live
//! here: how frames reach them ([`super::bus`], [`super::slcan`]).

use std::collections::BTreeMap;
use std::time::Duration;

use super::car::{Car, Frame};
use super::spec::{CarSpec, SpecError};
use super::tape::Tape;
use super::truck::Truck;

/// The units on one bus.
#[derive(Debug)]
pub(super) struct Units {
    /// None: the adapter is out of the car, or the bus ends at an open plug.
    pub car: Option<Car>,
    /// Instead of the car's units or beside them, by the same key.
    pub truck: Option<Truck>,
    /// Instead of both: what was recorded of others.
    pub tape: Option<Tape>,
}

impl Units {
    pub(super) fn new(spec: &CarSpec) -> Result<Self, SpecError> {
        Ok(Self { car: Some(Car::new(spec)?), truck: spec.truck.clone(), tape: None })
    }

    /// Those of a recording.
    pub(super) fn of(tape: Tape) -> Self {
        Self { tape: Some(tape), ..Self::nobody() }
    }

    pub(super) fn nobody() -> Self {
        Self { car: None, truck: None, tape: None }
    }

    /// Somebody speaks without being asked.
    pub(super) fn broadcast(&self) -> bool {
        self.truck.is_some() && self.awake() || self.tape.as_ref().is_some_and(Tape::broadcasts)
    }

    /// Frames that the recording does not have.
    pub(super) fn missed(&self) -> BTreeMap<String, u64> {
        self.tape.as_ref().map(Tape::missed).unwrap_or_default()
    }

    /// Somebody acknowledges frames.
    pub(super) fn awake(&self) -> bool {
        self.tape.is_some() || self.car.as_ref().is_some_and(Car::awake)
    }

    /// Frames of a truck's units that nobody asked for, to be fetched every [`super::truck::TICK`].
    pub(super) fn tick(&mut self) -> Vec<(Duration, Frame)> {
        if let Some(tape) = &mut self.tape {
            return tape.tick();
        }
        let truck = if self.awake() { self.truck.as_mut() } else { None };
        truck.map(Truck::tick).unwrap_or_default()
    }

    /// A frame on the bus: what the units send back, each after its delay.
    pub(super) fn on_frame(&mut self, frame: &Frame) -> Vec<(Duration, Frame)> {
        if !self.awake() {
            return Vec::new();
        }
        if let Some(tape) = &mut self.tape {
            return tape.on_frame(frame);
        }
        let mut sent = self.truck.as_mut().map(|truck| truck.on_frame(frame)).unwrap_or_default();
        let answers_obd = self.truck.as_ref().is_none_or(|truck| truck.obd);
        if let Some(car) = self.car.as_mut().filter(|_| answers_obd) {
            let extended = frame.id == 0x6F1 && !frame.extended;
            sent.extend(if extended { by_extended_address(car, frame) } else { car.on_frame(frame) });
        }
        sent
    }
}

/// Extended addressing as on BMW's buses: the first byte names the unit (12 is the engine's),
/// answers come on 600 and that, F1 in front. Short ones only.
fn by_extended_address(car: &mut Car, frame: &Frame) -> Vec<(Duration, Frame)> {
    let Some((0x12, rest)) = frame.data.split_first() else { return Vec::new() };
    let asked = Frame { id: 0x7E0, extended: false, data: rest.to_vec() };
    let answers = car.on_frame(&asked).into_iter();
    let told = answers.map(|(after, answer)| {
        let mut data = vec![0xF1];
        data.extend(answer.data.iter().take(7));
        (after, Frame { id: 0x612, extended: false, data })
    });
    told.collect()
}
