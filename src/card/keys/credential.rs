//! The credential `card-keys`: text, one key a line. What lives here: reading it.
//! What does not: using the keys (`sealed`). Of the file's text only a store's name ever
//! stands in an error, and nothing that could be a key passes for one; keys are kept in
//! memory that is wiped.
//!
//! ```text
//!  # made 2026-11-22 for the shop in Pudong
//!  store SH-0042
//!  current 2
//!  1 debit  …32 hex digits…
//!  2 record …32 hex digits…
//!  store BJ-0001             # a store of the group whose cards are opened here as well
//!  4 debit  …32 hex digits…
//! ```

use std::collections::BTreeMap;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::sealed::{Masters, SealedKeys};
use super::{KeyStore, KeyVersion, Purpose};
use crate::config::credentials::{CredentialError, Credentials};
use crate::ident::StoreId;

/// Its name.
pub const CARD_KEYS: &str = "card-keys";

/// The credential cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A line is not right.
    #[error("credential `card-keys`, line {line}: {problem}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong and what to do.
        problem: LineProblem,
    },
    /// The whole is not right.
    #[error("credential `card-keys`: {0}")]
    Whole(WholeProblem),
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Neither of the three forms.
    #[error("expected `store NAME`, `current VERSION` or `VERSION PURPOSE KEY`")]
    Form,
    /// Not UTF-8.
    #[error("not plain text; was the file cut or encrypted?")]
    NotText,
    /// Not a version.
    #[error("the version must be a number from 1 to 254")]
    Version,
    /// No such purpose.
    #[error("no such purpose; {}", hint(*.near))]
    Purpose {
        /// What was probably meant.
        near: Option<Purpose>,
    },
    /// Not a key.
    #[error("the key must be 32 hex digits; make one with `openssl rand -hex 16`")]
    Key,
    /// A key that is none.
    #[error("this key is weak: half of it repeats; make one with `openssl rand -hex 16`")]
    WeakKey,
    /// The same bytes twice: rights would not be apart.
    #[error("the same key stands in line {line}; every purpose and version needs its own")]
    SameKey {
        /// Where it stood first.
        line: usize,
    },
    /// The same thing said twice.
    #[error("said before in line {line}; remove one of the two")]
    Twice {
        /// Where it was said first.
        line: usize,
    },
    /// Not a store's name.
    #[error("this is no store's name; write it as `gateway.store` has it")]
    Store,
    /// `current` behind another store's name.
    #[error("only the gateway's own store has a `current`; put it above the line of the second store")]
    OthersCurrent,
    /// Keys that change another store's cards.
    #[error("purpose `manage` of another store stays there: its cards are neither issued nor re-keyed here")]
    OthersManage,
}

fn hint(near: Option<Purpose>) -> String {
    match near {
        Some(purpose) => format!("did you mean `{purpose}`?"),
        None => format!("known: {}", Purpose::ALL.map(Purpose::name).join(", ")),
    }
}

/// What is wrong with the whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WholeProblem {
    /// No `store` line.
    #[error("the line `store NAME` is missing; add it, with the name of `gateway.store`")]
    NoStore,
    /// For another store.
    #[error("it was made for store {of}, and this gateway is of {own}; install the one made for {own}")]
    OtherStore {
        /// Whose it is.
        of: StoreId,
        /// Who we are.
        own: StoreId,
    },
    /// No `current` line.
    #[error("the line `current VERSION` is missing; add it, with the version new cards get")]
    NoCurrent,
    /// `current` names a version without keys.
    #[error("`current` is {0}, and there is no key of that version; add its lines")]
    NoKeys(KeyVersion),
    /// Another store is named, and nothing of it.
    #[error("there is no key of store {0}; add its lines, or take its `store` line away")]
    NoKeysOf(StoreId),
}

/// Reads the credential, if there is one.
///
/// # Errors
/// [`LoadError`]; none holds a byte of a key.
pub fn load(credentials: &Credentials, own: &StoreId) -> Result<Option<SealedKeys>, LoadError> {
    if !credentials.has(CARD_KEYS) {
        return Ok(None);
    }
    let secret = credentials.require(CARD_KEYS)?;
    let keys = parse(secret.expose(), own)?;
    tracing::info!(store = %own, current = %keys.current(), keys = keys.len(), "card keys loaded");
    Ok(Some(keys))
}

/// Reads the text of the credential for the gateway of store `own`.
///
/// # Errors
/// [`LoadError`].
pub fn parse(text: &[u8], own: &StoreId) -> Result<SealedKeys, LoadError> {
    let mut draft = Draft::default();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        draft.take(number, line).map_err(|problem| LoadError::Line { line: number, problem })?;
    }
    draft.finish(own).map_err(LoadError::Whole)
}

/// A value and the line it was read from.
type At<T> = (usize, T);

/// The store's place among those read, then as [`Masters`] has it. What stands above the first
/// store's name is the first one's.
type KeyId = (usize, KeyVersion, Purpose);

