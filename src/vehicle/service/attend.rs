//! Looking at a car through an open adapter: voltage often, the bus when it may be
//! asked, one report a visit, live values in between.

use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::Service;
use super::visits::{OpenVisit, Surroundings};
use crate::clock::UtcMillis;
use crate::config::tables::Poll;
use crate::event::device::DeviceStatus;
use crate::event::vehicle::{Adapter as AdapterFacts, PidValue, VehicleReport, VinCheck, VinSource};
use crate::vehicle::adapter::Adapter;
use crate::vehicle::batch::Promises;
use crate::vehicle::battery::{CAR_VOLTS, Level};
use crate::vehicle::error::{AdapterError, VehicleError};
use crate::vehicle::obd::VinReading;
use crate::vehicle::pids::decode_pid;
use crate::vehicle::polling::{Decision, Polling, Situation, Traffic};
use crate::vehicle::powertrain;
use crate::vehicle::protocol::Protocol;
use crate::vehicle::report;
use crate::vehicle::scan::{self, Contact, ScanError};
use crate::vehicle::visit::{Presence, Seen, SeenVin};

/// So many good looks after a spoilt reply make the link well again.
const GOOD_LOOKS: u32 = 3;
/// So many spoilt replies in a row: the adapter is opened and set up anew.
const SPOILT_IN_A_ROW: u32 = 3;
/// Above this the car moves, km/h: a standing one may show one.
const MOVING_KMH: f64 = 2.0;
/// Control module voltage (SAE J1979-DA, PID 42).
pub(super) const MODULE_VOLTAGE: u8 = 0x42;

/// What can end a look: the log (the task ends) or the adapter (it is opened anew).
enum LookError {
    Service(VehicleError),
    Adapter(AdapterError),
}
impl From<VehicleError> for LookError {
    fn from(error: VehicleError) -> Self {
        Self::Service(error)
    }
}
impl From<AdapterError> for LookError {
    fn from(error: AdapterError) -> Self {
        Self::Adapter(error)
    }
}

/// What stays known of the plug while one adapter is open.
#[derive(Debug, Clone, Copy, Default)]
struct Plug {
    /// A car answered although the adapter measured less than a car's voltage: it has no voltage pin.
    blind: bool,
    restarts: u32,
}

impl Service {
    /// Returns why the adapter is to be opened anew.
    pub(super) async fn attend(&mut self, adapter: &mut Adapter) -> Result<AdapterError, VehicleError> {
        let mut head = self.store.head();
        head.mark_changed();
        let mut plug = Plug { restarts: adapter.restarts(), ..Plug::default() };
        let mut next_look = Instant::now();
        let mut spoilt_in_a_row = 0;
        loop {
            self.overhear_visit();
            tokio::select! {
                changed = head.changed() => {
                    if changed.is_err() {
                        return Ok(AdapterError::Gone("the log is closed".into()));
                    }
                    self.save_at_warning().await?;
                    match self.serve_requests(adapter).await? {
                        Some(error) if error.is_fatal() => return Ok(error),
                        Some(error) => self.spoilt(&error).await?,
                        // No look comes that would find the car gone.
                        None if self.table.poll == Poll::OnRequest => {
                            if let Err(error) = adapter.rest().await {
                                return Ok(error);
                            }
                        }
                        None => {}
                    }
                }
                error = adapter.idle() => return Ok(error),
                () = sleep_until(next_look) => {
                    match self.look(adapter, &mut plug).await {
                        Ok(()) => {
                            spoilt_in_a_row = 0;
                            match adapter.limitation() {
                                Some((code, detail)) => {
                                    self.device.set(DeviceStatus::Degraded, Some(code), Some(detail)).await?;
                                    self.good_since_trouble = Some(0);
                                }
                                None => self.good_look().await?,
                            }
                        }
                        Err(LookError::Service(error)) => return Err(error),
                        Err(LookError::Adapter(error)) => {
                            spoilt_in_a_row += 1;
                            if error.is_fatal() || spoilt_in_a_row >= SPOILT_IN_A_ROW {
                                return Ok(error);
                            }
                            self.spoilt(&error).await?;
                        }
                    }
                    next_look = Instant::now() + self.timing.pace.look;
                }
            }
        }
    }

