//! The WAL read without SQLite. SQLite takes a WAL up to the first frame that is
//! not as it was written and throws the rest away without a word: right after a
//! power cut, where the rest was never acknowledged, and wrong where a byte in
//! the middle has rotted. Told apart here: every commit is synced before the next
//! begins, and none is written while the rest of another lies behind it with the same
//! salts (`connection::begin_wal_anew`), so behind a frame that a power cut tore there is at most one.
//! Two, or a header that is gone, are damage, and salvage takes the frames by hand; so is a frame
//! that the disk does not give back where SQLite would read it, and no start would get past it.
//! What is behind the last commit is no state and no fact: nobody was told, a power cut left it
//! half written, or a commit that failed was written over and this is its rest, with numbers
//! that later events have.
//! Format: SQLite "Database File Format", section 4.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::mark::beside;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The page size of every file of ours.
const PAGE: usize = 4096;
/// Where the first frame's page is.
const FIRST: u64 = (HEADER + FRAME_HEADER) as u64;
/// §4.1; the last bit says that the checksums are big-endian.
const MAGIC: u32 = 0x377F_0682;

/// A frame of the WAL's running round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// Where its page begins in the WAL.
    pub(super) at: u64,
    /// The page it is of.
    pub(super) page: u64,
    /// Pages of the file after this commit; zero within a transaction.
    pub(super) commit: u64,
    /// As it was written.
    pub(super) sound: bool,
}

/// What a WAL holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wal {
    /// Frames of commits, the unsound among them too. None of a last commit that is not whole: a
    /// power cut leaves the same.
    pub(super) frames: Vec<Frame>,
    /// Present when SQLite would throw commits away.
    pub(super) damaged: Option<String>,
    /// In a sound one, whether frames of its round lie behind the last commit: what a power cut, or a
    /// commit that failed, left.
    pub(super) rest: bool,
    /// In a damaged one, whether a frame of a commit, or a last commit, is not as it was written.
    lost: bool,
}

impl Wal {
    /// Frames to take over into the file, in order.
    pub(super) fn to_take(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter(|frame| frame.sound)
    }

    /// Whether a frame of a commit is not there any more.
    pub(super) fn has_lost(&self) -> bool {
        self.lost
    }

    /// Reads the WAL beside a database; empty when there is none.
    pub(super) fn read(database: &Path) -> std::io::Result<Self> {
        let file = match File::open(beside(database, "-wal")) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        if length < (HEADER + FRAME_HEADER + PAGE) as u64 {
            return Ok(Self::default());
        }
        let read = of(file);
        let mut header = [0; HEADER];
        let Some(has_header) = given(&read, 0, &mut header) else { return Ok(Self::default()) };
        let mut wal = Self::frames(&header, has_header, length, read);
        // A daemon that is at work begins a new round at any time.
        let mut again = [0; HEADER];
        given(&of(File::open(beside(database, "-wal"))?), 0, &mut again);
        if again != header {
            (wal.damaged, wal.rest, wal.lost) = (None, false, false);
        }
        Ok(wal)
    }

