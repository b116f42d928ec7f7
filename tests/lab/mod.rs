//! Virtual machines to test in: Debian's kernel in QEMU, without KVM, with the
//! host's file system as its root. `tests/lab/build.sh` makes what they boot,
//! `tests/lab/init.sh` is their first process.
//!
//! A machine runs one script and tells the host what it writes to descriptor 3,
//! line by line and unbuffered; its last line is the exit status. Programs are
//! built outside and run inside, from the same paths.
#![allow(dead_code)] // each test file uses its part

mod disk;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

#[allow(unused_imports)] // as above
pub use disk::{Cached, Disk};

/// An emulated processor on a busy host now and then misses its timer while the kernel
/// boots, and then waits for ever. Nothing of ours has run by then, no disk is mounted.
const UP_WITHIN: Duration = Duration::from_secs(120);
const ATTEMPTS: u32 = 4;

/// What a machine is made of.
pub struct Setup<'a> {
    /// Its script and its console's log lie here.
    pub folder: &'a Path,
    /// What it runs, by /bin/sh.
    pub script: &'a str,
    /// /dev/vda.
    pub disk: Option<&'a Disk>,
    /// The host is at 10.0.2.2.
    pub network: bool,
    pub memory_mib: u32,
}

/// What was heard of a machine.
pub enum Heard {
    Line(String),
    /// Nothing in time.
    Nothing,
    /// It ended, and everything it said was given.
    End,
}

/// A running machine; dropped, it is killed.
pub struct Machine {
    qemu: Child,
    lines: Receiver<String>,
    console: PathBuf,
    /// Its end would close the machine's port.
    _open: ChildStdin,
}

/// Kernel and initramfs, and a place for what the runs leave behind.
pub fn target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join(name)
}

impl Machine {
    /// Boots until its script is about to begin.
    pub fn boot(setup: &Setup<'_>) -> Self {
        for attempt in 1..=ATTEMPTS {
            let machine = Self::power(setup);
            let begun = Instant::now();
            while let Some(left) = UP_WITHIN.checked_sub(begun.elapsed()) {
                match machine.hear(left) {
                    Heard::Line(line) if line == "up" => return machine,
                    Heard::Line(_) => {}
                    Heard::Nothing | Heard::End => break,
                }
            }
            println!("attempt {attempt}: the machine does not come up");
            assert!(attempt < ATTEMPTS, "{}", machine.console());
        }
        unreachable!()
    }

    fn power(setup: &Setup<'_>) -> Self {
        let script = setup.folder.join("script.sh");
        std::fs::write(&script, setup.script).unwrap();
        let script = script.to_str().unwrap();
        assert!(!script.contains([' ', ',']), "{script}: the kernel's command line has no quotes");
        let console = setup.folder.join("console.log");
        // It may not outlive a test that is killed.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            // KVM may be there and hang; without it every machine behaves alike.
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
            .args(["-m", &setup.memory_mib.to_string()])
            .args(["-display", "none", "-no-reboot"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-kernel")
            .arg(target("lab/vmlinuz"))
            .arg("-initrd")
            .arg(target("lab/initrd"))
            .arg("-append")
            .arg(format!("console=ttyS0 quiet panic=-1 mitigations=off lab.script={script}"))
            .args(["-virtfs", "local,path=/,mount_tag=host,security_model=none,multidevs=remap,readonly=on"])
            .args(["-device", "virtio-serial-pci", "-chardev", "stdio,id=told,signal=off"])
            .args(["-device", "virtserialport,chardev=told,name=told"])
            .args(["-nic", if setup.network { "user,model=virtio-net-pci" } else { "none" }]);
        if let Some(disk) = setup.disk {
            disk.begin();
            // Both files live in the host's page cache, which outlives QEMU.
            qemu.args(["-device", "virtio-blk-pci,drive=disk", "-blockdev"]).arg(format!(
                "driver=blklogwrites,node-name=disk,file.driver=file,file.filename={},log.driver=file,log.filename={}",
                disk.image.display(),
                disk.log.display()
            ));
        }
        let mut qemu = qemu
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-system-x86 must be installed");
        let open = qemu.stdin.take().unwrap();
        let mut said = BufReader::new(qemu.stdout.take().unwrap());
        let (give, lines) = channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while said.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                // A line cut short by the machine's end was not said.
                if line.pop() == Some(b'\n') {
                    let text = String::from_utf8_lossy(&line).into_owned();
                    if give.send(text).is_err() {
                        return;
                    }
                }
                line.clear();
            }
        });
        Self { qemu, lines, console, _open: open }
    }

    /// The next line, within a time.
    pub fn hear(&self, wait: Duration) -> Heard {
        match self.lines.recv_timeout(wait) {
            Ok(line) => Heard::Line(line),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::End,
        }
    }

    /// Cuts the power. Gives what was said until then and not yet heard.
    pub fn cut(mut self) -> Vec<String> {
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
        self.lines.iter().collect()
    }

    /// Everything on the console.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
