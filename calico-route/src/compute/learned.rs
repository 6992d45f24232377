//! What BGP peers announce.

use std::collections::BTreeSet;
use std::net::IpAddr;

use calico_model::{Cidr, LearnedRoute, LearnedRoutes};

use super::View;
use crate::desired::{Desired, Problem};
use crate::encap::{Encap, Source};
use crate::route::{Class, NextHop, Reach, Route, RouteKey, Target};

/// A route for each destination that is learned, unless the datastore is the source of routes to it.
pub(super) fn routes(view: &View<'_>, learned: &LearnedRoutes, desired: &mut Desired) {
    for (prefix, learned) in learned.iter().filter(|(prefix, _)| view.serves(prefix.family())) {
        let encap = view.pools.encap(prefix).unwrap_or(Encap::None);
        let in_a_pool = view.pools.encap(prefix).is_some();
        if in_a_pool && encap.source(view.cluster_routes()) == Source::Datastore {
            continue;
        }
        let next_hops = next_hops(view, prefix, encap, learned, desired);
        if !next_hops.is_empty() {
            let priority = learned.priority.unwrap_or_else(|| view.priority(prefix.family()));
            let route = Route { class: Class::Learned, target: Target::Gateways(next_hops) };
            desired.offer(RouteKey::main(*prefix, priority), route);
        }
    }
}

fn next_hops(
    view: &View<'_>,
    prefix: &Cidr,
    encap: Encap,
    learned: &LearnedRoute,
    desired: &mut Desired,
) -> BTreeSet<NextHop> {
    let mut next_hops = BTreeSet::new();
    for gateway in learned.next_hops.iter().filter(|gateway| !view.is_own(**gateway)) {
        if is_link_local(*gateway) {
            desired.problems.insert(Problem::LinkLocalNextHop { prefix: *prefix, gateway: *gateway });
            continue;
        }
        let route = view.travel(encap, *gateway, None);
        let hops = match route.map(|route| route.target) {
            Some(Target::Gateways(hops)) => hops,
            Some(Target::Device(_) | Target::Blackhole) | None => {
                [NextHop { gateway: *gateway, reach: Reach::Resolved }].into()
            }
        };
        next_hops.extend(hops);
    }
    next_hops
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}
