//! What a reader needs to read member cards, put together from the credential
//! `card-keys`, the shipped card layouts and the store's day. A gateway without the
//! credential identifies cards and no more; one that cannot use it says so and does
//! the same, so that a mistake in it does not stop the counter.

use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio::sync::watch;

use super::assets::Assets;
use crate::card::keys::credential::{self, CARD_KEYS};
use crate::card::keys::till_purse::TillPurse;
use crate::card::member::{MemberPolicy, Members};
use crate::card::pcsc::open_sam;
use crate::config::Config;
use crate::config::credentials::Credentials;
use crate::config::tables::ReaderRole;
use crate::event::Text;
use crate::health::{Health, Trouble};
use crate::ident::StoreId;
use crate::protocols::Bundle;
use crate::protocols::cards::Places;

/// Where keys come from.
#[derive(Clone)]
pub(super) struct MemberKeys {
    pub(super) credentials: Credentials,
    pub(super) store: StoreId,
    /// `[purse] accept_stores`.
    pub(super) accepted_stores: watch::Receiver<Vec<String>>,
    /// A purchase terminal, where there is a slot for one.
    pub(super) purse: Option<Arc<TillPurse>>,
}

/// The terminal of the first reader with role `sam`, opened at the first purchase.
pub(super) fn purse_of(config: &Config, bundle: &Bundle) -> Option<Arc<TillPurse>> {
    let sam = config.readers.iter().find(|reader| reader.role == ReaderRole::Sam)?;
    let glob = sam.name.clone()?;
    let application = bundle.cards.iter().find_map(|layout| match &layout.places {
        Places::Purse(purse) => Some(purse.sam),
        _ => None,
    })?;
    let timezone = TimeZone::get(&config.gateway.timezone).unwrap_or(TimeZone::UTC);
    Some(Arc::new(TillPurse::new(Box::new(move || open_sam(&glob, application)), timezone)))
}

impl MemberKeys {
    /// Reads the credential anew: a reader that is started again takes a new one.
    pub(super) fn load(&self, health: &Health, assets: &Assets, timezone: &str) -> Option<Arc<Members>> {
        let keys = match credential::load(&self.credentials, &self.store) {
            Ok(keys) => {
                health.well(CARD_KEYS);
                keys?
            }
            Err(error) => {
                tracing::error!(%error, "card keys cannot be used: cards are identified only");
                let text = Text::new(
                    format!("会员卡密钥不可用，读卡器只能识别卡号（{error}）。请更正凭据 card-keys。"),
                    format!("card keys cannot be used, cards are identified only: {error}"),
                );
                let (part, code) = (CARD_KEYS.to_owned(), "card-keys".to_owned());
                health.trouble(Trouble { part, code, text, blocks_ready: false });
                return None;
            }
        };
        let layouts = assets.bundle.cards.iter().cloned().map(Arc::new).collect();
        // The configuration has checked the name.
        let timezone = TimeZone::get(timezone).unwrap_or(TimeZone::UTC);
        let (store, accepted_stores) = (self.store.clone(), self.accepted_stores.clone());
        let policy = MemberPolicy { store, accepted_stores, timezone };
        Some(Arc::new(Members { keys: Arc::new(keys.with_purse(self.purse.clone())), layouts, policy }))
    }
}