/// What was read so far, with the lines.
#[derive(Default)]
struct Draft {
    /// The gateway's own first.
    stores: Vec<At<StoreId>>,
    current: Option<At<KeyVersion>>,
    masters: BTreeMap<KeyId, At<Zeroizing<[u8; 16]>>>,
}

impl Draft {
    fn take(&mut self, number: usize, line: &[u8]) -> Result<(), LineProblem> {
        let text = std::str::from_utf8(line).map_err(|_| LineProblem::NotText)?.trim();
        if text.is_empty() || text.starts_with('#') {
            return Ok(());
        }
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("store"), Some(name), None, _) => {
                let store = StoreId::new(name).ok().filter(|_| !may_be_a_key(name));
                self.store(number, store.ok_or(LineProblem::Store)?)
            }
            (Some("current"), Some(_), None, _) if self.place() > 0 => Err(LineProblem::OthersCurrent),
            (Some("current"), Some(of), None, _) => once(&mut self.current, number, version(of)?),
            (Some(of), Some(purpose), Some(hex), None) => self.key(number, of, purpose, hex),
            _ => Err(LineProblem::Form),
        }
    }

    /// Whose keys come now.
    fn place(&self) -> usize {
        self.stores.len().saturating_sub(1)
    }

    fn store(&mut self, number: usize, store: StoreId) -> Result<(), LineProblem> {
        if let Some((line, _)) = self.stores.iter().find(|(_, known)| *known == store) {
            return Err(LineProblem::Twice { line: *line });
        }
        self.stores.push((number, store));
        Ok(())
    }

    fn key(&mut self, number: usize, of: &str, purpose: &str, digits: &str) -> Result<(), LineProblem> {
        let named = Purpose::ALL.into_iter().find(|known| known.name() == purpose);
        let named = named.ok_or_else(|| LineProblem::Purpose { near: nearest(purpose) })?;
        let id = (self.place(), version(of)?, named);
        if self.place() > 0 && named == Purpose::Manage {
            return Err(LineProblem::OthersManage);
        }
        let mut key = Zeroizing::new([0; 16]);
        hex::decode_to_slice(digits, &mut key[..]).map_err(|_| LineProblem::Key)?;
        if is_weak(&key) {
            return Err(LineProblem::WeakKey);
        }
        for (line, other) in self.masters.values() {
            if bool::from(other.ct_eq(&key[..])) {
                return Err(LineProblem::SameKey { line: *line });
            }
        }
        if let Some((line, _)) = self.masters.get(&id) {
            return Err(LineProblem::Twice { line: *line });
        }
        self.masters.insert(id, (number, key));
        Ok(())
    }

    fn finish(self, own: &StoreId) -> Result<SealedKeys, WholeProblem> {
        let mut stores = self.stores.into_iter().map(|(_, store)| store);
        let store = stores.next().ok_or(WholeProblem::NoStore)?;
        if store != *own {
            return Err(WholeProblem::OtherStore { of: store, own: own.clone() });
        }
        let (_, current) = self.current.ok_or(WholeProblem::NoCurrent)?;
        let mut sets: BTreeMap<usize, Masters> = BTreeMap::new();
        for ((place, version, purpose), (_, key)) in self.masters {
            sets.entry(place).or_default().insert((version, purpose), key);
        }
        let masters = sets.remove(&0).unwrap_or_default();
        if !masters.keys().any(|(version, _)| *version == current) {
            return Err(WholeProblem::NoKeys(current));
        }
        let mut keys = SealedKeys::new(store, current, masters);
        for (place, other) in (1..).zip(stores) {
            let masters = sets.remove(&place).ok_or_else(|| WholeProblem::NoKeysOf(other.clone()))?;
            keys = keys.with_store(other, masters);
        }
        Ok(keys)
    }
}

fn once<T>(place: &mut Option<At<T>>, number: usize, value: T) -> Result<(), LineProblem> {
    match place {
        Some((line, _)) => Err(LineProblem::Twice { line: *line }),
        None => {
            *place = Some((number, value));
            Ok(())
        }
    }
}

fn version(text: &str) -> Result<KeyVersion, LineProblem> {
    text.parse().ok().map(KeyVersion).filter(|version| version.is_ours()).ok_or(LineProblem::Version)
}

/// A key, or half of one, in the wrong place: eight bytes of hex or more. No store has such a name.
fn may_be_a_key(word: &str) -> bool {
    word.len() >= 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The purpose a mistyped word is likest to; nothing for what may be a key.
fn nearest(word: &str) -> Option<Purpose> {
    Purpose::ALL
        .into_iter()
        .map(|purpose| (strsim::jaro_winkler(word, purpose.name()), purpose))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, purpose)| purpose)
}

/// Both halves the same (triple DES would be single DES), or a half of one byte repeated.
fn is_weak(key: &[u8; 16]) -> bool {
    let (halves, _) = key.as_chunks::<8>();
    let uniform = |half: &[u8; 8]| half.iter().all(|byte| half.first() == Some(byte));
    halves.iter().any(uniform) || halves.iter().all(|half| halves.first() == Some(half))
}

#[cfg(test)]
#[path = "credential_tests.rs"]
mod tests;
