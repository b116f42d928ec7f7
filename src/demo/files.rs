//! The demo's folder: rules, templates, fonts and protocol data come out of the
//! program itself, so that the demo runs from anywhere.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use include_dir::{Dir, include_dir};

static SHARE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/config");
static PROTOCOLS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/firmware-protocols");

/// The folder of this user's in the temporary folder.
pub fn usual_dir() -> PathBuf {
    std::env::temp_dir().join(format!("baygate-demo-{}", nix::unistd::geteuid()))
}

/// Makes the folder, private to this user, with the embedded files in it.
pub fn prepare(dir: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("{} cannot be made; name another folder with --dir", dir.display()))?;
    if std::fs::metadata(dir)?.uid() != nix::unistd::geteuid().as_raw() {
        bail!("{} belongs to another user; name another folder with --dir", dir.display());
    }
    for (name, files) in [("share", &SHARE), ("firmware-protocols", &PROTOCOLS)] {
        let target = dir.join(name);
        std::fs::create_dir_all(&target)?;
        files.extract(&target).with_context(|| format!("{} cannot be written", target.display()))?;
    }
    std::fs::create_dir_all(dir.join("faces"))?;
    Ok(())
}
