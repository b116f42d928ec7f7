//! What the machine shows of itself.

use super::{Flow, Lane, Session};
use crate::event::Class;
use crate::store::outbox::ClassCursor;

impl<P: Clone> Session<P> {
    /// What is in flight, while connected.
    #[must_use]
    pub fn flow(&self) -> Option<&Flow> {
        self.flow.as_ref()
    }

    /// Classes that are refused now, with their reason codes.
    #[must_use]
    pub fn refused(&self) -> Vec<(Class, u8)> {
        self.lanes.iter().filter_map(|lane| lane.refused.map(|code| (lane.class, code))).collect()
    }

    /// Events at which the broker hangs up, the first of each class, with their sizes.
    #[must_use]
    pub fn hangs_up_at(&self) -> Vec<(Class, u64)> {
        self.lanes.iter().filter_map(|lane| Some((lane.class, lane.hangs_up_at()?))).collect()
    }

    /// Nothing is under way or waits to be sent.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lanes
            .iter()
            .all(|lane| !lane.more && lane.fetching.is_none() && lane.ready.is_empty() && !lane.has_flying())
    }

    /// How far a class is delivered.
    #[must_use]
    pub fn delivered(&self, class: Class) -> ClassCursor {
        self.lanes
            .iter()
            .find(|lane| lane.class == class)
            .map_or_else(Default::default, |lane| lane.delivered)
    }

    /// How far a class is with the broker, delivered or not.
    #[must_use]
    pub fn taken(&self, class: Class) -> ClassCursor {
        let lane = self.lanes.iter().find(|lane| lane.class == class);
        lane.map_or_else(Default::default, Lane::taken_to)
    }
}
