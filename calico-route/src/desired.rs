//! Everything that a node's kernel is wanted to hold, and what cannot be served.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use calico_model::{Cidr, Family, InterfaceAddr, InterfaceName, Mac, NodeName};

use crate::actual::{Host, Link, LinkKind, LinkState};
use crate::device::{IpipDevice, LinkPattern, Mtu, Tunnel, VxlanDevice, ipip_device};
use crate::ownership::Ownership;
use crate::route::{Route, RouteKey};
use crate::sysctl::Sysctl;

/// The MTU that is assumed of the network when no link tells it.
pub const FALLBACK_MTU: u32 = 1460;
/// The most that the kernel takes as the MTU of a workload's interface or a tunnel's.
const WIDEST_MTU: u32 = 65535;

/// Everything that a node's kernel is wanted to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The routes, keyed as the kernel keys them.
    pub routes: BTreeMap<RouteKey, Route>,
    /// The VXLAN devices.
    pub vxlan: BTreeMap<Family, VxlanDevice>,
    /// The IP-in-IP device.
    pub ipip: Option<IpipDevice>,
    /// How packets may be wrapped, by what the pools say, and how large the packets inside may be.
    pub tunnels: BTreeMap<Tunnel, Mtu>,
    /// Permanent neighbours: peers' tunnel addresses, and workloads whose MAC address is known.
    pub neighbours: BTreeMap<(InterfaceName, IpAddr), Mac>,
    /// Which node each MAC address behind a VXLAN device is at.
    pub fdb: BTreeMap<(InterfaceName, Mac), IpAddr>,
    /// Kernel settings.
    pub sysctls: BTreeMap<Sysctl, String>,
    /// The node's own addresses. The devices that hold them carry the traffic between nodes.
    pub node_addresses: BTreeMap<Family, InterfaceAddr>,
    /// The links whose MTU is that of the network between nodes, where that is not to be the links that hold the node's
    /// addresses.
    pub mtu_links: Option<LinkPattern>,
    /// The addresses at which the node answers workloads that peer with it, on their interfaces.
    pub workload_peering: BTreeMap<InterfaceName, BTreeSet<InterfaceAddr>>,
    /// How ours is told from others'.
    pub ownership: Ownership,
    /// What cannot be served, each in a sentence.
    pub problems: BTreeSet<Problem>,
}

impl Desired {
    /// Makes the state in which nothing of ours exists: what a clean-up wants.
    #[must_use]
    pub fn nothing(ownership: Ownership) -> Self {
        Self { ownership, ..Self::default() }
    }

    /// Returns how large the packets of workloads may be so that they fit through every tunnel that the pools ask for and
    /// over the links that hold the node's addresses: the MTU of a workload's interface. It does not wait for the tunnels'
    /// own addresses, because workloads may come before them.
    #[must_use]
    pub fn workload_mtu(&self, host: &Host) -> u32 {
        let wire = |families: &[Family]| self.wire(host, families).map_or(FALLBACK_MTU, |(_, mtu)| mtu);
        let inside = |(tunnel, mtu): (&Tunnel, &Mtu)| {
            let (least, most) = self.mtu_limits(*tunnel, host);
            match mtu {
                Mtu::Bytes(bytes) => (*bytes).max(least).min(most),
                Mtu::Detected => wire(&[tunnel.family()]).saturating_sub(tunnel.overhead()).min(most),
            }
        };
        self.tunnels
            .iter()
            .map(inside)
            .chain([wire(&Family::ALL)])
            .min()
            .unwrap_or(FALLBACK_MTU)
            .min(WIDEST_MTU)
    }

    /// Returns the least and the most that the kernel takes as the MTU of a tunnel's device. A VXLAN device is bound to the
    /// link that carries its packets; where that is too narrow for any, the most is less than the least.
    pub(crate) fn mtu_limits(&self, tunnel: Tunnel, host: &Host) -> (u32, u32) {
        let family = tunnel.family();
        let least = match family {
            Family::V4 => 68,
            Family::V6 => 1280,
        };
        let carrier = self.node_addresses.get(&family).and_then(|address| host.carrier(address.addr()));
        let widest = match (tunnel, carrier) {
            (Tunnel::Vxlan(_), Some((_, link))) => link.mtu.min(WIDEST_MTU),
            (Tunnel::Ipip, _) | (Tunnel::Vxlan(_), None) => WIDEST_MTU,
        };
        (least, widest.saturating_sub(tunnel.overhead()))
    }

    /// Returns the narrowest of the links that carry packets of these families between nodes, and its MTU. A device whose MTU
    /// follows from what is found here, a workload's interface or a tunnel's, is none of them, whatever the pattern says: it
    /// would get narrower with each look. Nor is the loopback device: where that holds the node's address, packets may leave
    /// by any link, so that the narrowest of all tells.
    pub(crate) fn wire<'h>(&self, host: &'h Host, families: &[Family]) -> Option<(&'h InterfaceName, u32)> {
        let is_wire = |name: &InterfaceName, link: &Link| {
            let follows = self.ownership.owns_device(name) || *name == ipip_device();
            link.state == LinkState::Up && link.kind != LinkKind::Loopback && !follows
        };
        let wires = || host.links.iter().filter(|(name, link)| is_wire(name, link));
        let narrowest = |(name, link): (&'h InterfaceName, &'h Link)| (link.mtu, name);
        let meant = self
            .mtu_links
            .as_ref()
            .and_then(|pattern| wires().filter(|(name, _)| pattern.matches(name)).map(narrowest).min());
        let own = |family: &Family| {
            let addr = self.node_addresses.get(family)?.addr();
            host.link_with(addr)?;
            host.carrier(addr).map(narrowest).or_else(|| wires().map(narrowest).min())
        };
        let (mtu, name) = meant.or_else(|| families.iter().filter_map(own).min())?;
        Some((name, mtu))
    }
}

