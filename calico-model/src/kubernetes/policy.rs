//! Kubernetes' NetworkPolicy.

use std::collections::BTreeMap;

use serde_json::Value;

use super::object::ObjectMeta;
use super::selector::LabelSelector;
use super::{ConversionError, Converted, metadata_of, name, read};
use crate::name::Namespace;
use crate::net::{Cidr, InterfaceAddr, Protocol};
use crate::resource::policy::{Action, EntityRule, NetworkPolicy, Policy, PolicyType, PortMatch, Rule};
use crate::resource::{Metadata, Object};
use crate::selector::Selector;
use crate::wire::{FromWire, Path, Report, Rules, ToWire, wire_struct};

/// The order of every converted policy.
pub(super) const ORDER: f64 = 1000.0;

wire_struct! {
    /// A Kubernetes network policy.
    pub(super) struct Source {
        /// The metadata.
        metadata: ObjectMeta = "metadata" required,
        /// The spec.
        spec: Spec = "spec" required,
    }
}

wire_struct! {
    /// A Kubernetes network policy's spec.
    pub(super) struct Spec {
        /// The pods it applies to.
        pod_selector: Option<LabelSelector> = "podSelector" optional,
        /// Its ingress rules, each read on its own.
        ingress: Vec<Value> = "ingress" empty,
        /// Its egress rules, each read on its own.
        egress: Vec<Value> = "egress" empty,
        /// The directions it applies to.
        policy_types: Vec<PolicyType> = "policyTypes" empty,
    }
}

wire_struct! {
    /// A rule: traffic between the pod and one of the peers on one of the ports may pass.
    pub(super) struct PeerRule {
        /// The sources, for ingress.
        from: Vec<Peer> = "from" empty,
        /// The destinations, for egress.
        to: Vec<Peer> = "to" empty,
        /// The ports; none is every protocol and port.
        ports: Vec<Port> = "ports" empty,
    }
}

wire_struct! {
    /// One end of a rule.
    pub(super) struct Peer {
        /// Pods, of the policy's namespace unless namespaces are selected.
        pod_selector: Option<LabelSelector> = "podSelector" optional,
        /// Namespaces.
        namespace_selector: Option<LabelSelector> = "namespaceSelector" optional,
        /// A network.
        ip_block: Option<IpBlock> = "ipBlock" optional,
    }
}

wire_struct! {
    /// A network without some of its parts.
    pub(super) struct IpBlock {
        /// The network; bits beyond the prefix length are let be.
        cidr: InterfaceAddr = "cidr" required,
        /// What is left out.
        except: Vec<InterfaceAddr> = "except" empty,
    }
}

wire_struct! {
    /// A port, a range of ports or a named port of a protocol.
    pub(super) struct Port {
        /// The protocol; TCP when absent.
        protocol: Option<Protocol> = "protocol" optional,
        /// The port's number or name; every port when absent.
        port: Option<PortMatch> = "port" optional,
        /// The last port of a range.
        end_port: Option<u16> = "endPort" optional,
    }
    check = check_port;
}

fn check_port(port: &mut Port, mut rules: Rules<'_, '_, '_>) {
    if port.protocol.is_some_and(|protocol| !protocol.has_ports()) {
        rules.wrong("protocol", "must be TCP, UDP or SCTP");
    }
    match (&port.port, port.end_port) {
        (_, None) => {}
        (Some(PortMatch::Range(first, _)), Some(last)) if *first <= last => {}
        (_, Some(_)) => {
            rules.broken("endPort", &["port", "endPort"], "must be at least port, which must be a number");
        }
    }
}

/// Converts a NetworkPolicy of `networking.k8s.io/v1` or `extensions/v1beta1`.
///
/// A rule that cannot be converted is left out and reported: since rules only allow, that closes.
///
/// # Errors
/// When the object has no usable name, namespace, pod selector or types.
pub fn network_policy(value: &Value) -> Result<Converted<Object<NetworkPolicy>>, ConversionError> {
    const KIND: &str = "NetworkPolicy";
    let source: Source = read(KIND, value)?;
    let meta = &source.metadata;
    let mut metadata = Metadata::named(name(KIND, &format!("knp.default.{}", meta.name))?);
    let namespace: Namespace =
        meta.namespace().parse().map_err(|source| ConversionError::Name { kind: KIND, source })?;
    metadata.namespace = Some(namespace);
    metadata_of(meta, &mut metadata);

    let mut report = Report::default();
    let at = Path::root("spec");
    let everything = LabelSelector { match_labels: BTreeMap::new(), match_expressions: Vec::new() };
    let selected = source.spec.pod_selector.as_ref().unwrap_or(&everything).pods();
    let selector = selected.unwrap_or_else(|error| {
        report.fault(at.key("podSelector"), None, error.to_string());
        // Not knowing which pods are meant, close all of the namespace's.
        Selector::all()
    });
    let types = types(&source.spec);
    let mut policy = Policy::selecting(selector, types);
    policy.order = Some(ORDER);
    policy.ingress = rules(&source.spec.ingress, PolicyType::Ingress, at.key("ingress"), &mut report);
    policy.egress = rules(&source.spec.egress, PolicyType::Egress, at.key("egress"), &mut report);
    Ok(Converted { object: Object { metadata, spec: NetworkPolicy(policy) }, faults: report.faults })
}

fn types(spec: &Spec) -> Vec<PolicyType> {
    if !spec.policy_types.is_empty() {
        return spec.policy_types.clone();
    }
    let egress = (!spec.egress.is_empty()).then_some(PolicyType::Egress);
    [Some(PolicyType::Ingress), egress].into_iter().flatten().collect()
}

