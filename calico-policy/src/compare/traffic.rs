//! Traffic in the classes that rules tell apart.

use std::collections::BTreeSet;
use std::fmt;

use calico_model::Protocol;
use calico_model::resource::{FelixConfiguration, PortMatch, Rule};

use crate::compile::{ESSENTIAL_ICMPV6, HOST_ICMPV6, IPIP, inbound, outbound};
use crate::packet::{OtherProtocol, PortProtocol, Transport};

/// Some of what may go from one place to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// Everything.
    All,
    /// A protocol with ports, from and to ports between the first and the last.
    Ports {
        /// Which of them.
        protocol: PortProtocol,
        /// The source ports.
        source: (u16, u16),
        /// The destination ports.
        destination: (u16, u16),
    },
    /// ICMP or ICMPv6, of types and codes between the first and the last.
    Icmp {
        /// The types.
        types: (u8, u8),
        /// The codes.
        codes: (u8, u8),
    },
    /// Protocols that have neither, between the first and the last number.
    Other {
        /// The numbers; those of protocols that have ports or are ICMP do not count.
        numbers: (u8, u8),
    },
}

impl Traffic {
    /// Reports whether a packet belongs to it.
    #[must_use]
    pub fn holds(&self, transport: Transport) -> bool {
        let within = |(first, last): (u16, u16), port: u16| (first..=last).contains(&port);
        let among = |(first, last): (u8, u8), number: u8| (first..=last).contains(&number);
        match (*self, transport) {
            (Traffic::All, _) => true,
            (
                Traffic::Ports { protocol, source, destination },
                Transport::Ports { protocol: sent, source: from, destination: to },
            ) => protocol == sent && within(source, from) && within(destination, to),
            (Traffic::Icmp { types, codes }, Transport::Icmp { icmp_type, code }) => {
                among(types, icmp_type) && among(codes, code)
            }
            (Traffic::Other { numbers }, Transport::Other(other)) => {
                among(numbers, other.protocol().number())
            }
            (Traffic::Ports { .. } | Traffic::Icmp { .. } | Traffic::Other { .. }, _) => false,
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALL: (u16, u16) = (0, u16::MAX);
        const EVERY: (u8, u8) = (0, u8::MAX);
        fn span<T: PartialEq + fmt::Display>((first, last): (T, T)) -> String {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        }
        match *self {
            Traffic::All => f.write_str("everything"),
            Traffic::Ports { protocol, source, destination } => {
                write!(f, "{}", protocol.protocol().to_string().to_lowercase())?;
                if destination != ALL {
                    write!(f, " {}", span(destination))?;
                }
                if source == ALL { Ok(()) } else { write!(f, " from port {}", span(source)) }
            }
            Traffic::Icmp { types, codes } => {
                f.write_str("icmp")?;
                if types != EVERY {
                    write!(f, " type {}", span(types))?;
                }
                if codes == EVERY { Ok(()) } else { write!(f, " code {}", span(codes)) }
            }
            Traffic::Other { numbers: EVERY } => f.write_str("other protocols"),
            Traffic::Other { numbers } => write!(f, "protocol {}", span(numbers)),
        }
    }
}

/// Where one class of traffic ends and the next begins, for some rules: each number is the first of a class.
#[derive(Debug, Clone, Default)]
pub(super) struct Cuts {
    sources: [BTreeSet<u16>; 3],
    destinations: [BTreeSet<u16>; 3],
    types: BTreeSet<u8>,
    codes: BTreeSet<u8>,
    others: BTreeSet<u8>,
}

impl Cuts {
    pub(super) fn of_rule(&mut self, rule: &Rule) {
        for (i, known) in PortProtocol::ALL.into_iter().enumerate() {
            if rule.protocol.is_none_or(|protocol| protocol == known.protocol()) {
                let (source, destination) = (&rule.source, &rule.destination);
                source
                    .ports
                    .iter()
                    .chain(&source.not_ports)
                    .for_each(|ports| cut(&mut self.sources[i], ports));
                let both = destination.ports.iter().chain(&destination.not_ports);
                both.for_each(|ports| cut(&mut self.destinations[i], ports));
            }
        }
        for icmp in rule.icmp.iter().chain(&rule.not_icmp) {
            icmp.icmp_type.into_iter().for_each(|number| around(&mut self.types, number, number));
            icmp.code.into_iter().for_each(|number| around(&mut self.codes, number, number));
        }
        for protocol in rule.protocol.iter().chain(&rule.not_protocol) {
            around(&mut self.others, protocol.number(), protocol.number());
        }
    }

    /// Tells a port of one protocol apart, whichever end has it.
    pub(super) fn of_port(&mut self, protocol: Protocol, port: u16) {
        let known = PortProtocol::ALL.into_iter().position(|known| known.protocol() == protocol);
        let Some(i) = known else { return };
        cut(&mut self.sources[i], &PortMatch::Range(port, port));
        cut(&mut self.destinations[i], &PortMatch::Range(port, port));
    }

