//! Which packets a rule can be about: two rules that no packet matches both of may change places.

use calico_model::{Cidr, Family, Protocol};

use super::ranges;
use crate::ruleset::{End, Match, Op, Rule};
use crate::sets::Sets;

/// What a packet has to be that a rule matches, as far as it is simple to say.
#[derive(Debug, Default)]
pub(super) struct Scope {
    family: Option<Family>,
    protocol: Option<Protocol>,
    /// The first and last of the destination ports.
    ports: Option<(u16, u16)>,
    source: Option<Cidr>,
    destination: Option<Cidr>,
}

impl Scope {
    pub(super) fn of(rule: &Rule, sets: &Sets) -> Self {
        let mut scope = Self::default();
        for m in &rule.matches {
            if let Match::Family(family) = m {
                scope.family = Some(*family);
            } else if let Match::Protocol(Op::Is, protocol) = m {
                scope.protocol = Some(*protocol);
            } else if let Match::Network(end, Op::Is, net) = m {
                match end {
                    End::Source => scope.source = Some(*net),
                    End::Destination => scope.destination = Some(*net),
                }
            } else if let Match::Port(End::Destination, Op::Is, ports) = m {
                let ranges = ranges(ports, sets);
                let first = ranges.iter().map(|(first, _)| *first).min();
                scope.ports = first.zip(ranges.iter().map(|(_, last)| *last).max());
            }
        }
        scope
    }

    /// Reports whether no packet is in both; `false` when that is not known.
    pub(super) fn is_apart_from(&self, other: &Self) -> bool {
        fn differ<T: Copy>(a: Option<T>, b: Option<T>, apart: impl Fn(T, T) -> bool) -> bool {
            a.zip(b).is_some_and(|(a, b)| apart(a, b))
        }
        let nets = |a: Cidr, b: Cidr| !a.covers(&b) && !b.covers(&a);
        differ(self.family, other.family, |a, b| a != b)
            || differ(self.protocol, other.protocol, |a, b| a != b)
            || differ(self.ports, other.ports, |a, b| a.1 < b.0 || b.1 < a.0)
            || differ(self.source, other.source, nets)
            || differ(self.destination, other.destination, nets)
    }
}
