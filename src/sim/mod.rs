//! Simulated devices that speak bytes over real transports. Shares no codec with the drivers.

pub mod transport;
pub mod vehicle;