    /// Tells tunnels apart, what links need, and, where there is a host endpoint, its failsafe ports.
    pub(super) fn of_felix(&mut self, felix: &FelixConfiguration, guards_hosts: bool) {
        let udp =
            PortProtocol::ALL.into_iter().position(|known| known == PortProtocol::Udp).unwrap_or_default();
        let vxlan = felix.vxlan_port();
        cut(&mut self.destinations[udp], &PortMatch::Range(vxlan, vxlan));
        around(&mut self.others, IPIP.number(), IPIP.number());
        ESSENTIAL_ICMPV6.iter().for_each(|(first, last)| around(&mut self.types, *first, *last));
        if guards_hosts {
            HOST_ICMPV6.iter().for_each(|(first, last)| around(&mut self.types, *first, *last));
            for open in inbound(felix).iter().chain(&outbound(felix)) {
                open.protocol().into_iter().for_each(|protocol| self.of_port(protocol, open.port));
            }
        }
    }

    pub(super) fn join(&self, other: &Cuts) -> Cuts {
        let ports =
            |a: &[BTreeSet<u16>; 3], b: &[BTreeSet<u16>; 3]| [&a[0] | &b[0], &a[1] | &b[1], &a[2] | &b[2]];
        Cuts {
            sources: ports(&self.sources, &other.sources),
            destinations: ports(&self.destinations, &other.destinations),
            types: &self.types | &other.types,
            codes: &self.codes | &other.codes,
            others: &self.others | &other.others,
        }
    }

    /// Returns the first packet of the class that a packet is in.
    pub(super) fn first_alike(&self, transport: Transport) -> Transport {
        fn start<T: Copy + Ord + From<u8>>(cuts: &BTreeSet<T>, of: T) -> T {
            cuts.range(..=of).next_back().copied().unwrap_or(T::from(0))
        }
        match transport {
            Transport::Ports { protocol, source, destination } => {
                let i = PortProtocol::ALL.into_iter().position(|known| known == protocol).unwrap_or_default();
                let (source, destination) =
                    (start(&self.sources[i], source), start(&self.destinations[i], destination));
                Transport::Ports { protocol, source, destination }
            }
            Transport::Icmp { icmp_type, code } => {
                Transport::Icmp { icmp_type: start(&self.types, icmp_type), code: start(&self.codes, code) }
            }
            Transport::Other(other) => {
                let first = start(&self.others, other.protocol().number());
                let mut alike = (first..=u8::MAX).map(Protocol::from_number).filter_map(OtherProtocol::new);
                Transport::Other(alike.next().unwrap_or(other))
            }
        }
    }

