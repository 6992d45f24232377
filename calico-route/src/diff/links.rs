//! Devices, their attributes and their addresses.

use std::collections::{BTreeMap, BTreeSet};

use calico_model::{Family, InterfaceAddr, InterfaceName, Mac};

use crate::actual::{Host, Link, LinkKind, LinkState};
use crate::change::Change;
use crate::desired::{Desired, FALLBACK_MTU};
use crate::device::{
    Checksums, IpipDevice, Mtu, Tunnel, VxlanDevice, VxlanParams, ipip_device, vxlan_device,
};
use crate::ownership::{IPIP_LABEL, Mark};
use crate::resolve::{Resolver, Waiting};
use crate::sysctl::Sysctl;

/// The least MTU a link may have (RFC 791, RFC 8200).
fn least_mtu(family: Family) -> u32 {
    match family {
        Family::V4 => 576,
        Family::V6 => 1280,
    }
}

#[derive(Debug, Default)]
pub(super) struct Links {
    /// Makes the devices that are needed.
    pub(super) first: Vec<Change>,
    /// Removes those that are not.
    pub(super) last: Vec<Change>,
    /// The devices that are removed first, to be made anew.
    pub(super) lost: BTreeSet<InterfaceName>,
    /// The devices that are removed last. What they carry and is still wanted is led elsewhere before that.
    pub(super) doomed: BTreeSet<InterfaceName>,
}

pub(super) fn changes(
    desired: &Desired,
    sysctls: &BTreeMap<Sysctl, String>,
    resolver: &mut Resolver<'_>,
    waiting: &mut BTreeSet<Waiting>,
) -> Links {
    let mut links = Links::default();
    for family in Family::ALL {
        let device = vxlan_device(family);
        let actual = resolver.host.links.get(&device);
        match (desired.vxlan.get(&family), actual) {
            (Some(wanted), _) => match wanted.settle(family, desired, resolver, waiting) {
                Ok((params, mtu)) => {
                    if actual.is_none()
                        && let Some(renamed) = renamed(wanted, &resolver.host.links)
                    {
                        links.remove(renamed);
                    }
                    links.vxlan(&device, wanted, params, mtu, actual, sysctls);
                    let is_new = actual.is_none() || links.lost.contains(&device);
                    let is_offloading = is_new || resolver.host.offloading.contains(&device);
                    if is_offloading && desired.ownership.checksums() == Checksums::Kernel {
                        links.first.push(Change::StopChecksumOffload { device: device.clone() });
                    }
                }
                Err(problem) => {
                    waiting.insert(problem);
                    resolver.hindered.insert(device);
                    continue;
                }
            },
            // What the pools ask for and nobody can say for now, such as the node's own address in the tunnel, leaves the
            // device as it is: what it carries goes on. Why is told among the problems.
            (None, _) if desired.tunnels.contains_key(&Tunnel::Vxlan(family)) => {
                resolver.hindered.insert(device);
                continue;
            }
            (None, Some(_)) => {
                links.last.push(Change::RemoveLink { device: device.clone() });
                links.doomed.insert(device);
                continue;
            }
            (None, None) => continue,
        }
        resolver.planned.insert(device);
    }
    let actual = resolver.host.links.get(&ipip_device());
    match &desired.ipip {
        Some(_) if actual.is_some_and(|link| link.kind != LinkKind::Ipip) => {
            waiting.insert(Waiting::NotIpip(ipip_device()));
        }
        Some(wanted) => match mtu(wanted.mtu, Tunnel::Ipip, desired, resolver, waiting) {
            Ok(mtu) => {
                links.ipip(wanted, mtu, actual);
                resolver.planned.insert(ipip_device());
            }
            Err(problem) => {
                waiting.insert(problem);
                resolver.hindered.insert(ipip_device());
            }
        },
        None => links.leave_ipip(actual),
    }
    links
}

