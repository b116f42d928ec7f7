//! Card faces: templates, rendering, printer drivers, the job queue. What lives
//! here: how a face is made from an SVG template and a job's fields
//! ([`faces`]), how it gets onto a card ([`star_tcp300`]) or into a folder
//! ([`png`]), and the durable queue of each printer ([`service`]). What does
//! not: who asks for a face (the local HTTP and the command line insert jobs,
//! [`after_sale`] does for tills that print by themselves).
//!
//! ```text
//!  job row ─► template + fields ─► SVG ─► gray ─► 1 bit + QR ─► driver ─► card
//!            (template, fields)  (render)        (bitmap, qr)  (machine)
//! ```

pub mod after_sale;
pub mod backoff;
pub mod bitmap;
mod desk;
pub mod faces;
mod fault;
mod fields;
mod fonts;
mod machine;
mod markup;
pub mod png;
mod qr;
mod render;
pub mod service;
pub mod star_tcp300;
mod svg_rules;
pub mod template;
mod trouble;

pub use after_sale::{PrintingTill, serve_printing_tills};
pub use faces::Faces;
pub use fault::{Advice, FaceError, Place};
pub use service::{PrinterError, serve_printer};
pub use trouble::Trouble;
