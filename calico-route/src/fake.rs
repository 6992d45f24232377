//! A kernel in memory, for tests: ours and yours.
//!
//! It keeps what a kernel keeps and refuses what a kernel refuses: a route over a device that is absent or off or, of IPv6, by
//! way of a gateway that is not there, a second route of a key, the removal of what is not there. Routes and neighbours go when
//! their device goes or is switched off.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_model::{Cidr, Family, InterfaceName, Mac};

use crate::actual::{Actual, FdbEntry, Host, Ipv6, Link, LinkKind, LinkState};
use crate::change::Change;
use crate::ownership::{Ownership, PROTOCOL};
use crate::route::{Form, Gateway, Installed, RouteKey};
use crate::sysctl::Sysctl;

/// A kernel in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FakeKernel {
    /// Whether it speaks IPv6.
    pub ipv6: Ipv6,
    /// All links.
    pub links: BTreeMap<InterfaceName, Link>,
    /// All routes of the main table, ours and others'.
    pub routes: BTreeMap<RouteKey, Vec<Installed>>,
    /// All permanent neighbours.
    pub neighbours: BTreeMap<(InterfaceName, IpAddr), Mac>,
    /// All forwarding entries.
    pub fdb: BTreeSet<FdbEntry>,
    /// The devices that leave the checksums of what they send to the hardware.
    pub offloading: BTreeSet<InterfaceName>,
    /// All kernel settings that were ever written.
    pub sysctls: BTreeMap<Sysctl, String>,
}

/// Why the kernel did not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The device is not there.
    #[error("no such device")]
    NoDevice,
    /// The device is off.
    #[error("network is down")]
    Down,
    /// Something else leads to the gateway.
    #[error("no route to host")]
    NoGateway,
    /// There is one already.
    #[error("file exists")]
    Exists,
    /// There is none.
    #[error("no such object")]
    Absent,
}

fn ours(form: &Form) -> Installed {
    Installed { protocol: PROTOCOL, form: form.clone() }
}

impl FakeKernel {
    /// Adds an interface that is up, with addresses.
    pub fn add_link(&mut self, name: &InterfaceName, addresses: &[calico_model::InterfaceAddr]) {
        let link = Link {
            index: u32::try_from(self.links.len() + 2).unwrap_or(u32::MAX),
            state: LinkState::Up,
            mtu: 1500,
            mac: None,
            master: None,
            kind: LinkKind::Other,
            addresses: addresses.iter().map(|address| (*address, None)).collect(),
        };
        self.links.insert(name.clone(), link);
        for address in addresses {
            let connected = Installed { protocol: 2, form: Form::Device(name.clone()) };
            self.routes.entry(RouteKey::main(address.subnet(), 0)).or_default().push(connected);
        }
        for sysctl in Sysctl::all_of_workload(name) {
            self.sysctls.entry(sysctl).or_insert_with(|| "?".to_owned());
        }
    }

    /// Switches a link on or off; its routes do not survive that it is off.
    pub fn set_link(&mut self, name: &InterfaceName, state: LinkState) {
        if let Some(link) = self.links.get_mut(name) {
            link.state = state;
        }
        if state == LinkState::Down {
            self.forget_routes(name, &Family::ALL);
        }
    }

    /// Removes a link with everything on it.
    pub fn remove_link(&mut self, name: &InterfaceName) {
        self.links.remove(name);
        self.forget_routes(name, &Family::ALL);
        self.neighbours.retain(|(device, _), _| device != name);
        self.fdb.retain(|entry| entry.device != *name);
        self.offloading.remove(name);
        self.sysctls.retain(|sysctl, _| sysctl.device() != Some(name));
    }

    fn forget_routes(&mut self, name: &InterfaceName, families: &[Family]) {
        for (_, routes) in self.routes.iter_mut().filter(|(key, _)| families.contains(&key.prefix.family())) {
            routes.retain(|route| !route.form.devices().any(|device| device == name));
        }
        self.routes.retain(|_, routes| !routes.is_empty());
    }

    /// Reads what a fresh process would read.
    #[must_use]
    pub fn read(&self, ownership: &Ownership) -> Actual {
        let mut actual = Actual {
            host: Host {
                ipv6: self.ipv6,
                links: self.links.clone(),
                offloading: self.offloading.clone(),
                foreign: BTreeMap::new(),
            },
            sysctls: self.sysctls.clone(),
            ..Actual::default()
        };
        for (key, route) in self.routes.iter().flat_map(|(key, routes)| routes.iter().map(move |r| (key, r)))
        {
            let ours = ownership.owns_route(route.protocol, route.form.devices().next());
            let side = if ours { &mut actual.routes } else { &mut actual.host.foreign };
            side.entry(*key).or_default().push(route.clone());
        }
        let neighbours = self.neighbours.iter().filter(|((device, _), _)| ownership.owns_device(device));
        actual.neighbours = neighbours.map(|(key, mac)| (key.clone(), *mac)).collect();
        for entry in self.fdb.iter().filter(|entry| ownership.is_tunnel(&entry.device)) {
            let held = actual.fdb.entry((entry.device.clone(), entry.mac)).or_default();
            held.insert(entry.destination);
        }
        actual
    }

    /// Applies changes one after another; each has its own result, and none stops the rest.
    pub fn apply(&mut self, changes: &[Change]) -> Vec<Result<(), Refusal>> {
        changes.iter().map(|change| self.apply_one(change)).collect()
    }

