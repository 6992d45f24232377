//! What is on this node: its workloads and its blocks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_model::resource::{Object, WorkloadEndpoint};
use calico_model::{Cidr, Family, InterfaceName, NodeName};

use super::View;
use crate::desired::{Desired, Problem};
use crate::route::{Class, Route, RouteKey, Target};
use crate::sysctl::Sysctl;

type Claim<'s> = (&'s Object<WorkloadEndpoint>, &'s InterfaceName);

impl<'s> View<'s> {
    pub(super) fn local_workloads(
        &self,
    ) -> impl Iterator<Item = (&'s Object<WorkloadEndpoint>, &'s WorkloadEndpoint)> {
        let own = |workload: &&Object<WorkloadEndpoint>| workload.spec.node == *self.node;
        self.snapshot.workloads.values().filter(own).map(|workload| (workload, &workload.spec))
    }
}

/// A route, a neighbour and the kernel settings for each workload of this node.
pub(super) fn workloads(view: &View<'_>, desired: &mut Desired) {
    let mut claims: BTreeMap<IpAddr, Vec<Claim<'_>>> = BTreeMap::new();
    for (object, workload) in view.local_workloads() {
        let Some(device) = &workload.interface_name else { continue };
        settings(view, device, workload, desired);
        for addr in view.families().flat_map(|family| workload.addrs(family)) {
            claims.entry(addr).or_default().push((object, device));
        }
    }
    for (addr, claims) in claims {
        if let Some((object, device)) = settle(view, addr, &claims, desired) {
            let key = RouteKey::main(Cidr::host(addr), view.priority(Family::of(addr)));
            let route = Route { class: Class::LocalWorkload, target: Target::Device(device.clone()) };
            desired.offer(key, route);
            if let Some(mac) = object.spec.mac {
                desired.neighbours.insert((device.clone(), addr), mac);
            }
        }
    }
}

/// Decides which of the endpoints that claim an address has it: the newest, because an address is given out again while
/// what is left of its former owner may linger.
fn settle<'s>(
    view: &View<'_>,
    addr: IpAddr,
    claims: &[Claim<'s>],
    desired: &mut Desired,
) -> Option<Claim<'s>> {
    let age = |(object, _): &&Claim<'s>| (object.metadata.creation_timestamp.clone(), object.id());
    let winner = claims.iter().max_by_key(age)?;
    for (loser, _) in claims.iter().filter(|(object, _)| object.id() != winner.0.id()) {
        desired.problems.insert(Problem::SharedAddress {
            address: addr,
            used: winner.0.id().to_string(),
            unused: loser.id().to_string(),
        });
    }
    if let Some(node) = view.node_addresses.get(&addr).and_then(|name| name.parse::<NodeName>().ok()) {
        let workload = winner.0.id().to_string();
        desired.problems.insert(Problem::NodeAddressOfWorkload { address: addr, workload, node });
        return None;
    }
    Some(*winner)
}

/// The kernel settings of a workload's interface. The node answers for the workload's gateway (`proxy_arp`, at once) and
/// forwards; a workload may not advertise routers to the node, and has no IPv6 to talk over unless it has an address.
fn settings(view: &View<'_>, device: &InterfaceName, workload: &WorkloadEndpoint, desired: &mut Desired) {
    let mut set = |folder: &str, family: Family, setting: &str, value: &str| {
        desired.sysctls.insert(Sysctl::of_device(device, folder, family, setting), value.to_owned());
    };
    let spoofs = !workload.allow_spoofed_source_prefixes.is_empty();
    set("conf", Family::V4, "proxy_arp", "1");
    set("conf", Family::V4, "forwarding", "1");
    set("conf", Family::V4, "rp_filter", if spoofs { "0" } else { "1" });
    set("neigh", Family::V4, "proxy_delay", "0");
    set("conf", Family::V6, "accept_ra", "0");
    if view.serves(Family::V6) && workload.addrs(Family::V6).next().is_some() {
        set("conf", Family::V6, "disable_ipv6", "0");
        set("conf", Family::V6, "forwarding", "1");
        set("conf", Family::V6, "proxy_ndp", "1");
    } else {
        set("conf", Family::V6, "disable_ipv6", "1");
    }
}

/// Drops for what is sent to addresses of our blocks that no workload has: it would otherwise go to the default gateway
/// and may come back. A block of one address is itself a workload's route.
pub(super) fn blackholes(view: &View<'_>, desired: &mut Desired) {
    for block in view.snapshot.blocks.values() {
        let ours = block.host() == Some(view.node) && view.serves(block.cidr.family());
        if ours && !block.cidr.is_host() {
            let key = RouteKey::main(block.cidr, view.priority(block.cidr.family()));
            desired.offer(key, Route { class: Class::Blackhole, target: Target::Blackhole });
        }
    }
}
