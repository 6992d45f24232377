//! Published generators of worlds and packets (feature `strategies`).
//!
//! Domains are tiny, so that what is drawn independently still meets: few addresses, labels and ports, and packets that
//! mostly go between things that the world holds. Worlds are not limited to what the API accepts: whoever builds
//! resources by hand gets the same guarantees.

mod resources;

use std::net::IpAddr;

use calico_model::resource::{
    BgpConfiguration, FelixConfiguration, GlobalNetworkPolicy, GlobalNetworkSet, HostEndpoint, IpPool,
    KubernetesEndpointSlice, NetworkPolicy, NetworkSet, Node, Profile, Tier, WorkloadEndpoint,
};
use calico_model::snapshot::Held;
use calico_model::{Cidr, Family, InterfaceName, Protocol, Snapshot, Update};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::packet::{ConnectionState, Destination, OtherProtocol, Packet, Path, PortProtocol, Transport};

/// The node that packets of [`packet`] are seen on.
pub const NODE: &str = "node-1";
pub(crate) const NODES: [&str; 2] = [NODE, "node-2"];
pub(crate) const INTERFACES: [&str; 4] = ["cali1", "cali2", "cali3", "tap4"];
const ODD_INTERFACES: [&str; 4] = ["eth0", "eth1", "cali9", "lo"];
pub(crate) const ADDRS_V4: [&str; 5] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.4", "172.16.0.1"];
pub(crate) const ADDRS_V6: [&str; 4] = ["fd00::1", "fd00::2", "fd00::1:3", "fd01::1"];
const ODD_ADDRS: [&str; 8] =
    ["192.0.2.1", "0.0.0.0", "172.16.0.2", "2001:db8::1", "fe80::1", "::", "ff02::1", "ff05::1"];
pub(crate) const PORTS: [u16; 6] = [80, 81, 443, 4789, 22, 0];

/// Generates worlds: snapshots with workloads, hosts, sets, pools, profiles, tiers and policies.
pub fn world() -> impl Strategy<Value = Snapshot> {
    resources::world()
}

/// Generates worlds of few things under many simple policies, as only large clusters have them.
pub fn crowded_world() -> impl Strategy<Value = Snapshot> {
    resources::crowded_world()
}

/// Generates packets seen on [`NODE`]: most of them between ends that the world holds.
pub fn packet(world: &Snapshot) -> impl Strategy<Value = Packet> + use<> {
    let local = ends(world);
    let end = prop_oneof![6 => select(local), 1 => odd_end()];
    let way = (end.clone(), end, 0..4u8, proptest::option::weighted(0.3, odd_end()));
    let rest =
        (transport(), state(), proptest::option::weighted(0.1, (select(&ADDRS_V4[..]), select(&PORTS[..]))));
    (way, rest).prop_map(|((from, to, way, first), (transport, state, original))| {
        let family = Family::of(from.addr);
        // An end of the other family keeps its interface and gets an address that fits.
        let fitting = match family {
            Family::V4 => ADDRS_V4[0],
            Family::V6 => ADDRS_V6[0],
        };
        let fitting = fitting.parse().expect("a constant address");
        let destination = if Family::of(to.addr) == family { to.addr } else { fitting };
        let path = match way {
            // No router forwards to groups of a link.
            0 | 1 if !crate::compile::link_groups().contains(destination) => {
                Path::Forward { from: from.interface, to: to.interface }
            }
            0..=2 => Path::ToHost { from: from.interface },
            _ => {
                let first = first.map_or_else(|| to.interface.clone(), |first| first.interface);
                Path::FromHost { first, to: to.interface }
            }
        };
        let original = original
            .map(|(addr, port)| Destination { addr: addr.parse().expect("a constant address"), port });
        Packet {
            node: NODE.parse().expect("a constant name"),
            path,
            source: from.addr,
            destination,
            original_destination: original.filter(|original| Family::of(original.addr) == family),
            transport,
            state,
        }
    })
}

/// An interface with an address behind it.
#[derive(Debug, Clone)]
struct Placed {
    interface: InterfaceName,
    addr: IpAddr,
}

fn placed(interface: &str, addr: &str) -> Placed {
    Placed {
        interface: interface.parse().expect("a constant interface"),
        addr: addr.parse().expect("a constant address"),
    }
}

