//! Rules between the fields of a policy.

use super::{Action, EntityRule, GlobalNetworkPolicy, HttpPath, Icmp, Policy, PolicyType, PortMatch, Rule};
use crate::net::{Cidr, Family, Protocol};
use crate::selector::Selector;
use crate::wire::{Path, Report, ToWire};

pub(super) fn icmp(icmp: &mut Icmp, at: Path<'_>, report: &mut Report) {
    if icmp.code.is_some() && icmp.icmp_type.is_none() {
        report.fault(at.key("type"), None, "is required when code is given");
    }
}

pub(super) fn path(path: &mut HttpPath, at: Path<'_>, report: &mut Report) {
    if path.exact.is_some() == path.prefix.is_some() {
        report.fault(at, Some(&path.to_wire()), "must have exactly one of exact and prefix");
    }
}

pub(super) fn entity(entity: &mut EntityRule, at: Path<'_>, report: &mut Report) {
    let not_nets_at = at.key("notNets");
    for (i, net) in entity.not_nets.iter().enumerate().filter(|(_, net)| net.prefix_len() == 0) {
        report.fault(
            not_nets_at.index(i),
            Some(&net.to_wire()),
            "must not be every address: the rule would match nothing",
        );
    }
    if let Some(services) = &entity.services {
        let others = entity.selector.is_some()
            || entity.not_selector.is_some()
            || entity.namespace_selector.is_some()
            || entity.service_accounts.is_some()
            || !(entity.nets.is_empty() && entity.not_nets.is_empty())
            || !(entity.ports.is_empty() && entity.not_ports.is_empty());
        if others {
            let rule = "must be the only field of its end of the rule";
            report.fault(at.key("services"), Some(&services.to_wire()), rule);
        }
    }
    let accounts = entity.service_accounts.as_ref().and_then(|accounts| accounts.selector.as_ref());
    let selectors = [("selector", entity.selector.as_ref()), ("notSelector", entity.not_selector.as_ref())];
    without_global(&selectors, at, report);
    without_global(&[("selector", accounts)], at.key("serviceAccounts"), report);
    let namespaces = entity.namespace_selector.as_ref();
    if let Some(selector) = namespaces.filter(|selector| selector.uses_global() && !selector.is_global()) {
        let rule = "must be global() alone, or not use it";
        report.fault(at.key("namespaceSelector"), Some(&selector.to_wire()), rule);
    }
}

/// Reports selectors that use `global()`, which says something only as the namespace selector of a rule.
fn without_global(selectors: &[(&str, Option<&Selector>)], at: Path<'_>, report: &mut Report) {
    for (key, selector) in selectors {
        if let Some(selector) = selector.filter(|selector| selector.uses_global()) {
            let rule = "must not use global(), which belongs into the namespaceSelector of a rule alone";
            report.fault(at.key(key), Some(&selector.to_wire()), rule);
        }
    }
}

pub(super) fn rule(rule: &mut Rule, at: Path<'_>, report: &mut Report) {
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
        let value = rule.protocol.as_ref().map(ToWire::to_wire);
        report.fault(at.key("protocol"), value.as_ref(), "must be ICMP or ICMPv6 when icmp is given");
    }
    check_ports(rule, at, report);
    check_families(rule, at, report);
    if let Some(http) = &rule.http {
        if rule.action != Action::Allow {
            report.fault(at.key("http"), Some(&http.to_wire()), "must be absent unless action is Allow");
        }
        if let Some(protocol) = rule.protocol.filter(|protocol| *protocol != Protocol::TCP) {
            let rule = "must be TCP or absent when http is given";
            report.fault(at.key("protocol"), Some(&protocol.to_wire()), rule);
        }
    }
}