    fn frames(
        header: &[u8; HEADER],
        has_header: bool,
        length: u64,
        read: impl Fn(u64, &mut [u8]) -> std::io::Result<()>,
    ) -> Self {
        let big = if word(header, 0) & !1 == MAGIC {
            word(header, 0) & 1 == 1
        } else {
            cfg!(target_endian = "big")
        };
        let of_header = checksum(big, (0, 0), header.get(..24).unwrap_or_default());
        let header_sound =
            word(header, 0) & !1 == MAGIC && word(header, 8) == 4096 && of_header == stored(header, 24);
        let mut salts = header_sound.then(|| stored(header, 16));
        let mut before = stored(header, 24);
        let (mut wal, mut at) = (Self::default(), FIRST);
        let (mut broken, mut commits_beyond, mut anything) = (false, 0, false);
        // A frame that SQLite would read and the disk does not give; where the last frame of this round ends.
        let (mut unread, mut of_round) = (false, 0);
        // Where SQLite stops; where the last commit that was told ends; the commit being read.
        let (mut unbroken, mut told, mut begun, mut whole) = (0, 0, 0, true);
        let mut frame = [0; FRAME_HEADER + PAGE];
        while at + PAGE as u64 <= length
            && let Some(given) = given(&read, at - FRAME_HEADER as u64, &mut frame)
        {
            unread |= !given && !broken;
            anything |= frame.iter().any(|byte| *byte != 0);
            let ours = given && *salts.get_or_insert(stored(&frame, 8)) == stored(&frame, 8);
            let follows = |before| {
                let sum = checksum(big, before, frame.get(..8).unwrap_or_default());
                checksum(big, sum, frame.get(FRAME_HEADER..).unwrap_or_default()) == stored(&frame, 16)
            };
            // Of the header's own checksum either what stands there is rotten, or what it is of.
            let sound = ours && (follows(before) || at == FIRST && follows(of_header));
            before = stored(&frame, 16);
            let commit = u64::from(word(&frame, 4));
            // Salts that are not ours have rotted, or are of an earlier round, behind the last commit.
            wal.frames.push(Frame { at, page: u64::from(word(&frame, 0)), commit, sound });
            whole &= sound;
            let end = wal.frames.len();
            of_round = if ours { end } else { of_round };
            if commit > 0 {
                // The one that is broken itself counts as well: what follows it began after it was told.
                commits_beyond += u32::from(broken && sound || !broken && !sound && ours);
                if sound {
                    // Before this commit began, all others were told.
                    told = if whole { end } else { begun };
                    unbroken = if broken { unbroken } else { end };
                }
                (begun, whole) = (end, true);
            }
            broken |= !sound;
            at += (FRAME_HEADER + PAGE) as u64;
        }
        if !has_header || unread {
            wal.damaged = Some("the disk does not give back all of the WAL".into());
        } else if !header_sound && anything {
            wal.damaged = Some("the header of the WAL is not as it was written".into());
        } else if commits_beyond > 1 {
            wal.damaged = Some("the WAL is damaged in its middle".into());
        }
        let commits = if wal.damaged.is_some() { told } else { unbroken };
        let (of_commits, behind) = wal.frames.split_at(commits);
        wal.rest = wal.damaged.is_none() && header_sound && of_round > commits;
        // What the disk does not give may have been a commit's end.
        wal.lost = wal.damaged.is_some()
            && (unread
                || of_commits.iter().any(|frame| !frame.sound)
                || behind.iter().any(|frame| frame.sound && frame.commit > 0));
        wal.frames.truncate(commits);
        wal
    }
}

/// How a file is read.
fn of(file: File) -> impl Fn(u64, &mut [u8]) -> std::io::Result<()> {
    move |at, bytes| file.read_exact_at(bytes, at)
}

