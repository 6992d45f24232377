//! Routes, as they are wanted and as the kernel has them.
//!
//! Both are keyed the way the kernel keys them ([`RouteKey`]). A wanted route names its next hops in the terms of the
//! datastore ([`NextHop`]): "over this tunnel", "over the device that holds our node address", "however the host gets
//! there". An [`Installed`] route names devices. Between the two stands [`resolve`](crate::resolve), which
//! needs the machine's links and routes as a value, so that nothing here has to know them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use calico_model::{Cidr, Family, InterfaceName};

/// The kernel's main routing table, in which all our routes are.
pub const MAIN_TABLE: u32 = 254;

/// What the kernel tells two routes apart by. The type of service of ours is always 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The routing table.
    pub table: u32,
    /// The destination.
    pub prefix: Cidr,
    /// The metric; of two routes to one destination the lower one is used.
    pub priority: u32,
}

impl RouteKey {
    /// What the kernel makes of an IPv6 metric of 0.
    const DEFAULT_V6_PRIORITY: u32 = 1024;

    /// Makes the key of a route in the main table.
    #[must_use]
    pub fn main(prefix: Cidr, priority: u32) -> Self {
        let unset = priority == 0 && prefix.family() == Family::V6;
        let priority = if unset { Self::DEFAULT_V6_PRIORITY } else { priority };
        Self { table: MAIN_TABLE, prefix, priority }
    }

    /// Returns the keys of all routes in the main table to one destination.
    #[must_use]
    pub fn all_to(prefix: Cidr) -> RangeInclusive<Self> {
        let key = |priority| Self { table: MAIN_TABLE, prefix, priority };
        key(0)..=key(u32::MAX)
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} metric {}", self.prefix, self.priority)?;
        if self.table == MAIN_TABLE { Ok(()) } else { write!(f, " table {}", self.table) }
    }
}

/// What a route is for. When two routes want one key, the class that comes first here has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// To a workload of this node.
    LocalWorkload,
    /// To a block of a VXLAN pool on a node of our subnet, unencapsulated.
    VxlanSameSubnet,
    /// To a block of a VXLAN pool through the tunnel.
    VxlanTunnel,
    /// To a block of an IP-in-IP pool on a node of our subnet, unencapsulated.
    IpipSameSubnet,
    /// To a block of an IP-in-IP pool through the tunnel.
    IpipTunnel,
    /// To a block of a pool without encapsulation, from the datastore.
    NoEncap,
    /// Drops what is sent to addresses of our blocks that no workload has.
    Blackhole,
    /// Learned from a BGP peer. What the datastore says of the same destination is better knowledge.
    Learned,
}

/// A route that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What it is for.
    pub class: Class,
    /// Where it leads.
    pub target: Target,
}

/// Where a wanted route leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// To the far end of a device, without a gateway.
    Device(InterfaceName),
    /// Nowhere: the packets are dropped.
    Blackhole,
    /// To one of these gateways; never empty.
    Gateways(BTreeSet<NextHop>),
}

impl Target {
    /// Makes the target of one gateway.
    #[must_use]
    pub fn via(gateway: IpAddr, reach: Reach) -> Self {
        Self::Gateways([NextHop { gateway, reach }].into())
    }
}

/// A gateway of a wanted route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The gateway's address.
    pub gateway: IpAddr,
    /// How it is reached.
    pub reach: Reach,
}

/// How a gateway is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Over this device, whatever the kernel thinks of the address (`onlink`).
    Onlink(InterfaceName),
    /// Over the device that holds the node's own address.
    NodeDevice,
    /// However the host gets there: over the subnet it is in, or by the gateway of the host's best route to it.
    Resolved,
}

/// A route that the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Installed {
    /// Who put it there, by the kernel's protocol number.
    pub protocol: u8,
    /// Where it leads.
    pub form: Form,
}

/// Where a route leads, in the kernel's terms.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// To the far end of a device, without a gateway.
    Device(InterfaceName),
    /// Nowhere: the packets are dropped.
    Blackhole,
    /// To one of these gateways.
    Gateways(BTreeSet<Gateway>),
    /// Something that is never wanted, such as a route with a source address of its own.
    Other(Odd),
}

/// A route such as we never write.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Odd {
    /// What it is.
    pub what: String,
    /// The device it leads over; of several, the first. Of a route of others, the first over which it leads without a gateway.
    pub device: Option<InterfaceName>,
    /// Whether it is chosen by more than the destination, such as a type of service, so that it stands beside the routes of its
    /// key: none takes its place.
    pub is_apart: bool,
    /// The kernel's own words for it, of a route of ours. Said back to the kernel they mean this one: what is odd about a
    /// route is often all that it differs in from another of its key.
    pub words: Vec<u8>,
}

impl Form {
    /// Reports whether it stands beside the routes of its key, and none takes its place.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        matches!(self, Form::Other(odd) if odd.is_apart)
    }

    /// Walks the devices the route leads over.
    pub fn devices(&self) -> impl Iterator<Item = &InterfaceName> {
        let (device, gateways) = match self {
            Form::Device(device) => (Some(device), None),
            Form::Gateways(gateways) => (None, Some(gateways)),
            Form::Other(odd) => (odd.device.as_ref(), None),
            Form::Blackhole => (None, None),
        };
        device.into_iter().chain(gateways.into_iter().flatten().map(|gateway| &gateway.device))
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Device(device) => write!(f, "dev {device} scope link"),
            Form::Blackhole => f.write_str("blackhole"),
            Form::Gateways(gateways) if gateways.len() == 1 => {
                gateways.iter().try_for_each(|gateway| gateway.fmt(f))
            }
            Form::Gateways(gateways) => {
                f.write_str("multipath")?;
                gateways.iter().try_for_each(|gateway| write!(f, " nexthop {gateway}"))
            }
            Form::Other(odd) => f.write_str(&odd.what),
        }
    }
}

/// A gateway of a route that the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// The device it is reached over.
    pub device: InterfaceName,
    /// Whether the kernel was told not to ask if the address is on the device's link.
    pub onlink: bool,
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "via {} dev {}", self.address, self.device)?;
        if self.onlink { f.write_str(" onlink") } else { Ok(()) }
    }
}
