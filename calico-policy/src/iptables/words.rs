//! Programs in the words of `iptables-restore` and `ipset restore`, spelt as `iptables-save` spells them.
//!
//! Every word that reaches the text is typed: names of our own making, interface names that the kernel's rules allow,
//! addresses and numbers. Log prefixes are cleaned where they are made.

use crate::packet::{NewSource, WITHDRAWN_MARK};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use calico_model::{Family, Protocol};

use super::program::{Ipset, IpsetKind, Key, Match, Program, Rule, Table, TableName, Target};
use super::{Insertion, SetOperation};
use crate::ruleset::{Bound, Element, End, Hook, Op};
use crate::text::word;

/// How the comments of our rules begin.
pub(super) const COMMENT: &str = "cali:";
/// The kernel keeps 29 bytes of a log prefix.
const LOG_PREFIX: usize = 29;
/// How many letters of a rule's digest it carries.
const DIGEST: usize = 16;
/// The most elements of an ipset.
const MAXELEM: u32 = 1_048_576;

impl Rule {
    /// Returns the rule as `iptables-save` writes it after the chain's name, with its own digest as a comment.
    #[must_use]
    pub fn line(&self) -> String {
        let (matches, target) = (self.matches_text(), self.target.to_string());
        let digest = crate::ruleset::digest([matches.as_str(), target.as_str()]);
        format!("{matches}-m comment --comment \"{COMMENT}{}\" {target}", &digest[..DIGEST])
    }

    fn matches_text(&self) -> String {
        let mut words = Vec::new();
        // What iptables itself knows comes first, in this order.
        for slot in 0..5 {
            words.extend(self.matches.iter().filter(|m| m.slot() == Some(slot)).map(|m| self.word(m)));
        }
        let mut rest: Vec<&Match> = self.matches.iter().filter(|m| m.slot().is_none()).collect();
        // Source and destination port are one match.
        let (ports, others): (Vec<&Match>, Vec<&Match>) =
            rest.drain(..).partition(|m| matches!(m, Match::Port(..)));
        for (n, end) in [End::Source, End::Destination].into_iter().enumerate() {
            let of_end: Vec<_> =
                ports.iter().filter(|m| matches!(m, Match::Port(of, ..) if *of == end)).collect();
            for (i, m) in of_end.iter().enumerate() {
                let joined = n == 1 && i == 0 && ports.len() > of_end.len();
                let module = if joined { String::new() } else { format!("-m {} ", self.port_module()) };
                words.push(format!("{module}{}", self.word(m)));
            }
        }
        words.extend(others.into_iter().map(|m| self.word(m)));
        words.into_iter().fold(String::new(), |text, word| text + &word + " ")
    }

