//! What it takes to plug a workload in, as a value.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use calico_model::{Cidr, Family, InterfaceAddr, InterfaceName, Mac};

/// The MAC address of the node's end of every workload's veth pair.
pub const HOST_MAC: Mac = Mac([0xee; 6]);

/// The IPv4 gateway of every workload. No interface has it: the node answers for it by proxy ARP.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The IPv6 gateway of every workload: the link-local address that [`HOST_MAC`] gives the node's end (RFC 4291,
/// appendix A).
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// Whether the workload may forward packets between its own interfaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// `net.ipv4.ip_forward` is 0 in the workload.
    #[default]
    Off,
    /// `net.ipv4.ip_forward` is 1 in the workload.
    On,
}

/// How a workload is to be attached to its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The interface on the node.
    pub host_interface: InterfaceName,
    /// The interface in the workload.
    pub interface: InterfaceName,
    /// The MAC address in the workload.
    pub mac: Mac,
    /// The workload's addresses, of either family; each becomes a host route.
    pub addresses: Vec<IpAddr>,
    /// The MTU of both ends in bytes; `None` leaves the kernel's 1500.
    pub mtu: Option<u32>,
    /// The number of transmit and of receive queues of both ends; `None` is one.
    pub queues: Option<u32>,
    /// Whether the workload may forward.
    pub forwarding: Forwarding,
}

/// The steps of plugging in, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// On the node: the pair, and its settings.
    pub create: Vec<Step>,
    /// In the workload's namespace.
    pub inside: Vec<Step>,
    /// On the node, once the workload is ready: the routes to it.
    pub attach: Vec<Step>,
}

/// What to do when a setting cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lenience {
    /// The workload would not work: fail.
    Strict,
    /// A kernel without this setting already behaves as wished: go on when the setting does not exist.
    MayBeAbsent,
    /// Only a nicety: go on whatever happens.
    Lenient,
}

/// One thing to do, in the node's or in the workload's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Remove an interface if there is one of that name.
    RemoveLink {
        /// The interface.
        interface: InterfaceName,
    },
    /// Create the veth pair, with the peer inside the workload's namespace.
    CreatePair {
        /// The node's end.
        host: InterfaceName,
        /// The MAC address of the node's end.
        host_mac: Mac,
        /// The workload's end.
        peer: InterfaceName,
        /// The MAC address of the workload's end.
        peer_mac: Mac,
        /// The MTU of both ends.
        mtu: Option<u32>,
        /// The number of queues of both ends.
        queues: Option<u32>,
    },
    /// Write one setting below `/proc/sys/net`.
    Set {
        /// The path below `/proc/sys/net`.
        setting: String,
        /// The value.
        value: u8,
        /// What to do when it cannot be written.
        lenience: Lenience,
    },
    /// Give an interface an address, without looking for a duplicate first.
    AddAddress {
        /// The interface.
        interface: InterfaceName,
        /// The address and the length of its prefix.
        addr: InterfaceAddr,
    },
    /// Set an interface up.
    SetUp {
        /// The interface.
        interface: InterfaceName,
    },
    /// Say for good which MAC address a neighbour has.
    AddNeighbour {
        /// The interface.
        interface: InterfaceName,
        /// The neighbour.
        addr: IpAddr,
        /// Its MAC address.
        mac: Mac,
    },
    /// Add a route to what is on the link itself.
    AddLinkRoute {
        /// The interface.
        interface: InterfaceName,
        /// The destination.
        dst: Cidr,
    },
    /// Add the route to everything else.
    AddDefaultRoute {
        /// The interface.
        interface: InterfaceName,
        /// The gateway.
        via: IpAddr,
    },
    /// Route a workload's address to its interface. A route left behind by another interface is replaced, unless that
    /// interface is another workload's.
    AddWorkloadRoute {
        /// The node's end.
        interface: InterfaceName,
        /// The address, as a network of one.
        dst: Cidr,
    },
}

