//! What the store says about itself: troubles for `/readyz`, and the mark in
//! the data folder that makes the next start salvage a damaged file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::StoreError;
use super::mark::Mark;
use crate::event::Text;
use crate::health::{Health, Trouble};

/// The writer's name on the health board.
const LOOP: &str = "store-writer";

/// Shared by the store's threads. What is raised before somebody listens is told then.
#[derive(Debug)]
pub(super) struct Alarm {
    folder: PathBuf,
    health: OnceLock<Health>,
    standing: Mutex<BTreeMap<&'static str, Trouble>>,
}

impl Alarm {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, health: OnceLock::new(), standing: Mutex::new(BTreeMap::new()) }
    }

    /// Tells everything that stands, and all that follows, to this board.
    pub(super) fn attach(&self, health: Health) {
        let health = self.health.get_or_init(|| health);
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        for trouble in standing.values() {
            health.trouble(trouble.clone());
        }
    }

    /// The writer has turned once more.
    pub(super) fn beat(&self) {
        if let Some(health) = self.health.get() {
            health.beat(LOOP);
        }
    }

    /// The writer has ended.
    pub(super) fn rest(&self) {
        if let Some(health) = self.health.get() {
            health.rest(LOOP);
        }
    }

    /// A part of the store is in trouble. Logged when it is news.
    pub(super) fn raise(&self, part: &'static str, code: &str, text: Text, blocks_ready: bool) {
        let trouble = Trouble { part: part.to_owned(), code: code.to_owned(), text, blocks_ready };
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if standing.get(part) != Some(&trouble) {
            tracing::warn!(part, code, detail = %trouble.text.en, "store in trouble");
            if let Some(health) = self.health.get() {
                health.trouble(trouble.clone());
            }
            standing.insert(part, trouble);
        }
    }

    /// A part of the store is well again.
    pub(super) fn clear(&self, part: &'static str) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if standing.remove(part).is_some() {
            tracing::info!(part, "store well again");
            if let Some(health) = self.health.get() {
                health.well(part);
            }
        }
    }

    /// Damage was met at run time: the next start salvages, and `/readyz` says so.
    pub(super) fn damage(&self, what: &str) {
        if let Err(error) = Mark::set(&self.folder, what) {
            tracing::error!(%error, "could not mark the database as damaged");
        }
        metrics::counter!("baygate_store_damage_total").increment(1);
        self.raise(
            "store/file",
            "damaged",
            Text::new(
                format!("数据库文件损坏({what});请备份数据目录并重启服务,启动时会逐行抢救数据"),
                format!(
                    "the database file is damaged ({what}); copy the data folder and restart the daemon: it salvages row by row"
                ),
            ),
            true,
        );
    }

    /// Looks at an error on its way to a caller.
    pub(super) fn watch<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result
            && error.is_damage()
        {
            self.damage(&error.to_string());
        }
        result
    }
}
