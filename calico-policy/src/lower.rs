//! One rule of a policy to rules of a chain: where meaning becomes mechanism.
//!
//! A policy's rule is a conjunction over fields, some of which are lists of alternatives. A chain's rule is a conjunction of
//! single matches. So a rule becomes one chain rule for each combination of alternatives, usually just one: lists of
//! networks, of ports and of names of ports are sets. What needs an address is written once for each family; the rest serves both.

use std::collections::BTreeSet;

use calico_model::resource::service::ServiceId;
use calico_model::resource::{EntityRule, Icmp, PortMatch, Rule};
use calico_model::{Cidr, Family, Namespace, Protocol, Selector};

use crate::packet::{PortProtocol, icmp_of};
use crate::peer::{Peer, peer};
use crate::ruleset::{End, Match, Op};
use crate::sets::Sets;

/// Alternatives, each a conjunction.
type Alternatives = Vec<Vec<Match>>;

/// Returns the conjunctions that together match what a rule of a policy in `namespace` matches.
pub(crate) fn lower(rule: &Rule, namespace: Option<&Namespace>, sets: &mut Sets) -> Alternatives {
    let ends = [(End::Source, &rule.source), (End::Destination, &rule.destination)];
    let ends = ends.map(|(end, entity)| Place { end, entity, peer: peer(entity, namespace) });
    let families = families(rule);
    if families.len() == Family::ALL.len() && !looks_at_family(rule, &ends) {
        return of_family(rule, &ends, None, sets);
    }
    families.into_iter().flat_map(|family| of_family(rule, &ends, Some(family), sets)).collect()
}

/// One end of a rule, and whom it means.
struct Place<'r> {
    end: End,
    entity: &'r EntityRule,
    peer: Peer,
}

/// The families of which packets can match.
fn families(rule: &Rule) -> Vec<Family> {
    let icmp = |family: Family| rule.protocol == Some(icmp_of(family));
    let mut families = Family::ALL.to_vec();
    families.retain(|family| {
        let other = if *family == Family::V4 { Family::V6 } else { Family::V4 };
        rule.ip_version.is_none_or(|version| version == family.version())
            && !icmp(other)
            && [&rule.source, &rule.destination].into_iter().all(|entity| possible(entity, *family))
    });
    families
}

/// Reports whether an address of the family can be this end.
fn possible(entity: &EntityRule, family: Family) -> bool {
    let positive = entity.nets.is_empty() || entity.nets.iter().any(|net| net.family() == family);
    positive && !entity.not_nets.iter().any(|net| net.family() == family && net.prefix_len() == 0)
}

