//! The cluster administrators' policy: ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::object::ObjectMeta;
use super::policy::lenient_network;
use super::selector::LabelSelector;
use super::{ConversionError, Converted, metadata_of, name, read};
use crate::net::{Family, Protocol};
use crate::resource::policy::{
    Action, EntityRule, GlobalNetworkPolicy, GlobalPart, Policy, PolicyType, PortMatch, Rule, RuleMetadata,
};
use crate::resource::{Metadata, Object};
use crate::selector::Selector;
use crate::wire::{FromWire, Path, Report, Rules, wire_enum, wire_struct};

wire_struct! {
    /// A cluster network policy.
    pub(super) struct Source {
        /// The metadata.
        metadata: ObjectMeta = "metadata" required,
        /// The spec.
        spec: Spec = "spec" required,
    }
}

wire_enum! {
    /// The tier of a cluster network policy.
    pub(super) enum ClusterTier {
        /// Before all others.
        Admin = "Admin",
        /// After all others.
        Baseline = "Baseline",
    }
}

wire_struct! {
    /// A cluster network policy's spec.
    pub(super) struct Spec {
        /// The tier.
        tier: ClusterTier = "tier" required,
        /// The place in the tier, 0 to 1000: lower is earlier.
        priority: u16 = "priority" required,
        /// The pods it applies to.
        subject: Subject = "subject" required,
        /// Its ingress rules, each read on its own.
        ingress: Vec<Value> = "ingress" empty,
        /// Its egress rules, each read on its own.
        egress: Vec<Value> = "egress" empty,
    }
}

wire_struct! {
    /// Pods: all of some namespaces, or some of them.
    pub(super) struct Subject {
        /// All pods of these namespaces.
        namespaces: Option<LabelSelector> = "namespaces" optional,
        /// Some pods of some namespaces.
        pods: Option<Pods> = "pods" optional,
    }
    check = check_subject;
}

wire_struct! {
    /// Some pods of some namespaces.
    pub(super) struct Pods {
        /// The namespaces.
        namespace_selector: Option<LabelSelector> = "namespaceSelector" optional,
        /// The pods.
        pod_selector: Option<LabelSelector> = "podSelector" optional,
    }
}

wire_enum! {
    /// What a rule does.
    pub(super) enum ClusterAction {
        /// The packet may pass.
        Accept = "Accept",
        /// The packet is dropped.
        Deny = "Deny",
        /// The next tier decides.
        Pass = "Pass",
    }
}

wire_struct! {
    /// What is read of a rule before anything else, so that a rule that cannot be converted still closes.
    pub(super) struct RuleHead {
        /// The rule's name.
        name: String = "name" empty,
        /// What it does.
        action: ClusterAction = "action" required,
    }
}

wire_struct! {
    /// The rest of a rule.
    pub(super) struct RuleBody {
        /// The sources, for ingress.
        from: Vec<Peer> = "from" empty,
        /// The destinations, for egress.
        to: Vec<Peer> = "to" empty,
        /// The protocols and ports; none is all.
        protocols: Vec<ProtocolMatch> = "protocols" empty,
    }
}

wire_struct! {
    /// One end of a rule: exactly one field is set.
    pub(super) struct Peer {
        /// All pods of these namespaces.
        namespaces: Option<LabelSelector> = "namespaces" optional,
        /// Some pods of some namespaces.
        pods: Option<Pods> = "pods" optional,
        /// Networks.
        networks: Option<Vec<String>> = "networks" optional,
        /// Hosts, as destinations.
        nodes: Option<LabelSelector> = "nodes" optional,
    }
}

wire_struct! {
    /// A protocol and a port: exactly one field is set.
    pub(super) struct ProtocolMatch {
        /// TCP.
        tcp: Option<PortOf> = "tcp" optional,
        /// UDP.
        udp: Option<PortOf> = "udp" optional,
        /// SCTP.
        sctp: Option<PortOf> = "sctp" optional,
        /// A port that the destination gave a name, whatever its protocol.
        destination_named_port: Option<String> = "destinationNamedPort" optional,
    }
}