    async fn look(&mut self, adapter: &mut Adapter, plug: &mut Plug) -> Result<(), LookError> {
        let measured = adapter.voltage().await?;
        // No bus carries it; the car's own measure is as good for its battery, not for the plug.
        // However often it is looked at, it is one measure, of then.
        let (measured_at, volts) = match (measured, self.module_volts) {
            (None, Some((told_at, volts))) => (told_at, Some(volts)),
            _ => (self.now(), measured),
        };
        if adapter.stirred() && self.visit.is_none() {
            // Asked at once, however long the pause after silence had become.
            self.polling = Polling::default();
        }
        self.listen_whether_asleep(adapter).await?;
        plug.blind |= std::mem::take(&mut self.scanned_unpowered);
        let powered = plug.blind || measured.is_none_or(|volts| volts >= CAR_VOLTS);
        let running = self.engine_running || self.moving;
        let level = self.battery.look(measured_at, volts, running, self.timing.pace.low_for);
        self.keep_rest().await?;
        let low = self.table.poll == Poll::Auto && level == Level::Low;
        let decision = if self.table.poll == Poll::Auto {
            let situation = Situation {
                now: self.now(),
                volts: measured,
                visit: self.visit.is_some(),
                running,
                battery: if measured.is_none() { self.level_told(level) } else { level },
                traffic: adapter.traffic(),
            };
            self.polling.decide(situation, &self.timing.pace)
        } else {
            Decision::Wait
        };
        self.say_battery(low, volts).await?;
        if decision != Decision::Ask {
            let seen = match (powered, self.bus_silent) {
                (false, _) => Seen::NoCar,
                (true, true) => Seen::BusSilent,
                (true, false) => Seen::Powered,
            };
            self.saw(seen, None).await?;
            if self.is_overhearing() {
                self.end_window().await?;
            }
            return Ok(());
        }
        match scan::contact(adapter).await? {
            Contact::Answers(protocol, units) => {
                // Asked again: the dongle may have been plugged in since the first reading, and an
                // adapter taken for blind would call every unplugging an ignition turned off.
                if measured.is_some_and(|volts| volts < CAR_VOLTS) {
                    plug.blind |= adapter.voltage().await?.is_some_and(|volts| volts < CAR_VOLTS);
                }
                let restarted =
                    std::mem::replace(&mut plug.restarts, adapter.restarts()) != adapter.restarts();
                self.car_answers(adapter, (protocol, units), measured, restarted).await
            }
            Contact::Silent(why) => {
                self.bus_silent = true;
                self.engine_running = false;
                self.moving = false;
                if self.visit.is_none() {
                    self.polling.was_silent(&self.timing.pace);
                }
                self.say_silent(powered, &why).await?;
                self.saw(if powered { Seen::BusSilent } else { Seen::NoCar }, None).await?;
                // So that the next question searches anew: the next car may speak another protocol.
                Ok(adapter.close_protocol().await?)
            }
        }
    }

    /// A bus that talked and fell silent sleeps: to be asked whether it is still there would wake
    /// it. Awake again, it is asked at once.
    async fn listen_whether_asleep(&mut self, adapter: &mut Adapter) -> Result<(), AdapterError> {
        match adapter.traffic() {
            Traffic::Quiet if !self.bus_silent => {
                (self.bus_silent, self.found_asleep) = (true, true);
                (self.engine_running, self.moving) = (false, false);
                adapter.close_protocol().await?;
            }
            Traffic::Alive if std::mem::take(&mut self.found_asleep) => self.polling = Polling::default(),
            Traffic::Alive | Traffic::Quiet | Traffic::Unheard => {}
        }
        Ok(())
    }

    /// What the car told of its battery was true when it was asked. Below the limit it is asked
    /// again, for it may have been the starter; low, it is left alone, and asked as rarely as any
    /// standing car whether it is still there and still low.
    fn level_told(&self, level: Level) -> Level {
        let old = self.module_volts.is_none_or(|(told_at, _)| {
            self.now().saturating_sub(told_at) >= self.timing.pace.engine_off_most
        });
        if level == Level::Doubtful || old { Level::Fine } else { level }
    }

