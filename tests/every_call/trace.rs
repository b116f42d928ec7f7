//! strace on exactly one thread: counting its calls, or letting one of them fail.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Everything that writes, syncs, or changes a folder.
pub const CALLS: [&str; 18] = [
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "copy_file_range",
    "sendfile",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "ftruncate",
    "fallocate",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
];

/// One call as it was counted: its name, and the file it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    pub file: String,
}

/// What is done to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before it.
    Kill,
    /// It alone fails.
    Once(&'static str),
    /// It and all that follow fail, until the tracer is taken away.
    From(&'static str),
}

impl Fault {
    pub const ALL: [Self; 5] =
        [Self::Kill, Self::Once("ENOSPC"), Self::Once("EIO"), Self::From("ENOSPC"), Self::From("EIO")];

    pub fn text(self) -> String {
        match self {
            Self::Kill => "KILL".into(),
            Self::Once(error) => error.into(),
            Self::From(error) => format!("{error}+"),
        }
    }

    pub fn is_full(self) -> bool {
        matches!(self, Self::Once("ENOSPC") | Self::From("ENOSPC"))
    }

    pub fn is_sticky(self) -> bool {
        matches!(self, Self::From(_))
    }

    /// strace counts each call's name for itself.
    fn injections(self, calls: &[Call], place: usize) -> Vec<String> {
        let before = |name: &str| calls[..place].iter().filter(|call| call.name == name).count();
        let name = calls[place].name.as_str();
        let when = before(name) + 1;
        match self {
            Self::Kill => vec![format!("inject={name}:signal=KILL:when={when}")],
            Self::Once(error) => vec![format!("inject={name}:error={error}:when={when}")],
            Self::From(error) => CALLS
                .iter()
                .map(|name| format!("inject=?{name}:error={error}:when={}+", before(name) + 1))
                .collect(),
        }
    }
}

/// A tracer at work.
pub struct Tracer(Child);

impl Tracer {
    /// Attaches to one thread and returns when it is attached.
    pub fn attach(thread: i32, out: &Path, fault: Option<(Fault, &[Call], usize)>) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-y", "-s", "160", "-p", &thread.to_string(), "-o"]).arg(out);
        strace.arg("-e").arg(format!("trace={}", CALLS.map(|call| format!("?{call}")).join(",")));
        for injection in fault.into_iter().flat_map(|(fault, calls, place)| fault.injections(calls, place)) {
            strace.arg("-e").arg(injection);
        }
        let mut child =
            strace.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("strace is installed");
        let mut said = String::new();
        let mut words = BufReader::new(child.stderr.take().unwrap());
        while !said.contains("attached") {
            let read = words.read_line(&mut said).unwrap();
            assert!(
                read > 0,
                "strace cannot attach: {said} (run as root, or set kernel.yama.ptrace_scope to 0)"
            );
        }
        // What it says later must not block it.
        std::thread::spawn(move || std::io::copy(&mut words, &mut std::io::sink()));
        Self(child)
    }

    /// Lets the thread go: the fault is over.
    pub fn detach(&mut self) {
        if self.0.try_wait().unwrap().is_some() {
            return;
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        self.0.wait().unwrap();
    }

    /// Waits until the thread has ended, and with it the tracer.
    pub fn end(mut self) {
        self.0.wait().unwrap();
    }
}

/// The calls in a tracer's output.
pub fn calls(out: &Path) -> Vec<Call> {
    let text = std::fs::read_to_string(out).unwrap();
    text.lines().filter_map(call).collect()
}

fn call(line: &str) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    // `5</tmp/x/baygate.db-wal>, ""..., 24, 0) = 24`, or a path where there is no descriptor.
    let path = match rest.split_once('<') {
        Some((_, path)) => path.split('>').next()?,
        None => rest.split('"').nth(1)?,
    };
    let file = path.rsplit('/').next()?;
    // Names that hold the time.
    let file = file.chars().filter(|c| !c.is_ascii_digit()).collect();
    CALLS.contains(&name).then(|| Call { name: name.into(), file })
}

