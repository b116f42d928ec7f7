//! What host and machine say to each other: a plan in, words out, JSON both.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// One event as it was seen somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    pub epoch: String,
    pub sequence: u64,
    pub class: String,
    pub class_sequence: u64,
    pub id: String,
    /// Of the whole envelope; not where it was seen after it had been parsed.
    pub sha256: Option<String>,
}

impl Fact {
    /// From a CloudEvent's text.
    pub fn of(envelope: &str) -> Self {
        let mut fact = Self::of_json(&serde_json::from_str(envelope).unwrap());
        fact.sha256 = Some(hex::encode(Sha256::digest(envelope)));
        fact
    }

    pub fn of_json(envelope: &Value) -> Self {
        let text =
            |key: &str| envelope[key].as_str().unwrap_or_else(|| panic!("{key}: {envelope}")).to_owned();
        Self {
            epoch: text("epoch"),
            sequence: text("sequence").parse().unwrap(),
            class: text("class"),
            class_sequence: text("classsequence").parse().unwrap(),
            id: text("id"),
            sha256: None,
        }
    }

    /// Whether both are the same fact, down to the last byte where both know it.
    pub fn is(&self, other: &Self) -> bool {
        let place =
            |fact: &Self| (fact.epoch.clone(), fact.sequence, fact.class.clone(), fact.class_sequence);
        let bytes = self.sha256.is_none() || other.sha256.is_none() || self.sha256 == other.sha256;
        place(self) == place(other) && self.id == other.id && bytes
    }
}

/// A print job and the key under which a caller asked for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Job {
    pub key: String,
    pub job: String,
}

/// One line of the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    // What a caller was told while the load ran.
    Event(Fact),
    Job(Job),
    /// A deed on a member's card; its `job` is the answer's digest.
    Sale(Job),
    Token(String),
    /// Asked for, not answered yet: from here on it may be good or not.
    Revoking(String),
    Revoked(String),
    // What was found after the cut.
    Logged(Fact),
    /// The whole log was given.
    LogEnds,
    /// `baygate buffer verify`: sound or not, and what it said.
    Verified(bool, String),
    /// A key and the job it stands for now.
    Again(Job),
    SaleAgain(Job),
    LiveTokens(Vec<String>),
    /// Not as it should be, whatever it is.
    Wrong(String),
    // What happens.
    Starting,
    Ready,
    /// Everything was looked at; from here on there is load.
    Checked,
    Delivered,
    /// After SIGTERM: exit status and milliseconds.
    Stopped(Option<i32>, u64),
}

/// What the machine is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The daemon under test.
    pub program: PathBuf,
    pub broker_port: u16,
    pub seed: u64,
    /// Looks into the database before the daemon starts, else while it runs.
    pub look_first: bool,
    /// The position of a till's event stream.
    pub after: Option<String>,
    /// What was promised, youngest first.
    pub jobs: Vec<Job>,
    /// The same of sales.
    pub sales: Vec<Job>,
    /// Load until the power is cut; else everything is delivered and the daemon stopped.
    pub load: bool,
}
