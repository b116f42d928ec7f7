//! Simulated devices that speak bytes over real transports. Shares no codec with the drivers.

pub mod broker;
pub mod headquarters;
