//! What a template may contain. Templates come from people; the renderer runs
//! in the daemon. So elements are allowed by name, nothing may point outside the
//! file, and size and depth are bounded.

use std::path::Path;

use resvg::usvg::roxmltree::{self, Document, Node, ParsingOptions};

use super::fault::{Advice, FaceError, Place};
use crate::event::Text;

/// The largest template, in bytes.
pub(super) const MAX_BYTES: usize = 256 * 1024;
/// Nodes of the document, at most: elements, texts, comments.
const MAX_NODES: u32 = 5_000;
/// Nesting, at most.
const MAX_DEPTH: usize = 32;
/// `<use>` elements, at most.
const MAX_USES: usize = 64;
/// Units of a stroke's dash pattern, at least: tiny ones make millions of segments.
const MIN_DASH: f32 = 0.5;

const SVG: &str = "http://www.w3.org/2000/svg";
const XLINK: &str = "http://www.w3.org/1999/xlink";
const ELEMENTS: [&str; 20] = [
    "svg",
    "g",
    "defs",
    "symbol",
    "use",
    "title",
    "desc",
    "metadata",
    "rect",
    "circle",
    "ellipse",
    "line",
    "polyline",
    "polygon",
    "path",
    "text",
    "tspan",
    "clipPath",
    "linearGradient",
    "stop",
];

/// Makes errors that point into one template.
#[derive(Clone, Copy)]
pub(super) struct Pointer<'a> {
    pub(super) file: &'a Path,
    pub(super) source: &'a str,
}

impl Pointer<'_> {
    pub(super) fn place(&self, offset: usize) -> Place {
        Place::at(self.file, self.source, offset)
    }

    pub(super) fn error(&self, offset: usize, what: [&str; 2], hint: [&str; 2]) -> FaceError {
        FaceError::Template {
            place: self.place(offset),
            advice: Box::new(Advice { what: Text::new(what[0], what[1]), hint: Text::new(hint[0], hint[1]) }),
        }
    }
}

/// Reads the XML and checks every rule.
pub(super) fn read<'s>(at: Pointer<'s>) -> Result<Document<'s>, FaceError> {
    if at.source.len() > MAX_BYTES {
        return Err(at.error(
            0,
            ["模板超过 256 KiB", "the template has more than 256 KiB"],
            ["请简化图形", "simplify the drawing"],
        ));
    }
    for (mark, zh, en) in [
        ("<!DOCTYPE", "不允许 DOCTYPE 和实体", "DOCTYPE and entities are not allowed"),
        ("<![CDATA[", "不允许 CDATA", "CDATA is not allowed"),
        ("<?xml-stylesheet", "不允许外部样式表", "style sheets are not allowed"),
    ] {
        if let Some(offset) = at.source.find(mark) {
            return Err(at.error(offset, [zh, en], ["请删除", "remove it and write the text plainly"]));
        }
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(at.source, options).map_err(|error| not_xml(&at, &error))?;
    let root = document.root_element();
    if root.tag_name().name() != "svg" || root.tag_name().namespace() != Some(SVG) {
        return Err(at.error(
            root.range().start,
            ["根元素不是 SVG", "the root element is not an SVG"],
            [
                "根元素应为 <svg xmlns=\"http://www.w3.org/2000/svg\">",
                "begin with <svg xmlns=\"http://www.w3.org/2000/svg\">",
            ],
        ));
    }
    for element in document.descendants().filter(Node::is_element) {
        check_element(&at, element)?;
        for attribute in element.attributes() {
            check_attribute(&at, &attribute)?;
        }
    }
    check_uses(&at, &document)?;
    Ok(document)
}

fn not_xml(at: &Pointer<'_>, error: &roxmltree::Error) -> FaceError {
    let position = error.pos();
    let text = error.to_string();
    FaceError::Template {
        place: Place { file: at.file.to_owned(), line: position.row, column: position.col },
        advice: Box::new(Advice {
            what: Text::new(format!("不是合法的 XML：{text}"), format!("not well-formed XML: {text}")),
            hint: Text::new("请修正标签或引号", "repair the tag or quote there"),
        }),
    }
}

fn check_element(at: &Pointer<'_>, element: Node<'_, '_>) -> Result<(), FaceError> {
    let name = element.tag_name().name();
    let start = element.range().start;
    if element.tag_name().namespace() != Some(SVG) || !ELEMENTS.contains(&name) {
        let what = [format!("不允许元素 <{name}>"), format!("element <{name}> is not allowed")];
        return Err(at.error(
            start,
            [&what[0], &what[1]],
            [
                "图片、样式、脚本和滤镜不可用，请改用图形和文字元素",
                "pictures, styles, scripts and filters are not available: draw it with shapes and text",
            ],
        ));
    }
    if element.ancestors().count() > MAX_DEPTH {
        return Err(at.error(
            start,
            ["嵌套超过 32 层", "nested deeper than 32 levels"],
            ["请减少 <g> 层数", "flatten the groups"],
        ));
    }
    Ok(())
}

fn check_attribute(at: &Pointer<'_>, attribute: &roxmltree::Attribute<'_, '_>) -> Result<(), FaceError> {
    let start = attribute.range().start;
    let value = attribute.value();
    let lower = value.to_ascii_lowercase();
    let outside = ["模板不允许引用外部内容", "a template may not refer to anything outside itself"];
    let inside = ["只能引用本文件中的 #id", "only `#id` of this file may be referred to"];
    let is_href = attribute.name() == "href" && matches!(attribute.namespace(), None | Some(XLINK));
    if is_href && !value.starts_with('#') {
        return Err(at.error(start, outside, inside));
    }
    if lower.split("url(").skip(1).any(|target| !target.trim_start_matches(['\'', '"', ' ']).starts_with('#'))
    {
        return Err(at.error(start, outside, inside));
    }
    if lower.contains("@import") || lower.contains("javascript:") || attribute.name().starts_with("on") {
        return Err(at.error(start, outside, ["请删除", "remove it"]));
    }
    let dash = attribute.name() == "stroke-dasharray" || lower.contains("stroke-dasharray");
    let numbers = value.split(|c: char| !c.is_ascii_digit() && c != '.').filter(|n| !n.is_empty());
    if dash && numbers.filter_map(|n| n.parse::<f32>().ok()).any(|n| n < MIN_DASH) {
        return Err(at.error(
            start,
            ["虚线间隔小于 0.5", "the dash pattern has steps under 0.5"],
            ["请加大间隔", "use larger steps"],
        ));
    }
    Ok(())
}

/// `<use>` may not nest: a few levels of it draw without end.
fn check_uses(at: &Pointer<'_>, document: &Document<'_>) -> Result<(), FaceError> {
    let is_use = |node: &Node<'_, '_>| node.has_tag_name((SVG, "use"));
    let inside_target = |node: Node<'_, '_>| {
        node.ancestors().skip(1).any(|outer| outer.has_attribute("id") || outer.has_tag_name((SVG, "defs")))
    };
    for (count, node) in document.descendants().filter(is_use).enumerate() {
        if count >= MAX_USES || inside_target(node) {
            return Err(at.error(
                node.range().start,
                ["<use> 过多或相互嵌套", "too many <use> elements, or one inside what another draws"],
                ["请直接绘制", "draw the shape itself"],
            ));
        }
    }
    Ok(())
}
