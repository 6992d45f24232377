//! From what is known to what a node's kernel should hold.
//!
//! The stages of a packet's way, in order. A packet has to be accepted by each stage that it meets:
//!
//! | hook        | stage                    | what it decides                                                        |
//! |-------------|--------------------------|------------------------------------------------------------------------|
//! | prerouting  | `cali-source`            | a workload sends from its own addresses only, and nobody to loopback     |
//! | prerouting  | `cali-raw-in`            | host endpoints' untracked ingress policy                                |
//! | prerouting  | `cali-pre-dnat`          | host endpoints' pre-DNAT policy                                         |
//! | prerouting  | `cali-egress`            | the sending workload's egress policy                                    |
//! | input       | `cali-input-host`        | tunnel packets, workload to host, host endpoints' ingress policy        |
//! | forward     | `cali-forward-to`        | the receiving workload's ingress policy                                 |
//! | forward     | `cali-forward-host-in`   | what host endpoints let through on its way in                           |
//! | forward     | `cali-forward-host-out`  | what host endpoints let through on its way out                          |
//! | forward     | `cali-services`          | nothing goes to an address of services that no service has              |
//! | output      | `cali-raw-out`           | host endpoints' untracked egress policy                                 |
//! | output      | `cali-output`            | host to own workload, tunnel packets, host endpoints' egress policy     |
//! | postrouting | `cali-output-late`       | the same egress policy, of what the host sends to translated destinations |
//! | postrouting | `cali-postrouting`       | whether the source is translated                                        |
//!
//! The stages of host endpoints exist only where there is a host endpoint for them, and the last only where a pool asks for it.
//!
//! An interface that is named like a workload's and is none of the node's workloads' is dropped in every stage but the last two:
//! what the node itself sends through a service to where no endpoint is known yet is let pass, as it would be once it is known.

mod endpoint;
mod failsafe;
mod guard;
mod host;
mod machine;
mod workload;

pub(crate) use failsafe::{HOST_ICMPV6, inbound, outbound};
pub(crate) use machine::Machine;
pub(crate) use workload::{ESSENTIAL_ICMPV6, LINK_LOCAL_SOURCES, link_groups, loopback_addresses};

use std::collections::{BTreeMap, BTreeSet};

use calico_model::resource::felix::{DenyAction, LoopPrevention, NatExclusions};
use calico_model::resource::{AllowedUse, FelixConfiguration, ResourceKey};
use calico_model::{Cidr, Family, InterfaceName, Name, NodeName, Protocol, Snapshot};

use crate::closed::Enforcers;
use crate::local::{LocalHosts, service_networks};
use crate::optimise::Layout;
use crate::packet::NewSource;
use crate::ruleset::{
    Action, Base, Bound, Chain, ChainKind, ChainName, Element, End, Hook, Interface, Match, Op, PortSet,
    Rule, Ruleset, Set, SetKind, SetName, VerdictMap, Warning,
};
use crate::sets::{Sets, address_set};
use guard::Guard;
use machine::{Dirty, Locals};

/// Returns what a node's kernel should hold.
///
/// It depends on nothing but its arguments, cannot fail, and gives equal results for equal arguments. What cannot be
/// enforced as it is meant is closed and listed in [`Ruleset::warnings`]. Whoever follows a datastore has it cheaper of a
/// [`Compiler`](crate::Compiler), which ends with the same.
#[must_use]
pub fn compile(snapshot: &Snapshot, node: &NodeName) -> Ruleset {
    compile_in(Layout::default(), snapshot, node)
}

/// Returns what a node's kernel should hold, laid out as asked. Every layout decides the same about every packet.
#[must_use]
pub fn compile_in(layout: Layout, snapshot: &Snapshot, node: &NodeName) -> Ruleset {
    let mut machine = Machine::new(node.clone(), layout);
    machine.learn(snapshot);
    machine.settle(snapshot);
    machine.into_ruleset()
}

/// Returns what a node's kernel should hold where others enforce what rules alone cannot.
#[must_use]
pub fn compile_with(enforcers: Enforcers, snapshot: &Snapshot, node: &NodeName) -> Ruleset {
    let mut machine = Machine::new(node.clone(), Layout::default());
    machine.enforcers = enforcers;
    machine.learn(snapshot);
    machine.settle(snapshot);
    machine.into_ruleset()
}

/// One pass over what changed.
struct Compilation<'c> {
    snapshot: &'c Snapshot,
    layout: Layout,
    enforcers: Enforcers,
    felix: &'c FelixConfiguration,
    prefixes: &'c [InterfaceName],
    locals: &'c Locals,
    dirty: &'c Dirty,
    /// Sets that have become others: what looks at them is made anew.
    renamed: &'c BTreeSet<SetName>,
    sets: &'c mut Sets,
    guards: &'c mut BTreeMap<InterfaceName, Guard>,
    /// Those of which not all can be guarded as it was meant.
    warned: &'c mut BTreeSet<InterfaceName>,
    /// What cannot be enforced, by the chain that would.
    warnings: &'c mut BTreeMap<ChainName, BTreeSet<Warning>>,
    /// The policies or the profile that each shared chain comes of.
    origins: &'c mut BTreeMap<ChainName, Vec<ResourceKey>>,
    /// The shared chains that were made in this pass.
    made: BTreeSet<ChainName>,
    /// The base chains that were made in this pass.
    bases: BTreeSet<ChainName>,
}

/// The place of conntrack-dependent filters.
const FILTER: i32 = 0;
/// Before connection tracking.
const RAW: i32 = -300;
/// After connection tracking, before the translation of destinations.
const MANGLE: i32 = -150;
/// After the source translation of Service proxies, which is at 100.
const AFTER_SERVICES: i32 = 110;