    /// Returns the classes, none of which a rule tells apart within itself, each with a packet of it.
    pub(super) fn classes(&self) -> Vec<(Traffic, Transport)> {
        let mut classes = Vec::new();
        for (i, protocol) in PortProtocol::ALL.into_iter().enumerate() {
            for source in spans(&self.sources[i], u16::MAX) {
                for destination in spans(&self.destinations[i], u16::MAX) {
                    let packet = Transport::Ports { protocol, source: source.0, destination: destination.0 };
                    classes.push((Traffic::Ports { protocol, source, destination }, packet));
                }
            }
        }
        for types in spans(&self.types, u8::MAX) {
            for codes in spans(&self.codes, u8::MAX) {
                let packet = Transport::Icmp { icmp_type: types.0, code: codes.0 };
                classes.push((Traffic::Icmp { types, codes }, packet));
            }
        }
        for numbers in spans(&self.others, u8::MAX) {
            let mut others =
                (numbers.0..=numbers.1).filter_map(|n| OtherProtocol::new(Protocol::from_number(n)));
            if let Some(other) = others.next() {
                classes.push((Traffic::Other { numbers }, Transport::Other(other)));
            }
        }
        classes
    }
}

fn cut(cuts: &mut BTreeSet<u16>, ports: &PortMatch) {
    if let PortMatch::Range(first, last) = ports
        && first <= last
    {
        cuts.extend([Some(*first), last.checked_add(1)].into_iter().flatten());
    }
}

fn around(cuts: &mut BTreeSet<u8>, first: u8, last: u8) {
    cuts.extend([Some(first), last.checked_add(1)].into_iter().flatten());
}

/// The spans between cuts.
fn spans<T: Copy + Ord + From<u8> + std::ops::Sub<Output = T>>(cuts: &BTreeSet<T>, last: T) -> Vec<(T, T)> {
    let (zero, one) = (T::from(0), T::from(1));
    let starts = std::iter::once(zero).chain(cuts.iter().copied().filter(|start| *start > zero));
    let ends = cuts.iter().filter(|start| **start > zero).map(|start| *start - one).chain([last]);
    starts.zip(ends).collect()
}

/// Says classes in as few words as can be: neighbours become one, and all of them everything.
pub(super) fn summed_up(mut some: Vec<Traffic>, all: usize) -> Vec<Traffic> {
    if some.len() == all {
        return vec![Traffic::All];
    }
    some.sort_unstable();
    // First along the last field, then along the one before it.
    for pass in [joined_last, joined_first] {
        let mut joined: Vec<Traffic> = Vec::new();
        for next in some {
            let met = joined.iter_mut().find_map(|before| {
                let whole = pass(before, &next)?;
                *before = whole;
                Some(())
            });
            if met.is_none() {
                joined.push(next);
            }
        }
        some = joined;
    }
    some
}

fn meet<T: Copy + PartialEq + PartialOrd + Into<u32>>(a: (T, T), b: (T, T)) -> Option<(T, T)> {
    (a.1.into() + 1 == b.0.into()).then_some((a.0, b.1))
}

fn joined_last(a: &Traffic, b: &Traffic) -> Option<Traffic> {
    match (*a, *b) {
        (
            Traffic::Ports { protocol, source, destination },
            Traffic::Ports { protocol: p, source: s, destination: d },
        ) if (protocol, source) == (p, s) => {
            meet(destination, d).map(|destination| Traffic::Ports { protocol, source, destination })
        }
        (Traffic::Icmp { types, codes }, Traffic::Icmp { types: t, codes: c }) if types == t => {
            meet(codes, c).map(|codes| Traffic::Icmp { types, codes })
        }
        (Traffic::Other { numbers }, Traffic::Other { numbers: n }) => joined_numbers(numbers, n),
        _ => None,
    }
}

/// Protocols that are none of these, between two spans, are no gap.
fn joined_numbers(a: (u8, u8), b: (u8, u8)) -> Option<Traffic> {
    let gap = a.1.checked_add(1)?..b.0;
    let none = gap.clone().all(|number| OtherProtocol::new(Protocol::from_number(number)).is_none());
    (gap.start <= b.0 && none).then_some(Traffic::Other { numbers: (a.0, b.1) })
}

fn joined_first(a: &Traffic, b: &Traffic) -> Option<Traffic> {
    match (*a, *b) {
        (
            Traffic::Ports { protocol, source, destination },
            Traffic::Ports { protocol: p, source: s, destination: d },
        ) if (protocol, destination) == (p, d) => {
            meet(source, s).map(|source| Traffic::Ports { protocol, source, destination })
        }
        (Traffic::Icmp { types, codes }, Traffic::Icmp { types: t, codes: c }) if codes == c => {
            meet(types, t).map(|types| Traffic::Icmp { types, codes })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_is_in_exactly_one_class_and_the_sum_of_all_is_everything() {
        let mut cuts = Cuts::default();
        let mut rule = Rule::allow();
        rule.destination.ports =
            vec![PortMatch::Range(0, 0), PortMatch::Range(80, 90), PortMatch::Range(65_535, 65_535)];
        rule.source.not_ports = vec![PortMatch::Range(7, 9)];
        cuts.of_rule(&rule);
        rule.protocol = Some(Protocol::from_number(132));
        cuts.of_rule(&rule);
        cuts.of_felix(&FelixConfiguration::new(), true);
        let classes = cuts.classes();
        for (traffic, packet) in &classes {
            assert!(traffic.holds(*packet));
        }
        for port in [0, 1, 79, 80, 90, 91, 65_534, 65_535] {
            for packet in [Transport::tcp(port), Transport::udp(port)] {
                assert_eq!(classes.iter().filter(|(traffic, _)| traffic.holds(packet)).count(), 1);
            }
        }
        let all: Vec<Traffic> = classes.iter().map(|(traffic, _)| *traffic).collect();
        assert_eq!(summed_up(all.clone(), all.len()), [Traffic::All]);
        let tcp = all.iter().filter(|t| matches!(t, Traffic::Ports { protocol: PortProtocol::Tcp, .. }));
        let told: Vec<String> =
            summed_up(tcp.copied().collect(), all.len()).iter().map(Traffic::to_string).collect();
        assert_eq!(told, ["tcp"]);
        let web = |t: &&Traffic| {
            matches!(t, Traffic::Ports { protocol: PortProtocol::Tcp, destination: (80, 90), .. })
        };
        let told = summed_up(all.iter().filter(web).copied().collect(), all.len());
        assert_eq!(told[0].to_string(), "tcp 80-90");
        let others = all.iter().filter(|t| matches!(t, Traffic::Other { .. }));
        assert_eq!(summed_up(others.copied().collect(), all.len())[0].to_string(), "other protocols");
    }
}
