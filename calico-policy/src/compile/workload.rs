//! What guards the node's workloads.

use calico_model::Cidr;

use super::{
    Action, Bound, ChainKind, ChainName, Compilation, End, Family, Hook, Interface, Match, Op, RAW, Rule,
    SetName, VerdictMap, guard,
};
use crate::local::LOOPBACK;

impl Compilation<'_> {
    pub(super) fn map(&mut self, words: &str, map: &VerdictMap) -> SetName {
        let name = SetName::fixed(words);
        self.sets.out.put_map(&name, map);
        name
    }

    /// Makes the base chains that lead to the workloads' own.
    pub(super) fn workloads(&mut self) {
        self.sources();
        self.dispatch();
    }

    /// A workload sends from its own addresses only, and an unknown interface from none. Nobody else than the node itself
    /// sends to its loopback addresses, which `route_localnet` would let in.
    fn sources(&mut self) {
        let to_loopback =
            [Match::Family(Family::V4), Match::Network(End::Destination, Op::Is, loopback_addresses())];
        let mut rules = vec![Rule::when(to_loopback.clone(), Action::Drop)];
        for family in Family::ALL {
            let allowed = Match::SourceAllowed(family, guard::sources(family));
            rules.push(Rule::when([Match::Family(family), allowed], Action::Accept));
        }
        let unknown = Match::Interface(Bound::In, Op::IsNot, Interface::InSet(guard::known()));
        rules.push(Rule::when([unknown], Action::Drop));
        rules.extend(link_local_essentials().map(|matches| Rule::when(matches, Action::Accept)));
        for (interface, guard) in &*self.guards {
            for net in &guard.spoofed {
                let interface = Interface::Named(interface.clone());
                let matches = [
                    Match::Interface(Bound::In, Op::Is, interface),
                    Match::Family(net.family()),
                    Match::Network(End::Source, Op::Is, *net),
                ];
                rules.push(Rule::when(matches, Action::Accept));
            }
        }
        rules.push(Rule::always(Action::Drop));
        let chain = ChainName::fixed("workload-source");
        self.chain(&chain, rules);
        let mut entry = self.for_workload_interfaces(Bound::In, &[], &Action::Goto(chain));
        let loopback = Interface::Named(LOOPBACK.parse().expect("a constant interface"));
        let elsewhere = Match::Interface(Bound::In, Op::IsNot, loopback);
        entry.push(Rule::when([&to_loopback[..], &[elsewhere]].concat(), Action::Drop));
        self.base("source", ChainKind::Filter, Hook::Prerouting, RAW, entry);
    }

    /// Lets workloads' links work, whatever policy says.
    pub(super) fn essentials(&self) -> Vec<Rule> {
        let each = |matches: Vec<Match>| self.for_workload_interfaces(Bound::In, &matches, &Action::Accept);
        essential_types().into_iter().flat_map(each).collect()
    }

    /// Leads to each workload's policy. What comes from one is asked before it has a route: what goes to the node and what is
    /// forwarded would else be two ways to the same chains, and the kernel walks through both whenever one leads elsewhere.
    fn dispatch(&mut self) {
        let essentials = self.essentials_of_links();
        let mut from = vec![self.going_on([])];
        from.extend(essential_types().map(|matches| Rule::when(matches, Action::Jump(essentials.clone()))));
        from.push(self.not_going_on(self.deny()));
        from.extend(self.no_tunnels());
        let from = self.dispatch_of("from-workloads", Bound::In, from, guard::from_workload());
        self.filter("egress", Hook::Prerouting, 0, from);
        // What comes from an unknown interface was dropped by its source already. What goes to one finds no chain.
        let known = Match::Interface(Bound::Out, Op::Is, Interface::InSet(guard::known()));
        let to = vec![self.going_on([known]), self.not_going_on(self.deny())];
        let to = self.dispatch_of("to-workloads", Bound::Out, to, guard::to_workload());
        self.filter("forward-to", Hook::Forward, 1, to);
    }

    /// Lets pass what goes to the node or to a group of the link. What is forwarded is a matter of policy: also to groups
    /// of wider scope, and to what has a route only for some interfaces or marks.
    pub(super) fn essentials_of_links(&mut self) -> ChainName {
        let groups = Match::Network(End::Destination, Op::Is, link_groups());
        let to_link = [groups, Match::Local, Match::Anycast];
        let rules = to_link.map(|to| Rule::when([Match::Family(Family::V6), to], Action::Accept));
        let chain = ChainName::fixed("essentials");
        self.chain(&chain, rules.into());
        chain
    }

    /// What all workloads have in common, before each one's policy and after it: what comes back undecided is denied. It is
    /// said once and not in each one's chain: the kernel walks through all rules whenever one changes.
    fn dispatch_of(&mut self, words: &str, bound: Bound, mut first: Vec<Rule>, map: SetName) -> Vec<Rule> {
        first.push(Rule::always(Action::Dispatch(bound, map)));
        let chain = ChainName::fixed(words);
        self.chain(&chain, first);
        let asked = self.for_workload_interfaces(bound, &[], &Action::Jump(chain));
        let undecided = self.for_workload_interfaces(bound, &[], &self.deny());
        [asked, undecided].concat()
    }
}

/// The addresses by which a node reaches itself (RFC 1122 section 3.2.1.3).
pub(crate) fn loopback_addresses() -> Cidr {
    Cidr::holding(std::net::Ipv4Addr::LOCALHOST.into(), 8).expect("a prefix of eight bits")
}

/// The first and last of the ICMPv6 types without which IPv6 does not work on a link: multicast listener reports, router
/// solicitations and neighbour discovery (RFC 4890 section 4.4.1). Router advertisements (134) are not among them: a
/// workload is no router.
pub(crate) const ESSENTIAL_ICMPV6: [(u8, u8); 2] = [(130, 133), (135, 136)];

/// The groups that no router forwards to (RFC 4291 section 2.7): all nodes, all routers, solicited nodes, listeners' reports.
pub(crate) fn link_groups() -> Cidr {
    Cidr::holding(std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0).into(), 16)
        .expect("a prefix of sixteen bits")
}

fn essential_types() -> [Vec<Match>; 2] {
    ESSENTIAL_ICMPV6.map(icmpv6_types)
}

/// ICMPv6 of the types from the first to the last.
pub(super) fn icmpv6_types((first, last): (u8, u8)) -> Vec<Match> {
    vec![
        Match::Family(Family::V6),
        Match::Protocol(Op::Is, crate::packet::icmp_of(Family::V6)),
        Match::IcmpType(Family::V6, Op::Is, first, last),
    ]
}

/// The essentials from the addresses that are used before or beside a workload's own: none, and link-local ones, which no
/// router forwards.
fn link_local_essentials() -> impl Iterator<Item = Vec<Match>> {
    LINK_LOCAL_SOURCES.into_iter().flat_map(|net| {
        let net = net.parse().expect("a constant network");
        essential_types()
            .map(|matches| [matches.as_slice(), &[Match::Network(End::Source, Op::Is, net)]].concat())
    })
}

/// The sources of link-local essentials.
pub(crate) const LINK_LOCAL_SOURCES: [&str; 2] = ["::/128", "fe80::/10"];
