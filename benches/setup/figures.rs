//! Figures, medians and the table. A benchmark keeps its figures in a file;
//! `table` prints those of all benchmarks as one.

use serde::{Deserialize, Serialize};

/// One row of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    pub figure: String,
    pub ours: String,
    pub peer: String,
    pub ratio: Option<f64>,
    pub wanted: String,
    /// `None`: informative, nothing is asked of it.
    pub holds: Option<bool>,
}

impl Figure {
    /// Ours against a peer on equal terms, both as rates: higher is better.
    pub fn ratio(figure: &str, unit: &str, ours: f64, peer: f64, least: Option<f64>) -> Self {
        let ratio = ours / peer;
        Self {
            figure: figure.into(),
            ours: format!("{} {unit}", thousands(ours)),
            peer: format!("{} {unit}", thousands(peer)),
            ratio: Some(ratio),
            wanted: least.map_or_else(String::new, |least| format!("≥ {least}")),
            holds: least.map(|least| ratio >= least),
        }
    }

    /// Ours against a limit, in the same unit: lower is better.
    pub fn limit(figure: &str, unit: &str, ours: f64, most: f64) -> Self {
        let limit = format!("{} {unit}", digits(most));
        Self {
            figure: figure.into(),
            ours: format!("{} {unit}", digits(ours)),
            peer: limit.clone(),
            ratio: Some(ours / most),
            wanted: format!("≤ {limit}"),
            holds: Some(ours <= most),
        }
    }

    /// For information.
    pub fn told(figure: &str, ours: String, peer: String) -> Self {
        Self { figure: figure.into(), ours, peer, ratio: None, wanted: String::new(), holds: None }
    }
}

/// What one benchmark found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Found {
    pub figures: Vec<Figure>,
    /// Facts that belong beside the table, as `what: value`.
    pub notes: Vec<String>,
}

impl Found {
    /// Prints it and keeps it for the table.
    pub fn keep(&self, bench: &str) {
        print!("{}", table(&self.figures));
        for note in &self.notes {
            println!("{note}");
        }
        std::fs::write(super::kept(&format!("{bench}.json")), serde_json::to_vec_pretty(self).unwrap())
            .unwrap();
    }
}

/// As Markdown, in columns that line up.
pub fn table(figures: &[Figure]) -> String {
    let head = ["figure", "ours", "peer or limit", "ratio", "wanted", "verdict"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(figures.iter().map(|row| {
        let ratio = row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let verdict = row.holds.map_or("", |holds| if holds { "holds" } else { "FALLS SHORT" });
        [&row.figure, &row.ours, &row.peer, &ratio, &row.wanted, verdict].map(str::to_owned)
    }));
    let widths: Vec<usize> =
        (0..6).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let line = |cells: &[String; 6]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = format!("|{}|\n", widths.iter().map(|w| "-".repeat(w + 2)).collect::<Vec<_>>().join("|"));
    let body: String = rows.iter().skip(1).map(line).collect();
    format!("{}{rule}{body}", line(&rows[0]))
}

/// The middle of an odd number of runs.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value that `share` of all values do not exceed.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted[at.clamp(1, sorted.len()) - 1]
}

/// With as many digits as say something.
pub fn digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn thousands(value: f64) -> String {
    let plain = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
