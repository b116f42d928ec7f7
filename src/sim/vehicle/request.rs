//! A request to the car through the adapter: finding the protocol, framing, flow
//! control, collecting answers until the wait is over, and the faults on the way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::adapter::Multi;
use super::car::{Car, Frame};
use super::elm::{Elm, Reaction, Step};
use super::fault::Fault;
use super::settings::is_wide;

/// Silence that is over only when the host sends a byte.
const NEVER: Duration = Duration::from_secs(3600);
/// Least wait after the last answer with adaptive timing.
const LEAST_WAIT: Duration = Duration::from_millis(10);
/// Least wait before `NO DATA`.
const LEAST_PATIENCE: Duration = Duration::from_millis(40);

/// Lines and when they are printed, counted from the request.
type Timeline = Vec<(Duration, String)>;

impl Elm {
    /// Carries out a line of hex digits.
    pub(super) fn request(&mut self, text: &str, car: Option<&mut Car>) -> Reaction {
        let odd = text.len() % 2 == 1;
        let (digits, count) = match text.split_at_checked(text.len().saturating_sub(1)) {
            Some((digits, count)) if odd => (digits, count.parse().ok()),
            _ => (text, None),
        };
        if odd && self.adapter.refuses_count {
            return self.refuse();
        }
        let count = count.filter(|_| self.adapter.count_digit);
        let Ok(mut bytes) = hex::decode(digits) else { return self.refuse() };
        let most = if self.settings.style.formatting { 7 } else { 8 };
        if bytes.is_empty() || bytes.len() > most {
            return self.refuse();
        }
        bytes.truncate(self.adapter.request_bytes.max(1));
        // Parameters of one byte behind 01, of two behind 22.
        let one = match bytes.first() {
            Some(0x01) => 2,
            Some(0x22) => 3,
            _ => bytes.len(),
        };
        if bytes.len() > one {
            match self.adapter.multi {
                Multi::Whole => {}
                Multi::First => bytes.truncate(one),
                Multi::Error => return self.refuse(),
                Multi::Half => self.faults.push_front(Fault::HalfThenSilence),
                Multi::Hang => {
                    self.dead = true;
                    return Reaction::default();
                }
                Multi::Restart => {
                    let banner = Step { after: Duration::from_millis(30), bytes: self.brown_out() };
                    return Reaction { steps: VecDeque::from([banner]), stoppable: false };
                }
            }
        }
        self.requests += 1;
        if self.requests <= self.adapter.not_connected_first {
            return Reaction { steps: self.ending("NOT CONNECTED"), stoppable: true };
        }
        if self.adapter.forgets_after > 0 && self.requests > self.adapter.forgets_after {
            self.forget();
        }
        let fault = self.faults.pop_front();
        self.ask(&bytes, count, fault, car)
    }

    fn ask(
        &mut self,
        bytes: &[u8],
        count: Option<usize>,
        fault: Option<Fault>,
        car: Option<&mut Car>,
    ) -> Reaction {
        let search = self.connected.is_none() && self.settings.automatic;
        let mut steps = VecDeque::new();
        if search {
            steps.push_back(Step {
                after: Duration::ZERO,
                bytes: format!("SEARCHING...{}", self.end()).into(),
            });
        }
        if let Some(Fault::Say(text)) = &fault {
            if text.starts_with("LV RESET") || text.starts_with("ERR94") {
                self.forget();
            }
            steps.extend(self.ending(text));
            return Reaction { steps, stoppable: true };
        }
        let car = car.filter(|car| car.awake());
        let latency = car.as_ref().map_or(Duration::from_millis(5), |car| car.latency());
        let outcome = match car {
            None => Err(self.without_car(search)),
            Some(car) => self.exchange(bytes, search, &fault, car),
        };
        match outcome {
            Err(text) => {
                let after = self.patience(latency) * if search { 3 } else { 1 };
                steps.extend(self.prompted(Step { after, bytes: self.closing(text) }));
            }
            Ok(timeline) => {
                if let Some(line) = &self.adapter.says_first {
                    steps.push_back(Step {
                        after: Duration::ZERO,
                        bytes: format!("{line}{}", self.end()).into(),
                    });
                }
                let lines = self.print(timeline, count, latency);
                steps.extend(self.spoil(lines, fault));
            }
        }
        if self.dead {
            // The clone froze in the middle: nothing more, not even for a byte.
            return Reaction { steps, stoppable: false };
        }
        Reaction { steps, stoppable: true }
    }

