//! The tunnel devices of this node, and who is at the other ends.

use std::collections::BTreeSet;
use std::net::IpAddr;

use calico_model::{Cidr, Family, InterfaceAddr, Name, NodeName};

use super::Part;
use super::known::Site;
use super::view::View;
use crate::desired::{Desired, Problem};
use crate::device::{IpipDevice, LinkPattern, Mtu, Tunnel, VxlanDevice, vxlan_device};
use crate::route::{Class, Route, RouteKey, Target};

/// What is wanted of the node as a whole: its devices and addresses, and what is ours.
pub(super) fn devices(view: &View<'_>, desired: &mut Desired) {
    desired.ownership = view.ownership.clone();
    let ipip_mtu = Mtu::from_setting(view.settings.ipip_mtu);
    let pools = pools(view, Tunnel::Ipip);
    if let Some(pattern) = view.settings.mtu_iface_pattern.as_ref().filter(|pattern| !pattern.is_empty()) {
        desired.mtu_links = LinkPattern::parse(pattern);
        if desired.mtu_links.is_none() {
            desired.problems.insert(Problem::MtuPattern { pattern: pattern.clone() });
        }
    }
    desired.tunnels.extend(vxlans(view).map(|family| (Tunnel::Vxlan(family), vxlan_mtu(view, family))));
    desired.tunnels.extend((!pools.is_empty()).then_some((Tunnel::Ipip, ipip_mtu)));
    let Some(own) = view.own else {
        desired.problems.insert(Problem::NodeUnknown { node: view.known.node.clone() });
        return;
    };
    desired.node_addresses =
        view.families().filter_map(|family| Some((family, own.side(family).addr?))).collect();
    for family in vxlans(view) {
        match vxlan(view, own, family) {
            Ok(device) => {
                desired.vxlan.insert(family, device);
            }
            Err(problem) => {
                desired.problems.insert(problem);
            }
        }
    }
    if !pools.is_empty() {
        desired.ipip = Some(IpipDevice { mtu: ipip_mtu, address: own.ipip.and_then(single), pools });
    }
}

fn vxlan_mtu(view: &View<'_>, family: Family) -> Mtu {
    Mtu::from_setting(match family {
        Family::V4 => view.settings.vxlan_mtu,
        Family::V6 => view.settings.vxlan_mtu_v6,
    })
}

fn pools(view: &View<'_>, tunnel: Tunnel) -> Vec<Name> {
    view.pools.with(tunnel).map(|pool| pool.metadata.name.clone()).collect()
}

/// Walks the families of which a pool's packets may go through VXLAN.
fn vxlans(view: &View<'_>) -> impl Iterator<Item = Family> {
    view.families().filter(|family| view.pools.with(Tunnel::Vxlan(*family)).next().is_some())
}

fn vxlan(view: &View<'_>, own: &Site, family: Family) -> Result<VxlanDevice, Problem> {
    let node = || view.known.node.clone();
    let side = own.side(family);
    let local = side.addr.ok_or_else(|| Problem::NoNodeAddress { node: node(), family })?.addr();
    let address =
        side.tunnel.and_then(single).ok_or_else(|| Problem::NoTunnelAddress { node: node(), family })?;
    Ok(VxlanDevice {
        vni: view.settings.vxlan_vni(),
        port: view.settings.vxlan_port(),
        local,
        mac: own.mac(&view.known.node, family),
        mtu: vxlan_mtu(view, family),
        address,
        pools: pools(view, Tunnel::Vxlan(family)),
    })
}

fn single(addr: IpAddr) -> Option<InterfaceAddr> {
    InterfaceAddr::new(addr, Family::of(addr).bits())
}

/// How another node is reached through the tunnels: as a neighbour, and by a forwarding entry. Also where this node's own address
/// in the tunnel is not known: the device may be there from before.
pub(super) fn peer(view: &View<'_>, name: &NodeName, part: &mut Part) {
    let site = view.known.nodes.get(name).filter(|_| *name != view.known.node && view.own.is_some());
    let Some(site) = site else { return };
    for family in vxlans(view) {
        let Some(end) = site.end(name, family) else { continue };
        if let Some(problem) = view.tunnel_clash(name, site, family) {
            part.problems.insert(problem);
            continue;
        }
        part.neighbours.insert((vxlan_device(family), end.tunnel), end.mac);
        part.fdb.insert((vxlan_device(family), end.mac), end.underlay);
    }
}

/// The route to the far end of an IPv6 tunnel; `None` when the destination is none, or nothing is wrapped on the way there. The
/// kernel refuses a route by way of that address, even one that is told to be `onlink`, while another one leads elsewhere with
/// it, such as the route to the block that it is in. Of IPv4 it does not ask.
pub(super) fn far_end(view: &View<'_>, prefix: Cidr) -> Option<(RouteKey, Route)> {
    let (family, tunnel) = (Family::V6, Tunnel::Vxlan(Family::V6));
    let serves = view.own.is_some() && prefix.family() == family && vxlans(view).any(|its| its == family);
    let names = view.known.tunnel_addresses.get(&prefix.addr()).filter(|_| serves && prefix.is_host())?;
    let (name, site) = names.iter().find_map(|name| Some((name, view.known.nodes.get(name)?)))?;
    let is_wrapped = view.pools.always(tunnel) || !view.is_same_subnet(site.end(name, family)?.underlay);
    if *name == view.known.node || !is_wrapped || view.tunnel_clash(name, site, family).is_some() {
        return None;
    }
    let route = Route { class: Class::VxlanTunnel, target: Target::Device(tunnel.device()) };
    Some((RouteKey::main(prefix, view.priority(family)), route))
}

impl View<'_> {
    /// Says who keeps the tunnel or MAC address that another node has too: of all that have it this node, otherwise the first
    /// by name.
    pub(super) fn tunnel_clash(&self, name: &NodeName, site: &Site, family: Family) -> Option<Problem> {
        let end = site.end(name, family)?;
        let keeper = |sharers: &BTreeSet<NodeName>| {
            let keeper = sharers.get(&self.known.node).or_else(|| sharers.first());
            keeper.filter(|keeper| *keeper != name).cloned()
        };
        let [same_address, same_mac] = self.known.sharers(family, end);
        let (node, what) = match (keeper(same_address), keeper(same_mac)) {
            (Some(keeper), _) => (keeper, format!("address {}", end.tunnel)),
            (None, Some(keeper)) => (keeper, format!("MAC address {}", end.mac)),
            (None, None) => return None,
        };
        Some(Problem::SharedTunnel { node, other: name.clone(), what })
    }
}
