//! x
pub mod clock_watch;
pub mod notify;
pub mod plan;
pub mod supervise;
