//! What the kernel lists, as an [`Actual`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_model::{Family, InterfaceAddr, InterfaceName};

use super::codec::{
    AF_BRIDGE, AF_UNSPEC, IFA_ADDRESS, IFA_LABEL, IFA_LOCAL, IFA_PROTO, IFF_LOOPBACK, IFF_UP, IFLA_ADDRESS,
    IFLA_EXT_MASK, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU,
    IFLA_VXLAN_COLLECT_METADATA, IFLA_VXLAN_DF, IFLA_VXLAN_GBP, IFLA_VXLAN_GPE, IFLA_VXLAN_GROUP,
    IFLA_VXLAN_GROUP6, IFLA_VXLAN_ID, IFLA_VXLAN_L2MISS, IFLA_VXLAN_L3MISS, IFLA_VXLAN_LABEL,
    IFLA_VXLAN_LEARNING, IFLA_VXLAN_LIMIT, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LOCAL6,
    IFLA_VXLAN_PORT, IFLA_VXLAN_PORT_RANGE, IFLA_VXLAN_PROXY, IFLA_VXLAN_REMCSUM_RX, IFLA_VXLAN_REMCSUM_TX,
    IFLA_VXLAN_RSC, IFLA_VXLAN_TOS, IFLA_VXLAN_TTL, IFLA_VXLAN_TTL_INHERIT, IFLA_VXLAN_UDP_CSUM,
    IFLA_VXLAN_UDP_ZERO_CSUM6_RX, IFLA_VXLAN_UDP_ZERO_CSUM6_TX, NDA_DST, NDA_IFINDEX, NDA_LLADDR, NDA_NH_ID,
    NDA_PORT, NDA_VNI, NUD_PERMANENT, RTA_TABLE, RTEXT_FILTER_SKIP_STATS, RTM_GETADDR, RTM_GETLINK,
    RTM_GETNEIGH, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE, address, af,
    attributes, family, mac, text, u16_at, u32_at,
};
use super::route::{Names, RawRoute};
use super::socket::{DumpError, NetlinkSocket};
use crate::actual::{Actual, Host, Link, LinkKind, LinkState};
use crate::device::VxlanParams;
use crate::error::ReadError;
use crate::ownership::{Mark, Ownership, PROTOCOL};
use crate::route::MAIN_TABLE;

/// How often a list is asked for again that changed while it was read.
const ATTEMPTS: usize = 5;
/// No such table: nothing was ever routed there.
const ENOENT: i32 = 2;
/// No such link.
const ENODEV: i32 = 19;

type Links = BTreeMap<InterfaceName, Link>;

/// The parent of a VXLAN device is known by number only, and may be listed later than the device.
struct RawLink {
    name: InterfaceName,
    link: Link,
    parent: Option<u32>,
}

/// Reads everything but kernel settings.
pub(super) async fn read(socket: &mut NetlinkSocket, ownership: &Ownership) -> Result<Actual, ReadError> {
    let mut links = read_links(socket).await?;
    let names: Names = links.iter().map(|(name, link)| (link.index, name.clone())).collect();
    read_addresses(socket, &names, &mut links).await?;
    let mut actual = Actual { host: Host { links, ..Host::default() }, ..Actual::default() };
    for family in Family::ALL {
        read_routes(socket, family, &names, ownership, &mut actual).await?;
        read_neighbours(socket, family, &names, ownership, &mut actual).await?;
    }
    if names.values().any(|name| ownership.is_tunnel(name)) {
        read_fdb(socket, &names, ownership, &mut actual).await?;
    }
    Ok(actual)
}

/// Reads the links, without addresses.
pub(super) async fn read_links(socket: &mut NetlinkSocket) -> Result<Links, ReadError> {
    let what = "links";
    for _ in 0..ATTEMPTS {
        let mut raw = Vec::new();
        let filter = |batch: &mut super::codec::Batch| batch.number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let dumped = socket
            .dump(RTM_GETLINK, &[0; 16], filter, |message| {
                if message.kind == RTM_NEWLINK {
                    raw.extend(raw_link(message.body));
                }
            })
            .await;
        if let Some(()) = settle(what, dumped)? {
            let names: Names = raw.iter().map(|raw| (raw.link.index, raw.name.clone())).collect();
            return Ok(raw.into_iter().map(|raw| raw.named(&names)).collect());
        }
    }
    Err(ReadError::Unsteady { what })
}

