//! What can be wrong with a face: the template, the data, the fonts. Every
//! error names its place and says in both languages what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::event::Text;

/// A place in a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The template.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

impl Place {
    /// The place of a byte offset in a template's text.
    #[must_use]
    pub fn at(file: &Path, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { file: file.to_owned(), line: small(line), column: small(column) }
    }
}

/// What is wrong with a template and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What is wrong.
    pub what: Text,
    /// What to do.
    pub hint: Text,
}

/// A face cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FaceError {
    /// The template breaks a rule.
    #[error("{place}: {} (hint: {})", advice.what.en, advice.hint.en)]
    Template {
        /// Where.
        place: Place,
        /// What is wrong and what to do.
        advice: Box<Advice>,
    },
    /// No template of that name.
    #[error("template {name:?} is not in {folder}; {}", known_en(known))]
    UnknownTemplate {
        /// What was asked for.
        name: String,
        /// Where templates lie.
        folder: PathBuf,
        /// What is there.
        known: Vec<String>,
    },
    /// The template's file cannot be read.
    #[error("template {path} cannot be read: {source}; check the file and its permissions")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data lacks a field that the template declares as required.
    #[error(
        "{place}: the data has no field {field:?}; give it, or declare it as `{field}?` if it may be absent"
    )]
    MissingField {
        /// Where it is declared.
        place: Place,
        /// The field.
        field: String,
    },
    /// The data has a field that the template does not declare.
    #[error(
        "field {field:?} is not one of this template's ({}); remove or rename it",
        known.join(", ")
    )]
    UnknownField {
        /// The field.
        field: String,
        /// What the template declares.
        known: Vec<String>,
    },
    /// A field's value has the wrong form.
    #[error("field {field:?} {}", what.en)]
    BadValue {
        /// The field.
        field: String,
        /// What is wrong and what would be right.
        what: Text,
    },
    /// The shipped fonts have no picture for a character.
    #[error(
        "{place}: the fonts have no glyph for {character:?} (U+{:04X}){}; use another character or add a font to {fonts}",
        u32::from(*character),
        of_field(field)
    )]
    MissingGlyph {
        /// Where it would be printed.
        place: Place,
        /// The character.
        character: char,
        /// The field it came from; `None`: it stands in the template.
        field: Option<String>,
        /// The font folder.
        fonts: PathBuf,
    },
    /// A text does not fit, not even in the smallest size allowed.
    #[error(
        "{place}: this text needs {needs:.0} and has {has:.0} units of width even when shrunk; shorten it or widen `data-max-width`"
    )]
    TooWide {
        /// Where.
        place: Place,
        /// Width of the text at the smallest size, in user units.
        needs: f32,
        /// `data-max-width`, or what the canvas leaves.
        has: f32,
    },
    /// A QR code does not fit.
    #[error(
        "{place}: the QR code of {field:?} does not fit with modules of at least 2 dots; shorten the content or enlarge the box"
    )]
    QrTooLarge {
        /// Where.
        place: Place,
        /// The field.
        field: String,
    },
    /// There are no fonts.
    #[error(
        "no font (*.otf, *.ttf) can be read in {folder}: {why}; restore the folder `fonts` of the installation"
    )]
    NoFonts {
        /// The folder.
        folder: PathBuf,
        /// Why.
        why: String,
    },
}

fn known_en(known: &[String]) -> String {
    if known.is_empty() { "there is none".into() } else { format!("there are: {}", known.join(", ")) }
}

fn of_field(field: &Option<String>) -> String {
    field.as_ref().map(|field| format!(" in field {field:?}")).unwrap_or_default()
}

impl FaceError {
    /// Stable code, e.g. for `application/problem+json`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Template { .. } => "template-invalid",
            Self::UnknownTemplate { .. } => "template-unknown",
            Self::Unreadable { .. } => "template-unreadable",
            Self::MissingField { .. } => "field-missing",
            Self::UnknownField { .. } => "field-unknown",
            Self::BadValue { .. } => "field-invalid",
            Self::MissingGlyph { .. } => "glyph-missing",
            Self::TooWide { .. } => "text-too-wide",
            Self::QrTooLarge { .. } => "qr-too-large",
            Self::NoFonts { .. } => "fonts-missing",
        }
    }

    /// Whether the asker's data is at fault, and not the installation.
    #[must_use]
    pub fn is_about_data(&self) -> bool {
        !matches!(self, Self::Template { .. } | Self::Unreadable { .. } | Self::NoFonts { .. })
    }

    /// For people: what is wrong and what to do.
    #[must_use]
    pub fn text(&self) -> Text {
        Text::new(self.zh(), self.to_string())
    }

    fn zh(&self) -> String {
        match self {
            Self::Template { place, advice } => {
                format!("{place}：{}（建议：{}）", advice.what.zh, advice.hint.zh)
            }
            Self::UnknownTemplate { name, folder, known } => {
                let folder = folder.display();
                format!("{folder} 中没有模板 {name:?}，现有：{}", known.join("、"))
            }
            Self::Unreadable { path, source } => {
                format!("无法读取模板 {}：{source}；请检查文件及权限", path.display())
            }
            Self::MissingField { place, field } => {
                format!("{place}：数据缺少字段 {field:?}；请补上，或在模板中声明为 `{field}?`（可缺省）")
            }
            Self::UnknownField { field, known } => {
                format!("模板没有字段 {field:?}（已声明：{}）；请删除或改名", known.join("、"))
            }
            Self::BadValue { field, what } => format!("字段 {field:?} {}", what.zh),
            Self::MissingGlyph { place, character, field, fonts } => {
                let of = field.as_ref().map(|field| format!("字段 {field:?} 的")).unwrap_or_default();
                let code = u32::from(*character);
                let fonts = fonts.display();
                format!(
                    "{place}：字库没有{of}字符 {character:?}（U+{code:04X}）；请改用其他字，或在 {fonts} 中加入字体"
                )
            }
            Self::TooWide { place, needs, has } => {
                format!(
                    "{place}：文字缩小后仍需宽度 {needs:.0}，只有 {has:.0}；请缩短文字或加大 data-max-width"
                )
            }
            Self::QrTooLarge { place, field } => {
                format!("{place}：{field:?} 的二维码放不下（每模块至少 2 点）；请缩短内容或加大区域")
            }
            Self::NoFonts { folder, why } => {
                format!("{} 中没有可用字体：{why}；请恢复安装目录中的 fonts", folder.display())
            }
        }
    }
}
