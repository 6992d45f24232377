//! The loop's memory: when to look at the kernel, what to hold back, and when to try again.
//!
//! A driver asks [`Reconciler::next`] what to do, does it, and reports back. Nothing here reads a clock or a kernel.
//!
//! ```text
//!   desired changed ──┐
//!   kernel changed  ──┼─▶ dirty ──(in sync, not too often)──▶ Pass ──▶ finished: clean, or dirty again after a back-off
//!   resync deadline ──┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_model::InterfaceName;

use crate::actual::Host;
use crate::change::Change;
use crate::diff::Plan;
use crate::ownership::Ownership;
use crate::route::{Form, RouteKey};
use crate::ways::Ways;

mod ways;

/// How patient the loop is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// After this long without a pass there is one anyway, as a backstop for events that were never sent. 30 s.
    pub resync: Duration,
    /// For this long after an interface was first seen, routes over it that the datastore does not know are left alone:
    /// the CNI plugin writes them before the endpoint arrives here. 10 s.
    pub grace: Duration,
    /// The first pause after a pass in which something failed; it doubles with each. 500 ms.
    pub backoff: Duration,
    /// The longest pause after a failure. 30 s.
    pub max_backoff: Duration,
    /// Passes that the kernel's events ask for are at least this far apart, and all of them while they fail. 100 ms.
    pub min_interval: Duration,
    /// Routes to which there is no way any more are left alone for this long: programs that look after the network remove a
    /// route and put it back in the next moment, and what leads over it still does. For as long nobody is told that a way of
    /// the machine's own is lost. 1 s.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            resync: Duration::from_secs(30),
            grace: Duration::from_secs(10),
            backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(30),
            min_interval: Duration::from_millis(100),
            patience: Duration::from_secs(1),
        }
    }
}

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Read the kernel, work out the changes, [hold some back](Reconciler::admit), apply the rest, and report.
    Pass,
    /// Nothing, until then or until something happens.
    Wait(Instant),
    /// Nothing, until something happens.
    Idle,
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything that could be done was done.
    Clean,
    /// Something failed and is to be tried again.
    Failed,
}

/// The loop's memory.
#[derive(Debug, Clone)]
pub struct Reconciler {
    settings: Settings,
    sync: Sync,
    /// When the next pass is due.
    due: Option<Instant>,
    last_pass: Option<Instant>,
    failures: u32,
    first_seen: BTreeMap<InterfaceName, Instant>,
    /// Since when there is no way to routes.
    stranded: BTreeMap<RouteKey, Instant>,
    told: ways::Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    Waiting,
    Done,
}

impl Reconciler {
    /// Makes the memory of a loop that has not begun: nothing is written before [`Reconciler::in_sync`].
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            sync: Sync::Waiting,
            due: None,
            last_pass: None,
            failures: 0,
            first_seen: BTreeMap::new(),
            stranded: BTreeMap::new(),
            told: ways::Told::default(),
        }
    }

    /// Notes that everything the datastore held at the start is known.
    pub fn in_sync(&mut self, now: Instant) {
        self.sync = Sync::Done;
        self.wake(now);
    }

    /// Notes that something else is wanted now. While passes fail, it is not known whether that mends anything: passes are
    /// [so far apart](Settings::min_interval) at least, and what fails goes on to be tried less and less often.
    pub fn desired_changed(&mut self, now: Instant) {
        let earliest = self.last_pass.filter(|_| self.failures > 0);
        self.wake(earliest.map_or(now, |last| now.max(last + self.settings.min_interval)));
    }

    /// Notes that the kernel changed under us, or that it lost count of what changed.
    pub fn kernel_changed(&mut self, now: Instant) {
        let earliest = self.last_pass.map_or(now, |last| last + self.settings.min_interval);
        self.wake(now.max(earliest));
    }

    /// Says what to do now. When that is a pass, it must be followed by [`Reconciler::finished`]; what changes from here
    /// on asks for another one.
    #[must_use]
    pub fn next(&mut self, now: Instant) -> Next {
        match (self.sync, self.due) {
            (Sync::Waiting, _) | (Sync::Done, None) => Next::Idle,
            (Sync::Done, Some(due)) if due <= now => {
                self.due = None;
                Next::Pass
            }
            (Sync::Done, Some(due)) => Next::Wait(due),
        }
    }

    /// Splits off the changes that are to be made now: removals over a workload's interface that appeared only lately, and
    /// those of routes to which there is no way only since lately, are left for a later pass, which comes by itself. What is beside a route that is written is not left: the datastore
    /// knows that destination, and the kernel would refuse the route while the other is before it.
    pub fn admit(&mut self, plan: &Plan, host: &Host, ownership: &Ownership, now: Instant) -> Vec<Change> {
        self.first_seen.retain(|device, _| host.links.contains_key(device));
        for device in host.links.keys().filter(|device| ownership.is_workload(device)) {
            self.first_seen.entry(device.clone()).or_insert(now);
        }
        self.stranded.retain(|key, _| plan.stranded.contains(key));
        for key in &plan.stranded {
            self.stranded.entry(*key).or_insert(now);
        }
        let replaced: BTreeSet<RouteKey> = plan.changes.iter().filter_map(Change::replaced).collect();
        let held_until = |change: &Change| {
            let Change::RemoveRoute { key, .. } = change else { return None };
            self.held_until(change).filter(|end| *end > now && !replaced.contains(key))
        };
        let next = plan.changes.iter().filter_map(held_until).min();
        let admitted = plan.changes.iter().filter(|change| held_until(change).is_none()).cloned().collect();
        if let Some(end) = next {
            self.wake(end);
        }
        admitted
    }

    /// Takes in where the machine's own routes lead, as they were just read. What they lost is told only when it stays lost, each
    /// destination on its own. Returns when to read them again for that, if something is lost; a pass comes by itself.
    pub fn take_ways(&mut self, ways: Ways, now: Instant) -> Option<Instant> {
        let due = self.told.take(ways, self.settings.patience, now);
        if let Some(due) = due {
            self.wake(due);
        }
        due
    }

    /// Returns where the machine's own routes lead, for those who decide by it; the same value as long as they do; `None` while
    /// they were never read.
    #[must_use]
    pub fn ways(&self) -> Option<&Arc<Ways>> {
        self.told.ways.as_ref()
    }

    /// Notes how the pass that [`Reconciler::next`] asked for ended.
    pub fn finished(&mut self, end: End, now: Instant) {
        self.last_pass = Some(now);
        let pause = match end {
            End::Clean => {
                self.failures = 0;
                self.settings.resync
            }
            End::Failed => {
                self.failures += 1;
                let doubled = self.settings.backoff.saturating_mul(1 << (self.failures - 1).min(16));
                doubled.min(self.settings.max_backoff)
            }
        };
        self.wake(now + pause);
    }

    /// Returns how many passes in a row have failed.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn wake(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn held_until(&self, change: &Change) -> Option<Instant> {
        let Change::RemoveRoute { key, route } = change else { return None };
        let stranded = self.stranded.get(key).map(|since| *since + self.settings.patience);
        let seen = route.form.devices().filter_map(|device| self.first_seen.get(device)).max();
        // A route over a gateway is none that a CNI plugin writes.
        let seen = seen.filter(|_| !matches!(route.form, Form::Gateways(_)));
        stranded.max(seen.map(|seen| *seen + self.settings.grace))
    }
}

#[cfg(test)]
mod tests;