    /// The extension that knows the ports of the rule's protocol.
    fn port_module(&self) -> &'static str {
        let named = |wanted| self.matches.contains(&Match::Protocol(Op::Is, wanted));
        if named(Protocol::UDP) {
            "udp"
        } else if named(Protocol::SCTP) {
            "sctp"
        } else {
            "tcp"
        }
    }

    fn word(&self, m: &Match) -> String {
        let not = |op: &Op| if *op == Op::Is { "" } else { "! " };
        match m {
            Match::Network(end, op, net) => {
                let word = if *end == End::Source { "-s" } else { "-d" };
                format!("{}{word} {}/{}", not(op), net.addr(), net.prefix_len())
            }
            Match::Range(end, op, net) => {
                let word = if *end == End::Source { "src" } else { "dst" };
                format!("-m iprange {}--{word}-range {}-{}", not(op), net.addr(), net.last())
            }
            Match::Interface(bound, op, name) => format!("{}{} {name}", not(op), interface(*bound)),
            // One of full length has no room for more letters.
            Match::Prefix(bound, op, prefix) if prefix.as_str().len() >= 15 => {
                format!("{}{} {prefix}", not(op), interface(*bound))
            }
            Match::Prefix(bound, op, prefix) => format!("{}{} {prefix}+", not(op), interface(*bound)),
            Match::Protocol(op, protocol) => format!("{}-p {}", not(op), word(*protocol)),
            Match::Port(end, op, first, last) => {
                format!("{}--{}port {}", not(op), letter(*end), range(*first, *last))
            }
            Match::Ports(end, op, ranges) => {
                let ranges: Vec<String> = ranges.iter().map(|(first, last)| range(*first, *last)).collect();
                format!("-m multiport {}--{}ports {}", not(op), letter(*end), ranges.join(","))
            }
            Match::Icmp(family, op, icmp_type, code) => icmp(*family, not(op), *icmp_type, *code),
            Match::Set(op, set, key) => {
                let directions = match key {
                    Key::Address(End::Source) => "src",
                    Key::Address(End::Destination) => "dst",
                    Key::Socket(End::Source) | Key::SourceAndInterface => "src,src",
                    Key::Flow(End::Source) => "src,dst",
                    Key::Socket(End::Destination) | Key::Flow(End::Destination) => "dst,dst",
                };
                format!("-m set {}--match-set {set} {directions}", not(op))
            }
            Match::Established => "-m conntrack --ctstate RELATED,ESTABLISHED".to_owned(),
            Match::Withdrawn(op) => {
                format!("-m connmark {}--mark {WITHDRAWN_MARK:#x}/{WITHDRAWN_MARK:#x}", not(op))
            }
            Match::TrackedOrInvalid => "-m conntrack --ctstate INVALID,RELATED,ESTABLISHED".to_owned(),
            Match::Local => "-m addrtype --dst-type LOCAL".to_owned(),
            Match::FromLocal => "-m addrtype --src-type LOCAL".to_owned(),
            Match::Translated => "-m conntrack --ctstate DNAT".to_owned(),
            Match::Anycast => "-m addrtype --dst-type ANYCAST".to_owned(),
            Match::Mark(bits) => format!("-m mark --mark {bits:#x}/{bits:#x}"),
        }
    }
}

/// Reports whether `iptables-save` printed this rule when it printed `seen`: the protocols that have names are the system's
/// affair.
pub(super) fn is_spelling_of(expected: &str, seen: &str) -> bool {
    let (mut expected, mut seen) = (expected.split(' '), seen.split(' '));
    let mut after_protocol = false;
    loop {
        match (expected.next(), seen.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b || after_protocol && a.bytes().all(|c| c.is_ascii_digit()) => {
                after_protocol = a == "-p";
            }
            (Some(_) | None, Some(_)) | (Some(_), None) => return false,
        }
    }
}

/// The digest that a rule carries, if it is one of ours.
pub(super) fn comment(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("--comment \"")?;
    let (comment, _) = rest.split_once('"')?;
    comment.strip_prefix(COMMENT)
}

fn interface(bound: Bound) -> &'static str {
    match bound {
        Bound::In => "-i",
        Bound::Out => "-o",
    }
}

fn letter(end: End) -> char {
    match end {
        End::Source => 's',
        End::Destination => 'd',
    }
}

fn range(first: u16, last: u16) -> String {
    if first == last { first.to_string() } else { format!("{first}:{last}") }
}

