//! Hostile dongles on real pseudo-terminals and TCP sockets: what a good
//! simulator never does. Each records every byte it was sent.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_serial::{SerialPort, SerialStream};

/// What to write back to a command (without its CR).
pub type Script = Arc<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

/// A running dongle.
pub struct Dongle {
    /// Everything it was sent.
    pub heard: Arc<Mutex<Vec<u8>>>,
    pub link: String,
    task: JoinHandle<()>,
}

impl Drop for Dongle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Dongle {
    pub async fn on_tcp(script: Script) -> Self {
        Self::on_tcp_with(script, false).await
    }

    /// One that knows `ATE1`.
    pub async fn echoing_on_tcp(script: Script) -> Self {
        Self::on_tcp_with(script, true).await
    }

    async fn on_tcp_with(script: Script, may_echo: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = format!("elm327+tcp://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                serve(stream, &script, &record, may_echo).await;
            }
        });
        Self { heard, link, task }
    }

    pub fn on_pty(dir: &Path, script: Script) -> Self {
        let (master, slave) = SerialStream::pair().unwrap();
        Self::on(dir, master, Arc::new(slave), script)
    }

    /// One that understands a single rate, and says nonsense at others.
    pub fn on_pty_at(rate: u32, dir: &Path, script: Script) -> Self {
        let (master, slave) = SerialStream::pair().unwrap();
        let slave = Arc::new(slave);
        let wire = Arc::clone(&slave);
        let script: Script = Arc::new(move |command| match wire.baud_rate() {
            Ok(now) if now == rate => script(command),
            _ => vec![0xFE, 0x81, 0x00, 0xC3],
        });
        Self::on(dir, master, slave, script)
    }

    fn on(dir: &Path, master: SerialStream, slave: Arc<SerialStream>, script: Script) -> Self {
        let path: PathBuf = dir.join("ttyFAKE");
        let _ = std::fs::remove_file(&path);
        symlink(slave.name().unwrap(), &path).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let _held_open = slave;
            serve(master, &script, &record, false).await;
        });
        Self { heard, link: format!("elm327+serial://{}?baud=38400", path.display()), task }
    }

    pub fn heard_text(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    script: &Script,
    heard: &Mutex<Vec<u8>>,
    may_echo: bool,
) {
    let mut echo = false;
    let mut line = Vec::new();
    let mut buffer = [0; 256];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        heard.lock().unwrap().extend_from_slice(&buffer[..count]);
        for &byte in &buffer[..count] {
            if echo && stream.write_all(&[byte]).await.is_err() {
                return;
            }
            if byte != b'\r' {
                line.push(byte);
                continue;
            }
            let command = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            echo = may_echo && if echo { command != "ATE0" } else { command == "ATE1" };
            if stream.write_all(&script(&command)).await.is_err() {
                return;
            }
        }
    }
}

/// A well-behaved adapter with a car, in a few lines: for scripts to spoil.
pub fn good(command: &str) -> String {
    let body = match command {
        "ATZ" | "ATI" => "ELM327 v1.5",
        "ATRV" => "12.6V",
        "ATDPN" => "A6",
        "AT@1" | "STDI" | "\u{7F}\u{7F}" => "?",
        c if c.ends_with("XXXX") => "?",
        c if c.starts_with("AT") => "OK",
        "0100" | "01001" => "7E8064100183B8013",
        "0902" => "7E8101449020131443447\r7E82147503030523535\r7E82242313233343536",
        "0900" => "7E806490040000000",
        "03" => "7E8024300",
        "07" => "7E8024700",
        "010C" | "010C1" => "7E804410C0CB2",
        "010D" | "010D1" => "7E803410D00",
        "0104" | "01041" => "7E803410466",
        "0105" | "01051" => "7E803410578",
        _ => "NO DATA",
    };
    // The VIN's first frame carries three characters.
    let body = body.replace("7E8101449020131443447", "7E81014490201314434");
    format!("{body}\r\r>")
}

/// A command without the digit for the number of answers.
pub fn plain(command: &str) -> &str {
    let request = command.len() % 2 == 1 && command.starts_with(['0', '2']);
    if request { &command[..command.len() - 1] } else { command }
}

/// The masks of a car that has PID 0C, and something behind C0.
pub fn masks_to_c0(command: &str) -> Option<&'static str> {
    Some(match command {
        "0100" => "7E806410000100001",
        "0120" => "7E806412000000001",
        "0140" => "7E806414000000001",
        "0160" => "7E806416000000001",
        "0180" => "7E806418000000001",
        "01A0" => "7E80641A000000001",
        _ => return None,
    })
}
