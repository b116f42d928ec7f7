//! `baygate completions`: shell completions on standard output.

use clap_complete::Shell;

use super::{Exit, Global};

/// Print shell completions / 输出命令补全脚本
#[derive(Debug, clap::Args)]
#[command(after_help = "Example / 示例:\n  baygate completions bash > /etc/bash_completion.d/baygate")]
pub struct Args {
    /// Shell
    shell: Shell,
}

pub async fn run(args: Args, _: &Global) -> anyhow::Result<Exit> {
    // Not to standard output itself: the generator panics when its reader leaves.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "baygate", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}