fn check_ports(rule: &Rule, at: Path<'_>, report: &mut Report) {
    for (end, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
        for (key, ports) in [("ports", &entity.ports), ("notPorts", &entity.not_ports)] {
            let numeric = ports.iter().any(|port| matches!(port, PortMatch::Range(..)));
            let end_at = at.key(end);
            let rule = match rule.protocol {
                Some(protocol) if !protocol.has_ports() && !ports.is_empty() => {
                    format!("must be absent: {protocol} has no ports")
                }
                None if numeric => "must be absent unless protocol is TCP, UDP or SCTP".to_owned(),
                _ => continue,
            };
            report.fault(end_at.key(key), Some(&ports.to_wire()), rule);
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
        let rule_value = rule.to_wire();
        report.fault(at, Some(&rule_value), "must not mix IPv4 and IPv6: write one rule for each");
    }
}

pub(super) fn policy(policy: &mut Policy, at: Path<'_>, report: &mut Report) {
    if policy.types.len() == 2 && policy.types[0] == policy.types[1] {
        report.fault(at.key("types"), Some(&policy.types.to_wire()), "must name each direction once");
    }
    let selectors = [
        ("selector", Some(&policy.selector)),
        ("serviceAccountSelector", policy.service_account_selector.as_ref()),
    ];
    without_global(&selectors, at, report);
    let (ingress_at, egress_at) = (at.key("ingress"), at.key("egress"));
    for (i, rule) in policy.ingress.iter().enumerate() {
        let rule_at = ingress_at.index(i);
        only_at_the_far_end(rule_at, "destination", &rule.destination, report);
    }
    for (i, rule) in policy.egress.iter().enumerate() {
        let rule_at = egress_at.index(i);
        only_at_the_far_end(rule_at, "source", &rule.source, report);
        if let Some(http) = &rule.http {
            report.fault(rule_at.key("http"), Some(&http.to_wire()), "must be absent from an egress rule");
        }
    }
    if policy.types.is_empty() {
        policy.types = match (policy.ingress.is_empty(), policy.egress.is_empty()) {
            (_, true) => vec![PolicyType::Ingress],
            (true, false) => vec![PolicyType::Egress],
            (false, false) => vec![PolicyType::Ingress, PolicyType::Egress],
        };
    }
}

/// Reports a service at the endpoint's own end of a rule.
fn only_at_the_far_end(at: Path<'_>, end: &str, entity: &EntityRule, report: &mut Report) {
    if let Some(services) = &entity.services {
        let rule = "must be absent: only the source of ingress and the destination of egress may be services";
        report.fault(at.key(end).key("services"), Some(&services.to_wire()), rule);
    }
}

pub(super) fn global(policy: &GlobalNetworkPolicy, at: Path<'_>, report: &mut Report) {
    let part = &policy.global;
    if part.pre_dnat && part.do_not_track {
        report.fault(at.key("preDNAT"), Some(&true.to_wire()), "must not be set together with doNotTrack");
    }
    if (part.pre_dnat || part.do_not_track) && !part.apply_on_forward {
        let rule = "must be true when preDNAT or doNotTrack is";
        report.fault(at.key("applyOnForward"), Some(&false.to_wire()), rule);
    }
    if part.pre_dnat && !policy.egress.is_empty() {
        report.fault(at.key("egress"), Some(&policy.egress.to_wire()), "must be absent when preDNAT is set");
    }
    if part.pre_dnat && policy.egress.is_empty() && policy.applies_to(PolicyType::Egress) {
        let rule = "must not have Egress when preDNAT is set";
        report.fault(at.key("types"), Some(&policy.types.to_wire()), rule);
    }
    without_global(&[("namespaceSelector", part.namespace_selector.as_ref())], at, report);
    for (key, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
        let list_at = at.key(key);
        for (i, rule) in rules.iter().enumerate() {
            let rule_at = list_at.index(i);
            for (end, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
                if entity.services.as_ref().is_none_or(|services| services.namespace.is_some()) {
                    continue;
                }
                let end_at = rule_at.key(end);
                let services_at = end_at.key("services");
                let rule = "is required: a global policy has no namespace of its own";
                report.fault(services_at.key("namespace"), None, rule);
            }
        }
    }
}
