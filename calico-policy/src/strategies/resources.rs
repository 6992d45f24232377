//! Generators of the resources that a world is made of.

mod configuration;
mod rules;

use calico_model::label::Labels;
use calico_model::name::{Name, NodeName};
use calico_model::resource::endpoint::HostInterface;
use calico_model::resource::policy::GlobalPart;
use calico_model::resource::{
    BgpConfiguration, DefaultAction, EndpointPort, FelixConfiguration, GlobalNetworkPolicy, GlobalNetworkSet,
    HostEndpoint, KubernetesEndpointSlice, Metadata, NetworkPolicy, NetworkSet, Node, NodeBgp, Object,
    Policy, PolicyType, Profile, Tier, WorkloadEndpoint,
};
use calico_model::{Cidr, Protocol, Selector, Snapshot};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use configuration::{felix, pool, services};
use rules::{global_policy, network_policy, rule, simple_rule};

use super::{ADDRS_V4, ADDRS_V6, INTERFACES, NODES, PORTS};

const NAMESPACES: [&str; 2] = ["ns1", "ns2"];
const SERVICES: [&str; 2] = ["svc", "other"];
const PROFILES: [&str; 4] = ["p1", "p2", "missing", "projectcalico-default-allow"];
const TIERS: [&str; 4] = ["default", "t1", "t2", "kube-admin"];
const NETS: [&str; 8] = [
    "10.0.0.0/24",
    "10.0.0.0/30",
    "10.0.0.2/32",
    "0.0.0.0/0",
    "fd00::/112",
    "fd00::1/128",
    "::/0",
    "192.0.2.0/24",
];
/// Labels that only the system gives, written by users.
const FORGED: [&str; 4] =
    ["projectcalico.org/namespace", "pcns.a", "pcsa.a", "projectcalico.org/serviceaccount"];

/// Parses a constant of this file.
fn constant<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("constants of the generators are well formed")
}

pub(super) fn world() -> impl Strategy<Value = Snapshot> {
    let sets = (vec(network_set(), 0..3), vec(network_set(), 0..3), vec(slice(), 0..4));
    // Boxed, since what grows a world is as large as all that it may grow, and unoptimised code has it on the stack many times.
    let endpoints = (vec(workload().boxed(), 0..6), vec(host().boxed(), 0..4), sets.boxed());
    let meaning = (
        vec(network_policy().boxed(), 0..4),
        vec(global_policy().boxed(), 0..4),
        vec(tier(), 3),
        vec(profile(), 2),
    );
    let around = (vec(pool(), 0..3), felix().boxed(), any::<[bool; 2]>(), weighted(0.2, services()));
    (endpoints, meaning, around).prop_map(
        |(
            (workloads, hosts, (sets, global_sets, slices)),
            (policies, globals, tiers, profiles),
            (pools, felix, nodes, services),
        )| {
            let mut world = Snapshot::default();
            let named =
                |prefix: &str, i: usize| -> Metadata { Metadata::named(constant(&format!("{prefix}{i}"))) };
            for (i, (labels, namespace, spec)) in workloads.into_iter().enumerate() {
                let metadata = Metadata { labels, namespace: Some(constant(namespace)), ..named("w", i) };
                world.insert(Object { metadata, spec });
            }
            for (i, (labels, spec)) in hosts.into_iter().enumerate() {
                world.insert(Object { metadata: Metadata { labels, ..named("h", i) }, spec });
            }
            for (i, (labels, nets)) in sets.into_iter().enumerate() {
                let namespace = Some(constant(NAMESPACES[i % 2]));
                let metadata = Metadata { labels, namespace, ..named("s", i) };
                world.insert(Object { metadata, spec: NetworkSet { nets } });
            }
            for (i, (labels, nets)) in global_sets.into_iter().enumerate() {
                let metadata = Metadata { labels, ..named("g", i) };
                world.insert(Object { metadata, spec: GlobalNetworkSet { nets } });
            }
            for (i, (labels, namespace, spec)) in slices.into_iter().enumerate() {
                let metadata = Metadata { labels, namespace: Some(constant(namespace)), ..named("es", i) };
                world.insert(Object { metadata, spec });
            }
            for (i, (namespace, spec)) in policies.into_iter().enumerate() {
                let metadata = Metadata { namespace: Some(constant(namespace)), ..named("np", i) };
                world.insert(Object { metadata, spec: NetworkPolicy(spec) });
            }
            for (i, (policy, global)) in globals.into_iter().enumerate() {
                world.insert(Object {
                    metadata: named("gnp", i),
                    spec: GlobalNetworkPolicy { policy, global },
                });
            }
            for (name, tier) in TIERS.iter().zip(tiers.into_iter().flatten()) {
                world.insert(Object::new(constant(name), tier));
            }
            for (name, profile) in PROFILES.iter().zip(profiles) {
                world.insert(Object::new(constant(name), profile));
            }
            for (i, pool) in pools.into_iter().enumerate() {
                world.insert(Object { metadata: named("pool", i), spec: pool });
            }
            for (i, name) in NODES.iter().enumerate().filter(|(i, _)| nodes[*i]) {
                let bgp = Some(NodeBgp::at(constant(&format!("172.16.0.{}/24", i + 1))));
                world.insert(Object::new(constant(name), Node { bgp, ..Node::new() }));
            }
            if let Some(bgp) = services {
                world.insert(Object::new(constant(BgpConfiguration::DEFAULT), bgp));
            }
            world.insert(Object::new(constant(FelixConfiguration::DEFAULT), felix));
            world
        },
    )
}