    async fn car_answers(
        &mut self,
        adapter: &mut Adapter,
        (protocol, units): (Protocol, Promises),
        volts: Option<f64>,
        restarted: bool,
    ) -> Result<(), LookError> {
        self.bus_silent = false;
        self.polling.was_answered();
        // A truck is asked nothing in the background; its number takes a request.
        let vin_due = protocol != Protocol::J1939
            && self.now().saturating_sub(self.vin_read_at) >= self.timing.pace.vin;
        let vin = if self.presence.wants_vin() || restarted || vin_due {
            self.vin_read_at = self.now();
            seen_vin(scan::read_vin(adapter).await?)
        } else {
            SeenVin::NotAsked
        };
        self.saw(Seen::Car(vin), Some(surroundings(adapter, protocol, volts))).await?;
        self.overhear_visit();
        if self.visit.as_ref().is_some_and(OpenVisit::wants_scan) {
            match self.scan(adapter).await? {
                Ok(_) => {}
                Err(ScanError::Adapter(error)) => return Err(error.into()),
                Err(ScanError::NoAnswer { why }) => {
                    tracing::debug!(link = %self.table.id, why, "no answer to the scan");
                }
            }
        }
        self.sampling.met(&units);
        // A J1939 bus has neither PIDs nor makers' identifiers.
        if protocol != Protocol::J1939 {
            self.sample(adapter, volts).await?;
            self.sample_makers(adapter).await?;
        }
        Ok(self.end_window().await?)
    }

    /// A full scan, committed as a report of the visit it belongs to. The inner error is the car's or the adapter's.
    pub(super) async fn scan(
        &mut self,
        adapter: &mut Adapter,
    ) -> Result<Result<VehicleReport, ScanError>, VehicleError> {
        let bundle = std::sync::Arc::clone(&self.bundle);
        let begun = Instant::now();
        let link = self.table.id.clone();
        let scanned =
            scan::run_within(self.timing.scan, adapter, &bundle, Uuid::nil(), link, &mut |_| {}).await;
        self.remember_capabilities(adapter.remembered_as(&self.table.link), adapter.capabilities()).await?;
        let mut record = match scanned {
            Ok(record) => record,
            Err(error) => return Ok(Err(error)),
        };
        metrics::histogram!("baygate_vehicle_scan_seconds").record(begun.elapsed().as_secs_f64());
        // The scan may be the first to meet this car, or may have met another one than before.
        self.bus_silent = false;
        self.vin_read_at = self.now();
        self.scanned_unpowered = record.adapter.voltage_v.is_some_and(|volts| volts < CAR_VOLTS);
        let met = surroundings(adapter, record.protocol, record.adapter.voltage_v);
        self.saw(Seen::Car(seen_vin(record.vin())), Some(met)).await?;
        record.visit = self.visit.as_ref().map_or_else(Uuid::now_v7, |visit| visit.id);
        let mut report = report::build(&record, &bundle);
        self.sampling.scanned(&record);
        if let (None, Some(vin)) = (&report.vin, self.vin()) {
            // In this scan it was lost on the way; the visit knows it.
            report.vin_check = VinCheck::of(&vin);
            (report.vin, report.vin_source) = (Some(vin), Some(VinSource::Visit));
        }
        self.compare_with_last_visit(&mut report).await?;
        self.engine_running = report.engine_running == Some(true);
        let volts = report::first_number(&report.ecus, "0142");
        self.module_volts = volts.map(|volts| (self.now(), volts));
        self.powertrain = report.powertrain;
        self.make_agenda(report.vin.as_ref());
        if record.protocol != Protocol::J1939 {
            self.report_makers(adapter, &mut report).await;
        }
        self.keep_report(&mut report).await?;
        Ok(Ok(report))
    }

    async fn sample(&mut self, adapter: &mut Adapter, volts: Option<f64>) -> Result<(), LookError> {
        let time = UtcMillis::now();
        if let Some(volts) = volts {
            self.window.add_number("adapter_voltage", "V", volts, time);
        }
        let bundle = std::sync::Arc::clone(&self.bundle);
        let mut wanted = powertrain::live_pids(self.powertrain).to_vec();
        if matches!(adapter, Adapter::Can(_)) {
            // Nothing is typed there: of 0142 no lost character makes 04.
            wanted.push(MODULE_VOLTAGE);
        }
        for outcome in self.sampling.ask(adapter, &bundle.pids, &wanted).await? {
            let Some(row) = bundle.pids.get(0x01, outcome.pid) else { continue };
            self.count_garbage(outcome.garbage);
            // Of several ECUs the first by address, the engine's.
            let values = outcome
                .messages
                .first()
                .and_then(|message| message.payload.get(2..))
                .and_then(|data| decode_pid(row, data).ok());
            let Some(values) = values else {
                self.missed(outcome.pid);
                continue;
            };
            let time = UtcMillis::now();
            for value in values {
                self.heard(outcome.pid, &value);
                self.window.add(&value, time);
            }
        }
        Ok(())
    }

