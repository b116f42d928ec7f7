//! What headquarters has pushed (`config.put`): one file in `data_dir/config.d`, merged last, whose
//! last line says its version. In this version it holds `[purse]` and nothing else, so that nobody
//! cuts a gateway off, or points it at other devices, from afar.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::load::read_toml;

const FOLDER: &str = "config.d";
const FILE: &str = "headquarters.toml";
/// Before the version, in the last line. At the end, so that line numbers are headquarters' own.
const MARK: &str = "# config.put version ";
/// The longest text, in bytes: within one MQTT message, and far beyond any rules.
const MAX_BYTES: usize = 64 * 1024;

/// Rules of headquarters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// Rises.
    pub version: u64,
    /// TOML; without a table the gateway's own files count again.
    #[serde(default, rename = "toml")]
    pub text: String,
}

/// The tables that are taken.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    #[serde(default, rename = "purse")]
    _purse: Option<toml::Table>,
}

impl Pushed {
    /// Where it is kept.
    #[must_use]
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(FOLDER).join(FILE)
    }

    /// What is kept there. A file without a version, made by hand, is older than any.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(Self::path(data_dir)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (text, last) = text.trim_end_matches('\n').rsplit_once('\n').unwrap_or(("", text.trim_end()));
        let version = last.strip_prefix(MARK).and_then(|version| version.parse().ok());
        Ok(version.map(|version| Self { version, text: text.to_owned() }))
    }

    /// Whether it can be: its form, its size and its tables.
    ///
    /// # Errors
    /// What is wrong, with line and column.
    pub fn check(&self) -> Result<(), String> {
        if self.text.len() > MAX_BYTES {
            return Err(format!("toml has at most {MAX_BYTES} bytes"));
        }
        let taken: Result<Taken, _> = read_toml(Path::new("toml"), &self.text);
        taken.map(drop).map_err(|error| format!("{error}; only [purse] is taken from headquarters"))
    }

    /// The same rules, whatever line ends them.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.text.trim_end() == other.text.trim_end()
    }

    /// As it stands in the file.
    pub(super) fn file_text(&self) -> String {
        format!("{}\n{MARK}{}\n", self.text.trim_end_matches('\n'), self.version)
    }

    /// Keeps it: whole or not at all, whatever happens to the power.
    ///
    /// # Errors
    /// The disk's; what was kept before stays.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let (folder, path) = (data_dir.join(FOLDER), Self::path(data_dir));
        fs::create_dir_all(&folder)?;
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(self.file_text().as_bytes())?;
        // Before it takes the old one's place, and then the place itself.
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&folder)?.sync_all()?;
        File::open(data_dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_and_found_again() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Pushed::read(data.path()).unwrap(), None);
        for text in ["", "[purse]", "[purse]\nspend_order = \"bonus-first\"\n", "# nothing\n\n"] {
            let pushed = Pushed { version: 7, text: text.into() };
            pushed.check().unwrap();
            pushed.write(data.path()).unwrap();
            let found = Pushed::read(data.path()).unwrap().unwrap();
            assert!(found.version == 7 && found.says_the_same(&pushed), "{text:?}: {found:?}");
        }
        fs::write(Pushed::path(data.path()), "[purse]\n").unwrap();
        assert_eq!(Pushed::read(data.path()).unwrap(), None, "made by hand");
    }

    #[test]
    fn only_rules_are_taken() {
        for (text, why) in [
            ("[mqtt]\nurl = \"mqtt://elsewhere\"\n", "toml:1:2"),
            ("[purse]\nspend_order = \n", "toml:2:"),
            ("purse = 3\n", "toml:1:"),
            ("[purse]\n# config.put version 9\n[[vehicle]]\nid = \"b\"\n", "toml:3:"),
        ] {
            let wrong = Pushed { version: 1, text: text.into() }.check().unwrap_err();
            assert!(wrong.contains(why) && wrong.contains("only [purse]"), "{text}: {wrong}");
        }
        let long = Pushed { version: 1, text: "#".repeat(MAX_BYTES + 1) };
        assert!(long.check().is_err());
    }
}