/// Something that the datastore asks for and that cannot be served, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// This node is not in the datastore.
    NodeUnknown {
        /// The node.
        node: NodeName,
    },
    /// A node has no address of the family that a route or tunnel needs.
    NoNodeAddress {
        /// The node.
        node: NodeName,
        /// The family.
        family: Family,
    },
    /// A node has no address for its VXLAN device.
    NoTunnelAddress {
        /// The node.
        node: NodeName,
        /// The family.
        family: Family,
    },
    /// A block belongs to a node that is not in the datastore.
    BlockOfUnknownNode {
        /// The block.
        block: Cidr,
        /// The node.
        node: NodeName,
    },
    /// Two nodes have the same tunnel address or the same tunnel MAC address.
    SharedTunnel {
        /// The node that keeps it.
        node: NodeName,
        /// The node that goes without.
        other: NodeName,
        /// What both have.
        what: String,
    },
    /// Two workloads of this node have the same address.
    SharedAddress {
        /// The address.
        address: IpAddr,
        /// The workload endpoint that has the route.
        used: String,
        /// The workload endpoint that goes without.
        unused: String,
    },
    /// The interface of a workload is not told from others' by its name.
    MisnamedInterface {
        /// The interface.
        device: InterfaceName,
        /// The workload endpoint.
        workload: String,
    },
    /// A workload has the address of a node.
    NodeAddressOfWorkload {
        /// The address.
        address: IpAddr,
        /// The workload endpoint.
        workload: String,
        /// The node.
        node: NodeName,
    },
    /// A remote block holds the address of a node, so that its route would cut the node off.
    BlockHoldsNode {
        /// The block.
        block: Cidr,
        /// The node.
        node: NodeName,
        /// The node's address.
        address: IpAddr,
    },
    /// `mtuIfacePattern` is no regular expression.
    MtuPattern {
        /// What it is.
        pattern: String,
    },
    /// A learned route has a next hop that means something only on one link.
    LinkLocalNextHop {
        /// The destination.
        prefix: Cidr,
        /// The next hop.
        gateway: IpAddr,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NodeUnknown { node } => write!(
                f,
                "node {node} is not in the datastore, so only its workloads have routes; start calico-node on it or \
                 create the Node"
            ),
            Problem::NoNodeAddress { node, family } => write!(
                f,
                "node {node} has no {family} address, so its {family} workloads cannot be reached from other nodes; \
                 set spec.bgp.ipv{}Address of the Node",
                family.version()
            ),
            Problem::NoTunnelAddress { node, family } => write!(
                f,
                "node {node} has no {family} VXLAN tunnel address yet; its agent sets ipv{}VXLANTunnelAddr of the \
                 Node when a pool has a free address for it",
                family.version()
            ),
            Problem::BlockOfUnknownNode { block, node } => write!(
                f,
                "block {block} belongs to node {node}, which is not in the datastore; if the node is gone, release \
                 its addresses"
            ),
            Problem::SharedTunnel { node, other, what } => write!(
                f,
                "nodes {node} and {other} both have the tunnel's {what}; only {node} is reached through the tunnel \
                 until {other} gets its own"
            ),
            Problem::SharedAddress { address, used, unused } => write!(
                f,
                "address {address} is that of both workload endpoints {used} and {unused}; the route leads to {used} \
                 until {unused} is deleted or given another address"
            ),
            Problem::MisnamedInterface { device, workload } => write!(
                f,
                "interface {device} of workload endpoint {workload} does not begin with one of interfacePrefix of the \
                 FelixConfiguration, so its neighbours and kernel settings are left as they are; add the prefix there"
            ),
            Problem::NodeAddressOfWorkload { address, workload, node } => write!(
                f,
                "workload endpoint {workload} has the address {address} of node {node} and gets no route; give it \
                 another address"
            ),
            Problem::BlockHoldsNode { block, node, address } => write!(
                f,
                "block {block} holds the address {address} of node {node} and gets no route; move the pool out of \
                 the nodes' network"
            ),
            Problem::MtuPattern { pattern } => write!(
                f,
                "mtuIfacePattern {pattern:?} of the FelixConfiguration is no regular expression, so the links that hold \
                 the node's addresses tell the MTU; mend it or leave it out"
            ),
            Problem::LinkLocalNextHop { prefix, gateway } => write!(
                f,
                "the learned route to {prefix} has the link-local next hop {gateway}, which cannot be reached from \
                 elsewhere; have the peer announce a global address"
            ),
        }
    }
}
