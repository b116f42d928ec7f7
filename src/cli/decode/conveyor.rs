//! Lines from one reader to several workers, and what they make of them out again in the order
//! in which it came. Whoever reads may wait for a live bus for ever: everybody else ends without
//! it when the output has gone. What lines mean is not known here.

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Bytes that are kept in wait for the end of a line. What is longer is no line of a log.
pub const LONGEST_LINE_BYTES: usize = 64 * 1024;

/// Whole lines, as many as one read gave.
#[derive(Default)]
pub struct Block {
    turn: u64,
    pub lines: Vec<u8>,
}

#[derive(Default)]
pub struct Conveyor {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Block>,
    /// Blocks that were decoded: their memory is used again.
    used: Vec<Block>,
    /// The reader has ended, and how.
    ended: Option<io::Result<()>>,
    /// Of the block that goes out next.
    turn: u64,
    /// Nothing goes out any more.
    failed: Option<io::Error>,
}

impl Conveyor {
    /// Reads lines until `input` ends, at most so many blocks ahead of the workers.
    pub fn read(&self, mut input: impl BufRead, ahead: usize) {
        let _told = Unwinding(self);
        let mut rest = Vec::new();
        for turn in 0.. {
            let mut block = {
                let free = |state: &mut State| state.waiting.len() >= ahead && state.failed.is_none();
                let mut state = self.wait_while(free);
                if state.failed.is_some() {
                    return;
                }
                state.used.pop().unwrap_or_default()
            };
            block.turn = turn;
            let read = next_lines(&mut input, &mut rest, &mut block.lines);
            let mut state = self.lock();
            let ended = read.as_ref().map_or(true, |more| !more);
            if !block.lines.is_empty() {
                state.waiting.push_back(block);
            }
            if ended {
                state.ended = Some(read.map(|_| ()));
            }
            self.changed.notify_all();
            if ended {
                return;
            }
        }
    }

    /// Takes blocks until there are none: `decode` as soon as one is there, `write` when all before
    /// it were written. Several threads do so at once.
    pub fn work<T>(
        &self,
        worker: &mut T,
        decode: impl Fn(&mut T, &[u8]),
        write: impl Fn(&T) -> io::Result<()>,
    ) {
        let _told = Unwinding(self);
        while let Some(block) = self.take() {
            decode(worker, &block.lines);
            let early = |state: &mut State| state.turn != block.turn && state.failed.is_none();
            if self.wait_while(early).failed.is_some() {
                return;
            }
            let written = write(worker);
            let mut state = self.lock();
            state.turn += 1;
            state.used.push(block);
            if let Err(error) = written {
                state.failed.get_or_insert(error);
            }
            self.changed.notify_all();
        }
    }

    /// How it went; asked when all workers have ended.
    ///
    /// # Errors
    /// Reading or writing failed.
    pub fn outcome(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.failed.take().map_or(Ok(()), Err)?;
        state.ended.take().unwrap_or(Ok(()))
    }

    fn take(&self) -> Option<Block> {
        let idle =
            |state: &mut State| state.waiting.is_empty() && state.ended.is_none() && state.failed.is_none();
        let mut state = self.wait_while(idle);
        let block = state.waiting.pop_front().filter(|_| state.failed.is_none());
        self.changed.notify_all();
        block
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, so: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.lock(), so).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the next whole lines to `lines`, as many as one read gives; false behind the last.
fn next_lines(input: &mut impl BufRead, rest: &mut Vec<u8>, lines: &mut Vec<u8>) -> io::Result<bool> {
    lines.clear();
    loop {
        let read = match input.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        let ends = read.is_empty();
        let whole = memchr::memrchr(b'\n', read).map_or(0, |end| end + 1);
        let endless = rest.len() + read.len() - whole > LONGEST_LINE_BYTES;
        let now = if ends || endless { read.len() } else { whole };
        let (now, later) = read.split_at_checked(now).unwrap_or((read, &[]));
        if ends || !now.is_empty() {
            lines.append(rest);
            lines.extend_from_slice(now);
        }
        rest.extend_from_slice(later);
        let bytes = read.len();
        input.consume(bytes);
        if ends || !lines.is_empty() {
            return Ok(!ends);
        }
    }
}

/// Whoever waits for a thread that panicked would wait for ever.
struct Unwinding<'c>(&'c Conveyor);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().failed.get_or_insert_with(|| io::Error::other("a thread stopped"));
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;

    /// A live bus: gives what comes, and waits.
    struct Live(Receiver<&'static [u8]>);

    impl Read for Live {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let come = self.0.recv().unwrap_or_default();
            into[..come.len()].copy_from_slice(come);
            Ok(come.len())
        }
    }

    /// `candump | baygate decode | head -1` on a bus that is silent from then on.
    #[test]
    fn who_reads_is_not_waited_for_when_the_output_has_gone() {
        let (bus, heard) = channel();
        let conveyor = Arc::new(Conveyor::default());
        let reader = Arc::clone(&conveyor);
        thread::spawn(move || reader.read(BufReader::new(Live(heard)), 4));
        bus.send(b"a line\n".as_slice()).unwrap();
        let (done, ended) = channel();
        let workers = Arc::clone(&conveyor);
        thread::spawn(move || {
            let gone = |(): &()| Err(io::Error::from(ErrorKind::BrokenPipe));
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| workers.work(&mut (), |(), _| {}, gone));
                }
            });
            done.send(workers.outcome().unwrap_err().kind()).unwrap();
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(ErrorKind::BrokenPipe));
        // Silent, not ended.
        drop(bus);
    }

    #[test]
    fn a_worker_that_panics_ends_the_others() {
        let conveyor = Conveyor::default();
        conveyor.read(&b"one\ntwo\n"[..], 4);
        let workers = thread::scope(|scope| {
            let falls = scope.spawn(|| conveyor.work(&mut (), |(), _| panic!("as asked"), |()| Ok(())));
            assert!(falls.join().is_err());
            scope.spawn(|| conveyor.work(&mut (), |(), _| {}, |()| Ok(()))).join()
        });
        assert!(workers.is_ok() && conveyor.outcome().is_err());
    }

    /// What stands before a read that failed is given, but for the line that was cut by it.
    #[test]
    fn a_read_that_fails_cuts_no_line_in_two() {
        struct Torn(bool);
        impl Read for Torn {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("torn"));
                }
                into[..7].copy_from_slice(b"one\ntwo");
                Ok(7)
            }
        }
        let conveyor = Conveyor::default();
        conveyor.read(BufReader::new(Torn(false)), 4);
        let seen = Mutex::new(Vec::new());
        conveyor.work(
            &mut Vec::new(),
            |own, lines| *own = lines.to_vec(),
            |own| {
                seen.lock().unwrap().extend_from_slice(own);
                Ok(())
            },
        );
        assert_eq!((seen.into_inner().unwrap(), conveyor.outcome().is_err()), (b"one\n".to_vec(), true));
    }
}
