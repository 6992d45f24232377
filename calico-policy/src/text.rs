//! Rulesets as nft text: deterministic, for people, golden files and dry runs, and the input of the `nft` program.
//!
//! Every word that reaches the text is typed: names of our own making, interface names that the kernel's rules allow,
//! addresses and numbers. Nothing that a user wrote freely is ever part of it, but for log prefixes, which are cleaned
//! where they are made.

use std::fmt::{self, Display, Formatter};

use calico_model::{Family, Protocol};

use crate::packet::{NewSource, WITHDRAWN_MARK};
use crate::ruleset::{
    Action, Base, Bound, Chain, ChainKind, Element, End, Hook, Interface, Match, Op, PortSet, Rule, Ruleset,
    Set, SetKind, VerdictMap,
};

/// The one bit of packet marks that is ours: the lowest of Calico's default mask. All others are left as they are.
pub(crate) const ACCEPTED: u32 = 0x0001_0000;

/// The table that holds everything.
pub(crate) const TABLE: &str = "inet calico";

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {TABLE} {{")?;
        for (name, set) in &self.sets {
            writeln!(f, "\tset {name} {{\n\t\t{}", set.kind)?;
            elements(f, &set.elements.iter().map(Element::to_string).collect::<Vec<_>>())?;
            writeln!(f, "\t}}")?;
        }
        for (name, VerdictMap { kind, elements: chains }) in &self.maps {
            writeln!(f, "\tmap {name} {{\n\t\t{}", MapType(*kind))?;
            let verdict = verdict(*kind);
            let entry = |(key, chain)| format!("{key} : {verdict} {chain}");
            elements(f, &chains.iter().map(entry).collect::<Vec<_>>())?;
            writeln!(f, "\t}}")?;
        }
        for (name, Chain { base, rules }) in &self.chains {
            writeln!(f, "\tchain {name} {{")?;
            if let Some(base) = base {
                writeln!(f, "\t\t{base}")?;
            }
            for rule in rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

fn elements(f: &mut Formatter<'_>, elements: &[String]) -> fmt::Result {
    if elements.is_empty() {
        return Ok(());
    }
    writeln!(f, "\t\telements = {{ {} }}", elements.join(",\n\t\t             "))
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let elements: Vec<String> = self.elements.iter().map(Element::to_string).collect();
        write!(f, "{{ {} }}", elements.join(", "))
    }
}

impl Display for SetKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            SetKind::Address(family) => write!(f, "type {};", addr_type(*family)),
            SetKind::Network(family) => write!(f, "type {}; flags interval;", addr_type(*family)),
            SetKind::Socket(family) => write!(f, "type {} . inet_proto . inet_service;", addr_type(*family)),
            SetKind::Flow(family) => {
                write!(f, "type {} . inet_proto . inet_service; flags interval;", addr_type(*family))
            }
            SetKind::ProtocolPort => f.write_str("type inet_proto . inet_service;"),
            SetKind::Ports => f.write_str("type inet_service; flags interval;"),
            SetKind::Interface => f.write_str("type ifname;"),
            SetKind::InterfaceAddress(family) => write!(f, "type ifname . {};", addr_type(*family)),
        }
    }
}

/// How a map by keys of a kind leads on.
pub(crate) fn verdict(kind: SetKind) -> &'static str {
    if kind == SetKind::ProtocolPort { "jump" } else { "goto" }
}

/// The type of a map from keys of a kind to chains.
pub(crate) struct MapType(pub(crate) SetKind);

impl Display for MapType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let keys = self.0.to_string();
        write!(f, "{} : verdict;", keys.trim_end_matches(';'))
    }
}

fn addr_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Element::Address(addr) => addr.fmt(f),
            Element::Network(net) => net.fmt(f),
            Element::Socket(addr, protocol, port) => write!(f, "{addr} . {} . {port}", word(*protocol)),
            Element::Flow(net, protocol, first, last) => {
                write!(f, "{net} . {} . {}", word(*protocol), Element::Ports(*first, *last))
            }
            Element::ProtocolPort(protocol, port) => write!(f, "{} . {port}", word(*protocol)),
            Element::Ports(first, last) if first == last => first.fmt(f),
            Element::Ports(first, last) => write!(f, "{first}-{last}"),
            Element::Interface(name) => write!(f, "\"{name}\""),
            Element::InterfaceAddress(both) => write!(f, "\"{}\" . {}", both.0, both.1),
        }
    }
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "type {} hook {} priority {}; policy accept;", self.kind, self.hook, self.priority)
    }
}