/// The extension for ICMP knows types with or without a code. A code alone, and type 255 of IPv4 (which there means any),
/// are read from the packet: the 4 bytes behind the header, whose length is in its first byte.
fn icmp(family: Family, not: &str, icmp_type: Option<u8>, code: Option<u8>) -> String {
    let header = "0x0>>0x16&0x3c@0x0>>";
    match (family, icmp_type, code) {
        (Family::V6, Some(icmp_type), None) => format!("-m icmp6 {not}--icmpv6-type {icmp_type}"),
        (Family::V6, Some(icmp_type), Some(code)) => {
            format!("-m icmp6 {not}--icmpv6-type {icmp_type}/{code}")
        }
        (Family::V4, Some(u8::MAX), None) => format!("-m u32 {not}--u32 \"{header}0x18=0xff\""),
        (Family::V4, Some(u8::MAX), Some(code)) => {
            format!("-m u32 {not}--u32 \"{header}0x10=0xff{code:02x}\"")
        }
        (Family::V4, Some(icmp_type), None) => format!("-m icmp {not}--icmp-type {icmp_type}"),
        (Family::V4, Some(icmp_type), Some(code)) => format!("-m icmp {not}--icmp-type {icmp_type}/{code}"),
        (_, None, Some(code)) => format!("-m u32 {not}--u32 \"{header}0x10&0xff={code:#x}\""),
        (_, None, None) => String::new(),
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Target::Accept => f.write_str("-j ACCEPT"),
            Target::Drop => f.write_str("-j DROP"),
            Target::Reject(Family::V4) => f.write_str("-j REJECT --reject-with icmp-port-unreachable"),
            Target::Reject(Family::V6) => f.write_str("-j REJECT --reject-with icmp6-port-unreachable"),
            Target::Return => f.write_str("-j RETURN"),
            Target::Jump(chain) => write!(f, "-j {chain}"),
            Target::Goto(chain) => write!(f, "-g {chain}"),
            Target::Log(prefix) => {
                let prefix: String = prefix.chars().take(LOG_PREFIX).collect();
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                let quote = if prefix.chars().all(plain) { "" } else { "\"" };
                write!(f, "-j LOG --log-prefix {quote}{prefix}{quote}")
            }
            Target::Notrack => f.write_str("-j CT --notrack"),
            Target::Mark { set, clear } => write!(f, "-j MARK --set-xmark {set:#x}/{:#x}", set | clear),
            Target::SourceNat(new) => source_nat(f, *new),
        }
    }
}

fn source_nat(f: &mut Formatter<'_>, new: NewSource) -> fmt::Result {
    match new.addr {
        Some(addr) => write!(f, "-j SNAT --to-source {addr}")?,
        None => f.write_str("-j MASQUERADE")?,
    }
    if let Some((first, last)) = new.ports {
        let to = if new.addr.is_some() { ":" } else { " --to-ports " };
        write!(f, "{to}{}", Element::Ports(first, last))?;
    }
    f.write_str(" --random-fully")
}

/// The name of one of the kernel's own chains.
pub(super) fn hook_word(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Input => "INPUT",
        Hook::Forward => "FORWARD",
        Hook::Output => "OUTPUT",
        Hook::Postrouting => "POSTROUTING",
    }
}

impl IpsetKind {
    /// The set's type and what must be said to make one.
    pub(super) fn words(self) -> String {
        let (word, family) = match self {
            IpsetKind::Networks(family) => ("hash:net", family),
            IpsetKind::Sockets(family) => ("hash:ip,port", family),
            IpsetKind::Flows(family) => ("hash:net,port", family),
            IpsetKind::Interfaces(family) => ("hash:net,iface", family),
        };
        let family = if family == Family::V4 { "inet" } else { "inet6" };
        format!("{word} family {family}")
    }
}

impl Display for IpsetKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

/// An element in the words of ipset.
pub(super) fn element(element: &Element) -> String {
    match element {
        Element::Address(addr) => addr.to_string(),
        Element::Network(net) if net.is_host() => net.addr().to_string(),
        Element::Network(net) => format!("{}/{}", net.addr(), net.prefix_len()),
        Element::Socket(addr, protocol, port) => format!("{addr},{}:{port}", word(*protocol)),
        Element::Flow(net, protocol, first, last) => {
            let (net, ports) = (Element::Network(*net), Element::Ports(*first, *last));
            format!("{},{}:{ports}", self::element(&net), word(*protocol))
        }
        Element::ProtocolPort(protocol, port) => format!("{}:{port}", word(*protocol)),
        Element::Ports(first, last) => format!("{first}-{last}"),
        Element::Interface(name) => name.to_string(),
        Element::InterfaceAddress(both) => format!("{},{}", both.1, both.0),
    }
}

