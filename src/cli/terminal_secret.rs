//! A secret from a person: typed at a terminal without echo, or one line of standard input.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// What was typed. `Debug` prints nothing; the memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    /// The text itself.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Whether somebody types at a terminal.
pub(super) fn is_typed() -> bool {
    io::stdin().is_terminal()
}

/// The terminal as it was, put back when dropped.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn begin() -> nix::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        // The line's end is shown, so that the cursor moves on.
        quiet.local_flags.insert(LocalFlags::ECHONL | LocalFlags::ICANON);
        // What was typed ahead was shown already: it is thrown away.
        tcsetattr(io::stdin().as_fd(), SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

/// Asks for one line; Ctrl-C puts the terminal back first.
pub(super) async fn read(prompt: &str) -> anyhow::Result<Secret> {
    let typed = is_typed();
    let quiet = typed.then(Quiet::begin).transpose().context("the terminal's echo cannot be turned off")?;
    if typed {
        eprint!("{prompt}");
        io::stderr().flush()?;
    }
    // A thread of its own: one that waits for a key must not hold up the end of the program.
    let (sender, line) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = Zeroizing::new(String::new());
        let read = io::stdin().lock().read_line(&mut line);
        let _ = sender.send(read.map(|_| line));
    });
    let line = tokio::select! {
        line = line => line.context("standard input was closed")??,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            drop(quiet);
            anyhow::bail!("interrupted; nothing was changed");
        }
    };
    drop(quiet);
    anyhow::ensure!(!line.is_empty(), "nothing was typed and standard input is empty; nothing was changed");
    Ok(Secret(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned())))
}