/// Where addresses of the world are: workloads of the node at their interface, everything else behind eth0.
fn ends(world: &Snapshot) -> Vec<Placed> {
    let mut ends: Vec<Placed> = Vec::new();
    for workload in world.workloads.values() {
        let local = workload.spec.node.as_str() == NODE;
        let own = workload.spec.interface_name.clone().filter(|_| local);
        let interface = own.unwrap_or_else(|| placed("eth0", "::").interface);
        let addrs = workload.spec.ip_networks.iter().map(Cidr::addr);
        ends.extend(addrs.map(|addr| Placed { interface: interface.clone(), addr }));
    }
    ends.extend(["10.0.0.3", "172.16.0.1", "192.0.2.1", "fd01::1"].map(|addr| placed("eth0", addr)));
    ends
}

/// Any interface with any address: spoofed, unknown, link-local.
fn odd_end() -> impl Strategy<Value = Placed> + Clone {
    let interfaces: Vec<&str> = INTERFACES.iter().chain(&ODD_INTERFACES).copied().collect();
    let addrs: Vec<&str> = ADDRS_V4.iter().chain(&ADDRS_V6).chain(&ODD_ADDRS).copied().collect();
    (select(interfaces), select(addrs)).prop_map(|(interface, addr)| placed(interface, addr))
}

fn transport() -> impl Strategy<Value = Transport> {
    let port = || prop_oneof![8 => select(&PORTS[..]), 1 => any::<u16>()];
    prop_oneof![
        6 => (select(&PortProtocol::ALL[..]), port(), port()).prop_map(|(protocol, source, destination)| {
            Transport::Ports { protocol, source, destination }
        }),
        2 => (prop_oneof![select(&[0u8, 8, 128, 133, 134, 135, 143][..]), any::<u8>()], 0..3u8)
            .prop_map(|(icmp_type, code)| Transport::Icmp { icmp_type, code }),
        1 => select(&[4u8, 47, 136][..]).prop_filter_map("no ports", |number| {
            OtherProtocol::new(Protocol::from_number(number)).map(Transport::Other)
        }),
    ]
}

fn state() -> impl Strategy<Value = ConnectionState> {
    prop_oneof![
        10 => Just(ConnectionState::New),
        1 => Just(ConnectionState::Established),
        1 => Just(ConnectionState::Withdrawn),
        1 => Just(ConnectionState::Invalid),
        1 => Just(ConnectionState::Untracked),
    ]
}

/// Returns updates that make one world of another: removals, then everything that is new or different, kind by kind.
#[must_use]
pub fn updates(from: &Snapshot, to: &Snapshot) -> Vec<Update> {
    let mut updates = Vec::new();
    between::<IpPool>(from, to, &mut updates);
    between::<Node>(from, to, &mut updates);
    between::<WorkloadEndpoint>(from, to, &mut updates);
    between::<HostEndpoint>(from, to, &mut updates);
    between::<Profile>(from, to, &mut updates);
    between::<Tier>(from, to, &mut updates);
    between::<NetworkPolicy>(from, to, &mut updates);
    between::<GlobalNetworkPolicy>(from, to, &mut updates);
    between::<NetworkSet>(from, to, &mut updates);
    between::<GlobalNetworkSet>(from, to, &mut updates);
    between::<KubernetesEndpointSlice>(from, to, &mut updates);
    between::<BgpConfiguration>(from, to, &mut updates);
    between::<FelixConfiguration>(from, to, &mut updates);
    updates
}

fn between<S: Held>(from: &Snapshot, to: &Snapshot, updates: &mut Vec<Update>) {
    let (from, to) = (S::table(from), S::table(to));
    let gone = from.values().filter(|object| !to.contains_key(&object.id()));
    updates.extend(gone.map(|object| Update::Removed(object.key())));
    let new = to.values().filter(|object| from.get(&object.id()) != Some(object));
    updates.extend(new.map(|object| Update::Put(Box::new(S::into_resource(object.as_ref().clone())))));
}

/// Generates packets for one world.
pub fn packets(world: &Snapshot, count: usize) -> impl Strategy<Value = Vec<Packet>> + use<> {
    vec(packet(world), count)
}
