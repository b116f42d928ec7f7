//! Who holds a device node: the process that has it open, found in `/proc`.
//! Best effort by nature: without the right to look into other users'
//! processes only our own are seen.

use std::fs;
use std::path::Path;

/// The processes other than ourselves that have `node` open, e.g. `process 812 (ModemManager)`.
/// `None` when none could be seen. Blocking; meant for the error path only.
#[must_use]
pub fn holder_of(node: &Path) -> Option<String> {
    let wanted = fs::canonicalize(node).ok()?;
    let found: Vec<String> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            has_open(&entry.path(), &wanted).then(|| describe(pid, &entry.path()))
        })
        .take(4)
        .collect();
    (!found.is_empty()).then(|| found.join(", "))
}

fn has_open(process: &Path, wanted: &Path) -> bool {
    fs::read_dir(process.join("fd"))
        .map(|fds| fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == wanted)))
        .unwrap_or(false)
}

fn describe(pid: u32, process: &Path) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let own = if pid == std::process::id() { ", this program itself" } else { "" };
    match name.trim() {
        "" => format!("process {pid}{own}"),
        name => format!("process {pid} ({name}{own})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_process_that_has_a_file_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let holder = holder_of(file.path()).unwrap();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        let path = file.path().to_owned();
        drop(file);
        assert_eq!(holder_of(&path), None);
    }
}
