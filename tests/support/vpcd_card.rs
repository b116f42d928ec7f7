//! A simulated card on the virtual reader's wire, written for the tests alone: it
//! connects to a port, answers control bytes and APDUs, and can misbehave.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const CLASSIC_1K_ATR: &str = "3B8F8001804F0CA000000306030001000000006A";
pub const DOUBTFUL_ATR: &str = "3B8F8001804F0CA0000003060300030000000068";
pub const PHONE_ATR: &str = "3B80800101";

/// What the card does with an APDU.
pub enum Reply {
    Bytes(Vec<u8>),
    /// The card is there and never answers.
    Never,
    /// The card leaves.
    Leave,
}

type Answer = Box<dyn FnMut(&[u8]) -> Reply + Send>;

/// A card in the field; leaves when dropped.
pub struct TestCard {
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
    pub apdus: Arc<Mutex<Vec<Vec<u8>>>>,
}

pub fn bytes(hex_text: &str) -> Vec<u8> {
    hex::decode(hex_text).unwrap()
}

pub fn connect(port: u16) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "nobody listens on {port}: {error}"),
        }
        std::thread::yield_now();
    }
}

impl TestCard {
    pub fn insert(port: u16, atr: &str, answer: impl FnMut(&[u8]) -> Reply + Send + 'static) -> Self {
        let stream = connect(port);
        stream.set_nodelay(true).unwrap();
        let apdus = Arc::default();
        let (line, atr, seen) = (stream.try_clone().unwrap(), bytes(atr), Arc::clone(&apdus));
        let thread = std::thread::spawn(move || serve(line, &atr, Box::new(answer), &seen));
        Self { stream, thread: Some(thread), apdus }
    }

    /// A card that shows this UID and refuses all else.
    pub fn with_uid(port: u16, atr: &str, uid: &str) -> Self {
        let uid = bytes(uid);
        Self::insert(port, atr, move |apdu| Reply::Bytes(uid_only(&uid, apdu)))
    }

    pub fn remove(self) {}
}

pub fn uid_only(uid: &[u8], apdu: &[u8]) -> Vec<u8> {
    if apdu.starts_with(&[0xFF, 0xCA, 0x00]) { [uid, &[0x90, 0x00]].concat() } else { vec![0x6A, 0x81] }
}

impl Drop for TestCard {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn frame(payload: &[u8]) -> Vec<u8> {
    [&u16::try_from(payload.len()).unwrap().to_be_bytes(), payload].concat()
}

fn serve(mut line: TcpStream, atr: &[u8], mut answer: Answer, seen: &Mutex<Vec<Vec<u8>>>) {
    loop {
        // The driver sends length and payload apart, the second only after an ACK of the
        // first: a delayed one would cost each command 40 ms.
        let _ = socket2::SockRef::from(&line).set_tcp_quickack(true);
        let mut len = [0; 2];
        if line.read_exact(&mut len).is_err() {
            return;
        }
        let mut payload = vec![0; usize::from(u16::from_be_bytes(len))];
        if line.read_exact(&mut payload).is_err() {
            return;
        }
        let reply = match payload.as_slice() {
            [0x00..=0x02] => continue,
            [0x04] => atr.to_vec(),
            apdu => {
                seen.lock().unwrap().push(apdu.to_vec());
                match answer(apdu) {
                    Reply::Bytes(bytes) => bytes,
                    Reply::Leave => {
                        let _ = line.shutdown(Shutdown::Both);
                        return;
                    }
                    Reply::Never => {
                        // Until the connection ends.
                        let _ = std::io::copy(&mut line, &mut std::io::sink());
                        return;
                    }
                }
            }
        };
        if line.write_all(&frame(&reply)).is_err() {
            return;
        }
    }
}