wire_struct! {
    /// The port of a protocol.
    pub(super) struct PortOf {
        /// The port; every port when absent.
        destination_port: Option<PortNumber> = "destinationPort" optional,
    }
}

wire_struct! {
    /// A port or a range.
    pub(super) struct PortNumber {
        /// The port.
        number: Option<u16> = "number" optional,
        /// The range.
        range: Option<PortRange> = "range" optional,
    }
    check = check_port_number;
}

wire_struct! {
    /// A range of ports, both ends included.
    pub(super) struct PortRange {
        /// The first.
        start: u16 = "start" required,
        /// The last.
        end: u16 = "end" required,
    }
    check = check_range;
}

fn check_port_number(port: &mut PortNumber, mut rules: Rules<'_, '_, '_>) {
    if port.number.is_some() == port.range.is_some() {
        rules.broken("", &[], "must have exactly one of number and range");
    }
}

fn check_range(range: &mut PortRange, mut rules: Rules<'_, '_, '_>) {
    if range.start > range.end {
        rules.broken("end", &["start", "end"], "must be at least start");
    }
}

fn check_subject(subject: &mut Subject, mut rules: Rules<'_, '_, '_>) {
    if subject.namespaces.is_some() == subject.pods.is_some() {
        rules.broken("", &[], "must have exactly one of namespaces and pods");
    }
}

/// Converts a ClusterNetworkPolicy.
///
/// A rule that cannot be converted is reported; one that accepts is left out, and one that denies or passes becomes a
/// rule that denies everything.
///
/// # Errors
/// When the object has no usable name, tier, priority or subject.
pub fn cluster_network_policy(
    value: &Value,
) -> Result<Converted<Object<GlobalNetworkPolicy>>, ConversionError> {
    const KIND: &str = "ClusterNetworkPolicy";
    let source: Source = read(KIND, value)?;
    let (prefix, tier) = match source.spec.tier {
        ClusterTier::Admin => ("kcnp.kube-admin", "kube-admin"),
        ClusterTier::Baseline => ("kcnp.kube-baseline", "kube-baseline"),
    };
    let mut metadata = Metadata::named(name(KIND, &format!("{prefix}.{}", source.metadata.name))?);
    metadata_of(&source.metadata, &mut metadata);
    let mut report = Report::default();
    let at = Path::root("spec");
    let subject = Pods::of(source.spec.subject.namespaces.as_ref(), source.spec.subject.pods.as_ref());
    let (selector, namespaces) = subject.unwrap_or_else(|error| {
        report.fault(at.key("subject"), None, error);
        (Selector::all(), Selector::all())
    });
    let ingress = rules(&source.spec.ingress, PolicyType::Ingress, at.key("ingress"), &mut report);
    let egress = rules(&source.spec.egress, PolicyType::Egress, at.key("egress"), &mut report);
    let has_rules = [(&source.spec.ingress, PolicyType::Ingress), (&source.spec.egress, PolicyType::Egress)];
    let types: Vec<PolicyType> = has_rules
        .into_iter()
        .filter(|(rules, _)| !rules.is_empty())
        .map(|(_, direction)| direction)
        .collect();
    let mut policy = Policy::selecting(selector, types);
    policy.tier = name(KIND, tier)?;
    policy.order = Some(f64::from(source.spec.priority));
    (policy.ingress, policy.egress) = (ingress, egress);
    let global = GlobalPart { namespace_selector: Some(namespaces), ..GlobalPart::plain() };
    let object = Object { metadata, spec: GlobalNetworkPolicy { policy, global } };
    Ok(Converted { object, faults: report.faults })
}

