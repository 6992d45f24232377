//! Addresses that stop being somebody's here: their tracked connections must not become their next owner's.
//!
//! The kernel forgets a route when its interface goes, without a word from us; so what was in place is remembered from
//! pass to pass, and compared with what will be in place after this one. A fresh process begins with what it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_model::{Cidr, InterfaceName};

use crate::actual::Actual;
use crate::change::Change;
use crate::compute::Delta;
use crate::desired::{Desired, Problem};
use crate::route::{Class, Form, Route, RouteKey, Target};

/// Where the addresses of this node's workloads are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Departures {
    placed: BTreeMap<IpAddr, InterfaceName>,
    /// Those whose connections could not be forgotten.
    owed: BTreeSet<IpAddr>,
    /// Those that the last pass named only because they were owed.
    again: BTreeSet<IpAddr>,
}

/// The addresses whose connections are to be forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Departed {
    /// Before the changes are applied: their new owner is on this node, and its connections must be left alone.
    pub before: BTreeSet<IpAddr>,
    /// After the changes were applied: nobody here has them any more, and no packet must bring a connection back.
    pub after: BTreeSet<IpAddr>,
}

impl Departures {
    /// Notes that the connections of some addresses could not be forgotten: the next pass names them again. One that has a new
    /// owner by then is named once more and no further: that its connections are tracked anew is less than that it inherits
    /// one, but they must not be cut with every try.
    pub fn owe(&mut self, addresses: &BTreeSet<IpAddr>) {
        let is_done = |addr: &IpAddr| self.again.contains(addr) && self.placed.contains_key(addr);
        self.owed.extend(addresses.iter().filter(|addr| !is_done(addr)));
    }

    fn add_owed(&mut self, departed: &mut Departed) {
        self.again = std::mem::take(&mut self.owed);
        self.again.retain(|addr| !departed.before.contains(addr));
        departed.before.extend(&self.again);
    }

    /// Says the same as [`Departures::pass`] when nothing but `delta` has changed since the last time, at the cost of that.
    pub fn pass_delta(
        &mut self,
        desired: &Desired,
        actual: &Actual,
        changes: &[Change],
        delta: &Delta,
    ) -> Departed {
        if delta.everything {
            return self.pass(desired, actual, changes);
        }
        let mut departed = Departed::default();
        for prefix in delta.routes.iter().map(|key| key.prefix).filter(Cidr::is_host) {
            let addr = prefix.addr();
            let routes = desired.routes.range(RouteKey::all_to(prefix));
            let now = routes.filter_map(|(_, route)| device(route)).next();
            let before = match now {
                Some(device) => self.placed.insert(addr, device.clone()),
                None => self.placed.remove(&addr),
            };
            match (before, now) {
                (Some(before), Some(now)) if before != *now => departed.before.insert(addr),
                (Some(_), None) => departed.after.insert(addr),
                (Some(_) | None, Some(_)) | (None, None) => false,
            };
        }
        self.finish(desired, actual, departed)
    }

    /// Says which addresses leave their interface with these changes, and remembers where all will be after them. Changes that
    /// are not made now are not among them: an address whose route stays has not left.
    pub fn pass(&mut self, desired: &Desired, actual: &Actual, changes: &[Change]) -> Departed {
        let found =
            actual.routes.iter().flat_map(|(key, routes)| routes.iter().filter_map(|r| place(key, &r.form)));
        for (addr, device) in found.filter(|(_, device)| desired.ownership.is_workload(device)) {
            self.placed.entry(addr).or_insert_with(|| device.clone());
        }
        let removed: BTreeSet<(IpAddr, &InterfaceName)> = changes.iter().filter_map(removal).collect();
        let replaced: BTreeSet<Cidr> = changes.iter().filter_map(replaced).collect();
        let left_alone = |addr: &IpAddr, device: &InterfaceName| {
            let mut held = actual.routes.range(RouteKey::all_to(Cidr::host(*addr)));
            let form = Form::Device(device.clone());
            !removed.contains(&(*addr, device))
                && !replaced.contains(&Cidr::host(*addr))
                && held.any(|(_, routes)| routes.iter().any(|route| route.form == form))
        };
        let added: BTreeSet<Cidr> = changes.iter().filter_map(added).collect();
        let stays = |addr: &IpAddr, device: &InterfaceName| {
            let first = actual.routes.range(RouteKey::all_to(Cidr::host(*addr))).next();
            let first = first.and_then(|(_, routes)| routes.first());
            left_alone(addr, device)
                && !added.contains(&Cidr::host(*addr))
                && first.is_some_and(|route| route.form == Form::Device(device.clone()))
        };
        let wanted: BTreeMap<IpAddr, InterfaceName> = desired
            .routes
            .iter()
            .filter(|(key, _)| key.prefix.is_host())
            .filter_map(|(key, route)| Some((key.prefix.addr(), device(route)?.clone())))
            .collect();
        let mut departed = Departed::default();
        let mut next = wanted.clone();
        for (addr, device) in &self.placed {
            match wanted.get(addr) {
                Some(now) if now == device => {}
                // Its way to the other interface is not opened yet.
                Some(_) if stays(addr, device) => {
                    next.insert(*addr, device.clone());
                }
                Some(_) => {
                    departed.before.insert(*addr);
                }
                None if left_alone(addr, device) => {
                    next.insert(*addr, device.clone());
                }
                None => {
                    departed.after.insert(*addr);
                }
            }
        }
        self.placed = next;
        self.finish(desired, actual, departed)
    }

