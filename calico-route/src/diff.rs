//! From what is and what should be to the changes between.
//!
//! The order of the changes is one that is safe to stop after: devices before what is on them, neighbours and forwarding
//! entries before the routes that need them, workloads' routes before the drops that surround them, narrow routes before
//! wide ones, and removals last. A wanted route takes the place of one of its key in a single step, so a destination that
//! stays never goes dark.

use std::collections::{BTreeMap, BTreeSet};

use calico_model::Cidr;

use crate::actual::Actual;
use crate::change::Change;
use crate::compute::Delta;
use crate::desired::Desired;
use crate::resolve::{Kept, Resolver};
use crate::route::RouteKey;
use crate::waits::Waits;

mod links;
mod routes;
mod tables;

/// The changes to make now, and what has to wait for the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The changes, in an order that is safe.
    pub changes: Vec<Change>,
    /// What is wanted and cannot be done yet, each in a sentence.
    pub waiting: Waits,
    /// Routes to which there is no way now, and which the kernel holds. Their removals are among the changes; the way may be
    /// back in a moment.
    pub stranded: BTreeSet<RouteKey>,
    /// Routes that wait as [`NotOnLink`](crate::Waiting::NotOnLink), to be tried after the changes: the kernel looks for their
    /// gateways in the tables of all its rules, of which only the main one is read, so it alone can say. What it refuses is no
    /// failure, and is tried again in the next whole plan.
    pub tries: Vec<Change>,
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
    plan_of(desired, actual, Scope::Everything, None)
}

/// Works out the same as [`plan`] while it is not known yet what BGP learned. Routes of ours that `desired` does not have, to
/// where `may_be_learned` says, may be what was learned earlier: next hops are resolved over them as if they were learned, so
/// that what leads over them stays as it is. Their removals are in the plan, and are not to be made.
#[must_use]
pub fn plan_unlearned(desired: &Desired, actual: &Actual, may_be_learned: &dyn Fn(&Cidr) -> bool) -> Plan {
    plan_of(desired, actual, Scope::Everything, Some(Kept { held: &actual.routes, may_be_learned }))
}

/// Works out the same as [`plan`] for a kernel that held everything that was wanted before `delta`; its cost follows what
/// changed. `waited` is what had to wait then. Where the node waits for something else now, more is different than `delta` says,
/// and the plan has to be made anew.
#[must_use]
pub fn plan_delta(desired: &Desired, actual: &Actual, delta: &Delta, waited: &Waits) -> Plan {
    if delta.everything {
        return plan(desired, actual);
    }
    let mut plan = plan_of(desired, actual, Scope::Delta(delta), None);
    plan.waiting.keep(waited, delta);
    plan
}

fn plan_of(desired: &Desired, actual: &Actual, scope: Scope<'_>, kept: Option<Kept<'_>>) -> Plan {
    let mut resolver = Resolver::new(desired, &actual.host, kept);
    let mut plan = Plan::default();
    let families = desired.node_addresses.keys().filter(|family| actual.host.speaks(**family));
    plan.waiting.node.extend(families.filter_map(|family| resolver.node_device(*family).err()));
    let links = links::changes(desired, &actual.sysctls, &mut resolver, &mut plan.waiting.node);
    let peering = match scope {
        Scope::Everything => links::peering(desired, &actual.host),
        Scope::Delta(_) => Vec::new(),
    };
    let tables = tables::changes(desired, actual, &resolver, &links, scope);
    let routes = routes::changes(desired, actual, &resolver, &links, scope);
    for changes in [
        links.first,
        tables.upserts,
        peering,
        routes.extras,
        routes.upserts,
        routes.removals,
        tables.removals,
        links.last,
    ] {
        plan.changes.extend(changes);
    }
    plan.stranded = routes.stranded;
    plan.tries = routes.tries;
    let told = std::mem::take(&mut plan.waiting.node);
    plan.waiting.routes = routes.waiting;
    plan.waiting.routes.retain(|_, waiting| !resolver.follows(waiting, &told));
    plan.waiting.node = told.iter().filter(|one| !resolver.follows(one, &told)).cloned().collect();
    plan
}

/// What is compared.
#[derive(Debug, Clone, Copy)]
enum Scope<'d> {
    Everything,
    Delta(&'d Delta),
}

impl<'d> Scope<'d> {
    /// Walks the entries of a map that are to be compared.
    fn of<'i, K: Ord + 'i, V>(
        self,
        map: &'i BTreeMap<K, V>,
        keys: impl FnOnce(&'i Delta) -> &'i BTreeSet<K>,
    ) -> Box<dyn Iterator<Item = (&'i K, &'i V)> + 'i>
    where
        'd: 'i,
    {
        match self {
            Scope::Everything => Box::new(map.iter()),
            Scope::Delta(delta) => Box::new(keys(delta).iter().filter_map(|key| map.get_key_value(key))),
        }
    }
}
