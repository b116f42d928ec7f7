//! QR codes whose modules lie on whole dots.

use qrcode::{EcLevel, QrCode};

use super::bitmap::Bitmap;

/// White modules around the code (ISO/IEC 18004:2015 §9.1: four).
const QUIET_MODULES: u32 = 4;
/// The smallest module a phone still reads at six dots a millimetre, in dots.
const MIN_MODULE_DOTS: u32 = 2;

/// A box for a QR code, in dots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Square {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) side: u32,
}

/// Draws the code in the middle of its box, over whatever is there. `false`: it does not fit.
pub(super) fn draw(picture: &mut Bitmap, square: Square, content: &str) -> bool {
    let Ok(code) = QrCode::with_error_correction_level(content, EcLevel::M) else { return false };
    let modules = u32::try_from(code.width()).unwrap_or(u32::MAX);
    let module_dots = square.side / modules.saturating_add(2 * QUIET_MODULES);
    if module_dots < MIN_MODULE_DOTS {
        return false;
    }
    for y in 0..square.side {
        for x in 0..square.side {
            picture.set(square.left + x, square.top + y, false);
        }
    }
    let margin = (square.side - modules * module_dots) / 2;
    for (index, color) in (0_u32..).zip(code.to_colors()) {
        let (column, row) = (index % modules, index / modules);
        if color == qrcode::Color::Dark {
            for y in 0..module_dots {
                for x in 0..module_dots {
                    let left = square.left + margin + column * module_dots;
                    let top = square.top + margin + row * module_dots;
                    picture.set(left + x, top + y, true);
                }
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printer::bitmap::Canvas;

    #[test]
    fn modules_are_squares_of_whole_dots() {
        let mut picture = Bitmap::new(Canvas { width: 120, height: 120 });
        let square = Square { left: 3, top: 5, side: 110 };
        assert!(draw(&mut picture, square, "HELLO"));
        // Version 1 has 21 modules: 110 / 29 = 3 dots each, 47 dots over.
        let margin = (110 - 63) / 2;
        for row in 0..21 {
            for column in 0..21 {
                let at = |dx, dy| picture.dot(3 + margin + column * 3 + dx, 5 + margin + row * 3 + dy);
                let first = at(0, 0);
                assert!((0..3).all(|dx| (0..3).all(|dy| at(dx, dy) == first)), "{column},{row}");
            }
        }
        assert!(picture.dot(3 + margin, 5 + margin), "the finder pattern begins dark");
    }

    #[test]
    fn a_code_too_dense_to_read_is_refused() {
        let mut picture = Bitmap::new(Canvas { width: 120, height: 120 });
        assert!(!draw(&mut picture, Square { left: 0, top: 0, side: 57 }, "HELLO"));
        assert!(!draw(&mut picture, Square { left: 0, top: 0, side: 110 }, &"x".repeat(400)));
    }
}
