//! From where a route should lead to the devices it leads over.
//!
//! A next hop that is on no link of the machine is reached as the kernel would lead packets to it: by the longest prefix, then
//! the lowest metric, among the routes of others and those that BGP learned. The learned ones are looked at as they are
//! wanted, not as they were written, so a plan does not depend on the one before. A learned route counts only where routes of
//! others lead to a gateway of it: one step and no further, so that none leads over itself.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use calico_model::{Cidr, Family, InterfaceAddr, InterfaceName};

use crate::actual::{Host, Link, LinkKind, LinkState};
use crate::desired::Desired;
use crate::device::{IPIP, Tunnel};
use crate::ownership::PROTOCOL;
use crate::route::{Class, Form, Gateway, Installed, NextHop, Odd, Reach, Route, RouteKey, Target};

/// Something that is wanted and has to wait for the machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Waiting {
    /// A device does not exist yet, or any more.
    DeviceAbsent(InterfaceName),
    /// A device is switched off.
    DeviceDown(InterfaceName),
    /// No link has the node's address of this family, or the address is not known.
    NodeAddressAbsent(Family, Option<IpAddr>),
    /// The kernel does not speak a family that a pool or a workload has.
    FamilyAbsent(Family),
    /// The device that should be the kernel's for IP-in-IP is another one.
    NotIpip(InterfaceName),
    /// The host has no way to a gateway.
    Unreachable(IpAddr),
    /// A gateway is in the node's subnet, but not on the link that holds the node's address.
    NotOnLink {
        /// The gateway.
        gateway: IpAddr,
        /// The link.
        device: InterfaceName,
    },
    /// Another program's route has the key.
    Taken {
        /// Our route.
        wanted: String,
        /// The other's.
        by: String,
    },
    /// Another program's route to the same destination has a lower metric, so the kernel uses that one.
    Shadowed {
        /// Our route.
        wanted: String,
        /// The other's.
        by: String,
    },
    /// The network cannot carry wrapped packets of any useful size.
    MtuTooSmall {
        /// The device packets leave by.
        device: InterfaceName,
        /// Its MTU.
        mtu: u32,
        /// The MTU it would have to have.
        least: u32,
    },
    /// A tunnel's device cannot have the MTU that is set; it has the nearest that it can have.
    MtuOutOfRange {
        /// The tunnel.
        tunnel: Tunnel,
        /// The MTU that is set.
        bytes: u32,
        /// The least that the device can have.
        least: u32,
        /// The most.
        most: u32,
    },
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::DeviceAbsent(device) => {
                write!(f, "interface {device} does not exist; its routes wait for it")
            }
            Waiting::DeviceDown(device) => {
                write!(f, "interface {device} is down; its routes wait until it is set up")
            }
            Waiting::NodeAddressAbsent(_, Some(addr)) => write!(
                f,
                "no interface has the node's address {addr}; add the address, or set spec.bgp of the Node to one \
                 that the machine has"
            ),
            Waiting::NodeAddressAbsent(family, None) => {
                write!(f, "the node has no {family} address; set it in spec.bgp of the Node")
            }
            Waiting::FamilyAbsent(family) => write!(
                f,
                "this kernel has no {family} (ipv6.disable=1, or built without); its routes wait until the machine is \
                 started with it, or set ipv6Support to false in the FelixConfiguration"
            ),
            Waiting::NotIpip(device) => write!(
                f,
                "interface {device} is no IP-in-IP device; rename or remove it, so that the kernel's own can have the name"
            ),
            Waiting::NotOnLink { gateway, device } => write!(
                f,
                "the next hop {gateway} is in the node's subnet by spec.bgp of the Node, but not on the link of interface \
                 {device}; give the Node's address the prefix length that the interface has"
            ),
            Waiting::Unreachable(gateway) => write!(
                f,
                "the machine has no route to the next hop {gateway}; add one, or let the pool use VXLAN between subnets"
            ),
            Waiting::Taken { wanted, by } => write!(
                f,
                "the route {wanted} cannot be set because another program's route is there ({by}); remove it or give \
                 it another metric"
            ),
            Waiting::Shadowed { wanted, by } => write!(
                f,
                "the route {wanted} is not used because another program's route to there has a lower metric ({by}); remove \
                 it or give it a higher one"
            ),
            Waiting::MtuTooSmall { device, mtu, least } => write!(
                f,
                "interface {device} has an MTU of {mtu}, too small for a tunnel; give it at least {least}"
            ),
            Waiting::MtuOutOfRange { tunnel, bytes, least, most } => write!(
                f,
                "{} of the FelixConfiguration is {bytes}, but {} can have {least} to {most}; set it to one of these, or to \
                 0 to have it detected",
                tunnel.mtu_setting(),
                tunnel.device()
            ),
        }
    }
}

