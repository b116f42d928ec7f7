//! Simulated devices that speak bytes over real transports. Shares no codec with the drivers.

pub mod card;
pub mod presence;
pub mod printer;
pub mod transport;
pub mod vehicle;
