//! From what is known to what a node's kernel should hold.
//!
//! The stages of a packet's way, in order. A packet has to be accepted by each stage that it meets:
//!
//! | hook        | stage                    | what it decides                                                        |
//! |-------------|--------------------------|------------------------------------------------------------------------|
//! | prerouting  | `cali-source`            | a workload sends from its own addresses only                            |
//! | input       | `cali-input-workload`    | the sending workload's egress policy                                    |
//! | input       | `cali-input-host`        | tunnel packets, workload to host, host endpoints' ingress policy        |
//! | forward     | `cali-forward-from`      | the sending workload's egress policy                                    |
//! | forward     | `cali-forward-to`        | the receiving workload's ingress policy                                 |
//! | output      | `cali-output`            | host to own workload, host endpoints' egress policy                     |
//! | postrouting | `cali-postrouting`       | whether the source is translated                                        |
//!
//! An interface that is named like a workload's and is none of the node's workloads' is dropped in every stage.

mod endpoint;
mod workload;

pub(crate) use workload::{ESSENTIAL_ICMPV6, LINK_LOCAL_SOURCES};

use std::collections::{BTreeMap, BTreeSet};

use calico_model::resource::{AllowedUse, EncapMode, EndpointToHostAction, FelixConfiguration, ResourceKey};
use calico_model::{Cidr, Family, NodeName, Protocol, Snapshot};

use crate::local::{LocalWorkload, local_workloads, prefixes};
use crate::members::Members;
use crate::order::{OrderedTier, tiers};
use crate::ruleset::{
    Action, Base, Bound, Chain, ChainKind, ChainName, Element, End, Hook, Interface, Match, Op, PortSet,
    Rule, Ruleset, Set, SetKind, SetName, VerdictMap, Warning,
};
use crate::sets::{SetTable, address_set};

/// Returns what a node's kernel should hold.
///
/// It depends on nothing but its arguments, cannot fail, and gives equal results for equal arguments. What cannot be
/// enforced as it is meant is closed and listed in [`Ruleset::warnings`].
#[must_use]
pub fn compile(snapshot: &Snapshot, node: &NodeName) -> Ruleset {
    let members = Members::of(snapshot);
    let tiers = tiers(snapshot);
    let felix = snapshot.felix_configuration(node);
    let workloads = local_workloads(snapshot, node, &prefixes(&felix));
    let mut compiler = Compilation {
        snapshot,
        felix,
        tiers: &tiers,
        sets: SetTable::new(&members),
        maps: BTreeMap::new(),
        chains: BTreeMap::new(),
        warnings: BTreeSet::new(),
    };
    let shadowed = workloads.shadowed.into_iter().map(|endpoint| Warning::SharedInterface { endpoint });
    let misnamed = workloads.misnamed.into_iter().map(|endpoint| Warning::MisnamedInterface { endpoint });
    compiler.warnings.extend(shadowed.chain(misnamed));
    compiler.workloads(&workloads.guarded);
    compiler.host();
    compiler.source_nat();
    Ruleset {
        sets: compiler.sets.finish(),
        maps: compiler.maps,
        chains: compiler.chains,
        warnings: compiler.warnings,
    }
}

/// A ruleset being made.
struct Compilation<'c, 's> {
    snapshot: &'s Snapshot,
    felix: FelixConfiguration,
    tiers: &'c [OrderedTier<'s>],
    sets: SetTable<'c, 's>,
    maps: BTreeMap<SetName, VerdictMap>,
    chains: BTreeMap<ChainName, Chain>,
    warnings: BTreeSet<Warning>,
}

/// The place of conntrack-dependent filters.
const FILTER: i32 = 0;
/// Before connection tracking.
const RAW: i32 = -300;
/// After the source translation of Service proxies, which is at 100.
const AFTER_SERVICES: i32 = 110;

impl Compilation<'_, '_> {
    fn base(&mut self, words: &str, kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) {
        let base = Some(Base { kind, hook, priority });
        self.chains.insert(ChainName::fixed(words), Chain { base, rules });
    }

    fn filter(&mut self, words: &str, hook: Hook, stage: i32, rules: Vec<Rule>) {
        self.base(words, ChainKind::Filter, hook, FILTER + stage, rules);
    }

