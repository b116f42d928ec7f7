//! What the kernel says of a process: memory, processor time, bytes to the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Memory of a process, in MB (10⁶ bytes).
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub resident: f64,
    /// Of it: heap and stacks.
    pub anonymous: f64,
    /// Of it: the program's own file and libraries, which the kernel may drop at any time.
    pub file: f64,
}

/// Memory now.
pub fn memory(pid: u32) -> Option<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024.0 / 1e6)
    };
    Some(Memory { resident: field("VmRSS:")?, anonymous: field("RssAnon:")?, file: field("RssFile:")? })
}

/// The kernel's own note of the most a process ever held, in MB.
pub fn peak(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
}

/// Watches a process and keeps what it held when it held most.
pub struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Memory>,
}

impl Watch {
    pub fn start(pid: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut most = Memory::default();
            while !ended.load(Ordering::Relaxed) {
                if let Some(now) = memory(pid).filter(|now| now.resident > most.resident) {
                    most = now;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        Self { over, thread }
    }

    pub fn end(self) -> Memory {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Bytes sent to the disk since the process began.
pub fn written(pid: u32) -> f64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = io.lines().find(|line| line.starts_with("write_bytes:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor time of all threads since the process began, in seconds.
pub fn busy(pid: u32) -> f64 {
    let ns: u64 = tasks(pid)
        .filter_map(|task| std::fs::read_to_string(task.join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    #[allow(clippy::cast_precision_loss)]
    let seconds = ns as f64 / 1e9;
    seconds
}

/// How often threads of the process were woken since it began.
pub fn wakes(pid: u32) -> f64 {
    tasks(pid)
        .filter_map(|task| std::fs::read_to_string(task.join("status")).ok())
        .filter_map(|text| {
            let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        })
        .sum()
}

fn tasks(pid: u32) -> impl Iterator<Item = std::path::PathBuf> {
    std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().map(|task| task.path())
}
