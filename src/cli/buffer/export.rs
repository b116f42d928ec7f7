//! `buffer export`: events as JSON Lines, in order, page by page. A file appears
//! under its name only when it is whole. Of a damaged database everything readable
//! comes out, and how much did not is said (exit status 1).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Output, PAGE};
use crate::cli::Exit;
use crate::event::{Class, Source};
use crate::store::inspect::Readable;
use crate::store::outbox::LoggedEvent;
use crate::store::{Offset, backup};

/// Which events, and where to.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Wanted {
    /// Only this class / 仅此类别
    #[arg(long, value_parser = super::class)]
    class: Option<Class>,
    /// Only what is not delivered yet / 仅未送达
    #[arg(long)]
    unsent: bool,
    /// Into this file / 写入文件
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Output {
    /// `known`: who speaks, where the file itself does not say any more.
    pub(super) fn export(
        self,
        wanted: &Wanted,
        data_dir: &Path,
        known: Option<Source>,
    ) -> anyhow::Result<Exit> {
        let Some(path) = &wanted.output else {
            let readable = Readable::open(data_dir, &std::env::temp_dir())?;
            return self.write(&readable, wanted, known, std::io::stdout().lock());
        };
        if backup::is_ours(data_dir, path) {
            eprintln!(
                "{}: {}",
                path.display(),
                self.pick(
                    "这是数据库自身的文件名,请换一个",
                    "the database uses this name itself; choose another"
                )
            );
            return Ok(Exit::Usage);
        }
        let named = || path.display().to_string();
        if path.exists() && !path.is_file() {
            let to = File::options().write(true).open(path).with_context(named)?;
            let readable = Readable::open(data_dir, &std::env::temp_dir())?;
            return self.write(&readable, wanted, known, to);
        }
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Beside the file there is room for it, or it could not be written anyway.
        let readable = Readable::open(data_dir, folder)?;
        let mut staged = path.clone().into_os_string();
        staged.push(".part");
        let staged = PathBuf::from(staged);
        let written = File::create(&staged).with_context(named).and_then(|to| {
            let exit = self.write(&readable, wanted, known, &to)?;
            to.sync_all().and_then(|()| std::fs::rename(&staged, path)).with_context(named)?;
            Ok(exit)
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&staged);
        }
        written
    }

    fn write(
        self,
        readable: &Readable,
        wanted: &Wanted,
        known: Option<Source>,
        to: impl Write,
    ) -> anyhow::Result<Exit> {
        let inspection = readable.inspection();
        let source = match inspection.source() {
            Ok(source) => source,
            Err(error) => known.or_else(unknown).ok_or(error)?,
        };
        if let Some(what) = &readable.damage {
            eprintln!(
                "{}: {what}",
                self.pick("数据库已损坏,逐行读取", "the database is damaged, read row by row")
            );
        }
        let reader = inspection.reader();
        let delivered = Class::ALL
            .map(|class| reader.delivered(class).map(|at| (class, at)))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let is_sent = |event: &LoggedEvent| {
            delivered.iter().any(|(class, at)| *class == event.event.class && event.cursor <= *at)
        };
        let bar = self.bar(None, self.pick("条事件", "events"));
        let mut to = BufWriter::new(to);
        let (mut after, mut unreadable) = (Offset(i64::MIN), readable.unreadable);
        loop {
            let page = reader.readable_after(after, PAGE)?;
            unreadable += page.unreadable;
            let Some(last) = page.last else { break };
            after = last;
            for event in page.events {
                if wanted.class.is_some_and(|class| class != event.event.class)
                    || (wanted.unsent && is_sent(&event))
                {
                    continue;
                }
                let mut line = event.event.to_cloudevent(&source)?;
                line.push(b'\n');
                match to.write_all(&line) {
                    // `| head` has seen enough.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
                    other => other?,
                }
                bar.inc(1);
            }
        }
        to.flush()?;
        let exported = bar.position();
        bar.finish_and_clear();
        if unreadable == 0 && readable.damage.is_none() {
            return Ok(Exit::Done);
        }
        eprintln!(
            "{}: {exported}; {}: {unreadable}",
            self.pick("已导出事件", "events exported"),
            self.pick("无法读取(全部类别)", "not readable (of all classes)")
        );
        Ok(Exit::Failed)
    }
}

/// Who spoke is lost with the file, and no configuration says it.
fn unknown() -> Option<Source> {
    Some(Source { store: "unknown".parse().ok()?, gateway: "unknown".parse().ok()? })
}
