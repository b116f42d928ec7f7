//! The host's end of a device's wire: raw bytes out, raw bytes in, each wait with a deadline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_serial::SerialPortBuilderExt;

const DEADLINE: Duration = Duration::from_secs(10);

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub struct Wire(Box<dyn Stream>);

impl Wire {
    pub fn serial(path: &Path, baud: u32) -> Self {
        Self(Box::new(tokio_serial::new(path.to_string_lossy(), baud).open_native_async().unwrap()))
    }

    pub async fn tcp(address: SocketAddr) -> Self {
        Self(Box::new(tokio::net::TcpStream::connect(address).await.unwrap()))
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Everything up to and including the prompt.
    pub async fn reply(&mut self) -> String {
        self.until(b'>').await
    }

    /// Everything up to and including such a byte.
    pub async fn until(&mut self, end: u8) -> String {
        let mut reply = Vec::new();
        while reply.last() != Some(&end) {
            let byte = tokio::time::timeout(DEADLINE, self.0.read_u8()).await;
            let so_far = String::from_utf8_lossy(&reply).into_owned();
            reply.push(byte.unwrap_or_else(|_| panic!("no {} after {so_far:?}", char::from(end))).unwrap());
        }
        String::from_utf8_lossy(&reply).into_owned()
    }

    pub async fn ask(&mut self, command: &str) -> String {
        self.send(command.as_bytes()).await;
        self.send(b"\r").await;
        self.reply().await
    }

    /// Asks and gives the lines between echo and prompt.
    pub async fn lines(&mut self, command: &str) -> Vec<String> {
        let reply = self.ask(command).await;
        let lines = reply.trim_end_matches('>').split(['\r', '\n']);
        lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    pub async fn setup(&mut self, commands: &[&str]) {
        for command in commands {
            assert!(self.ask(command).await.contains("OK"), "{command}");
        }
    }

    pub async fn exactly_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        tokio::time::timeout(DEADLINE, self.0.read_exact(&mut bytes)).await.expect("too few bytes").unwrap();
        bytes
    }

    pub async fn exactly(&mut self, count: usize) -> String {
        String::from_utf8(self.exactly_bytes(count).await).unwrap()
    }

    /// Nothing comes for so long.
    pub async fn silent(&mut self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.0.read_u8()).await.is_err()
    }

    /// What comes until nothing came for so long.
    pub async fn until_silent(&mut self, patience: Duration) -> String {
        let mut all = Vec::new();
        while let Ok(Ok(byte)) = tokio::time::timeout(patience, self.0.read_u8()).await {
            all.push(byte);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    /// The other end is gone: end of file or an error.
    pub async fn broken(&mut self) -> bool {
        tokio::time::timeout(DEADLINE, self.0.read_u8()).await.expect("still there").is_err()
    }
}
