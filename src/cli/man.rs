//! `baygate man`: the man page on standard output.

use super::{Exit, Global};

/// Print the man page / 输出手册页
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example / 示例:\n  baygate man | man -l -\n  baygate man > /usr/share/man/man1/baygate.1"
)]
pub struct Args {}

pub async fn run(_: Args, _: &Global) -> anyhow::Result<Exit> {
    let command = super::command();
    let man = clap_mangen::Man::new(command.clone());
    let mut page = Vec::new();
    man.render(&mut page)?;
    // One page holds all commands: a box has no patience for thirty files.
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("baygate {}", sub.get_name());
        page.extend_from_slice(format!(".SH \"{}\"\n", name.to_uppercase()).as_bytes());
        let sub = clap_mangen::Man::new(sub.clone().bin_name(name));
        sub.render_description_section(&mut page)?;
        sub.render_options_section(&mut page)?;
    }
    print!("{}", String::from_utf8_lossy(&page));
    Ok(Exit::Done)
}
