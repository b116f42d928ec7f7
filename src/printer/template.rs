//! Face templates: SVG with placeholders. A template declares its fields and
//! size on the root element and uses them in four ways:
//!
//! ```xml
//! <svg xmlns="http://www.w3.org/2000/svg" width="81mm" height="54mm" viewBox="0 0 480 320"
//!      data-fields="card_no points offer qr store?">
//!   <text x="20" y="60" font-size="24">{{card_no|group}}</text>
//!   <text x="20" y="200" font-size="24" data-max-width="300">{{offer}}</text>
//!   <g data-if="store"><text x="20" y="300" font-size="18">{{store}}</text></g>
//!   <rect data-qr="qr" x="330" y="80" width="140" height="140"/>
//! </svg>
//! ```
//!
//! - `data-fields` names every field; `?` marks one that may be absent.
//! - `{{field}}` or `{{field|group}}`, `|number`, `|yuan` inside text; values are escaped.
//! - `data-if="field"` drops the element when the field is absent.
//! - `data-qr="field"` on a `<rect>` without transforms draws a QR code in it.
//! - `data-max-width` on a `<text>` with its own `font-size` shrinks the text to at
//!   least 60 % of its size; what does not fit then is an error, never cut off.
//!
//! Here: reading, checking, filling in. Drawing is `render`'s.

use std::ops::Range;
use std::path::{Path, PathBuf};

use resvg::usvg::roxmltree::{Document, Node};

use super::fault::{FaceError, Place};
use super::fields::{Fields, Filter};
use super::markup::{
    Code, Size, TextElement, closest, code, declared, measures, text_element, unknown_filter,
};
use super::svg_rules::{self, Pointer};

/// How small a text with `data-max-width` may become.
pub(super) const MIN_SHRINK: f32 = 0.6;
/// How far the aspect of millimetres, view box and canvas may differ.
pub(super) const ASPECT_TOLERANCE: f32 = 0.02;

/// A checked template.
#[derive(Debug, Clone)]
pub struct Template {
    pub(super) file: PathBuf,
    pub(super) source: String,
    pub(super) fields: Vec<Field>,
    pub(super) size_mm: Size,
    pub(super) view: Size,
    pub(super) placeholders: Vec<Placeholder>,
    pub(super) optional: Vec<(Range<usize>, String)>,
    pub(super) codes: Vec<Code>,
    pub(super) texts: Vec<TextElement>,
    pub(super) literals: Vec<(usize, String)>,
}

/// A declared field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name in the data.
    pub name: String,
    /// Whether the data must have it.
    pub required: bool,
    pub(super) offset: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Placeholder {
    pub(super) range: Range<usize>,
    pub(super) field: String,
    pub(super) filter: Filter,
}

impl Template {
    /// Reads and checks a template. `file` is for messages.
    ///
    /// # Errors
    /// [`FaceError::Template`] with file, line and column of the first rule broken.
    pub fn parse(file: &Path, source: &str) -> Result<Self, FaceError> {
        let at = Pointer { file, source };
        let document = svg_rules::read(at)?;
        let root = document.root_element();
        let (size_mm, view) = measures(&at, root)?;
        let fields = declared(&at, root)?;
        let mut template = Self {
            file: file.to_owned(),
            source: source.to_owned(),
            fields,
            size_mm,
            view,
            placeholders: Vec::new(),
            optional: Vec::new(),
            codes: Vec::new(),
            texts: Vec::new(),
            literals: Vec::new(),
        };
        template.walk(&at, &document)?;
        Ok(template)
    }