    fn apply_one(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::RemoveLink { device } => {
                self.link(device)?;
                self.remove_link(device);
            }
            Change::AddVxlan { device, params, mac, mtu, .. } => {
                self.make(device, LinkKind::Vxlan(params.clone()), Some(*mac), *mtu)?;
                self.offloading.insert(device.clone());
            }
            Change::AddIpip { device, .. } => self.make(device, LinkKind::Ipip, None, 1480)?,
            Change::SetLink { device, mtu, mac } => {
                let link = self.link(device)?;
                link.state = LinkState::Up;
                link.mtu = mtu.unwrap_or(link.mtu);
                link.mac = mac.or(link.mac);
            }
            Change::ReleaseLink { device } => self.link(device)?.master = None,
            Change::StopChecksumOffload { device } => {
                self.link(device)?;
                self.offloading.remove(device);
            }
            Change::AddAddress { device, address, mark } => {
                let held = self.link(device)?.addresses.insert(*address, mark.clone());
                return held.map_or(Ok(()), |_| Err(Refusal::Exists));
            }
            Change::RemoveAddress { device, address } => {
                let held = self.link(device)?.addresses.remove(address);
                return held.map(|_| ()).ok_or(Refusal::Absent);
            }
            Change::SetSysctl { sysctl, value } => {
                *self.sysctls.get_mut(sysctl).ok_or(Refusal::Absent)? = value.clone();
                if let Some(device) = sysctl.device().filter(|_| sysctl.takes_ipv6_away(value)) {
                    self.forget_routes(device, &[Family::V6]);
                    self.neighbours.retain(|(held, addr), _| held != device || addr.is_ipv4());
                }
            }
            Change::SetNeighbour { device, address, mac } => {
                self.link(device)?;
                self.neighbours.insert((device.clone(), *address), *mac);
            }
            Change::RemoveNeighbour { device, address } => {
                let held = self.neighbours.remove(&(device.clone(), *address));
                return held.map(|_| ()).ok_or(Refusal::Absent);
            }
            Change::SetFdb(entry) => {
                self.link(&entry.device)?;
                self.fdb.retain(|held| (&held.device, held.mac) != (&entry.device, entry.mac));
                self.fdb.insert(entry.clone());
            }
            Change::ClearFdb { device, mac } => {
                self.link(device)?;
                self.fdb.retain(|held| (&held.device, &held.mac) != (device, mac));
            }
            Change::RemoveFdb(entry) => {
                return if self.fdb.remove(entry) { Ok(()) } else { Err(Refusal::Absent) };
            }
            Change::AddRoute { key, form } => {
                self.usable(form)?;
                if self.routes.contains_key(key) {
                    return Err(Refusal::Exists);
                }
                self.routes.insert(*key, vec![ours(form)]);
            }
            Change::ReplaceRoute { key, form } => {
                self.usable(form)?;
                let (route, held) = (ours(form), self.routes.entry(*key).or_default());
                if held.iter().skip(1).any(|held| *held == route) {
                    return Err(Refusal::Exists);
                }
                held.splice(..held.len().min(1), [route]);
            }
            Change::RemoveRoute { key, route } => {
                let held = self.routes.get_mut(key).ok_or(Refusal::Absent)?;
                let at = held.iter().position(|held| held == route).ok_or(Refusal::Absent)?;
                held.remove(at);
                if held.is_empty() {
                    self.routes.remove(key);
                }
            }
        }
        Ok(())
    }

    fn link(&mut self, device: &InterfaceName) -> Result<&mut Link, Refusal> {
        self.links.get_mut(device).ok_or(Refusal::NoDevice)
    }

    fn usable(&self, form: &Form) -> Result<(), Refusal> {
        form.devices().try_for_each(|device| match self.links.get(device).map(|link| link.state) {
            Some(LinkState::Up) => Ok(()),
            Some(LinkState::Down) => Err(Refusal::Down),
            None => Err(Refusal::NoDevice),
        })?;
        let Form::Gateways(gateways) = form else { return Ok(()) };
        if gateways.iter().all(|gateway| self.leads_to(gateway)) { Ok(()) } else { Err(Refusal::NoGateway) }
    }

    /// Reports whether the kernel takes an IPv6 gateway (`ip6_route_check_nh` and `ip6_route_check_nh_onlink` of Linux 6.18).
    /// Where it is said to be on the link, the best route to it, if it is neither a default route nor one that drops, has to
    /// lead over the gateway's device. Otherwise the best one over that device has to lead straight to it.
    fn leads_to(&self, gateway: &Gateway) -> bool {
        match gateway.address {
            IpAddr::V6(address) if !address.is_unicast_link_local() => {}
            IpAddr::V4(_) | IpAddr::V6(_) => return true,
        }
        let over = |form: &Form| form.devices().any(|device| *device == gateway.device);
        let narrowest = (0..=Family::V6.bits()).rev().filter_map(|len| Cidr::holding(gateway.address, len));
        let mut routes = narrowest.flat_map(|prefix| {
            let routes = self.routes.range(RouteKey::all_to(prefix)).flat_map(|(_, routes)| routes);
            routes.map(move |route| (prefix, &route.form))
        });
        if gateway.onlink {
            routes.next().is_none_or(|(prefix, form)| {
                prefix.prefix_len() == 0 || *form == Form::Blackhole || over(form)
            })
        } else {
            routes.find(|(_, form)| over(form)).is_some_and(|(_, form)| matches!(form, Form::Device(_)))
        }
    }

    fn make(
        &mut self,
        device: &InterfaceName,
        kind: LinkKind,
        mac: Option<Mac>,
        mtu: u32,
    ) -> Result<(), Refusal> {
        if self.links.contains_key(device) {
            return Err(Refusal::Exists);
        }
        self.add_link(device, &[]);
        let link = self.link(device)?;
        (link.kind, link.mac, link.mtu, link.state) = (kind, mac, mtu, LinkState::Down);
        Ok(())
    }
}
