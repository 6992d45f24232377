//! Links, addresses, routes and neighbours that change under us.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use calico_model::InterfaceName;

use super::codec::{
    AF_BRIDGE, AF_UNSPEC, IFLA_IFNAME, NDA_DST, NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL, NLMSG_OVERRUN,
    NUD_PERMANENT, RTA_TABLE, RTM_DELADDR, RTM_DELLINK, RTM_DELNEIGH, RTM_DELNEXTHOP, RTM_DELROUTE,
    RTM_DELRULE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWNETCONF, RTM_NEWNEXTHOP, RTM_NEWROUTE,
    RTM_NEWRULE, address, attributes, messages, text, u16_at, u32_at,
};
use super::read::read_links;
use super::route::Names;
use super::socket::NetlinkSocket;
use crate::actual::Actual;
use crate::error::ReadError;
use crate::ownership::Ownership;
use crate::route::MAIN_TABLE;

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV4_RULE: u32 = 8;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const RTNLGRP_IPV6_RULE: u32 = 19;
const RTNLGRP_IPV4_NETCONF: u32 = 24;
const RTNLGRP_IPV6_NETCONF: u32 = 25;
/// Of next hop objects (`ip nexthop`). One that is removed takes its routes along, and of those of IPv4 nothing more is told.
const RTNLGRP_NEXTHOP: u32 = 32;
pub(super) const GROUPS: [u32; 10] = [
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV6_NETCONF,
];
/// Addresses of the machine, and broadcast ones.
const LOCAL_TABLE: u32 = 255;
/// The kernel had more to say than there was room for.
const ENOBUFS: i32 = 105;
/// Messages that are looked at before the caller is told, so that a storm cannot keep it waiting.
const TURN: usize = 4096;

/// Something that the kernel said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// These changed, and not by our own hand.
    Changed(BTreeSet<Subject>),
    /// More changed than the kernel could tell. Anything may be different.
    Overrun,
}

/// What may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Links, or their addresses.
    Links,
    /// Routes of the main table, the only one that is read.
    Routes,
    /// Routes of other tables, or the rules that lead to them. They matter while there are
    /// [routes to be tried](crate::diff::Plan::tries) that the kernel refused, and not otherwise.
    OtherTables,
    /// Neighbours and forwarding entries on our devices.
    Neighbours,
    /// Kernel settings of the node or of workloads' interfaces, as far as the kernel tells: forwarding, proxy ARP and
    /// reverse path filters.
    Settings,
}

/// A subscription to what changes in a kernel.
#[derive(Debug)]
pub struct Watch {
    socket: NetlinkSocket,
    ownership: Ownership,
    known: Known,
    /// The socket whose changes are our own.
    own_port: u32,
    overruns: u64,
}

/// What is known of the kernel, by which it is told what concerns us.
#[derive(Debug, Default)]
struct Known {
    names: Names,
    /// The permanent neighbours on workloads' interfaces, by the interface's number.
    permanent: BTreeSet<(u32, IpAddr)>,
    /// Whether the kernel had to leave something out, so that there may be links without a name here.
    is_partial: bool,
}

impl Watch {
    pub(super) async fn start(
        mut socket: NetlinkSocket,
        lister: &mut NetlinkSocket,
        ownership: &Ownership,
    ) -> Result<Self, ReadError> {
        let links = read_links(lister).await?;
        let names = links.into_iter().map(|(name, link)| (link.index, name)).collect();
        // Kernels before 5.3 have none, and no such group.
        let _ = socket.join(RTNLGRP_NEXTHOP);
        let known = Known { names, ..Known::default() };
        Ok(Self { socket, ownership: ownership.clone(), known, own_port: lister.port(), overruns: 0 })
    }

