//! What `watch` has seen since it began: the last value of each signal, its
//! extremes and mean, and how many values come a second. Pure: time is given.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::report::table::padded;
use crate::cli::report::{figure, rounded, unit_for_people};
use crate::config::values::Locale;
use crate::event::vehicle::{PidValue, SignalWindow};

/// Signals kept; a car has fewer.
const MOST_ROWS: usize = 512;
/// The rate is that of so long.
const RATE_OVER: Duration = Duration::from_secs(5);
/// Columns of a signal's name, and of each figure.
const NAME: usize = 36;
const FIGURE: usize = 12;

/// The board.
#[derive(Debug, Clone)]
pub struct Board {
    rows: BTreeMap<Key, Row>,
    begun: Instant,
    recent: VecDeque<(Instant, u64)>,
    total: u64,
}

/// Whose signal: control unit (empty where it is not told), PID, name.
type Key = (String, String, String);

#[derive(Debug, Clone)]
struct Row {
    last: Value,
    unit: String,
    /// Of numbers alone.
    numbers: Option<Numbers>,
}

#[derive(Debug, Clone, Copy)]
struct Numbers {
    min: f64,
    max: f64,
    sum: f64,
    count: u64,
}

impl Board {
    /// An empty one.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { rows: BTreeMap::new(), begun: now, recent: VecDeque::new(), total: 0 }
    }

    /// Takes one round of values.
    pub fn take(&mut self, round: &[(String, PidValue)], now: Instant) {
        for (ecu, value) in round {
            let number = value.value.as_f64().map(|n| Numbers { min: n, max: n, sum: n, count: 1 });
            let key = (ecu.clone(), value.pid.clone(), value.name.clone());
            self.put(key, value.value.clone(), &value.unit, number);
        }
        self.count(round.len() as u64, now);
    }

    /// Takes what the daemon sampled over a window.
    #[allow(clippy::cast_precision_loss)] // counts of samples
    pub fn take_window(&mut self, signals: &[SignalWindow], now: Instant) {
        for signal in signals {
            let (min, max, count) = (signal.min, signal.max, signal.count);
            let numbers = Numbers { min, max, sum: signal.mean * count as f64, count };
            let key = (String::new(), String::new(), signal.name.clone());
            self.put(key, Value::from(signal.last), &signal.unit, Some(numbers));
        }
        self.count(signals.iter().map(|signal| signal.count).sum(), now);
    }

    fn put(&mut self, key: Key, last: Value, unit: &str, numbers: Option<Numbers>) {
        if self.rows.len() >= MOST_ROWS && !self.rows.contains_key(&key) {
            return;
        }
        let row = self.rows.entry(key).or_insert_with(|| Row {
            last: Value::Null,
            unit: unit.to_owned(),
            numbers: None,
        });
        row.last = last;
        row.numbers = match (row.numbers, numbers) {
            (Some(old), Some(new)) => Some(Numbers {
                min: old.min.min(new.min),
                max: old.max.max(new.max),
                sum: old.sum + new.sum,
                count: old.count + new.count,
            }),
            (old, new) => old.or(new),
        };
    }

    fn count(&mut self, values: u64, now: Instant) {
        self.total += values;
        self.recent.push_back((now, values));
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RATE_OVER) {
            self.recent.pop_front();
        }
    }

    /// Values a second, of the last seconds.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // some thousands
    pub fn rate(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.begun).min(RATE_OVER).as_secs_f64();
        let fresh = |at: Instant| now.saturating_duration_since(at) <= RATE_OVER;
        let values: u64 = self.recent.iter().filter(|(at, _)| fresh(*at)).map(|(_, values)| values).sum();
        if since > 0.0 { values as f64 / since } else { 0.0 }
    }

    /// The board as lines, of which at most `height` fit; `waiting` until there is a value. `name`
    /// gives a PID's signal its name for people.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // counts of samples
    pub fn lines(
        &self,
        (title, waiting): (&str, &str),
        name: &dyn Fn(&str, &str) -> String,
        locale: Locale,
        now: Instant,
        height: usize,
    ) -> Vec<String> {
        let seconds = now.saturating_duration_since(self.begun).as_secs();
        let head = format!(
            "{title}  {:02}:{:02}:{:02}  {} {:.1} {}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            locale.pick("数值", "values"),
            self.rate(now),
            locale.pick("个/秒", "per second"),
        );
        if self.rows.is_empty() {
            return vec![head, String::new(), waiting.to_owned()];
        }
        let columns = [
            locale.pick("当前", "now"),
            locale.pick("最小", "min"),
            locale.pick("最大", "max"),
            locale.pick("平均", "mean"),
        ];
        let columns: String = columns.map(|text| padded(text, FIGURE)).concat();
        let signal = padded(locale.pick("信号", "signal"), NAME);
        let mut lines = vec![head, String::new(), format!("{}{signal}{columns}", " ".repeat(13))];
        let room = height.saturating_sub(lines.len() + 1);
        for ((ecu, pid, signal), row) in self.rows.iter().take(room) {
            let unit = unit_for_people(&row.unit);
            let figures = match row.numbers {
                Some(n) => [n.min, n.max, n.sum / n.count.max(1) as f64]
                    .map(|n| padded(&rounded(n), FIGURE))
                    .concat(),
                None => String::new(),
            };
            let last = padded(&figure(&row.last), FIGURE);
            let name = padded(&cut(&name(pid, signal), NAME - 1), NAME);
            lines.push(format!("{}{}{name}{last}{figures}{unit}", padded(ecu, 8), padded(pid, 5)));
        }
        if self.rows.len() > room {
            let more = self.rows.len() - room;
            lines.push(format!("… {more} {}", locale.pick("项未显示", "more")));
        }
        lines
    }
}

