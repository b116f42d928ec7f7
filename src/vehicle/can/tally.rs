//! What a bus suffered: counted for the metrics, judged for the link's state. No I/O.

use std::time::Duration;

use crate::link::can::BusTrouble;
use crate::vehicle::polling::Traffic;

/// So many frames of nonsense without one good frame: the bit rate is wrong.
const NONSENSE: u32 = 3;
/// So long the loss of frames is told.
const TOLD_FOR: Duration = Duration::from_secs(60);
/// A bus without a frame for so long sleeps.
const ASLEEP_AFTER: Duration = Duration::from_secs(5);

/// Frames between two looks (a second) that show a bus which talks by itself: an awake one has
/// hundreds, and late answers to us are some.
const TALKS: u64 = 20;

/// Counts of one bus.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    bus: String,
    /// Since the question began.
    frames: u32,
    nonsense: u32,
    unacknowledged: bool,
    dropped: u32,
    /// Lines of an adapter that were none, and how many of them since the question began.
    garbled: u64,
    garbled_in_question: u64,
    /// By the controller, before the kernel saw them.
    overrun: u32,
    /// Frames of CAN FD, and classic ones, of the car at hand.
    fd: u32,
    classic: u32,
    lost_at: Option<Duration>,
    last_frame: Option<Duration>,
    stirred: bool,
    /// When the bus last talked without being asked; `None`: not as long as this car is there.
    talked_at: Option<Duration>,
    /// A question to it was not answered, and it has not talked since.
    hushed: bool,
}

impl Tally {
    pub(super) fn new(bus: &str) -> Self {
        Self {
            bus: bus.to_owned(),
            frames: 0,
            nonsense: 0,
            unacknowledged: false,
            dropped: 0,
            garbled: 0,
            garbled_in_question: 0,
            overrun: 0,
            fd: 0,
            classic: 0,
            lost_at: None,
            last_frame: None,
            stirred: false,
            talked_at: None,
            hushed: false,
        }
    }

    pub(super) fn begin_question(&mut self) {
        (self.frames, self.nonsense, self.unacknowledged, self.garbled_in_question) = (0, 0, false, 0);
    }

    pub(super) fn frame(&mut self, now: Duration) {
        self.frames = self.frames.saturating_add(1);
        self.stir(now);
    }

    /// A frame was of CAN FD, or not.
    pub(super) fn form(&mut self, fd: bool) {
        let count = if fd { &mut self.fd } else { &mut self.classic };
        *count = count.saturating_add(1);
    }

    /// The next car may have another form.
    pub(super) fn forget_form(&mut self) {
        (self.fd, self.classic) = (0, 0);
    }

    /// There was talk, and not one classic frame among it.
    pub(super) fn talks_fd_only(&self) -> bool {
        self.fd > 0 && self.classic == 0
    }

    /// There is life on the bus.
    pub(super) fn stir(&mut self, now: Duration) {
        self.stirred |= self.last_frame.is_none_or(|last| now.saturating_sub(last) >= ASLEEP_AFTER);
        self.last_frame = Some(now);
    }

    /// So many frames came since the last look, to no question of ours.
    pub(super) fn unasked(&mut self, frames: u64, now: Duration) {
        if frames >= TALKS {
            (self.talked_at, self.hushed) = (Some(now), false);
        }
    }

    /// So long questions were asked, and nobody looked whether the bus talks.
    pub(super) fn busy_for(&mut self, time: Duration) {
        self.talked_at = self.talked_at.map(|last| last + time);
    }

    /// Nobody answered: a bus that does not go on talking sleeps, however lately it talked.
    pub(super) fn fell_silent(&mut self) {
        self.hushed = true;
    }

    /// A unit answered. Where the bus is otherwise quiet this is a car behind a gateway: its
    /// quiet says nothing, and the talk was another car's.
    pub(super) fn answered(&mut self, now: Duration) {
        if self.traffic(now) == Traffic::Quiet {
            self.talked_at = None;
        }
        self.hushed = false;
    }

    /// What listening tells of the car. Quiet only where there was talk before: behind a gateway
    /// nothing is ever heard, and such a car would never be noticed.
    pub(super) fn traffic(&self, now: Duration) -> Traffic {
        match self.talked_at {
            None => Traffic::Unheard,
            Some(last) if !self.hushed && now.saturating_sub(last) < ASLEEP_AFTER => Traffic::Alive,
            Some(_) => Traffic::Quiet,
        }
    }

    pub(super) fn trouble(&mut self, trouble: BusTrouble, now: Duration) {
        for (kind, is) in [
            ("bus-off", trouble.bus_off),
            ("restarted", trouble.restarted),
            ("nonsense", trouble.nonsense),
            ("unacknowledged", trouble.unacknowledged),
            ("passive", trouble.passive),
            ("overrun", trouble.overrun),
        ] {
            if is {
                metrics::counter!("baygate_vehicle_can_errors_total", "bus" => self.bus.clone(), "kind" => kind)
                    .increment(1);
            }
        }
        self.nonsense = self.nonsense.saturating_add(u32::from(trouble.nonsense));
        self.unacknowledged |= trouble.unacknowledged;
        if trouble.overrun {
            self.overrun = self.overrun.saturating_add(1);
            self.lost_at = Some(now);
        }
    }

