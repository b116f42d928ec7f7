//! Simulated devices that speak bytes over real transports. Shares no codec with the drivers.

pub mod card;
pub mod presence;
pub mod transport;
pub mod vehicle;
