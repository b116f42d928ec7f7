//! Events published and acknowledged, by class, for `/metrics`. The counters are
//! looked up once: they rise with every event.

use metrics::{Counter, counter};

use crate::event::Class;

struct ByClass([Counter; Class::ALL.len()]);

impl ByClass {
    fn new(name: &'static str) -> Self {
        Self(Class::ALL.map(|class| counter!(name, "class" => class.as_str())))
    }

    fn add(&self, class: Class, events: u64) {
        if let Some((_, counter)) = Class::ALL.iter().zip(&self.0).find(|(of, _)| **of == class) {
            counter.increment(events);
        }
    }
}

pub(super) struct Tally {
    published: ByClass,
    acked: ByClass,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            published: ByClass::new("baygate_uplink_published_total"),
            acked: ByClass::new("baygate_uplink_acked_total"),
        }
    }

    pub(super) fn published(&self, class: Class) {
        self.published.add(class, 1);
    }

    pub(super) fn acked(&self, class: Class, events: u64) {
        self.acked.add(class, events);
    }
}
