//! `decode --dbc`: a candump log in, JSON Lines out (contract §6). What one read gives is
//! decoded at once, so that a live bus is seen live, and by all processors while more is read
//! (`conveyor`). How a frame becomes JSON is `json_lines`.

use std::io::{self, BufRead, Write};
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::conveyor::Conveyor;
use super::json_lines::Lines;
use crate::vehicle::candump::{self, Frame};
use crate::vehicle::dbc::Database;

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

/// Decodes every line of `input` to `out`: each thread decodes while the others read and write.
///
/// # Errors
/// Reading or writing failed. A thread that waits for `input` may outlive this.
pub fn decode(
    database: &Database,
    input: impl BufRead + Send + 'static,
    out: &mut (impl Write + Send),
) -> io::Result<Tally> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    let conveyor = Arc::new(Conveyor::default());
    let reader = Arc::clone(&conveyor);
    // Two blocks for each: one in work, one in wait.
    thread::Builder::new().spawn(move || reader.read(input, threads))?;
    let sink = Mutex::new((out, Tally::default()));
    let write = |part: &Part<'_>| {
        let (out, tally) = &mut *sink.lock().unwrap_or_else(PoisonError::into_inner);
        tally.add(&part.tally);
        out.write_all(part.lines.json())?;
        out.flush()
    };
    let work = || conveyor.work(&mut Part::new(database), Part::decode, write);
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    conveyor.outcome()?;
    Ok(sink.into_inner().unwrap_or_else(PoisonError::into_inner).1)
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
    use std::io::{BufReader, Cursor, Read};

    use super::super::conveyor::LONGEST_LINE_BYTES;
    use super::*;

    const DBC: &[u8] = b"BO_ 68 A: 8 X\n SG_ n : 0|32@1+ (1,0) [0|0] \"\" X\n";

    /// Gives its bytes in pieces of these sizes, in turn.
    struct Pieces(Cursor<Vec<u8>>, Vec<usize>);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1.rotate_left(1);
            let most = self.1[0].min(into.len());
            self.0.read(&mut into[..most])
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
            let input = BufReader::with_capacity(
                512 * 1024,
                Pieces(Cursor::new(log.as_bytes().to_vec()), sizes.clone()),
            );
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
        let tally = decode(&database, BufReader::with_capacity(5000, Cursor::new(log)), &mut out).unwrap();
        assert_eq!(numbers(&out), [1]);
        assert!(tally.unreadable >= 1 && tally.first_unreadable_line == Some(1), "{tally:?}");
    }
}