/// As much of a text as fits into so many terminal columns.
#[must_use]
pub fn cut(text: &str, columns: usize) -> String {
    use unicode_width::UnicodeWidthChar;
    let mut left = columns;
    let fits = text.chars().take_while(|c| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    });
    fits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(name: &str, value: Value) -> (String, PidValue) {
        let pid = PidValue { pid: "010C".into(), name: name.into(), value, unit: "rpm".into() };
        ("7E8".into(), pid)
    }

    #[test]
    fn extremes_mean_and_rate() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let mut board = Board::new(begun);
        for (n, rpm) in [800.0, 1000.0, 900.0, 820.0].into_iter().enumerate() {
            let round = [value("engine_speed", json!(rpm)), value("fuel_status", json!("closed-loop"))];
            board.take(&round, at(250 * n as u64 + 250));
        }
        assert!((board.rate(at(1000)) - 8.0).abs() < 1e-9, "{}", board.rate(at(1000)));
        let name = |_: &str, signal: &str| signal.to_owned();
        let lines = board.lines(("car", ""), &name, Locale::En, at(1000), 40);
        let row = lines.iter().find(|line| line.contains("engine_speed")).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["7E8", "010C", "engine_speed", "820", "800", "1000", "880", "rpm"]);
        let row = lines.iter().find(|line| line.contains("fuel_status")).unwrap();
        assert!(row.contains("closed-loop"), "{row}");
        // A silence of five seconds is a rate of nothing.
        assert_eq!(board.rate(at(7000)), 0.0);
        assert_eq!(board.lines(("car", ""), &name, Locale::En, at(1000), 5).len(), 5, "fits the terminal");
    }

    #[test]
    fn windows_of_the_daemon_add_up() {
        let begun = Instant::now();
        let mut board = Board::new(begun);
        let window = |min, max, mean, last, count| SignalWindow {
            name: "engine_speed".into(),
            unit: "rpm".into(),
            min,
            max,
            mean,
            last,
            count,
        };
        board.take_window(&[window(800.0, 1000.0, 900.0, 950.0, 10)], begun + Duration::from_secs(1));
        board.take_window(&[window(700.0, 900.0, 800.0, 850.0, 30)], begun + Duration::from_secs(2));
        let name = |_: &str, signal: &str| signal.to_owned();
        let lines = board.lines(("bay-1", ""), &name, Locale::En, begun + Duration::from_secs(2), 40);
        let words: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(words, ["engine_speed", "850", "700", "1000", "825", "rpm"]);
    }

    #[test]
    fn wide_characters_are_cut_whole() {
        assert_eq!(cut("发动机转速", 5), "发动");
        assert_eq!(cut("rpm", 5), "rpm");
    }
}
