//! Neighbours, forwarding entries and kernel settings.

use calico_model::InterfaceName;

use super::links::Links;
use crate::actual::{Actual, FdbEntry, LinkState};
use crate::change::Change;
use crate::desired::Desired;
use crate::resolve::Resolver;

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) upserts: Vec<Change>,
    pub(super) removals: Vec<Change>,
}

pub(super) fn changes(desired: &Desired, actual: &Actual, resolver: &Resolver<'_>, links: &Links) -> Tables {
    let mut tables = Tables::default();
    tables.sysctls(desired, actual);
    let is_up = |device: &InterfaceName| {
        resolver.planned.contains(device)
            || actual.host.links.get(device).is_some_and(|link| link.state == LinkState::Up)
    };
    for ((device, address), mac) in desired.neighbours.iter().filter(|((device, _), _)| is_up(device)) {
        let held =
            actual.neighbours.get(&(device.clone(), *address)).filter(|_| !links.lost.contains(device));
        if held != Some(mac) {
            let (device, address, mac) = (device.clone(), *address, *mac);
            tables.upserts.push(Change::SetNeighbour { device, address, mac });
        }
    }
    for (device, address) in actual.neighbours.keys().filter(|(device, _)| links.keeps(device)) {
        if !desired.neighbours.contains_key(&(device.clone(), *address)) {
            tables.removals.push(Change::RemoveNeighbour { device: device.clone(), address: *address });
        }
    }
    for ((device, mac), destination) in desired.fdb.iter().filter(|((device, _), _)| is_up(device)) {
        let entry = FdbEntry { device: device.clone(), mac: *mac, destination: *destination };
        if links.lost.contains(device) || !actual.fdb.contains(&entry) {
            tables.upserts.push(Change::SetFdb(entry));
        }
    }
    for entry in actual.fdb.iter().filter(|entry| links.keeps(&entry.device)) {
        // An entry of a MAC address that is wanted elsewhere is not removed: it is overwritten.
        if !desired.fdb.contains_key(&(entry.device.clone(), entry.mac)) {
            tables.removals.push(Change::RemoveFdb(entry.clone()));
        }
    }
    tables
}

impl Tables {
    /// A setting that the kernel does not have (an interface that is not there, no IPv6) is passed over.
    fn sysctls(&mut self, desired: &Desired, actual: &Actual) {
        for (sysctl, value) in &desired.sysctls {
            if actual.sysctls.get(sysctl).is_some_and(|held| held != value) {
                self.upserts.push(Change::SetSysctl { sysctl: sysctl.clone(), value: value.clone() });
            }
        }
    }
}
