//! `decode --dbc`: a candump log in, JSON Lines out (contract §6). What one read gives is
//! decoded at once, so that a live bus is seen live, and by all processors while more is read.
//! How a frame becomes JSON is `json_lines`.

use std::io::{self, BufRead, ErrorKind, Write};
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::json_lines::Lines;
use crate::vehicle::candump::{self, Frame};
use crate::vehicle::dbc::Database;

/// Bytes that are kept in wait for the end of a line. What is longer is no line of a log.
const LONGEST_LINE_BYTES: usize = 64 * 1024;
/// Threads at most: whoever takes the lines is slower than these.
const MOST_THREADS: usize = 8;

/// What became of the lines.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Lines read.
    pub lines: u64,
    /// Frames decoded and printed.
    pub decoded: u64,
    /// Frames whose ID the database does not have.
    pub unknown: u64,
    /// Remote and error frames: they hold no signals.
    pub without_data: u64,
    /// Lines that are no candump lines.
    pub unreadable: u64,
    /// The first of them, from 1.
    pub first_unreadable_line: Option<u64>,
}

impl Tally {
    /// Whether there were lines and none was one of a candump log: the wrong file.
    pub fn read_nothing(&self) -> bool {
        self.unreadable > 0 && self.decoded + self.unknown + self.without_data == 0
    }

    /// Adds what became of the lines behind.
    fn add(&mut self, behind: &Self) {
        let first = behind.first_unreadable_line.map(|line| self.lines + line);
        self.first_unreadable_line = self.first_unreadable_line.or(first);
        self.lines += behind.lines;
        self.decoded += behind.decoded;
        self.unknown += behind.unknown;
        self.without_data += behind.without_data;
        self.unreadable += behind.unreadable;
    }
}

/// Decodes every line of `input` to `out`. Each thread takes the next lines, decodes them while
/// the others read and write, and writes when it is their turn.
///
/// # Errors
/// Reading or writing failed.
pub fn decode(
    database: &Database,
    input: impl BufRead + Send,
    out: &mut (impl Write + Send),
) -> io::Result<Tally> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    let source = Mutex::new(Source { input, rest: Vec::new(), turn: 0, ended: false });
    let sink = Mutex::new(Sink { out, turn: 0, tally: Tally::default(), failed: None });
    let next_turn = Condvar::new();
    let work = || {
        let _told = Unwinding { sink: &sink, next_turn: &next_turn };
        let mut part = Part::new(database);
        let mut lines = Vec::new();
        while let Some((turn, read)) = lock(&source).take(&mut lines) {
            part.decode(&lines);
            let waits = |sink: &mut Sink<'_, _>| sink.turn != turn && sink.failed.is_none();
            let sink = next_turn.wait_while(lock(&sink), waits);
            let mut sink = sink.unwrap_or_else(PoisonError::into_inner);
            sink.put(&part, read);
            next_turn.notify_all();
            if sink.failed.is_some() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let sink = sink.into_inner().unwrap_or_else(PoisonError::into_inner);
    sink.failed.map_or(Ok(sink.tally), Err)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where lines come from.
struct Source<I> {
    input: I,
    /// What was read of a line that has not ended.
    rest: Vec<u8>,
    /// Of the lines that are taken next.
    turn: u64,
    ended: bool,
}

impl<I: BufRead> Source<I> {
    /// The next lines, as many as one read gives, and whether it went well; what stands before a
    /// read that failed is taken with it.
    fn take(&mut self, lines: &mut Vec<u8>) -> Option<(u64, io::Result<()>)> {
        lines.clear();
        let mut outcome = Ok(());
        while !self.ended && lines.is_empty() {
            let read = match self.input.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    outcome = Err(error);
                    &[]
                }
                Ok(read) => read,
            };
            self.ended = read.is_empty();
            let whole = memchr::memrchr(b'\n', read).map_or(0, |end| end + 1);
            let endless = self.rest.len() + read.len() - whole > LONGEST_LINE_BYTES;
            let now = if self.ended || endless { read.len() } else { whole };
            let (now, later) = read.split_at_checked(now).unwrap_or((read, &[]));
            if self.ended || !now.is_empty() {
                lines.append(&mut self.rest);
                lines.extend_from_slice(now);
            }
            self.rest.extend_from_slice(later);
            let bytes = read.len();
            self.input.consume(bytes);
        }
        if lines.is_empty() && outcome.is_ok() {
            return None;
        }
        self.turn += 1;
        Some((self.turn - 1, outcome))
    }
}

/// Where lines go, in the order in which they came.
struct Sink<'o, O> {
    out: &'o mut O,
    /// Of the lines that are written next.
    turn: u64,
    tally: Tally,
    /// Nothing is written any more.
    failed: Option<io::Error>,
}

