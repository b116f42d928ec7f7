//! One-bit pictures: the size in dots, the dots, and their PNG form.

use std::io;

/// A printer's canvas, in dots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canvas {
    /// Dots from left to right.
    pub width: u32,
    /// Dots from top to bottom.
    pub height: u32,
}

impl Canvas {
    /// Star TCP300: 480 × 320 dots (TCP300 Programmer's Manual p. 30).
    pub const TCP300: Self = Self { width: 480, height: 320 };
}

/// A picture of dots that are printed or not. Rows are padded to whole bytes,
/// the leftmost dot is the highest bit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    canvas: Canvas,
    row_bytes: usize,
    bits: Vec<u8>,
}

impl Bitmap {
    /// An empty (white) picture.
    #[must_use]
    pub fn new(canvas: Canvas) -> Self {
        let row_bytes = canvas.width.div_ceil(8) as usize;
        Self { canvas, row_bytes, bits: vec![0; row_bytes * canvas.height as usize] }
    }

    /// Its size.
    #[must_use]
    pub fn canvas(&self) -> Canvas {
        self.canvas
    }

    /// The packed rows; a set bit is a printed dot.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bits
    }

    fn place(&self, x: u32, y: u32) -> Option<(usize, u8)> {
        let inside = x < self.canvas.width && y < self.canvas.height;
        inside.then(|| (y as usize * self.row_bytes + x as usize / 8, 0x80 >> (x % 8)))
    }

    /// Whether a dot is printed; outside is white.
    #[must_use]
    pub fn dot(&self, x: u32, y: u32) -> bool {
        self.place(x, y).is_some_and(|(byte, mask)| self.bits.get(byte).is_some_and(|b| b & mask != 0))
    }

    /// Prints a dot or takes it back; outside is ignored.
    pub fn set(&mut self, x: u32, y: u32, printed: bool) {
        if let Some((byte, mask)) = self.place(x, y)
            && let Some(b) = self.bits.get_mut(byte)
        {
            *b = if printed { *b | mask } else { *b & !mask };
        }
    }

    /// A one-bit grayscale PNG, printed dots black.
    ///
    /// # Errors
    /// Only when memory cannot be written, which does not happen.
    pub fn to_png(&self) -> io::Result<Vec<u8>> {
        let inverted: Vec<u8> = self.bits.iter().map(|byte| !byte).collect();
        let mut file = Vec::new();
        let mut encoder = ::png::Encoder::new(&mut file, self.canvas.width, self.canvas.height);
        encoder.set_color(::png::ColorType::Grayscale);
        encoder.set_depth(::png::BitDepth::One);
        encoder.write_header()?.write_image_data(&inverted)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_stay_where_they_are_put() {
        let mut picture = Bitmap::new(Canvas { width: 10, height: 3 });
        for (x, y) in [(0, 0), (7, 1), (8, 1), (9, 2), (10, 0), (0, 3)] {
            picture.set(x, y, true);
        }
        assert_eq!(picture.bytes(), [0x80, 0, 0x01, 0x80, 0, 0x40]);
        assert!(picture.dot(9, 2) && !picture.dot(10, 0) && !picture.dot(0, 3));
        picture.set(9, 2, false);
        assert!(!picture.dot(9, 2));
    }

    #[test]
    fn png_reads_back() {
        let mut picture = Bitmap::new(Canvas { width: 10, height: 2 });
        picture.set(3, 1, true);
        let file = picture.to_png().unwrap();
        let mut reader = ::png::Decoder::new(io::Cursor::new(file)).read_info().unwrap();
        let mut rows = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rows).unwrap();
        assert_eq!(rows, [0xFF, 0xFF, !0x10, 0xFF]);
    }
}
