//! The meaning of policy, straight from the resources.
//!
//! This is the specification in code: it follows the words of the resources, compares addresses with endpoints instead of with
//! sets, and knows nothing of chains. The compiler must agree with it for every packet.

mod endpoint;
mod host;
mod rule;

use std::net::IpAddr;

use calico_model::resource::felix::{DenyAction, LoopPrevention, NatExclusions};
use calico_model::resource::{
    AllowedUse, EncapMode, EndpointToHostAction, FelixConfiguration, PolicyType, WorkloadEndpoint,
};
use calico_model::{Cidr, Family, InterfaceName, Protocol, Snapshot};

use crate::closed::Enforcers;
use crate::compile::IPIP;
use crate::local::{
    LOOPBACK, LocalHosts, LocalWorkload, local_hosts, local_workloads, prefixes, service_networks,
};
use crate::order::{OrderedTier, tiers};
use crate::packet::{
    ConnectionState, NewSource, Outcome, Packet, Path, PortProtocol, SourceNat, Told, Transport, Verdict,
};
use crate::trace::{Reason, Step, Subject, Trace};

/// Returns what becomes of a packet, and why.
#[must_use]
pub fn evaluate(snapshot: &Snapshot, packet: &Packet) -> Trace {
    evaluate_with(Enforcers::default(), snapshot, packet)
}

/// Returns what becomes of a packet where others enforce what rules alone cannot: what they decide is not known here.
#[must_use]
pub fn evaluate_with(enforcers: Enforcers, snapshot: &Snapshot, packet: &Packet) -> Trace {
    let felix = snapshot.felix_configuration(&packet.node);
    let workloads = local_workloads(snapshot, &packet.node, &prefixes(&felix));
    let own =
        snapshot.hosts.values().map(std::sync::Arc::as_ref).filter(|host| host.spec.node == packet.node);
    let hosts = local_hosts(own, &prefixes(&felix));
    let state = if packet.state == ConnectionState::Withdrawn && !felix.reevaluates_flows() {
        ConnectionState::Established
    } else {
        packet.state
    };
    let mut evaluation = Evaluation {
        snapshot,
        packet,
        enforcers,
        felix,
        workloads,
        hosts,
        state,
        accepted_early: false,
        original: false,
        tiers: tiers(snapshot),
        steps: Vec::new(),
    };
    let (verdict, told) = evaluation.verdict();
    let translates = verdict == Verdict::Allow && evaluation.translates();
    let source_nat = if translates { SourceNat::Change(evaluation.new_source()) } else { SourceNat::Keep };
    if let SourceNat::Change(new) = source_nat {
        evaluation.steps.push(Step { subject: Subject::Host, reason: Reason::Translated(new) });
    }
    Trace { outcome: Outcome { verdict, told, source_nat }, steps: evaluation.steps }
}

struct Evaluation<'e> {
    snapshot: &'e Snapshot,
    packet: &'e Packet,
    enforcers: Enforcers,
    felix: FelixConfiguration,
    workloads: Vec<LocalWorkload<'e>>,
    hosts: LocalHosts<'e>,
    /// What connection tracking says; untracked policy may take the packet out of it.
    state: ConnectionState,
    /// Whether untracked or pre-DNAT policy allowed it, so that host endpoints' later policy is not asked.
    accepted_early: bool,
    /// Whether rules see the destination as it was before its translation.
    original: bool,
    tiers: Vec<OrderedTier<'e>>,
    steps: Vec<Step>,
}

/// An interface of the node, from the view of policy.
enum Side<'e> {
    /// It is a workload's.
    Workload(LocalWorkload<'e>),
    /// It is named like a workload's and is none's.
    Unknown,
    /// It is the node's own.
    Host,
}

impl<'e> Evaluation<'e> {
    fn verdict(&mut self) -> (Verdict, Told) {
        let path = self.packet.path.clone();
        let early = match &path {
            Path::Forward { from, .. } | Path::ToHost { from } => {
                self.all(&[&|e: &mut Self| e.source(from), &|e: &mut Self| e.early_in(from)])
            }
            Path::FromHost { first, .. } => self.early_out(first),
        };
        if early == Verdict::Deny {
            return (Verdict::Deny, Told::Nothing);
        }
        let verdict = match path {
            Path::Forward { from, to } => self.all(&[
                &|e: &mut Self| e.egress_of(&from),
                &|e: &mut Self| e.ingress_of(&to),
                &|e: &mut Self| e.through(&from, PolicyType::Ingress),
                &|e: &mut Self| e.through(&to, PolicyType::Egress),
                &|e: &mut Self| e.services(),
            ]),
            Path::ToHost { from } => {
                self.all(&[&|e: &mut Self| e.input_of_workload(&from), &|e: &mut Self| e.input(&from)])
            }
            Path::FromHost { first, to } => {
                // Of a translated destination it is asked where it leaves, of any other before.
                let translated = self.packet.original_destination.is_some();
                self.output(if translated { &to } else { &first }, translated)
            }
        };
        (verdict, if verdict == Verdict::Deny { self.told() } else { Told::Nothing })
    }

