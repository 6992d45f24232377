//! From what is and what should be to the changes between.
//!
//! The order of the changes is one that is safe to stop after: devices before what is on them, neighbours and forwarding
//! entries before the routes that need them, workloads' routes before the drops that surround them, narrow routes before
//! wide ones, and removals last. A wanted route takes the place of one of its key in a single step, so a destination that
//! stays never goes dark.

use std::collections::BTreeSet;

use crate::actual::Actual;
use crate::change::Change;
use crate::desired::Desired;
use crate::resolve::{Resolver, Waiting};

mod links;
mod routes;
mod tables;

/// The changes to make now, and what has to wait for the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The changes, in an order that is safe.
    pub changes: Vec<Change>,
    /// What is wanted and cannot be done yet, each in a sentence.
    pub waiting: BTreeSet<Waiting>,
}

/// Works out the changes that make the kernel hold what is wanted.
///
/// When nothing differs there are none, and after all of them have been applied nothing differs.
#[must_use]
pub fn diff(desired: &Desired, actual: &Actual) -> Vec<Change> {
    plan(desired, actual).changes
}

/// Works out the changes that make the kernel hold what is wanted, and says what has to wait.
#[must_use]
pub fn plan(desired: &Desired, actual: &Actual) -> Plan {
    let mut resolver = Resolver::new(&actual.host, &desired.node_addresses);
    let mut plan = Plan::default();
    let links = links::changes(desired, &mut resolver, &mut plan.waiting);
    let tables = tables::changes(desired, actual, &resolver, &links);
    let routes = routes::changes(desired, actual, &resolver, &links, &mut plan.waiting);
    for changes in [links.first, tables.upserts, routes.upserts, routes.removals, tables.removals, links.last]
    {
        plan.changes.extend(changes);
    }
    plan
}
