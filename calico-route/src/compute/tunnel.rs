//! The tunnel devices of this node, and who is at the other ends.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_model::resource::Node;
use calico_model::{Family, InterfaceAddr, Mac, NodeName};

use super::View;
use crate::desired::{Desired, Problem};
use crate::device::{IpipDevice, Mtu, Tunnel, VxlanDevice, vxlan_device, vxlan_mac};

/// The devices that the pools need, with neighbours and forwarding entries for all peers.
pub(super) fn devices(view: &View<'_>, desired: &mut Desired) {
    let vxlan_mtu = Mtu::from_setting(view.settings.vxlan_mtu);
    let ipip_mtu = Mtu::from_setting(view.settings.ipip_mtu);
    let vxlans: Vec<Family> =
        view.families().filter(|family| view.pools.with(Tunnel::Vxlan(*family)).next().is_some()).collect();
    let pools: Vec<_> = view.pools.with(Tunnel::Ipip).map(|pool| pool.metadata.name.clone()).collect();
    desired.tunnels.extend(vxlans.iter().map(|family| (Tunnel::Vxlan(*family), vxlan_mtu)));
    desired.tunnels.extend((!pools.is_empty()).then_some((Tunnel::Ipip, ipip_mtu)));
    let Some(own) = view.own else { return };
    for family in vxlans {
        match vxlan(view, own, family) {
            Ok(device) => {
                desired.vxlan.insert(family, device);
                peers(view, family, desired);
            }
            Err(problem) => {
                desired.problems.insert(problem);
            }
        }
    }
    if !pools.is_empty() {
        let address = own.bgp.as_ref().and_then(|bgp| bgp.ipv4_ipip_tunnel_addr);
        desired.ipip = Some(IpipDevice {
            mtu: ipip_mtu,
            address: address.and_then(|address| single(address.into())),
            pools,
        });
    }
}

fn vxlan(view: &View<'_>, own: &Node, family: Family) -> Result<VxlanDevice, Problem> {
    let node = || view.node.clone();
    let local = own.addr(family).ok_or_else(|| Problem::NoNodeAddress { node: node(), family })?.addr();
    let end = End::of(view.node, own, family);
    let address =
        end.address.and_then(single).ok_or_else(|| Problem::NoTunnelAddress { node: node(), family })?;
    Ok(VxlanDevice {
        vni: view.settings.vxlan_vni(),
        port: view.settings.vxlan_port(),
        local,
        mac: end.mac,
        mtu: Mtu::from_setting(view.settings.vxlan_mtu),
        address,
    })
}

fn single(addr: IpAddr) -> Option<InterfaceAddr> {
    InterfaceAddr::new(addr, Family::of(addr).bits())
}

/// One end of a VXLAN tunnel.
struct End {
    address: Option<IpAddr>,
    mac: Mac,
}

impl End {
    /// A node that has not published its MAC address has the one that follows from its name.
    fn of(name: &NodeName, node: &Node, family: Family) -> Self {
        let (address, mac) = match family {
            Family::V4 => (node.ipv4_vxlan_tunnel_addr.map(IpAddr::from), node.vxlan_tunnel_mac),
            Family::V6 => (node.ipv6_vxlan_tunnel_addr.map(IpAddr::from), node.vxlan_tunnel_mac_v6),
        };
        Self { address, mac: mac.unwrap_or_else(|| vxlan_mac(name, family)) }
    }
}

fn peers(view: &View<'_>, family: Family, desired: &mut Desired) {
    let device = vxlan_device(family);
    let mut addresses: BTreeMap<IpAddr, NodeName> = BTreeMap::new();
    let mut macs: BTreeMap<Mac, NodeName> = BTreeMap::new();
    let mut clash = |node: &NodeName, other: &NodeName, what: String| {
        desired.problems.insert(Problem::SharedTunnel { node: node.clone(), other: other.clone(), what });
    };
    // This node comes first: a peer may not take over its own address.
    let names = std::iter::once(view.node.as_str()).chain(view.nodes.keys().copied());
    for (at, name) in names.enumerate().filter(|(at, name)| *at == 0 || *name != view.node.as_str()) {
        let (Ok(name), Some(node)) = (name.parse::<NodeName>(), view.nodes.get(name)) else { continue };
        let end = End::of(&name, node, family);
        let (Some(address), Some(underlay)) = (end.address, node.addr(family)) else { continue };
        if let Some(first) = addresses.get(&address) {
            clash(first, &name, format!("address {address}"));
            continue;
        }
        if let Some(first) = macs.get(&end.mac) {
            clash(first, &name, format!("MAC address {}", end.mac));
            continue;
        }
        addresses.insert(address, name.clone());
        macs.insert(end.mac, name);
        if at > 0 {
            desired.neighbours.insert((device.clone(), address), end.mac);
            desired.fdb.insert((device.clone(), end.mac), underlay.addr());
        }
    }
}