    /// What the sender hears of a packet that the last step denied, behind connection tracking and translation.
    fn told(&self) -> Told {
        let reason = self.steps.last().map(|step| &step.reason);
        let leaves =
            matches!(self.packet.path, Path::FromHost { .. }) && self.packet.original_destination.is_some();
        if leaves {
            return Told::Nothing;
        }
        let rejected = if let Some(Reason::ServiceLoop) = reason {
            self.felix.service_loop_prevention == Some(LoopPrevention::Reject)
        } else {
            self.felix.filter_deny_action() == DenyAction::Reject
                && !matches!(reason, Some(Reason::WorkloadToHost(_)))
        };
        if rejected { Told::Unreachable } else { Told::Nothing }
    }

    /// A packet passes when every stage lets it.
    fn all(&mut self, stages: &[&dyn Fn(&mut Self) -> Verdict]) -> Verdict {
        let denied = stages.iter().any(|stage| stage(self) == Verdict::Deny);
        if denied { Verdict::Deny } else { Verdict::Allow }
    }

    fn side(&self, interface: &InterfaceName) -> Side<'e> {
        let prefixed =
            || self.felix.interface_prefixes().iter().any(|prefix| interface.as_str().starts_with(prefix));
        match self.workloads.iter().find(|workload| workload.interface == *interface) {
            Some(workload) => Side::Workload(workload.clone()),
            None if prefixed() => Side::Unknown,
            None => Side::Host,
        }
    }

    fn settle(&mut self, subject: Subject, reason: Reason, verdict: Verdict) -> Verdict {
        self.steps.push(Step { subject, reason });
        verdict
    }

    /// A workload sends from its own addresses only, and nobody but the node to its loopback addresses.
    fn source(&mut self, from: &InterfaceName) -> Verdict {
        let subject = Subject::Interface(from.clone());
        let to_loopback = crate::compile::loopback_addresses().contains(self.packet.destination);
        match self.side(from) {
            _ if to_loopback && from.as_str() != LOOPBACK => {
                self.settle(subject, Reason::ToLoopback, Verdict::Deny)
            }
            Side::Host => Verdict::Allow,
            Side::Unknown => self.settle(subject, Reason::UnknownInterface, Verdict::Deny),
            Side::Workload(workload) if self.may_send(&workload.endpoint.spec) => Verdict::Allow,
            Side::Workload(_) => self.settle(subject, Reason::SpoofedSource, Verdict::Deny),
        }
    }

    fn may_send(&self, endpoint: &WorkloadEndpoint) -> bool {
        let source = self.packet.source;
        let link_local = crate::compile::LINK_LOCAL_SOURCES
            .iter()
            .any(|net| net.parse::<Cidr>().is_ok_and(|net| net.contains(source)));
        endpoint.ip_networks.iter().any(|net| net.addr() == source)
            || endpoint.allow_spoofed_source_prefixes.iter().any(|net| net.contains(source))
            || link_local && self.is_essential()
    }

    fn is_essential(&self) -> bool {
        self.is_icmpv6(&crate::compile::ESSENTIAL_ICMPV6)
    }

    fn is_icmpv6(&self, types: &[(u8, u8)]) -> bool {
        matches!(self.packet.transport, Transport::Icmp { icmp_type, .. }
            if self.packet.family() == Family::V6
                && types.iter().any(|(first, last)| (*first..=*last).contains(&icmp_type)))
    }

    fn egress_of(&mut self, from: &InterfaceName) -> Verdict {
        match self.side(from) {
            Side::Workload(workload) => self.workload(&workload, PolicyType::Egress),
            Side::Unknown | Side::Host => Verdict::Allow,
        }
    }

    fn ingress_of(&mut self, to: &InterfaceName) -> Verdict {
        match self.side(to) {
            Side::Workload(workload) => self.workload(&workload, PolicyType::Ingress),
            Side::Unknown => {
                self.settle(Subject::Interface(to.clone()), Reason::UnknownInterface, Verdict::Deny)
            }
            Side::Host => Verdict::Allow,
        }
    }

    fn input_of_workload(&mut self, from: &InterfaceName) -> Verdict {
        let destination = self.packet.destination;
        let stays = !destination.is_multicast() || crate::compile::link_groups().contains(destination);
        if matches!(self.side(from), Side::Workload(_)) && self.is_essential() && stays {
            return self.settle(Subject::Host, Reason::EssentialIcmpv6, Verdict::Allow);
        }
        self.egress_of(from)
    }

    fn input(&mut self, from: &InterfaceName) -> Verdict {
        if self.is_tunnel_of_cluster() {
            return if self.is_node(self.packet.source) {
                self.settle(Subject::Host, Reason::TunnelFromNode, Verdict::Allow)
            } else {
                self.settle(Subject::Host, Reason::TunnelFromStranger, Verdict::Deny)
            };
        }
        if matches!(self.side(from), Side::Host) {
            return self.host(from, PolicyType::Ingress);
        }
        // What the workload's own policy was not asked about is let in here too.
        if self.state == ConnectionState::Established || self.is_essential() {
            return Verdict::Allow;
        }
        let action = self.felix.default_endpoint_to_host_action.unwrap_or(EndpointToHostAction::Drop);
        let verdict = if action == EndpointToHostAction::Drop { Verdict::Deny } else { Verdict::Allow };
        self.settle(Subject::Host, Reason::WorkloadToHost(action), verdict)
    }

    /// A tunnel packet of a kind that the cluster's pools use.
    fn is_tunnel_of_cluster(&self) -> bool {
        let mut pools = self.snapshot.pools.values().map(|pool| &pool.spec);
        let is_ipip = self.packet.protocol() == IPIP && self.packet.family() == Family::V4;
        self.is_vxlan() && pools.clone().any(|pool| pool.vxlan_mode != EncapMode::Never)
            || is_ipip && pools.any(|pool| pool.ipip_mode != EncapMode::Never)
    }

    fn is_vxlan(&self) -> bool {
        let port = self.felix.vxlan_port();
        matches!(self.packet.transport,
            Transport::Ports { protocol: PortProtocol::Udp, destination, .. } if destination == port)
    }

    fn output(&mut self, to: &InterfaceName, translated: bool) -> Verdict {
        match self.side(to) {
            // No service leads to it, and known it would be reached.
            Side::Unknown if translated => Verdict::Allow,
            Side::Workload(_) => self.settle(Subject::Host, Reason::HostToWorkload, Verdict::Allow),
            Side::Unknown => {
                self.settle(Subject::Interface(to.clone()), Reason::UnknownInterface, Verdict::Deny)
            }
            Side::Host if self.hosts.of_address(to, self.packet.source).is_none() => Verdict::Allow,
            Side::Host if self.is_tunnel_of_cluster() && self.is_node(self.packet.destination) => {
                self.settle(Subject::Host, Reason::TunnelToNode, Verdict::Allow)
            }
            Side::Host => self.host(to, PolicyType::Egress),
        }
    }

    /// Reports whether an address is the tunnel end of one of the cluster's nodes.
    fn is_node(&self, addr: IpAddr) -> bool {
        let nodes = self.snapshot.nodes.values();
        nodes.filter_map(|node| node.spec.addr(Family::of(addr))).any(|node| node.addr() == addr)
    }

    /// What is forwarded is addressed to no service any more.
    fn services(&mut self) -> Verdict {
        let networks = service_networks(self.snapshot, &self.felix);
        if networks.iter().any(|network| network.contains(self.packet.destination)) {
            return self.settle(Subject::Host, Reason::ServiceLoop, Verdict::Deny);
        }
        Verdict::Allow
    }

    /// The first packet of a flow decides, on its way out.
    fn translates(&self) -> bool {
        let first = self.state == ConnectionState::New;
        let leaves = !matches!(self.packet.path, Path::ToHost { .. });
        let pools = || self.snapshot.pools.values().map(|pool| &pool.spec);
        let wanted = self.felix.iptables_nat_outgoing_interface_filter.as_deref();
        let by_interface =
            wanted.is_none_or(|wanted| match (self.packet.path.to(), wanted.strip_suffix('+')) {
                (None, _) => false,
                (Some(to), Some(prefix)) => to.as_str().starts_with(prefix),
                (Some(to), None) => to.as_str() == wanted,
            });
        let nodes_too = self.felix.nat_outgoing_exclusions == Some(NatExclusions::PoolsAndHosts);
        first
            && leaves
            && by_interface
            && !(nodes_too && self.is_node(self.packet.destination))
            && pools().any(|pool| pool.nat_outgoing && pool.cidr.contains(self.packet.source))
            && !pools()
                .filter(|pool| pool.allowed_uses != [AllowedUse::LoadBalancer])
                .any(|pool| pool.cidr.contains(self.packet.destination))
    }

    fn new_source(&self) -> NewSource {
        let family = self.packet.family();
        let bound = NewSource::bound(&self.felix, family);
        let bound = bound.filter(|_| NewSource::BOUND.contains(&self.packet.protocol()));
        bound.unwrap_or_else(|| NewSource::of(&self.felix, family))
    }

    fn is_tunnel_from_workload(&self) -> bool {
        let vxlan = !self.felix.allow_vxlan_packets_from_workloads.unwrap_or(false) && self.is_vxlan();
        let protocol: Protocol = self.packet.protocol();
        vxlan || !self.felix.allow_ipip_packets_from_workloads.unwrap_or(false) && protocol == IPIP
    }
}
