//! Who is who on a diagnostic CAN bus (ISO 15765-4 §10.4, ISO 15765-2 normal fixed
//! addressing). Pure.

use super::isotp::Form;
use crate::link::can::{Id, Pass};
use crate::vehicle::gate::{Target, UnitAddress};
use crate::vehicle::j1939::listener;
use crate::vehicle::protocol::Protocol;

/// The functional address of 11 bits.
const FUNCTIONAL_11: Id = Id::standard(0x7DF);
/// The functional address of 29 bits.
const FUNCTIONAL_29: Id = Id::extended(0x18DB_33F1);
/// Physical address of 29 bits, between a unit and the tester F1.
const PHYSICAL_29: u32 = 0x18DA_0000;
const TESTER: u32 = 0xF1;

/// Length of the IDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Eleven,
    TwentyNine,
}

impl Width {
    pub(super) fn of(id: u32) -> Self {
        if id <= 0x7FF { Self::Eleven } else { Self::TwentyNine }
    }

    /// A protocol with identifiers so wide, for the form of addresses.
    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::Eleven => Protocol::Can11At500,
            Self::TwentyNine => Protocol::Can29At500,
        }
    }
}

/// Where a request goes.
pub(super) fn request_id(width: Width, target: Target) -> Id {
    match (target.request_id(), width) {
        (None, Width::Eleven) => FUNCTIONAL_11,
        (None, Width::TwentyNine) => FUNCTIONAL_29,
        (Some(id), Width::Eleven) => Id::standard(id),
        (Some(id), Width::TwentyNine) => Id::extended(id),
    }
}

/// The unit that answers functional requests with this ID; `None`: it is no such answer.
pub(super) fn unit_of(answer: Id) -> Option<Id> {
    let number = answer.number();
    match answer.is_extended() {
        false => (0x7E8..=0x7EF).contains(&number).then(|| Id::standard(number - 8)),
        true => (number & 0x1FFF_FF00 == PHYSICAL_29 | TESTER << 8)
            .then(|| Id::extended(PHYSICAL_29 | (number & 0xFF) << 8 | TESTER)),
    }
}

/// How frames to and from `target` are written.
pub(super) fn form(target: Target) -> Form {
    match target {
        Target::Functional | Target::Unit(_) | Target::Paired(_) => Form::default(),
        Target::Extended(address) => Form::extended(address.unit(), address.tester()),
    }
}

/// What the one unit of `target` answers with. `None`: everybody is asked, or no unit of diagnosis.
pub(super) fn answer_id(width: Width, target: Target) -> Option<Id> {
    if let Target::Extended(address) = target {
        return Some(Id::standard(address.answer_id()));
    }
    let answer = UnitAddress::of(width.protocol(), target)?.answer_id();
    Some(if width == Width::Eleven { Id::standard(answer) } else { Id::extended(answer) })
}

/// The kernel's filters while nothing is asked: what units answer, of whichever length, and
/// what shows that the bus speaks J1939.
pub(super) fn answers() -> Vec<Pass> {
    let widths = [Width::Eleven, Width::TwentyNine].into_iter();
    let answers = widths.flat_map(|width| passes(width, Target::Functional));
    answers.chain(listener::BROADCASTS.into_iter().map(group)).collect()
}

/// The kernel's filters while a J1939 bus is listened to.
pub(super) fn groups() -> Vec<Pass> {
    listener::groups().into_iter().map(group).collect()
}

/// Frames of a parameter group, whatever their priority and source, and below F000 to
/// whomever (SAE J1939-21 §5.2).
fn group(group: u32) -> Pass {
    let mask = if group >> 8 & 0xFF < 0xF0 { 0x03FF_0000 } else { 0x03FF_FF00 };
    Pass { id: Id::extended(group << 8), mask }
}

/// The kernel's filters while a request to `target` is open.
pub(super) fn passes(width: Width, target: Target) -> Vec<Pass> {
    match (target, width) {
        (Target::Functional, Width::Eleven) => vec![Pass { id: Id::standard(0x7E8), mask: 0x7F8 }],
        (Target::Functional, Width::TwentyNine) => {
            vec![Pass { id: Id::extended(PHYSICAL_29 | TESTER << 8), mask: 0x1FFF_FF00 }]
        }
        (Target::Unit(_) | Target::Paired(_) | Target::Extended(_), _) => {
            answer_id(width, target).map(|id| Pass { id, mask: 0x1FFF_FFFF }).into_iter().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_groups() {
        let passes = |id: u32| groups().iter().any(|pass| (pass.id.number() ^ id) & pass.mask == 0);
        for (id, expected) in [
            (0x18FE_CA00, true),
            (0x0CFE_CA3D, true),
            (0x1CEB_FF3D, true),
            (0x1CEC_F900, true),
            (0x18EA_FFF9, true),
            (0x18DA_F110, false),
            (0x18FE_C100, false),
            (0x19FE_CA00, false),
        ] {
            assert_eq!(passes(id), expected, "{id:08X}");
        }
        assert!(answers().iter().all(|pass| pass.mask != 0));
    }

    #[test]
    fn units_and_their_answers() {
        // Source: ISO 15765-4 tables of legislated IDs; the 29-bit pair is of the ELM327 data sheet.
        for (answer, unit) in [
            (Id::standard(0x7E8), Some(Id::standard(0x7E0))),
            (Id::standard(0x7EF), Some(Id::standard(0x7E7))),
            (Id::standard(0x7E7), None),
            (Id::extended(0x7E8), None),
            (Id::extended(0x18DA_F110), Some(Id::extended(0x18DA_10F1))),
            (Id::extended(0x18DA_F210), None),
        ] {
            assert_eq!(unit_of(answer), unit, "{answer}");
            if let Some(unit) = unit {
                let target = Target::Unit(unit.number());
                assert_eq!(answer_id(Width::of(unit.number()), target), Some(answer));
            }
        }
        assert_eq!(answer_id(Width::Eleven, Target::Unit(0x7F9)), None);
        let paired = Target::answering_on(0x710, 0x77A).unwrap();
        let only = Pass { id: Id::standard(0x77A), mask: 0x1FFF_FFFF };
        assert_eq!(passes(Width::Eleven, paired), [only]);
        assert_eq!(request_id(Width::Eleven, paired), Id::standard(0x710));
    }
}
