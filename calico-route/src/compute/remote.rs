//! The blocks of other nodes, and single addresses that live elsewhere than their block, from the datastore.

use std::net::IpAddr;

use calico_model::{Cidr, Family, NodeName};

use super::View;
use crate::desired::{Desired, Problem};
use crate::device::{Tunnel, ipip_device, vxlan_device};
use crate::encap::{Encap, Scope, Source};
use crate::route::{Class, Reach, Route, RouteKey, Target};

/// A route to every remote block, and to every borrowed address of any block, that the datastore is the source of.
pub(super) fn blocks(view: &View<'_>, desired: &mut Desired) {
    for block in view.snapshot.blocks.values().filter(|block| view.serves(block.cidr.family())) {
        let Some(encap) = view.pools.encap(&block.cidr) else { continue };
        if encap.source(view.cluster_routes()) == Source::Bgp {
            continue;
        }
        if let Some(host) = block.host().filter(|host| *host != view.node) {
            to(view, block.cidr, encap, host, desired);
        }
        for (addr, host) in block.borrowed().filter(|(_, host)| host != view.node) {
            to(view, Cidr::host(addr), encap, &host, desired);
        }
    }
}

fn to(view: &View<'_>, prefix: Cidr, encap: Encap, host: &NodeName, desired: &mut Desired) {
    match route(view, prefix, encap, host) {
        Ok(route) => desired.offer(RouteKey::main(prefix, view.priority(prefix.family())), route),
        Err(problem) => {
            desired.problems.insert(problem);
        }
    }
}

fn route(view: &View<'_>, prefix: Cidr, encap: Encap, host: &NodeName) -> Result<Route, Problem> {
    let family = prefix.family();
    let node = view
        .nodes
        .get(host.as_str())
        .ok_or_else(|| Problem::BlockOfUnknownNode { block: prefix, node: host.clone() })?;
    if let Some((address, node)) = view.node_inside(&prefix) {
        return Err(Problem::BlockHoldsNode { block: prefix, node, address });
    }
    let addr = node.addr(family).ok_or_else(|| Problem::NoNodeAddress { node: host.clone(), family })?.addr();
    let tunnel_addr = match family {
        Family::V4 => node.ipv4_vxlan_tunnel_addr.map(IpAddr::from),
        Family::V6 => node.ipv6_vxlan_tunnel_addr.map(IpAddr::from),
    };
    view.travel(encap, addr, tunnel_addr)
        .ok_or_else(|| Problem::NoTunnelAddress { node: host.clone(), family })
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