fn rules(values: &[Value], direction: PolicyType, at: Path<'_>, report: &mut Report) -> Vec<Rule> {
    let read = values.iter().enumerate().filter_map(|(i, value)| {
        let rule_at = at.index(i);
        let rule = PeerRule::from_wire(value, rule_at, report)?;
        rule_to_rules(&rule, direction, rule_at, report)
    });
    read.flatten().collect()
}

/// One rule for each protocol and peer; `None` when a part of it cannot be converted.
fn rule_to_rules(
    rule: &PeerRule,
    direction: PolicyType,
    at: Path<'_>,
    report: &mut Report,
) -> Option<Vec<Rule>> {
    let (key, peers) = match direction {
        PolicyType::Ingress => ("from", &rule.from),
        PolicyType::Egress => ("to", &rule.to),
    };
    let peers_at = at.key(key);
    let ends: Option<Vec<EntityRule>> =
        peers.iter().enumerate().map(|(i, peer)| end(peer, peers_at.index(i), report)).collect();
    let mut ends = ends?;
    if ends.is_empty() {
        ends.push(EntityRule::default());
    }
    let mut made = Vec::new();
    for (protocol, ports) in by_protocol(&rule.ports) {
        for end in &ends {
            made.push(allow(protocol, ports.clone(), end.clone(), direction));
        }
    }
    Some(made)
}

fn allow(protocol: Option<Protocol>, ports: Vec<PortMatch>, end: EntityRule, direction: PolicyType) -> Rule {
    let mut rule = Rule::new(Action::Allow);
    rule.protocol = protocol;
    match direction {
        PolicyType::Ingress => rule.source = end,
        PolicyType::Egress => rule.destination = end,
    }
    rule.destination.ports = ports;
    rule
}

fn end(peer: &Peer, at: Path<'_>, report: &mut Report) -> Option<EntityRule> {
    let mut end = EntityRule::default();
    if let Some(block) = &peer.ip_block {
        if peer.pod_selector.is_some() || peer.namespace_selector.is_some() {
            report.fault(at.key("ipBlock"), None, "must be the only field of its peer");
            return None;
        }
        let net = block.cidr.subnet();
        end.nets = vec![net];
        end.not_nets = block.except.iter().map(InterfaceAddr::subnet).collect();
        let except_at = at.key("except");
        if let Some(i) = end.not_nets.iter().position(|except| !net.covers(except)) {
            report.fault(
                except_at.index(i),
                Some(&end.not_nets[i].to_wire()),
                format!("must be inside {net}"),
            );
            return None;
        }
        // All that the network holds is left out: nothing matches, and an exception of everything cannot be written.
        if end.not_nets.contains(&net) {
            end.nets = Vec::new();
            end.not_nets = Vec::new();
            end.selector = Some(nothing());
        }
        return Some(end);
    }
    let mut convert = |key, selected: Option<Result<Selector, _>>| match selected.transpose() {
        Ok(selector) => Some(selector),
        Err::<_, crate::selector::SelectorError>(error) => {
            report.fault(at.key(key), None, error.to_string());
            None
        }
    };
    end.selector = convert("podSelector", peer.pod_selector.as_ref().map(LabelSelector::pods))?;
    end.namespace_selector =
        convert("namespaceSelector", peer.namespace_selector.as_ref().map(LabelSelector::terms))?;
    if end.selector.is_none() && end.namespace_selector.is_none() {
        report.fault(at, None, "must have podSelector, namespaceSelector or ipBlock");
        return None;
    }
    Some(end)
}

/// A selector that nothing matches.
pub(super) fn nothing() -> Selector {
    "!all()".parse().expect("a constant selector")
}

/// The ports of each protocol, as sorted ranges and names; a protocol of which every port is meant has none.
fn by_protocol(ports: &[Port]) -> Vec<(Option<Protocol>, Vec<PortMatch>)> {
    if ports.is_empty() {
        return vec![(None, Vec::new())];
    }
    let mut protocols: BTreeMap<Protocol, Option<Vec<PortMatch>>> = BTreeMap::new();
    for port in ports {
        let all = protocols.entry(port.protocol.unwrap_or(Protocol::TCP)).or_insert_with(|| Some(Vec::new()));
        match (&port.port, port.end_port) {
            (None, _) => *all = None,
            (Some(PortMatch::Range(first, _)), Some(last)) => {
                all.iter_mut().for_each(|ports| ports.push(PortMatch::Range(*first, last)));
            }
            (Some(one), _) => all.iter_mut().for_each(|ports| ports.push(one.clone())),
        }
    }
    protocols
        .into_iter()
        .map(|(protocol, ports)| (Some(protocol), merged(ports.unwrap_or_default())))
        .collect()
}

/// Sorts ports, and joins ranges that touch.
fn merged(mut ports: Vec<PortMatch>) -> Vec<PortMatch> {
    ports.sort();
    let mut joined: Vec<PortMatch> = Vec::new();
    for port in ports {
        match (joined.last_mut(), &port) {
            (Some(PortMatch::Range(_, last)), PortMatch::Range(first, next_last))
                if *first <= last.saturating_add(1) =>
            {
                *last = (*last).max(*next_last);
            }
            (Some(before), after) if before == after => {}
            _ => joined.push(port),
        }
    }
    joined
}

/// Returns the network of text that may have bits beyond its prefix length.
pub(super) fn lenient_network(text: &str) -> Option<Cidr> {
    text.parse::<InterfaceAddr>().ok().map(|addr| addr.subnet())
}
