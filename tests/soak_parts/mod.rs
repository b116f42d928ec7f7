//! The parts of the soak: what is done, what came in, what is measured.
pub mod gauge;
pub mod hq;
pub mod load;
