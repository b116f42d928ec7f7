//! A vehicle report as one page to hand to a customer: self-contained, without
//! script or network, one sheet of A4 in the usual case; what a mechanic wants
//! beyond it stands in an appendix that is printed only when it is opened.
//!
//! Nothing a car or an adapter says can become markup: [`Html`] takes markup only as
//! text of this program (`&'static str`) and everything else escaped.

mod appendix;
mod sheet;

use super::View;

const STYLE: &str = include_str!("html/style.css");

/// The page.
#[must_use]
pub fn render(view: View<'_>) -> String {
    let mut html = Html::default();
    html.markup("<!DOCTYPE html>\n<html lang=\"").text(view.pick("zh-CN", "en"));
    html.markup("\"><head><meta charset=\"utf-8\">");
    // Should anything ever slip through, the browser loads and runs nothing.
    html.markup("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">");
    html.markup("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>");
    let vin = view.report.vin.as_ref().map_or("", |vin| vin.as_str());
    html.text(view.pick("车辆检测报告", "Vehicle report")).text(" ").text(vin);
    html.markup("</title><style>").markup(STYLE).markup("</style></head><body><main>");
    sheet::write(&mut html, view);
    appendix::write(&mut html, view);
    html.markup("</main></body></html>\n");
    html.out
}

/// A page being written.
#[derive(Debug, Default)]
struct Html {
    out: String,
}

impl Html {
    /// Our own markup.
    fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.out.push_str(markup);
        self
    }

    /// Anything else. Characters that mean something in markup are escaped; those that are
    /// invisible or turn the direction of writing are shown as such.
    fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                c if c.is_control() || is_bidi(c) => self.out.push('\u{FFFD}'),
                c => self.out.push(c),
            }
        }
        self
    }
}

/// Marks, embeddings, overrides and isolates of the writing direction (Unicode UAX #9).
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
