//! A packet as one node sees it, and what may become of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use calico_model::resource::{FelixConfiguration, PortMatch};
use calico_model::{Family, InterfaceName, NodeName, Protocol};

/// The first or a later packet of a flow, on its way through one node.
///
/// Addresses and ports are those after the translation of the destination (Services), which is when policy looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The node that sees it.
    pub node: NodeName,
    /// Where it enters and leaves the node.
    pub path: Path,
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The destination before its translation, when that was another. Only untracked and pre-DNAT policy look at it.
    pub original_destination: Option<Destination>,
    /// What the packet carries.
    pub transport: Transport,
    /// What connection tracking says of it.
    pub state: ConnectionState,
}

/// An address and, where the protocol has them, a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// The address.
    pub addr: IpAddr,
    /// The port; not looked at when the protocol has none.
    pub port: u16,
}

/// Where a packet enters and leaves a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// From one interface to another.
    Forward {
        /// The interface it came in by.
        from: InterfaceName,
        /// The interface it is routed to.
        to: InterfaceName,
    },
    /// From an interface to the node itself.
    ToHost {
        /// The interface it came in by.
        from: InterfaceName,
    },
    /// From the node itself, from an address of its own, to an interface.
    FromHost {
        /// The interface it was first routed to, which the kernel's output hook sees also after the destination has been
        /// translated.
        first: InterfaceName,
        /// The interface it leaves by: another when the translation of its destination, or a mark, has led it elsewhere.
        to: InterfaceName,
    },
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A protocol with ports: TCP, UDP or SCTP.
    Ports {
        /// Which of them.
        protocol: PortProtocol,
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
    },
    /// ICMP over IPv4, ICMPv6 over IPv6.
    Icmp {
        /// The type.
        icmp_type: u8,
        /// The code.
        code: u8,
    },
    /// A protocol of which policy sees the number alone; never one of those above.
    Other(OtherProtocol),
}

/// A protocol whose packets carry ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl PortProtocol {
    /// All of them.
    pub const ALL: [PortProtocol; 3] = [PortProtocol::Tcp, PortProtocol::Udp, PortProtocol::Sctp];

    /// Returns the protocol.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            PortProtocol::Tcp => Protocol::TCP,
            PortProtocol::Udp => Protocol::UDP,
            PortProtocol::Sctp => Protocol::SCTP,
        }
    }
}

/// A protocol that has neither ports nor ICMP types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OtherProtocol(Protocol);

impl OtherProtocol {
    /// Makes it; `None` for TCP, UDP, SCTP, ICMP and ICMPv6.
    #[must_use]
    pub fn new(protocol: Protocol) -> Option<Self> {
        let known = protocol.has_ports() || matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
        (!known).then_some(Self(protocol))
    }

    /// Returns the protocol.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        self.0
    }
}

/// The bit of a conntrack entry's mark that says that policy has ceased to allow the flow. The other bits are others'.
pub const WITHDRAWN_MARK: u32 = 0x8000_0000;

/// What connection tracking says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionState {
    /// It begins a flow.
    New,
    /// It belongs to a flow that was let through, or is an error about one.
    Established,
    /// It belongs to such a flow, which policy has ceased to allow: its entry carries [`WITHDRAWN_MARK`].
    Withdrawn,
    /// It belongs to no flow and cannot begin one.
    Invalid,
    /// It is not tracked.
    Untracked,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It may pass.
    Allow,
    /// It does not pass.
    Deny,
}

/// Whether the sender of a denied packet hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Told {
    /// It hears nothing.
    Nothing,
    /// It hears by ICMP that the port is not reached, which a program sees as a refused connection.
    Unreachable,
}

/// What becomes of a packet's source address. Decided by the first packet of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceNat {
    /// It stays.
    Keep,
    /// Another takes its place.
    Change(NewSource),
}

/// What a packet's source becomes where it leaves all pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NewSource {
    /// The address (`natOutgoingAddress`); the node's own on the outgoing interface when none is set.
    pub addr: Option<Ipv4Addr>,
    /// From which port to which its own is chosen (`natPortRange`), both included; any when none is set.
    pub ports: Option<(u16, u16)>,
}

impl NewSource {
    /// The protocols whose source ports `natPortRange` bounds.
    pub(crate) const BOUND: [Protocol; 2] = [Protocol::TCP, Protocol::UDP];

    /// Returns what the configuration asks for of packets of a family that are of no [bound](Self::BOUND) protocol.
    pub(crate) fn of(felix: &FelixConfiguration, family: Family) -> Self {
        Self { addr: felix.nat_outgoing_address.filter(|_| family == Family::V4), ports: None }
    }