/// Reads one link, without addresses and without the parent of a VXLAN device; `None` when there is none of the name.
pub(super) async fn read_link(
    socket: &mut NetlinkSocket,
    device: &InterfaceName,
) -> Result<Option<Link>, ReadError> {
    let what = "a link";
    let mut raw = None;
    let filter = |batch: &mut super::codec::Batch| {
        batch.text(IFLA_IFNAME, device.as_str());
        batch.number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    };
    let each = |message: &super::codec::Message<'_>| {
        if message.kind == RTM_NEWLINK {
            raw = raw_link(message.body);
        }
    };
    match socket.get(RTM_GETLINK, &[0; 16], filter, each).await {
        Ok(()) => Ok(raw.map(|raw| raw.link)),
        Err(DumpError::Refused(refusal)) if refusal.errno() == ENODEV => Ok(None),
        Err(error) => settle(what, Err(error)).map(|_| None),
    }
}

async fn read_addresses(
    socket: &mut NetlinkSocket,
    names: &Names,
    links: &mut Links,
) -> Result<(), ReadError> {
    let what = "addresses";
    for _ in 0..ATTEMPTS {
        let mut found = Vec::new();
        let dumped = socket
            .dump(
                RTM_GETADDR,
                &[0; 8],
                |_| {},
                |message| {
                    if message.kind == RTM_NEWADDR {
                        found.extend(raw_address(message.body));
                    }
                },
            )
            .await;
        if let Some(()) = settle(what, dumped)? {
            for (index, addr, mark) in found {
                let Some(name) = names.get(&index) else { continue };
                if let Some(link) = links.get_mut(name) {
                    link.addresses.insert(addr, mark.of(name));
                }
            }
            return Ok(());
        }
    }
    Err(ReadError::Unsteady { what })
}

async fn read_routes(
    socket: &mut NetlinkSocket,
    family: Family,
    names: &Names,
    ownership: &Ownership,
    actual: &mut Actual,
) -> Result<(), ReadError> {
    let what = "routes";
    let mut header = [0; 12];
    header[0] = af(family);
    for _ in 0..ATTEMPTS {
        let mut found = Vec::new();
        let filter = |batch: &mut super::codec::Batch| batch.number(RTA_TABLE, MAIN_TABLE);
        let dumped = socket
            .dump(RTM_GETROUTE, &header, filter, |message| {
                let raw = (message.kind == RTM_NEWROUTE).then(|| RawRoute::parse(message.body)).flatten();
                found.extend(raw.and_then(|raw| {
                    let ours = ownership.owns_route(raw.protocol, raw.device(names));
                    let read = if ours { raw.ours(names, message.body) } else { raw.foreign(names) };
                    read.map(|(key, route)| (ours, key, route))
                }));
            })
            .await;
        if let Some(()) = settle(what, dumped)? {
            for (ours, key, route) in found {
                let side = if ours { &mut actual.routes } else { &mut actual.host.foreign };
                side.entry(key).or_default().push(route);
            }
            return Ok(());
        }
    }
    Err(ReadError::Unsteady { what })
}

async fn read_neighbours(
    socket: &mut NetlinkSocket,
    family: Family,
    names: &Names,
    ownership: &Ownership,
    actual: &mut Actual,
) -> Result<(), ReadError> {
    let found = neighbours(socket, af(family), "neighbours").await?;
    for neighbour in found.into_iter().filter(|neighbour| neighbour.state & NUD_PERMANENT != 0) {
        let Some(name) = names.get(&neighbour.index).filter(|name| ownership.owns_device(name)) else {
            continue;
        };
        // The kernel lists its own multicast neighbours as permanent ones only of IPv6, and never with this type.
        if let (Some(addr), Some(mac)) = (neighbour.addr, neighbour.mac) {
            actual.neighbours.insert((name.clone(), addr), mac);
        }
    }
    Ok(())
}

async fn read_fdb(
    socket: &mut NetlinkSocket,
    names: &Names,
    ownership: &Ownership,
    actual: &mut Actual,
) -> Result<(), ReadError> {
    for entry in neighbours(socket, AF_BRIDGE, "forwarding entries").await? {
        let Some(device) = names.get(&entry.index).filter(|name| ownership.is_tunnel(name)) else { continue };
        let Some(mac) = entry.mac else { continue };
        // One that leads elsewhere than to our port and network there, or over another device, is not what it should be.
        if entry.odd {
            actual.odd_fdb.insert((device.clone(), mac));
        } else if let Some(destination) = entry.addr {
            actual.fdb.entry((device.clone(), mac)).or_default().insert(destination);
        }
    }
    Ok(())
}

