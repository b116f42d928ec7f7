//! The first words with a car. What lives here: whether it answers at all, by OBD, by J1939 or by
//! UDS, and which car it is (the VIN). What does not: the questions of a full scan.

use std::collections::BTreeSet;

use crate::vehicle::adapter::Adapter;
use crate::vehicle::answer::{Answer, Message};
use crate::vehicle::batch::Promises;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::Request;
use crate::vehicle::obd::{self, VinReading, info_bytes};
use crate::vehicle::protocol::{EcuAddress, Protocol};
use crate::vehicle::uds;

/// Whether the car answers the first question of OBD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// These ECUs do, on this protocol, and promise these of the first 32 PIDs (none: by UDS).
    Answers(Protocol, Promises),
    /// None does. Not yet a silent car: a battery car or a gateway may be awake behind it.
    Silent(String),
}

/// Asks 0100.
///
/// # Errors
/// [`AdapterError`].
pub async fn contact(adapter: &mut Adapter) -> Result<Contact, AdapterError> {
    if adapter.protocol() == Some(Protocol::J1939) {
        // It is asked nothing: what it broadcasts tells that it is still there.
        return Ok(by_j1939(adapter).await?.unwrap_or_else(|| Contact::Silent("no broadcast".into())));
    }
    let request = Request::current(0x00);
    let answer = adapter.ask(request, None).await?;
    if answer.garbage > 0 && answer.messages.is_empty() && !answer.is_silence() {
        return Err(AdapterError::Spoilt(request.to_string()));
    }
    Ok(match adapter.protocol() {
        Some(protocol) if !answer.messages.is_empty() => {
            let promised = |message: &Message| {
                let mask = obd::four_bytes(&message.payload, 2);
                mask.map(|mask| obd::supported(0x00, mask)).unwrap_or_default().into_iter().collect()
            };
            let units = answer.messages.iter().map(|message| (message.sender.clone(), promised(message)));
            Contact::Answers(protocol, units.collect())
        }
        _ => match by_j1939(adapter).await? {
            Some(truck) => truck,
            None => by_uds(adapter, &answer).await?,
        },
    })
}

/// A truck or a machine is silent on OBD and broadcasts all the time.
async fn by_j1939(adapter: &mut Adapter) -> Result<Option<Contact>, AdapterError> {
    let unit = adapter.hears_j1939().await?;
    let met = |source| (EcuAddress(format!("{source:02X}")), BTreeSet::new());
    Ok(unit.map(|source| Contact::Answers(Protocol::J1939, [met(source)].into_iter().collect())))
}

/// A battery car, or one of SAE J1979-2, is silent on 0100 and may answer UDS.
async fn by_uds(adapter: &mut Adapter, silence: &Answer) -> Result<Contact, AdapterError> {
    let units = uds::find::units(adapter, uds::find::LOOK_BUDGET).await?;
    Ok(match adapter.protocol() {
        Some(protocol) if !units.is_empty() => {
            let units = units.into_iter().map(|unit| (unit.address, BTreeSet::new()));
            Contact::Answers(protocol, units.collect())
        }
        _ => Contact::Silent(silence.trouble().unwrap_or_else(|| "no data".into())),
    })
}

/// Asks for the VIN, once more when the first answer is spoilt or missing.
///
/// # Errors
/// [`AdapterError`].
pub async fn read_vin(adapter: &mut Adapter) -> Result<VinReading, AdapterError> {
    if adapter.protocol() == Some(Protocol::J1939) {
        return adapter.vin_by_j1939().await;
    }
    let request = Request::vehicle_info(0x02);
    let mut reading = VinReading::Missing;
    for _ in 0..2 {
        let answer = adapter.ask(request, None).await?;
        let is_can = adapter.protocol().is_some_and(Protocol::is_can);
        for ecu in answer.messages.iter().map(|message| &message.sender).collect::<BTreeSet<_>>() {
            let payloads: Vec<&[u8]> = answer
                .messages
                .iter()
                .filter(|message| message.sender == *ecu)
                .map(|message| message.payload.as_slice())
                .collect();
            match VinReading::from_info(&info_bytes(&payloads, is_can)) {
                read @ VinReading::Read(_) => return Ok(read),
                VinReading::Malformed => reading = VinReading::Malformed,
                VinReading::Missing => {}
            }
        }
        // Refused: asking again changes nothing.
        if !answer.refusals.is_empty() {
            break;
        }
        if answer.is_silence()
            && reading == VinReading::Missing
            && adapter.protocol().is_some_and(Protocol::is_can)
        {
            return uds::find::vin(adapter, uds::find::LOOK_BUDGET).await;
        }
    }
    Ok(reading)
}
