//! What is measured of a running daemon from outside, and whether it stays flat.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// One look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    pub at: Duration,
    pub rss_kib: u64,
    pub threads: u64,
    pub handles: u64,
    pub db_kib: u64,
    pub wal_kib: u64,
    /// Events committed that headquarters does not have.
    pub backlog: u64,
    pub log_kib: u64,
    /// Events that stand in the log, and how many of them are telemetry.
    pub rows: u64,
    pub telemetry_rows: u64,
    /// What has to stay in the file so far: scans asked with a key, sales.
    pub reports: u64,
    pub sales: u64,
}

impl Sample {
    /// `None` when the process is gone.
    pub fn take(pid: i32, data: &Path) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let size = |name: &str| std::fs::metadata(data.join(name)).map_or(0, |file| file.len() / 1024);
        Some(Self {
            rss_kib: field("VmRSS:")?,
            threads: field("Threads:")?,
            handles: u64::try_from(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()).ok()?,
            db_kib: size("baygate.db"),
            wal_kib: size("baygate.db-wal"),
            ..Self::default()
        })
    }
}

/// What must hold of one figure.
pub struct Bound {
    pub name: &'static str,
    pub unit: &'static str,
    pub of: fn(&Sample) -> u64,
    /// By how much its trend may rise over the last two thirds of the run …
    pub rise: Option<f64>,
    /// … not counting what has to stay.
    pub kept: bool,
    /// What it may never exceed.
    pub most: Option<u64>,
}

/// The bounds. A trend is the slope of the least squares over the last two thirds, times
/// their length: noise and single peaks do not count, what grows steadily does.
pub const BOUNDS: [Bound; 8] = [
    Bound {
        name: "memory (RSS)",
        unit: "KiB",
        of: |s| s.rss_kib,
        rise: Some(2048.0),
        kept: false,
        most: None,
    },
    Bound { name: "threads", unit: "", of: |s| s.threads, rise: Some(2.0), kept: false, most: Some(64) },
    Bound {
        name: "open handles",
        unit: "",
        of: |s| s.handles,
        rise: Some(4.0),
        kept: false,
        most: Some(256),
    },
    // What was delivered goes after ten seconds (`keep_delivered`), whatever its class: what stands
    // is a few looks of the trimmer, and what came while the broker was away.
    Bound {
        name: "events in the log",
        unit: "",
        of: |s| s.rows,
        rise: Some(100.0),
        kept: false,
        most: Some(400),
    },
    Bound {
        name: "of them telemetry",
        unit: "",
        of: |s| s.telemetry_rows,
        rise: Some(50.0),
        kept: false,
        most: Some(200),
    },
    // Pages that are free now and full at another time, and what has to stay.
    Bound {
        name: "database file",
        unit: "KiB",
        of: |s| s.db_kib,
        rise: Some(256.0),
        kept: true,
        most: Some(64 << 10),
    },
    // It is cut back to 8 MiB after each reset; a reader in the way lets it grow for a moment.
    Bound { name: "WAL", unit: "KiB", of: |s| s.wal_kib, rise: None, kept: false, most: Some(32 << 10) },
    Bound { name: "backlog", unit: "events", of: |s| s.backlog, rise: Some(200.0), kept: false, most: None },
];
/// A settled scan stays thirty days for its key, with its report; measured: 4.6 KiB.
pub const REPORT_KIB: f64 = 5.0;
/// A sale stays in the card's journal (the newest 500,000), and its request thirty days for its
/// key; measured: 2.8 KiB.
pub const SALE_KIB: f64 = 3.0;
/// Log bytes a minute, at most: at a hundred times the rate of a store.
pub const LOG_KIB_PER_MINUTE: f64 = 512.0;

/// The second and the last third of the samples.
fn two_thirds(samples: &[Sample]) -> &[Sample] {
    &samples[samples.len() / 3..]
}

/// Slope times length, by least squares.
pub fn trend(samples: &[Sample], of: fn(&Sample) -> u64) -> f64 {
    let points: Vec<(f64, f64)> = samples
        .iter()
        .map(|s| (s.at.as_secs_f64(), f64::from(u32::try_from(of(s)).unwrap_or(u32::MAX))))
        .collect();
    let n = f64::from(u32::try_from(points.len()).unwrap());
    let (mean_x, mean_y) =
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let covariance: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    let variance: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let length = points.last().unwrap().0 - points[0].0;
    if variance == 0.0 { 0.0 } else { covariance / variance * length }
}

