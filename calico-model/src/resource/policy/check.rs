//! Rules between the fields of a policy.

use super::{Action, EntityRule, GlobalNetworkPolicy, HttpPath, Icmp, Policy, PolicyType, PortMatch, Rule};
use crate::net::{Cidr, Family, Protocol};
use crate::selector::Selector;
use crate::wire::Rules;

pub(super) fn icmp(icmp: &mut Icmp, mut rules: Rules<'_, '_, '_>) {
    if icmp.code.is_some() && icmp.icmp_type.is_none() {
        rules.broken("type", &[], "is required when code is given");
    }
}

pub(super) fn path(path: &mut HttpPath, mut rules: Rules<'_, '_, '_>) {
    if path.exact.is_some() == path.prefix.is_some() {
        rules.broken("", &[], "must have exactly one of exact and prefix");
    }
}

pub(super) fn entity(entity: &mut EntityRule, mut rules: Rules<'_, '_, '_>) {
    for (i, _) in entity.not_nets.iter().enumerate().filter(|(_, net)| net.prefix_len() == 0) {
        rules.wrong(&format!("notNets[{i}]"), "must not be every address: the rule would match nothing");
    }
    let others = entity.selector.is_some()
        || entity.not_selector.is_some()
        || entity.namespace_selector.is_some()
        || entity.service_accounts.is_some()
        || !(entity.nets.is_empty() && entity.not_nets.is_empty())
        || !(entity.ports.is_empty() && entity.not_ports.is_empty());
    if entity.services.is_some() && others {
        rules.broken("services", &[], "must be the only field of its end of the rule");
    }
    let accounts = entity.service_accounts.as_ref().and_then(|accounts| accounts.selector.as_ref());
    without_global("selector", entity.selector.as_ref(), &mut rules);
    without_global("notSelector", entity.not_selector.as_ref(), &mut rules);
    without_global("serviceAccounts.selector", accounts, &mut rules);
    let namespaces = entity.namespace_selector.as_ref();
    if namespaces.is_some_and(|selector| selector.uses_global() && !selector.is_global()) {
        rules.wrong("namespaceSelector", "must be global() alone, or not use it");
    }
}

/// Reports a selector that uses `global()`, which says something only as the namespace selector of a rule.
fn without_global(key: &str, selector: Option<&Selector>, rules: &mut Rules<'_, '_, '_>) {
    if selector.is_some_and(Selector::uses_global) {
        let rule = "must not use global(), which belongs into the namespaceSelector of a rule alone";
        rules.wrong(key, rule);
    }
}

pub(super) fn rule(rule: &mut Rule, mut rules: Rules<'_, '_, '_>) {
    for (key, protocol) in [("protocol", rule.protocol), ("notProtocol", rule.not_protocol)] {
        let wanted = match protocol {
            Some(Protocol::ICMP) => 4,
            Some(Protocol::ICMPV6) => 6,
            _ => continue,
        };
        if rule.ip_version.is_some_and(|version| version != wanted) {
            let protocol = protocol.map(|protocol| protocol.to_string()).unwrap_or_default();
            let rule = format!("must be {wanted} when {key} is {protocol}");
            rules.broken("ipVersion", &["ipVersion", key], rule);
        }
    }
    if rule.icmp.is_some() && !matches!(rule.protocol, Some(Protocol::ICMP | Protocol::ICMPV6)) {
        rules.wrong("protocol", "must be ICMP or ICMPv6 when icmp is given");
    }
    check_ports(rule, &mut rules);
    check_families(rule, &mut rules);
    if rule.http.is_some() {
        if rule.action != Action::Allow {
            rules.broken("http", &["action"], "must be absent unless action is Allow");
        }
        if rule.protocol.is_some_and(|protocol| protocol != Protocol::TCP) {
            rules.wrong("protocol", "must be TCP or absent when http is given");
        }
    }
}