/// What an earlier process may have learned and the kernel still holds: it counts as learned until it is known what is.
#[derive(Clone, Copy)]
pub(crate) struct Kept<'k> {
    /// Our routes in the kernel.
    pub(crate) held: &'k BTreeMap<RouteKey, Vec<Installed>>,
    /// To which destinations routes may have been learned.
    pub(crate) may_be_learned: &'k dyn Fn(&Cidr) -> bool,
}

/// The host as routes look at it.
pub(crate) struct Resolver<'h> {
    pub(crate) host: &'h Host,
    /// Our devices that will be there, and up, when the routes are written.
    pub(crate) planned: BTreeSet<InterfaceName>,
    /// Our devices that cannot be made what they should be, which is told of each.
    pub(crate) hindered: BTreeSet<InterfaceName>,
    /// What is wanted: the learned routes among it are ways too.
    wanted: &'h BTreeMap<RouteKey, Route>,
    kept: Option<Kept<'h>>,
    /// The devices that hold the node's addresses.
    node_devices: BTreeMap<Family, Result<&'h InterfaceName, Waiting>>,
    /// What was found for gateways that were asked for before: routes are many, gateways few.
    found: RefCell<BTreeMap<IpAddr, Result<BTreeSet<Gateway>, Waiting>>>,
    /// Likewise, which gateways are on the link of the device that holds the node's address.
    on_link: RefCell<BTreeMap<IpAddr, bool>>,
    /// Likewise, to which IPv6 gateways a route leads over another device.
    elsewhere: RefCell<BTreeMap<Gateway, bool>>,
}

