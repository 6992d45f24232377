//! A route as the kernel lists it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_model::{Family, InterfaceName};

use super::codec::{
    RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, RTA_DST, RTA_ENCAP, RTA_GATEWAY, RTA_METRICS, RTA_MULTIPATH, RTA_NH_ID,
    RTA_OIF, RTA_PREFSRC, RTA_PRIORITY, RTA_TABLE, RTA_VIA, RTM_F_CLONED, RTN_BLACKHOLE, RTN_UNICAST,
    RTNH_F_ONLINK, address, attributes, family, prefix, u16_at, u32_at,
};
use crate::route::{Form, Gateway, Installed, Odd, RouteKey};

/// A direct route over which the kernel does not look for gateways.
const WIDE: &str = "without scope link";

/// The names of devices by the kernel's numbers.
pub(super) type Names = BTreeMap<u32, InterfaceName>;

/// A route as the kernel lists it, with devices by number.
#[derive(Debug)]
pub(super) struct RawRoute {
    key: RouteKey,
    pub(super) protocol: u8,
    kind: u8,
    hops: Vec<Hop>,
    /// What it has that no route of ours has.
    oddities: Vec<&'static str>,
    /// Whether it is chosen by more than the destination.
    is_apart: bool,
}

#[derive(Debug, Clone, Copy)]
struct Hop {
    device: u32,
    gateway: Option<IpAddr>,
    onlink: bool,
}

impl RawRoute {
    /// Reads the body of a message; `None` when it is no route that anybody put there, but a cached one.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let family = family(*body.first()?)?;
        let [len, source_len, tos, table, protocol, scope, kind] =
            <[u8; 7]>::try_from(body.get(1..8)?).ok()?;
        let flags = u32_at(body, 8)?;
        if flags & RTM_F_CLONED != 0 {
            return None;
        }
        let onlink = flags & u32::from(RTNH_F_ONLINK) != 0;
        let mut single = Hop { device: 0, gateway: None, onlink };
        let mut hops = Vec::new();
        let (mut destination, mut priority, mut table) = (None, 0, u32::from(table));
        let mut oddities = Vec::new();
        oddities.extend((tos != 0).then_some("for one type of service"));
        oddities.extend((source_len != 0).then_some("for some sources"));
        let is_apart = !oddities.is_empty();
        for (attribute, value) in attributes(body.get(12..)?) {
            match attribute {
                RTA_DST => destination = address(value),
                RTA_PRIORITY => priority = u32_at(value, 0)?,
                RTA_TABLE => table = u32_at(value, 0)?,
                RTA_OIF => single.device = u32_at(value, 0)?,
                RTA_GATEWAY => single.gateway = address(value),
                RTA_VIA => single.gateway = address(value.get(2..)?),
                RTA_MULTIPATH => multipath(value, &mut hops, &mut oddities),
                RTA_PREFSRC => oddities.push("with a source address"),
                RTA_METRICS => oddities.push("with metrics"),
                RTA_ENCAP => oddities.push("with an encapsulation"),
                RTA_NH_ID => oddities.push("with a next hop object"),
                _ => {}
            }
        }
        if hops.is_empty() {
            let is_direct = single.gateway.is_none() && kind == RTN_UNICAST;
            if family == Family::V4 && is_direct && scope != RT_SCOPE_LINK {
                oddities.push(WIDE);
            }
            hops.push(single);
        } else if hops.iter().any(|hop| hop.gateway.is_none()) {
            oddities.push("with a hop without a gateway");
        }
        if kind != RTN_BLACKHOLE && kind != RTN_UNICAST {
            oddities.push("of another type");
        }
        if family == Family::V4 && single.gateway.is_some() && scope != RT_SCOPE_UNIVERSE {
            oddities.push("with a narrow scope");
        }
        let key = RouteKey { table, prefix: prefix(family, destination, len)?, priority };
        Some(Self { key, protocol, kind, hops, oddities, is_apart })
    }

    /// Returns the device it leads over; of several, the first.
    pub(super) fn device<'n>(&self, names: &'n Names) -> Option<&'n InterfaceName> {
        names.get(&self.hops.first()?.device)
    }

    /// Returns the route as one of ours, of the body that it was read from: whatever ours never have makes it something
    /// else. There is none over a device that appeared only after the links were listed: whoever put it there may not
    /// be done.
    pub(super) fn ours(self, names: &Names, body: &[u8]) -> Option<(RouteKey, Installed)> {
        let form = if self.oddities.is_empty() {
            self.form(names)?
        } else {
            let what = format!("something {}", self.oddities.join(" and "));
            let device = self.device(names).cloned();
            Form::Other(Odd { what, device, is_apart: self.is_apart, words: body.to_vec() })
        };
        Some((self.key, Installed { protocol: self.protocol, form }))
    }

    /// Returns the route as one of others, of which only the way matters: `None` where that depends on more than the
    /// destination. Whatever drops packets (unreachable, prohibit) is a blackhole then, and [`Form::Other`] leads to the far end
    /// of its device, if it names one, in a way in which the kernel does not look for gateways: of several hops, or without
    /// scope link.
    pub(super) fn foreign(self, names: &Names) -> Option<(RouteKey, Installed)> {
        if self.is_apart {
            return None;
        }
        let form = match self.form(names) {
            Some(Form::Device(device)) if self.oddities.contains(&WIDE) => odd(Some(&device)),
            Some(form) => form,
            None if self.kind == RTN_UNICAST => {
                let mut straight = self.hops.iter().filter(|hop| hop.gateway.is_none());
                odd(straight.find_map(|hop| names.get(&hop.device)))
            }
            None => Form::Blackhole,
        };
        Some((self.key, Installed { protocol: self.protocol, form }))
    }

    fn form(&self, names: &Names) -> Option<Form> {
        match (self.kind, &self.hops[..]) {
            (RTN_BLACKHOLE, _) => Some(Form::Blackhole),
            (RTN_UNICAST, [Hop { device, gateway: None, .. }]) => {
                names.get(device).cloned().map(Form::Device)
            }
            (RTN_UNICAST, hops) => {
                let gateways: Option<BTreeSet<Gateway>> = hops.iter().map(|hop| hop.named(names)).collect();
                gateways.map(Form::Gateways)
            }
            _ => None,
        }
    }
}

fn odd(device: Option<&InterfaceName>) -> Form {
    let over = |device| format!("something over dev {device}");
    let what = device.map_or_else(|| "something else".to_owned(), over);
    Form::Other(Odd { what, device: device.cloned(), ..Odd::default() })
}

impl Hop {
    fn named(&self, names: &Names) -> Option<Gateway> {
        let device = names.get(&self.device)?.clone();
        Some(Gateway { address: self.gateway?, device, onlink: self.onlink })
    }
}

/// Each hop is a `struct rtnexthop` with attributes behind it.
fn multipath(mut bytes: &[u8], hops: &mut Vec<Hop>, oddities: &mut Vec<&'static str>) {
    while let Some(len) = u16_at(bytes, 0).map(usize::from) {
        let (Some(hop), Some(device), Some([flags, weight])) =
            (bytes.get(8..len), u32_at(bytes, 4), bytes.get(2..4).and_then(|b| <[u8; 2]>::try_from(b).ok()))
        else {
            break;
        };
        let gateway = attributes(hop).find_map(|(kind, value)| match kind {
            RTA_GATEWAY => address(value),
            RTA_VIA => address(value.get(2..)?),
            _ => None,
        });
        if weight != 0 {
            oddities.push("with weights");
        }
        hops.push(Hop { device, gateway, onlink: flags & RTNH_F_ONLINK != 0 });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}