    fn chain(&mut self, name: ChainName, rules: Vec<Rule>) {
        self.chains.insert(name, Chain { base: None, rules });
    }

    /// Makes one rule for each prefix of workloads' interfaces.
    fn for_workload_interfaces(&self, bound: Bound, matches: &[Match], action: &Action) -> Vec<Rule> {
        prefixes(&self.felix)
            .into_iter()
            .map(|prefix| {
                let interface = Match::Interface(bound, Op::Is, Interface::Prefix(prefix));
                Rule::when([&[interface][..], matches].concat(), action.clone())
            })
            .collect()
    }

    /// What the node itself takes and sends, beside what workloads' own policy says.
    fn host(&mut self) {
        let mut input = self.tunnel_rules();
        let to_host = match self.felix.default_endpoint_to_host_action.unwrap_or(EndpointToHostAction::Drop) {
            EndpointToHostAction::Drop => Action::Drop,
            // Beyond this table the rules of others decide in both cases.
            EndpointToHostAction::Accept | EndpointToHostAction::Return => Action::Accept,
        };
        input.extend(self.essentials());
        input.extend(self.for_workload_interfaces(Bound::In, &[Match::Established], &Action::Accept));
        input.extend(self.for_workload_interfaces(Bound::In, &[], &to_host));
        self.filter("input-host", Hook::Input, 1, input);
    }

    /// Takes tunnel packets from the cluster's nodes alone, as soon as some pool is encapsulated.
    fn tunnel_rules(&mut self) -> Vec<Rule> {
        let uses = |mode: fn(&calico_model::resource::IpPool) -> EncapMode| {
            self.snapshot.pools.values().any(|pool| mode(&pool.spec) != EncapMode::Never)
        };
        let (vxlan, ipip) = (uses(|pool| pool.vxlan_mode), uses(|pool| pool.ipip_mode));
        let mut rules = Vec::new();
        let mut guard = |matches: &[Match], nodes: &mut SetTable<'_, '_>, families: &[Family]| {
            for family in families {
                let set = node_addresses(self.snapshot, *family);
                let name = nodes.fixed(family_word(*family, "nodes-v4", "nodes-v6"), set);
                let known = Match::InSet(End::Source, *family, Op::Is, name);
                rules.push(Rule::when(
                    [&[Match::Family(*family), known][..], matches].concat(),
                    Action::Accept,
                ));
            }
            rules.push(Rule::when(matches, Action::Drop));
        };
        if vxlan {
            let port = self.felix.vxlan_port();
            let matches = [
                Match::Protocol(Op::Is, Protocol::UDP),
                Match::Port(End::Destination, Op::Is, PortSet::Range(port, port)),
            ];
            guard(&matches, &mut self.sets, &Family::ALL);
        }
        if ipip {
            guard(&[Match::Protocol(Op::Is, IPIP)], &mut self.sets, &[Family::V4]);
        }
        rules
    }

    /// Masks the sources of pools that ask for it, on the way to what is in no pool.
    fn source_nat(&mut self) {
        let mut rules = Vec::new();
        for family in Family::ALL {
            let pools = self.snapshot.pools.values().map(|pool| &pool.spec);
            let inside: Vec<_> = pools.filter(|pool| pool.cidr.family() == family).collect();
            let masked: Vec<Cidr> =
                inside.iter().filter(|pool| pool.nat_outgoing).map(|pool| pool.cidr).collect();
            if masked.is_empty() {
                continue;
            }
            let network = inside.iter().filter(|pool| pool.allowed_uses != [AllowedUse::LoadBalancer]);
            let all = Set::networks(family, network.map(|pool| pool.cidr));
            let from =
                self.sets.fixed(family_word(family, "masq-v4", "masq-v6"), Set::networks(family, masked));
            let to = self.sets.fixed(family_word(family, "pools-v4", "pools-v6"), all);
            let matches = [
                Match::Family(family),
                Match::InSet(End::Source, family, Op::Is, from),
                Match::InSet(End::Destination, family, Op::IsNot, to),
            ];
            rules.push(Rule::when(matches, Action::Masquerade));
        }
        self.base("postrouting", ChainKind::Nat, Hook::Postrouting, AFTER_SERVICES, rules);
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