/// Fills the buffer, with zeros (then false) where the disk fails at the second try too: a lost sector
/// never comes back. `None` at the end, also within a frame.
fn given(read: &impl Fn(u64, &mut [u8]) -> std::io::Result<()>, at: u64, bytes: &mut [u8]) -> Option<bool> {
    let mut tried = read(at, bytes);
    if tried.is_err() {
        tried = read(at, bytes);
    }
    match tried {
        Ok(()) => Some(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => None,
        Err(error) => {
            tracing::warn!(%error, at, "a frame of the WAL cannot be read");
            bytes.fill(0);
            Some(false)
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| four.iter().fold(0, |n, byte| (n << 8) | u32::from(*byte)))
}

fn stored(bytes: &[u8], at: usize) -> (u32, u32) {
    (word(bytes, at), word(bytes, at + 4))
}

/// The running checksum of §4.2.
fn checksum(big: bool, from: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let (mut one, mut two) = from;
    let (words, _) = bytes.as_chunks::<4>();
    for pair in words.chunks_exact(2) {
        let [first, second] = pair else { break };
        let number = |four: &[u8; 4]| if big { u32::from_be_bytes(*four) } else { u32::from_le_bytes(*four) };
        one = one.wrapping_add(number(first)).wrapping_add(two);
        two = two.wrapping_add(number(second)).wrapping_add(one);
    }
    (one, two)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = (FRAME_HEADER + PAGE) as u64;

    /// A database whose WAL holds some commits, as a killed process leaves it.
    fn left(dir: &Path) -> std::path::PathBuf {
        let (live, path) = (dir.join("live.db"), dir.join("t.db"));
        let conn = crate::store::connection::writer(&live).unwrap();
        conn.execute_batch("CREATE TABLE t (x)").unwrap();
        for n in 0..20 {
            conn.execute("INSERT INTO t VALUES (hex(randomblob(1000)) || ?1)", [n]).unwrap();
        }
        for suffix in ["", "-wal"] {
            std::fs::copy(beside(&live, suffix), beside(&path, suffix)).unwrap();
        }
        path
    }

    fn flip(path: &Path, at: u64) {
        let file = File::options().read(true).write(true).open(beside(path, "-wal")).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    }

    #[test]
    fn what_a_killed_process_leaves_is_sound() {
        let dir = tempfile::tempdir().unwrap();
        let path = left(dir.path());
        let wal = Wal::read(&path).unwrap();
        assert!(wal.damaged.is_none() && !wal.has_lost(), "{:?}", wal.damaged);
        assert!(wal.frames.len() > 20 && wal.frames.iter().all(|frame| frame.sound));
        assert_eq!(wal.to_take().count(), wal.frames.len());
        assert_eq!(Wal::read(&dir.path().join("none.db")).unwrap(), Wal::default());
    }

    #[test]
    fn what_lies_behind_the_last_commit_is_a_rest_only_with_its_salts() {
        let dir = tempfile::tempdir().unwrap();
        let path = left(dir.path());
        assert!(!Wal::read(&path).unwrap().rest);
        let wal = beside(&path, "-wal");
        let file = File::options().read(true).write(true).open(&wal).unwrap();
        let (mut salts, end) = ([0; 8], file.metadata().unwrap().len());
        file.read_exact_at(&mut salts, 16).unwrap();
        file.set_len(end + 2 * STEP).unwrap();
        for (own, rest) in [(salts, true), ([7; 8], false)] {
            file.write_all_at(&own, end + STEP + 8).unwrap();
            let read = Wal::read(&path).unwrap();
            assert_eq!((read.rest, read.damaged), (rest, None));
        }
    }

    /// A lost sector: the disk fails there, however often it is asked.
    #[test]
    fn a_frame_that_the_disk_does_not_give_is_damage_where_sqlite_would_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = left(dir.path());
        let whole = Wal::read(&path).unwrap().frames.len();
        let file = File::options().read(true).write(true).open(beside(&path, "-wal")).unwrap();
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).unwrap();
        file.set_len(file.metadata().unwrap().len() + 2 * STEP).unwrap();
        let bytes = std::fs::read(beside(&path, "-wal")).unwrap();
        // (what, the lost frame, whether it is damage, frames that go with it)
        for (what, lost, damage, gone) in [
            ("in the middle", 5, true, 2),
            ("the first, with the header", 0, true, 2),
            ("the first behind the last commit", whole, true, 0),
            ("the next behind that", whole + 1, false, 0),
        ] {
            let lost_at = HEADER as u64 + lost as u64 * STEP;
            let read = |at: u64, into: &mut [u8]| -> std::io::Result<()> {
                if at == lost_at {
                    return Err(nix::errno::Errno::EIO.into());
                }
                let from = bytes.get(usize::try_from(at).unwrap()..).unwrap_or_default();
                let part = from.get(..into.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
                into.copy_from_slice(part);
                Ok(())
            };
            let has_header = lost > 0;
            let length = bytes.len() as u64;
            let wal = Wal::frames(if has_header { &header } else { &[0; HEADER] }, has_header, length, read);
            assert_eq!((wal.damaged.is_some(), wal.has_lost()), (damage, damage), "{what}: {wal:?}");
            assert_eq!(wal.to_take().count() + gone, whole, "{what}");
        }
    }

    #[test]
    fn a_torn_end_is_no_damage_and_a_rotten_middle_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = left(dir.path());
        let frames = Wal::read(&path).unwrap().frames;
        let commits: Vec<usize> = (0..frames.len()).filter(|at| frames[*at].commit > 0).collect();
        let of = |frame: usize| HEADER as u64 + frame as u64 * STEP;
        let last_but_one = commits[commits.len() - 2];
        // (what, byte, damage, frames lost with it)
        for (what, byte, damage) in [
            ("the last page", of(frames.len() - 1) + 100, false),
            ("the first frame of the last commit", of(last_but_one + 1) + 40, false),
            ("a frame two commits before the end", of(commits[commits.len() - 3]) + 40, true),
            ("the end of the last commit but one", of(last_but_one) + 40, true),
            ("the salt of a frame in the middle", of(5) + 9, true),
            ("the checksum of a frame in the middle", of(5) + 17, true),
            ("the magic", 1, true),
            ("the header's salt", 17, true),
            ("the header's checksum", 25, true),
        ] {
            flip(&path, byte);
            let wal = Wal::read(&path).unwrap();
            assert_eq!(wal.damaged.is_some(), damage, "{what}: {wal:?}");
            if damage {
                // At most the frame and the one after it (its checksum goes on from there).
                assert!(wal.to_take().count() + 2 >= frames.len(), "{what}");
                assert_eq!(wal.has_lost(), wal.to_take().count() < frames.len(), "{what}");
            }
            flip(&path, byte);
        }
        assert!(Wal::read(&path).unwrap().damaged.is_none());
    }
}