/// A world with many policies of the cluster, whose rules each name little.
pub(super) fn crowded_world() -> impl Strategy<Value = Snapshot> {
    (world(), vec(vec(simple_rule(), 1..4), 10..60), any::<[bool; 2]>()).prop_map(
        |(mut world, policies, [tiers, types])| {
            for (i, rules) in policies.into_iter().enumerate() {
                let both = vec![PolicyType::Ingress, PolicyType::Egress];
                let mut policy = Policy::selecting(Selector::all(), both);
                policy.tier = constant(if tiers && i % 2 == 0 { "t1" } else { "default" });
                policy.ingress.clone_from(&rules);
                if types {
                    policy.egress = rules;
                }
                let global = GlobalPart {
                    namespace_selector: None,
                    do_not_track: false,
                    pre_dnat: false,
                    apply_on_forward: false,
                };
                let spec = GlobalNetworkPolicy { policy, global };
                world.insert(Object { metadata: Metadata::named(constant(&format!("many{i}"))), spec });
            }
            world
        },
    )
}

fn labels() -> impl Strategy<Value = Labels> {
    let forged = (select(&FORGED[..]), select(&["ns1", "x", "sa"][..]));
    let own = vec((select(&["a", "b"][..]), select(&["x", "y"][..])), 0..3);
    (own, weighted(0.1, forged)).prop_map(|(own, forged)| own.into_iter().chain(forged).collect())
}

fn addrs() -> impl Strategy<Value = Vec<Cidr>> {
    let all: Vec<&str> = ADDRS_V4.iter().chain(&ADDRS_V6).copied().collect();
    subsequence(all, 0..3).prop_map(|addrs| addrs.into_iter().map(constant).collect())
}

fn named_ports() -> impl Strategy<Value = Vec<EndpointPort>> {
    let protocol = select(&[Protocol::TCP, Protocol::UDP, Protocol::SCTP][..]);
    let port = (select(&["web", "dns"][..]), protocol, select(&PORTS[..]));
    let port = port.prop_map(|(name, protocol, port)| EndpointPort::named(name, protocol, port));
    vec(port, 0..3)
}

fn profile_names() -> impl Strategy<Value = Vec<Name>> {
    subsequence(PROFILES.to_vec(), 0..3).prop_map(|names| names.into_iter().map(constant).collect())
}

