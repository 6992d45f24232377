//! Generators of policies and of what their rules say.

use calico_model::resource::policy::{GlobalPart, Http, ServiceMatch};
use calico_model::resource::{
    Action, EntityRule, Icmp, Policy, PolicyType, PortMatch, Rule, ServiceAccounts,
};
use calico_model::{Protocol, Selector};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::PORTS;
use super::{NAMESPACES, SERVICES, TIERS, constant, nets, order};

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

pub(super) fn network_policy() -> impl Strategy<Value = (&'static str, Policy)> {
    (select(&NAMESPACES[..]), policy())
}

pub(super) fn global_policy() -> impl Strategy<Value = (Policy, GlobalPart)> {
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
    (place, selects, types, vec(rule().boxed(), 0..4), vec(rule().boxed(), 0..4)).prop_map(
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

pub(super) fn rule() -> impl Strategy<Value = Rule> {
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
    (basics, icmps, entity().boxed(), entity().boxed(), proptest::bool::weighted(0.05)).prop_map(
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

fn service() -> impl Strategy<Value = ServiceMatch> {
    (select(&SERVICES[..]), weighted(0.6, select(&NAMESPACES[..]))).prop_map(|(name, namespace)| {
        ServiceMatch { name: name.to_owned(), namespace: namespace.map(constant) }
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![8 => select(&SELECTORS[..]).prop_map(constant), 1 => calico_model::strategies::selector()]
}

/// A rule for a protocol, a few ports, and one kind of source.
pub(super) fn simple_rule() -> impl Strategy<Value = Rule> {
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
