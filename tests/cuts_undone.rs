//! Principal from card to card, refunds and what is undone, on every technology: cut at every command in every way, and tapped again
//! ([`cut_table`]).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cpu_shop;
mod cut_shop;
mod cut_table;
#[path = "support/port.rs"]
mod port;

use cut_table::table::Part;

#[tokio::test(flavor = "multi_thread")]
async fn the_old_or_the_new() {
    cut_table::run(Part::Undone).await;
}
