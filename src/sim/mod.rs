//! Simulated devices that speak bytes over real transports, and the demo's broker and
//! headquarters. Shares no codec with the drivers.

pub mod broker;
pub mod card;
pub mod headquarters;
pub mod presence;
pub mod printer;
pub mod transport;
pub mod vehicle;
