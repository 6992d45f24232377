//! Where the machine's own routes lead, for whoever has to know it of any address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_model::Cidr;

use crate::actual::Host;
use crate::desired::Desired;
use crate::resolve::{Resolver, longest};
use crate::route::Form;

/// How far away an address is that the machine's own routes lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distance {
    /// It is on a link of the machine, or the machine's own.
    OnLink,
    /// It is behind a gateway, however far.
    BehindGateway,
}

/// Where the routes of others and the links of a machine lead, as next hops are resolved by them. No route of ours is among
/// them, learned ones neither, so it stays the same whatever is chosen among those.
///
/// # Examples
/// ```
/// use calico_route::fake::FakeKernel;
/// use calico_route::{Distance, Ownership, Ways};
///
/// let mut kernel = FakeKernel::default();
/// kernel.add_link(&"eth0".parse()?, &["172.16.6.47/24".parse()?]);
/// let ways = Ways::of(&kernel.read(&Ownership::default()).host);
/// assert_eq!(ways.to("172.16.6.249".parse()?), Some(Distance::OnLink));
/// assert_eq!(ways.to("10.0.0.1".parse()?), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ways {
    /// How far away what is inside each destination is; `None` where packets to it are dropped.
    led: BTreeMap<Cidr, Option<Distance>>,
    gateways: BTreeMap<IpAddr, IpAddr>,
}

impl Ways {
    /// Finds where a machine's own routes lead.
    #[must_use]
    pub fn of(host: &Host) -> Self {
        let nothing = Desired::default();
        let resolver = Resolver::new(&nothing, host, None);
        let mut led = BTreeMap::new();
        for (key, routes) in &host.foreign {
            // Of the routes to one destination the one with the lowest metric comes first.
            if let Some(route) = routes.first() {
                let distance = match route.form {
                    Form::Gateways(_) => Distance::BehindGateway,
                    Form::Device(_) | Form::Other(_) | Form::Blackhole => Distance::OnLink,
                };
                // A route of ours could not lead to where this says no.
                let is_led = || resolver.straight(key.prefix.addr(), &route.form).is_ok();
                led.entry(key.prefix).or_insert_with(|| is_led().then_some(distance));
            }
        }
        let addresses = host.links.values().flat_map(|link| link.addresses.keys()).map(|held| held.addr());
        // What is on one link only says nothing of an address.
        let own = addresses.filter(|addr| !matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local()));
        led.extend(own.map(|addr| (Cidr::host(addr), Some(Distance::OnLink))));
        Self { led, gateways: BTreeMap::new() }
    }

    /// Adds what is on this node besides, such as its blocks, and the peers that are reached by a gateway of their own, with
    /// the gateway.
    #[must_use]
    pub fn with(mut self, own: impl IntoIterator<Item = Cidr>, gateways: BTreeMap<IpAddr, IpAddr>) -> Self {
        self.led.extend(own.into_iter().map(|prefix| (prefix, Some(Distance::OnLink))));
        Self { gateways, ..self }
    }

    /// Walks the destinations that `earlier` led to and these do not.
    pub(crate) fn lost<'w>(&'w self, earlier: &'w Self) -> impl Iterator<Item = Cidr> + 'w {
        let led = |to: &Cidr| self.led.get(to).is_some_and(Option::is_some);
        earlier.led.iter().filter(move |(to, way)| way.is_some() && !led(to)).map(|(to, _)| *to)
    }

    /// Leads to some destinations as `earlier` did.
    pub(crate) fn hold<'w>(&mut self, earlier: &Self, to: impl IntoIterator<Item = &'w Cidr>) {
        self.led.extend(to.into_iter().filter_map(|to| earlier.led.get_key_value(to)));
    }

    /// Returns how far away an address is; `None` where nothing leads to it.
    #[must_use]
    pub fn to(&self, address: IpAddr) -> Option<Distance> {
        let find = |address| longest(address, |prefix| self.led.get(&prefix).copied()).flatten();
        match self.gateways.get(&address) {
            Some(gateway) => find(*gateway).map(|_| Distance::BehindGateway),
            None => find(address),
        }
    }
}