/// A route that may lead to a gateway.
enum Way<'h> {
    Foreign(&'h Form),
    Learned(&'h RouteKey, &'h Route),
    Kept(&'h BTreeSet<Gateway>),
}

impl<'h> Resolver<'h> {
    pub(crate) fn new(desired: &'h Desired, host: &'h Host, kept: Option<Kept<'h>>) -> Self {
        let node_device = |family: Family| {
            let addr = desired.node_addresses.get(&family).map(InterfaceAddr::addr);
            let link = addr.and_then(|addr| host.link_with(addr));
            (family, link.map(|(device, _)| device).ok_or(Waiting::NodeAddressAbsent(family, addr)))
        };
        Self {
            host,
            planned: BTreeSet::new(),
            hindered: BTreeSet::new(),
            wanted: &desired.routes,
            kept,
            node_devices: Family::ALL.into_iter().map(node_device).collect(),
            found: RefCell::default(),
            on_link: RefCell::default(),
            elsewhere: RefCell::default(),
        }
    }

    pub(crate) fn resolve(&self, key: &RouteKey, route: &Route) -> Result<Form, Waiting> {
        match &route.target {
            Target::Blackhole => Ok(Form::Blackhole),
            Target::Device(device) => self.usable(device).map(|()| Form::Device(device.clone())),
            Target::Gateways(hops) => {
                let own = (route.class == Class::Learned).then_some(key);
                let mut gateways = BTreeSet::new();
                let mut missing = None;
                for hop in hops {
                    match self.hop(hop, own) {
                        Ok(found) => gateways.extend(found),
                        Err(waiting) => missing = Some(waiting),
                    }
                }
                // One next hop that can be reached is better than none.
                match missing {
                    Some(waiting) if gateways.is_empty() => Err(waiting),
                    _ => Ok(Form::Gateways(gateways.into_iter().map(|gateway| self.told(gateway)).collect())),
                }
            }
        }
    }

    /// Returns how a gateway is reached; `own` is the learned route whose gateway it is.
    fn hop(&self, hop: &NextHop, own: Option<&RouteKey>) -> Result<BTreeSet<Gateway>, Waiting> {
        match &hop.reach {
            Reach::Onlink(device) => self.usable(device).map(|()| one(hop.gateway, device, true)),
            Reach::NodeDevice => {
                let device = self.node_device(Family::of(hop.gateway))?;
                self.usable(device)?;
                let mut on_link = self.on_link.borrow_mut();
                if !*on_link.entry(hop.gateway).or_insert_with(|| is_on_link(self.host, hop.gateway, device))
                {
                    return Err(Waiting::NotOnLink { gateway: hop.gateway, device: device.clone() });
                }
                Ok(one(hop.gateway, device, false))
            }
            Reach::Resolved => match own.filter(|own| own.prefix.contains(hop.gateway)) {
                Some(own) => self.lead(hop.gateway, Some(own)),
                None => {
                    let mut found = self.found.borrow_mut();
                    found.entry(hop.gateway).or_insert_with(|| self.lead(hop.gateway, None)).clone()
                }
            },
        }
    }

    /// Tells the kernel that an IPv6 gateway is on the link, which is known. It would otherwise look for the way there, and
    /// refuse the gateway where a narrower route, such as a fabric's to the single host, leads by way of another. Where that
    /// route leads over another device it is the other way about: told of the link, the kernel looks at the routes of all devices.
    fn told(&self, gateway: Gateway) -> Gateway {
        if gateway.onlink || !gateway.address.is_ipv6() {
            return gateway;
        }
        let mut elsewhere = self.elsewhere.borrow_mut();
        let is_elsewhere =
            *elsewhere.entry(gateway.clone()).or_insert_with_key(|gateway| self.is_elsewhere(gateway));
        Gateway { onlink: !is_elsewhere, ..gateway }
    }

    /// Reports whether the narrowest route to a gateway, other than a default route, leads over other devices only.
    fn is_elsewhere(&self, gateway: &Gateway) -> bool {
        let narrowest = longest(gateway.address, |prefix| {
            self.ways(prefix, None)
                .into_iter()
                .find_map(|(_, way)| match way {
                    Way::Foreign(form) => Some(form.devices().cloned().collect::<BTreeSet<_>>()),
                    Way::Learned(key, route) => {
                        self.over(key, route).map(|over| over.into_iter().map(|one| one.device).collect())
                    }
                    Way::Kept(over) => Some(over.iter().map(|one| one.device.clone()).collect()),
                })
                .filter(|devices| !devices.is_empty())
                .map(|devices| (prefix.prefix_len(), devices))
        });
        narrowest.is_some_and(|(len, devices)| len > 0 && !devices.contains(&gateway.device))
    }

    /// Finds the way to a gateway by all routes but one.
    fn lead(&self, gateway: IpAddr, but: Option<&RouteKey>) -> Result<BTreeSet<Gateway>, Waiting> {
        longest(gateway, |prefix| {
            self.ways(prefix, but).into_iter().find_map(|(_, way)| match way {
                Way::Foreign(form) => Some(self.straight(gateway, form)),
                Way::Learned(key, route) => self.over(key, route).map(Ok),
                Way::Kept(gateways) => Some(Ok(gateways.clone())),
            })
        })
        .unwrap_or(Err(Waiting::Unreachable(gateway)))
    }

    /// Returns the routes to a destination with their metrics, the one that the kernel would use first.
    fn ways(&self, prefix: Cidr, but: Option<&RouteKey>) -> Vec<(u32, Way<'h>)> {
        let foreign = self.host.foreign.range(RouteKey::all_to(prefix));
        let foreign =
            foreign.filter_map(|(key, routes)| Some((key.priority, Way::Foreign(&routes.first()?.form))));
        let wanted = self.wanted.range(RouteKey::all_to(prefix));
        let learned = wanted.filter(|(key, route)| route.class == Class::Learned && Some(*key) != but);
        let learned = learned.map(|(key, route)| (key.priority, Way::Learned(key, route)));
        let kept = self.kept.filter(|kept| (kept.may_be_learned)(&prefix));
        let kept = kept.into_iter().flat_map(|kept| kept.held.range(RouteKey::all_to(prefix)));
        let kept = kept.filter(|(key, _)| !self.wanted.contains_key(key)).filter_map(|(key, routes)| {
            match routes.first() {
                Some(Installed { protocol: PROTOCOL, form: Form::Gateways(gateways) }) => {
                    Some((key.priority, Way::Kept(gateways)))
                }
                _ => None,
            }
        });
        let mut ways: Vec<_> = foreign.chain(learned).chain(kept).collect();
        // Of two with one key, others' has it.
        ways.sort_by_key(|(priority, _)| *priority);
        ways
    }

    /// Returns the gateways of a learned route to which other routes than learned ones lead; `None` when there are none.
    fn over(&self, key: &RouteKey, route: &Route) -> Option<BTreeSet<Gateway>> {
        let Target::Gateways(hops) = &route.target else { return None };
        let reached = |hop: &NextHop| match hop.reach {
            Reach::Onlink(_) | Reach::NodeDevice => self.hop(hop, Some(key)).ok(),
            Reach::Resolved => {
                let (by, form) = host_route(self.host, hop.gateway, |_| true)?;
                let rank = |key: &RouteKey| (key.prefix.prefix_len(), Reverse(key.priority));
                let is_own = key.prefix.contains(hop.gateway) && rank(key) > rank(by);
                if is_own { None } else { self.straight(hop.gateway, form).ok() }
            }
        };
        let gateways: BTreeSet<Gateway> = hops.iter().filter_map(reached).flatten().collect();
        (!gateways.is_empty()).then_some(gateways)
    }

    /// Returns how a gateway is reached by a route of others.
    pub(crate) fn straight(&self, gateway: IpAddr, form: &Form) -> Result<BTreeSet<Gateway>, Waiting> {
        match form {
            Form::Device(device) => self.usable(device).map(|()| one(gateway, device, false)),
            Form::Gateways(gateways) => Ok(gateways.clone()),
            // The kernel does not look for gateways over such a route, so it is told.
            Form::Other(Odd { device: Some(device), .. }) => {
                self.usable(device).map(|()| one(gateway, device, true))
            }
            Form::Blackhole | Form::Other(Odd { device: None, .. }) => Err(Waiting::Unreachable(gateway)),
        }
    }

    pub(crate) fn node_device(&self, family: Family) -> Result<&'h InterfaceName, Waiting> {
        self.node_devices[&family].clone()
    }

    /// Reports whether something waits for nothing but what is told already, so that each cause is told once.
    pub(crate) fn follows(&self, waiting: &Waiting, told: &BTreeSet<Waiting>) -> bool {
        match waiting {
            Waiting::DeviceAbsent(device) | Waiting::DeviceDown(device) => self.hindered.contains(device),
            Waiting::Unreachable(gateway) => {
                self.node_device(Family::of(*gateway)).is_err_and(|cause| told.contains(&cause))
            }
            Waiting::NodeAddressAbsent(..)
            | Waiting::FamilyAbsent(_)
            | Waiting::NotIpip(_)
            | Waiting::NotOnLink { .. }
            | Waiting::Taken { .. }
            | Waiting::Shadowed { .. }
            | Waiting::MtuTooSmall { .. }
            | Waiting::MtuOutOfRange { .. } => false,
        }
    }

    fn usable(&self, device: &InterfaceName) -> Result<(), Waiting> {
        if self.planned.contains(device) {
            return Ok(());
        }
        match self.host.links.get(device) {
            Some(link) if device.as_str() == IPIP && link.kind != LinkKind::Ipip => {
                Err(Waiting::NotIpip(device.clone()))
            }
            Some(Link { state: LinkState::Up, .. }) => Ok(()),
            Some(Link { state: LinkState::Down, .. }) => Err(Waiting::DeviceDown(device.clone())),
            None => Err(Waiting::DeviceAbsent(device.clone())),
        }
    }
}

