//! Who answers UDS: units are asked one by one for the VIN (22 F190), at the addresses of
//! diagnosis, and those of J1979-2, once one is found, all at once (22 F400). What lives here: the addresses, when to stop, the VIN of a car that is silent to
//! J1979. Bounded in time, and a bus on which nobody acknowledges (the car sleeps) is asked
//! once and left.

use std::time::{Duration, Instant};

use crate::vehicle::adapter::Adapter;
use crate::vehicle::answer::{Answer, Complaint, Message};
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{Request, Target};
use crate::vehicle::obd::{self, VinReading};
use crate::vehicle::protocol::{EcuAddress, HeaderForm};

/// Vehicle identification number (ISO 14229-1 annex C.1).
pub const VIN: u16 = 0xF190;
/// Which parameters there are, from 01 to 20 (SAE J1979-2).
const MASK: u16 = 0xF400;
/// For a scan that somebody asked for.
pub const SCAN_BUDGET: Duration = Duration::from_secs(8);
/// For a look in the background: a car without J1979 is asked as rarely as a silent one. Enough for all
/// addresses of both lengths where each is waited for in vain (300 ms on a bus without dongle).
pub const LOOK_BUDGET: Duration = Duration::from_secs(6);

/// 11 bits (ISO 15765-4 §10.3.2): the engine's or drive's unit first, then in the order in which
/// makers of battery cars give out addresses (7E4 is a battery's on many of them).
const NARROW: [u32; 8] = [0x7E0, 0x7E4, 0x7E2, 0x7E1, 0x7E3, 0x7E7, 0x7E5, 0x7E6];
/// 29 bits: nodes of SAE J2178-1 (engine 10, 11, transmission 18, brakes 28, body 40, display 60),
/// and 58, 59, 5D, 01 as public captures of J1979-2 cars show them.
const WIDE: [u8; 10] = [0x10, 0x58, 0x01, 0x11, 0x18, 0x59, 0x5D, 0x28, 0x40, 0x60];

/// A unit that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its requests' arbitration ID.
    pub request_id: u32,
    /// Who it answers as.
    pub address: EcuAddress,
    /// Its answer to 22 F190, when it gave one.
    pub vin: Option<Vec<u8>>,
}

/// Where requests to the unit with this response address go; `None`: not a CAN address of diagnosis.
#[must_use]
pub fn request_id(address: &EcuAddress) -> Option<u32> {
    let id = u32::from_str_radix(&address.0, 16).ok()?;
    match (address.0.len(), id) {
        (3, 0x7E8..=0x7EF) => Some(id - 8),
        (8, _) if id & 0xFFFF_FF00 == 0x18DA_F100 => Some(0x18DA_00F1 | (id & 0xFF) << 8),
        _ => None,
    }
}

/// Who answers as, of a unit asked at `request_id`.
fn response(request_id: u32) -> EcuAddress {
    if request_id > 0x7FF {
        EcuAddress(format!("18DAF1{:02X}", request_id >> 8 & 0xFF))
    } else {
        EcuAddress(format!("{:03X}", request_id + 8))
    }
}

/// All units that answer within `budget`; on a car of J1979-2 those of emissions, as J1979 knows no
/// others either.
///
/// # Errors
/// [`AdapterError`].
pub async fn units(adapter: &mut Adapter, budget: Duration) -> Result<Vec<Unit>, AdapterError> {
    let mut found = Vec::new();
    search(adapter, budget, &mut found, &mut |_| {}).await?;
    Ok(found)
}

/// The same, where those `found` count also when the adapter fails behind them. `before` is told each
/// request.
///
/// # Errors
/// [`AdapterError`].
pub(super) async fn search(
    adapter: &mut Adapter,
    budget: Duration,
    found: &mut Vec<Unit>,
    before: &mut (dyn FnMut(Request) + Send),
) -> Result<(), AdapterError> {
    let until = Instant::now() + budget;
    before(Request::data_by_identifier(VIN));
    look(adapter, until, found, |_| true).await?;
    if found.is_empty() {
        return Ok(());
    }
    before(Request::data_by_identifier(MASK));
    let emissions = emissions_units(adapter, until).await?;
    if emissions.is_empty() {
        before(Request::data_by_identifier(VIN));
        look(adapter, until, found, |_| false).await?;
    }
    for unit in emissions {
        if found.iter().all(|known| known.address != unit.address) {
            found.push(unit);
        }
    }
    Ok(())
}