    /// What it declares.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        Place::at(&self.file, &self.source, offset)
    }

    fn at(&self) -> Pointer<'_> {
        Pointer { file: &self.file, source: &self.source }
    }

    fn walk(&mut self, at: &Pointer<'_>, document: &Document<'_>) -> Result<(), FaceError> {
        for node in document.descendants() {
            if node.is_text() {
                self.take_text(at, node)?;
            }
            if !node.is_element() {
                continue;
            }
            if let Some(attribute) = node.attributes().find(|attribute| attribute.value().contains("{{")) {
                return Err(at.error(
                    attribute.range().start,
                    ["占位符只能写在文字中", "a placeholder stands in an attribute"],
                    ["请放到 <text> 的文字里", "placeholders belong into the text of a <text> element"],
                ));
            }
            if let Some(attribute) = node.attribute_node("data-if") {
                let field = self.declared_field(at, attribute.range().start, attribute.value())?;
                self.optional.push((node.range(), field));
            }
            if let Some(attribute) = node.attribute_node("data-qr") {
                let field = self.declared_field(at, attribute.range().start, attribute.value())?;
                self.codes.push(code(at, node, field)?);
            }
            if node.tag_name().name() == "text" {
                let id = format!("baygate-text-{}", self.texts.len());
                self.texts.push(text_element(at, node, id)?);
            }
        }
        Ok(())
    }

    /// Finds the placeholders of a text node; the rest is literal.
    fn take_text(&mut self, at: &Pointer<'_>, node: Node<'_, '_>) -> Result<(), FaceError> {
        let range = node.range();
        let raw = at.source.get(range.clone()).unwrap_or("");
        let printed = node.ancestors().any(|outer| outer.tag_name().name() == "text");
        let mut literal = String::new();
        let mut rest = raw;
        while let Some((before, after)) = rest.split_once("{{") {
            let start = range.end - rest.len() + before.len();
            let Some((inner, following)) = after.split_once("}}") else {
                return Err(at.error(
                    start,
                    ["占位符没有结束", "the placeholder does not end"],
                    ["请写成 {{字段}}", "write {{field}}"],
                ));
            };
            literal.push_str(before);
            let (name, filter) = inner.split_once('|').map_or((inner, None), |(n, f)| (n, Some(f.trim())));
            let field = self.declared_field(at, start, name.trim())?;
            let filter = match filter {
                None => Filter::Plain,
                Some(name) => Filter::parse(name).ok_or_else(|| unknown_filter(at, start, name))?,
            };
            self.placeholders.push(Placeholder { range: start..start + inner.len() + 4, field, filter });
            rest = following;
        }
        literal.push_str(rest);
        if printed {
            let plain = if raw.contains("{{") { literal } else { node.text().unwrap_or("").to_owned() };
            self.literals.push((range.start, plain));
        }
        Ok(())
    }

    fn declared_field(&self, at: &Pointer<'_>, offset: usize, name: &str) -> Result<String, FaceError> {
        if self.fields.iter().any(|field| field.name == name) {
            return Ok(name.to_owned());
        }
        let near = closest(name, self.fields.iter().map(|field| field.name.as_str()));
        let hint = near.map_or_else(
            || {
                [
                    "请在根元素的 data-fields 中声明".to_owned(),
                    "declare it in `data-fields` of the root".to_owned(),
                ]
            },
            |near| [format!("是否应为 {near}？"), format!("did you mean {near}?")],
        );
        let what = [format!("未声明的字段 {name:?}"), format!("field {name:?} is not declared")];
        Err(at.error(offset, [&what[0], &what[1]], [&hint[0], &hint[1]]))
    }

    /// Checks the data against the declaration.
    pub(super) fn check_fields(&self, fields: &Fields) -> Result<(), FaceError> {
        for name in fields.names() {
            if !self.fields.iter().any(|field| field.name == name) {
                let known = self.fields.iter().map(|field| field.name.clone()).collect();
                return Err(FaceError::UnknownField { field: name.to_owned(), known });
            }
        }
        match self.fields.iter().find(|field| field.required && !fields.has(&field.name)) {
            Some(field) => {
                Err(FaceError::MissingField { place: self.place(field.offset), field: field.name.clone() })
            }
            None => Ok(()),
        }
    }

    /// The part of the source that is left out because its field is absent.
    pub(super) fn is_dropped(&self, offset: usize, fields: &Fields) -> bool {
        self.optional.iter().any(|(range, field)| range.contains(&offset) && !fields.has(field))
    }

    /// The SVG with values in place, QR boxes taken out and texts scaled by `scale(index)`.
    pub(super) fn fill(&self, fields: &Fields, scale: impl Fn(usize) -> f32) -> Result<String, FaceError> {
        let mut edits: Vec<(Range<usize>, String)> = Vec::new();
        for (range, field) in &self.optional {
            if !fields.has(field) {
                edits.push((range.clone(), String::new()));
            }
        }
        for code in &self.codes {
            edits.push((code.range.clone(), String::new()));
        }
        for spot in &self.placeholders {
            edits.push((spot.range.clone(), escape(&fields.print(&spot.field, spot.filter)?)));
        }
        for (index, text) in self.texts.iter().enumerate() {
            if let Some(at) = text.insert_id_at {
                edits.push((at..at, format!(" id=\"{}\"", text.id)));
            }
            if let Some(fit) = &text.fit {
                edits.push((fit.font_size_at.clone(), format!("{}", fit.font_size * scale(index))));
            }
        }
        Ok(apply(&self.source, edits))
    }

    /// Whether the template's shape is that of the canvas.
    pub(super) fn check_canvas(&self, width: u32, height: u32) -> Result<(), FaceError> {
        #[allow(clippy::cast_precision_loss)]
        let canvas = width as f32 / height as f32;
        if (self.size_mm.0 / self.size_mm.1 / canvas - 1.0).abs() <= ASPECT_TOLERANCE {
            return Ok(());
        }
        let what = [
            format!("模板形状与打印区域 {width}×{height} 点不符"),
            format!("the template does not have the shape of the print area, {width} × {height} dots"),
        ];
        Err(self.at().error(
            0,
            [&what[0], &what[1]],
            ["TCP300 请用 width=\"81mm\" height=\"54mm\"", "for a TCP300 use width=\"81mm\" height=\"54mm\""],
        ))
    }
}

/// Applies edits in source order; those inside a part already taken out fall away.
fn apply(source: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
    let mut filled = String::with_capacity(source.len() + 256);
    let mut done = 0;
    for (range, text) in edits {
        if range.start < done {
            continue;
        }
        filled.push_str(source.get(done..range.start).unwrap_or(""));
        filled.push_str(&text);
        done = range.end;
    }
    filled.push_str(source.get(done..).unwrap_or(""));
    filled
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