/// The table, and what is not flat.
pub fn verdict(samples: &[Sample]) -> (String, Vec<String>) {
    let window = two_thirds(samples);
    let (first, last) = (window.first().unwrap(), window.last().unwrap());
    let mut table = String::new();
    let mut wrong = Vec::new();
    let minutes = (last.at - first.at).as_secs_f64() / 60.0;
    let (reports, sales) = (last.reports - first.reports, last.sales - first.sales);
    let stays = REPORT_KIB * reports as f64 + SALE_KIB * sales as f64;
    writeln!(table, "last two thirds: {} samples over {minutes:.1} min", window.len()).unwrap();
    writeln!(
        table,
        "{:<16}{:>10}{:>10}{:>10}{:>12}{:>12}  verdict",
        "", "first", "last", "max", "trend", "allowed"
    )
    .unwrap();
    for Bound { name, unit, of, rise, kept, most } in BOUNDS {
        let rise = rise.map(|rise| if kept { rise + stays } else { rise });
        let (max, trend) = (window.iter().map(of).max().unwrap(), trend(window, of));
        let rises = rise.is_some_and(|rise| trend > rise);
        let exceeds = most.is_some_and(|most| max > most);
        let allowed = match (rise, most) {
            (Some(rise), _) => format!("+{rise:.0}"),
            (None, Some(most)) => format!("max {most}"),
            (None, None) => String::new(),
        };
        let said = if rises || exceeds { "NOT FLAT" } else { "flat" };
        let label = if unit.is_empty() { name.to_owned() } else { format!("{name} {unit}") };
        writeln!(
            table,
            "{label:<24}{:>8}{:>8}{max:>8}{trend:>+12.1}{allowed:>12}  {said}",
            of(first),
            of(last)
        )
        .unwrap();
        if rises || exceeds {
            wrong.push(format!("{name}: trend {trend:+.1} {unit}, max {max}, allowed {allowed} / {most:?}"));
        }
    }
    let log_rate = (last.log_kib - first.log_kib) as f64 / minutes.max(0.01);
    writeln!(table, "log: {log_rate:.0} KiB/min (allowed {LOG_KIB_PER_MINUTE:.0})").unwrap();
    writeln!(
        table,
        "stays in the file: {reports} reports of at most {REPORT_KIB} KiB, {sales} sales of at most {SALE_KIB} KiB; \
         it grew by {} KiB",
        last.db_kib.saturating_sub(first.db_kib)
    )
    .unwrap();
    if log_rate > LOG_KIB_PER_MINUTE {
        wrong.push(format!("log: {log_rate:.0} KiB/min"));
    }
    (table, wrong)
}

/// Fewer than four fifths of what was planned is no soak.
pub fn too_few(what: &str, did: u64, planned: f64) -> Option<String> {
    (did as f64 + 1.0 < planned * 0.8).then(|| format!("{what}: {did} of {planned:.0} planned"))
}

/// Half an hour: warming up, then noise of a megabyte.
#[cfg(test)]
fn half_an_hour(change: impl Fn(u64, &mut Sample)) -> Vec<String> {
    let samples: Vec<Sample> = (0..90_u64)
        .map(|n| {
            let mut sample = Sample {
                at: Duration::from_secs(20 * n),
                rss_kib: 20_000 + 500 * n.min(20) + (n * 7919) % 1024,
                handles: 40 + n % 3,
                rows: 100 + (n * 7919) % 64,
                ..Sample::default()
            };
            change(n, &mut sample);
            sample
        })
        .collect();
    verdict(&samples).1
}

/// The judge must be able to say no: a steady leak among noise is seen, noise is not.
#[test]
fn a_leak_is_told_from_noise() {
    assert_eq!(half_an_hour(|_, _| {}), Vec::<String>::new());
    assert_eq!(half_an_hour(|n, s| s.rss_kib += 50 * n).len(), 1, "150 KiB a minute");
    assert_eq!(half_an_hour(|n, s| s.rows += 3 * n).len(), 1, "a log that is not trimmed");
    assert_eq!(half_an_hour(|n, s| s.telemetry_rows += n).len(), 1, "telemetry that stays");
}

/// A file may grow by what has to stay, and by nothing else.
#[test]
fn a_file_grows_by_what_is_kept() {
    let grows = |n: u64, s: &mut Sample| s.db_kib = 1_000 + 20 * n;
    assert_eq!(half_an_hour(grows).len(), 1, "60 KiB a minute for nothing");
    let sells = |n: u64, s: &mut Sample| {
        grows(n, s);
        s.sales = 7 * n;
    };
    assert_eq!(half_an_hour(sells), Vec::<String>::new(), "2.9 KiB a sale");
    let grows_more = |n: u64, s: &mut Sample| {
        sells(n, s);
        s.db_kib += 20 * n;
    };
    assert_eq!(half_an_hour(grows_more).len(), 1, "5.7 KiB a sale");
}

#[test]
fn a_load_that_does_not_come_is_no_soak() {
    assert_eq!(too_few("cards", 1_440, 1_800.0), None);
    assert!(too_few("cards", 1, 1_800.0).is_some() && too_few("cards", 1_400, 1_800.0).is_some());
}
