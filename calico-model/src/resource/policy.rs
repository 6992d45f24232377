//! What may pass: rules, and the policies made of them.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde_json::Value;

use super::Tier;
use crate::name::{Name, Namespace};
use crate::net::{Cidr, Protocol};
use crate::selector::Selector;
use crate::wire::{
    FromWire, Limit, Path, Report, Rules, Schemas, ToWire, joined, two_tables, whole, wire_enum, wire_struct,
};

mod check;
mod port;

pub use port::PortMatch;

wire_enum! {
    /// What a rule does with a packet that it matches.
    pub enum Action {
        /// The packet may pass; nothing later is asked.
        Allow = "Allow",
        /// The packet is dropped.
        Deny = "Deny",
        /// The packet is noted in the kernel's log, and the next rule is asked.
        Log = "Log",
        /// The rest of the tier is skipped.
        Pass = "Pass",
    }
}

wire_enum! {
    /// A direction of traffic, as seen from the endpoint.
    pub enum PolicyType {
        /// To the endpoint.
        Ingress = "Ingress",
        /// From the endpoint.
        Egress = "Egress",
    }
}

wire_struct! {
    /// A rule: an action, and what a packet must be for it. Every field that is set must match.
    pub struct Rule {
        /// What is done with a packet that matches.
        action: Action = "action" required,
        /// The IP version.
        ip_version: Option<u8> = "ipVersion" optional [Limit::Numbers(&[4, 6])],
        /// The protocol.
        protocol: Option<Protocol> = "protocol" optional,
        /// Any protocol but this.
        not_protocol: Option<Protocol> = "notProtocol" optional,
        /// The ICMP type and code.
        icmp: Option<Icmp> = "icmp" optional,
        /// Any ICMP type and code but these.
        not_icmp: Option<Icmp> = "notICMP" optional,
        /// Where the packet comes from.
        source: EntityRule = "source" empty,
        /// Where the packet goes.
        destination: EntityRule = "destination" empty,
        /// The HTTP request, which only a registered application-layer enforcer can match.
        http: Option<Http> = "http" optional,
        /// Notes.
        metadata: Option<RuleMetadata> = "metadata" optional,
    }
    check = check::rule;
}

wire_struct! {
    /// Notes on a rule; no meaning for traffic.
    pub struct RuleMetadata {
        /// The notes.
        annotations: BTreeMap<String, String> = "annotations" empty,
    }
}

wire_struct! {
    /// An ICMP type and code.
    pub struct Icmp {
        /// The type; `None` is any.
        icmp_type: Option<u8> = "type" optional [Limit::Range(0, 254)],
        /// The code; `None` is any.
        code: Option<u8> = "code" optional,
    }
    check = check::icmp;
}

wire_struct! {
    /// One end of a packet. Every field that is set must match.
    pub struct EntityRule {
        /// The address is in one of these networks.
        nets: Vec<Cidr> = "nets" empty [Limit::Items(0, 256), Limit::Each(&Limit::Prefixed)],
        /// The address belongs to an endpoint or network set that this selects.
        selector: Option<Selector> = "selector" optional,
        /// The endpoint is in a namespace that this selects.
        namespace_selector: Option<Selector> = "namespaceSelector" optional,
        /// The address and port belong to this service.
        services: Option<ServiceMatch> = "services" optional,
        /// The port is one of these.
        ports: Vec<PortMatch> = "ports" empty [Limit::Items(0, 50)],
        /// The address is in none of these networks.
        not_nets: Vec<Cidr> = "notNets" empty [Limit::Items(0, 256), Limit::Each(&Limit::Prefixed)],
        /// The address does not belong to an endpoint or network set that this selects.
        not_selector: Option<Selector> = "notSelector" optional,
        /// The port is none of these.
        not_ports: Vec<PortMatch> = "notPorts" empty [Limit::Items(0, 50)],
        /// The endpoint runs under one of these service accounts.
        service_accounts: Option<ServiceAccounts> = "serviceAccounts" optional,
    }
    check = check::entity;
}

wire_struct! {
    /// A Kubernetes service.
    pub struct ServiceMatch {
        /// The name.
        name: String = "name" required,
        /// The namespace; the policy's own when absent.
        namespace: Option<Namespace> = "namespace" optional,
    }
}

wire_struct! {
    /// Kubernetes service accounts.
    pub struct ServiceAccounts {
        /// The account is one of these.
        names: Vec<String> = "names" empty,
        /// The account is selected by this.
        selector: Option<Selector> = "selector" optional,
    }
}

wire_struct! {
    /// An HTTP request.
    pub struct Http {
        /// The method is one of these.
        methods: Vec<String> = "methods" empty [Limit::Items(0, 20)],
        /// The path is one of these.
        paths: Vec<HttpPath> = "paths" empty [Limit::Items(0, 20)],
    }
}

wire_struct! {
    /// A path of an HTTP request: exactly this or beginning with this.
    pub struct HttpPath {
        /// The whole path.
        exact: Option<String> = "exact" optional [Limit::Length(1024)],
        /// How the path begins.
        prefix: Option<String> = "prefix" optional [Limit::Length(1024)],
    }
    check = check::path;
}

wire_enum! {
    /// A hint for the programming of a policy.
    pub enum PerformanceHint {
        /// Some endpoint of every node will need it.
        AssumeNeededOnEveryNode = "AssumeNeededOnEveryNode",
    }
}

