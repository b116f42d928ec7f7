//! `buffer verify`: everything read and checked, and the verdict.

use std::path::Path;

use super::{Output, print};
use crate::cli::Exit;
use crate::store::inspect::{self, Verdict};

impl Output {
    pub(super) fn verify(self, place: &Path) -> anyhow::Result<Exit> {
        let bar = self.bar(None, self.pick("行已校验", "rows checked"));
        let verdict = inspect::verify(place, &mut |rows| bar.set_position(rows))?;
        bar.finish_and_clear();
        let exit = if verdict.sound { Exit::Done } else { Exit::Failed };
        print(&if self.json { serde_json::to_string(&verdict)? } else { self.verdict(&verdict, place) })?;
        Ok(exit)
    }

    fn verdict(self, verdict: &Verdict, place: &Path) -> String {
        let mut lines = vec![format!(
            "{}: {} ({} {})",
            place.display(),
            match (verdict.sound, verdict.empty) {
                (true, false) => self.pick("完好", "sound"),
                (true, true) => self.pick("空的,尚未创建任何内容", "empty, nothing made yet"),
                (false, _) => self.pick("有问题", "not sound"),
            },
            verdict.rows,
            self.pick("行", "rows")
        )];
        lines.extend(verdict.problems.iter().map(|problem| format!("  {problem}")));
        lines.extend(verdict.missing.iter().map(|missing| {
            format!(
                "  {} {}: {}–{} (epoch #{})",
                self.pick("缺失", "missing"),
                missing.class,
                missing.from,
                missing.to,
                missing.epoch_no
            )
        }));
        // A folder's file is salvaged at the next start; a copy that is nothing is not.
        if !verdict.problems.is_empty() && !verdict.empty {
            lines.push(
                self.pick(
                    "请备份数据目录后重启服务:启动时逐行抢救",
                    "copy the data folder, then restart the daemon: it salvages",
                )
                .to_owned(),
            );
        }
        lines.join("\n")
    }
}
