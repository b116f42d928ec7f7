//! Headquarters' memory: an append-only file of lines, on the disk before
//! anything in them is acknowledged, read again at the next start.
//!
//! ```text
//!   SOURCE EPOCH CLASS CLASSSEQUENCE ID SEQUENCE SHA256     an event, and its body as it came
//!   SOURCE EPOCH CLASS FROM-TO gap                          a stretch that will never come
//! ```
//! Lines of earlier versions have no SHA256; they are taken up all the same.
//! A kill may tear the last line: it was never acknowledged, and is cut off at
//! the next start.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use uuid::Uuid;

use super::{Digest, Envelope, Life, Lives};

/// The file, and what is to be written to it.
pub(super) struct Journal {
    file: File,
    /// Of what is whole and on the disk.
    length: u64,
    unwritten: String,
}

impl Journal {
    /// Opens it, with what is in it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Lives)> {
        let file = File::options().create(true).append(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another headquarters writes this journal; stop it or name another file",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let bytes = std::fs::read(path)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut lives = Lives::new();
        let text = String::from_utf8_lossy(bytes.get(..whole).unwrap_or_default());
        for line in text.lines() {
            if recall(line, &mut lives).is_none() {
                tracing::warn!(line, "a line of the journal is not readable and left out");
            }
        }
        let length = u64::try_from(whole).unwrap_or(u64::MAX);
        file.set_len(length)?;
        file.sync_all()?;
        // A new file's name must outlive a power cut as well.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok((Self { file, length, unwritten: String::new() }, lives))
    }

    /// Notes an event for the next [`Journal::sync`].
    pub(super) fn note(&mut self, envelope: &Envelope, class_sequence: u64, body: Digest) {
        let Envelope { id, source, epoch, class, sequence, .. } = envelope;
        let sequence = sequence.as_deref().and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
        let sha256 = hex::encode(body);
        self.unwritten
            .push_str(&format!("{source} {epoch} {class} {class_sequence} {id} {sequence} {sha256}\n"));
    }

    /// Notes a stretch that will never come.
    pub(super) fn note_gap(&mut self, source: &str, epoch: Uuid, class: &str, from: u64, to: u64) {
        self.unwritten.push_str(&format!("{source} {epoch} {class} {from}-{to} gap\n"));
    }

    /// Brings to the disk what was noted. Only after this it may be acknowledged.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(self.unwritten.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half of it may be there: the next try writes it whole.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += u64::try_from(self.unwritten.len()).unwrap_or(0);
        self.unwritten.clear();
        Ok(())
    }
}

/// Takes one line up again; `None`: it is none of ours.
fn recall(line: &str, lives: &mut Lives) -> Option<()> {
    let mut words = line.split(' ');
    let source = words.next()?.to_owned();
    let epoch = Uuid::parse_str(words.next()?).ok()?;
    let class = words.next()?;
    let (sequence, id) = (words.next()?, words.next()?);
    if id == "gap" {
        let (from, to) = sequence.split_once('-')?;
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        lives.entry((source, epoch)).or_default().skip(class, from, to);
    } else {
        let (sequence, id) = (sequence.parse().ok()?, Uuid::parse_str(id).ok()?);
        words.next()?;
        let body = match words.next() {
            Some(digits) => Some(Digest::try_from(hex::decode(digits).ok()?).ok()?),
            None => None,
        };
        let life: &mut Life = lives.entry((source, epoch)).or_default();
        life.take(class, sequence, (id, body), false);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn envelope(sequence: u64) -> Envelope {
        Envelope {
            id: Uuid::from_u128(sequence.into()),
            source: "/stores/S/gateways/g".into(),
            epoch: Uuid::nil(),
            class: "card".into(),
            classsequence: sequence.to_string(),
            sequence: Some(format!("{:020}", sequence + 100)),
        }
    }

    #[test]
    fn what_was_synced_is_known_again_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hq.journal");
        let (mut journal, lives) = Journal::open(&path).unwrap();
        assert!(lives.is_empty());
        journal.note(&envelope(1), 1, [0xA1; 32]);
        journal.note_gap("/stores/S/gateways/g", Uuid::nil(), "card", 2, 4);
        journal.note(&envelope(5), 5, [0xA5; 32]);
        journal.sync().unwrap();
        assert!(Journal::open(&path).is_err(), "two writers");
        drop(journal);
        // A kill tore a line whose beginning reads like a whole one.
        let mut bytes = std::fs::read(&path).unwrap();
        let whole = bytes.len();
        bytes.extend(format!("/stores/S/gateways/g {} card 6 {} 10", Uuid::nil(), Uuid::nil()).bytes());
        std::fs::write(&path, &bytes).unwrap();
        for _ in 0..2 {
            let (journal, mut lives) = Journal::open(&path).unwrap();
            let life = lives.get_mut(&("/stores/S/gateways/g".to_owned(), Uuid::nil())).unwrap();
            assert_eq!(life.up_to["card"], 5);
            let again = |life: &mut Life, body| life.take("card", 5, (Uuid::from_u128(5), Some(body)), true);
            assert_eq!(again(life, [0xA5; 32]), Verdict::Duplicate);
            assert_eq!(again(life, [0x5A; 32]), Verdict::Fork, "another body");
            drop(journal);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), whole as u64);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let first = format!("{} 101 {}", Uuid::from_u128(1), "a1".repeat(32));
        assert!(text.lines().next().unwrap().ends_with(&first), "{text}");
        // As an earlier version wrote it.
        std::fs::write(&path, text.replace(&format!(" {}", "a5".repeat(32)), "")).unwrap();
        let (_, lives) = Journal::open(&path).unwrap();
        assert_eq!(lives[&("/stores/S/gateways/g".to_owned(), Uuid::nil())].up_to["card"], 5);
    }
}
