//! Generators of the resources that a world is made of.

use calico_model::label::Labels;
use calico_model::name::{Name, NodeName};
use calico_model::resource::bgp::ServiceNetwork;
use calico_model::resource::endpoint::HostInterface;
use calico_model::resource::felix::{DenyAction, LoopPrevention, NatExclusions, NftablesMode};
use calico_model::resource::ipam::Switch;
use calico_model::resource::policy::{GlobalPart, Http, ServiceMatch};
use calico_model::resource::{
    Action, AllowedUse, BgpConfiguration, DefaultAction, EncapMode, EndpointPort, EndpointToHostAction,
    EntityRule, FelixConfiguration, GlobalNetworkPolicy, GlobalNetworkSet, HostEndpoint, Icmp, IpPool,
    KubernetesEndpointSlice, Metadata, NetworkPolicy, NetworkSet, Node, NodeBgp, Object, Policy, PolicyType,
    PortMatch, Profile, ProtoPort, Rule, ServiceAccounts, Tier, WorkloadEndpoint,
};
use calico_model::{Cidr, Protocol, Selector, Snapshot};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

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
const SELECTORS: [&str; 14] = [
    "all()",
    "a == 'x'",
    "a != 'x'",
    "has(a)",
    "!has(a)",
    "b in {'x', 'y'}",
    "a == 'x' && has(b)",
    "projectcalico.org/namespace == 'ns1'",
    "!has(projectcalico.org/namespace)",
    "pcns.a == 'x'",
    "projectcalico.org/serviceaccount == 'sa'",
    "projectcalico.org/orchestrator == 'k8s'",
    "global()",
    "a in {}",
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
    let endpoints = (vec(workload(), 0..6), vec(host(), 0..4), sets);
    let meaning =
        (vec(network_policy(), 0..4), vec(global_policy(), 0..4), vec(tier(), 3), vec(profile(), 2));
    let around = (vec(pool(), 0..3), felix(), any::<[bool; 2]>(), weighted(0.2, services()));
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

/// A rule for a protocol, a few ports, and one kind of source.
fn simple_rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![60 => Just(Action::Allow), 4 => Just(Action::Deny), 1 => Just(Action::Pass), 1 => Just(Action::Log)];
    let port = (
        select(&[80u16, 81, 82, 443, 4789, 22, 0, 8_080][..]),
        select(&[0u16, 0, 0, 0, 0, 0, 0, 1, 400][..]),
    )
        .prop_map(|(first, more)| PortMatch::Range(first, first + more));
    let protocol = select(vec![Protocol::TCP, Protocol::TCP, Protocol::UDP, Protocol::SCTP]);
    let of_selector = prop_oneof![3 => narrow_selector(), 1 => select(&SELECTORS[..]).prop_map(constant)];
    let of_selector = of_selector
        .prop_map(|selector: Selector| EntityRule { selector: Some(selector), ..EntityRule::default() });
    let source = prop_oneof![
        2 => of_selector,
        2 => nets(1..2).prop_map(|nets| EntityRule { nets, ..EntityRule::default() }),
        1 => Just(EntityRule::default()),
    ];
    (action, protocol, vec(port, 0..3), source).prop_map(|(action, protocol, ports, source)| Rule {
        protocol: Some(protocol),
        source,
        destination: EntityRule { ports, ..EntityRule::default() },
        ..Rule::new(action)
    })
}

