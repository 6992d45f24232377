//! What guards the node's workloads.

use calico_model::resource::PolicyType;

use super::{
    Action, Bound, ChainKind, ChainName, Compilation, Element, End, Family, Hook, Interface, LocalWorkload,
    Match, Op, RAW, Rule, Set, SetKind, VerdictMap,
};
use crate::active::{Stage, active};
use crate::labels::SystemLabels;
use crate::ruleset::SetName;

impl Compilation<'_, '_> {
    pub(super) fn workloads(&mut self, workloads: &[LocalWorkload<'_>]) {
        let mut from = VerdictMap::default();
        let mut to = VerdictMap::default();
        for workload in workloads {
            let labels = SystemLabels::of_workload(self.snapshot, workload.endpoint);
            let profiles = &workload.endpoint.spec.profiles;
            for (direction, map) in [(PolicyType::Egress, &mut from), (PolicyType::Ingress, &mut to)] {
                let tiers = active(self.tiers, &labels, direction, Stage::Normal);
                let chain = self.workload_chain(direction, &tiers, profiles);
                map.elements.insert(workload.interface.clone(), chain);
            }
        }
        let from_map = self.map("from-workload", from);
        let to_map = self.map("to-workload", to);
        self.sources(workloads);
        self.dispatch(&from_map, &to_map);
    }

    pub(super) fn map(&mut self, words: &str, map: VerdictMap) -> SetName {
        let name = SetName::fixed(words);
        self.maps.insert(name.clone(), map);
        name
    }

    /// A workload sends from its own addresses only, and an unknown interface from none.
    fn sources(&mut self, workloads: &[LocalWorkload<'_>]) {
        let elements = workloads.iter().map(|w| Element::Interface(w.interface.clone())).collect();
        let known = self.sets.fixed("workloads", Set { kind: SetKind::Interface, elements });
        let mut rules = Vec::new();
        for family in Family::ALL {
            let elements = workloads
                .iter()
                .flat_map(|workload| {
                    let own = workload.endpoint.spec.addrs(family);
                    own.map(|addr| Element::InterfaceAddress(workload.interface.clone(), addr))
                })
                .collect();
            let words = super::family_word(family, "sources-v4", "sources-v6");
            let set = self.sets.fixed(words, Set { kind: SetKind::InterfaceAddress(family), elements });
            rules
                .push(Rule::when([Match::Family(family), Match::SourceAllowed(family, set)], Action::Accept));
        }
        let unknown = Match::Interface(Bound::In, Op::IsNot, Interface::InSet(known));
        rules.push(Rule::when([unknown], Action::Drop));
        rules.extend(link_local_essentials().map(|matches| Rule::when(matches, Action::Accept)));
        for workload in workloads {
            for net in &workload.endpoint.spec.allow_spoofed_source_prefixes {
                let interface = Interface::Named(workload.interface.clone());
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
        self.chain(chain.clone(), rules);
        let entry = self.for_workload_interfaces(Bound::In, &[], &Action::Goto(chain));
        self.base("source", ChainKind::Filter, Hook::Prerouting, RAW, entry);
    }

    /// Lets workloads' links work, whatever policy says.
    pub(super) fn essentials(&self) -> Vec<Rule> {
        let each = |matches: Vec<Match>| self.for_workload_interfaces(Bound::In, &matches, &Action::Accept);
        essential_types().into_iter().flat_map(each).collect()
    }

    fn dispatch(&mut self, from: &SetName, to: &SetName) {
        let dispatched = |compilation: &Self, bound, map: &SetName| {
            let mut rules = vec![Rule::always(Action::Dispatch(bound, map.clone()))];
            rules.extend(compilation.for_workload_interfaces(bound, &[], &Action::Drop));
            rules
        };
        let mut input = self.essentials();
        input.extend(dispatched(self, Bound::In, from));
        self.filter("input-workload", Hook::Input, 0, input);
        let forward_from = dispatched(self, Bound::In, from);
        self.filter("forward-from", Hook::Forward, 0, forward_from);
        let forward_to = dispatched(self, Bound::Out, to);
        self.filter("forward-to", Hook::Forward, 1, forward_to);
    }
}

/// The first and last of the ICMPv6 types without which IPv6 does not work on a link: multicast listener reports, router
/// solicitations and neighbour discovery (RFC 4890 section 4.4.1). Router advertisements (134) are not among them: a
/// workload is no router.
pub(crate) const ESSENTIAL_ICMPV6: [(u8, u8); 2] = [(130, 133), (135, 136)];

fn essential_types() -> [Vec<Match>; 2] {
    ESSENTIAL_ICMPV6.map(|(first, last)| {
        vec![
            Match::Family(Family::V6),
            Match::Protocol(Op::Is, crate::packet::icmp_of(Family::V6)),
            Match::IcmpType(Family::V6, Op::Is, first, last),
        ]
    })
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
