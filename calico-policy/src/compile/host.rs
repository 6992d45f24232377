//! What guards the node itself, and what it forwards.

use calico_model::resource::{EndpointToHostAction, HostEndpoint, Object, PolicyType};
use calico_model::{Cidr, InterfaceName};

use super::endpoint::{decides_all, word};
use super::failsafe::{HOST_ICMPV6, Way};
use super::workload::icmpv6_types;
use super::{
    Action, Bound, ChainKind, ChainName, Compilation, Element, End, Family, Hook, Interface, LocalHosts,
    MANGLE, Match, Op, RAW, Rule, SetKind, VerdictMap, guard,
};
use crate::active::{ActiveTier, Stage, active_of_selecting};
use crate::local::LOOPBACK;
use crate::sets::address_set;

/// A stage of host endpoints: which policy, in which direction, by which interface.
#[derive(Clone, Copy)]
struct Place {
    stage: Stage,
    direction: PolicyType,
    bound: Bound,
    words: &'static str,
}

impl Compilation<'_> {
    pub(super) fn host(&mut self, hosts: &LocalHosts<'_>) {
        let early = self.early(hosts);
        self.input(hosts, early);
        self.output(hosts, early);
        self.forward(hosts, early);
    }

    /// The stages before connection tracking and translation. Reports whether there are any: only then is anything marked.
    fn early(&mut self, hosts: &LocalHosts<'_>) -> bool {
        let (ingress, egress) = (PolicyType::Ingress, PolicyType::Egress);
        let place = |stage, direction, bound, words| Place { stage, direction, bound, words };
        let raw_in = self.guarded(hosts, place(Stage::Untracked, ingress, Bound::In, "raw-in"));
        let raw_out = self.guarded(hosts, place(Stage::Untracked, egress, Bound::Out, "raw-out"));
        let pre_dnat = self.guarded(hosts, place(Stage::PreDnat, ingress, Bound::In, "pre-dnat"));
        let any = !(raw_in.is_empty() && raw_out.is_empty() && pre_dnat.is_empty());
        if !any {
            return false;
        }
        let clear = || Rule::always(Action::ClearMark);
        let marked = [[clear()].as_slice(), &raw_in].concat();
        self.base("raw-in", ChainKind::Filter, Hook::Prerouting, RAW + 1, marked);
        let marked = [[clear()].as_slice(), &raw_out].concat();
        self.base("raw-out", ChainKind::Filter, Hook::Output, RAW, marked);
        if !pre_dnat.is_empty() {
            let accepted = Rule::when([Match::Accepted], Action::Accept);
            let rules = [[accepted].as_slice(), &pre_dnat].concat();
            self.base("pre-dnat", ChainKind::Filter, Hook::Prerouting, MANGLE, rules);
        }
        self.chain(
            &ChainName::fixed("accept-untracked"),
            [Action::Notrack, Action::MarkAccepted, Action::Accept].map(Rule::always).to_vec(),
        );
        self.chain(
            &ChainName::fixed("accept-early"),
            [Action::MarkAccepted, Action::Accept].map(Rule::always).to_vec(),
        );
        true
    }

    /// How a stage accepts: an early one says so to the later ones.
    pub(super) fn accept_in(&self, stage: Stage) -> Action {
        match stage {
            Stage::Normal | Stage::Translated | Stage::Forward => Action::Accept,
            Stage::PreDnat => Action::Goto(ChainName::fixed("accept-early")),
            Stage::Untracked => Action::Goto(ChainName::fixed("accept-untracked")),
        }
    }

    /// How a stage denies. After the choice of a route nobody can be told, nor before connection tracking.
    pub(super) fn deny_in(&self, stage: Stage) -> Action {
        match stage {
            Stage::Normal | Stage::Forward => self.deny(),
            Stage::Translated | Stage::PreDnat | Stage::Untracked => Action::Drop,
        }
    }

    fn input(&mut self, hosts: &LocalHosts<'_>, early: bool) {
        let mut rules = self.tunnels(Way::In);
        let to_host = match self.felix.default_endpoint_to_host_action.unwrap_or(EndpointToHostAction::Drop) {
            EndpointToHostAction::Drop => Action::Drop,
            // Beyond this table the rules of others decide in both cases.
            EndpointToHostAction::Accept | EndpointToHostAction::Return => Action::Accept,
        };
        rules.extend(self.essentials());
        rules.extend(self.for_workload_interfaces(Bound::In, &[Match::Established], &Action::Accept));
        rules.extend(self.for_workload_interfaces(Bound::In, &[], &to_host));
        rules.extend(early.then(|| Rule::when([Match::Accepted], Action::Accept)));
        let place = Place {
            stage: Stage::Normal,
            direction: PolicyType::Ingress,
            bound: Bound::In,
            words: "input-host",
        };
        rules.extend(self.guarded(hosts, place));
        self.filter("input-host", Hook::Input, 1, rules);
    }

    /// What the node sends to a translated destination has its old interface in the output hook, whatever its new route: it is
    /// asked about when it leaves.
    fn output(&mut self, hosts: &LocalHosts<'_>, early: bool) {
        let place = Place {
            stage: Stage::Normal,
            direction: PolicyType::Egress,
            bound: Bound::Out,
            words: "output-host",
        };
        let guarded = self.guarded(hosts, place);
        let asked = |compilation: &mut Self, guarded| {
            let accepted = early.then(|| Rule::when([Match::Accepted], Action::Accept));
            compilation.tunnels(Way::Out).into_iter().chain(accepted).chain(guarded).collect::<Vec<_>>()
        };
        // What is not asked about here is asked about there.
        let late = [Match::Translated, Match::FromLocal];
        let mut rules = vec![Rule::when(late.clone(), Action::Accept)];
        rules.extend(self.to_own_workloads());
        if !guarded.is_empty() {
            let rules_of_late = if self.deny() == Action::Drop {
                guarded.clone()
            } else {
                self.guarded(hosts, Place { stage: Stage::Translated, words: "late-host", ..place })
            };
            rules.extend(asked(self, guarded));
            let rules_of_late = asked(self, rules_of_late);
            let chain = ChainName::fixed("translated");
            self.chain(&chain, rules_of_late);
            let entry = vec![Rule::when(late, Action::Goto(chain))];
            self.base("output-late", ChainKind::Filter, Hook::Postrouting, MANGLE, entry);
        }
        self.filter("output", Hook::Output, 0, rules);
    }

    /// The node reaches its own workloads from its own addresses. What it sends from another has come from elsewhere, past the hook
    /// where workloads' policy is asked (IPVS makes such packets): of that only what answers a flow passes.
    fn to_own_workloads(&self) -> Vec<Rule> {
        let known = Match::Interface(Bound::Out, Op::Is, Interface::InSet(guard::known()));
        let mut rules = vec![
            self.going_on([known.clone()]),
            Rule::when([known.clone(), Match::FromLocal], Action::Accept),
        ];
        rules.extend(HOST_ICMPV6.map(|types| {
            let matches = [icmpv6_types(types), vec![known.clone()]].concat();
            Rule::when(matches, Action::Accept)
        }));
        rules.extend(self.for_workload_interfaces(Bound::Out, &[], &self.deny()));
        rules
    }

    fn forward(&mut self, hosts: &LocalHosts<'_>, early: bool) {
        for (direction, bound, words, place) in [
            (PolicyType::Ingress, Bound::In, "forward-host-in", 2),
            (PolicyType::Egress, Bound::Out, "forward-host-out", 3),
        ] {
            let guarded = self.guarded(hosts, Place { stage: Stage::Forward, direction, bound, words });
            if !guarded.is_empty() {
                let marked = early && direction == PolicyType::Ingress;
                let accepted = marked.then(|| Rule::when([Match::Accepted], Action::Accept));
                self.filter(words, Hook::Forward, place, accepted.into_iter().chain(guarded).collect());
            }
        }
    }

    /// Makes the rules that lead to the host endpoints' chains of a stage; none when no endpoint has anything to say in it.
    fn guarded(&mut self, hosts: &LocalHosts<'_>, place: Place) -> Vec<Rule> {
        let named: Vec<(InterfaceName, Option<ChainName>)> = hosts
            .named
            .iter()
            .map(|(interface, host)| (interface.clone(), self.host_chain(host, place)))
            .collect();
        let all = hosts.all.and_then(|host| self.host_chain(host, place));
        let by_address = matches!(place.stage, Stage::Normal | Stage::Translated);
        let addressed = if by_address { hosts.addressed.as_slice() } else { &[] };
        if named.iter().all(|(_, chain)| chain.is_none()) && all.is_none() && addressed.is_empty() {
            return Vec::new();
        }
        let mut rules = self.for_workload_interfaces(place.bound, &[], &Action::Accept);
        // An interface with an endpoint of its own never falls to the one for all.
        let elements = named.into_iter().map(|(interface, chain)| {
            (Element::Interface(interface), chain.unwrap_or_else(|| self.accept_chain()))
        });
        let map = VerdictMap { kind: SetKind::Interface, elements: elements.collect() };
        if !map.elements.is_empty() {
            let map = self.map(place.words, &map);
            rules.push(Rule::always(Action::Dispatch(place.bound, map)));
        }
        for host in addressed {
            rules.extend(self.at_addresses(host, place));
        }
        if let Some(chain) = all {
            let loopback = LOOPBACK.parse().expect("a constant interface");
            let elsewhere = Match::Interface(place.bound, Op::IsNot, Interface::Named(loopback));
            rules.push(Rule::when([elsewhere], Action::Goto(chain)));
        }
        rules
    }

    /// Leads the node's own traffic at some addresses to the chain of the endpoint that names them.
    fn at_addresses(&mut self, host: &Object<HostEndpoint>, place: Place) -> Vec<Rule> {
        let Some(chain) = self.host_chain(host, place) else { return Vec::new() };
        let local = match place.direction {
            PolicyType::Ingress => End::Destination,
            PolicyType::Egress => End::Source,
        };
        let cidrs: Vec<Cidr> = host.spec.expected_ips.iter().copied().map(Cidr::host).collect();
        let mut rules = Vec::new();
        for family in Family::ALL {
            let own: Vec<Cidr> = cidrs.iter().copied().filter(|net| net.family() == family).collect();
            if address_set(own.clone(), family).elements.is_empty() {
                continue;
            }
            let set = self.sets.networks(&own, family);
            let matches = [Match::Family(family), Match::InSet(local, family, Op::Is, set)];
            rules.push(Rule::when(matches, Action::Goto(chain.clone())));
        }
        rules
    }

    fn accept_chain(&mut self) -> ChainName {
        let name = ChainName::fixed("accept");
        self.chain(&name, vec![Rule::always(Action::Accept)]);
        name
    }

    /// Makes an endpoint's chain of a stage; `None` when the endpoint lets everything go on to the next.
    fn host_chain(&mut self, host: &Object<HostEndpoint>, place: Place) -> Option<ChainName> {
        let Place { stage, direction, .. } = place;
        let tiers = self.locals.tiers(self.snapshot, &host.key());
        let tiers = active_of_selecting(&tiers, direction, stage);
        let is_last = matches!(stage, Stage::Normal | Stage::Translated);
        if !is_last && tiers.is_empty() {
            return None;
        }
        let way = if direction == PolicyType::Ingress { Way::In } else { Way::Out };
        let (stops, kind) = match stage {
            Stage::Normal | Stage::Translated => {
                let chains = self.tier_and_profile_chains(direction, stage, &tiers, &host.spec.profiles);
                let late = stage == Stage::Translated;
                (chains, if late { "late-host" } else { word(direction, "in-host", "out-host") })
            }
            Stage::Forward => {
                (self.tiers(direction, stage, &tiers), word(direction, "in-through", "out-through"))
            }
            Stage::PreDnat => (self.tiers(direction, stage, &tiers), "pre-host"),
            Stage::Untracked => (self.tiers(direction, stage, &tiers), word(direction, "in-raw", "out-raw")),
        };
        let name = ChainName::digest(kind, stops.iter().map(ChainName::as_str));
        let mut rules = Vec::new();
        if stage != Stage::Untracked {
            rules.extend([self.going_on([]), self.not_going_on(self.deny_in(stage))]);
        }
        if stage != Stage::Forward {
            rules.extend(self.failsafes(way));
            rules.extend(self.essentials_of_hosts(way));
        }
        if stage == Stage::Untracked {
            rules.extend(self.failsafe_replies(way));
        }
        rules.extend(stops.into_iter().map(|chain| Rule::always(Action::Jump(chain))));
        let denies = tiers.iter().any(|tier| decides_all(tier, direction));
        if is_last || stage.decides() && denies {
            rules.push(Rule::always(self.deny_in(stage)));
        }
        self.chain(&name, rules);
        Some(name)
    }

    fn tiers(&mut self, direction: PolicyType, stage: Stage, tiers: &[ActiveTier<'_, '_>]) -> Vec<ChainName> {
        let mut chains = Vec::new();
        for tier in tiers {
            chains.push(self.tier_chain(direction, stage, tier));
            if stage.decides() && decides_all(tier, direction) {
                break;
            }
        }
        chains
    }
}