/// A selector of a label's value, of which there are more than things that match.
fn narrow_selector() -> impl Strategy<Value = Selector> {
    (select(&["a", "b", "pcns.a"][..]), 0..12u8).prop_map(|(key, n)| {
        let value = match n {
            0 | 1 => "x".to_owned(),
            2 | 3 => "y".to_owned(),
            n => format!("v{n}"),
        };
        let other = if n % 2 == 0 { String::new() } else { format!(" && !has(c{n})") };
        constant(&format!("{key} == '{value}'{other}"))
    })
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

fn service() -> impl Strategy<Value = ServiceMatch> {
    (select(&SERVICES[..]), weighted(0.6, select(&NAMESPACES[..]))).prop_map(|(name, namespace)| {
        ServiceMatch { name: name.to_owned(), namespace: namespace.map(constant) }
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

fn network_policy() -> impl Strategy<Value = (&'static str, Policy)> {
    (select(&NAMESPACES[..]), policy())
}

fn global_policy() -> impl Strategy<Value = (Policy, GlobalPart)> {
    let flags =
        (proptest::bool::weighted(0.15), proptest::bool::weighted(0.15), proptest::bool::weighted(0.4));
    (policy(), weighted(0.3, selector()), flags).prop_map(
        |(policy, namespace_selector, (do_not_track, pre_dnat, apply_on_forward))| {
            let pre_dnat = pre_dnat && !do_not_track;
            let apply_on_forward = apply_on_forward || do_not_track || pre_dnat;
            (policy, GlobalPart { namespace_selector, do_not_track, pre_dnat, apply_on_forward })
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let types = subsequence(vec![PolicyType::Ingress, PolicyType::Egress], 1..=2);
    let selects = (prop_oneof![2 => Just(Selector::all()), 3 => selector()], weighted(0.2, selector()));
    let place = (select(&TIERS[..]), order());
    (place, selects, types, vec(rule(), 0..4), vec(rule(), 0..4)).prop_map(
        |((tier, order), (selector, accounts), types, ingress, egress)| Policy {
            tier: constant(tier),
            order,
            ingress,
            egress,
            service_account_selector: accounts,
            ..Policy::selecting(selector, types)
        },
    )
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![8 => select(&SELECTORS[..]).prop_map(constant), 1 => calico_model::strategies::selector()]
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        5 => Just(Action::Allow), 2 => Just(Action::Deny), 1 => Just(Action::Log), 2 => Just(Action::Pass)
    ];
    let protocols =
        [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP, Protocol::ICMPV6, Protocol::UDPLITE];
    let protocol = || select(protocols.to_vec());
    let icmp = || {
        (weighted(0.8, select(&[0u8, 8, 128, 135][..])), weighted(0.3, 0..2u8))
            .prop_map(|(icmp_type, code)| Icmp { icmp_type, code })
    };
    let basics =
        (action, weighted(0.15, select(&[4u8, 6][..])), weighted(0.5, protocol()), weighted(0.1, protocol()));
    let icmps = (weighted(0.1, icmp()), weighted(0.1, icmp()));
    (basics, icmps, entity(), entity(), proptest::bool::weighted(0.05)).prop_map(
        |((action, ip_version, protocol, not_protocol), (icmp, not_icmp), source, destination, http)| Rule {
            ip_version,
            protocol,
            not_protocol,
            icmp,
            not_icmp,
            source,
            destination,
            http: http.then(|| Http { methods: vec!["GET".to_owned()], paths: Vec::new() }),
            ..Rule::new(action)
        },
    )
}

fn entity() -> impl Strategy<Value = EntityRule> {
    let entity = (
        (sometimes(nets(1..4)), sometimes(nets(1..3))),
        (weighted(0.3, selector()), weighted(0.15, selector()), weighted(0.2, selector())),
        (sometimes(ports()), sometimes(ports())),
        (weighted(0.1, accounts()), weighted(0.05, service())),
    );
    prop_oneof![
        6 => Just(EntityRule::default()),
        1 => service().prop_map(|service| EntityRule { services: Some(service), ..EntityRule::default() }),
        9 => entity.prop_map(|(nets, selectors, ports, (service_accounts, services))| EntityRule {
            nets: nets.0,
            selector: selectors.0,
            namespace_selector: selectors.2,
            services,
            ports: ports.0,
            not_nets: nets.1,
            not_selector: selectors.1,
            not_ports: ports.1,
            service_accounts,
        }),
    ]
}

/// Mostly nothing.
fn sometimes<T: Clone + std::fmt::Debug>(
    some: impl Strategy<Value = Vec<T>>,
) -> impl Strategy<Value = Vec<T>> {
    weighted(0.2, some).prop_map(Option::unwrap_or_default)
}

fn ports() -> impl Strategy<Value = Vec<PortMatch>> {
    let range = (select(&PORTS[..]), select(&[0u16, 0, 1, 5_000][..]));
    let port = prop_oneof![
        6 => range.prop_map(|(first, more)| PortMatch::Range(first, first.saturating_add(more))),
        2 => select(&["web", "dns", "none"][..]).prop_map(|name| PortMatch::Named(name.into())),
        1 => Just(PortMatch::Range(2, 1)),
    ];
    vec(port, 1..4)
}

fn accounts() -> impl Strategy<Value = ServiceAccounts> {
    (vec(select(&["sa", "sb"][..]), 0..2), weighted(0.5, selector())).prop_map(|(names, selector)| {
        ServiceAccounts { names: names.into_iter().map(str::to_owned).collect(), selector }
    })
}

fn pool() -> impl Strategy<Value = IpPool> {
    let encap = || prop_oneof![3 => Just(EncapMode::Never), 1 => Just(EncapMode::CrossSubnet)];
    let uses = prop_oneof![4 => Just(AllowedUse::Workload), 1 => Just(AllowedUse::LoadBalancer)];
    (select(&NETS[..]), encap(), encap(), any::<[bool; 2]>(), uses).prop_map(
        |(net, ipip_mode, vxlan_mode, [nat_outgoing, disabled], uses)| IpPool {
            ipip_mode,
            vxlan_mode,
            nat_outgoing,
            disabled,
            allowed_uses: vec![uses],
            ..IpPool::new(constant(net))
        },
    )
}

/// The networks of services, two of three kinds.
fn services() -> impl Strategy<Value = BgpConfiguration> {
    let network = || select(&["10.0.1.0/24", "172.16.0.0/16", "fd01::/64"][..]);
    let network = || network().prop_map(|cidr| ServiceNetwork { cidr: constant(cidr) });
    (vec(network(), 0..3), vec(network(), 0..2)).prop_map(|(cluster, external)| BgpConfiguration {
        service_cluster_ips: cluster,
        service_external_ips: external,
        ..BgpConfiguration::default()
    })
}

fn felix() -> impl Strategy<Value = FelixConfiguration> {
    let actions = [EndpointToHostAction::Drop, EndpointToHostAction::Accept, EndpointToHostAction::Return];
    let flags = (any::<[Option<bool>; 3]>(), weighted(0.3, select(&[Switch::Enabled, Switch::Disabled][..])));
    (
        weighted(0.5, select(actions.to_vec())),
        flags,
        weighted(0.6, Just("cali,tap")),
        (failsafes(), failsafes()),
        (
            weighted(0.4, select(&[LoopPrevention::Disabled, LoopPrevention::Reject][..])),
            weighted(0.3, Just(NatExclusions::PoolsAndHosts)),
            weighted(0.1, select(&["eth0", "eth+", "cali1"][..])),
            weighted(0.3, select(&["10.0.9.1", "203.0.113.7"][..])),
            weighted(0.3, select(&["0", "0:9", "1024", "1024:2047", "named"][..])),
        ),
        (weighted(0.3, Just(NftablesMode::Disabled)), deny_action(), deny_action()),
    )
        .prop_map(|(action, ([vxlan, ipip, invalid], flows), prefix, failsafes, outgoing, denies)| {
            FelixConfiguration {
                nftables_mode: denies.0,
                nftables_filter_deny_action: denies.1,
                iptables_filter_deny_action: denies.2,
                service_loop_prevention: outgoing.0,
                nat_outgoing_exclusions: outgoing.1,
                iptables_nat_outgoing_interface_filter: outgoing.2.map(str::to_owned),
                nat_outgoing_address: outgoing.3.map(constant),
                nat_port_range: outgoing.4.map(constant),
                default_endpoint_to_host_action: action,
                allow_vxlan_packets_from_workloads: vxlan,
                allow_ipip_packets_from_workloads: ipip,
                disable_conntrack_invalid_check: invalid,
                flow_reevaluation: flows,
                interface_prefix: prefix.map(str::to_owned),
                failsafe_inbound_host_ports: failsafes.0,
                failsafe_outbound_host_ports: failsafes.1,
                ..FelixConfiguration::new()
            }
        })
}

fn deny_action() -> impl Strategy<Value = Option<DenyAction>> {
    weighted(0.4, select(&[DenyAction::Drop, DenyAction::Reject][..]))
}

fn failsafes() -> impl Strategy<Value = Option<Vec<ProtoPort>>> {
    let net = weighted(0.4, select(&NETS[..]));
    let port = (net, select(&["TCP", "udp", "icmp"][..]), select(&PORTS[..]));
    let port = port.prop_map(|(net, protocol, port)| ProtoPort {
        net: net.map(constant),
        protocol: protocol.to_owned(),
        port,
    });
    weighted(0.7, vec(port, 0..3))
}
