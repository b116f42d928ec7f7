//! Reading the marks of a template: what stands in its root's and elements'
//! `data-*` attributes, each checked where it stands.

use std::ops::Range;

use resvg::usvg::roxmltree::{Attribute, Node};

use super::fault::FaceError;
use super::fields::Filter;
use super::svg_rules::Pointer;
use super::template::{ASPECT_TOLERANCE, Field};

/// Width and height.
pub(super) type Size = (f32, f32);

/// A box for a QR code.
#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) range: Range<usize>,
    pub(super) field: String,
    pub(super) corner: (f32, f32),
    pub(super) size: Size,
}

/// A `<text>` element.
#[derive(Debug, Clone)]
pub(super) struct TextElement {
    pub(super) start: usize,
    pub(super) id: String,
    /// Where an `id` must be put in, when the element has none.
    pub(super) insert_id_at: Option<usize>,
    pub(super) fit: Option<Fit>,
}

/// How a text is kept within its width.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    pub(super) max_width: f32,
    pub(super) font_size: f32,
    pub(super) font_size_at: Range<usize>,
}

pub(super) fn closest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|word| (strsim::jaro_winkler(typed, word), word))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

pub(super) fn unknown_filter(at: &Pointer<'_>, offset: usize, name: &str) -> FaceError {
    let what = [format!("未知格式 {name:?}"), format!("filter {name:?} is not known")];
    let known = Filter::NAMES.join(", ");
    at.error(offset, [&what[0], &what[1]], [&format!("可用：{known}"), &format!("known: {known}")])
}

/// `data-fields` of the root.
pub(super) fn declared(at: &Pointer<'_>, root: Node<'_, '_>) -> Result<Vec<Field>, FaceError> {
    let example = [
        "请写 data-fields=\"card_no points offer qr store?\"",
        "write data-fields=\"card_no points offer qr store?\"",
    ];
    let Some(attribute) = root.attribute_node("data-fields") else {
        let what = ["根元素没有声明字段", "the root element declares no fields"];
        return Err(at.error(root.range().start, what, example));
    };
    let start = attribute.range_value().start;
    let raw = at.source.get(attribute.range_value()).unwrap_or("");
    let mut fields: Vec<Field> = Vec::new();
    for word in raw.split_ascii_whitespace() {
        let offset = start + (word.as_ptr() as usize - raw.as_ptr() as usize);
        let (name, required) = word.strip_suffix('?').map_or((word, true), |name| (name, false));
        let formed = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !formed || fields.iter().any(|field| field.name == name) {
            let what =
                [format!("字段名 {word:?} 无效或重复"), format!("field name {word:?} is malformed or twice")];
            return Err(at.error(
                offset,
                [&what[0], &what[1]],
                ["字段名用 a-z 0-9 _", "field names are of a-z 0-9 _"],
            ));
        }
        fields.push(Field { name: name.to_owned(), required, offset });
    }
    Ok(fields)
}

/// Millimetres and view box of the root.
pub(super) fn measures(at: &Pointer<'_>, root: Node<'_, '_>) -> Result<(Size, Size), FaceError> {
    let millimetres = |name: &str| {
        let value = root.attribute(name)?.strip_suffix("mm")?.trim().parse::<f32>().ok()?;
        (1.0..=1000.0).contains(&value).then_some(value)
    };
    let view = root.attribute("viewBox").and_then(|text| {
        let numbers: Vec<f32> = text
            .split([' ', ','])
            .filter(|n| !n.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        match numbers.as_slice() {
            [x, y, width, height] if *x == 0.0 && *y == 0.0 && *width >= 1.0 && *height >= 1.0 => {
                (width.is_finite() && height.is_finite()).then_some((*width, *height))
            }
            _ => None,
        }
    });
    let same_shape = |a: Size, b: Size| ((a.0 / a.1) / (b.0 / b.1) - 1.0).abs() <= ASPECT_TOLERANCE;
    match (millimetres("width"), millimetres("height"), view) {
        (Some(width), Some(height), Some(view)) if same_shape((width, height), view) => {
            Ok(((width, height), view))
        }
        _ => Err(at.error(
            root.range().start,
            ["画布尺寸缺失或不一致", "the canvas is missing or contradicts itself"],
            [
                "请写 width=\"81mm\" height=\"54mm\" viewBox=\"0 0 480 320\"",
                "write width=\"81mm\" height=\"54mm\" viewBox=\"0 0 480 320\"",
            ],
        )),
    }
}

fn number(attribute: Option<&str>) -> Option<f32> {
    attribute?.parse::<f32>().ok().filter(|value| value.is_finite() && value.abs() <= 10_000.0)
}

pub(super) fn code(at: &Pointer<'_>, node: Node<'_, '_>, field: String) -> Result<Code, FaceError> {
    let moved = node.ancestors().any(|outer| outer.has_attribute("transform"));
    let values = ["x", "y", "width", "height"].map(|name| number(node.attribute(name)));
    match values {
        [Some(x), Some(y), Some(width), Some(height)]
            if !moved
                && node.tag_name().name() == "rect"
                && x >= 0.0
                && y >= 0.0
                && width > 0.0
                && height > 0.0 =>
        {
            Ok(Code { range: node.range(), field, corner: (x, y), size: (width, height) })
        }
        _ => Err(at.error(
            node.range().start,
            ["data-qr 区域无效", "this `data-qr` box cannot be placed on whole dots"],
            [
                "请用带 x y width height 的 <rect>，且自身和上层都没有 transform",
                "use a <rect> with x, y, width and height, without `transform` on it or around it",
            ],
        )),
    }
}

pub(super) fn text_element(
    at: &Pointer<'_>,
    node: Node<'_, '_>,
    generated: String,
) -> Result<TextElement, FaceError> {
    let start = node.range().start;
    let tag = at.source.get(start..).unwrap_or("");
    let name_ends = tag.find(|c: char| c.is_whitespace() || c == '>' || c == '/').unwrap_or(tag.len());
    let (id, insert_id_at) = match node.attribute("id") {
        Some(own) => (own.to_owned(), None),
        None => (generated, Some(start + name_ends)),
    };
    let fit = match node.attribute_node("data-max-width") {
        None => None,
        Some(attribute) => Some(fit(at, node, &attribute)?),
    };
    Ok(TextElement { start, id, insert_id_at, fit })
}

fn fit(at: &Pointer<'_>, node: Node<'_, '_>, attribute: &Attribute<'_, '_>) -> Result<Fit, FaceError> {
    let font_size = node.attribute_node("font-size");
    let parsed = (number(Some(attribute.value())), font_size.and_then(|size| number(Some(size.value()))));
    match (parsed, font_size) {
        ((Some(max_width), Some(size)), Some(written)) if max_width > 0.0 && size > 0.0 => {
            Ok(Fit { max_width, font_size: size, font_size_at: written.range_value() })
        }
        _ => Err(at.error(
            attribute.range().start,
            ["data-max-width 无效", "`data-max-width` cannot be used here"],
            [
                "请给出正数，并在同一 <text> 上写数字 font-size",
                "give a positive number, and a plain number as `font-size` on the same <text>",
            ],
        )),
    }
}
