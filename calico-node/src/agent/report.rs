//! What the agent tells of itself: in its log once when it changes, over the local socket whenever it is asked.

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use calico_model::datastore::{Change, StoreError};
use calico_model::{NodeName, Update};

use crate::startup::VERSION;
use crate::status::{BgpStatus, NodeStatus};

use super::dataplane::with_causes;

pub(crate) struct Report {
    status: NodeStatus,
    trouble: Option<String>,
    problems: BTreeSet<String>,
    /// Those of them that the last pass found.
    found: BTreeSet<String>,
}

impl Report {
    pub(crate) fn new(node: &NodeName, datastore: String) -> Self {
        let status = NodeStatus {
            node: node.to_string(),
            pid: std::process::id(),
            version: VERSION.to_owned(),
            started: seconds(),
            datastore,
            in_sync: false,
            programmed: false,
            kernel_overruns: 0,
            problems: Vec::new(),
            bgp: None,
        };
        Self { status, trouble: None, problems: BTreeSet::new(), found: BTreeSet::new() }
    }

    pub(crate) fn status(&self) -> NodeStatus {
        let problems = self.trouble.iter().chain(&self.problems).cloned().collect();
        NodeStatus { problems, ..self.status.clone() }
    }

    /// Notes whether the datastore answers, and returns what it says of the resources, if that is what it says.
    pub(crate) fn heard(&mut self, change: Change) -> Option<Update> {
        match change {
            Change::Put(entry) => Update::from_entry(&entry),
            Change::Deleted(key) => Update::from_deletion(&key),
            Change::InSync => Some(Update::InSync),
            Change::Trouble(error) => {
                self.datastore_trouble(Some(&error));
                None
            }
            Change::Recovered => {
                self.datastore_trouble(None);
                None
            }
            _ => None,
        }
    }

    fn datastore_trouble(&mut self, error: Option<&StoreError>) {
        let trouble = error.map(|error| with_causes(error));
        match (&self.trouble, &trouble) {
            (before, Some(now)) if before.as_ref() != Some(now) => tracing::warn!("{now}; trying again"),
            (Some(_), None) => tracing::info!("the datastore answers again"),
            _ => {}
        }
        self.trouble = trouble;
    }

    /// Notes how a pass went.
    pub(crate) fn passed(&mut self, problems: BTreeSet<String>, in_sync: bool, programmed: bool) {
        // What is wrong besides stays as it was told last.
        let besides = self.problems.difference(&self.found).cloned().collect();
        self.found = problems;
        self.set_problems(besides);
        self.status.in_sync = in_sync;
        if programmed && !self.status.programmed {
            tracing::info!("the node is programmed");
        }
        self.status.programmed = programmed;
    }

    /// Notes what is wrong besides what passes find. Each problem is logged when it comes and when it goes, not every time it
    /// is found.
    pub(crate) fn set_problems(&mut self, besides: BTreeSet<String>) {
        let problems = &self.found | &besides;
        for new in problems.difference(&self.problems) {
            tracing::warn!("{new}");
        }
        for gone in self.problems.difference(&problems) {
            tracing::info!("no longer so: {gone}");
        }
        self.problems = problems;
    }

    pub(crate) fn set_kernel_overruns(&mut self, overruns: u64) {
        self.status.kernel_overruns = overruns;
    }

    pub(crate) fn set_bgp(&mut self, bgp: Option<BgpStatus>) {
        self.status.bgp = bgp;
    }
}

/// The time of day, in seconds since 1970.
pub(crate) fn seconds() -> u64 {
    crate::clock::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
