//! Drawing: a filled template becomes dots. Text and shapes are rendered to
//! gray and cut at half; QR codes are put on whole dots afterwards. Pure and
//! blocking: callers run it off the async threads.

use std::collections::HashMap;

use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg;

use super::bitmap::{Bitmap, Canvas};
use super::fault::{Advice, FaceError};
use super::fields::Fields;
use super::fonts::Fonts;
use super::qr::{self, Square};
use super::template::{MIN_SHRINK, Template};
use crate::event::Text;

/// Gray below this is printed. At half, a stroke keeps its drawn width.
const THRESHOLD: u16 = 128;
/// How far a text may reach over the canvas or its width before it counts, in user units.
const SLACK: f32 = 1.0;

/// Draws a face.
pub(super) fn render(
    template: &Template,
    fields: &Fields,
    fonts: &Fonts,
    canvas: Canvas,
) -> Result<Bitmap, FaceError> {
    template.check_fields(fields)?;
    template.check_canvas(canvas.width, canvas.height)?;
    check_glyphs(template, fields, fonts)?;
    let tree = fitted(template, fields, fonts)?;
    let mut picture = rasterise(&tree, canvas);
    draw_codes(template, fields, &mut picture)?;
    Ok(picture)
}

/// Every character that will be printed must have a glyph: never an empty box.
fn check_glyphs(template: &Template, fields: &Fields, fonts: &Fonts) -> Result<(), FaceError> {
    let missing = |offset: usize, text: &str, field: Option<&str>| match fonts.missing(text) {
        Some(character) if !template.is_dropped(offset, fields) => Err(FaceError::MissingGlyph {
            place: template.place(offset),
            character,
            field: field.map(str::to_owned),
            fonts: fonts.folder().to_owned(),
        }),
        _ => Ok(()),
    };
    for (offset, literal) in &template.literals {
        missing(*offset, literal, None)?;
    }
    for spot in &template.placeholders {
        let value = fields.print(&spot.field, spot.filter)?;
        missing(spot.range.start, &value, Some(&spot.field))?;
    }
    Ok(())
}

/// Lays the texts out, shrinks those that are too wide, and refuses what still does not fit.
fn fitted(template: &Template, fields: &Fields, fonts: &Fonts) -> Result<usvg::Tree, FaceError> {
    let tree = layout(template, &template.fill(fields, |_| 1.0)?, fonts)?;
    let widths = widths(&tree);
    let mut scales = HashMap::new();
    for (index, text) in template.texts.iter().enumerate() {
        let (Some(fit), Some(width)) = (&text.fit, widths.get(&text.id)) else { continue };
        let scale = fit.max_width / width.own;
        if scale < MIN_SHRINK {
            return Err(FaceError::TooWide {
                place: template.place(text.start),
                needs: width.own * MIN_SHRINK,
                has: fit.max_width,
            });
        }
        if scale < 1.0 {
            scales.insert(index, scale);
        }
    }
    let tree = if scales.is_empty() {
        tree
    } else {
        let scale = |index: usize| scales.get(&index).copied().unwrap_or(1.0);
        layout(template, &template.fill(fields, scale)?, fonts)?
    };
    check_inside(template, &tree)?;
    Ok(tree)
}

/// No text may reach over the left or right edge or its own limit.
fn check_inside(template: &Template, tree: &usvg::Tree) -> Result<(), FaceError> {
    let units = template.view.0 / tree.size().width();
    let widths = widths(tree);
    for text in &template.texts {
        let Some(width) = widths.get(&text.id) else { continue };
        let over_limit = text.fit.as_ref().is_some_and(|fit| width.own > fit.max_width + SLACK);
        let over_edge = width.left * units < -SLACK || width.right * units > template.view.0 + SLACK;
        if over_limit || over_edge {
            let has = text.fit.as_ref().map_or(template.view.0, |fit| fit.max_width);
            let needs = if over_limit { width.own } else { (width.right - width.left.min(0.0)) * units };
            return Err(FaceError::TooWide { place: template.place(text.start), needs, has });
        }
    }
    Ok(())
}

