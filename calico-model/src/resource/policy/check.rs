//! Rules between the fields of a policy.

use super::{Action, EntityRule, GlobalNetworkPolicy, Icmp, Policy, PolicyType, PortMatch, Rule};
use crate::net::{Cidr, Family, Protocol};
use crate::wire::{Path, Report, ToWire};

const MAX_RULES: usize = 1024;
const MAX_NETS: usize = 256;
const MAX_PORTS: usize = 50;

pub(super) fn icmp(icmp: &mut Icmp, at: Path<'_>, report: &mut Report) {
    if icmp.icmp_type == Some(255) {
        report.fault(at.key("type"), Some(&255u8.to_wire()), "must be from 0 to 254");
    }
    if icmp.code.is_some() && icmp.icmp_type.is_none() {
        report.fault(at.key("type"), None, "is required when code is given");
    }
}

pub(super) fn entity(entity: &mut EntityRule, at: Path<'_>, report: &mut Report) {
    for (key, len, limit) in [
        ("nets", entity.nets.len(), MAX_NETS),
        ("notNets", entity.not_nets.len(), MAX_NETS),
        ("ports", entity.ports.len(), MAX_PORTS),
        ("notPorts", entity.not_ports.len(), MAX_PORTS),
    ] {
        if len > limit {
            report.fault(at.key(key), None, format!("must have at most {limit} items, but has {len}"));
        }
    }
    let not_nets_at = at.key("notNets");
    for (i, net) in entity.not_nets.iter().enumerate().filter(|(_, net)| net.prefix_len() == 0) {
        report.fault(
            not_nets_at.index(i),
            Some(&net.to_wire()),
            "must not be every address: the rule would match nothing",
        );
    }
    if entity.services.is_some() {
        let others = entity.selector.is_some()
            || entity.not_selector.is_some()
            || entity.namespace_selector.is_some()
            || entity.service_accounts.is_some()
            || !(entity.nets.is_empty() && entity.not_nets.is_empty())
            || !(entity.ports.is_empty() && entity.not_ports.is_empty());
        if others {
            report.fault(at.key("services"), None, "must be the only field of its end of the rule");
        }
    }
    let misused = [("selector", &entity.selector), ("notSelector", &entity.not_selector)];
    for (key, _) in misused.iter().filter(|(_, selector)| selector.as_ref().is_some_and(|s| s.uses_global()))
    {
        report.fault(at.key(key), None, "must not use global(), which belongs into namespaceSelector alone");
    }
}

pub(super) fn rule(rule: &mut Rule, at: Path<'_>, report: &mut Report) {
    if let Some(version) = rule.ip_version.filter(|version| ![4, 6].contains(version)) {
        report.fault(at.key("ipVersion"), Some(&version.to_wire()), "must be 4 or 6");
    }
    for (key, protocol) in [("protocol", rule.protocol), ("notProtocol", rule.not_protocol)] {
        let wanted = match protocol {
            Some(Protocol::ICMP) => 4,
            Some(Protocol::ICMPV6) => 6,
            _ => continue,
        };
        if let Some(version) = rule.ip_version.filter(|version| *version != wanted) {
            let rule = format!(
                "must be {wanted} when {key} is {}",
                protocol.map(|p| p.to_string()).unwrap_or_default()
            );
            report.fault(at.key("ipVersion"), Some(&version.to_wire()), rule);
        }
    }
    if rule.icmp.is_some() && !matches!(rule.protocol, Some(Protocol::ICMP | Protocol::ICMPV6)) {
        report.fault(at.key("protocol"), None, "must be ICMP or ICMPv6 when icmp is given");
    }
    check_ports(rule, at, report);
    check_families(rule, at, report);
    if rule.http.is_some() {
        if rule.action != Action::Allow {
            report.fault(at.key("http"), None, "is only for rules that allow");
        }
        if rule.protocol.is_some_and(|protocol| protocol != Protocol::TCP) {
            report.fault(at.key("http"), None, "needs protocol TCP, or none");
        }
    }
}

fn check_ports(rule: &Rule, at: Path<'_>, report: &mut Report) {
    for (end, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
        for (key, ports) in [("ports", &entity.ports), ("notPorts", &entity.not_ports)] {
            let numeric = ports.iter().any(|port| matches!(port, PortMatch::Range(..)));
            let end_at = at.key(end);
            match rule.protocol {
                Some(protocol) if !protocol.has_ports() && !ports.is_empty() => {
                    report.fault(end_at.key(key), None, format!("must be absent: {protocol} has no ports"));
                }
                None if numeric => {
                    report.fault(end_at.key(key), None, "need protocol TCP, UDP or SCTP");
                }
                _ => {}
            }
        }
    }
}

fn check_families(rule: &Rule, at: Path<'_>, report: &mut Report) {
    let of_rule = rule.ip_version.map(|version| if version == 4 { Family::V4 } else { Family::V6 });
    let families: Vec<Family> = [&rule.source, &rule.destination]
        .into_iter()
        .flat_map(|entity| entity.nets.iter().chain(&entity.not_nets))
        .map(Cidr::family)
        .chain(of_rule)
        .collect();
    if families.windows(2).any(|pair| pair[0] != pair[1]) {
        report.fault(at, None, "must not mix IPv4 and IPv6: write one rule for each");
    }
}

pub(super) fn policy(policy: &mut Policy, at: Path<'_>, report: &mut Report) {
    for (key, len) in [("ingress", policy.ingress.len()), ("egress", policy.egress.len())] {
        if len > MAX_RULES {
            report.fault(at.key(key), None, format!("must have at most {MAX_RULES} rules, but has {len}"));
        }
    }
    if policy.types.len() == 2 && policy.types[0] == policy.types[1] || policy.types.len() > 2 {
        report.fault(at.key("types"), None, "must name each direction once");
    }
    if policy.selector.uses_global() {
        report.fault(at.key("selector"), None, "must not use global()");
    }
    if policy.types.is_empty() {
        policy.types = match (policy.ingress.is_empty(), policy.egress.is_empty()) {
            (_, true) => vec![PolicyType::Ingress],
            (true, false) => vec![PolicyType::Egress],
            (false, false) => vec![PolicyType::Ingress, PolicyType::Egress],
        };
    }
}

pub(super) fn global(policy: &GlobalNetworkPolicy, at: Path<'_>, report: &mut Report) {
    let part = &policy.global;
    if part.pre_dnat && part.do_not_track {
        report.fault(at.key("preDNAT"), None, "must not be set together with doNotTrack");
    }
    if (part.pre_dnat || part.do_not_track) && !part.apply_on_forward {
        report.fault(at.key("applyOnForward"), None, "must be true when preDNAT or doNotTrack is");
    }
    if part.pre_dnat && (!policy.egress.is_empty() || policy.applies_to(PolicyType::Egress)) {
        report.fault(at.key("egress"), None, "must be absent when preDNAT is set");
    }
    if part.namespace_selector.as_ref().is_some_and(|selector| selector.uses_global()) {
        report.fault(at.key("namespaceSelector"), None, "must not use global()");
    }
}