fn check_ports(rule: &Rule, rules: &mut Rules<'_, '_, '_>) {
    for (end, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
        for (key, ports) in [("ports", &entity.ports), ("notPorts", &entity.not_ports)] {
            let at = format!("{end}.{key}");
            match rule.protocol {
                Some(protocol) if !protocol.has_ports() && !ports.is_empty() => {
                    rules.broken(&at, &["protocol"], format!("must be absent: {protocol} has no ports"));
                }
                None if ports.iter().any(|port| matches!(port, PortMatch::Range(..))) => {
                    rules.wrong(&at, "must be absent unless protocol is TCP, UDP or SCTP");
                }
                Some(_) | None => {}
            }
        }
    }
}

fn check_families(rule: &Rule, rules: &mut Rules<'_, '_, '_>) {
    let of_rule = rule.ip_version.map(|version| if version == 4 { Family::V4 } else { Family::V6 });
    let families: Vec<Family> = [&rule.source, &rule.destination]
        .into_iter()
        .flat_map(|entity| entity.nets.iter().chain(&entity.not_nets))
        .map(Cidr::family)
        .chain(of_rule)
        .collect();
    if families.windows(2).any(|pair| pair[0] != pair[1]) {
        const READS: [&str; 5] =
            ["ipVersion", "source.nets", "source.notNets", "destination.nets", "destination.notNets"];
        rules.broken("", &READS, "must not mix IPv4 and IPv6: write one rule for each");
    }
}

pub(super) fn policy(policy: &mut Policy, mut rules: Rules<'_, '_, '_>) {
    if policy.types.len() == 2 && policy.types[0] == policy.types[1] {
        rules.wrong("types", "must name each direction once");
    }
    without_global("selector", Some(&policy.selector), &mut rules);
    without_global("serviceAccountSelector", policy.service_account_selector.as_ref(), &mut rules);
    for (i, rule) in policy.ingress.iter().enumerate() {
        only_at_the_far_end(&format!("ingress[{i}].destination"), &rule.destination, &mut rules);
    }
    for (i, rule) in policy.egress.iter().enumerate() {
        only_at_the_far_end(&format!("egress[{i}].source"), &rule.source, &mut rules);
        if rule.http.is_some() {
            rules.broken(&format!("egress[{i}].http"), &[], "must be absent from an egress rule");
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
fn only_at_the_far_end(end: &str, entity: &EntityRule, rules: &mut Rules<'_, '_, '_>) {
    if entity.services.is_some() {
        let rule = "must be absent: only the source of ingress and the destination of egress may be services";
        rules.broken(&format!("{end}.services"), &[], rule);
    }
}

pub(super) fn global(policy: &GlobalNetworkPolicy, mut rules: Rules<'_, '_, '_>) {
    let part = &policy.global;
    if part.pre_dnat && part.do_not_track {
        rules.broken("preDNAT", &["preDNAT", "doNotTrack"], "must not be set together with doNotTrack");
    }
    for (key, set) in [("preDNAT", part.pre_dnat), ("doNotTrack", part.do_not_track)] {
        if set && !part.apply_on_forward {
            let rule = format!("must be true when {key} is");
            rules.broken("applyOnForward", &["applyOnForward", key], rule);
        }
    }
    if part.pre_dnat && !policy.egress.is_empty() {
        rules.broken("egress", &["preDNAT"], "must be absent when preDNAT is set");
    }
    if part.pre_dnat && policy.egress.is_empty() && policy.applies_to(PolicyType::Egress) {
        rules.broken("types", &["types", "preDNAT"], "must not have Egress when preDNAT is set");
    }
    without_global("namespaceSelector", part.namespace_selector.as_ref(), &mut rules);
    for (key, list) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
        for (i, rule) in list.iter().enumerate() {
            for (end, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
                if entity.services.as_ref().is_none_or(|services| services.namespace.is_some()) {
                    continue;
                }
                let at = format!("{key}[{i}].{end}.services.namespace");
                rules.wrong(&at, "is required: a global policy has no namespace of its own");
            }
        }
    }
}
