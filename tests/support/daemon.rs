//! The real program as a child process: started, told by signals, killed.
#![allow(dead_code)] // each test file uses its part

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

pub const LONG: Duration = Duration::from_secs(60);

/// A running `baygate run`.
pub struct Daemon {
    child: Child,
    log: watch::Receiver<String>,
}

/// The program under test.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_baygate"))
}

/// Rules, templates, fonts and protocol data of the source tree.
pub fn share() -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    format!("firmware_protocols = \"{root}/firmware-protocols\"\nshare_dir = \"{root}/config\"\n")
}

/// A desk with a configuration on it.
pub struct Desk {
    pub dir: tempfile::TempDir,
}

impl Desk {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("baygate.toml")
    }

    /// Writes the configuration: the usual head, and `rest`.
    pub fn write(&self, rest: &str) {
        let dir = self.dir.path().display();
        let text = format!(
            "[gateway]\nstore = \"SH-0042\"\nid = \"gw-1\"\nlocale = \"en\"\ndata_dir = \"{dir}/data\"\n{}\n[api]\nlisten = \"127.0.0.1:0\"\ncontrol_socket = \"{dir}/control.sock\"\n\n{rest}",
            share()
        );
        std::fs::write(self.config(), text).unwrap();
    }
}

impl Daemon {
    /// Starts and waits until it runs.
    pub async fn start(config: &Path) -> Self {
        let mut daemon = Self::spawn(config);
        daemon.says("baygate is running").await;
        daemon
    }

    /// Starts without waiting.
    pub fn spawn(config: &Path) -> Self {
        Self::spawn_with(config, |_| {})
    }

    /// Starts without waiting, in another environment.
    pub fn spawn_with(config: &Path, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = program();
        command.env("BAYGATE_LOG", "info");
        change(&mut command);
        let mut child = command
            .args(["run", "--config"])
            .arg(config)
            .env_remove("NOTIFY_SOCKET")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (say, log) = watch::channel(String::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                say.send_modify(|log| {
                    log.push_str(&line);
                    log.push('\n');
                });
            }
        });
        Self { child, log }
    }

    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until the log says `words`.
    pub async fn says(&mut self, words: &str) {
        let mut log = self.log.clone();
        let said = tokio::time::timeout(LONG, log.wait_for(|log| log.contains(words))).await;
        let heard = matches!(said, Ok(Ok(_)));
        assert!(heard, "never said {words:?}:\n{}", self.log.borrow().as_str());
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id().expect("running")).unwrap()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(LONG, self.child.wait()).await.expect("ends").unwrap()
    }

    /// As a power cut would for the process. How it really ended: it may have died before.
    pub async fn kill(mut self) -> ExitStatus {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap()
    }
}