struct RawNeighbour {
    index: u32,
    state: u16,
    addr: Option<IpAddr>,
    mac: Option<calico_model::Mac>,
    /// It has what no forwarding entry of ours has.
    odd: bool,
}

async fn neighbours(
    socket: &mut NetlinkSocket,
    af: u8,
    what: &'static str,
) -> Result<Vec<RawNeighbour>, ReadError> {
    let mut header = [0; 12];
    header[0] = af;
    for _ in 0..ATTEMPTS {
        let mut found = Vec::new();
        let dumped = socket
            .dump(
                RTM_GETNEIGH,
                &header,
                |_| {},
                |message| {
                    if message.kind == RTM_NEWNEIGH {
                        found.extend(raw_neighbour(message.body));
                    }
                },
            )
            .await;
        if let Some(()) = settle(what, dumped)? {
            return Ok(found);
        }
    }
    Err(ReadError::Unsteady { what })
}

/// Sorts how a list ended: whole, interrupted (`None`: ask again), or not to be had.
fn settle(what: &'static str, dumped: Result<(), DumpError>) -> Result<Option<()>, ReadError> {
    match dumped {
        Ok(()) => Ok(Some(())),
        Err(DumpError::Interrupted) => Ok(None),
        Err(DumpError::Refused(refusal)) if refusal.errno() == ENOENT => Ok(Some(())),
        Err(DumpError::Refused(refusal)) => Err(ReadError::Refused { what, refusal }),
        Err(DumpError::Socket(source)) => Err(ReadError::Socket { what, source }),
    }
}

fn raw_link(body: &[u8]) -> Option<RawLink> {
    let mut name = None;
    let mut parent = None;
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index: u32_at(body, 4)?,
        state: if flags & IFF_UP != 0 { LinkState::Up } else { LinkState::Down },
        mtu: 0,
        mac: None,
        master: None,
        kind: if flags & IFF_LOOPBACK != 0 { LinkKind::Loopback } else { LinkKind::Other },
        addresses: BTreeMap::new(),
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => name = text(value).and_then(|name| name.parse().ok()),
            IFLA_ADDRESS => link.mac = mac(value),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_MASTER => link.master = u32_at(value, 0),
            IFLA_LINKINFO => (link.kind, parent) = link_kind(value),
            _ => {}
        }
    }
    Some(RawLink { name: name?, link, parent })
}

fn link_kind(info: &[u8]) -> (LinkKind, Option<u32>) {
    let kind = attributes(info).find(|(kind, _)| *kind == IFLA_INFO_KIND).and_then(|(_, value)| text(value));
    let data = attributes(info).find(|(kind, _)| *kind == IFLA_INFO_DATA).map_or(&[][..], |(_, value)| value);
    match kind {
        Some("vxlan") => {
            let (params, parent) = vxlan(data);
            (LinkKind::Vxlan(params), parent)
        }
        Some("ipip") => (LinkKind::Ipip, None),
        Some("dummy") => (LinkKind::Loopback, None),
        _ => (LinkKind::Other, None),
    }
}

fn vxlan(data: &[u8]) -> (VxlanParams, Option<u32>) {
    let mut params =
        VxlanParams { vni: 0, port: 0, local: None, parent: None, learning: false, others: Vec::new() };
    let mut parent = None;
    for (kind, value) in attributes(data) {
        match kind {
            IFLA_VXLAN_ID => params.vni = u32_at(value, 0).unwrap_or(0),
            IFLA_VXLAN_LINK => parent = u32_at(value, 0),
            IFLA_VXLAN_LOCAL | IFLA_VXLAN_LOCAL6 => params.local = address(value),
            IFLA_VXLAN_LEARNING => params.learning = value.first().is_some_and(|learning| *learning != 0),
            IFLA_VXLAN_PORT => params.port = u16::from_be(u16_at(value, 0).unwrap_or(0)),
            IFLA_VXLAN_UDP_CSUM => params.others.extend((!is_set(value)).then_some("noudpcsum")),
            kind => params.others.extend(oddity(kind).filter(|_| is_set(value))),
        }
    }
    (params, parent)
}

