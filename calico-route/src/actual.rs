//! What a kernel holds: ours, to compare with, and of the rest what our routes depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_model::{Family, InterfaceAddr, InterfaceName, Mac};

use crate::change::Change;
use crate::device::VxlanParams;
use crate::ownership::{Mark, PROTOCOL};
use crate::route::{Installed, RouteKey};
use crate::sysctl::Sysctl;

/// What a kernel holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// Our routes. The kernel may hold several of one key, of which it uses the first.
    pub routes: BTreeMap<RouteKey, Vec<Installed>>,
    /// The permanent neighbours on our devices.
    pub neighbours: BTreeMap<(InterfaceName, IpAddr), Mac>,
    /// The forwarding entries of our VXLAN devices: which nodes each MAC address is said to be at.
    pub fdb: BTreeMap<(InterfaceName, Mac), BTreeSet<IpAddr>>,
    /// Of which MAC addresses they hold entries that none of ours is like: by a next hop object, or to another port, network or
    /// device.
    pub odd_fdb: BTreeSet<(InterfaceName, Mac)>,
    /// The kernel settings that are looked after. One that the kernel does not have is not here.
    pub sysctls: BTreeMap<Sysctl, String>,
    /// The machine: its links and the routes of others.
    pub host: Host,
}

/// Which node a MAC address behind a VXLAN device is at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbEntry {
    /// The VXLAN device.
    pub device: InterfaceName,
    /// The MAC address.
    pub mac: Mac,
    /// The node's address.
    pub destination: IpAddr,
}

/// What only the machine knows, as a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Whether the kernel speaks IPv6.
    pub ipv6: Ipv6,
    /// All links.
    pub links: BTreeMap<InterfaceName, Link>,
    /// Those of our VXLAN devices that leave the checksums of what they send to the hardware, or would not say, where
    /// [that is ours to say](crate::Ownership::checksums).
    pub offloading: BTreeSet<InterfaceName>,
    /// The routes of others in the main table.
    pub foreign: BTreeMap<RouteKey, Vec<Installed>>,
}

/// Whether a kernel speaks IPv6.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ipv6 {
    /// It does.
    #[default]
    Spoken,
    /// It was built without it or told at its start to go without (`ipv6.disable=1`).
    Absent,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Whether it is switched on.
    pub state: LinkState,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// The hardware address, when it is an Ethernet one.
    pub mac: Option<Mac>,
    /// The kernel's number for the bridge, bond or VRF that it was put into.
    pub master: Option<u32>,
    /// What kind of device it is.
    pub kind: LinkKind,
    /// Its addresses, each with its mark where it has one.
    pub addresses: BTreeMap<InterfaceAddr, Option<Mark>>,
}

/// Whether a link is switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkState {
    /// It is off: the kernel takes no routes over it.
    Down,
    /// It is on.
    Up,
}

/// What kind of device a link is, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A VXLAN device.
    Vxlan(VxlanParams),
    /// An IP-in-IP device.
    Ipip,
    /// The loopback device, or a dummy one: it may hold addresses, and what is sent over it leaves the machine by no wire.
    Loopback,
    /// Anything else.
    Other,
}

/// Whether what a kernel holds is known after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// It is.
    Kept,
    /// The kernel has to be read: a device that changes takes other things with it.
    Lost,
}

impl Actual {
    /// Takes in that a change was made.
    #[must_use]
    pub fn made(&mut self, change: &Change) -> Knowledge {
        match change {
            Change::RemoveLink { .. }
            | Change::AddVxlan { .. }
            | Change::AddIpip { .. }
            | Change::SetLink { .. }
            | Change::ReleaseLink { .. }
            | Change::StopChecksumOffload { .. }
            | Change::AddAddress { .. }
            | Change::RemoveAddress { .. } => return Knowledge::Lost,
            Change::SetSysctl { sysctl, value } => {
                self.sysctls.insert(sysctl.clone(), value.clone());
            }
            Change::SetNeighbour { device, address, mac } => {
                self.neighbours.insert((device.clone(), *address), *mac);
            }
            Change::RemoveNeighbour { device, address } => {
                self.neighbours.remove(&(device.clone(), *address));
            }
            Change::SetFdb(FdbEntry { device, mac, destination }) => {
                self.fdb.insert((device.clone(), *mac), [*destination].into());
            }
            Change::ClearFdb { device, mac } => {
                let key = (device.clone(), *mac);
                self.fdb.remove(&key);
                self.odd_fdb.remove(&key);
            }
            Change::RemoveFdb(FdbEntry { device, mac, destination }) => {
                let key = (device.clone(), *mac);
                if let Some(held) = self.fdb.get_mut(&key) {
                    held.remove(destination);
                    if held.is_empty() {
                        self.fdb.remove(&key);
                    }
                }
            }
            Change::AddRoute { key, form } | Change::ReplaceRoute { key, form } => {
                let route = Installed { protocol: PROTOCOL, form: form.clone() };
                let held = self.routes.entry(*key).or_default();
                match held.iter_mut().find(|held| !held.form.is_apart()) {
                    Some(first) => *first = route,
                    None => held.push(route),
                }
            }
            Change::RemoveRoute { key, route } => {
                if let Some(held) = self.routes.get_mut(key) {
                    held.retain(|held| held != route);
                    if held.is_empty() {
                        self.routes.remove(key);
                    }
                }
            }
        }
        Knowledge::Kept
    }
}

impl Host {
    /// Reports whether the kernel speaks a family.
    #[must_use]
    pub fn speaks(&self, family: Family) -> bool {
        family == Family::V4 || self.ipv6 == Ipv6::Spoken
    }

    /// Returns the link that holds an address.
    #[must_use]
    pub fn link_with(&self, addr: IpAddr) -> Option<(&InterfaceName, &Link)> {
        self.links.iter().find(|(_, link)| link.addresses.keys().any(|held| held.addr() == addr))
    }

    /// Returns the link that holds an address and carries what is sent from it; `None` where the loopback device holds it
    /// (too), whose addresses are reached over all links.
    pub(crate) fn carrier(&self, addr: IpAddr) -> Option<(&InterfaceName, &Link)> {
        let holds = |link: &Link| link.addresses.keys().any(|held| held.addr() == addr);
        let is_inside = self.links.values().any(|link| link.kind == LinkKind::Loopback && holds(link));
        self.link_with(addr).filter(|_| !is_inside)
    }
}
