//! A real Mosquitto in memory: what it has not passed on is gone with it.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::port::free_port;
use crate::daemon::LONG;
use crate::until::until_ok;

pub struct Broker {
    pub port: u16,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Broker {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
        let config = format!(
            "user {user}\npersistence false\nlistener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 1000000\n"
        );
        std::fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        let mut broker = Self { port, dir, child: None };
        broker.up().await;
        broker
    }

    pub async fn up(&mut self) {
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("mosquitto");
        let began = Instant::now();
        while began.elapsed() < LONG {
            let mut child = Command::new(program)
                .arg("-c")
                .arg(self.dir.path().join("mosquitto.conf"))
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(self.dir.path().join("log")).unwrap())
                .spawn()
                .expect("mosquitto must be installed");
            while child.try_wait().unwrap().is_none() && began.elapsed() < LONG {
                if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                    self.child = Some(child);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let _ = child.kill();
            child.wait().unwrap();
        }
        panic!(
            "mosquitto does not listen: {}",
            std::fs::read_to_string(self.dir.path().join("log")).unwrap()
        );
    }

    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| i32::try_from(child.id()).unwrap())
    }

    /// How it ended; nothing when it was dead.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        child.kill().unwrap();
        Some(child.wait().unwrap())
    }

    /// It was told to stop.
    pub async fn ended(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let often = Duration::from_millis(5);
        until_ok(LONG, often, async || child.try_wait().unwrap().ok_or("mosquitto does not end")).await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
