//! Neighbours, forwarding entries and kernel settings.

use std::collections::BTreeSet;
use std::net::IpAddr;

use calico_model::{Family, InterfaceName, Mac};

use super::Scope;
use super::links::Links;
use crate::actual::{Actual, FdbEntry, LinkState};
use crate::change::Change;
use crate::desired::Desired;
use crate::resolve::Resolver;
use crate::sysctl::Sysctl;

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) upserts: Vec<Change>,
    pub(super) removals: Vec<Change>,
}

pub(super) fn changes(
    desired: &Desired,
    actual: &Actual,
    resolver: &Resolver<'_>,
    links: &Links,
    scope: Scope<'_>,
) -> Tables {
    let mut tables = Tables::default();
    let is_up = |device: &InterfaceName| {
        resolver.planned.contains(device)
            || actual.host.links.get(device).is_some_and(|link| link.state == LinkState::Up)
    };
    let neighbours = scope.of(&desired.neighbours, |delta| &delta.neighbours);
    let spoken = |addr: &IpAddr| actual.host.speaks(Family::of(*addr));
    for (key, mac) in neighbours.filter(|((device, addr), _)| is_up(device) && spoken(addr)) {
        let held = actual.neighbours.get(key).filter(|_| !links.lost.contains(&key.0));
        if held != Some(mac) {
            let (device, address, mac) = (key.0.clone(), key.1, *mac);
            tables.upserts.push(Change::SetNeighbour { device, address, mac });
        }
    }
    let held = scope.of(&actual.neighbours, |delta| &delta.neighbours);
    for ((device, address), _) in held.filter(|(key, _)| !desired.neighbours.contains_key(key)) {
        if links.keeps(device) {
            tables.removals.push(Change::RemoveNeighbour { device: device.clone(), address: *address });
        }
    }
    let entry = |(device, mac): &(InterfaceName, Mac), destination: IpAddr| FdbEntry {
        device: device.clone(),
        mac: *mac,
        destination,
    };
    // The kernel says that it replaces an entry by a next hop object, and does not.
    let odd: BTreeSet<_> = actual.odd_fdb.iter().filter(|(device, _)| links.keeps(device)).collect();
    let clear =
        |(device, mac): &&(InterfaceName, Mac)| Change::ClearFdb { device: device.clone(), mac: *mac };
    tables.upserts.extend(odd.iter().map(clear));
    let fdb = scope.of(&desired.fdb, |delta| &delta.fdb);
    for (key, destination) in fdb.filter(|((device, _), _)| is_up(device)) {
        let held = actual.fdb.get(key).filter(|_| !links.lost.contains(&key.0) && !odd.contains(key));
        if held.is_none_or(|held| !held.contains(destination)) {
            tables.upserts.push(Change::SetFdb(entry(key, *destination)));
        }
    }
    for (key, held) in scope.of(&actual.fdb, |delta| &delta.fdb).filter(|(key, _)| links.keeps(&key.0)) {
        // An entry of a MAC address that is wanted elsewhere is not removed: it is overwritten.
        if !desired.fdb.contains_key(key) && !odd.contains(key) {
            tables.removals.extend(held.iter().map(|held| Change::RemoveFdb(entry(key, *held))));
        }
    }
    tables.sysctls(desired, actual, scope);
    tables
}

impl Tables {
    /// A setting that the kernel does not have (an interface that is not there, no IPv6) is passed over. An interface that is
    /// to go without IPv6 loses its IPv6 routes and neighbours with that, and so the removals of these are before it; all other
    /// settings are before everything.
    fn sysctls(&mut self, desired: &Desired, actual: &Actual, scope: Scope<'_>) {
        let differs = |(sysctl, value): &(&Sysctl, &String)| {
            actual.sysctls.get(*sysctl).is_some_and(|held| held != *value)
        };
        let set = scope.of(&desired.sysctls, |delta| &delta.sysctls).filter(differs);
        let (last, first): (Vec<_>, Vec<_>) = set.partition(|(sysctl, value)| sysctl.takes_ipv6_away(value));
        let change = |(sysctl, value): (&Sysctl, &String)| Change::SetSysctl {
            sysctl: sysctl.clone(),
            value: value.clone(),
        };
        self.upserts.splice(..0, first.into_iter().map(change));
        self.removals.extend(last.into_iter().map(change));
    }
}