/// Names an attribute that no VXLAN device of ours has. How long learned entries last is nothing to those that do not
/// learn.
fn oddity(kind: u16) -> Option<&'static str> {
    let names = [
        (IFLA_VXLAN_GROUP, "remote"),
        (IFLA_VXLAN_GROUP6, "remote"),
        (IFLA_VXLAN_TTL, "ttl"),
        (IFLA_VXLAN_TTL_INHERIT, "ttl inherit"),
        (IFLA_VXLAN_TOS, "tos"),
        (IFLA_VXLAN_LABEL, "flowlabel"),
        (IFLA_VXLAN_DF, "df"),
        (IFLA_VXLAN_LIMIT, "maxaddress"),
        (IFLA_VXLAN_PROXY, "proxy"),
        (IFLA_VXLAN_RSC, "rsc"),
        (IFLA_VXLAN_L2MISS, "l2miss"),
        (IFLA_VXLAN_L3MISS, "l3miss"),
        (IFLA_VXLAN_GBP, "gbp"),
        (IFLA_VXLAN_GPE, "gpe"),
        (IFLA_VXLAN_COLLECT_METADATA, "external"),
        (IFLA_VXLAN_PORT_RANGE, "srcport"),
        (IFLA_VXLAN_UDP_ZERO_CSUM6_TX, "udp6zerocsumtx"),
        (IFLA_VXLAN_UDP_ZERO_CSUM6_RX, "udp6zerocsumrx"),
        (IFLA_VXLAN_REMCSUM_TX, "remcsumtx"),
        (IFLA_VXLAN_REMCSUM_RX, "remcsumrx"),
    ];
    names.into_iter().find(|(known, _)| *known == kind).map(|(_, name)| name)
}

/// Some attributes are set by being there, the others by their value.
fn is_set(value: &[u8]) -> bool {
    value.is_empty() || value.iter().any(|byte| *byte != 0)
}

impl RawLink {
    fn named(mut self, names: &Names) -> (InterfaceName, Link) {
        if let LinkKind::Vxlan(params) = &mut self.link.kind {
            params.parent = self.parent.and_then(|parent| names.get(&parent).cloned());
        }
        (self.name, self.link)
    }
}

/// An address without a label of its own is labelled with its device's name.
#[derive(Default)]
struct RawMark {
    label: Option<String>,
    protocol: Option<u8>,
}

impl RawMark {
    fn of(self, device: &InterfaceName) -> Option<Mark> {
        let label = self.label.filter(|label| label != device.as_str()).map(Mark::Label);
        label.or_else(|| (self.protocol == Some(PROTOCOL)).then_some(Mark::Protocol))
    }
}

fn raw_address(body: &[u8]) -> Option<(u32, InterfaceAddr, RawMark)> {
    let (af, len, index) = (*body.first()?, *body.get(1)?, u32_at(body, 4)?);
    family(af)?;
    let (mut local, mut remote, mut mark) = (None, None, RawMark::default());
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            IFA_LOCAL => local = address(value),
            IFA_ADDRESS => remote = address(value),
            IFA_LABEL => mark.label = text(value).map(str::to_owned),
            IFA_PROTO => mark.protocol = value.first().copied(),
            _ => {}
        }
    }
    Some((index, InterfaceAddr::new(local.or(remote)?, len)?, mark))
}

fn raw_neighbour(body: &[u8]) -> Option<RawNeighbour> {
    if *body.first()? == AF_UNSPEC {
        return None;
    }
    let mut neighbour =
        RawNeighbour { index: u32_at(body, 4)?, state: u16_at(body, 8)?, addr: None, mac: None, odd: false };
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            NDA_DST => neighbour.addr = address(value),
            NDA_LLADDR => neighbour.mac = mac(value),
            NDA_PORT | NDA_VNI | NDA_IFINDEX | NDA_NH_ID => neighbour.odd = true,
            _ => {}
        }
    }
    Some(neighbour)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::codec::{Batch, messages};

    #[test]
    fn a_dummy_link_is_none_that_carries_packets_away() {
        let kind_of = |kind: &str| {
            let mut batch = Batch::default();
            batch.text(IFLA_INFO_KIND, kind);
            link_kind(batch.bytes()).0
        };
        assert_eq!([kind_of("dummy"), kind_of("veth")], [LinkKind::Loopback, LinkKind::Other]);
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_they_are_read_or_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let names = Names::new();
            for body in messages(&bytes).map(|message| message.body).chain([&bytes[..]]) {
                let _ = raw_link(body).map(|raw| raw.named(&names));
                let _ = (raw_address(body), raw_neighbour(body));
                let _ = RawRoute::parse(body).map(|route| route.foreign(&names));
                let _ = RawRoute::parse(body).map(|route| route.ours(&names, body));
            }
        }
    }
}