fn workload() -> impl Strategy<Value = (Labels, &'static str, WorkloadEndpoint)> {
    let place =
        (prop_oneof![4 => Just(NODES[0]), 1 => Just(NODES[1])], weighted(0.9, select(&INTERFACES[..])));
    let identity =
        (labels(), select(&NAMESPACES[..]), select(&["", "sa", "sb"][..]), select(&["", "k8s"][..]));
    let rest = (addrs(), profile_names(), named_ports(), weighted(0.1, select(&NETS[..])));
    (place, identity, rest).prop_map(
        |(
            (node, interface),
            (labels, namespace, account, orchestrator),
            (addrs, profiles, ports, spoofed),
        )| {
            let mut spec = WorkloadEndpoint::on(constant(node));
            spec.interface_name = interface.map(constant);
            spec.service_account_name = account.to_owned();
            spec.orchestrator = orchestrator.to_owned();
            spec.ip_networks = addrs;
            spec.profiles = profiles;
            spec.ports = ports;
            spec.allow_spoofed_source_prefixes = spoofed.into_iter().map(constant).collect();
            (labels, namespace, spec)
        },
    )
}

fn host() -> impl Strategy<Value = (Labels, HostEndpoint)> {
    let interface = prop_oneof![
        1 => Just(None),
        1 => Just(Some(HostInterface::All)),
        2 => select(&["eth0", "eth1"][..]).prop_map(|name| Some(HostInterface::Named(constant(name)))),
    ];
    (labels(), select(&NODES[..]), interface, addrs(), profile_names(), named_ports()).prop_map(
        |(labels, node, interface_name, addrs, profiles, ports)| {
            let node: NodeName = constant(node);
            let expected_ips = addrs.iter().map(Cidr::addr).collect();
            (labels, HostEndpoint { node, interface_name, expected_ips, profiles, ports })
        },
    )
}

fn network_set() -> impl Strategy<Value = (Labels, Vec<Cidr>)> {
    (labels(), nets(0..4))
}

/// Some endpoints of a service, or of none.
fn slice() -> impl Strategy<Value = (Labels, &'static str, KubernetesEndpointSlice)> {
    let protocol = select(&[Protocol::TCP, Protocol::UDP, Protocol::SCTP][..]);
    let ports = vec((protocol, select(&PORTS[..])), 0..3);
    let service = prop_oneof![8 => select(&SERVICES[..]).prop_map(Some), 1 => Just(None)];
    (service, select(&NAMESPACES[..]), addrs(), ports).prop_map(|(service, namespace, addrs, ports)| {
        let labels = service.map(|service| ("kubernetes.io/service-name", service)).into_iter().collect();
        (labels, namespace, KubernetesEndpointSlice::new(addrs.iter().map(Cidr::addr), &ports))
    })
}

fn nets(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Cidr>> {
    subsequence(NETS.to_vec(), count).prop_map(|nets| nets.into_iter().map(constant).collect())
}

fn order() -> impl Strategy<Value = Option<f64>> {
    weighted(0.7, select(&[-1e308, -0.0, 0.0, 1e-320, 1.5, 1_000.0][..]))
}

fn tier() -> impl Strategy<Value = Option<Tier>> {
    let action = select(&[DefaultAction::Deny, DefaultAction::Pass][..]);
    weighted(0.7, (order(), action).prop_map(|(order, default_action)| Tier { order, default_action }))
}

fn profile() -> impl Strategy<Value = Profile> {
    let labels = vec((select(&["a", "b", "pcns.a", "pcsa.a"][..]), select(&["x", "y"][..])), 0..3);
    (vec(rule(), 0..3), vec(rule(), 0..3), labels).prop_map(|(ingress, egress, labels)| Profile {
        ingress,
        egress,
        labels_to_apply: labels.into_iter().collect(),
    })
}
