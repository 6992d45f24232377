//! Rules of v1 as rules of today.

use serde_json::{Map, Value};

use super::names;
use crate::net::{Cidr, Protocol};
use crate::resource::policy::{Icmp, PortMatch};
use crate::selector::Selector;
use crate::wire::{FromWire, Path, Report, Rules, Schemas, ToWire, text_from_wire, text_schema, wire_struct};

wire_struct! {
    /// A rule.
    pub(super) struct Rule {
        /// What is done: `allow`, which absent means too, `deny`, `log`, `pass` or `next-tier`.
        action: String = "action" empty,
        /// The IP version.
        ip_version: Option<u8> = "ipVersion" optional,
        /// The protocol.
        protocol: Option<OldProtocol> = "protocol" optional,
        /// Any protocol but this.
        not_protocol: Option<OldProtocol> = "notProtocol" optional,
        /// The ICMP type and code.
        icmp: Option<Icmp> = "icmp" optional,
        /// Any ICMP type and code but these.
        not_icmp: Option<Icmp> = "notICMP" optional,
        /// Where the packet comes from.
        source: Option<End> = "source" optional,
        /// Where the packet goes.
        destination: Option<End> = "destination" optional,
    }
}

wire_struct! {
    /// One end of a packet.
    pub(super) struct End {
        /// The endpoint has this tag.
        tag: Option<String> = "tag" optional,
        /// The address is in this network.
        net: Option<Cidr> = "net" optional,
        /// The address is in one of these networks.
        nets: Vec<Cidr> = "nets" empty,
        /// The endpoint is selected.
        selector: Option<String> = "selector" optional,
        /// The port is one of these.
        ports: Vec<PortMatch> = "ports" empty,
        /// The endpoint does not have this tag.
        not_tag: Option<String> = "notTag" optional,
        /// The address is not in this network.
        not_net: Option<Cidr> = "notNet" optional,
        /// The address is in none of these networks.
        not_nets: Vec<Cidr> = "notNets" empty,
        /// The endpoint is not selected.
        not_selector: Option<String> = "notSelector" optional,
        /// The port is none of these.
        not_ports: Vec<PortMatch> = "notPorts" empty,
    }
    check = check_end;
}

/// A protocol in lower case or by number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OldProtocol(Protocol);

impl std::str::FromStr for OldProtocol {
    type Err = crate::net::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = match text {
            "tcp" => Some(Protocol::TCP),
            "udp" => Some(Protocol::UDP),
            "icmp" => Some(Protocol::ICMP),
            "icmpv6" => Some(Protocol::ICMPV6),
            "sctp" => Some(Protocol::SCTP),
            "udplite" => Some(Protocol::UDPLITE),
            _ => text.parse().ok().filter(|number: &u8| *number > 0).map(Protocol::from_number),
        };
        let expected = "tcp, udp, icmp, icmpv6, sctp, udplite or a number from 1 to 255";
        named.map(Self).ok_or_else(|| crate::net::ParseError::new(text, expected))
    }
}

impl FromWire for OldProtocol {
    fn from_wire(value: &Value, at: Path<'_>, report: &mut Report) -> Option<Self> {
        if value.is_number() {
            u8::from_wire(value, at, report).map(|n| Self(Protocol::from_number(n)))
        } else {
            text_from_wire(value, at, report)
        }
    }

    fn stand_in() -> Self {
        Self(Protocol::TCP)
    }

    fn schema(_: &mut Schemas) -> Value {
        text_schema(None)
    }
}

impl ToWire for OldProtocol {
    fn to_wire(&self) -> Value {
        self.0.to_wire()
    }
}

