//! The terminal as `watch` uses it: a screen of its own, redrawn in place, a key that
//! ends it. Whatever happens, the terminal is given back as it was (`Drop`).

use std::io::{IsTerminal, Write};

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use tokio::io::AsyncReadExt;

use super::board::cut;

/// Another screen, without cursor (xterm control sequences, DEC private modes 1049 and 25).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Where a terminal does not tell its size.
const USUAL: (usize, usize) = (100, 30);

/// The screen, while it lasts.
pub struct Screen {
    /// The keyboard's settings before; `None`: there is no keyboard.
    before: Option<Termios>,
}

impl Screen {
    /// Takes the terminal over; `None` where output goes elsewhere.
    #[must_use]
    pub fn enter() -> Option<Self> {
        let mut out = std::io::stdout();
        if !out.is_terminal() {
            return None;
        }
        let before = termios::tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            // Keys come at once and are not shown; Ctrl-C stays a signal.
            let mut quiet = before.clone();
            quiet.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &quiet);
        }
        let screen = Self { before };
        write!(out, "{ENTER}").and_then(|()| out.flush()).ok()?;
        Some(screen)
    }

    /// Width and height of what can be drawn on, in characters; the cursor has the last row.
    #[must_use]
    pub fn size() -> (usize, usize) {
        let (width, height) =
            terminal_size::terminal_size().map_or(USUAL, |(width, height)| (width.0.into(), height.0.into()));
        (width, height.saturating_sub(1))
    }

    /// Draws over what was drawn before, without flicker.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&self, lines: &[String]) -> std::io::Result<()> {
        let (width, height) = Self::size();
        let mut picture = String::from("\x1b[H");
        for line in lines.iter().take(height) {
            picture.push_str(&cut(line, width));
            picture.push_str("\x1b[K\r\n");
        }
        picture.push_str("\x1b[J");
        let mut out = std::io::stdout().lock();
        out.write_all(picture.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = std::io::stdout();
        let _ = write!(out, "{LEAVE}").and_then(|()| out.flush());
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

/// Waits until somebody wants it to end: `q` where there is a keyboard, Ctrl-C, or a
/// supervisor's SIGTERM.
pub async fn wanted_to_end(keys: bool) {
    let mut told = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(told) => told,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = told.recv() => {}
        () = key(keys && std::io::stdin().is_terminal()) => {}
    }
}

/// Until `q` is pressed.
async fn key(there_is_a_keyboard: bool) {
    let mut keyboard = tokio::io::stdin();
    let mut key = [0_u8; 1];
    while there_is_a_keyboard && matches!(keyboard.read(&mut key).await, Ok(1)) {
        if matches!(key, [b'q' | b'Q']) {
            return;
        }
    }
    std::future::pending().await
}