    /// The same of packets of the bound protocols; `None` when the configuration bounds no ports.
    pub(crate) fn bound(felix: &FelixConfiguration, family: Family) -> Option<Self> {
        let Some(PortMatch::Range(first, last)) = felix.nat_port_range else { return None };
        // No packet comes from port zero.
        (last > 0).then(|| Self { ports: Some((first.max(1), last)), ..Self::of(felix, family) })
    }
}

/// Everything that policy decides about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outcome {
    /// Whether it passes.
    pub verdict: Verdict,
    /// Whether its sender hears that it does not (`nftablesFilterDenyAction`, `iptablesFilterDenyAction`).
    pub told: Told,
    /// What becomes of its source address, when it passes.
    pub source_nat: SourceNat,
}

impl Outcome {
    /// The packet passes as it is.
    pub const ALLOWED: Outcome =
        Outcome { verdict: Verdict::Allow, told: Told::Nothing, source_nat: SourceNat::Keep };
    /// The packet is dropped.
    pub const DROPPED: Outcome = Outcome { verdict: Verdict::Deny, ..Outcome::ALLOWED };
    /// The packet is dropped, and its sender is told.
    pub const REJECTED: Outcome = Outcome { told: Told::Unreachable, ..Outcome::DROPPED };
}

impl Transport {
    /// Makes TCP from a client's port.
    #[must_use]
    pub fn tcp(destination: u16) -> Self {
        Self::Ports { protocol: PortProtocol::Tcp, source: 40_000, destination }
    }

    /// Makes UDP from a client's port.
    #[must_use]
    pub fn udp(destination: u16) -> Self {
        Self::Ports { protocol: PortProtocol::Udp, source: 40_000, destination }
    }

    /// Returns the IP protocol, which for ICMP depends on the family.
    #[must_use]
    pub fn protocol(self, family: Family) -> Protocol {
        match self {
            Transport::Ports { protocol, .. } => protocol.protocol(),
            Transport::Icmp { .. } => icmp_of(family),
            Transport::Other(other) => other.protocol(),
        }
    }
}

/// Returns the ICMP of a family.
pub(crate) fn icmp_of(family: Family) -> Protocol {
    match family {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    }
}

impl Path {
    /// Makes the path of what the node itself sends, and nothing leads elsewhere on its way.
    #[must_use]
    pub fn from_host(to: InterfaceName) -> Self {
        Path::FromHost { first: to.clone(), to }
    }

    /// Returns the interface that what the node itself sends was first routed to.
    pub(crate) fn first(&self) -> Option<&InterfaceName> {
        if let Path::FromHost { first, .. } = self { Some(first) } else { None }
    }

    /// Returns the interface the packet came in by.
    #[must_use]
    pub fn from(&self) -> Option<&InterfaceName> {
        match self {
            Path::Forward { from, .. } | Path::ToHost { from } => Some(from),
            Path::FromHost { .. } => None,
        }
    }

    /// Returns the interface the packet leaves by.
    #[must_use]
    pub fn to(&self) -> Option<&InterfaceName> {
        match self {
            Path::Forward { to, .. } | Path::FromHost { to, .. } => Some(to),
            Path::ToHost { .. } => None,
        }
    }
}

impl Packet {
    /// Makes the first packet of a flow, to a destination that is not translated.
    ///
    /// `None` when the addresses are of different families.
    #[must_use]
    pub fn new(
        node: NodeName,
        path: Path,
        source: IpAddr,
        destination: IpAddr,
        transport: Transport,
    ) -> Option<Self> {
        (Family::of(source) == Family::of(destination)).then_some(Self {
            node,
            path,
            source,
            destination,
            original_destination: None,
            transport,
            state: ConnectionState::New,
        })
    }

    /// Returns the same packet in another state.
    #[must_use]
    pub fn in_state(self, state: ConnectionState) -> Self {
        Self { state, ..self }
    }

    /// Returns the address family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.destination)
    }

    /// Returns the IP protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.transport.protocol(self.family())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Allow => "allowed",
            Verdict::Deny => "denied",
        })
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol();
        match self.transport {
            Transport::Ports { destination, .. } => {
                write!(f, "{protocol} from {} to {} port {destination}", self.source, self.destination)?;
            }
            Transport::Icmp { icmp_type, .. } => {
                write!(f, "{protocol} type {icmp_type} from {} to {}", self.source, self.destination)?;
            }
            Transport::Other(_) => {
                write!(f, "protocol {protocol} from {} to {}", self.source, self.destination)?
            }
        }
        match &self.path {
            Path::Forward { from, to } => write!(f, " through {} ({from} to {to})", self.node),
            Path::ToHost { from } => write!(f, " to the host {} ({from})", self.node),
            Path::FromHost { to, .. } => write!(f, " from the host {} ({to})", self.node),
        }
    }
}
