//! The card's face as dots, and as a PNG for people to look at.

use std::io;
use std::path::Path;

/// Dots from left to right with the card lying.
pub const WIDTH: usize = 480;
/// Dots from top to bottom.
pub const HEIGHT: usize = 320;
/// Bytes of eight dots in a column.
pub const COLUMN: usize = HEIGHT / 8;

/// One bit a dot, column by column; the lower bit is the upper dot.
#[derive(Clone, PartialEq, Eq)]
pub struct Canvas(Vec<u8>);

impl Default for Canvas {
    fn default() -> Self {
        Self(vec![0; WIDTH * COLUMN])
    }
}

impl std::fmt::Debug for Canvas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Canvas({} dots)", self.dots())
    }
}

impl Canvas {
    /// Replaces bytes of column `x` from byte `y` downwards. False: they do not fit.
    pub fn put(&mut self, x: usize, y: usize, bytes: &[u8]) -> bool {
        if x >= WIDTH || y + bytes.len() > COLUMN {
            return false;
        }
        let from = x * COLUMN + y;
        let place = self.0.get_mut(from..from + bytes.len());
        place.is_some_and(|place| {
            place.copy_from_slice(bytes);
            true
        })
    }

    /// Adds the dots of another canvas, as printing over a face does.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    /// Whether the dot is printed; outside none is.
    #[must_use]
    pub fn dot(&self, x: usize, y: usize) -> bool {
        let byte = self.0.get(x * COLUMN + y / 8).filter(|_| x < WIDTH && y < HEIGHT);
        byte.is_some_and(|byte| byte >> (y % 8) & 1 == 1)
    }

    /// Number of printed dots.
    #[must_use]
    pub fn dots(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Writes the face as a picture, printed dots black.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let file = io::BufWriter::new(std::fs::File::create(path)?);
        let (width, height) = (u32::try_from(WIDTH).unwrap_or(0), u32::try_from(HEIGHT).unwrap_or(0));
        let mut encoder = png::Encoder::new(file, width, height);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::One);
        let rows: Vec<u8> = (0..HEIGHT)
            .flat_map(|y| (0..WIDTH / 8).map(move |byte| (byte, y)))
            .map(|(byte, y)| {
                (0..8).fold(0_u8, |bits, bit| bits << 1 | u8::from(!self.dot(byte * 8 + bit, y)))
            })
            .collect();
        encoder.write_header()?.write_image_data(&rows)?;
        Ok(())
    }
}