impl Pods {
    /// Returns the selectors of pods and of namespaces.
    fn of(namespaces: Option<&LabelSelector>, pods: Option<&Pods>) -> Result<(Selector, Selector), String> {
        let everything = LabelSelector { match_labels: BTreeMap::new(), match_expressions: Vec::new() };
        let (namespaces, pods) = match pods {
            Some(pods) => (pods.namespace_selector.as_ref(), pods.pod_selector.as_ref()),
            None => (namespaces, None),
        };
        let selector = pods.unwrap_or(&everything).pods().map_err(|error| error.to_string())?;
        let namespaces = namespaces.unwrap_or(&everything).terms().map_err(|error| error.to_string())?;
        Ok((selector, namespaces))
    }
}

fn rules(values: &[Value], direction: PolicyType, at: Path<'_>, report: &mut Report) -> Vec<Rule> {
    let mut made = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let rule_at = at.index(i);
        let head = RuleHead::from_wire(value, rule_at, report);
        let action = head.as_ref().map(|head| head.action);
        let body = head.and_then(|head| rule_to_rules(&head, value, direction, rule_at, report));
        match (body, action) {
            (Some(mut rules), _) => made.append(&mut rules),
            (None, Some(ClusterAction::Accept)) => {}
            (None, Some(ClusterAction::Deny | ClusterAction::Pass) | None) => {
                made.push(Rule::new(Action::Deny))
            }
        }
    }
    made
}

fn rule_to_rules(
    head: &RuleHead,
    value: &Value,
    direction: PolicyType,
    at: Path<'_>,
    report: &mut Report,
) -> Option<Vec<Rule>> {
    let body = RuleBody::from_wire(value, at, report)?;
    let (key, peers, raw) = match direction {
        PolicyType::Ingress => ("from", &body.from, value.get("from")),
        PolicyType::Egress => ("to", &body.to, value.get("to")),
    };
    let peers_at = at.key(key);
    if peers.is_empty() {
        report.fault(peers_at, None, "must have at least one peer");
        return None;
    }
    let mut ends: Vec<EntityRule> = Vec::new();
    for (i, peer) in peers.iter().enumerate() {
        let raw = raw.and_then(|raw| raw.get(i));
        let nodes_may = (direction == PolicyType::Egress).then_some(head.action);
        ends.append(&mut end(peer, raw, nodes_may, peers_at.index(i), report)?);
    }
    let protocols = protocols(&body.protocols, at.key("protocols"), report)?;
    let action = match head.action {
        ClusterAction::Accept => Action::Allow,
        ClusterAction::Deny => Action::Deny,
        ClusterAction::Pass => Action::Pass,
    };
    let mut made = Vec::new();
    for (protocol, port) in &protocols {
        for end in &ends {
            let mut rule = Rule::new(action);
            rule.protocol = *protocol;
            match direction {
                PolicyType::Ingress => rule.source = end.clone(),
                PolicyType::Egress => rule.destination = end.clone(),
            }
            rule.destination.ports = port.iter().cloned().collect();
            if !head.name.is_empty() {
                let annotations = BTreeMap::from([("name".to_owned(), head.name.clone())]);
                rule.metadata = Some(RuleMetadata { annotations });
            }
            made.push(rule);
        }
    }
    Some(made)
}

/// Reads one end; nodes can be one where it is said what the rule does with them.
fn end(
    peer: &Peer,
    raw: Option<&Value>,
    nodes_may: Option<ClusterAction>,
    at: Path<'_>,
    report: &mut Report,
) -> Option<Vec<EntityRule>> {
    let given = raw.and_then(Value::as_object).map_or(0, serde_json::Map::len);
    if given != 1 {
        report.fault(at, None, "must have exactly one kind of peer");
        return None;
    }
    if let Some(networks) = &peer.networks {
        return networks_end(networks, at.key("networks"), report);
    }
    if let (Some(nodes), Some(action)) = (&peer.nodes, nodes_may) {
        return nodes_end(nodes, action, at, report);
    }
    if peer.namespaces.is_none() && peer.pods.is_none() {
        report.fault(
            at,
            None,
            "must be namespaces, pods, networks, or nodes in an egress rule: no other peer is supported",
        );
        return None;
    }
    match Pods::of(peer.namespaces.as_ref(), peer.pods.as_ref()) {
        Ok((selector, namespaces)) => Some(vec![EntityRule {
            selector: Some(selector),
            namespace_selector: Some(namespaces),
            ..EntityRule::default()
        }]),
        Err(error) => {
            report.fault(at, None, error);
            None
        }
    }
}

