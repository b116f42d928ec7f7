//! A printer that writes pictures: each face becomes `JOB.png` in a folder,
//! complete or not there at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::bitmap::Bitmap;
use super::trouble::Trouble;
use crate::event::Text;
use crate::event::device::DeviceStatus;

/// A folder for faces.
#[derive(Debug, Clone)]
pub struct PngPrinter {
    folder: PathBuf,
}

impl PngPrinter {
    /// Opens the folder, creates it when it is not there, and tries to write in it. Blocks.
    ///
    /// # Errors
    /// [`Trouble`] `folder-unwritable` saying what to do.
    pub fn open(folder: &Path) -> Result<Self, Trouble> {
        let printer = Self { folder: folder.to_owned() };
        printer.check().map(|()| printer)
    }

    /// Whether the folder can still be written. Blocks.
    ///
    /// # Errors
    /// As [`PngPrinter::open`].
    pub fn check(&self) -> Result<(), Trouble> {
        let probe = self.folder.join(".baygate-writable");
        let tried = fs::create_dir_all(&self.folder)
            .and_then(|()| File::create(&probe))
            .and_then(|_| fs::remove_file(&probe));
        tried.map_err(|error| self.unwritable(&error))
    }

    /// Writes a face; its path. Blocks.
    ///
    /// # Errors
    /// As [`PngPrinter::open`].
    pub fn print(&self, job: Uuid, face: &Bitmap) -> Result<PathBuf, Trouble> {
        let path = self.folder.join(format!("{job}.png"));
        let part = self.folder.join(format!(".{job}.part"));
        let written = face.to_png().and_then(|picture| {
            let mut file = File::create(&part)?;
            file.write_all(&picture)?;
            // The job becomes `done` after this: both the file and its name must outlive a power cut.
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&self.folder)?.sync_all()
        });
        match written {
            Ok(()) => Ok(path),
            Err(error) => {
                // Nothing to tell when even this fails: the next attempt writes over it.
                let _ = fs::remove_file(&part);
                Err(self.unwritable(&error))
            }
        }
    }

    fn unwritable(&self, error: &std::io::Error) -> Trouble {
        let folder = self.folder.display();
        Trouble {
            status: DeviceStatus::Failed,
            reason: "folder-unwritable",
            text: Text::new(
                format!("无法写入文件夹 {folder}：{error}；请检查权限和磁盘空间"),
                format!(
                    "folder {folder} cannot be written: {error}; check its permissions and the disk's space"
                ),
            ),
            lost: true,
        }
    }
}