fn check_end(end: &mut End, mut rules: Rules<'_, '_, '_>) {
    for (one, many, single, list) in
        [("net", "nets", end.net, &mut end.nets), ("notNet", "notNets", end.not_net, &mut end.not_nets)]
    {
        match single {
            Some(_) if !list.is_empty() => {
                rules.broken(one, &[], format!("must be absent when {many} is given"));
            }
            Some(net) => list.push(net),
            None => {}
        }
    }
    let zero = |port: &PortMatch| matches!(port, PortMatch::Range(0, _));
    for (key, ports) in [("ports", &end.ports), ("notPorts", &end.not_ports)] {
        for (i, _) in ports.iter().enumerate().filter(|(_, port)| zero(port)) {
            rules.wrong(&format!("{key}[{i}]"), "must not be 0");
        }
    }
}

/// Converts a list of rules; a faulty one is reported and left out, and the caller then gives up the whole.
pub(super) fn to_v3(rules: &[Value], at: Path<'_>, report: &mut Report) -> Value {
    let convert = |(i, value)| {
        let rule_at = at.index(i);
        let rule = Rule::from_wire(value, rule_at, report)?;
        one(&rule, rule_at, report)
    };
    rules.iter().enumerate().filter_map(convert).collect()
}

fn one(rule: &Rule, at: Path<'_>, report: &mut Report) -> Option<Value> {
    let action = match rule.action.as_str() {
        "" | "allow" => "Allow",
        "deny" => "Deny",
        "log" => "Log",
        "pass" | "next-tier" => "Pass",
        other => {
            let rule = "must be allow, deny, log or pass";
            report.fault(at.key("action"), Some(&Value::String(other.to_owned())), rule);
            return None;
        }
    };
    let mut made = Map::new();
    made.insert("action".to_owned(), Value::String(action.to_owned()));
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            made.insert(key.to_owned(), value);
        }
    };
    set("ipVersion", rule.ip_version.as_ref().map(ToWire::to_wire));
    set("protocol", rule.protocol.as_ref().map(ToWire::to_wire));
    set("notProtocol", rule.not_protocol.as_ref().map(ToWire::to_wire));
    set("icmp", rule.icmp.as_ref().map(ToWire::to_wire));
    set("notICMP", rule.not_icmp.as_ref().map(ToWire::to_wire));
    for (key, end) in [("source", &rule.source), ("destination", &rule.destination)] {
        let end_at = at.key(key);
        set(key, end.as_ref().and_then(|end| end_to_v3(end, end_at, report)));
    }
    Some(Value::Object(made))
}

fn end_to_v3(end: &End, at: Path<'_>, report: &mut Report) -> Option<Value> {
    let before = report.faults.len();
    let mut parsed = |key, text: &Option<String>, tag: &Option<String>, join: &str| {
        let text = text.as_deref().map(names::selector);
        let joined = match (text, tag) {
            (Some(text), Some(tag)) => format!("({text}) {join} {tag} == ''"),
            (Some(text), None) => text,
            (None, Some(tag)) => format!("{tag} == ''"),
            (None, None) => return None,
        };
        if let Err(error) = joined.parse::<Selector>() {
            report.fault(at.key(key), Some(&Value::String(joined.clone())), error.to_string());
        }
        Some(Value::String(joined))
    };
    let mut made = Map::new();
    // An end must be selected by both; it must be neither of the two that it must not be.
    for (key, selector) in [
        ("selector", parsed("selector", &end.selector, &end.tag, "&&")),
        ("notSelector", parsed("notSelector", &end.not_selector, &end.not_tag, "||")),
    ] {
        selector.and_then(|selector| made.insert(key.to_owned(), selector));
    }
    for (key, list, empty) in [
        ("nets", end.nets.to_wire(), end.nets.is_empty()),
        ("notNets", end.not_nets.to_wire(), end.not_nets.is_empty()),
        ("ports", end.ports.to_wire(), end.ports.is_empty()),
        ("notPorts", end.not_ports.to_wire(), end.not_ports.is_empty()),
    ] {
        if !empty {
            made.insert(key.to_owned(), list);
        }
    }
    (report.faults.len() == before).then_some(Value::Object(made))
}