    /// The kernel's count since the socket was opened.
    pub(super) fn dropped(&mut self, dropped: u32, now: Duration) {
        // After a withdrawal the socket is a new one, and counts from zero.
        let more = dropped.saturating_sub(self.dropped);
        self.dropped = dropped;
        if more > 0 {
            metrics::counter!("baygate_vehicle_can_dropped_total", "bus" => self.bus.clone())
                .increment(more.into());
            self.lost_at = Some(now);
        }
    }

    /// The adapter's count since it was opened.
    pub(super) fn garbled(&mut self, garbled: u64) {
        let more = garbled.saturating_sub(self.garbled);
        self.garbled = garbled;
        self.garbled_in_question += more;
        if more > 0 {
            metrics::counter!("baygate_vehicle_can_errors_total", "bus" => self.bus.clone(), "kind" => "garbled")
                .increment(more);
        }
    }

    pub(super) fn garbled_in_question(&self) -> u64 {
        self.garbled_in_question
    }

    pub(super) fn frames_in_question(&self) -> u32 {
        self.frames
    }

    /// The bit rate is wrong: errors, and not one frame.
    pub(super) fn is_nonsense(&self) -> bool {
        self.frames == 0 && self.nonsense >= NONSENSE
    }

    /// Errors at all, and not one frame: an adapter tells by one flag what the kernel tells by
    /// a frame each. Only while listening: an asking adapter sets the same flag when nobody
    /// acknowledges.
    pub(super) fn is_flagged(&self) -> bool {
        self.frames == 0 && self.nonsense > 0
    }

    pub(super) fn unacknowledged(&self) -> bool {
        self.unacknowledged
    }

    pub(super) fn stirred(&mut self) -> bool {
        std::mem::take(&mut self.stirred)
    }

    pub(super) fn limitation(&self, now: Duration) -> Option<(&'static str, String)> {
        self.lost_at.filter(|lost| now.saturating_sub(*lost) < TOLD_FOR)?;
        let Self { bus, dropped, overrun, .. } = self;
        Some((
            "frames-lost",
            format!(
                "{bus}: {dropped} frame(s) were dropped because this box did not read them in time, the controller lost some {overrun} time(s); raise net.core.rmem_max, or relieve the box"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_good_frame_proves_the_bit_rate() {
        let now = Duration::ZERO;
        let nonsense = BusTrouble { nonsense: true, ..BusTrouble::default() };
        let mut tally = Tally::new("can0");
        (0..NONSENSE).for_each(|_| tally.trouble(nonsense, now));
        assert!(tally.is_nonsense());
        tally.frame(now);
        assert!(!tally.is_nonsense());
    }

    #[test]
    fn one_classic_frame_keeps_requests_classic() {
        let mut tally = Tally::new("can0");
        assert!(!tally.talks_fd_only(), "a silent bus is asked as ever");
        tally.form(true);
        assert!(tally.talks_fd_only());
        tally.form(false);
        assert!(!tally.talks_fd_only());
        tally.forget_form();
        tally.form(true);
        assert!(tally.talks_fd_only(), "the car before was classic");
        tally.forget_form();
        assert!(!tally.talks_fd_only(), "and the next one may be");
    }

    #[test]
    fn lost_frames_are_told_for_a_minute() {
        let mut tally = Tally::new("can0");
        let second = Duration::from_secs;
        assert_eq!(tally.limitation(second(0)), None);
        tally.dropped(7, second(1));
        let (code, words) = tally.limitation(second(2)).unwrap();
        assert!(code == "frames-lost" && words.contains("7 frame(s)"), "{words}");
        tally.dropped(7, second(50));
        assert_eq!(tally.limitation(second(61)), None);
        tally.dropped(0, second(70));
        assert_eq!(tally.limitation(second(70)), None, "a new socket lost nothing");
        tally.dropped(1, second(80));
        assert!(tally.limitation(second(80)).is_some());
    }

    #[test]
    fn a_bus_stirs_once_after_silence() {
        let mut tally = Tally::new("can0");
        let second = Duration::from_secs;
        tally.frame(second(1));
        assert!(tally.stirred() && !tally.stirred());
        tally.frame(second(3));
        assert!(!tally.stirred());
        tally.frame(second(20));
        assert!(tally.stirred());
    }

    #[test]
    fn only_a_bus_that_talked_can_be_found_asleep() {
        let mut tally = Tally::new("can0");
        let second = Duration::from_secs;
        tally.unasked(TALKS - 1, second(1));
        assert_eq!(tally.traffic(second(1)), Traffic::Unheard, "late answers");
        tally.unasked(400, second(2));
        tally.unasked(0, second(3));
        assert_eq!(tally.traffic(second(3)), Traffic::Alive);
        tally.answered(second(3));
        assert_eq!(tally.traffic(second(7)), Traffic::Quiet);
        tally.unasked(400, second(10));
        tally.fell_silent();
        assert_eq!(tally.traffic(second(10)), Traffic::Quiet, "a question was not answered");
        tally.unasked(400, second(11));
        assert_eq!(tally.traffic(second(11)), Traffic::Alive, "but it goes on talking");
        // A scan, in which nobody looked.
        tally.busy_for(second(10));
        assert_eq!(tally.traffic(second(22)), Traffic::Alive);
        assert_eq!(tally.traffic(second(26)), Traffic::Quiet);
        // Somebody asks for a scan of the next car, whose gateway lets nothing else out.
        tally.answered(second(60));
        assert_eq!(tally.traffic(second(60)), Traffic::Unheard);
    }
}
