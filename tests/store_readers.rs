//! Readers of the log share a few connections. One that asks and then looks elsewhere
//! keeps none of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod store_setup;

use std::sync::mpsc;
use std::time::Duration;

use baygate::event::Class;
use baygate::store::{Offset, Store};
use futures_util::FutureExt as _;
use store_setup::{fact, options};

/// As many as the store has (`store/pool.rs`).
const CONNECTIONS: usize = 4;
const DEADLINE: Duration = Duration::from_secs(30);

/// Found by the soak: pages that the uplink had asked for were given their turn while
/// it waited for another answer, and nothing was read ever again.
#[tokio::test]
async fn a_query_that_nobody_looks_after_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    store.commit(fact(Class::Card)).await.unwrap();
    // More than there are connections, each held until it is let go.
    let (reading, begun) = mpsc::channel();
    let held: Vec<_> = (0..8)
        .map(|_| {
            let (let_go, wait) = mpsc::channel::<()>();
            let (store, reading) = (store.clone(), reading.clone());
            let query = tokio::spawn(async move {
                store
                    .read(move |_| {
                        let _ = reading.send(());
                        Ok(wait.recv_timeout(DEADLINE).is_ok())
                    })
                    .await
            });
            (let_go, query)
        })
        .collect();
    let all = move || (0..CONNECTIONS).try_for_each(|_| begun.recv_timeout(DEADLINE));
    tokio::task::spawn_blocking(all).await.unwrap().unwrap();
    // They ask, get in line, and are not looked at again.
    let mut forgotten: Vec<_> =
        (0..8).map(|_| Box::pin(store.read(|reader| reader.events_after(Offset(0), 1)))).collect();
    for query in &mut forgotten {
        assert!(query.as_mut().now_or_never().is_none(), "every connection is lent");
    }
    for (let_go, query) in held {
        let_go.send(()).unwrap();
        assert!(query.await.unwrap().unwrap());
    }
    let answer = tokio::time::timeout(DEADLINE, store.read(|reader| reader.events_after(Offset(0), 1))).await;
    assert_eq!(answer.expect("a reader waits for ever").unwrap().len(), 1);
    for query in forgotten {
        assert_eq!(query.await.unwrap().len(), 1);
    }
}