/// Who promises the state of its monitors (F401) when all are asked at once. That spares waiting at
/// each address where nobody is. Who promises it is not alone perhaps: it is asked twice while there is
/// time, for nobody tells who missed it. None: no car of J1979-2.
async fn emissions_units(adapter: &mut Adapter, until: Instant) -> Result<Vec<Unit>, AdapterError> {
    let promises = |message: &Message| {
        let mask = obd::four_bytes(&message.payload, 3);
        mask.is_some_and(|mask| obd::supported(0x00, mask).contains(&0x01))
    };
    let mut told: Vec<Message> = Vec::new();
    for _ in 0..2 {
        match adapter.ask(Request::data_by_identifier(MASK), None).await {
            Ok(answer) => told.extend(answer.messages),
            Err(error) if error.is_fatal() => return Err(error),
            // Half a reply took seconds, and the next one would.
            Err(_) => break,
        }
        if !told.iter().any(promises) {
            return Ok(Vec::new());
        }
        if Instant::now() >= until {
            break;
        }
    }
    let mut units: Vec<Unit> = Vec::new();
    for message in told {
        let new = units.iter().all(|unit| unit.address != message.sender);
        if let Some(request_id) = request_id(&message.sender).filter(|_| new) {
            units.push(Unit { request_id, address: message.sender, vin: None });
        }
    }
    Ok(units)
}

/// The VIN by UDS, of the first unit that gives one.
///
/// # Errors
/// [`AdapterError`].
pub async fn vin(adapter: &mut Adapter, budget: Duration) -> Result<VinReading, AdapterError> {
    let mut units = Vec::new();
    let read = |unit: &Unit| matches!(reading(unit), VinReading::Read(_));
    look(adapter, Instant::now() + budget, &mut units, read).await?;
    let readings = units.iter().map(reading);
    Ok(readings.fold(VinReading::Missing, |best, reading| match (&best, &reading) {
        (VinReading::Read(_), _) | (_, VinReading::Missing) => best,
        _ => reading,
    }))
}

fn reading(unit: &Unit) -> VinReading {
    unit.vin
        .as_deref()
        .and_then(|payload| payload.get(3..))
        .map_or(VinReading::Missing, VinReading::from_info)
}