fn one(address: IpAddr, device: &InterfaceName, onlink: bool) -> BTreeSet<Gateway> {
    [Gateway { address, device: device.clone(), onlink }].into()
}

/// Reports whether the kernel takes an address for a gateway on a link: by the subnets of the link's addresses or by a route
/// of others that leads straight to it.
fn is_on_link(host: &Host, addr: IpAddr, device: &InterfaceName) -> bool {
    let mut addresses = host.links.get(device).into_iter().flat_map(|link| link.addresses.keys());
    let straight = |form: &Form| matches!(form, Form::Device(over) if over == device);
    addresses.any(|held| held.subnet().contains(addr)) || host_route(host, addr, straight).is_some()
}

/// Returns the host's best route to an address, of those that fit.
fn host_route(host: &Host, addr: IpAddr, fits: impl Fn(&Form) -> bool) -> Option<(&RouteKey, &Form)> {
    longest(addr, |prefix| {
        let mut routes = host.foreign.range(RouteKey::all_to(prefix)).flat_map(|(key, routes)| {
            let of_key = move |route| (key, route);
            routes.iter().map(of_key)
        });
        routes.find(|(_, route)| fits(&route.form)).map(|(key, route)| (key, &route.form))
    })
}

/// Asks of each destination that holds an address, the narrowest first, until there is an answer.
pub(crate) fn longest<T>(addr: IpAddr, ask: impl FnMut(Cidr) -> Option<T>) -> Option<T> {
    let mut prefixes = (0..=Family::of(addr).bits()).rev().filter_map(|len| Cidr::holding(addr, len));
    prefixes.find_map(ask)
}
