//! Routes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Scope;
use super::links::Links;
use crate::actual::Actual;
use crate::change::Change;
use crate::desired::Desired;
use crate::ownership::PROTOCOL;
use crate::resolve::{Resolver, Waiting};
use crate::route::{Class, Form, Gateway, Installed, Route, RouteKey, Target};

/// The protocol of routes to the subnets of the machine's addresses (`RTPROT_KERNEL`, rtnetlink(7)).
const KERNEL: u8 = 2;

#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Removals of what is beside a wanted route under its key. The kernel may take the wanted one for what is removed,
    /// so that one is written after them.
    pub(super) extras: Vec<Change>,
    pub(super) upserts: Vec<Change>,
    pub(super) removals: Vec<Change>,
    pub(super) waiting: BTreeMap<RouteKey, Waiting>,
    /// See [`Plan::stranded`](super::Plan::stranded).
    pub(super) stranded: BTreeSet<RouteKey>,
    /// See [`Plan::tries`](super::Plan::tries).
    pub(super) tries: Vec<Change>,
}

pub(super) fn changes(
    desired: &Desired,
    actual: &Actual,
    resolver: &Resolver<'_>,
    links: &Links,
    scope: Scope<'_>,
) -> Routes {
    let mut routes = Routes::default();
    let mut upserts: Vec<(Rank, Change)> = Vec::new();
    for (key, route) in scope.of(&desired.routes, |delta| &delta.routes) {
        if !actual.host.speaks(key.prefix.family()) {
            routes.waiting.insert(*key, Waiting::FamilyAbsent(key.prefix.family()));
            continue;
        }
        let held = actual.routes.get(key).map_or(&[][..], Vec::as_slice);
        let held =
            held.iter().filter(|route| !route.form.devices().any(|device| links.lost.contains(device)));
        let (apart, mut held): (Vec<&Installed>, Vec<_>) = held.partition(|route| route.form.is_apart());
        routes.remove(key, apart);
        let form = match resolver.resolve(key, route) {
            Ok(form) => form,
            Err(problem) => match elsewhere(&problem) {
                Some(form) if is_taken(&form, &held) => form,
                untaken => {
                    // What is there cannot be right, except that a workload's interface that is down comes back.
                    let is_way = matches!(
                        problem,
                        Waiting::Unreachable(_) | Waiting::NodeAddressAbsent(..) | Waiting::NotOnLink { .. }
                    );
                    if is_way && !held.is_empty() {
                        routes.stranded.insert(*key);
                    }
                    let untaken = untaken.filter(|_| !actual.host.foreign.contains_key(key));
                    routes.tries.extend(untaken.map(|form| Change::AddRoute { key: *key, form }));
                    routes.waiting.insert(*key, problem);
                    routes.remove(key, held);
                    continue;
                }
            },
        };
        if let Some((other, first)) = shadow(actual, key, route.class) {
            let wanted = format!("{key} {form}");
            let by = format!("metric {} {} protocol {}", other.priority, first.form, first.protocol);
            routes.waiting.insert(*key, Waiting::Shadowed { wanted, by });
        }
        let kept = held.iter().position(|held| held.protocol == PROTOCOL && held.form == form);
        if let Some(kept) = kept
            && (held.len() == 1 || actual.host.foreign.contains_key(key))
        {
            held.remove(kept);
            routes.remove(key, held);
            continue;
        }
        if let Some(other) = actual.host.foreign.get(key).and_then(|others| others.first()) {
            let wanted = format!("{key} {form}");
            let by = format!("{} protocol {}", other.form, other.protocol);
            routes.waiting.insert(*key, Waiting::Taken { wanted, by });
            routes.remove(key, held);
            continue;
        }
        let change = match held.first() {
            None => Change::AddRoute { key: *key, form },
            // The kernel replaces the first of a key.
            Some(_) => Change::ReplaceRoute { key: *key, form },
        };
        upserts.push((Rank::of(key, route), change));
        let stays = kept.unwrap_or(0);
        let extras = held.into_iter().enumerate().filter(|(at, _)| *at != stays);
        routes.extras.extend(extras.map(|(_, route)| removal(key, route)));
    }
    upserts.sort_by_key(|(rank, _)| *rank);
    routes.upserts = upserts.into_iter().map(|(_, change)| change).collect();
    let held = scope.of(&actual.routes, |delta| &delta.routes);
    for (key, held) in held.filter(|(key, _)| !desired.routes.contains_key(key)) {
        let held = held.iter().filter(|route| route.form.devices().all(|device| links.keeps(device)));
        routes.remove(key, held);
    }
    // Drops go before the routes that they surround, so that what is left never drops what it should carry.
    routes.removals.sort_by_key(
        |change| !matches!(change, Change::RemoveRoute { route, .. } if route.form == Form::Blackhole),
    );
    routes
}

impl Routes {
    fn remove<'r>(&mut self, key: &RouteKey, held: impl IntoIterator<Item = &'r Installed>) {
        self.removals.extend(held.into_iter().map(|route| removal(key, route)));
    }
}

/// Returns the route of others that the kernel uses in place of ours to the same destination. That peers announce a link of the
/// machine's own is as it should be: the kernel's route to it is the straight way.
fn shadow<'a>(actual: &'a Actual, key: &RouteKey, class: Class) -> Option<(&'a RouteKey, &'a Installed)> {
    let (other, held) = actual.host.foreign.range(RouteKey::all_to(key.prefix)).next()?;
    let first = held.first().filter(|_| other.priority < key.priority)?;
    let is_own_link = class == Class::Learned && first.protocol == KERNEL;
    (!is_own_link).then_some((other, first))
}

/// Returns the route over a gateway that is not known to be on the link. The kernel is not told that it is: it asks the tables of
/// all rules, of which only the main one is read.
fn elsewhere(problem: &Waiting) -> Option<Form> {
    let Waiting::NotOnLink { gateway, device } = problem else { return None };
    let gateway = Gateway { address: *gateway, device: device.clone(), onlink: false };
    Some(Form::Gateways([gateway].into()))
}

/// Reports whether the kernel has taken a route.
fn is_taken(form: &Form, held: &[&Installed]) -> bool {
    held.iter().any(|held| held.protocol == PROTOCOL && held.form == *form)
}

fn removal(key: &RouteKey, route: &Installed) -> Change {
    Change::RemoveRoute { key: *key, route: route.clone() }
}

/// When a route is written: workloads' first, then those to the far ends of tunnels, which others lead by; drops last, and narrow
/// ones before the wide ones around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u8, Reverse<u8>);

impl Rank {
    fn of(key: &RouteKey, route: &Route) -> Self {
        let stage = match (route.class, &route.target) {
            (Class::LocalWorkload, _) => 0,
            (_, Target::Device(_)) => 1,
            (_, Target::Gateways(_)) => 2,
            (_, Target::Blackhole) => 3,
        };
        Self(stage, Reverse(key.prefix.prefix_len()))
    }
}
