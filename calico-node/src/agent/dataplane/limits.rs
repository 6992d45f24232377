//! What a pass leaves alone.

use std::collections::BTreeSet;

use calico_model::Cidr;
use calico_route::change::Change;
use calico_route::ownership::Ownership;
use calico_route::route::{Form, RouteKey};

/// To which destinations routes are left alone, since who told of them has yet to be heard.
pub(in crate::agent) type Kept<'k> = dyn Fn(&Cidr) -> bool + Sync + 'k;

/// Which routes are left alone in a pass.
pub(in crate::agent) struct Limits<'k> {
    /// Routes over gateways to where this says are not removed.
    pub(in crate::agent) keep: Option<&'k Kept<'k>>,
    /// Whether routes to workloads are written: not while rules of before are in force, which do not know all of them.
    pub(in crate::agent) to_workloads: bool,
}

/// Reports whether a change is a route to a workload.
pub(super) fn leads_to_workload(change: &Change, ownership: &Ownership) -> bool {
    let (Change::AddRoute { form, .. } | Change::ReplaceRoute { form, .. }) = change else { return false };
    form.devices().any(|device| ownership.is_workload(device))
}

/// Leaves out the removals of routes over gateways to where `keep` says, but for those that stand beside a route that is written.
pub(super) fn leave_alone(changes: &mut Vec<Change>, keep: &Kept<'_>) {
    let written: BTreeSet<RouteKey> = changes.iter().filter_map(Change::replaced).collect();
    changes.retain(|change| {
        let Change::RemoveRoute { key, route } = change else { return true };
        !matches!(route.form, Form::Gateways(_)) || written.contains(key) || !keep(&key.prefix)
    });
}