impl Compilation<'_> {
    fn base(&mut self, words: &str, kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) {
        let name = ChainName::fixed(words);
        self.sets.put_chain(&name, Chain { base: Some(Base { kind, hook, priority }), rules });
        self.bases.insert(name);
    }

    fn filter(&mut self, words: &str, hook: Hook, stage: i32, rules: Vec<Rule>) {
        self.base(words, ChainKind::Filter, hook, FILTER + stage, rules);
    }

    fn chain(&mut self, name: &ChainName, rules: Vec<Rule>) {
        self.sets.put_chain(name, Chain { base: None, rules });
    }

    /// How the table `filter` denies. What comes before connection tracking and translation drops: nobody answers there.
    fn deny(&self) -> Action {
        match self.felix.filter_deny_action() {
            DenyAction::Drop => Action::Drop,
            DenyAction::Reject => Action::Reject,
        }
    }

    /// Makes one rule for each prefix of workloads' interfaces.
    fn for_workload_interfaces(&self, bound: Bound, matches: &[Match], action: &Action) -> Vec<Rule> {
        self.prefixes
            .iter()
            .map(|prefix| {
                let interface = Match::Interface(bound, Op::Is, Interface::Prefix(prefix.clone()));
                Rule::when([&[interface][..], matches].concat(), action.clone())
            })
            .collect()
    }

    /// Drops what is forwarded to services' addresses and belongs to no service: a router would only send it back.
    fn service_loops(&mut self) {
        let networks = service_networks(self.snapshot, self.felix);
        let action = match self.felix.service_loop_prevention {
            Some(LoopPrevention::Reject) => Action::Reject,
            Some(LoopPrevention::Drop | LoopPrevention::Disabled) | None => Action::Drop,
        };
        let mut rules = Vec::new();
        for family in Family::ALL {
            let own = networks.iter().copied().filter(|net| net.family() == family);
            let set = Set::networks(family, own);
            if !set.elements.is_empty() {
                let name = self.sets.fixed(family_word(family, "services-v4", "services-v6"), set);
                let matches = [Match::Family(family), Match::InSet(End::Destination, family, Op::Is, name)];
                rules.push(Rule::when(matches, action.clone()));
            }
        }
        if !rules.is_empty() {
            self.filter("services", Hook::Forward, 4, rules);
        }
    }

    /// Returns by which interfaces translated packets leave: by any, unless one is named, or how its name begins. `None` when
    /// no interface can have the name.
    fn outgoing(&self) -> Option<Vec<Match>> {
        let wanted = self.felix.iptables_nat_outgoing_interface_filter.as_deref().unwrap_or("+");
        let interface = match wanted.strip_suffix('+') {
            Some("") => return Some(Vec::new()),
            Some(prefix) => Interface::Prefix(prefix.parse().ok()?),
            None => Interface::Named(wanted.parse().ok()?),
        };
        Some(vec![Match::Interface(Bound::Out, Op::Is, interface)])
    }

    /// Masks the sources of pools that ask for it, on the way to what is in no pool.
    fn source_nat(&mut self) {
        let mut rules = Vec::new();
        let outgoing = self.outgoing();
        for family in Family::ALL {
            let pools = self.snapshot.pools.values().map(|pool| &pool.spec);
            let inside: Vec<_> = pools.filter(|pool| pool.cidr.family() == family).collect();
            let masked: Vec<Cidr> =
                inside.iter().filter(|pool| pool.nat_outgoing).map(|pool| pool.cidr).collect();
            let Some(outgoing) = outgoing.clone().filter(|_| !masked.is_empty()) else { continue };
            let network = inside.iter().filter(|pool| pool.allowed_uses != [AllowedUse::LoadBalancer]);
            let mut kept: Vec<Cidr> = network.map(|pool| pool.cidr).collect();
            if self.felix.nat_outgoing_exclusions == Some(NatExclusions::PoolsAndHosts) {
                let addrs = self.snapshot.nodes.values().filter_map(|node| node.spec.addr(family));
                kept.extend(addrs.map(|addr| Cidr::host(addr.addr())));
            }
            let all = Set::networks(family, kept);
            let from =
                self.sets.fixed(family_word(family, "masq-v4", "masq-v6"), Set::networks(family, masked));
            let to = self.sets.fixed(family_word(family, "pools-v4", "pools-v6"), all);
            let mut matches = vec![
                Match::Family(family),
                Match::InSet(End::Source, family, Op::Is, from),
                Match::InSet(End::Destination, family, Op::IsNot, to),
            ];
            matches.extend(outgoing);
            if let Some(bound) = NewSource::bound(self.felix, family) {
                for protocol in NewSource::BOUND {
                    let matches = [&matches[..], &[Match::Protocol(Op::Is, protocol)]].concat();
                    rules.push(Rule::when(matches, Action::SourceNat(bound)));
                }
            }
            rules.push(Rule::when(matches, Action::SourceNat(NewSource::of(self.felix, family))));
        }
        // With a chain of this kind every packet passes the kernel's address translation twice, whatever is in it.
        if !rules.is_empty() {
            self.base("postrouting", ChainKind::Nat, Hook::Postrouting, AFTER_SERVICES, rules);
        }
    }
}

/// IP in IP, as protocol number.
pub(crate) const IPIP: Protocol = Protocol::from_number(4);

fn family_word(family: Family, v4: &'static str, v6: &'static str) -> &'static str {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

fn node_addresses(snapshot: &Snapshot, family: Family) -> Set {
    let addrs = snapshot.nodes.values().filter_map(|node| node.spec.addr(family));
    address_set(addrs.map(|addr| Cidr::host(addr.addr())).collect(), family)
}
