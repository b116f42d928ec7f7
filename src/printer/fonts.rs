//! The fonts of the installation. They are read when a face is made and dropped
//! after it, so that an idle gateway holds none in memory. System fonts are
//! never used: the same template and data must give the same dots everywhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use resvg::usvg::fontdb;
use skrifa::{FontRef, MetadataProvider};

use super::fault::FaceError;

/// The largest font file that is read, in bytes.
const MAX_FONT_BYTES: u64 = 32 << 20;

/// All fonts of one folder.
pub(super) struct Fonts {
    folder: PathBuf,
    database: Arc<fontdb::Database>,
    files: Vec<Arc<Vec<u8>>>,
}

impl Fonts {
    /// Reads every `*.otf` and `*.ttf` of a folder, in name order.
    pub(super) fn load(folder: &Path) -> Result<Self, FaceError> {
        let none = |why: String| FaceError::NoFonts { folder: folder.to_owned(), why };
        let entries = std::fs::read_dir(folder).map_err(|error| none(error.to_string()))?;
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "otf" || e == "ttf"))
            .collect();
        paths.sort();
        let mut database = fontdb::Database::new();
        let mut files = Vec::new();
        for path in paths {
            let size = std::fs::metadata(&path).map_err(|error| none(error.to_string()))?.len();
            if size > MAX_FONT_BYTES {
                return Err(none(format!("{} is larger than 32 MiB", path.display())));
            }
            let data = Arc::new(std::fs::read(&path).map_err(|error| none(error.to_string()))?);
            if FontRef::new(&data).is_err() {
                return Err(none(format!("{} is not an OpenType font", path.display())));
            }
            database.load_font_source(fontdb::Source::Binary(Arc::clone(&data) as _));
            files.push(data);
        }
        let family = database.faces().next().and_then(|face| face.families.first().cloned());
        let Some((family, _)) = family else { return Err(none("it holds none".into())) };
        // Whatever family a template names, only shipped fonts can answer.
        database.set_serif_family(&family);
        database.set_sans_serif_family(&family);
        database.set_monospace_family(&family);
        database.set_cursive_family(&family);
        database.set_fantasy_family(&family);
        Ok(Self { folder: folder.to_owned(), database: Arc::new(database), files })
    }

    pub(super) fn database(&self) -> Arc<fontdb::Database> {
        Arc::clone(&self.database)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The first character that no font has a glyph for. White space needs none.
    pub(super) fn missing(&self, text: &str) -> Option<char> {
        let charmaps: Vec<_> =
            self.files.iter().filter_map(|data| FontRef::new(data).ok()).map(|font| font.charmap()).collect();
        text.chars()
            .filter(|character| !character.is_whitespace())
            .find(|character| !charmaps.iter().any(|map| map.map(*character).is_some()))
    }
}
