//! The route netlink of one network namespace, in the few words that plugging needs.

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use calico_model::{Cidr, Family, InterfaceAddr, InterfaceName, Mac};
use calico_route::ownership::PROTOCOL;
use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};
use tokio::task::JoinHandle;

use super::WorkloadError;

/// The metric of the agent's routes to workloads, unless a FelixConfiguration says otherwise; then the agent makes the
/// route anew.
const ROUTE_PRIORITY: u32 = 1024;

/// A netlink socket in the namespace of the thread that opened it.
pub(super) struct Kernel {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// An interface as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: Option<u32>,
    pub(super) up: bool,
}

/// A route as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouteFound {
    pub(super) dst: Option<Cidr>,
    pub(super) interface: Option<u32>,
    pub(super) gateway: Option<IpAddr>,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Link,
    Gateway(IpAddr),
}

/// Whose route it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The node's: marked as the agent marks its own, so that the agent finds it as it would have made it.
    Node,
    /// The workload's: a route as an administrator's boot script makes it.
    Workload,
}

/// What to do when a route to the same destination is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfThere {
    Fail,
    Replace,
}

pub(super) struct Pair<'a> {
    pub(super) host: &'a InterfaceName,
    pub(super) host_mac: Mac,
    pub(super) peer: &'a InterfaceName,
    pub(super) peer_mac: Mac,
    pub(super) peer_netns: RawFd,
    pub(super) mtu: Option<u32>,
    pub(super) queues: Option<u32>,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Kernel {
    pub(super) fn connect() -> Result<Self, WorkloadError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(WorkloadError::Connect)?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Creates a veth pair whose peer begins its life in another namespace.
    pub(super) async fn create_pair(&self, pair: &Pair<'_>) -> io::Result<()> {
        let mut peer = LinkMessageBuilder::<LinkUnspec>::default()
            .name(pair.peer.as_str())
            .address(pair.peer_mac.0.to_vec())
            .setns_by_fd(pair.peer_netns);
        let mut host =
            LinkVeth::new(pair.host.as_str(), pair.peer.as_str()).address(pair.host_mac.0.to_vec());
        if let Some(mtu) = pair.mtu {
            (peer, host) = (peer.mtu(mtu), host.mtu(mtu));
        }
        if let Some(queues) = pair.queues {
            let counts = [LinkAttribute::NumTxQueues(queues), LinkAttribute::NumRxQueues(queues)];
            peer = counts.iter().cloned().fold(peer, LinkMessageBuilder::append_extra_attribute);
            host = counts.into_iter().fold(host, LinkMessageBuilder::append_extra_attribute);
        }
        let message = host.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
        self.handle.link().add(message).execute().await.map_err(io_error)
    }

    /// Finds an interface by name.
    pub(super) async fn link(&self, name: &InterfaceName) -> io::Result<Option<Link>> {
        let found = self.handle.link().get().match_name(name.as_str()).execute().try_next().await;
        match found.map_err(io_error) {
            Ok(message) => Ok(message.map(|message| read_link(&message))),
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds the name of an interface.
    pub(super) async fn link_name(&self, index: u32) -> io::Result<Option<InterfaceName>> {
        let found =
            self.handle.link().get().match_index(index).execute().try_next().await.map_err(io_error)?;
        Ok(found.and_then(|message| {
            message.attributes.iter().find_map(|attribute| {
                if let LinkAttribute::IfName(name) = attribute { name.parse().ok() } else { None }
            })
        }))
    }

    pub(super) async fn delete_link(&self, index: u32) -> io::Result<()> {
        self.handle.link().del(index).execute().await.map_err(io_error)
    }

    pub(super) async fn set_up(&self, index: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.map_err(io_error)
    }

    pub(super) async fn add_address(&self, index: u32, addr: InterfaceAddr) -> io::Result<()> {
        // The builder would add a broadcast address, which a network of one does not have.
        let mut request = self.handle.address().add(index, addr.addr(), addr.prefix_len());
        let message = request.message_mut();
        message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
        message.header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.map_err(io_error)
    }

    /// Reads the addresses of an interface.
    pub(super) async fn addresses(&self, index: u32) -> io::Result<Vec<InterfaceAddr>> {
        let messages: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(io_error)?;
        let own = messages.iter().filter(|message| message.header.index == index);
        Ok(own
            .filter_map(|message| {
                let addr = message.attributes.iter().find_map(|attribute| {
                    if let AddressAttribute::Address(addr) = attribute { Some(*addr) } else { None }
                })?;
                InterfaceAddr::new(addr, message.header.prefix_len)
            })
            .collect())
    }

    pub(super) async fn add_neighbour(&self, index: u32, addr: IpAddr, mac: Mac) -> io::Result<()> {
        let request = self.handle.neighbours().add(index, addr).link_layer_address(&mac.0);
        request.replace().execute().await.map_err(io_error)
    }

    pub(super) async fn add_route(
        &self,
        index: u32,
        dst: Cidr,
        target: Target,
        origin: Origin,
        if_there: IfThere,
    ) -> io::Result<()> {
        let mut message = route_message(dst);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        if origin == Origin::Node {
            message.header.protocol = RouteProtocol::Other(PROTOCOL);
            message.attributes.push(RouteAttribute::Priority(ROUTE_PRIORITY));
        }
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Oif(index));
        match target {
            Target::Link => message.header.scope = RouteScope::Link,
            Target::Gateway(gateway) => message.attributes.push(RouteAttribute::Gateway(gateway.into())),
        }
        let request = self.handle.route().add(message);
        let request = if if_there == IfThere::Replace { request.replace() } else { request };
        request.execute().await.map_err(io_error)
    }

    /// Finds the route that packets to `addr` take; `None` when there is none.
    pub(super) async fn route_to(&self, addr: IpAddr) -> io::Result<Option<RouteFound>> {
        let mut message = route_message(Cidr::host(addr));
        message.header.flags |= RouteFlags::FibMatch;
        let found = self.handle.route().get(message).execute().try_next().await.map_err(io_error);
        match found {
            Ok(message) => Ok(message.map(|message| read_route(&message))),
            Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::HostUnreachable => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the unicast routes of the main table, of one family.
    pub(super) async fn routes(&self, family: Family) -> io::Result<Vec<RouteFound>> {
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        let messages: Vec<RouteMessage> =
            self.handle.route().get(message).execute().try_collect().await.map_err(io_error)?;
        let main = |message: &&RouteMessage| {
            message.header.table == RouteHeader::RT_TABLE_MAIN && message.header.kind == RouteType::Unicast
        };
        Ok(messages.iter().filter(main).map(read_route).collect())
    }
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn route_message(dst: Cidr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(dst.family());
    message.header.destination_prefix_length = dst.prefix_len();
    if dst.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(dst.addr().into()));
    }
    message
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        mac: None,
        mtu: None,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        if let LinkAttribute::Address(address) = attribute {
            link.mac = <[u8; 6]>::try_from(address.as_slice()).ok().map(Mac);
        }
        if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = Some(*mtu);
        }
    }
    link
}

fn read_route(message: &RouteMessage) -> RouteFound {
    let unspecified: IpAddr = if message.header.address_family == AddressFamily::Inet6 {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    };
    let mut destination = unspecified;
    let mut found = RouteFound { dst: None, interface: None, gateway: None };
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(addr) = attribute {
            destination = ip(addr).unwrap_or(unspecified);
        }
        if let RouteAttribute::Oif(index) = attribute {
            found.interface = Some(*index);
        }
        if let RouteAttribute::Gateway(addr) = attribute {
            found.gateway = ip(addr);
        }
    }
    found.dst = Cidr::holding(destination, message.header.destination_prefix_length);
    found
}

fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(addr) = addr {
        Some((*addr).into())
    } else if let RouteAddress::Inet6(addr) = addr {
        Some((*addr).into())
    } else {
        None
    }
}

/// Turns a netlink error into the error number the kernel answered with.
fn io_error(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = error {
        message.to_io()
    } else {
        io::Error::other(error.to_string())
    }
}