struct Width {
    /// In the text's own user units.
    own: f32,
    /// On the canvas, in pixels of the tree.
    left: f32,
    right: f32,
}

fn widths(tree: &usvg::Tree) -> HashMap<String, Width> {
    let mut found = HashMap::new();
    collect(tree.root(), &mut found);
    found
}

fn collect(group: &usvg::Group, found: &mut HashMap<String, Width>) {
    for node in group.children() {
        match node {
            usvg::Node::Group(inner) => collect(inner, found),
            usvg::Node::Text(text) => {
                let canvas = text.abs_bounding_box();
                let width =
                    Width { own: text.bounding_box().width(), left: canvas.left(), right: canvas.right() };
                found.insert(text.id().to_owned(), width);
            }
            _ => {}
        }
    }
}

fn layout(template: &Template, svg: &str, fonts: &Fonts) -> Result<usvg::Tree, FaceError> {
    let options = usvg::Options {
        fontdb: fonts.database(),
        languages: vec!["zh-CN".into(), "en".into()],
        // The rules let no reference out; these would not follow one either.
        image_href_resolver: usvg::ImageHrefResolver {
            resolve_data: Box::new(|_, _, _| None),
            resolve_string: Box::new(|_, _| None),
        },
        ..usvg::Options::default()
    };
    usvg::Tree::from_str(svg, &options).map_err(|error| FaceError::Template {
        place: template.place(0),
        advice: Box::new(Advice {
            what: Text::new(format!("无法绘制：{error}"), format!("it cannot be drawn: {error}")),
            hint: Text::new("请检查尺寸和图形", "check sizes and shapes"),
        }),
    })
}

fn rasterise(tree: &usvg::Tree, canvas: Canvas) -> Bitmap {
    let mut picture = Bitmap::new(canvas);
    let Some(mut pixels) = Pixmap::new(canvas.width, canvas.height) else { return picture };
    pixels.fill(Color::WHITE);
    #[allow(clippy::cast_precision_loss)]
    let scale = |dots: u32, size: f32| dots as f32 / size;
    let to_dots = Transform::from_scale(
        scale(canvas.width, tree.size().width()),
        scale(canvas.height, tree.size().height()),
    );
    resvg::render(tree, to_dots, &mut pixels.as_mut());
    for (index, pixel) in (0_u32..).zip(pixels.pixels()) {
        // ITU-R BT.601 luma in integers; the ground is opaque, so nothing is premultiplied away.
        let luma =
            (u32::from(pixel.red()) * 299 + u32::from(pixel.green()) * 587 + u32::from(pixel.blue()) * 114)
                / 1000;
        if luma < u32::from(THRESHOLD) {
            picture.set(index % canvas.width, index / canvas.width, true);
        }
    }
    picture
}

fn draw_codes(template: &Template, fields: &Fields, picture: &mut Bitmap) -> Result<(), FaceError> {
    let canvas = picture.canvas();
    #[allow(clippy::cast_precision_loss)]
    let (across, down) = (canvas.width as f32 / template.view.0, canvas.height as f32 / template.view.1);
    for code in &template.codes {
        let dropped = template.is_dropped(code.range.start, fields);
        if dropped || !fields.has(&code.field) {
            continue;
        }
        // Measures are at most 10,000 and not negative: the casts are exact enough.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let square = Square {
            left: (code.corner.0 * across).round() as u32,
            top: (code.corner.1 * down).round() as u32,
            side: (code.size.0 * across).min(code.size.1 * down).floor() as u32,
        };
        let inside = square.left + square.side <= canvas.width && square.top + square.side <= canvas.height;
        let content = fields.print(&code.field, super::fields::Filter::Plain)?;
        if !inside || !qr::draw(picture, square, &content) {
            let place = template.place(code.range.start);
            return Err(FaceError::QrTooLarge { place, field: code.field.clone() });
        }
    }
    Ok(())
}