    fn ending(&self, text: &str) -> VecDeque<Step> {
        self.prompted(Step { after: Duration::from_millis(2), bytes: self.closing(text) }).into()
    }

    /// What the chip says when nobody is on the bus.
    fn without_car(&self, search: bool) -> &'static str {
        match self.connected.unwrap_or(self.settings.protocol) {
            _ if search => "UNABLE TO CONNECT",
            3..=5 => "BUS INIT: ...ERROR",
            1 | 2 => "NO DATA",
            // Nobody acknowledges the frame.
            _ => "CAN ERROR",
        }
    }

    /// Sends the request and collects every printable line.
    fn exchange(
        &mut self,
        bytes: &[u8],
        search: bool,
        fault: &Option<Fault>,
        car: &mut Car,
    ) -> Result<Timeline, &'static str> {
        if let Some(Fault::Pending(times)) = fault {
            car.postpone(*times);
        }
        let theirs = car.protocol();
        let ours = if search { theirs } else { self.connected.unwrap_or(self.settings.protocol) };
        match (ours, theirs) {
            _ if ours == theirs => {}
            // The same bit rate: frames are acknowledged but mean nothing.
            (6, 7) | (7, 6) | (8, 9) | (9, 8) => return Err("NO DATA"),
            _ => return Err(self.without_car(false)),
        }
        let timeline =
            if ours >= 6 { self.on_can(bytes, ours, car) } else { self.on_line(bytes, ours, search, car) };
        if timeline.is_empty() || *fault == Some(Fault::DropReply) {
            return Err(if search { "UNABLE TO CONNECT" } else { "NO DATA" });
        }
        self.connected = Some(ours);
        Ok(timeline)
    }

    fn on_can(&mut self, bytes: &[u8], protocol: u8, car: &mut Car) -> Timeline {
        let mut data = bytes.to_vec();
        if self.settings.style.formatting {
            data.insert(0, u8::try_from(bytes.len()).unwrap_or(7));
        }
        data.resize(8, 0);
        let extended = is_wide(protocol);
        let sent = Frame { id: self.settings.request_id(protocol), extended, data };
        let now = Instant::now();
        let earlier = std::mem::take(&mut self.late).into_iter();
        let earlier = earlier.filter_map(|(due, frame)| Some((due.checked_duration_since(now)?, frame)));
        let mut coming: VecDeque<(Duration, Frame)> = earlier.chain(car.on_frame(&sent)).collect();
        coming.make_contiguous().sort_by_key(|(at, _)| *at);
        let mut timeline = Timeline::new();
        while let Some((at, frame)) = coming.pop_front() {
            // Behind so long a silence nobody listens: a real chip's last word is its prompt.
            if timeline.last().is_some_and(|(last, _)| at > *last + self.longest_wait()) {
                self.late.push((now + at, frame));
                continue;
            }
            if !self.settings.shows(&frame) {
                continue;
            }
            timeline.extend(self.settings.style.can(&frame).into_iter().map(|line| (at, line)));
            let is_first = frame.data.first().is_some_and(|pci| pci >> 4 == 1);
            if let Some(control) =
                Some(&frame).filter(|_| is_first).and_then(|f| self.settings.flow_control(f, &self.adapter))
            {
                coming.extend(car.on_frame(&control).into_iter().map(|(gap, frame)| (at + gap, frame)));
                coming.make_contiguous().sort_by_key(|(at, _)| *at);
            }
        }
        timeline
    }

    fn on_line(&mut self, bytes: &[u8], protocol: u8, search: bool, car: &mut Car) -> Timeline {
        let mut timeline = Timeline::new();
        let fresh = self.connected.is_none();
        for (at, message) in car.on_line(bytes) {
            if fresh && !search && timeline.is_empty() && protocol >= 3 {
                timeline.push((at, "BUS INIT: ...OK".into()));
            }
            timeline.push((at, self.settings.style.line(&message)));
        }
        timeline
    }

    /// Lines become steps; the wait ends early when `count` lines came.
    fn print(&mut self, timeline: Timeline, count: Option<usize>, latency: Duration) -> Vec<Step> {
        let end = self.end();
        let mut steps = Vec::new();
        let mut clock = Duration::ZERO;
        let wanted = count.filter(|count| *count > 0).unwrap_or(usize::MAX);
        let total = timeline.len();
        if !self.settings.responses {
            return vec![Step { after: LEAST_WAIT, bytes: format!("{end}>").into() }];
        }
        for (at, line) in timeline.into_iter().take(wanted) {
            steps.push(Step { after: at.saturating_sub(clock), bytes: format!("{line}{end}").into() });
            clock = at.max(clock);
            if self.adapter.freeze_after_frames == Some(steps.len()) && steps.len() < total {
                self.dead = true;
                return steps;
            }
            if self.adapter.brown_out_after_frames == Some(steps.len()) && steps.len() < total {
                let bytes = self.brown_out();
                steps.push(Step { after: Duration::from_millis(30), bytes });
                return steps;
            }
        }
        let wait = if steps.len() >= wanted { Duration::ZERO } else { self.quiet(latency) };
        steps.extend(self.prompted(Step { after: wait, bytes: format!("{end}>").into() }));
        steps
    }

    /// `ATST` in 4 ms steps (datasheet).
    fn longest_wait(&self) -> Duration {
        Duration::from_millis(u64::from(self.settings.timeout) * 4)
    }

    /// Wait for more answers after the last one.
    fn quiet(&self, latency: Duration) -> Duration {
        let usual = match self.settings.adaptive {
            0 => return self.longest_wait(),
            1 => latency * 2 + LEAST_WAIT,
            _ => latency + LEAST_WAIT,
        };
        (usual * self.adapter.quiet_percent / 100).min(self.longest_wait())
    }

    /// Wait before giving up. Shorter than a real chip's when the car is set to answer fast.
    fn patience(&self, latency: Duration) -> Duration {
        (latency * 4).max(LEAST_PATIENCE).min(self.longest_wait())
    }

    /// Applies what the script wants to go wrong.
    fn spoil(&mut self, mut steps: Vec<Step>, fault: Option<Fault>) -> Vec<Step> {
        self.answered = self.answered.wrapping_add(1);
        let periodic = self.garble_every > 0 && self.answered.is_multiple_of(self.garble_every);
        if (periodic || fault == Some(Fault::Garble))
            && let Some(byte) = steps.first_mut().and_then(|step| step.bytes.get_mut(1))
        {
            // Never a hex digit: a wrong digit would be a plausible lie no driver could see.
            *byte = b'*';
        }
        match fault {
            Some(Fault::Delay(delay)) => {
                if let Some(first) = steps.first_mut() {
                    first.after += delay;
                }
            }
            Some(Fault::HalfThenSilence) => {
                let whole: Vec<u8> = steps.iter().flat_map(|step| step.bytes.clone()).collect();
                let after = steps.first().map_or(Duration::ZERO, |step| step.after);
                let half = whole.get(..whole.len() / 2).unwrap_or_default().to_vec();
                steps = vec![Step { after, bytes: half }, Step { after: NEVER, bytes: Vec::new() }];
            }
            Some(Fault::Nulls) => nulls(&mut steps),
            _ if self.adapter.nulls => nulls(&mut steps),
            _ => {}
        }
        steps
    }
}

fn nulls(steps: &mut [Step]) {
    for step in steps {
        step.bytes = step.bytes.iter().flat_map(|byte| [0, *byte]).collect();
    }
}