/// The addresses at which the node answers workloads that peer with it. They are told from others' by their mark: where
/// another program attaches workloads, their interfaces may have gateways for them.
pub(super) fn peering(desired: &Desired, host: &Host) -> Vec<Change> {
    let (none, mut changes) = (BTreeSet::new(), Vec::new());
    for (device, link) in host.links.iter().filter(|(device, _)| desired.ownership.is_workload(device)) {
        let wanted = desired.workload_peering.get(device).unwrap_or(&none);
        let device = || device.clone();
        let ours = link.addresses.iter().filter(|(_, mark)| **mark == Some(Mark::Protocol));
        let held = ours.map(|(held, _)| *held).filter(|held| !wanted.contains(held));
        changes.extend(held.map(|address| Change::RemoveAddress { device: device(), address }));
        let missing = wanted.iter().filter(|address| !link.addresses.contains_key(address));
        changes.extend(missing.map(|address| Change::AddAddress {
            device: device(),
            address: *address,
            mark: Some(Mark::Protocol),
        }));
    }
    changes
}

/// Decides the MTU of a tunnel's device. One that cannot be had is told of, and the nearest is taken: the kernel would refuse
/// it again and again. Where none can be had, there is no device.
fn mtu(
    wanted: Mtu,
    tunnel: Tunnel,
    desired: &Desired,
    resolver: &Resolver<'_>,
    waiting: &mut BTreeSet<Waiting>,
) -> Result<u32, Waiting> {
    let family = tunnel.family();
    let (lowest, most) = desired.mtu_limits(tunnel, resolver.host);
    let least = match wanted {
        Mtu::Bytes(_) => lowest,
        Mtu::Detected => least_mtu(family),
    };
    let too_small = |device: &InterfaceName, mtu| Waiting::MtuTooSmall {
        device: device.clone(),
        mtu,
        least: least + tunnel.overhead(),
    };
    if most < least {
        let own = resolver.node_device(family)?;
        return Err(too_small(own, resolver.host.links[own].mtu));
    }
    if let Mtu::Bytes(bytes) = wanted {
        if !(lowest..=most).contains(&bytes) {
            waiting.insert(Waiting::MtuOutOfRange { tunnel, bytes, least: lowest, most });
        }
        return Ok(bytes.clamp(lowest, most));
    }
    let own = resolver.node_device(family)?;
    let (device, mtu) = desired.wire(resolver.host, &[family]).unwrap_or((own, FALLBACK_MTU));
    if mtu < least + tunnel.overhead() {
        return Err(too_small(device, mtu));
    }
    Ok((mtu - tunnel.overhead()).min(most))
}

impl VxlanDevice {
    fn settle(
        &self,
        family: Family,
        desired: &Desired,
        resolver: &Resolver<'_>,
        waiting: &mut BTreeSet<Waiting>,
    ) -> Result<(VxlanParams, u32), Waiting> {
        if !resolver.host.speaks(family) {
            return Err(Waiting::FamilyAbsent(family));
        }
        resolver.node_device(family)?;
        // Bound to the loopback device it would send there.
        let parent = resolver.host.carrier(self.local).map(|(device, _)| device.clone());
        let mtu = mtu(self.mtu, Tunnel::Vxlan(family), desired, resolver, waiting)?;
        let params = VxlanParams {
            vni: self.vni,
            port: self.port,
            local: Some(self.local),
            parent,
            learning: false,
            others: Vec::new(),
        };
        Ok((params, mtu))
    }
}

impl Links {
    /// Reports whether what is on a device has to be removed from it. Otherwise it goes with the device.
    pub(super) fn keeps(&self, device: &InterfaceName) -> bool {
        !self.lost.contains(device) && !self.doomed.contains(device)
    }

    fn remove(&mut self, device: &InterfaceName) {
        self.first.push(Change::RemoveLink { device: device.clone() });
        self.lost.insert(device.clone());
    }

