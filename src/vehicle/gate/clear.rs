//! The one gap in the gate: clearing codes. What lives here: the request that clears, made
//! only from a confirmation that a person in the store gave and that is used up on the disk
//! ([`Redeemed`]), and its bytes. It can be neither copied nor made from text, so there is no
//! second sending and no other way to it. What does not: when it may be asked for and what
//! must be true just before (`vehicle::clear`).

use uuid::Uuid;

use super::Outgoing;
use crate::store::confirmations::Redeemed;

/// How codes are cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Service 04 (SAE J1979 §6.4), to all units that have to do with emissions.
    Obd,
    /// Service 14 FFFFFF (ISO 14229-1 §12.2): all groups of codes.
    Uds,
}

impl Way {
    /// The service, as it stands in answers and refusals.
    #[must_use]
    pub fn service(self) -> u8 {
        match self {
            Self::Obd => 0x04,
            Self::Uds => 0x14,
        }
    }
}

/// Clears the codes of one car, once.
#[derive(Debug)]
pub struct ClearRequest {
    redeemed: Redeemed,
    way: Way,
}

impl ClearRequest {
    /// From a confirmation, in the way that was confirmed. `None`: it was given for something else.
    #[must_use]
    pub fn new(redeemed: Redeemed) -> Option<Self> {
        if redeemed.body().get("what")? != crate::vehicle::clear::WHAT {
            return None;
        }
        let way = serde_json::from_value(redeemed.body().get("method")?.clone()).ok()?;
        Some(Self { redeemed, way })
    }

    /// The confirmation behind it.
    #[must_use]
    pub fn confirmation(&self) -> Uuid {
        self.redeemed.id()
    }

    /// How it clears.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// What is written. Takes the request: it is sent once, whatever the adapter answers.
    #[must_use]
    pub(in crate::vehicle) fn into_outgoing(self) -> Outgoing {
        Outgoing::Clear(ClearBytes(self.way))
    }
}

/// The bytes of a [`ClearRequest`]; made by nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClearBytes(Way);

impl ClearBytes {
    /// Service and parameters, for drivers of frames.
    #[must_use]
    pub fn payload(self) -> &'static [u8] {
        match self.0 {
            Way::Obd => &[0x04],
            Way::Uds => &[0x14, 0xFF, 0xFF, 0xFF],
        }
    }
}