impl<O: Write> Sink<'_, O> {
    fn put(&mut self, part: &Part<'_>, read: io::Result<()>) {
        if self.failed.is_none() {
            let written = self.out.write_all(part.lines.json()).and_then(|()| self.out.flush());
            self.failed = written.and(read).err();
            self.tally.add(&part.tally);
            self.turn += 1;
        }
    }
}

/// Whoever waits for the turn of a thread that panicked would wait for ever.
struct Unwinding<'s, 'o, O> {
    sink: &'s Mutex<Sink<'o, O>>,
    next_turn: &'s Condvar,
}

impl<O> Drop for Unwinding<'_, '_, O> {
    fn drop(&mut self) {
        if thread::panicking() {
            lock(self.sink).failed.get_or_insert_with(|| io::Error::other("a thread stopped"));
            self.next_turn.notify_all();
        }
    }
}

/// What one thread needs.
struct Part<'d> {
    database: &'d Database,
    lines: Lines<'d>,
    tally: Tally,
}

impl<'d> Part<'d> {
    fn new(database: &'d Database) -> Self {
        Self { database, lines: Lines::new(database), tally: Tally::default() }
    }

    fn decode(&mut self, share: &[u8]) {
        self.tally = Tally::default();
        self.lines.clear();
        let mut rest = share;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let (line, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            rest = behind;
            self.line(line);
        }
    }

    fn line(&mut self, line: &[u8]) {
        let tally = &mut self.tally;
        tally.lines += 1;
        match candump::parse(line) {
            None if line.trim_ascii().is_empty() => {}
            None => {
                tally.unreadable += 1;
                tally.first_unreadable_line.get_or_insert(tally.lines);
            }
            Some(candump::Line { time, interface, frame: Frame::Data { id, extended, data, .. } }) => {
                match self.database.place(id, extended) {
                    Some(place) => {
                        self.lines.push(time, interface, place, data.as_bytes());
                        tally.decoded += 1;
                    }
                    None => tally.unknown += 1,
                }
            }
            Some(_) => tally.without_data += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::{BufReader, Read};

    use super::*;

    const DBC: &[u8] = b"BO_ 68 A: 8 X\n SG_ n : 0|32@1+ (1,0) [0|0] \"\" X\n";

    /// Gives its bytes in pieces of these sizes, in turn.
    struct Pieces<'b>(&'b [u8], Vec<usize>);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1.rotate_left(1);
            let (now, later) = self.0.split_at(self.1[0].min(self.0.len()).min(into.len()));
            into[..now.len()].copy_from_slice(now);
            self.0 = later;
            Ok(now.len())
        }
    }

    fn numbers(out: &[u8]) -> Vec<u64> {
        let number = |line: &str| -> u64 {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["signals"]["n"].as_u64().unwrap()
        };
        std::str::from_utf8(out).unwrap().lines().map(number).collect()
    }

    #[test]
    fn order_and_count_stay_however_the_log_comes() {
        let database = Database::from_bytes(DBC).unwrap();
        let (mut log, mut expected) = (String::new(), Vec::new());
        for number in 0..20_000_u32 {
            match number % 1000 {
                997 => log.push_str("(1.0) can0 045#00\r\n"),
                998 if number > 15_000 => log.push_str("rubbish\n"),
                999 => log.push('\n'),
                _ => {
                    writeln!(log, "(1.0) can0 044#{:08X}", number.swap_bytes()).unwrap();
                    expected.push(u64::from(number));
                }
            }
        }
        let log = log.trim_end();
        for sizes in [vec![1 << 20], vec![300_000, 1, 70_000, 13], vec![17, 64, 5000]] {
            let mut out = Vec::new();
            let input = BufReader::with_capacity(512 * 1024, Pieces(log.as_bytes(), sizes.clone()));
            let tally = decode(&database, input, &mut out).unwrap();
            assert_eq!(numbers(&out), expected, "{sizes:?}");
            let told = (tally.decoded, tally.unknown, tally.unreadable, tally.first_unreadable_line);
            assert_eq!(told, (expected.len() as u64, 20, 5, Some(15_999)), "{sizes:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_waited_for() {
        let database = Database::from_bytes(DBC).unwrap();
        let log = [vec![b'x'; 10 * LONGEST_LINE_BYTES], b"\n(1.0) can0 044#01000000\n".to_vec()].concat();
        let mut out = Vec::new();
        let tally = decode(&database, BufReader::with_capacity(5000, &log[..]), &mut out).unwrap();
        assert_eq!(numbers(&out), [1]);
        assert!(tally.unreadable >= 1 && tally.first_unreadable_line == Some(1), "{tally:?}");
    }
}
