//! The machines of the cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::asn::{AsNumber, RouterId};
use crate::net::{Family, InterfaceAddr, Mac};
use crate::wire::{Limit, Rules, ToWire, wire_enum, wire_struct};

wire_struct! {
    /// A `Node`: how a machine is reached and what it is called by BGP.
    pub struct Node {
        /// Addresses and AS number for BGP; the addresses are also the ends of tunnels.
        bgp: Option<NodeBgp> = "bgp" optional,
        /// The address of the node's VXLAN device.
        ipv4_vxlan_tunnel_addr: Option<Ipv4Addr> = "ipv4VXLANTunnelAddr" optional,
        /// The MAC of the node's VXLAN device.
        vxlan_tunnel_mac: Option<Mac> = "vxlanTunnelMACAddr" optional,
        /// The address of the node's VXLAN device for IPv6.
        ipv6_vxlan_tunnel_addr: Option<Ipv6Addr> = "ipv6VXLANTunnelAddr" optional,
        /// The MAC of the node's VXLAN device for IPv6.
        vxlan_tunnel_mac_v6: Option<Mac> = "vxlanTunnelMACAddrV6" optional,
        /// What orchestrators call the node.
        orch_refs: Vec<OrchRef> = "orchRefs" empty,
        /// All addresses by which others may know the node.
        addresses: Vec<NodeAddress> = "addresses" empty,
        /// The addresses of the node's WireGuard devices.
        wireguard: Option<NodeWireguard> = "wireguard" optional,
        /// The node's interfaces.
        interfaces: Vec<NodeInterface> = "interfaces" empty,
    }
    check = check;
}

wire_struct! {
    /// The addresses of a node's WireGuard devices.
    pub struct NodeWireguard {
        /// For IPv4.
        interface_ipv4_address: Option<Ipv4Addr> = "interfaceIPv4Address" optional,
        /// For IPv6.
        interface_ipv6_address: Option<Ipv6Addr> = "interfaceIPv6Address" optional,
    }
}

wire_struct! {
    /// An interface of a node.
    pub struct NodeInterface {
        /// Its name.
        name: String = "name" required [Limit::Length(15)],
        /// Its addresses.
        addresses: Vec<InterfaceAddr> = "addresses" empty,
    }
}

wire_enum! {
    /// What an address of a node is for.
    pub enum NodeAddressType {
        /// Routes between nodes.
        CalicoNode = "CalicoNodeIP",
        /// Others inside the cluster, as Kubernetes says.
        Internal = "InternalIP",
        /// Those outside, as Kubernetes says.
        External = "ExternalIP",
    }
}

wire_struct! {
    /// A node's part in BGP.
    pub struct NodeBgp {
        /// The AS number; the cluster's when unset.
        as_number: Option<AsNumber> = "asNumber" optional,
        /// The IPv4 address, with the length of the subnet it is in.
        ipv4_address: Option<InterfaceAddr> = "ipv4Address" optional,
        /// The IPv6 address, with the length of the subnet it is in.
        ipv6_address: Option<InterfaceAddr> = "ipv6Address" optional,
        /// The address of the node's IP-in-IP device.
        ipv4_ipip_tunnel_addr: Option<Ipv4Addr> = "ipv4IPIPTunnelAddr" optional,
        /// The cluster id when the node is a route reflector (RFC 4456).
        route_reflector_cluster_id: Option<RouterId> = "routeReflectorClusterID" optional,
    }
    check = check_bgp;
}

wire_struct! {
    /// What an orchestrator calls a node.
    pub struct OrchRef {
        /// The name there.
        node_name: Option<String> = "nodeName" optional,
        /// The orchestrator, such as `k8s`.
        orchestrator: String = "orchestrator" required,
    }
}

wire_struct! {
    /// One address of a node.
    pub struct NodeAddress {
        /// The address, with or without a prefix length.
        address: InterfaceAddr = "address" required,
        /// What it is for.
        kind: Option<NodeAddressType> = "type" optional,
    }
}

impl NodeBgp {
    /// Makes a node's BGP part of one address.
    #[must_use]
    pub fn at(addr: InterfaceAddr) -> Self {
        let (ipv4_address, ipv6_address) = match addr.addr() {
            IpAddr::V4(_) => (Some(addr), None),
            IpAddr::V6(_) => (None, Some(addr)),
        };
        Self {
            as_number: None,
            ipv4_address,
            ipv6_address,
            ipv4_ipip_tunnel_addr: None,
            route_reflector_cluster_id: None,
        }
    }
}

impl Node {
    /// Makes a node with no addresses yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bgp: None,
            ipv4_vxlan_tunnel_addr: None,
            vxlan_tunnel_mac: None,
            ipv6_vxlan_tunnel_addr: None,
            vxlan_tunnel_mac_v6: None,
            orch_refs: Vec::new(),
            addresses: Vec::new(),
            wireguard: None,
            interfaces: Vec::new(),
        }
    }

    /// Returns the node's address of a family, with the subnet it is in.
    #[must_use]
    pub fn addr(&self, family: Family) -> Option<InterfaceAddr> {
        let bgp = self.bgp.as_ref()?;
        match family {
            Family::V4 => bgp.ipv4_address,
            Family::V6 => bgp.ipv6_address,
        }
    }

    /// Returns every address that the node is said to have itself, those of its tunnels included.
    pub fn own_addrs(&self) -> impl Iterator<Item = IpAddr> {
        let of_bgp = self.bgp.iter().flat_map(|bgp| {
            let own = [bgp.ipv4_address, bgp.ipv6_address].into_iter().flatten().map(|own| own.addr());
            own.chain(bgp.ipv4_ipip_tunnel_addr.map(IpAddr::V4))
        });
        let vxlan =
            [self.ipv4_vxlan_tunnel_addr.map(IpAddr::V4), self.ipv6_vxlan_tunnel_addr.map(IpAddr::V6)];
        let wireguard = self.wireguard.iter().flat_map(|own| {
            [own.interface_ipv4_address.map(IpAddr::V4), own.interface_ipv6_address.map(IpAddr::V6)]
        });
        let interfaces = self.interfaces.iter().flat_map(|interface| &interface.addresses);
        let others = self.addresses.iter().map(|own| &own.address).chain(interfaces).map(InterfaceAddr::addr);
        of_bgp.chain(vxlan.into_iter().chain(wireguard).flatten()).chain(others)
    }

    /// Returns the address and MAC of the node's VXLAN device, when both are known.
    #[must_use]
    pub fn vxlan(&self, family: Family) -> Option<(IpAddr, Mac)> {
        match family {
            Family::V4 => Some((self.ipv4_vxlan_tunnel_addr?.into(), self.vxlan_tunnel_mac?)),
            Family::V6 => Some((self.ipv6_vxlan_tunnel_addr?.into(), self.vxlan_tunnel_mac_v6?)),
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

fn check(node: &mut Node, mut rules: Rules<'_, '_, '_>) {
    let bgp = node.bgp.as_ref().map(ToWire::to_wire);
    if bgp.as_ref().and_then(serde_json::Value::as_object).is_some_and(serde_json::Map::is_empty) {
        rules.wrong("bgp", "must not be empty: leave it out");
    }
}

fn check_bgp(bgp: &mut NodeBgp, mut rules: Rules<'_, '_, '_>) {
    for (key, addr, family) in
        [("ipv4Address", bgp.ipv4_address, Family::V4), ("ipv6Address", bgp.ipv6_address, Family::V6)]
    {
        if addr.is_some_and(|addr| Family::of(addr.addr()) != family) {
            rules.wrong(key, format!("must be an {family} address"));
        }
    }
}