    /// Engine and road speed tell whether the car is awake by itself.
    fn heard(&mut self, pid: u8, value: &PidValue) {
        match (pid, value.value.as_f64()) {
            (0x0C, rpm) => {
                self.engine_running = powertrain::engine_running(self.powertrain, rpm) == Some(true);
            }
            (0x0D, Some(kmh)) => self.moving = kmh >= MOVING_KMH,
            (MODULE_VOLTAGE, Some(volts)) => self.module_volts = Some((self.now(), volts)),
            _ => {}
        }
    }

    /// A value that no longer comes says nothing of how the car stands now: what it said last
    /// must not keep a car awake that was switched off.
    fn missed(&mut self, pid: u8) {
        match pid {
            0x0C => self.engine_running = false,
            0x0D => self.moving = false,
            _ => {}
        }
        self.sampling.missed(pid);
    }

    pub(super) fn count_garbage(&self, garbage: usize) {
        if garbage > 0 {
            metrics::counter!("baygate_vehicle_garbage_total", "link" => self.table.id.to_string())
                .increment(garbage as u64);
        }
    }

    /// Plugged into a car that says nothing is no fault of the link; what it may mean is said once.
    async fn say_silent(&mut self, powered: bool, why: &str) -> Result<(), VehicleError> {
        if self.good_since_trouble.is_some() || self.visit.is_some() {
            return Ok(());
        }
        if !powered {
            return Ok(self.device.set(DeviceStatus::Ready, None, None).await?);
        }
        let detail = format!(
            "plugged in, no control unit answers ({why}): ignition off, a battery car, or a secure gateway in the way; switch the ignition on, or ask for a scan"
        );
        Ok(self.device.set(DeviceStatus::Ready, Some("no-obd-answer"), Some(detail)).await?)
    }

    /// A car that is not asked because of its battery would else look forgotten.
    async fn say_battery(&mut self, low: bool, volts: Option<f64>) -> Result<(), VehicleError> {
        let was_low = std::mem::replace(&mut self.battery_low, low);
        if self.good_since_trouble.is_some() {
            return Ok(());
        }
        if low {
            let volts = volts.unwrap_or_default();
            let detail = format!(
                "the car's battery is low ({volts:.1} V): it is not asked in the background; connect a charger or start the engine, or ask for a scan"
            );
            return Ok(self.device.set(DeviceStatus::Ready, Some("battery-low"), Some(detail)).await?);
        }
        if was_low {
            self.device.set(DeviceStatus::Ready, None, None).await?;
        }
        Ok(())
    }

    /// A reply was spoilt, the adapter works on.
    async fn spoilt(&mut self, error: &AdapterError) -> Result<(), VehicleError> {
        self.count_garbage(1);
        self.good_since_trouble = Some(0);
        self.told(error).await
    }

    async fn good_look(&mut self) -> Result<(), VehicleError> {
        if let Some(good) = &mut self.good_since_trouble {
            *good += 1;
            if *good >= GOOD_LOOKS {
                return self.well().await;
            }
        } else if self.visit.is_some()
            && matches!(self.presence, Presence::Here(_))
            && !self.bus_silent
            && !self.battery_low
        {
            self.device.set(DeviceStatus::Ready, None, None).await?;
        }
        Ok(())
    }
}

fn seen_vin(reading: VinReading) -> SeenVin {
    match reading {
        VinReading::Read(vin) => SeenVin::Read(vin),
        VinReading::Missing | VinReading::Malformed => SeenVin::NotGiven,
    }
}

fn surroundings(adapter: &Adapter, protocol: Protocol, volts: Option<f64>) -> Surroundings {
    Surroundings {
        protocol: protocol.name().into(),
        adapter: AdapterFacts {
            identity: adapter.identity().name.clone(),
            firmware: adapter.identity().firmware.clone(),
            voltage_v: volts,
        },
    }
}