    /// Leaves out the addresses of nodes: that a workload claimed one, or that a route led to one, gives nobody a right to its
    /// connections.
    fn finish(&mut self, desired: &Desired, actual: &Actual, mut departed: Departed) -> Departed {
        if !departed.after.is_empty() {
            let claimed: BTreeSet<IpAddr> = desired.problems.iter().filter_map(node_address).collect();
            departed.after.retain(|addr| !claimed.contains(addr) && actual.host.link_with(*addr).is_none());
        }
        self.add_owed(&mut departed);
        departed
    }
}

/// Returns the interface of the workload that a route leads to. The far ends of tunnels are no addresses of this node's.
fn device(route: &Route) -> Option<&InterfaceName> {
    match route {
        Route { class: Class::LocalWorkload, target: Target::Device(device) } => Some(device),
        Route { .. } => None,
    }
}

fn node_address(problem: &Problem) -> Option<IpAddr> {
    if let Problem::NodeAddressOfWorkload { address, .. } = problem { Some(*address) } else { None }
}

fn removal(change: &Change) -> Option<(IpAddr, &InterfaceName)> {
    if let Change::RemoveRoute { key, route } = change { place(key, &route.form) } else { None }
}

fn added(change: &Change) -> Option<Cidr> {
    if let Change::AddRoute { key, .. } = change { Some(key.prefix) } else { None }
}

fn replaced(change: &Change) -> Option<Cidr> {
    if let Change::ReplaceRoute { key, .. } = change { Some(key.prefix) } else { None }
}

