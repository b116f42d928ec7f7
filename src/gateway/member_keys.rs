//! What a reader needs to read member cards, put together from the credential
//! `card-keys`, the shipped card layouts and the store's day. A gateway without the
//! credential identifies cards and no more; one that cannot use it says so and does
//! the same, so that a mistake in it does not stop the counter.

use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio::sync::watch;

use super::assets::Assets;
use crate::card::keys::credential::{self, CARD_KEYS};
use crate::card::keys::till_purse::{Opener, TillPurse};
use crate::card::member::{MemberPolicy, Members};
use crate::card::pcsc::open_sam;
use crate::config::Config;
use crate::config::credentials::Credentials;
use crate::config::tables::{ReaderGlobs, ReaderRole};
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
    /// `[gateway] timezone`.
    pub(super) timezone: watch::Receiver<TimeZone>,
    /// A purchase terminal, where there is a slot for one.
    pub(super) purse: Option<Arc<TillPurse>>,
}

/// What is kept of the SAM's last purchase, in the data folder.
const NOTEBOOK: &str = "purchase-sam.json";

/// The purchase terminal, and what it was made for.
pub(super) struct Terminal {
    asked: Option<TerminalAsked>,
    /// Stays when nobody asks for it any more: the SAM that comes back may be the same one.
    till: Option<Arc<TillPurse>>,
}

#[derive(Clone, PartialEq)]
struct TerminalAsked {
    glob: String,
    globs: ReaderGlobs,
    application: [u8; 2],
}

impl Terminal {
    /// That of the first reader with role `sam`, opened at the first purchase.
    pub(super) fn of(config: &Config, bundle: &Bundle) -> Self {
        let asked = TerminalAsked::of(config, bundle);
        let notebook = config.gateway.data_dir.join(NOTEBOOK);
        let till = asked.as_ref().map(|asked| TillPurse::new(asked.opener(), zone(config)));
        let till = till.map(|till| Arc::new(till.with_notebook(&notebook)));
        Self { asked, till }
    }

    /// The terminal, while a configuration asks for one.
    pub(super) fn lent(&self) -> Option<Arc<TillPurse>> {
        self.asked.as_ref().and(self.till.clone())
    }

    /// Takes a new configuration. Once there is a terminal it stays the same one, also for readers
    /// that are not started again: it knows whose answer it waits for, and the tries that the SAM has
    /// lost. A slot that comes or goes starts every reader of cards again (`ReaderTable::globs`).
    pub(super) fn adopt(&mut self, config: &Config, bundle: &Bundle) {
        let Some(till) = &self.till else {
            *self = Self::of(config, bundle);
            return;
        };
        let asked = TerminalAsked::of(config, bundle);
        if let Some(asked_now) = &asked
            && self.asked.as_ref() != Some(asked_now)
        {
            till.opens_with(asked_now.opener());
        }
        till.set_timezone(zone(config));
        self.asked = asked;
    }
}

impl TerminalAsked {
    fn of(config: &Config, bundle: &Bundle) -> Option<Self> {
        let sam = config.readers.iter().find(|reader| reader.role == ReaderRole::Sam)?;
        let application = bundle.cards.iter().find_map(|layout| match &layout.places {
            Places::Purse(purse) => Some(purse.sam),
            _ => None,
        })?;
        Some(Self { glob: sam.name.clone()?, globs: sam.globs.clone(), application })
    }

    fn opener(&self) -> Box<Opener> {
        let Self { glob, globs, application } = self.clone();
        Box::new(move || open_sam(&glob, &globs, application))
    }
}

/// The store's time zone.
pub(super) fn zone(config: &Config) -> TimeZone {
    // The configuration has checked the name.
    TimeZone::get(&config.gateway.timezone).unwrap_or(TimeZone::UTC)
}

impl MemberKeys {
    /// Reads the credential anew: a reader that is started again takes a new one.
    pub(super) fn load(&self, health: &Health, assets: &Assets) -> Option<Arc<Members>> {
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
        for named in self.accepted_stores.borrow().iter() {
            if !matches!(named.as_str(), "own" | "all") && !keys.opens(named) {
                tracing::warn!(
                    store = named,
                    "[purse] accept_stores names a store of which credential `card-keys` has no keys: its cards are \
                     refused as store-not-accepted; let headquarters add its lines (docs/card-keys.md)"
                );
            }
        }
        let layouts = assets.bundle.cards.iter().cloned().map(Arc::new).collect();
        let (store, accepted_stores) = (self.store.clone(), self.accepted_stores.clone());
        let timezone = self.timezone.clone();
        let policy = MemberPolicy { store, accepted_stores, timezone };
        Some(Arc::new(Members { keys: Arc::new(keys.with_purse(self.purse.clone())), layouts, policy }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(sam: &str, timezone: &str) -> Config {
        let table = format!("[[reader]]\nid = \"sam-1\"\nkind = \"pcsc\"\nrole = \"sam\"\nname = {sam:?}\n");
        parsed(timezone, &table)
    }

    fn parsed(timezone: &str, table: &str) -> Config {
        let text = format!("[gateway]\nstore = \"SH-0042\"\nid = \"gw-1\"\ntimezone = {timezone:?}\n{table}");
        crate::config::parse(Path::new("baygate.toml"), &text).unwrap()
    }

    /// Headquarters pushes rules at any hour: tries that the SAM has lost are not forgotten by it, and
    /// no reader goes on with a terminal of its own.
    #[test]
    fn a_new_configuration_keeps_the_terminal() {
        let bundle = Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")).unwrap();
        let mut terminal = Terminal::of(&config("*SAM*", "UTC"), &bundle);
        let till = terminal.lent().unwrap();
        for (sam, timezone) in [("*SAM*", "UTC"), ("*SAM*", "Asia/Shanghai"), ("* SAM 00", "Asia/Shanghai")] {
            terminal.adopt(&config(sam, timezone), &bundle);
            assert!(Arc::ptr_eq(&till, &terminal.lent().unwrap()), "{sam} {timezone}");
        }
        // Eight hours apart, whatever the hour: never the same.
        let utc = Terminal::of(&config("*SAM*", "UTC"), &bundle).lent().unwrap().moment();
        assert_ne!(
            (till.moment().date, till.moment().time[0]),
            (utc.date, utc.time[0]),
            "the zone that is now"
        );
    }

    /// Whoever takes the SAM's table away and brings it back must not cost it its last try.
    #[test]
    fn a_slot_that_goes_and_comes_back_keeps_the_terminal() {
        let bundle = Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")).unwrap();
        let mut terminal = Terminal::of(&parsed("UTC", ""), &bundle);
        assert!(terminal.lent().is_none());
        terminal.adopt(&config("*SAM*", "UTC"), &bundle);
        let till = terminal.lent().unwrap();
        terminal.adopt(&parsed("UTC", ""), &bundle);
        assert!(terminal.lent().is_none(), "nobody is sold to without a slot");
        terminal.adopt(&config("*SAM*", "UTC"), &bundle);
        assert!(Arc::ptr_eq(&till, &terminal.lent().unwrap()));
    }
}