/// Which call the fault met.
#[derive(Debug, PartialEq, Eq)]
pub enum Hit {
    /// The one that was meant: it and all before it are those that were counted.
    Meant,
    /// One on another way.
    Another {
        /// It.
        met: Call,
        /// How the way differs.
        why: String,
    },
    Nothing,
}

pub fn hit(out: &Path, fault: Fault, calls: &[Call], place: usize) -> Hit {
    judge_hit(&std::fs::read_to_string(out).unwrap(), fault, calls, place)
}

fn judge_hit(text: &str, fault: Fault, calls: &[Call], place: usize) -> Hit {
    let made: Vec<(Call, &str)> = text.lines().filter_map(|line| Some((call(line)?, line))).collect();
    let met = match fault {
        // The call that a process did not outlive has no result, and nothing comes after it.
        Fault::Kill if text.contains("killed by SIGKILL") => {
            made.len().checked_sub(1).filter(|last| made[*last].1.ends_with("= ?"))
        }
        Fault::Kill => None,
        Fault::Once(_) | Fault::From(_) => made.iter().position(|(_, line)| line.contains("(INJECTED)")),
    };
    let Some(met) = met else { return Hit::Nothing };
    let differs = (0..=met.max(place)).find(|at| made.get(*at).map(|(call, _)| call) != calls.get(*at));
    match differs {
        _ if met != place => {
            let why = format!("call {met} for {place}; they differ from {differs:?} on");
            Hit::Another { met: made[met].0.clone(), why }
        }
        Some(at) => {
            let why = format!("call {at} is {:?}, was {:?}", made[at].0, calls[at]);
            Hit::Another { met: made[met].0.clone(), why }
        }
        None => Hit::Meant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_call_that_was_meant_counts() {
        let counted = "write(5</d/a>, \"x\", 1) = 1\nfsync(5</d/a>) = 0\nwrite(5</d/b>, \"x\", 1) = 1\nfsync(5</d/a>) = 0";
        let calls: Vec<Call> = counted.lines().filter_map(call).collect();
        assert_eq!(calls.len(), 4);
        let dead = "+++ killed by SIGKILL +++";
        let way = "write(5</d/a>, \"x\", 1) = 1\nfsync(5</d/a>) = 0\nwrite(5</d/b>, \"x\", 1) = 1\n";
        let shorter = "write(5</d/a>, \"x\", 1) = 1\nfsync(5</d/a>) = 0\n";
        let failed = "fsync(5</d/a>) = -1 EIO (Input/output error) (INJECTED)";
        let is_meant = |text: &str, fault| judge_hit(text, fault, &calls, 3) == Hit::Meant;
        for (name, text, fault, meant) in [
            ("killed there", format!("{way}fsync(5</d/a>) = ?\n{dead}"), Fault::Kill, true),
            ("killed before", format!("{shorter}fsync(5</d/a>) = ?\n{dead}"), Fault::Kill, false),
            ("at another file", format!("{way}fsync(5</d/b>) = ?\n{dead}"), Fault::Kill, false),
            ("not killed", format!("{way}fsync(5</d/a>) = 0\n"), Fault::Kill, false),
            ("failed there", format!("{way}{failed}\n"), Fault::Once("EIO"), true),
            ("goes on", format!("{way}{failed}\n{way}{failed}"), Fault::From("EIO"), true),
            ("by another way", format!("{}{failed}", way.replace("/d/b", "/d/a")), Fault::Once("EIO"), false),
            ("one call more", format!("{way}{way}{failed}"), Fault::Once("EIO"), false),
            ("never failed", counted.to_owned(), Fault::Once("EIO"), false),
        ] {
            assert_eq!(is_meant(&text, fault), meant, "{name}: {:?}", judge_hit(&text, fault, &calls, 3));
        }
    }
}