fn place<'r>(key: &RouteKey, form: &'r Form) -> Option<(IpAddr, &'r InterfaceName)> {
    match form {
        Form::Device(device) if key.prefix.is_host() => Some((key.prefix.addr(), device)),
        Form::Device(_) | Form::Blackhole | Form::Gateways(_) | Form::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeKernel;
    use crate::route::{Installed, Reach};
    use crate::{Ownership, diff};

    fn on(device: Option<&str>) -> Desired {
        let mut desired = Desired::nothing(Ownership::default());
        if let Some(device) = device {
            let target = Target::Device(device.parse().unwrap());
            let key = RouteKey::main("10.0.0.1/32".parse().unwrap(), 1024);
            desired.routes.insert(key, Route { class: Class::LocalWorkload, target });
        }
        desired
    }

    fn machine() -> FakeKernel {
        let mut kernel = FakeKernel::default();
        kernel.add_link(&"cali1".parse().unwrap(), &[]);
        kernel.add_link(&"cali2".parse().unwrap(), &[]);
        kernel
    }

    fn pass(departures: &mut Departures, kernel: &mut FakeKernel, desired: &Desired) -> Departed {
        let actual = kernel.read(&desired.ownership);
        let changes = diff(desired, &actual);
        kernel.apply(&changes);
        departures.pass(desired, &actual, &changes)
    }

    fn the_address() -> BTreeSet<IpAddr> {
        ["10.0.0.1".parse().unwrap()].into()
    }

    #[test]
    fn an_address_that_leaves_is_forgotten_after_its_route_is_gone_and_once() {
        let (mut departures, mut kernel) = (Departures::default(), machine());
        assert_eq!(pass(&mut departures, &mut kernel, &on(Some("cali1"))), Departed::default());
        assert_eq!(pass(&mut departures, &mut kernel, &on(None)).after, the_address());
        assert_eq!(pass(&mut departures, &mut kernel, &on(None)), Departed::default());
    }

    #[test]
    fn an_address_whose_route_leads_elsewhere_from_now_on_has_left() {
        let (mut departures, mut kernel) = (Departures::default(), machine());
        pass(&mut departures, &mut kernel, &on(Some("cali1")));
        let mut desired = on(Some("cali1"));
        let reach = Reach::Onlink("cali2".parse().unwrap());
        let learned = Target::via("172.16.0.2".parse().unwrap(), reach);
        desired.routes.values_mut().for_each(|route| route.target = learned.clone());
        assert_eq!(pass(&mut departures, &mut kernel, &desired).after, the_address());
        assert_eq!(pass(&mut departures, &mut kernel, &desired), Departed::default());
    }

    #[test]
    fn an_address_that_moves_within_the_node_is_forgotten_before_its_new_route() {
        let (mut departures, mut kernel) = (Departures::default(), machine());
        pass(&mut departures, &mut kernel, &on(Some("cali1")));
        assert_eq!(pass(&mut departures, &mut kernel, &on(Some("cali2"))).before, the_address());
        assert_eq!(pass(&mut departures, &mut kernel, &on(Some("cali2"))), Departed::default());
    }

    #[test]
    fn an_address_whose_new_route_is_withheld_has_not_left_until_it_is_written() {
        let (mut departures, mut kernel) = (Departures::default(), machine());
        pass(&mut departures, &mut kernel, &on(Some("cali1")));
        let moved = on(Some("cali2"));
        let actual = kernel.read(&moved.ownership);
        for _ in 0..2 {
            assert_eq!(departures.pass(&moved, &actual, &[]), Departed::default());
        }
        assert_eq!(pass(&mut departures, &mut kernel, &moved).before, the_address());
        assert_eq!(pass(&mut departures, &mut kernel, &moved), Departed::default());
    }

    /// As while a machine migrates: its route has another metric.
    #[test]
    fn an_address_that_has_another_route_beside_the_one_that_is_left_alone_has_left() {
        let (mut departures, mut kernel) = (Departures::default(), machine());
        pass(&mut departures, &mut kernel, &on(Some("cali1")));
        let mut moved = on(None);
        let target = Target::Device("cali2".parse().unwrap());
        let key = RouteKey::main("10.0.0.1/32".parse().unwrap(), 512);
        moved.routes.insert(key, Route { class: Class::LocalWorkload, target });
        let actual = kernel.read(&moved.ownership);
        let changes = diff(&moved, &actual);
        let written: Vec<Change> = changes.into_iter().filter(|change| removal(change).is_none()).collect();
        let departed = departures.clone().pass(&moved, &actual, &written);
        assert_eq!(departed.before, the_address());
        // Whoever wrote it.
        kernel.apply(&written);
        assert_eq!(departures.pass(&moved, &kernel.read(&moved.ownership), &[]).before, the_address());
    }

    #[test]
    fn what_could_not_be_forgotten_is_named_again() {
        let (mut departures, mut kernel) = (Departures::default(), machine());
        pass(&mut departures, &mut kernel, &on(Some("cali1")));
        assert_eq!(pass(&mut departures, &mut kernel, &on(None)).after, the_address());
        departures.owe(&the_address());
        let again = Departed { before: the_address(), ..Departed::default() };
        assert_eq!(
            departures.clone().pass_delta(
                &on(None),
                &kernel.read(&Ownership::default()),
                &[],
                &Delta::default()
            ),
            again
        );
        assert_eq!(pass(&mut departures, &mut kernel, &on(None)), again);
        assert_eq!(pass(&mut departures, &mut kernel, &on(None)), Departed::default());
    }

    #[test]
    fn what_cannot_be_forgotten_is_not_held_against_the_next_owner_for_ever() {
        let (mut departures, mut kernel) = (Departures::default(), machine());
        let before = Departed { before: the_address(), ..Departed::default() };
        let after = Departed { after: the_address(), ..Departed::default() };
        for (device, expected) in [
            (Some("cali1"), Departed::default()),
            (None, after),
            // While nobody has the address there is nobody to be hurt.
            (None, before.clone()),
            (None, before.clone()),
            (Some("cali2"), before.clone()),
            (Some("cali2"), Departed::default()),
            // It moves at once: its new route is there when that is tried again.
            (Some("cali1"), before.clone()),
            (Some("cali1"), before.clone()),
            (Some("cali1"), Departed::default()),
            // It moves again while it is owed.
            (Some("cali2"), before.clone()),
            (Some("cali1"), before.clone()),
            (Some("cali1"), before),
            (Some("cali1"), Departed::default()),
        ] {
            let departed = pass(&mut departures, &mut kernel, &on(device));
            assert_eq!(departed, expected, "{device:?}");
            departures.owe(&departed.before.union(&departed.after).copied().collect());
        }
    }

    #[test]
    fn what_changed_alone_says_the_same() {
        let key = RouteKey::main("10.0.0.1/32".parse().unwrap(), 1024);
        let delta = Delta { routes: [key].into(), ..Delta::default() };
        let mut departures = Departures::default();
        for (device, expected) in [
            (Some("cali1"), Departed::default()),
            (Some("cali2"), Departed { before: the_address(), ..Departed::default() }),
            (Some("cali2"), Departed::default()),
            (None, Departed { after: the_address(), ..Departed::default() }),
            (None, Departed::default()),
        ] {
            assert_eq!(departures.pass_delta(&on(device), &Actual::default(), &[], &delta), expected);
        }
    }

    #[test]
    fn when_everything_is_different_nothing_is_overlooked() {
        let (mut departures, mut kernel) = (Departures::default(), machine());
        pass(&mut departures, &mut kernel, &on(Some("cali1")));
        let (moved, actual) = (on(Some("cali2")), kernel.read(&Ownership::default()));
        let delta = Delta { everything: true, ..Delta::default() };
        let departed = departures.pass_delta(&moved, &actual, &diff(&moved, &actual), &delta);
        assert_eq!(departed, Departed { before: the_address(), ..Departed::default() });
    }

    #[test]
    fn pe55_the_connections_of_a_node_are_nobody_elses() {
        let (mut departures, mut kernel) = (Departures::default(), machine());
        pass(&mut departures, &mut kernel, &on(Some("cali1")));
        let mut joined = on(None);
        let [address, node] = ["10.0.0.1", "node2"];
        joined.problems.insert(Problem::NodeAddressOfWorkload {
            address: address.parse().unwrap(),
            workload: "default/web".to_owned(),
            node: node.parse().unwrap(),
        });
        assert_eq!(pass(&mut departures, &mut kernel, &joined), Departed::default());

        // A route of the CNI plugin to an address that the host itself has.
        let (mut departures, mut kernel) = (Departures::default(), machine());
        pass(&mut Departures::default(), &mut kernel, &on(Some("cali1")));
        kernel.add_link(&"eth0".parse().unwrap(), &["10.0.0.1/24".parse().unwrap()]);
        assert_eq!(pass(&mut departures, &mut kernel, &on(None)), Departed::default());
    }

    #[test]
    fn an_interface_that_vanished_takes_its_addresses_with_it() {
        let (mut departures, mut kernel) = (Departures::default(), machine());
        pass(&mut departures, &mut kernel, &on(Some("cali1")));
        kernel.remove_link(&"cali1".parse().unwrap());
        assert_eq!(pass(&mut departures, &mut kernel, &on(None)).after, the_address());
    }

    #[test]
    fn a_fresh_process_forgets_what_it_finds_and_removes() {
        let mut kernel = machine();
        pass(&mut Departures::default(), &mut kernel, &on(Some("cali1")));
        assert_eq!(pass(&mut Departures::default(), &mut kernel, &on(None)).after, the_address());
    }

    #[test]
    fn a_route_that_is_left_in_peace_for_now_has_not_departed() {
        let (mut departures, mut kernel) = (Departures::default(), machine());
        let route = Installed { protocol: 3, form: Form::Device("cali1".parse().unwrap()) };
        kernel.routes.insert(RouteKey::main("10.0.0.1/32".parse().unwrap(), 0), vec![route]);
        let actual = kernel.read(&Ownership::default());
        assert_eq!(departures.pass(&on(None), &actual, &[]), Departed::default());
        assert_eq!(departures.pass(&on(None), &actual, &diff(&on(None), &actual)).after, the_address());
    }
}
