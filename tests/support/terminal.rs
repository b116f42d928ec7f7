//! The real program on a terminal that is its own: what it draws there, keys, another size, and
//! how it leaves the terminal behind.
#![allow(dead_code)] // each test file uses its part

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::pty::Winsize;
use tokio::sync::mpsc;
use unicode_width::UnicodeWidthStr as _;

const LONG: Duration = Duration::from_secs(90);
/// Runs the program, then says how it ended and how the terminal stands, and stays for the last word
/// to be read. Ctrl-C is the program's alone.
const SHELL: &str = "trap : INT; \"$@\"; echo \"ENDED $?\"; stty -a; echo DONE; read line";

pub struct Terminal {
    child: Child,
    name: PathBuf,
    keyboard: File,
    told: mpsc::UnboundedReceiver<Vec<u8>>,
    said: Vec<u8>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Terminal {
    /// `size`: columns, rows.
    pub fn run(size: (u16, u16), args: &[&str], env: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_col: size.0, ws_row: size.1, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(Some(&size), None).unwrap();
        let name = nix::unistd::ttyname(&pty.slave).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", "sh", "-c", SHELL, "sh", env!("CARGO_BIN_EXE_baygate")])
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .envs(env.iter().copied())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let mut screen = File::from(pty.master);
        let keyboard = screen.try_clone().unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut piece) {
                if tell.send(piece[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, name, keyboard, told, said: Vec::new() }
    }

    /// Everything said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    /// Waits until what was said is as wanted.
    pub async fn until(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = tokio::time::Instant::now() + LONG;
        while !is_so(&self.said()) {
            match tokio::time::timeout_at(deadline, self.told.recv()).await {
                Ok(Some(piece)) => self.said.extend(piece),
                Ok(None) => panic!("it ended without {what}: {:?}", self.said()),
                Err(_) => panic!("waited in vain for {what}: {:?}", self.said()),
            }
        }
        self.said()
    }

    /// Waits for a picture as wanted that begins after now.
    pub async fn picture(&mut self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let before = self.said.len();
        let fresh = |said: &str| pictures(said.get(before..).unwrap_or_default());
        let said = self.until(what, |said| fresh(said).iter().any(|picture| is_so(picture))).await;
        fresh(&said).into_iter().find(|picture| is_so(picture)).unwrap()
    }

    pub fn keys(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let args = ["cols", &columns, "rows", &rows];
        assert!(Command::new("stty").arg("-F").arg(&self.name).args(args).status().unwrap().success());
    }

    /// Waits for the program's end: its exit status and what was said up to then. The terminal must
    /// stand as it stood: lines with an echo, on the usual screen, with a cursor.
    pub async fn ended(mut self) -> (i32, String) {
        let said = self.until("its end", |said| said.contains("\nDONE")).await;
        let (said, after) = said.split_once("ENDED ").unwrap();
        let (status, settings) = after.split_once('\n').unwrap();
        for setting in ["icanon", "echo", "isig"] {
            assert!(settings.split_whitespace().any(|word| word == setting), "{setting}: {settings}");
        }
        for (on, off) in [("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h")] {
            assert!(said.rfind(on) <= said.rfind(off), "{on:?} and not {off:?}: {said:?}");
        }
        (status.trim().parse().unwrap(), said.to_owned())
    }
}

/// The whole pictures in what was said, line by line.
pub fn pictures(said: &str) -> Vec<Vec<String>> {
    let whole = said.split("\x1b[H").skip(1).filter_map(|picture| picture.split_once("\x1b[J"));
    whole.map(|(picture, _)| picture.split_terminator('\n').map(plain).collect()).collect()
}

/// A line without its control sequences (those of ECMA-48 that end in a letter).
pub fn plain(line: &str) -> String {
    let mut pieces = line.split('\x1b');
    let first = pieces.next();
    let rest = pieces.map(|piece| piece.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, l)| l));
    first.into_iter().chain(rest).collect::<String>().replace('\r', "")
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// In which column a word begins.
pub fn column(line: &str, word: &str) -> usize {
    width(line.split_once(word).unwrap_or_else(|| panic!("{word} in {line:?}")).0)
}
