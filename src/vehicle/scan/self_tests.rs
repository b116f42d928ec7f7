//! What the car tests by itself. What lives here: the questions for the results of monitors (06),
//! of oxygen sensors on older buses (05), and for the list of what could be controlled (08: its
//! masks alone, never a control).

use std::collections::BTreeSet;

use super::masks::Masks;
use super::{BrokeOff, Scan};
use crate::vehicle::gate::Request;
use crate::vehicle::protocol::EcuAddress;
use crate::vehicle::report::Told;

/// Tests of oxygen sensors asked for at most: each takes a fifth of a second on an older bus.
const OXYGEN_SENSOR_TESTS: usize = 24;

impl Scan<'_> {
    /// 06: masks, then every promised monitor. Older buses number tests instead of monitors
    /// (SAE J1979 §6.6); they are asked the same way.
    pub(super) async fn monitor_tests(&mut self) -> Result<(), BrokeOff> {
        let promised = |scan: &Self| -> BTreeSet<u8> {
            let ecus = scan.record.ecus();
            ecus.iter().flat_map(|ecu| scan.record.supported_monitors(ecu)).collect()
        };
        self.ask(Request::monitor(0x00), None).await?;
        self.masks(Masks::Monitors).await?;
        let wanted: Vec<u8> = promised(self).into_iter().filter(|mid| !mid.is_multiple_of(0x20)).collect();
        self.planned += wanted.len();
        for mid in wanted {
            self.ask(Request::monitor(mid), None).await?;
        }
        Ok(())
    }

    /// 05, on older buses alone: each oxygen sensor by its bit of PID 13 or 1D (SAE J1979 §6.5).
    pub(super) async fn oxygen_sensor_tests(&mut self) -> Result<(), BrokeOff> {
        let present = |told: &Told| match told.request.id() {
            Some(0x13 | 0x1D) if told.request.service() == 0x01 => told.payload.get(2).copied(),
            _ => None,
        };
        let present = self.record.told.iter().filter_map(present).fold(0, |all, sensors| all | sensors);
        let mut room = OXYGEN_SENSOR_TESTS;
        for sensor in (0..8).map(|bit| 1_u8 << bit).filter(|bit| present & bit != 0) {
            let mask = Request::oxygen_sensor_test(0x00, sensor);
            if !self.ask(mask, None).await? {
                // Not every car with sensors has the service; one silence says it for all of them.
                return Ok(());
            }
            let mut wanted: Vec<u8> = self.record.supported_sensor_tests(sensor).into_iter().collect();
            let beyond = wanted.split_off(room.min(wanted.len()));
            let beyond = beyond.into_iter().map(|test| Request::oxygen_sensor_test(test, sensor));
            self.leave_out(beyond, "more tests of oxygen sensors than a scan reads");
            room -= wanted.len();
            self.planned += wanted.len();
            for test in wanted {
                self.ask(Request::oxygen_sensor_test(test, sensor), None).await?;
            }
        }
        Ok(())
    }

    /// 08: which controls the units have, by their masks and nothing else. Few have any, and
    /// nobody promised the service: silence is no failure.
    pub(super) async fn control_support(&mut self) -> Result<(), BrokeOff> {
        let form: fn(u8) -> Option<Request> = match self.record.protocol.is_can() {
            true => Request::control_support,
            false => Request::control_support_older_bus,
        };
        for base in (0x00..=0xE0_u8).step_by(0x20) {
            let promised = |ecu: &EcuAddress| self.record.supported_controls(ecu).contains(&base);
            if base != 0 && !self.record.ecus().iter().any(promised) {
                break;
            }
            let Some(request) = form(base) else { break };
            self.probe(request).await?;
        }
        Ok(())
    }
}
