//! The faces of an installation: templates by file name, fonts, and the way
//! from a job's fields to dots. A template is read again whenever it changed; one
//! that became bad is reported, and the last good one goes on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::bitmap::{Bitmap, Canvas};
use super::fault::FaceError;
use super::fields::Fields;
use super::fonts::Fonts;
use super::render;
use super::svg_rules::MAX_BYTES;
use super::template::{Field, Template};

/// Templates kept in memory, at most.
const MAX_KEPT: usize = 32;

/// Templates and fonts of one installation.
#[derive(Debug)]
pub struct Faces {
    templates: PathBuf,
    fonts: PathBuf,
    good: Mutex<HashMap<String, Arc<Template>>>,
}

impl Faces {
    /// Of `gateway.share_dir`: `templates/` and `fonts/` in it. Reads nothing yet.
    #[must_use]
    pub fn new(share_dir: &Path) -> Self {
        Self::of(share_dir.join("templates"), share_dir.join("fonts"))
    }

    /// Of two folders.
    #[must_use]
    pub fn of(templates: PathBuf, fonts: PathBuf) -> Self {
        Self { templates, fonts, good: Mutex::default() }
    }

    /// Whether a face of these fields can be printed: the whole way but the ink.
    /// Call it before a job is queued. Blocks for some tens of milliseconds.
    ///
    /// # Errors
    /// [`FaceError`] saying what to change.
    pub fn check(&self, template: &str, fields: &Value) -> Result<(), FaceError> {
        self.render(template, fields, Canvas::TCP300).map(|_| ())
    }

    /// Draws a face. Blocks for some tens of milliseconds.
    ///
    /// # Errors
    /// [`FaceError`] saying what to change.
    pub fn render(&self, template: &str, fields: &Value, canvas: Canvas) -> Result<Bitmap, FaceError> {
        let template = self.template(template)?;
        self.draw(&template, fields, canvas)
    }

    /// Draws a face of a template that need not be one of the installation's.
    ///
    /// # Errors
    /// [`FaceError`] saying what to change.
    pub fn draw(&self, template: &Template, fields: &Value, canvas: Canvas) -> Result<Bitmap, FaceError> {
        let fields = Fields::read(fields)?;
        // Cheap complaints first: the fonts are megabytes.
        template.check_fields(&fields)?;
        let fonts = Fonts::load(&self.fonts)?;
        render::render(template, &fields, &fonts, canvas)
    }

    /// What a template declares.
    ///
    /// # Errors
    /// [`FaceError`] when there is no such template, or never was a good one.
    pub fn fields(&self, template: &str) -> Result<Vec<Field>, FaceError> {
        self.template(template).map(|template| template.fields().to_vec())
    }

    /// Reads every template; for `baygate check`.
    #[must_use]
    pub fn faults(&self) -> Vec<FaceError> {
        self.names().iter().filter_map(|name| self.read(name).err()).collect()
    }

    fn template(&self, name: &str) -> Result<Arc<Template>, FaceError> {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read(name) {
            Ok(template) => {
                let template = Arc::new(template);
                if good.len() < MAX_KEPT || good.contains_key(name) {
                    good.insert(name.to_owned(), Arc::clone(&template));
                }
                Ok(template)
            }
            Err(error) => {
                let last = good.get(name).cloned().ok_or(()).inspect(
                    |_| tracing::warn!(template = name, %error, "template is bad, the last good one goes on"),
                );
                last.map_err(|()| error)
            }
        }
    }

    fn read(&self, name: &str) -> Result<Template, FaceError> {
        let plain = name.ends_with(".svg")
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        let path = self.templates.join(name);
        if !plain || !path.is_file() {
            let (name, folder) = (name.to_owned(), self.templates.clone());
            return Err(FaceError::UnknownTemplate { name, folder, known: self.names() });
        }
        read_template(&path)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.templates).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".svg")).collect();
        names.sort();
        names
    }
}

/// Reads and checks a template's file.
///
/// # Errors
/// [`FaceError::Unreadable`] or [`FaceError::Template`].
pub fn read_template(path: &Path) -> Result<Template, FaceError> {
    let unreadable = |source| FaceError::Unreadable { path: path.to_owned(), source };
    let too_large = std::fs::metadata(path).map_err(unreadable)?.len() > 2 * MAX_BYTES as u64;
    let source = if too_large {
        Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 256 KiB"))
    } else {
        std::fs::read_to_string(path)
    };
    Template::parse(path, &source.map_err(unreadable)?)
}
