//! A car that is silent to 0100: who answers UDS, and all they tell, up to where the adapter fails.
//! What lives here: the order, and what stands at the end. What does not: who there is
//! ([`crate::vehicle::uds::find`]), and the questions to one unit ([`super`]).

use std::time::Instant;

use super::{Heard, Reading};
use crate::protocols::Bundle;
use crate::vehicle::adapter::Adapter;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::Request;
use crate::vehicle::protocol::Protocol;
use crate::vehicle::uds::find::{self, Unit};

/// What a car told that is silent to 0100.
#[derive(Debug)]
pub struct Silent {
    /// Its bus.
    pub protocol: Protocol,
    /// What it told, up to the end.
    pub heard: Heard,
    /// What ended it early: the request that failed, and how.
    pub failed: Option<(Request, AdapterError)>,
}

/// A car that is silent to 0100: who answers UDS, and all they tell. `None`: nobody. What was heard
/// counts also where the adapter failed behind it.
///
/// # Errors
/// [`AdapterError`]: it failed before anybody answered.
pub async fn silent_car(adapter: &mut Adapter, bundle: &Bundle) -> Result<Option<Silent>, AdapterError> {
    let begun = Instant::now();
    let mut last = Request::current(0x00);
    let mut before = |request| last = request;
    let mut units = Vec::new();
    let searched = find::search(adapter, find::SCAN_BUDGET, &mut units, &mut before).await;
    let Some(first) = units.first() else { return searched.map(|()| None) };
    // One that restarted forgot the bus that was taken for this address.
    let assumed = if first.request_id > 0x7FF { Protocol::Can29At500 } else { Protocol::Can11At500 };
    let protocol = adapter.protocol().unwrap_or(assumed);
    let mut reading = Reading::new(adapter, bundle, begun + find::SCAN_BUDGET * 2, &mut before);
    reading.begun = begun;
    let ended = reading.all_units(&units, searched).await;
    let heard = reading.heard;
    Ok(Some(Silent { protocol, heard, failed: ended.err().map(|error| (last, error)) }))
}

impl Reading<'_> {
    /// Units that were `searched` for, with success or until the adapter failed.
    async fn all_units(
        &mut self,
        units: &[Unit],
        searched: Result<(), AdapterError>,
    ) -> Result<(), AdapterError> {
        for unit in units {
            if let Some(vin) = unit.vin.as_deref().and_then(|payload| payload.get(3..)) {
                self.keep(Request::vehicle_info(0x02), unit, &[&[0x49, 0x02, 0x01], vin].concat());
            }
        }
        searched?;
        for unit in units {
            self.unit(unit).await?;
        }
        self.readiness_groups(units).await?;
        self.codes_it_could_store(units).await
    }
}
