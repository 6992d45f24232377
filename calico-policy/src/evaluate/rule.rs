//! One rule against one packet.

use std::net::IpAddr;

use calico_model::resource::service::ServiceId;
use calico_model::resource::{
    EndpointPort, EntityRule, Icmp, KubernetesEndpointSlice, PortMatch, ResourceKey, Rule,
};
use calico_model::{Cidr, Namespace, Selector, Snapshot};

use super::Evaluation;
use crate::labels::SystemLabels;
use crate::packet::{Packet, Transport, icmp_of};
use crate::peer::peer;
use crate::ruleset::End;
use crate::trace::{Fact, Meant};

impl Evaluation<'_> {
    /// Returns why a rule of a policy in `namespace` matches, or `None` when it does not.
    pub(super) fn matches(&self, rule: &Rule, namespace: Option<&Namespace>) -> Option<Vec<Fact>> {
        let packet = self.packet;
        let family = packet.family();
        let sound = rule.ip_version.is_none_or(|version| version == family.version())
            && rule.protocol.is_none_or(|protocol| protocol == packet.protocol())
            && rule.not_protocol.is_none_or(|protocol| protocol != packet.protocol())
            && rule.icmp.as_ref().is_none_or(|icmp| is_icmp(packet, icmp))
            && rule.not_icmp.as_ref().is_none_or(|icmp| !is_icmp(packet, icmp));
        if !sound {
            return None;
        }
        let mut facts = self.end(End::Source, &rule.source, namespace)?;
        facts.extend(self.end(End::Destination, &rule.destination, namespace)?);
        Some(facts)
    }

    fn end(&self, end: End, entity: &EntityRule, namespace: Option<&Namespace>) -> Option<Vec<Fact>> {
        let (addr, port) = self.end_of_packet(end);
        let peer = peer(entity, namespace);
        let in_any = |nets: &[Cidr]| nets.iter().any(|net| net.contains(addr));
        let port_in = |ports: &[PortMatch]| {
            port.is_some_and(|port| {
                ports.iter().any(|wanted| self.is_port(wanted, addr, port, peer.selector.as_ref()))
            })
        };
        let sound = (entity.nets.is_empty() || in_any(&entity.nets))
            && !in_any(&entity.not_nets)
            && (entity.ports.is_empty() || port_in(&entity.ports))
            && !port_in(&entity.not_ports);
        if !sound {
            return None;
        }
        let mut facts = Vec::new();
        if let Some(selector) = &peer.selector {
            let selected = self.selected(selector, addr);
            if selected.is_empty() {
                return None;
            }
            facts.push(Fact { end, meant: Meant::Selector(selector.clone()), selected });
        }
        if let Some(selector) = &peer.not_selector {
            let selected = self.selected(selector, addr);
            if !selected.is_empty() {
                return None;
            }
            facts.push(Fact { end, meant: Meant::Selector(selector.clone()), selected });
        }
        if let Some(service) = &peer.service {
            let selected = self.endpoints_of(service, end);
            if selected.is_empty() {
                return None;
            }
            facts.push(Fact { end, meant: Meant::Service(service.clone()), selected });
        }
        Some(facts)
    }

    pub(super) fn end_of_packet(&self, end: End) -> (IpAddr, Option<u16>) {
        let ports = match self.packet.transport {
            Transport::Ports { source, destination, .. } => Some((source, destination)),
            Transport::Icmp { .. } | Transport::Other(_) => None,
        };
        let original = self.packet.original_destination.filter(|_| self.original);
        match (end, original) {
            (End::Source, _) => (self.packet.source, ports.map(|(source, _)| source)),
            (End::Destination, Some(original)) => (original.addr, ports.map(|_| original.port)),
            (End::Destination, None) => (self.packet.destination, ports.map(|(_, destination)| destination)),
        }
    }

    /// A named port is what the endpoint that has the address calls so, if the rule's selector selects it.
    fn is_port(&self, wanted: &PortMatch, addr: IpAddr, port: u16, selector: Option<&Selector>) -> bool {
        let name = match wanted {
            PortMatch::Range(first, last) => return (first..=last).contains(&&port),
            PortMatch::Named(name) => name,
        };
        let protocol = self.packet.protocol();
        let is_named = |ports: &[EndpointPort]| {
            ports.iter().any(|p| p.name == **name && p.protocol == protocol && p.port == port)
        };
        let is_selected =
            |labels: &SystemLabels<'_>| selector.is_none_or(|selector| selector.matches(labels));
        let snapshot: &Snapshot = self.snapshot;
        let workload = snapshot.workloads.values().any(|endpoint| {
            endpoint.spec.ip_networks.iter().any(|net| net.is_host() && net.addr() == addr)
                && is_named(&endpoint.spec.ports)
                && is_selected(&SystemLabels::of_workload(snapshot, endpoint))
        });
        workload
            || snapshot.hosts.values().any(|endpoint| {
                endpoint.spec.expected_ips.contains(&addr)
                    && is_named(&endpoint.spec.ports)
                    && is_selected(&SystemLabels::of_host(snapshot, endpoint))
            })
    }

    /// Returns the slices in which an end of the packet is an endpoint of a service: a destination by its port too.
    fn endpoints_of(&self, service: &ServiceId, end: End) -> Vec<ResourceKey> {
        let (addr, port) = self.end_of_packet(end);
        let protocol = self.packet.protocol();
        let at_port = |slice: &KubernetesEndpointSlice| {
            end == End::Source
                || port.is_some_and(|port| slice.numbered_ports().any(|p| p == (protocol, port)))
        };
        let slices = self.snapshot.endpoint_slices.values();
        let own = slices.filter(|slice| slice.service().as_ref() == Some(service));
        own.filter(|slice| slice.spec.addresses().any(|own| own == addr) && at_port(&slice.spec))
            .map(|slice| slice.key())
            .collect()
    }

    /// Returns everything that has the address and is selected.
    fn selected(&self, selector: &Selector, addr: IpAddr) -> Vec<ResourceKey> {
        let snapshot: &Snapshot = self.snapshot;
        let has = |nets: &[Cidr]| nets.iter().any(|net| net.contains(addr));
        let mut selected = Vec::new();
        selected.extend(
            snapshot
                .workloads
                .values()
                .filter(|object| has(&object.spec.ip_networks))
                .filter(|object| selector.matches(&SystemLabels::of_workload(snapshot, object)))
                .map(|object| object.key()),
        );
        selected.extend(
            snapshot
                .hosts
                .values()
                .filter(|object| object.spec.expected_ips.contains(&addr))
                .filter(|object| selector.matches(&SystemLabels::of_host(snapshot, object)))
                .map(|object| object.key()),
        );
        selected.extend(
            snapshot
                .network_sets
                .values()
                .filter(|object| has(&object.spec.nets))
                .filter(|object| selector.matches(&SystemLabels::of_set(&object.metadata)))
                .map(|object| object.key()),
        );
        selected.extend(
            snapshot
                .global_network_sets
                .values()
                .filter(|object| has(&object.spec.nets))
                .filter(|object| selector.matches(&SystemLabels::of_set(&object.metadata)))
                .map(|object| object.key()),
        );
        selected
    }
}

/// Reports whether a packet is ICMP of its own family, of this type and code.
fn is_icmp(packet: &Packet, wanted: &Icmp) -> bool {
    let Transport::Icmp { icmp_type, code } = packet.transport else { return false };
    packet.protocol() == icmp_of(packet.family())
        && wanted.icmp_type.is_none_or(|wanted| wanted == icmp_type)
        && wanted.code.is_none_or(|wanted| wanted == code)
}
