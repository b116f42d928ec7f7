//! A Star TCP300 made of raw bytes, by `docs/devices/star-tcp300.md`, for the
//! printer tests. Knows nothing of the driver's codec. Its knobs make it open,
//! busy, deaf or noisy.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Columns of 40 bytes, bit 0 above.
pub type Image = Vec<[u8; 40]>;

#[derive(Default)]
pub struct State {
    pub image: Image,
    /// `'0'`, `'1'`, `'2'` as sensor 1 reports it.
    pub inlet: u8,
    pub cover_open: bool,
    pub naks: usize,
    pub busy: usize,
    pub garbled: usize,
    pub silent: bool,
    /// Does not know 4D.
    pub old_firmware: bool,
    /// Status bytes of the next prints instead of 20.
    pub print_status: VecDeque<u8>,
    /// The image memory at every successful print.
    pub printed: Vec<Image>,
    /// Command bytes taken, in order.
    pub taken: Vec<u8>,
}

#[derive(Clone)]
pub struct Double(Arc<Mutex<State>>);

impl Double {
    pub fn new() -> Self {
        let state = State { image: vec![[0; 40]; 480], inlet: b'0', ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn insert_card(&self) {
        self.state().inlet = b'1';
    }

    /// Closing the path resets the device and loses what was loaded.
    pub fn close_cover(&self) {
        let mut state = self.state();
        state.cover_open = false;
        state.image = vec![[0; 40]; 480];
    }

    /// Serves on a free port, one connection after the other.
    pub fn listen(&self) -> SocketAddr {
        self.listen_on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn listen_on(&self, listener: TcpListener) -> SocketAddr {
        let address = listener.local_addr().unwrap();
        let double = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_nodelay(true).unwrap();
                let (reading, writing) = (stream.try_clone().unwrap(), stream);
                double.serve(reading, writing);
            }
        });
        address
    }

    /// Serves on a pty; the path to open.
    pub fn pty(&self) -> PathBuf {
        let pty = nix::pty::openpty(None, None).unwrap();
        let path = nix::unistd::ttyname(&pty.slave).unwrap();
        let mut raw = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
        nix::sys::termios::cfmakeraw(&mut raw);
        nix::sys::termios::tcsetattr(&pty.slave, nix::sys::termios::SetArg::TCSANOW, &raw).unwrap();
        let (master, keep_open): (OwnedFd, OwnedFd) = (pty.master, pty.slave);
        let double = self.clone();
        std::thread::spawn(move || {
            let _slave = keep_open;
            let reading = std::fs::File::from(master.try_clone().unwrap());
            double.serve(reading, std::fs::File::from(master));
        });
        path
    }

    fn serve(&self, mut reading: impl Read, mut writing: impl Write) {
        let mut last: Vec<u8> = Vec::new();
        let mut byte = [0];
        while matches!(reading.read(&mut byte), Ok(1)) {
            match byte[0] {
                0x02 => {}
                0x15 => {
                    let _ = writing.write_all(&last);
                    continue;
                }
                _ => continue,
            }
            let mut frame = Vec::new();
            while !frame.ends_with(&[0x03]) && matches!(reading.read(&mut byte), Ok(1)) {
                frame.push(byte[0]);
            }
            if !matches!(reading.read(&mut byte), Ok(1)) {
                return;
            }
            let right = frame.iter().fold(0, |bcc, b| bcc ^ b) == byte[0];
            for answer in self.answer(&frame, right) {
                if answer.len() > 1 {
                    last.clone_from(&answer);
                    let mut state = self.state();
                    if state.garbled > 0 {
                        state.garbled -= 1;
                        let mut damaged = answer.clone();
                        *damaged.last_mut().unwrap() ^= 0xFF;
                        let _ = writing.write_all(b"\xFFnoise");
                        let _ = writing.write_all(&damaged);
                        continue;
                    }
                }
                let _ = writing.write_all(&answer);
            }
        }
    }

    fn answer(&self, frame: &[u8], right: bool) -> Vec<Vec<u8>> {
        let mut state = self.state();
        if state.silent {
            return vec![];
        }
        if !right || state.naks > 0 {
            state.naks = state.naks.saturating_sub(1);
            return vec![vec![0x15]];
        }
        if state.busy > 0 {
            state.busy -= 1;
            return vec![vec![0x10]];
        }
        let (command, data) = (frame[0], &frame[1..frame.len() - 1]);
        state.taken.push(command);
        let open = state.cover_open;
        let (status, text) = match command {
            0x59 => {
                let cover = if open { b'1' } else { b'0' };
                (0x20, vec![state.inlet, b'0', b'0', b'0', cover, b'0', b'0'])
            }
            _ if open => (0x40, vec![]),
            0x40 => (0x20, vec![]),
            0x49 => {
                state.image = vec![[0; 40]; 480];
                (0x20, vec![])
            }
            0x43 => {
                let text = std::str::from_utf8(data).unwrap();
                let parts: Vec<&str> = text.split(',').collect();
                let (x, y): (usize, usize) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
                for (offset, pair) in parts[2].as_bytes().chunks(2).enumerate() {
                    let byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
                    state.image[x][y + offset] |= byte;
                }
                (0x20, vec![])
            }
            0x4D if state.old_firmware => (0x41, vec![]),
            0x4D => {
                let text = std::str::from_utf8(data).unwrap();
                let parts: Vec<&str> = text.split(',').collect();
                let numbers: Vec<usize> = parts[..3].iter().map(|part| part.parse().unwrap()).collect();
                let bytes: Vec<&[u8]> = parts[3].as_bytes().chunks(2).collect();
                for (step, column) in bytes.chunks(numbers[2]).enumerate() {
                    for (offset, pair) in column.iter().enumerate() {
                        let byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
                        state.image[numbers[0] + step][numbers[1] + offset] |= byte;
                    }
                }
                (0x20, vec![])
            }
            0x46 => match state.print_status.pop_front() {
                Some(status) => (status, vec![]),
                None if state.inlet == b'1' => {
                    let image = state.image.clone();
                    state.printed.push(image);
                    state.inlet = b'2';
                    (0x20, vec![])
                }
                None => (0x22, vec![]),
            },
            _ => (0x41, vec![]),
        };
        drop(state);
        let mut response = vec![command, status];
        response.extend(text);
        response.push(0x03);
        response.push(response.iter().fold(0, |bcc, b| bcc ^ b));
        response.insert(0, 0x02);
        vec![vec![0x06], response]
    }

    /// Waits, with a deadline, until the printer is as asked.
    pub async fn until(&self, what: &str, is: impl Fn(&State) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !is(&self.state()) {
            assert!(std::time::Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