impl Display for ChainKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        })
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        })
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.matches.iter().try_for_each(|m| write!(f, "{m} "))?;
        self.action.fmt(f)
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Action::Accept => f.write_str("accept"),
            Action::Drop => f.write_str("drop"),
            Action::Reject => f.write_str("reject with icmpx port-unreachable"),
            Action::Return => f.write_str("return"),
            Action::Jump(chain) => write!(f, "jump {chain}"),
            Action::Goto(chain) => write!(f, "goto {chain}"),
            Action::Dispatch(bound, map) => write!(f, "{bound} vmap @{map}"),
            Action::DispatchPort(end, map) => write!(f, "meta l4proto . th {} vmap @{map}", port(*end)),
            Action::Log { prefix } => write!(f, "log prefix \"{prefix}\""),
            Action::Notrack => f.write_str("notrack"),
            Action::MarkAccepted => write!(f, "meta mark set meta mark or {ACCEPTED:#010x}"),
            Action::ClearMark => write!(f, "meta mark set meta mark and {:#010x}", !ACCEPTED),
            Action::SourceNat(new) => source_nat(f, *new),
        }
    }
}

impl Display for Bound {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::In => "iifname",
            Bound::Out => "oifname",
        })
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Match::Family(Family::V4) => f.write_str("meta nfproto ipv4"),
            Match::Family(Family::V6) => f.write_str("meta nfproto ipv6"),
            Match::Protocol(op, protocol) => write!(f, "meta l4proto {}{}", not(*op), word(*protocol)),
            Match::Network(end, op, net) => write!(f, "{} {}{net}", addr(net.family(), *end), not(*op)),
            Match::InSet(end, family, op, set) => write!(f, "{} {}@{set}", addr(*family, *end), not(*op)),
            Match::SocketInSet(end, family, op, set) => {
                write!(f, "{} . meta l4proto . th {} {}@{set}", addr(*family, *end), port(*end), not(*op))
            }
            Match::FlowInSet(end, family, set) => {
                write!(f, "{} . meta l4proto . th dport @{set}", addr(*family, *end))
            }
            Match::Port(end, op, ports) => {
                write!(f, "th {} {}", port(*end), not(*op))?;
                match ports {
                    PortSet::Range(first, last) => Element::Ports(*first, *last).fmt(f),
                    PortSet::InSet(set) => write!(f, "@{set}"),
                }
            }
            Match::IcmpType(family, op, first, last) => {
                let ports = Element::Ports(u16::from(*first), u16::from(*last));
                write!(f, "{} type {}{ports}", icmp(*family), not(*op))
            }
            Match::IcmpCode(family, op, code) => write!(f, "{} code {}{code}", icmp(*family), not(*op)),
            Match::Interface(bound, op, interface) => {
                write!(f, "{bound} {}", not(*op))?;
                match interface {
                    Interface::Prefix(prefix) => write!(f, "\"{prefix}*\""),
                    Interface::Named(name) => write!(f, "\"{name}\""),
                    Interface::InSet(set) => write!(f, "@{set}"),
                }
            }
            Match::SourceAllowed(family, set) => {
                write!(f, "iifname . {} @{set}", addr(*family, End::Source))
            }
            Match::Established => f.write_str("ct state established,related"),
            Match::Withdrawn(op) => {
                let is = if *op == Op::Is { "==" } else { "!=" };
                write!(f, "ct mark & {WITHDRAWN_MARK:#010x} {is} {WITHDRAWN_MARK:#010x}")
            }
            Match::TrackedOrInvalid => f.write_str("ct state invalid,established,related"),
            Match::Accepted => write!(f, "meta mark & {ACCEPTED:#010x} == {ACCEPTED:#010x}"),
            Match::Local => f.write_str("fib daddr type local"),
            Match::FromLocal => f.write_str("fib saddr type local"),
            Match::Translated => f.write_str("ct status dnat"),
            Match::Anycast => f.write_str("fib daddr type anycast"),
        }
    }
}

fn source_nat(f: &mut Formatter<'_>, new: NewSource) -> fmt::Result {
    match new.addr {
        Some(addr) => write!(f, "snat ip to {addr}")?,
        None => f.write_str("masquerade")?,
    }
    if let Some((first, last)) = new.ports {
        let to = if new.addr.is_some() { "" } else { " to " };
        write!(f, "{to}:{}", Element::Ports(first, last))?;
    }
    f.write_str(" fully-random")
}

fn not(op: Op) -> &'static str {
    match op {
        Op::Is => "",
        Op::IsNot => "!= ",
    }
}

fn addr(family: Family, end: End) -> &'static str {
    match (family, end) {
        (Family::V4, End::Source) => "ip saddr",
        (Family::V4, End::Destination) => "ip daddr",
        (Family::V6, End::Source) => "ip6 saddr",
        (Family::V6, End::Destination) => "ip6 daddr",
    }
}

fn port(end: End) -> &'static str {
    match end {
        End::Source => "sport",
        End::Destination => "dport",
    }
}

fn icmp(family: Family) -> &'static str {
    match family {
        Family::V4 => "icmp",
        Family::V6 => "icmpv6",
    }
}

/// The word of a protocol, which nft, iptables and ipset share; a number does as well.
pub(crate) fn word(protocol: Protocol) -> String {
    match protocol {
        Protocol::TCP => "tcp".to_owned(),
        Protocol::UDP => "udp".to_owned(),
        Protocol::SCTP => "sctp".to_owned(),
        Protocol::ICMP => "icmp".to_owned(),
        Protocol::ICMPV6 => "ipv6-icmp".to_owned(),
        other => other.number().to_string(),
    }
}