    /// Waits until something has changed; what happened at once is told at once. Cancel-safe.
    ///
    /// # Errors
    /// When the socket fails in another way than by overrunning.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let mut changed = BTreeSet::new();
            let received = self.socket.receive().await.map(|bytes| {
                Filter { ownership: &self.ownership, known: &mut self.known, own_port: self.own_port }
                    .note(bytes, &mut changed)
            });
            if let Some(event) = self.turn(Some(received), changed)? {
                return Ok(event);
            }
        }
    }

    /// Returns what has changed and was not told yet, without waiting.
    ///
    /// # Errors
    /// When the socket fails in another way than by overrunning.
    pub fn already(&mut self) -> io::Result<Option<Event>> {
        self.turn(None, BTreeSet::new())
    }

    /// Tells by another ownership what concerns us from now on, also of what the kernel has said already and nobody has
    /// asked for. What was left out before is not told later: read after it.
    pub fn set_ownership(&mut self, ownership: &Ownership) {
        self.ownership.clone_from(ownership);
    }

    /// Takes in what was read since: which links there are, and which neighbours are permanent. Hand it each whole read. After
    /// [`Event::Overrun`] there may be links that it was never told of, and until this anything on them is told as a change; and of
    /// a workload's neighbour that ceases to be permanent it tells only where it knew that it was.
    pub fn learn(&mut self, actual: &Actual) {
        let links = &actual.host.links;
        self.known.names = links.iter().map(|(name, link)| (link.index, name.clone())).collect();
        let on_workloads = actual.neighbours.keys().filter(|(device, _)| self.ownership.is_workload(device));
        let by_number = |(device, addr): &(InterfaceName, IpAddr)| Some((links.get(device)?.index, *addr));
        self.known.permanent = on_workloads.filter_map(by_number).collect();
        self.known.is_partial = false;
    }

    /// Returns how often more changed than the kernel could tell.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Takes what is there, at most a turn's worth.
    fn turn(
        &mut self,
        mut received: Option<io::Result<Told>>,
        mut changed: BTreeSet<Subject>,
    ) -> io::Result<Option<Event>> {
        let mut filter =
            Filter { ownership: &self.ownership, known: &mut self.known, own_port: self.own_port };
        for _ in 0..TURN {
            match received {
                Some(Ok(Told::Everything)) => {}
                Some(Ok(Told::NotAll)) => return Ok(Some(self.overrun())),
                Some(Err(error)) if error.raw_os_error() == Some(ENOBUFS) => return Ok(Some(self.overrun())),
                Some(Err(error)) => return Err(error),
                None => {}
            }
            received = self.socket.receive_now().map(|r| r.map(|bytes| filter.note(bytes, &mut changed)));
            if received.is_none() {
                break;
            }
        }
        Ok((!changed.is_empty()).then_some(Event::Changed(changed)))
    }

    fn overrun(&mut self) -> Event {
        self.overruns += 1;
        self.known.is_partial = true;
        Event::Overrun
    }
}

/// Whether the kernel could tell all that it wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Everything,
    NotAll,
}

/// What of the kernel's talk concerns us.
struct Filter<'w> {
    ownership: &'w Ownership,
    known: &'w mut Known,
    own_port: u32,
}

impl Filter<'_> {
    /// Notes what a datagram says changed.
    fn note(&mut self, bytes: &[u8], changed: &mut BTreeSet<Subject>) -> Told {
        for message in messages(bytes) {
            match message.kind {
                NLMSG_OVERRUN => return Told::NotAll,
                RTM_NEWLINK => {
                    self.learn(message.body);
                    changed.insert(Subject::Links);
                }
                RTM_DELLINK => {
                    self.forget(message.body);
                    changed.insert(Subject::Links);
                }
                RTM_NEWADDR | RTM_DELADDR => {
                    changed.insert(Subject::Links);
                }
                RTM_NEWROUTE | RTM_DELROUTE if message.port != self.own_port => {
                    changed.extend(of_table(message.body));
                }
                RTM_NEWRULE | RTM_DELRULE => {
                    changed.insert(Subject::OtherTables);
                }
                RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
                    changed.insert(Subject::Routes);
                }
                RTM_NEWNEIGH | RTM_DELNEIGH
                    if self.concerns(message.kind, message.body) && message.port != self.own_port =>
                {
                    changed.insert(Subject::Neighbours);
                }
                RTM_NEWNETCONF if self.is_looked_after(message.body) => {
                    changed.insert(Subject::Settings);
                }
                _ => {}
            }
        }
        Told::Everything
    }

    fn learn(&mut self, body: &[u8]) {
        let name = attributes(body.get(16..).unwrap_or_default()).find(|(kind, _)| *kind == IFLA_IFNAME);
        let name = name.and_then(|(_, value)| text(value)?.parse().ok());
        if let (Some(index), Some(name)) = (u32_at(body, 4), name) {
            self.known.names.insert(index, name);
        }
    }

    /// A link that leaves a bridge is told of in the same way, but for that of another family.
    fn forget(&mut self, body: &[u8]) {
        if body.first() == Some(&AF_UNSPEC)
            && let Some(index) = u32_at(body, 4)
        {
            self.known.names.remove(&index);
        }
    }

    fn is_looked_after(&self, body: &[u8]) -> bool {
        let index = attributes(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == NETCONFA_IFINDEX);
        index.and_then(|(_, value)| u32_at(value, 0)).is_some_and(|index| {
            index == NETCONFA_IFINDEX_ALL
                || match self.known.names.get(&index) {
                    Some(device) => self.ownership.is_workload(device),
                    None => self.known.is_partial,
                }
        })
    }

    /// Neighbours that come and go by themselves are the kernel's affair; only those that are or were permanent, and removals,
    /// are ours. On a tunnel all should be permanent.
    fn concerns(&mut self, kind: u16, body: &[u8]) -> bool {
        let Some(index) = u32_at(body, 4) else { return false };
        let Some(device) = self.known.names.get(&index) else { return self.known.is_partial };
        if self.ownership.is_tunnel(device) || body.first() == Some(&AF_BRIDGE) {
            return self.ownership.owns_device(device);
        }
        if !self.ownership.is_workload(device) {
            return false;
        }
        let is_lasting =
            kind == RTM_NEWNEIGH && u16_at(body, 8).is_some_and(|state| state & NUD_PERMANENT != 0);
        let addr = attributes(body.get(12..).unwrap_or_default()).find(|(kind, _)| *kind == NDA_DST);
        let was_lasting = match addr.and_then(|(_, value)| address(value)) {
            Some(addr) if is_lasting => !self.known.permanent.insert((index, addr)),
            Some(addr) => self.known.permanent.remove(&(index, addr)),
            None => false,
        };
        kind == RTM_DELNEIGH || is_lasting || was_lasting
    }
}