/// Says what it takes to plug in `attachment`.
///
/// # Examples
/// ```
/// use calico_node::workload::{Attachment, Forwarding, plan};
/// let plan = plan(&Attachment {
///     host_interface: "cali0123456789a".parse()?,
///     interface: "eth0".parse()?,
///     mac: "02:00:00:00:00:01".parse()?,
///     addresses: vec!["192.168.3.65".parse()?],
///     mtu: Some(1450),
///     queues: None,
///     forwarding: Forwarding::Off,
/// });
/// let last = plan.attach.last().map(ToString::to_string);
/// assert_eq!(last.as_deref(), Some("route 192.168.3.65/32 to cali0123456789a"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn plan(attachment: &Attachment) -> Plan {
    Plan { create: create(attachment), inside: inside(attachment), attach: attach(attachment) }
}

impl Attachment {
    fn has(&self, family: Family) -> bool {
        self.addresses.iter().any(|addr| Family::of(*addr) == family)
    }
}

fn create(attachment: &Attachment) -> Vec<Step> {
    let host = &attachment.host_interface;
    let mut steps = vec![
        Step::RemoveLink { interface: host.clone() },
        Step::CreatePair {
            host: host.clone(),
            host_mac: HOST_MAC,
            peer: attachment.interface.clone(),
            peer_mac: attachment.mac,
            mtu: attachment.mtu,
            queues: attachment.queues,
        },
    ];
    if attachment.has(Family::V4) {
        // Answer at once for the gateway; by default the kernel waits a random time up to 0.8 s.
        steps.push(set(format!("ipv4/neigh/{host}/proxy_delay"), 0, Lenience::Lenient));
        steps.push(set(format!("ipv4/conf/{host}/proxy_arp"), 1, Lenience::Strict));
        steps.push(set(format!("ipv4/conf/{host}/forwarding"), 1, Lenience::Strict));
    }
    // Whatever a workload says in router advertisements must not reach the node's routing table.
    steps.push(set(format!("ipv6/conf/{host}/accept_ra"), 0, Lenience::MayBeAbsent));
    if attachment.has(Family::V6) {
        steps.push(set(format!("ipv6/conf/{host}/disable_ipv6"), 0, Lenience::Strict));
        steps.push(set(format!("ipv6/conf/{host}/proxy_ndp"), 1, Lenience::Strict));
        steps.push(set(format!("ipv6/conf/{host}/forwarding"), 1, Lenience::Strict));
        // How the kernel would choose this address is a setting (addr_gen_mode); the gateway must not depend on it.
        steps.push(Step::AddAddress { interface: host.clone(), addr: interface_addr(GATEWAY_V6.into(), 64) });
    } else {
        steps.push(set(format!("ipv6/conf/{host}/disable_ipv6"), 1, Lenience::MayBeAbsent));
    }
    steps.push(Step::SetUp { interface: host.clone() });
    steps
}

fn inside(attachment: &Attachment) -> Vec<Step> {
    let interface = &attachment.interface;
    let mut steps = Vec::new();
    if attachment.has(Family::V4) {
        let forward = u8::from(attachment.forwarding == Forwarding::On);
        steps.push(set("ipv4/ip_forward".to_owned(), forward, Lenience::Strict));
    }
    if attachment.has(Family::V6) {
        steps.push(set(format!("ipv6/conf/{interface}/disable_ipv6"), 0, Lenience::Strict));
        steps.push(set(format!("ipv6/conf/{interface}/accept_dad"), 0, Lenience::Strict));
    }
    for addr in &attachment.addresses {
        let addr = interface_addr(*addr, Family::of(*addr).bits());
        steps.push(Step::AddAddress { interface: interface.clone(), addr });
    }
    steps.push(Step::SetUp { interface: interface.clone() });
    let gateways = [(Family::V4, IpAddr::from(GATEWAY_V4)), (Family::V6, IpAddr::from(GATEWAY_V6))];
    for (_, via) in gateways.into_iter().filter(|(family, _)| attachment.has(*family)) {
        // A link-local gateway is on the link already.
        if via.is_ipv4() {
            steps.push(Step::AddLinkRoute { interface: interface.clone(), dst: Cidr::host(via) });
        }
        steps.push(Step::AddDefaultRoute { interface: interface.clone(), via });
        steps.push(Step::AddNeighbour { interface: interface.clone(), addr: via, mac: HOST_MAC });
    }
    steps
}