fn looks_at_family(rule: &Rule, ends: &[Place<'_>; 2]) -> bool {
    let named = |ports: &[PortMatch]| ports.iter().any(|port| matches!(port, PortMatch::Named(_)));
    rule.icmp.is_some()
        || rule.not_icmp.is_some()
        || ends.iter().any(|Place { entity, peer, .. }| {
            !entity.nets.is_empty()
                || !entity.not_nets.is_empty()
                || peer.selector.is_some()
                || peer.not_selector.is_some()
                || entity.namespace_selector.is_some()
                || entity.service_accounts.is_some()
                || entity.services.is_some()
                || named(&entity.ports)
                || named(&entity.not_ports)
        })
}

/// Lowers for one family, or for both at once when nothing looks at it.
fn of_family(rule: &Rule, ends: &[Place<'_>; 2], family: Option<Family>, sets: &mut Sets) -> Alternatives {
    let mut all: Alternatives = Vec::new();
    for (mut matches, has_ports) in protocol_cases(rule) {
        let mut alternatives: Alternatives = vec![Vec::new()];
        if let Some(family) = family {
            matches.insert(0, Match::Family(family));
            for place in ends {
                matches.extend(addresses(place, family, sets));
            }
            matches.extend(rule.icmp.iter().flat_map(|icmp| icmp_matches(icmp, family)));
        }
        for Place { end, entity, peer } in ends {
            let (end, selector) = (*end, peer.selector.as_ref());
            let service = peer.service.as_ref().filter(|_| end == End::Destination);
            let lists = PortLists { end, entity, selector, service, family };
            cross(&mut alternatives, lists.alternatives(has_ports, sets));
        }
        if let (Some(icmp), Some(family)) = (&rule.not_icmp, family) {
            cross(&mut alternatives, not_icmp(icmp, rule.protocol, family));
        }
        let whole = alternatives.into_iter().map(|tail| [matches.as_slice(), tail.as_slice()].concat());
        all.extend(whole.filter_map(of_one_protocol));
    }
    all
}

/// Settles what a conjunction says of the protocol: said once, before what looks into its header; `None` when it says two
/// things that cannot both be.
fn of_one_protocol(matches: Vec<Match>) -> Option<Vec<Match>> {
    let named = matches
        .iter()
        .find_map(|m| if let Match::Protocol(Op::Is, protocol) = m { Some(*protocol) } else { None });
    let mut settled: Vec<Match> = Vec::with_capacity(matches.len());
    for m in matches {
        let redundant = match (&m, named) {
            (Match::Protocol(Op::Is, protocol), Some(named)) if *protocol != named => return None,
            (Match::Protocol(Op::IsNot, protocol), Some(named)) if *protocol == named => return None,
            (Match::Protocol(Op::IsNot, _), Some(_)) => true,
            _ => settled.contains(&m),
        };
        if !redundant {
            settled.push(m);
        }
    }
    // The family stays first, and with it the protocol: everything else may look into the header.
    settled.sort_by_key(|m| (!matches!(m, Match::Family(_)), !matches!(m, Match::Protocol(..))));
    Some(settled)
}

/// Makes every pair of alternatives one conjunction.
fn cross(alternatives: &mut Alternatives, more: Alternatives) {
    *alternatives = alternatives
        .iter()
        .flat_map(|head| more.iter().map(|tail| [head.as_slice(), tail.as_slice()].concat()))
        .collect();
}

/// Splits a rule by protocol as far as its ports need it; each case says whether its packets may have ports. A service's sockets
/// name their protocols.
fn protocol_cases(rule: &Rule) -> Vec<(Vec<Match>, bool)> {
    let not: Vec<Match> = rule.not_protocol.iter().map(|p| Match::Protocol(Op::IsNot, *p)).collect();
    let with = |matches: Vec<Match>| [matches.as_slice(), not.as_slice()].concat();
    let uses_ports = [&rule.source, &rule.destination]
        .into_iter()
        .any(|entity| !entity.ports.is_empty() || !entity.not_ports.is_empty());
    match rule.protocol {
        Some(protocol) => vec![(with(vec![Match::Protocol(Op::Is, protocol)]), protocol.has_ports())],
        None if !uses_ports => vec![(not, rule.destination.services.is_some())],
        None => {
            let protocols = PortProtocol::ALL.map(PortProtocol::protocol);
            let each = protocols.map(|protocol| (with(vec![Match::Protocol(Op::Is, protocol)]), true));
            let none = protocols.map(|protocol| Match::Protocol(Op::IsNot, protocol));
            each.into_iter().chain([(with(none.to_vec()), false)]).collect()
        }
    }
}

/// Lowers the fields of one end that look at its address.
fn addresses(Place { end, entity, peer }: &Place<'_>, family: Family, sets: &mut Sets) -> Vec<Match> {
    let end = *end;
    let mut matches = Vec::new();
    matches.extend(networks(end, Op::Is, &entity.nets, family, sets));
    matches.extend(networks(end, Op::IsNot, &entity.not_nets, family, sets));
    if let Some(selector) = &peer.selector {
        matches.push(Match::InSet(end, family, Op::Is, sets.selected(selector, family)));
    }
    if let Some(selector) = &peer.not_selector {
        matches.push(Match::InSet(end, family, Op::IsNot, sets.selected(selector, family)));
    }
    if let Some(service) = peer.service.as_ref().filter(|_| end == End::Source) {
        let set = sets.service_addresses(service.clone(), family);
        matches.push(Match::InSet(end, family, Op::Is, set));
    }
    matches
}

fn networks(end: End, op: Op, nets: &[Cidr], family: Family, sets: &mut Sets) -> Option<Match> {
    let nets: Vec<Cidr> = nets.iter().copied().filter(|net| net.family() == family).collect();
    match nets.as_slice() {
        [] => None,
        nets if nets.iter().any(|net| net.prefix_len() == 0) => None,
        [net] => Some(Match::Network(end, op, *net)),
        nets => Some(Match::InSet(end, family, op, sets.networks(nets, family))),
    }
}

fn icmp_matches(icmp: &Icmp, family: Family) -> Vec<Match> {
    let mut matches = vec![Match::Protocol(Op::Is, icmp_of(family))];
    matches.extend(icmp.icmp_type.map(|icmp_type| Match::IcmpType(family, Op::Is, icmp_type, icmp_type)));
    matches.extend(icmp.code.map(|code| Match::IcmpCode(family, Op::Is, code)));
    matches
}

/// Everything but packets of this ICMP type and code: another protocol, another type, or another code of the type.
fn not_icmp(icmp: &Icmp, protocol: Option<Protocol>, family: Family) -> Alternatives {
    let ours = icmp_of(family);
    if protocol.is_some_and(|protocol| protocol != ours) {
        return vec![Vec::new()];
    }
    let mut alternatives = Vec::new();
    if protocol.is_none() {
        alternatives.push(vec![Match::Protocol(Op::IsNot, ours)]);
    }
    let is = Match::Protocol(Op::Is, ours);
    let mut same_type = vec![is.clone()];
    if let Some(icmp_type) = icmp.icmp_type {
        alternatives.push(vec![is, Match::IcmpType(family, Op::IsNot, icmp_type, icmp_type)]);
        same_type.push(Match::IcmpType(family, Op::Is, icmp_type, icmp_type));
    }
    if let Some(code) = icmp.code {
        same_type.push(Match::IcmpCode(family, Op::IsNot, code));
        alternatives.push(same_type);
    }
    alternatives
}

/// The ports and not-ports of one end, and the service whose ports they are.
struct PortLists<'r> {
    end: End,
    entity: &'r EntityRule,
    /// Named ports are looked up among what this selects.
    selector: Option<&'r Selector>,
    service: Option<&'r ServiceId>,
    /// Known whenever a port or a service is named.
    family: Option<Family>,
}

impl PortLists<'_> {
    fn alternatives(&self, has_ports: bool, sets: &mut Sets) -> Alternatives {
        if !has_ports {
            // Nothing is one of the ports, and none of the not-ports.
            let any = self.entity.ports.is_empty() && self.service.is_none();
            return if any { vec![Vec::new()] } else { Vec::new() };
        }
        let mut others: Vec<Match> = self.matches(Op::IsNot, &self.entity.not_ports, sets);
        others.extend(self.service.zip(self.family).map(|(service, family)| {
            let set = sets.service_sockets(service.clone(), family);
            Match::SocketInSet(self.end, family, Op::Is, set)
        }));
        if self.entity.ports.is_empty() {
            return vec![others];
        }
        let is = self.matches(Op::Is, &self.entity.ports, sets);
        is.into_iter().map(|port| std::iter::once(port).chain(others.iter().cloned()).collect()).collect()
    }

    /// One match for all numeric ports, and one for all names.
    fn matches(&self, op: Op, ports: &[PortMatch], sets: &mut Sets) -> Vec<Match> {
        let (mut ranges, mut names) = (Vec::new(), BTreeSet::new());
        for port in ports {
            match port {
                PortMatch::Range(first, last) if first > last => {}
                PortMatch::Range(first, last) => ranges.push((*first, *last)),
                PortMatch::Named(name) => drop(names.insert(name.clone())),
            }
        }
        let numbers = (!ranges.is_empty()).then(|| Match::Port(self.end, op, sets.port_set(&ranges)));
        let named = self.family.filter(|_| !names.is_empty()).map(|family| {
            let set = sets.sockets(self.selector, names, family);
            Match::SocketInSet(self.end, family, op, set)
        });
        numbers.into_iter().chain(named).collect()
    }
}