/// Nodes are known by the host endpoints that the Kubernetes controllers make of them, with the nodes' own labels. Nobody
/// says that every node has one, so a rule that denies nodes is closed.
fn nodes_end(
    nodes: &LabelSelector,
    action: ClusterAction,
    at: Path<'_>,
    report: &mut Report,
) -> Option<Vec<EntityRule>> {
    if action == ClusterAction::Deny {
        report.fault(at, None, "cannot deny nodes alone: the rule denies everything");
        return None;
    }
    let made = Selector::equals("projectcalico.org/created-by", "calico-kube-controllers");
    let selector = nodes.terms().and_then(|nodes| Ok(nodes.and(&made?)));
    match selector {
        Ok(selector) => Some(vec![EntityRule {
            selector: Some(selector),
            namespace_selector: Some(Selector::global()),
            ..EntityRule::default()
        }]),
        Err(error) => {
            report.fault(at.key("nodes"), None, error.to_string());
            None
        }
    }
}

/// One end for each family that the networks are of.
fn networks_end(networks: &[String], at: Path<'_>, report: &mut Report) -> Option<Vec<EntityRule>> {
    let mut nets = Vec::new();
    for (i, text) in networks.iter().enumerate() {
        match lenient_network(text) {
            Some(net) => nets.push(net),
            None => {
                report.fault(at.index(i), Some(&Value::String(text.clone())), "must be a network");
                return None;
            }
        }
    }
    let of =
        |family: Family| nets.iter().copied().filter(move |net| net.family() == family).collect::<Vec<_>>();
    let ends = Family::ALL.into_iter().map(of).filter(|nets| !nets.is_empty());
    Some(ends.map(|nets| EntityRule { nets, ..EntityRule::default() }).collect())
}

type ProtocolPort = (Option<Protocol>, Option<PortMatch>);

fn protocols(matches: &[ProtocolMatch], at: Path<'_>, report: &mut Report) -> Option<Vec<ProtocolPort>> {
    if matches.is_empty() {
        return Some(vec![(None, None)]);
    }
    let mut made = Vec::new();
    for (i, one) in matches.iter().enumerate() {
        let numbered =
            [(&one.tcp, Protocol::TCP), (&one.udp, Protocol::UDP), (&one.sctp, Protocol::SCTP)].into_iter();
        let mut given: Vec<ProtocolPort> =
            numbered.filter_map(|(port, protocol)| Some((Some(protocol), port_of(port.as_ref()?)))).collect();
        if let Some(port) = &one.destination_named_port {
            given.push((None, Some(PortMatch::Named(port.as_str().into()))));
        }
        match given.as_slice() {
            [(_, Some(port))] if port.to_string().parse().as_ref() != Ok(port) => {
                let found = Value::String(port.to_string());
                let rule = "must be a port, a range that ends after it begins, or the name of a port";
                report.fault(at.index(i), Some(&found), rule);
                return None;
            }
            [only] => made.push(only.clone()),
            _ => {
                report.fault(
                    at.index(i),
                    None,
                    "must have exactly one of tcp, udp, sctp and destinationNamedPort",
                );
                return None;
            }
        }
    }
    Some(made)
}

fn port_of(port: &PortOf) -> Option<PortMatch> {
    let port = port.destination_port.as_ref()?;
    let range = port.range.as_ref().map(|range| PortMatch::Range(range.start, range.end));
    range.or_else(|| port.number.map(|number| PortMatch::Range(number, number)))
}
