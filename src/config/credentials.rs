//! Secrets by name. Each is a file in `$CREDENTIALS_DIRECTORY` (systemd
//! `LoadCredential=`), or in `gateway.credentials_dir` on a desk.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// A secret. `Debug` prints nothing of it, and its bytes are wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The bytes, for the one call that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A credential that was needed and is not there.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// No folder to look in.
    #[error(
        "credential {name:?} is needed, but there is no credentials folder; run under systemd with LoadCredential={name}:…, or set gateway.credentials_dir"
    )]
    NoFolder {
        /// Its name.
        name: String,
    },
    /// Not readable.
    #[error(
        "credential {name:?} cannot be read from {path}: {source}; put the secret into that file, readable only by the daemon's user"
    )]
    Unreadable {
        /// Its name.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is there and holds nothing.
    #[error("credential {name:?} is empty; put the secret into its file")]
    Empty {
        /// Its name.
        name: String,
    },
}

/// Where credentials are looked for.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    folder: Option<PathBuf>,
}

impl Credentials {
    /// `configured` for desk tests, else `$CREDENTIALS_DIRECTORY`.
    #[must_use]
    pub fn new(configured: Option<PathBuf>) -> Self {
        Self { folder: configured.or_else(|| std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)) }
    }

    /// A credential that must be there. One trailing line end is not part of it.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn require(&self, name: &str) -> Result<Secret, CredentialError> {
        let folder =
            self.folder.as_ref().ok_or_else(|| CredentialError::NoFolder { name: name.to_owned() })?;
        let path = folder.join(name);
        let read = std::fs::read(&path);
        let mut bytes = Zeroizing::new(read.map_err(|source| CredentialError::Unreadable {
            name: name.to_owned(),
            path,
            source,
        })?);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(CredentialError::Empty { name: name.to_owned() });
        }
        Ok(Secret(bytes))
    }

    /// Whether a credential is there. An empty file counts as absent: systemd
    /// refuses to start a unit whose `LoadCredential=` file is missing.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.folder
            .as_ref()
            .and_then(|folder| std::fs::metadata(folder.join(name)).ok())
            .is_some_and(|metadata| metadata.len() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing_of_itself() {
        let secret = Secret(Zeroizing::new(b"hunter2".to_vec()));
        for shown in [format!("{secret:?}"), format!("{:#?}", Some(&secret))] {
            let bytes = ["hunter2", "104", "68, ", "6875"];
            assert!(bytes.iter().all(|part| !shown.contains(part)), "{shown}");
        }
    }
}
