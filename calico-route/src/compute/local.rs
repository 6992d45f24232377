//! What is on this node: its workloads and its blocks.

use std::net::IpAddr;

use calico_model::resource::{Object, WorkloadEndpoint};
use calico_model::{Cidr, Family, InterfaceName};

use super::Part;
use super::view::View;
use crate::desired::Problem;
use crate::route::{Class, Route, RouteKey, Target};
use crate::sysctl::Sysctl;

/// The route to a workload of this node, and its neighbour.
pub(super) fn workload(view: &View<'_>, prefix: Cidr, part: &mut Part) {
    let addr = prefix.addr();
    if !prefix.is_host() || !view.serves(prefix.family()) {
        return;
    }
    let Some((object, device)) = settle(view, addr, part) else { return };
    let key = RouteKey::main(prefix, view.priority_to(prefix, &view.known.node));
    part.offer(key, Route { class: Class::LocalWorkload, target: Target::Device(device.clone()) });
    if let Some(mac) = object.spec.mac {
        part.neighbours.insert((device.clone(), addr), mac);
    }
}

/// Returns the interface of the workload of this node that has an address, and a route.
pub(super) fn device_of<'k>(view: &View<'k>, addr: IpAddr) -> Option<&'k InterfaceName> {
    if !view.serves(Family::of(addr)) {
        return None;
    }
    settle(view, addr, &mut Part::default()).map(|(_, device)| device)
}

/// Decides which of the endpoints that claim an address has it: the newest, because an address is given out again while
/// what is left of its former owner may linger.
fn settle<'k>(
    view: &View<'k>,
    addr: IpAddr,
    part: &mut Part,
) -> Option<(&'k Object<WorkloadEndpoint>, &'k InterfaceName)> {
    let ids = view.known.claims.get(&addr)?;
    let claims = ids.iter().filter_map(|id| Some((id, view.known.workloads.get(id)?)));
    let (id, winner) = claims.max_by_key(|(id, object)| (&object.metadata.creation_timestamp, *id))?;
    for loser in ids.iter().filter(|loser| *loser != id) {
        let (used, unused) = (id.to_string(), loser.to_string());
        part.problems.insert(Problem::SharedAddress { address: addr, used, unused });
    }
    if let Some(node) = view.node_at(addr) {
        let (workload, node) = (id.to_string(), node.clone());
        part.problems.insert(Problem::NodeAddressOfWorkload { address: addr, workload, node });
        return None;
    }
    Some((winner, winner.spec.interface_name.as_ref()?))
}

/// The kernel settings of a workload's interface. The node answers for the workload's gateway (`proxy_arp`, at once) and
/// forwards; a workload may not advertise routers to the node, and has no IPv6 to talk over unless it has an address.
pub(super) fn settings(view: &View<'_>, device: &InterfaceName, part: &mut Part) {
    let ids = view.known.interfaces.get(device).into_iter().flatten();
    let workloads: Vec<&WorkloadEndpoint> =
        ids.filter_map(|id| view.known.workloads.get(id)).map(|object| &object.spec).collect();
    if workloads.is_empty() {
        return;
    }
    let mut set = |folder: &str, family: Family, setting: &str, value: &str| {
        part.sysctls.insert(Sysctl::of_device(device, folder, family, setting), value.to_owned());
    };
    let spoofs = workloads.iter().any(|workload| !workload.allow_spoofed_source_prefixes.is_empty());
    set("conf", Family::V4, "proxy_arp", "1");
    set("conf", Family::V4, "forwarding", "1");
    set("conf", Family::V4, "rp_filter", if spoofs { "0" } else { "1" });
    set("neigh", Family::V4, "proxy_delay", "0");
    set("conf", Family::V6, "accept_ra", "0");
    let has_v6 = workloads.iter().any(|workload| workload.addrs(Family::V6).next().is_some());
    if view.serves(Family::V6) && has_v6 {
        set("conf", Family::V6, "disable_ipv6", "0");
        set("conf", Family::V6, "forwarding", "1");
        set("conf", Family::V6, "proxy_ndp", "1");
    } else {
        set("conf", Family::V6, "disable_ipv6", "1");
    }
}

/// Drops for what is sent to addresses of our blocks that no workload has: it would otherwise go to the default gateway
/// and may come back. A block of one address is itself a workload's route.
pub(super) fn blackhole(view: &View<'_>, prefix: Cidr, part: &mut Part) {
    let host = view.known.blocks.get(&prefix).and_then(|block| block.host.as_ref());
    if host == Some(&view.known.node) && view.serves(prefix.family()) && !prefix.is_host() {
        if let Some(problem) = view.cuts_off(prefix) {
            part.problems.insert(problem);
            return;
        }
        let key = RouteKey::main(prefix, view.priority(prefix.family()));
        part.offer(key, Route { class: Class::Blackhole, target: Target::Blackhole });
    }
}
