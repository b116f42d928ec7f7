//! The topics of contract §4, built and read back. Nothing here knows MQTT.

use std::sync::Arc;

use crate::event::{Class, Source};

/// All topics of one gateway.
#[derive(Debug, Clone)]
pub struct Topics {
    base: String,
    all: String,
}

/// What an incoming topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'t> {
    /// Our own retained `state`.
    State,
    /// Headquarters' word on what it has.
    Ack,
    /// A command, by name.
    Command(&'t str),
    /// The list of stopped cards that headquarters wants here.
    DesiredHotlist,
    /// Nothing we asked for.
    Unknown,
}

impl Topics {
    /// Under `root/STORE/GATEWAY`.
    #[must_use]
    pub fn new(root: &str, source: &Source) -> Self {
        Self {
            base: format!("{root}/{}/{}", source.store, source.gateway),
            all: format!("{root}/{}/all/command/", source.store),
        }
    }

    /// Where an event goes. `kind` is its type without `baygate.`.
    #[must_use]
    pub fn event(&self, class: Class, kind: &str) -> Arc<str> {
        format!("{}/event/{class}/{kind}", self.base).into()
    }

    /// Our retained `state`.
    #[must_use]
    pub fn state(&self) -> String {
        format!("{}/state", self.base)
    }

    /// What we subscribe to.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<String> {
        vec![
            self.state(),
            format!("{}/ack", self.base),
            format!("{}/command/+", self.base),
            format!("{}/desired/hotlist", self.base),
            format!("{}+", self.all),
        ]
    }

    /// What came in.
    #[must_use]
    pub fn heard<'t>(&self, topic: &'t str) -> Heard<'t> {
        if let Some(name) = topic.strip_prefix(&self.all) {
            return command(name);
        }
        let own = topic.strip_prefix(&self.base).and_then(|rest| rest.strip_prefix('/'));
        match own {
            Some("state") => Heard::State,
            Some("ack") => Heard::Ack,
            Some("desired/hotlist") => Heard::DesiredHotlist,
            Some(rest) => rest.strip_prefix("command/").map_or(Heard::Unknown, command),
            None => Heard::Unknown,
        }
    }
}

fn command(name: &str) -> Heard<'_> {
    if name.is_empty() || name.len() > 64 || name.contains('/') {
        Heard::Unknown
    } else {
        Heard::Command(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_read_back() {
        let source = Source { store: "SH-1".parse().unwrap(), gateway: "gw".parse().unwrap() };
        let topics = Topics::new("baygate/v1", &source);
        assert_eq!(&*topics.event(Class::Card, "card.tapped"), "baygate/v1/SH-1/gw/event/card/card.tapped");
        for (topic, expected) in [
            ("baygate/v1/SH-1/gw/state", Heard::State),
            ("baygate/v1/SH-1/gw/ack", Heard::Ack),
            ("baygate/v1/SH-1/gw/command/ping", Heard::Command("ping")),
            ("baygate/v1/SH-1/all/command/ping", Heard::Command("ping")),
            ("baygate/v1/SH-1/gw/command/a/b", Heard::Unknown),
            ("baygate/v1/SH-1/gw/desired/hotlist", Heard::DesiredHotlist),
            ("baygate/v1/SH-1/gw/desired/other", Heard::Unknown),
            ("baygate/v1/SH-1/gw2/ack", Heard::Unknown),
            ("baygate/v1/SH-1/all/command/", Heard::Unknown),
            ("", Heard::Unknown),
        ] {
            assert_eq!(topics.heard(topic), expected, "{topic}");
        }
    }
}