impl Display for SetOperation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            SetOperation::Create(name, kind) => write!(f, "create {name} {} maxelem {MAXELEM}", kind.words()),
            SetOperation::Flush(name) => write!(f, "flush {name}"),
            SetOperation::Add(name, of) => write!(f, "add {name} {}", element(of)),
            SetOperation::Delete(name, of) => write!(f, "del {name} {}", element(of)),
            SetOperation::Swap(a, b) => write!(f, "swap {a} {b}"),
            SetOperation::Destroy(name) => write!(f, "destroy {name}"),
        }
    }
}

impl Display for Program {
    /// Prints the sets as input of `ipset restore`, and each table as input of `iptables-restore` or `ip6tables-restore`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "# ipset restore")?;
        for (name, Ipset { kind, elements }) in &self.sets {
            writeln!(f, "{}", SetOperation::Create(name.clone(), *kind))?;
            elements.iter().try_for_each(|of| writeln!(f, "add {name} {}", element(of)))?;
        }
        for family in Family::ALL {
            writeln!(f, "\n# {}-restore --noflush", program_word(family))?;
            let tables: BTreeMap<&TableName, &Table> = self
                .rules
                .tables
                .iter()
                .filter(|((of, _), _)| *of == family)
                .map(|((_, name), table)| (name, table))
                .collect();
            for (name, table) in tables {
                writeln!(f, "*{}", name.as_str())?;
                table.chains.keys().try_for_each(|chain| writeln!(f, ":{chain} - [0:0]"))?;
                for (chain, rules) in &table.chains {
                    rules.iter().try_for_each(|rule| writeln!(f, "-A {chain} {}", rule.line()))?;
                }
                for (hook, rule) in &table.hooks {
                    let (hook, line) = (hook_word(*hook), rule.rule.line());
                    match rule.place {
                        Insertion::First => writeln!(f, "-I {hook} 1 {line}")?,
                        Insertion::Last => writeln!(f, "-A {hook} {line}")?,
                    }
                }
                writeln!(f, "COMMIT")?;
            }
        }
        Ok(())
    }
}

/// The programs of a family begin so.
pub(super) fn program_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_spelt_as_iptables_save_spells_it() {
        let net = |text: &str| text.parse().unwrap();
        let rule = Rule::when(
            [
                Match::Port(End::Destination, Op::Is, 80, 80),
                Match::Port(End::Source, Op::IsNot, 1, 2),
                Match::Protocol(Op::Is, Protocol::TCP),
                Match::Prefix(Bound::In, Op::Is, "cali".parse().unwrap()),
                Match::Network(End::Source, Op::IsNot, net("10.0.0.0/24")),
                Match::Range(End::Source, Op::Is, net("10.0.0.0/30")),
            ],
            Target::Drop,
        );
        let line = rule.line();
        let (words, rest) = line.split_once("-m comment").unwrap();
        assert_eq!(
            words,
            "! -s 10.0.0.0/24 -i cali+ -p tcp -m tcp ! --sport 1:2 --dport 80 -m iprange --src-range 10.0.0.0-10.0.0.3 "
        );
        assert!(rest.ends_with("-j DROP"), "{rest}");
        assert_eq!(comment(&line).map(str::len), Some(DIGEST));
    }

    #[test]
    fn only_the_name_of_a_protocol_may_be_the_systems_own() {
        assert!(is_spelling_of("-p 4 -j DROP", "-p ipencap -j DROP"));
        assert!(!is_spelling_of("-p tcp -j DROP", "-p udp -j DROP"));
        assert!(!is_spelling_of("-p 4 -j DROP", "-p ipencap -j ACCEPT"));
        assert!(!is_spelling_of("-p 4 -j DROP", "-p ipencap -j DROP -x"));
    }

    #[test]
    fn pe95_a_log_prefix_is_short_enough_and_quoted_when_it_must_be() {
        let log = |prefix: &str| Target::Log(prefix.into()).to_string();
        assert_eq!(log("calico-packet: "), "-j LOG --log-prefix \"calico-packet: \"");
        assert_eq!(log("abc"), "-j LOG --log-prefix abc");
        assert_eq!(log(&"x y".repeat(40)).len(), "-j LOG --log-prefix ".len() + 2 + LOG_PREFIX);
    }
}