fn attach(attachment: &Attachment) -> Vec<Step> {
    let route = |addr: &IpAddr| Step::AddWorkloadRoute {
        interface: attachment.host_interface.clone(),
        dst: Cidr::host(*addr),
    };
    attachment.addresses.iter().map(route).collect()
}

fn set(setting: String, value: u8, lenience: Lenience) -> Step {
    Step::Set { setting, value, lenience }
}

fn interface_addr(addr: IpAddr, prefix_len: u8) -> InterfaceAddr {
    InterfaceAddr::new(addr, prefix_len).expect("the length is at most the family's")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveLink { interface } => write!(f, "remove the interface {interface}"),
            Self::CreatePair { host, peer, .. } => write!(f, "create the veth pair {host} and {peer}"),
            Self::Set { setting, value, .. } => write!(f, "write {value} to /proc/sys/net/{setting}"),
            Self::AddAddress { interface, addr } => write!(f, "give {interface} the address {addr}"),
            Self::SetUp { interface } => write!(f, "set {interface} up"),
            Self::AddNeighbour { interface, addr, mac } => {
                write!(f, "make {mac} the neighbour {addr} of {interface}")
            }
            Self::AddLinkRoute { interface, dst } | Self::AddWorkloadRoute { interface, dst } => {
                write!(f, "route {dst} to {interface}")
            }
            Self::AddDefaultRoute { interface, via } => {
                write!(f, "route everything else via {via} on {interface}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(addresses: &[&str]) -> Attachment {
        Attachment {
            host_interface: "cali0".parse().unwrap(),
            interface: "eth0".parse().unwrap(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
            mtu: None,
            queues: None,
            forwarding: Forwarding::Off,
        }
    }

    fn texts(steps: &[Step]) -> Vec<String> {
        steps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_workload_without_ipv6_gets_none_on_the_node() {
        let plan = plan(&attachment(&["10.0.0.1"]));
        let create = texts(&plan.create);
        assert!(create.contains(&"write 1 to /proc/sys/net/ipv6/conf/cali0/disable_ipv6".to_owned()));
        assert!(create.contains(&"write 1 to /proc/sys/net/ipv4/conf/cali0/proxy_arp".to_owned()));
        assert_eq!(
            texts(&plan.inside),
            [
                "write 0 to /proc/sys/net/ipv4/ip_forward",
                "give eth0 the address 10.0.0.1/32",
                "set eth0 up",
                "route 169.254.1.1/32 to eth0",
                "route everything else via 169.254.1.1 on eth0",
                "make ee:ee:ee:ee:ee:ee the neighbour 169.254.1.1 of eth0",
            ]
        );
    }

    #[test]
    fn a_workload_of_both_families_has_two_gateways_and_two_routes_to_it() {
        let plan = plan(&attachment(&["10.0.0.1", "fd00::1"]));
        let inside = texts(&plan.inside);
        assert!(inside.contains(&"route everything else via fe80::ecee:eeff:feee:eeee on eth0".to_owned()));
        assert!(inside.contains(&"give eth0 the address fd00::1/128".to_owned()));
        assert_eq!(texts(&plan.attach), ["route 10.0.0.1/32 to cali0", "route fd00::1/128 to cali0"]);
    }

    #[test]
    fn the_ipv6_gateway_is_the_link_local_address_of_the_node_end() {
        let [a, b, c, d, e, f] = HOST_MAC.0;
        let eui64 = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        assert_eq!(GATEWAY_V6.octets()[8..], eui64);
    }
}