wire_struct! {
    /// What a `NetworkPolicy` and a `GlobalNetworkPolicy` have in common.
    pub struct Policy {
        /// The tier it is in.
        tier: Name = "tier" default(Tier::DEFAULT.parse().expect("a constant name")),
        /// The place in the tier: lower is earlier, `None` is last.
        order: Option<f64> = "order" optional,
        /// The endpoints it applies to.
        selector: Selector = "selector" empty [Limit::Length(1024)],
        /// The directions it applies to. Never empty once read: see [`Policy::types`].
        types: Vec<PolicyType> = "types" empty [Limit::Items(0, 2)],
        /// Rules for traffic to the endpoint, in order.
        ingress: Vec<Rule> = "ingress" empty [Limit::Items(0, 1024)],
        /// Rules for traffic from the endpoint, in order.
        egress: Vec<Rule> = "egress" empty [Limit::Items(0, 1024)],
        /// The endpoints' service accounts; `None` is any.
        service_account_selector: Option<Selector> = "serviceAccountSelector" optional [Limit::Length(1024)],
        /// Hints for the programming of the policy; no meaning for traffic.
        performance_hints: Vec<PerformanceHint> = "performanceHints" empty,
    }
    check = check::policy;
}

/// A `NetworkPolicy`: rules for endpoints of its namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkPolicy(pub Policy);

impl Deref for NetworkPolicy {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.0
    }
}

impl FromWire for NetworkPolicy {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        Policy::from_wire(value, at, report).map(Self)
    }

    fn in_part(value: &Value, at: Path<'_>, report: &mut Report) -> Self {
        Self(Policy::in_part(value, at, report))
    }

    fn stand_in() -> Self {
        Self(Policy::stand_in())
    }

    fn schema(schemas: &mut Schemas) -> Value {
        Policy::schema(schemas)
    }
}

impl ToWire for NetworkPolicy {
    fn to_wire(&self) -> Value {
        self.0.to_wire()
    }
}

wire_struct! {
    /// What only a `GlobalNetworkPolicy` has.
    pub struct GlobalPart {
        /// The namespaces of the endpoints; `None` is any, and host endpoints too.
        namespace_selector: Option<Selector> = "namespaceSelector" optional [Limit::Length(1024)],
        /// Whether it is enforced before connection tracking. Host endpoints only.
        do_not_track: bool = "doNotTrack" empty,
        /// Whether it is enforced before destination addresses are translated. Host endpoints only.
        pre_dnat: bool = "preDNAT" empty,
        /// Whether it applies to traffic that a host forwards.
        apply_on_forward: bool = "applyOnForward" empty,
    }
}

/// A `GlobalNetworkPolicy`: rules for endpoints of any namespace, and for hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalNetworkPolicy {
    /// What it shares with a namespaced policy.
    pub policy: Policy,
    /// What only a global policy has.
    pub global: GlobalPart,
}

impl Deref for GlobalNetworkPolicy {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}

impl FromWire for GlobalNetworkPolicy {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        whole(value, at, report)
    }

    fn in_part(value: &Value, at: Path<'_>, report: &mut Report) -> Self {
        let (policy, global) = two_tables(value, at, report);
        let read = Self { policy, global };
        check::global(&read, Rules::of(value, at, report));
        read
    }

    fn stand_in() -> Self {
        Self { policy: FromWire::stand_in(), global: FromWire::stand_in() }
    }

    fn schema(schemas: &mut Schemas) -> Value {
        schemas.of_two::<Policy, GlobalPart>("GlobalNetworkPolicy")
    }
}

impl ToWire for GlobalNetworkPolicy {
    fn to_wire(&self) -> Value {
        joined(self.policy.to_wire(), self.global.to_wire())
    }
}

impl Rule {
    /// Makes a rule that does `action` with every packet.
    #[must_use]
    pub fn new(action: Action) -> Self {
        Self {
            action,
            ip_version: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: EntityRule::default(),
            destination: EntityRule::default(),
            http: None,
            metadata: None,
        }
    }

    /// Makes a rule that allows every packet.
    #[must_use]
    pub fn allow() -> Self {
        Self::new(Action::Allow)
    }
}

impl Default for EntityRule {
    /// Any end.
    fn default() -> Self {
        Self {
            nets: Vec::new(),
            selector: None,
            namespace_selector: None,
            services: None,
            ports: Vec::new(),
            not_nets: Vec::new(),
            not_selector: None,
            not_ports: Vec::new(),
            service_accounts: None,
        }
    }
}

impl Policy {
    /// Makes a policy without rules: it selects, and what it selects is decided by the end of its tier.
    #[must_use]
    pub fn selecting(selector: Selector, types: Vec<PolicyType>) -> Self {
        Self {
            tier: Tier::DEFAULT.parse().expect("a constant name"),
            order: None,
            selector,
            types,
            ingress: Vec::new(),
            egress: Vec::new(),
            service_account_selector: None,
            performance_hints: Vec::new(),
        }
    }

    /// Reports whether the policy applies to a direction.
    #[must_use]
    pub fn applies_to(&self, direction: PolicyType) -> bool {
        self.types.contains(&direction)
    }

    /// Returns the rules of a direction.
    #[must_use]
    pub fn rules(&self, direction: PolicyType) -> &[Rule] {
        match direction {
            PolicyType::Ingress => &self.ingress,
            PolicyType::Egress => &self.egress,
        }
    }
}

impl GlobalPart {
    /// Makes the global part of an ordinary policy.
    #[must_use]
    pub fn plain() -> Self {
        Self { namespace_selector: None, do_not_track: false, pre_dnat: false, apply_on_forward: false }
    }
}
