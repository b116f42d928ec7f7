//! The image commands' parameters: text between commas, dots in hexadecimal.

use super::canvas::{COLUMN, Canvas, WIDTH};

/// 43 `X,Y,HEX`: bytes downwards in one column; Y may be left out (TCP300 page 30).
pub fn column(image: &mut Canvas, data: &[u8]) -> bool {
    let Some([x, y, bytes]) = parameters(data) else { return false };
    match (number(x, WIDTH), number(y, COLUMN), hex::decode(bytes)) {
        (Some(x), Some(y), Ok(bytes)) => !bytes.is_empty() && image.put(x, y, &bytes),
        _ => false,
    }
}

/// 4D `X,Y,LENGTH,HEX`: columns of LENGTH bytes, one after the other (TCP300II page 32).
pub fn block(image: &mut Canvas, data: &[u8]) -> bool {
    let Some([x, y, length, bytes]) = parameters(data) else { return false };
    let (Some(x), Some(y), Some(length), Ok(bytes)) =
        (number(x, WIDTH), number(y, COLUMN), number(length, COLUMN + 1), hex::decode(bytes))
    else {
        return false;
    };
    let fits = length > 0 && y + length <= COLUMN && x + bytes.len().div_ceil(length) <= WIDTH;
    fits && bytes.chunks(length).enumerate().all(|(step, column)| image.put(x + step, y, column))
}

/// Exactly N parameters between commas.
fn parameters<const N: usize>(data: &[u8]) -> Option<[&[u8]; N]> {
    let parts: Vec<&[u8]> = data.split(|byte| *byte == b',').collect();
    parts.try_into().ok()
}

/// A decimal number below `limit`; an empty one is 0.
fn number(text: &[u8], limit: usize) -> Option<usize> {
    if text.is_empty() {
        return Some(0);
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|number| *number < limit)
}