/// Returns what a route that changed is. What the kernel keeps for addresses comes and goes with them.
fn of_table(body: &[u8]) -> Option<Subject> {
    let attribute = attributes(body.get(12..).unwrap_or_default()).find(|(kind, _)| *kind == RTA_TABLE);
    let table = attribute.and_then(|(_, value)| u32_at(value, 0));
    match table.or_else(|| body.get(4).map(|table| u32::from(*table)))? {
        MAIN_TABLE => Some(Subject::Routes),
        LOCAL_TABLE => None,
        _ => Some(Subject::OtherTables),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::codec::{AF_INET, Batch};

    #[test]
    fn routes_of_other_tables_are_told_apart() {
        let (mut known, ownership) = (Known::default(), Ownership::default());
        let mut told = |header: u8, attribute: Option<u32>| {
            let mut batch = Batch::default();
            let open = batch.begin(RTM_NEWROUTE, 0, 1, &[AF_INET, 24, 0, 0, header, 3, 0, 1, 0, 0, 0, 0]);
            attribute.iter().for_each(|table| batch.number(RTA_TABLE, *table));
            batch.end(open);
            let mut filter = Filter { ownership: &ownership, known: &mut known, own_port: 99 };
            let mut changed = BTreeSet::new();
            filter.note(batch.bytes(), &mut changed);
            changed.into_iter().next()
        };
        let (main, other) = (Some(Subject::Routes), Some(Subject::OtherTables));
        assert_eq!(told(254, None), main);
        assert_eq!(told(254, Some(254)), main);
        assert_eq!(told(255, None), None);
        assert_eq!(told(100, Some(100)), other);
        assert_eq!(told(252, Some(1000)), other, "a table whose number has no room in the header");
    }

    #[test]
    fn a_link_that_is_gone_is_forgotten_and_one_that_left_a_bridge_is_not() {
        let (mut known, ownership) = (Known::default(), Ownership::default());
        let mut told = |kind: u16, family: u8| {
            let mut header = [0; 16];
            (header[0], header[4]) = (family, 7);
            let mut batch = Batch::default();
            let open = batch.begin(kind, 0, 1, &header);
            batch.text(IFLA_IFNAME, "cali7");
            batch.end(open);
            let mut filter = Filter { ownership: &ownership, known: &mut known, own_port: 99 };
            let mut changed = BTreeSet::new();
            filter.note(batch.bytes(), &mut changed);
            assert_eq!(changed, [Subject::Links].into());
            known.names.len()
        };
        assert_eq!(told(RTM_NEWLINK, AF_UNSPEC), 1);
        assert_eq!(told(RTM_DELLINK, AF_BRIDGE), 1);
        assert_eq!(told(RTM_DELLINK, AF_INET), 1);
        assert_eq!(told(RTM_DELLINK, AF_UNSPEC), 0);
    }
}