/// Goes through the addresses, from behind the unit that was `found` last, until there are `enough`.
async fn look(
    adapter: &mut Adapter,
    until: Instant,
    found: &mut Vec<Unit>,
    enough: impl Fn(&Unit) -> bool,
) -> Result<(), AdapterError> {
    let known = adapter.protocol().map(|protocol| protocol.header());
    for form in [HeaderForm::Can11, HeaderForm::Can29] {
        let addresses = addresses(form);
        let elsewhere = found.iter().any(|unit| !addresses.contains(&unit.request_id));
        if known.is_some_and(|known| known != form) || elsewhere {
            continue;
        }
        let last = found.last().map(|unit| unit.request_id);
        let behind = addresses.iter().position(|id| Some(*id) == last).map_or(0, |place| place + 1);
        for &request_id in addresses.iter().skip(behind) {
            if Instant::now() >= until {
                return Ok(());
            }
            let Some(answer) = ask_for_vin(adapter, request_id).await? else { continue };
            if nobody_acknowledges(&answer) {
                return Ok(());
            }
            if let Some(unit) = answered(request_id, &answer) {
                let enough = enough(&unit);
                found.push(unit);
                if enough {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Where units of diagnosis are asked on a bus with such identifiers; none on one that is no CAN.
fn addresses(form: HeaderForm) -> Vec<u32> {
    match form {
        HeaderForm::Can11 => NARROW.to_vec(),
        HeaderForm::Can29 => WIDE.iter().map(|node| 0x18DA_00F1 | u32::from(*node) << 8).collect(),
        HeaderForm::ThreeBytes { .. } => Vec::new(),
    }
}

/// `None`: the question could not be put, or what came was no answer.
async fn ask_for_vin(adapter: &mut Adapter, request_id: u32) -> Result<Option<Answer>, AdapterError> {
    let request = Request::data_by_identifier(VIN).to(Target::Unit(request_id));
    let Some(request) = request else { return Ok(None) };
    match adapter.ask(request, None).await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_fatal() => Err(error),
        Err(_) => Ok(None),
    }
}

/// Units that answer UDS beside those `known`, on the bus that is known. False: the time did not do for
/// all addresses. Those `found` count also when the adapter fails behind them.
///
/// # Errors
/// [`AdapterError`].
pub(super) async fn others(
    adapter: &mut Adapter,
    known: &[Unit],
    until: Instant,
    found: &mut Vec<Unit>,
    before: &mut (dyn FnMut(Request) + Send),
) -> Result<bool, AdapterError> {
    let Some(protocol) = adapter.protocol() else { return Ok(true) };
    for request_id in addresses(protocol.header()) {
        if known.iter().any(|unit| unit.request_id == request_id) {
            continue;
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        before(Request::data_by_identifier(VIN));
        let Some(answer) = ask_for_vin(adapter, request_id).await? else { continue };
        if nobody_acknowledges(&answer) {
            return Ok(true);
        }
        found.extend(answered(request_id, &answer));
    }
    Ok(true)
}

fn answered(request_id: u32, answer: &Answer) -> Option<Unit> {
    let address = response(request_id);
    let vin = answer.messages.iter().find(|message| message.sender == address);
    // A unit that does not know its VIN, or keeps it for later, is there all the same.
    let there = vin.is_some()
        || answer.refusals.iter().any(|(sender, _)| *sender == address)
        || answer.pending.contains(&address);
    there.then(|| Unit { request_id, address, vin: vin.map(|message| message.payload.clone()) })
}

/// No controller on the bus took the frame: the car sleeps, or it is no such bus.
fn nobody_acknowledges(answer: &Answer) -> bool {
    let dead = |complaint: &Complaint| {
        matches!(
            complaint,
            Complaint::CanError | Complaint::UnableToConnect | Complaint::BusError | Complaint::BusInit
        )
    };
    answer.messages.is_empty() && answer.complaints.iter().any(dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_both_ways() {
        for (request, answers) in
            [(0x7E0, "7E8"), (0x7E7, "7EF"), (0x18DA_10F1, "18DAF110"), (0x18DA_5DF1, "18DAF15D")]
        {
            assert_eq!(response(request), EcuAddress(answers.into()));
            assert_eq!(request_id(&EcuAddress(answers.into())), Some(request));
        }
        for other in ["10", "7DF", "18DB33F1", "18FECA00", "", "XYZ"] {
            assert_eq!(request_id(&EcuAddress(other.into())), None, "{other}");
        }
    }

    #[test]
    fn a_look_has_time_for_every_address() {
        // What a bus without dongle waits for a first answer.
        let addresses = u32::try_from(NARROW.len() + WIDE.len()).unwrap();
        assert!(LOOK_BUDGET >= Duration::from_millis(300) * addresses);
    }

    #[test]
    fn a_refusal_is_an_answer_and_another_units_word_is_not() {
        let address = EcuAddress("7E8".into());
        let refused = Answer { refusals: vec![(address.clone(), 0x31)], ..Answer::default() };
        assert!(answered(0x7E0, &refused).unwrap().vin.is_none());
        assert_eq!(answered(0x7E1, &refused), None);
        let payload = [&[0x62, 0xF1, 0x90][..], b"LSVAG2186E2100001"].concat();
        let told = Answer { messages: vec![Message { sender: address, payload }], ..Answer::default() };
        assert!(matches!(reading(&answered(0x7E0, &told).unwrap()), VinReading::Read(_)));
        let asleep = Answer { complaints: vec![Complaint::CanError], ..Answer::default() };
        assert!(nobody_acknowledges(&asleep));
        let awake = Answer { complaints: vec![Complaint::NoData], ..Answer::default() };
        assert!(!nobody_acknowledges(&awake) && answered(0x7E0, &awake).is_none());
    }
}
