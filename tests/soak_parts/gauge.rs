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
    /// … and by how much more for each minute of them.
    pub a_minute: f64,
    /// What it may never exceed.
    pub most: Option<u64>,
}

/// The bounds. A trend is the slope of the least squares over the last two thirds, times
/// their length: noise and single peaks do not count, what grows steadily does.
pub const BOUNDS: [Bound; 6] = [
    Bound {
        name: "memory (RSS)",
        unit: "KiB",
        of: |s| s.rss_kib,
        rise: Some(2048.0),
        a_minute: 0.0,
        most: None,
    },
    Bound { name: "threads", unit: "", of: |s| s.threads, rise: Some(2.0), a_minute: 0.0, most: Some(64) },
    Bound {
        name: "open handles",
        unit: "",
        of: |s| s.handles,
        rise: Some(4.0),
        a_minute: 0.0,
        most: Some(256),
    },
    // Requests with an idempotency key stay for thirty days: a report every half minute.
    Bound {
        name: "database file",
        unit: "KiB",
        of: |s| s.db_kib,
        rise: Some(256.0),
        a_minute: 60.0,
        most: Some(64 << 10),
    },
    // It is cut back to 8 MiB after each reset; a reader in the way lets it grow for a moment.
    Bound { name: "WAL", unit: "KiB", of: |s| s.wal_kib, rise: None, a_minute: 0.0, most: Some(32 << 10) },
    Bound {
        name: "backlog",
        unit: "events",
        of: |s| s.backlog,
        rise: Some(200.0),
        a_minute: 0.0,
        most: None,
    },
];
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
    writeln!(table, "last two thirds: {} samples over {minutes:.1} min", window.len()).unwrap();
    writeln!(
        table,
        "{:<16}{:>10}{:>10}{:>10}{:>12}{:>12}  verdict",
        "", "first", "last", "max", "trend", "allowed"
    )
    .unwrap();
    for Bound { name, unit, of, rise, a_minute, most } in BOUNDS {
        let rise = rise.map(|rise| rise + a_minute * minutes);
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
    if log_rate > LOG_KIB_PER_MINUTE {
        wrong.push(format!("log: {log_rate:.0} KiB/min"));
    }
    (table, wrong)
}

/// The judge must be able to say no: a steady leak among noise is seen, noise is not.
#[test]
fn a_leak_is_told_from_noise() {
    let run = |leak_kib_per_sample: u64| -> Vec<Sample> {
        (0..90_u64)
            .map(|n| Sample {
                at: Duration::from_secs(n),
                // Warming up, then noise of a megabyte.
                rss_kib: 20_000 + 500 * n.min(20) + (n * 7919) % 1024 + leak_kib_per_sample * n,
                handles: 40 + n % 3,
                ..Sample::default()
            })
            .collect()
    };
    assert_eq!(verdict(&run(0)).1, Vec::<String>::new());
    assert_eq!(verdict(&run(50)).1.len(), 1, "50 KiB a second is 3 MiB a minute");
}