    fn vxlan(
        &mut self,
        device: &InterfaceName,
        wanted: &VxlanDevice,
        params: VxlanParams,
        mtu: u32,
        actual: Option<&Link>,
        sysctls: &BTreeMap<Sysctl, String>,
    ) {
        let kept = actual.filter(|link| link.kind == LinkKind::Vxlan(params.clone()));
        if kept.is_none() {
            if actual.is_some() {
                self.remove(device);
            }
            let (device, mac, pools) = (device.clone(), wanted.mac, wanted.pools.clone());
            self.first.push(Change::AddVxlan { device, params, mac, mtu, pools });
        }
        // Where new devices go without IPv6, the kernel would refuse the address and every route.
        let without = Sysctl::disable_ipv6(device);
        let is_without = kept.is_none() || sysctls.get(&without).is_some_and(|held| held != "0");
        if is_without && Family::of(wanted.address.addr()) == Family::V6 {
            self.first.push(Change::SetSysctl { sysctl: without, value: "0".to_owned() });
        }
        // What comes out of a tunnel would go to the bridge, or be routed by another table.
        if kept.is_some_and(|link| link.master.is_some()) {
            self.first.push(Change::ReleaseLink { device: device.clone() });
        }
        // A device that is made has its attributes from the start.
        self.attributes(device, Some(wanted.mac), Some(mtu).filter(|_| kept.is_some()), kept);
        let none = BTreeMap::new();
        let held = kept.map_or(&none, |link| &link.addresses);
        if !held.contains_key(&wanted.address) {
            self.add_address(device, wanted.address, None);
        }
        for address in held.keys().filter(|held| **held != wanted.address && is_assigned(held)) {
            self.first.push(Change::RemoveAddress { device: device.clone(), address: *address });
        }
    }

    fn ipip(&mut self, wanted: &IpipDevice, mtu: u32, actual: Option<&Link>) {
        let device = ipip_device();
        if actual.is_none() {
            self.first.push(Change::AddIpip { device: device.clone(), pools: wanted.pools.clone() });
        }
        self.attributes(&device, None, Some(mtu), actual);
        if let Some(address) = wanted.address
            && actual.is_none_or(|link| !link.addresses.contains_key(&address))
        {
            self.add_address(&device, address, Some(Mark::Label(IPIP_LABEL.to_owned())));
        }
        self.first.extend(labelled(actual, &device, wanted.address));
    }

    /// Takes back our address from the device; the device itself is the kernel's.
    fn leave_ipip(&mut self, actual: Option<&Link>) {
        self.last.extend(labelled(actual, &ipip_device(), None));
    }

    fn attributes(
        &mut self,
        device: &InterfaceName,
        mac: Option<Mac>,
        mtu: Option<u32>,
        actual: Option<&Link>,
    ) {
        let mac = mac.filter(|mac| actual.is_some_and(|link| link.mac != Some(*mac)));
        let mtu = mtu.filter(|mtu| actual.is_none_or(|link| link.mtu != *mtu));
        let is_up = actual.is_some_and(|link| link.state == LinkState::Up);
        if mac.is_some() || mtu.is_some() || !is_up {
            self.first.push(Change::SetLink { device: device.clone(), mtu, mac });
        }
    }

    fn add_address(&mut self, device: &InterfaceName, address: InterfaceAddr, mark: Option<Mark>) {
        self.first.push(Change::AddAddress { device: device.clone(), address, mark });
    }
}

/// Finds our device under a name that somebody else gave it. Its MAC address is no one's but this node's, and while it is
/// there the kernel refuses another one of its network and port.
fn renamed<'l>(wanted: &VxlanDevice, links: &'l BTreeMap<InterfaceName, Link>) -> Option<&'l InterfaceName> {
    let is_ours = |link: &Link| {
        let LinkKind::Vxlan(params) = &link.kind else { return false };
        link.mac == Some(wanted.mac) && params.vni == wanted.vni && params.port == wanted.port
    };
    links.iter().find(|(_, link)| is_ours(link)).map(|(device, _)| device)
}

/// Our addresses on the IP-in-IP device, but for the one that is wanted.
fn labelled(
    actual: Option<&Link>,
    device: &InterfaceName,
    wanted: Option<InterfaceAddr>,
) -> impl Iterator<Item = Change> {
    let held = actual.into_iter().flat_map(|link| &link.addresses);
    let is_ours = |mark: &Option<Mark>| matches!(mark, Some(Mark::Label(label)) if label == IPIP_LABEL);
    held.filter(move |(held, mark)| is_ours(mark) && Some(**held) != wanted)
        .map(|(address, _)| Change::RemoveAddress { device: device.clone(), address: *address })
}

/// Reports whether somebody gave the device the address; link-local ones the kernel makes itself.
fn is_assigned(addr: &InterfaceAddr) -> bool {
    match addr.addr() {
        std::net::IpAddr::V4(_) => true,
        std::net::IpAddr::V6(addr) => !addr.is_unicast_link_local(),
    }
}
