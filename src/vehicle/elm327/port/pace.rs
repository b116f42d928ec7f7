//! What a line and an adapter's patience cost, as seen in the exchanges themselves. What lives
//! here: whether it is quicker to type a line with care, so that its digit ends the adapter's wait,
//! or to let it wait. What does not: which lines need care whatever they cost (the gate).

use std::time::Duration;

/// What exchanges showed so far.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Until a typed text was back, at the quickest.
    echo: Option<Duration>,
    /// From the last line of data to the prompt, when that was last waited out.
    patience: Option<Duration>,
}

impl Pace {
    pub(super) fn echoed(&mut self, after: Duration) {
        self.echo = Some(self.echo.map_or(after, |quickest| quickest.min(after)));
    }

    pub(super) fn waited_out(&mut self, patience: Duration) {
        self.patience = Some(patience);
    }

    /// Whether the way there and back of an echo is shorter than the wait it saves: `told`, or as it was
    /// seen. Unknown: it is, as on a cable.
    pub(super) fn typing_pays(&self, told: Option<Duration>) -> bool {
        match (self.echo, told.or(self.patience)) {
            (Some(echo), Some(patience)) => echo < patience,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_pays_where_the_line_is_quicker_than_the_wait() {
        let mut pace = Pace::default();
        assert!(pace.typing_pays(None), "nothing is known");
        pace.waited_out(Duration::from_millis(20));
        assert!(pace.typing_pays(None));
        pace.echoed(Duration::from_millis(51));
        assert!(!pace.typing_pays(None), "a radio link, a quick car");
        assert!(pace.typing_pays(Some(Duration::from_millis(512))), "one that is told to wait");
        // One echo was late; the line is a cable.
        pace.echoed(Duration::from_millis(1));
        pace.echoed(Duration::from_millis(300));
        assert!(pace.typing_pays(None));
        pace.waited_out(Duration::ZERO);
        assert!(!pace.typing_pays(None));
    }
}
