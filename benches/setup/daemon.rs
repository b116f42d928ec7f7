//! The release daemon as a child process with every service on: reader, vehicle,
//! printer, till, local HTTP, maintenance, and the uplink when there is a broker.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(120);

pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_baygate"))
}

/// Simulated devices: a dongle and a printer. They end when dropped.
pub struct Devices {
    folder: tempfile::TempDir,
    children: Vec<Child>,
}

impl Devices {
    /// `car`: how `baygate simulate vehicle` shall play it, e.g. `--no-car`.
    pub fn plug_in(car: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut devices = Self { folder, children: Vec::new() };
        let (dongle, printer) = (devices.path("dongle"), devices.path("printer"));
        devices.simulate("vehicle", &dongle, car);
        devices.simulate("printer", &printer, &[]);
        devices
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn simulate(&mut self, what: &str, link: &Path, extra: &[&str]) {
        let mut child = program()
            .args(["simulate", what, "--pty", "--link-to"])
            .arg(link)
            .args(extra)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It says where it is once it is there.
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(link.exists(), "simulated {what}: {line}");
        self.children.push(child);
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A configuration in a folder of its own; the data folder lies in it.
pub struct Site {
    pub folder: tempfile::TempDir,
    devices: Devices,
}

impl Site {
    pub fn new(car: &[&str]) -> Self {
        let site = Self { folder: super::folder(), devices: Devices::plug_in(car) };
        std::fs::create_dir(site.data()).unwrap();
        site
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("baygate.toml")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.socket("control")
    }

    /// Gives the store keys of its own for member cards (docs/card-keys.md), before the start.
    pub fn keep_card_keys(&self) {
        std::fs::create_dir(self.credentials()).unwrap();
        let purposes = ["record", "debit", "credit", "manage", "sun"];
        let keys: String =
            purposes.map(|purpose| format!("1 {purpose} {}\n", Uuid::new_v4().simple())).concat();
        std::fs::write(self.credentials().join("card-keys"), format!("store SH-0042\ncurrent 1\n{keys}"))
            .unwrap();
    }

    fn credentials(&self) -> PathBuf {
        self.folder.path().join("credentials")
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.devices.path(name)
    }

    /// Writes the configuration. `reader`: what stands in `[[reader]]` beside its id.
    pub fn write(&self, broker: u16, reader: &str) {
        let root = env!("CARGO_MANIFEST_DIR");
        let (data, control) = (self.data(), self.socket("control"));
        let (dongle, printer) = (self.devices.path("dongle"), self.devices.path("printer"));
        let text = format!(
            r#"[gateway]
store = "SH-0042"
id = "gw-1"
data_dir = {data:?}
firmware_protocols = "{root}/firmware-protocols"
share_dir = "{root}/config"

[mqtt]
url = "mqtt://127.0.0.1:{broker}"
confirm = "broker"
max_in_flight = {WINDOW}

[api]
listen = "127.0.0.1:0"
control_socket = {control:?}

[[reader]]
id = "counter-1"
{reader}

[[vehicle]]
id = "bay-1"
link = "elm327+serial://{}?baud=38400"

[[printer]]
id = "face-1"
kind = "star-tcp300"
link = "serial://{}?baud=38400"
reader = "counter-1"

[[till]]
id = "till-1"
reader = "counter-1"
printer = "face-1"
"#,
            dongle.display(),
            printer.display(),
        );
        std::fs::write(self.config(), text).unwrap();
    }

    /// Starts the daemon and waits for `READY=1`.
    pub fn start(&self) -> Daemon {
        let path = self.socket("notify");
        let _ = std::fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        notify.set_read_timeout(Some(LONG)).unwrap();
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = program();
        command
            .args(["run", "--config"])
            .arg(self.config())
            .env("NOTIFY_SOCKET", &path)
            .env("MALLOC_ARENA_MAX", "2") // as systemd/baygate.service does
            .env("CREDENTIALS_DIRECTORY", self.credentials())
            .env_remove("BAYGATE_LOG")
            .stdout(Stdio::null())
            .stderr(log);
        let began = Instant::now();
        let mut daemon = Daemon { child: command.spawn().unwrap(), ready_after: Duration::ZERO };
        let mut buffer = [0; 256];
        loop {
            let length = notify.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("never ready ({error}):\n{}", self.log());
            });
            if String::from_utf8_lossy(&buffer[..length]).contains("READY=1") {
                daemon.ready_after = began.elapsed();
                return daemon;
            }
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until the daemon's log says these words; gives the line.
    pub fn says(&self, words: &str) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(line) = self.log().lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "never said {words:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Publishes under way at once, on both sides.
pub const WINDOW: u16 = 64;

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    /// From exec to `READY=1`.
    pub ready_after: Duration,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An orderly stop.
    pub fn stop(mut self) {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), Signal::SIGTERM).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the daemon does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
