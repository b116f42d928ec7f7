//! Reader connections: a few, lent for one query each.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::alarm::Alarm;
use super::{Reader, StoreError, connection};

/// Queries at the same time, at most; more wait.
const READERS: usize = 4;

pub(super) struct ReaderPool {
    path: PathBuf,
    alarm: Arc<Alarm>,
    idle: Mutex<Vec<Connection>>,
    /// A permit goes along with its query, which ends when it ends, not when its caller gives up.
    lent: Arc<Semaphore>,
}

impl ReaderPool {
    pub(super) fn new(path: PathBuf, alarm: Arc<Alarm>) -> Self {
        Self { path, alarm, idle: Mutex::new(Vec::new()), lent: Arc::new(Semaphore::new(READERS)) }
    }

    /// Runs a query on the blocking threads. Its snapshot ends with it.
    ///
    /// The waiting for a turn is a task of its own: a caller that asks and then looks
    /// elsewhere for a while must not keep a turn that was given to it.
    pub(super) async fn with<T, F>(self: Arc<Self>, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let turn = tokio::spawn(async move {
            let permit = Arc::clone(&self.lent).acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let work = move || {
                let result = self.run(query);
                drop(permit);
                result
            };
            tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)?
        });
        AbortOnDropHandle::new(turn).await.map_err(|_| StoreError::Closed)?
    }

    fn run<T>(&self, query: impl FnOnce(&Reader<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = idle.map_or_else(|| connection::reader(&self.path), Ok)?;
        let result = self.alarm.watch(query(&Reader { conn: &conn }));
        // A connection that met a failing disk or damage may hold on to what it read.
        if result.as_ref().err().is_none_or(|error| !error.is_damage() && !error.is_disk_failure()) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        }
        result
    }
}
