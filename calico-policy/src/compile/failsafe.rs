//! What stays open at every host endpoint, failsafe ports and what links need, and packets of the cluster's own tunnels.

use calico_model::Protocol;
use calico_model::resource::{EncapMode, IpPool, ProtoPort};

use super::workload::icmpv6_types;
use super::{Action, Compilation, End, Family, IPIP, Match, Op, PortSet, Rule, family_word, node_addresses};

/// A direction of the node's own traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

impl Way {
    /// The end that is not the node.
    fn far(self) -> End {
        match self {
            Way::In => End::Source,
            Way::Out => End::Destination,
        }
    }
}

impl Compilation<'_> {
    /// Opens the failsafe ports of one direction.
    pub(super) fn failsafes(&self, way: Way) -> Vec<Rule> {
        let ports = match way {
            Way::In => inbound(self.felix),
            Way::Out => outbound(self.felix),
        };
        ports.iter().filter_map(|port| failsafe(port, way.far(), End::Destination)).collect()
    }

    /// Opens the way back for the failsafe ports of the other direction: without tracking nobody knows a reply.
    pub(super) fn failsafe_replies(&self, way: Way) -> Vec<Rule> {
        let ports = match way {
            Way::In => outbound(self.felix),
            Way::Out => inbound(self.felix),
        };
        ports.iter().filter_map(|port| failsafe(port, way.far(), End::Source)).collect()
    }

    /// Lets a host endpoint's link work. Neighbour discovery is not tracked: it belongs to no flow that was let through. What
    /// comes in is looked at before it has a route too: what would be forwarded is a matter of policy.
    pub(super) fn essentials_of_hosts(&mut self, way: Way) -> Vec<Rule> {
        let accept = match way {
            Way::In => Action::Jump(self.essentials_of_links()),
            Way::Out => Action::Accept,
        };
        HOST_ICMPV6.map(|types| Rule::when(icmpv6_types(types), accept.clone())).into()
    }

    /// Takes tunnel packets from the cluster's nodes, or sends them there, as soon as some pool is encapsulated. What
    /// comes in from elsewhere is dropped.
    pub(super) fn tunnels(&mut self, way: Way) -> Vec<Rule> {
        let pools: Vec<&IpPool> = self.snapshot.pools.values().map(|pool| &pool.spec).collect();
        let mut rules = Vec::new();
        if pools.iter().any(|pool| pool.vxlan_mode != EncapMode::Never) {
            let port = self.felix.vxlan_port();
            let matches = [
                Match::Protocol(Op::Is, Protocol::UDP),
                Match::Port(End::Destination, Op::Is, PortSet::Range(port, port)),
            ];
            rules.extend(self.tunnel(way, &matches, &Family::ALL));
        }
        if pools.iter().any(|pool| pool.ipip_mode != EncapMode::Never) {
            rules.extend(self.tunnel(way, &[Match::Protocol(Op::Is, IPIP)], &[Family::V4]));
        }
        rules
    }

    fn tunnel(&mut self, way: Way, matches: &[Match], families: &[Family]) -> Vec<Rule> {
        let mut rules = Vec::new();
        for family in families {
            let words = family_word(*family, "nodes-v4", "nodes-v6");
            let nodes = self.sets.fixed(words, node_addresses(self.snapshot, *family));
            let known = Match::InSet(way.far(), *family, Op::Is, nodes);
            let family = Match::Family(*family);
            let all = std::iter::once(family).chain(matches.iter().cloned()).chain([known]);
            rules.push(Rule::when(all.collect::<Vec<_>>(), Action::Accept));
        }
        if way == Way::In {
            let only = if let [family] = families { Some(Match::Family(*family)) } else { None };
            let all: Vec<Match> = only.into_iter().chain(matches.iter().cloned()).collect();
            rules.push(Rule::when(all, self.deny()));
        }
        rules
    }
}

/// The first and last of the ICMPv6 types without which IPv6 does not work on a link of the node itself, which may be a host or a
/// router there (RFC 4890 section 4.4.1): listener queries and reports, router and neighbour discovery.
pub(crate) const HOST_ICMPV6: [(u8, u8); 2] = [(130, 136), (143, 143)];

/// Returns the ports that every host endpoint lets in.
pub(crate) fn inbound(felix: &calico_model::resource::FelixConfiguration) -> Vec<ProtoPort> {
    felix.failsafe_inbound_host_ports.clone().unwrap_or_else(ProtoPort::inbound)
}

/// Returns the ports that every host endpoint lets out.
pub(crate) fn outbound(felix: &calico_model::resource::FelixConfiguration) -> Vec<ProtoPort> {
    felix.failsafe_outbound_host_ports.clone().unwrap_or_else(ProtoPort::outbound)
}

/// `None` for a port whose protocol has none: no packet is meant.
fn failsafe(port: &ProtoPort, far: End, at: End) -> Option<Rule> {
    let protocol = port.protocol()?;
    let mut matches = Vec::new();
    matches.extend(port.net.map(|net| Match::Family(net.family())));
    matches.push(Match::Protocol(Op::Is, protocol));
    matches.extend(port.net.filter(|net| net.prefix_len() > 0).map(|net| Match::Network(far, Op::Is, net)));
    matches.push(Match::Port(at, Op::Is, PortSet::Range(port.port, port.port)));
    Some(Rule::when(matches, Action::Accept))
}
