//! The blocks of other nodes, and single addresses that live elsewhere than their block, from the datastore.

use std::net::IpAddr;

use calico_model::{Cidr, NodeName};

use super::Part;
use super::tunnel;
use super::view::View;
use crate::desired::Problem;
use crate::device::{Tunnel, ipip_device, vxlan_device};
use crate::encap::{Encap, Scope, Source};
use crate::route::{Class, Reach, Route, RouteKey, Target};

/// The route to a remote block, to a borrowed address of any block, or to the far end of a tunnel, that the datastore is the
/// source of.
pub(super) fn route(view: &View<'_>, prefix: Cidr, part: &mut Part) {
    if view.own.is_none() || !view.serves(prefix.family()) {
        return;
    }
    if let Some((key, route)) = tunnel::far_end(view, prefix) {
        match view.cuts_off(prefix) {
            Some(problem) => drop(part.problems.insert(problem)),
            None => part.offer(key, route),
        }
        return;
    }
    let known = view.known;
    let block = known.blocks.get(&prefix).and_then(|block| Some((prefix, block.host.as_ref()?)));
    let addr = prefix.addr();
    let lenders = prefix.is_host().then(|| known.lent.get(&addr)).flatten().into_iter().flatten();
    let lent = lenders.filter_map(|block| Some((*block, known.blocks.get(block)?.home(addr)?)));
    for (block, host) in block.into_iter().chain(lent).filter(|(_, host)| **host != known.node) {
        let Some(encap) = view.pools.encap(&block) else { continue };
        if encap.source(view.cluster_routes()) == Source::Bgp {
            continue;
        }
        match to_host(view, prefix, encap, host) {
            Ok(route) => part.offer(RouteKey::main(prefix, view.priority_to(prefix, host)), route),
            Err(problem) => {
                part.problems.insert(problem);
            }
        }
    }
}

fn to_host(view: &View<'_>, prefix: Cidr, encap: Encap, host: &NodeName) -> Result<Route, Problem> {
    let family = prefix.family();
    let node = view
        .known
        .nodes
        .get(host)
        .ok_or_else(|| Problem::BlockOfUnknownNode { block: prefix, node: host.clone() })?;
    if let Some(problem) = view.cuts_off(prefix) {
        return Err(problem);
    }
    let side = node.side(family);
    let addr = side.addr.ok_or_else(|| Problem::NoNodeAddress { node: host.clone(), family })?.addr();
    let route = view
        .travel(encap, addr, side.tunnel)
        .ok_or_else(|| Problem::NoTunnelAddress { node: host.clone(), family })?;
    // What another node has too leads to that one, or to nobody.
    match view.tunnel_clash(host, node, family).filter(|_| route.class == Class::VxlanTunnel) {
        Some(problem) => Err(problem),
        None => Ok(route),
    }
}

impl View<'_> {
    /// Returns the route to a node: by its address, and by its tunnel address when packets to it are wrapped in VXLAN;
    /// `None` when that is needed and not known.
    pub(super) fn travel(&self, encap: Encap, node: IpAddr, tunnel: Option<IpAddr>) -> Option<Route> {
        let direct = |scope| scope == Scope::CrossSubnet && self.is_same_subnet(node);
        let (class, target) = match encap {
            Encap::None => (Class::NoEncap, Target::via(node, Reach::Resolved)),
            Encap::In(Tunnel::Vxlan(_), scope) if direct(scope) => {
                (Class::VxlanSameSubnet, Target::via(node, Reach::NodeDevice))
            }
            Encap::In(Tunnel::Ipip, scope) if direct(scope) => {
                (Class::IpipSameSubnet, Target::via(node, Reach::NodeDevice))
            }
            Encap::In(Tunnel::Vxlan(family), _) => {
                (Class::VxlanTunnel, Target::via(tunnel?, Reach::Onlink(vxlan_device(family))))
            }
            Encap::In(Tunnel::Ipip, _) => {
                (Class::IpipTunnel, Target::via(node, Reach::Onlink(ipip_device())))
            }
        };
        Some(Route { class, target })
    }
}
