//! Files that may be compressed with zstd, as the daemon writes its recordings.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use ruzstd::decoding::StreamingDecoder;

/// Magic number of a zstd frame (RFC 8878 §3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// Bytes read at a time: enough for `decode` to share them among processors.
pub const CHUNK_BYTES: usize = 512 * 1024;

/// Opens a file; what it holds comes out as plain bytes either way.
///
/// # Errors
/// It cannot be read, or is compressed and not sound.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let mut file = BufReader::with_capacity(CHUNK_BYTES, File::open(path)?);
    if !file.fill_buf()?.starts_with(&ZSTD) {
        return Ok(Box::new(file));
    }
    let decoder = StreamingDecoder::new(file).map_err(io::Error::other)?;
    Ok(Box::new(BufReader::with_capacity(CHUNK_BYTES, decoder)))
}

/// The whole text of a file of at most `most` bytes.
///
/// # Errors
/// It cannot be read, is no text, or is larger.
pub fn read_to_string(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = open(path)?.take(most + 1).read_to_string(&mut text)?;
    if read as u64 > most {
        return Err(io::Error::other(format!("larger than {most} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    #[test]
    fn plain_and_packed_read_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let text = "(1.0) can0 044#00\n".repeat(10_000);
        for bytes in [text.clone().into_bytes(), compress_to_vec(text.as_bytes(), CompressionLevel::Fastest)]
        {
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(read_to_string(&file, 1 << 20).unwrap(), text);
            assert!(read_to_string(&file, 1000).is_err());
        }
        for cut in [4, 9, 20] {
            let packed = compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
            std::fs::write(&file, &packed[..cut]).unwrap();
            assert!(read_to_string(&file, 1 << 20).is_err(), "{cut}");
        }
    }
}
