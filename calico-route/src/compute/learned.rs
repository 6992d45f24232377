//! What BGP peers announce.

use std::collections::BTreeSet;
use std::net::IpAddr;

use calico_model::{Cidr, LearnedRoute};

use super::Part;
use super::local;
use super::view::View;
use crate::desired::Problem;
use crate::encap::{Encap, Source};
use crate::route::{Class, NextHop, Reach, Route, RouteKey, Target};

/// The route to a destination that was learned, unless the datastore is the source of routes to it, or it is a service: those
/// a node finds by itself.
pub(super) fn route(view: &View<'_>, prefix: Cidr, part: &mut Part) {
    let led = prefix.is_host().then(|| view.peering.gateways.get(&prefix.addr())).flatten();
    let led = led.map(|gateway| LearnedRoute { next_hops: [*gateway].into(), priority: None });
    let Some(learned) = led.as_ref().or_else(|| view.learned.get(&prefix)) else { return };
    if view.own.is_none() || !view.serves(prefix.family()) {
        return;
    }
    if view.known.services.iter().any(|network| network.covers(&prefix)) {
        return;
    }
    let pool = view.pools.encap(&prefix);
    if pool.is_some_and(|encap| encap.source(view.cluster_routes()) == Source::Datastore) {
        return;
    }
    // What leads to a block leads to its owner. Everything else, such as the routes of the fabric to nodes, is as it is told.
    if let Some(problem) = view.cuts_off(prefix).filter(|_| view.known.is_of_blocks(prefix) && led.is_none())
    {
        part.problems.insert(problem);
        return;
    }
    let next_hops = next_hops(view, prefix, pool.unwrap_or(Encap::None), learned, part);
    if !next_hops.is_empty() {
        let priority = learned.priority.unwrap_or_else(|| view.priority(prefix.family()));
        let route = Route { class: Class::Learned, target: Target::Gateways(next_hops) };
        part.offer(RouteKey::main(prefix, priority), route);
    }
}

fn next_hops(
    view: &View<'_>,
    prefix: Cidr,
    encap: Encap,
    learned: &LearnedRoute,
    part: &mut Part,
) -> BTreeSet<NextHop> {
    let mut next_hops = BTreeSet::new();
    // What a peer tells is reached as the peer itself.
    let led = |gateway| view.peering.gateways.get(gateway).unwrap_or(gateway);
    for gateway in learned.next_hops.iter().map(led).filter(|gateway| !view.is_own(**gateway)) {
        if is_link_local(*gateway) {
            part.problems.insert(Problem::LinkLocalNextHop { prefix, gateway: *gateway });
            continue;
        }
        // A workload that peers with its node leads to what is behind it.
        if let Some(device) = local::device_of(view, *gateway) {
            next_hops.insert(NextHop { gateway: *gateway, reach: Reach::Onlink(device.clone()) });
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
