//! Rules as data: what a node's kernel should hold, with no backend in it.
//!
//! Shaped like nftables: one table with base chains at hooks, chains that rules jump to, sets, and maps from an interface to
//! a chain. Everything has a stable name and a fixed order, so equal inputs give equal rulesets, byte for byte.
//!
//! A base chain is one *stage* of a packet's way. A packet that a stage accepts goes on to the next stage; one that a
//! stage drops is gone. So a workload's egress policy and another's ingress policy are two stages of one hook, and no
//! packet marks are needed to join them.

mod name;
mod rule;
mod set;

use std::collections::{BTreeMap, BTreeSet};

use calico_model::resource::ResourceKey;

#[cfg(any(feature = "nft", feature = "iptables"))]
pub(crate) use name::digest;
pub use name::{ChainName, SetName};
pub use rule::{Action, Bound, End, Interface, Match, Op, PortSet, Rule};
pub use set::{Element, Elements, Set, SetKind, VerdictMap};

/// Everything that a node's kernel should hold for policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The sets, by name.
    pub sets: BTreeMap<SetName, Set>,
    /// The maps from interfaces to chains, by name.
    pub maps: BTreeMap<SetName, VerdictMap>,
    /// The chains, by name.
    pub chains: BTreeMap<ChainName, Chain>,
    /// What could not be said as it was meant, and is closed instead.
    pub warnings: BTreeSet<Warning>,
}

/// A list of rules. A packet that reaches the end of it returns, or is accepted when the chain is a base chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets enter it by themselves; `None` for a chain that only rules lead to.
    pub base: Option<Base>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// Where packets enter a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Base {
    /// What the chain does.
    pub kind: ChainKind,
    /// The hook.
    pub hook: Hook,
    /// The place among the hook's chains, the lowest first.
    pub priority: i32,
}

/// What a base chain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainKind {
    /// It lets packets pass or drops them.
    Filter,
    /// It translates addresses, by the first packet of each flow.
    Nat,
}

/// A point in a packet's way through a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// It came in; nobody knows yet where it goes.
    Prerouting,
    /// It goes to the node itself.
    Input,
    /// It goes through.
    Forward,
    /// The node itself sent it.
    Output,
    /// It is about to leave.
    Postrouting,
}

/// Something that could not be said as it was meant and is closed instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Warning {
    /// A rule allows HTTP requests, which nothing here can tell from other traffic: it allows nothing.
    HttpRule {
        /// The policy or profile.
        policy: ResourceKey,
    },
    /// Two endpoints of the node claim one interface: the first by name has it.
    SharedInterface {
        /// The endpoint that is left without.
        endpoint: ResourceKey,
    },
    /// The name of an endpoint's interface does not begin as workloads' do: the endpoint is not guarded.
    MisnamedInterface {
        /// The endpoint.
        endpoint: ResourceKey,
    },
    /// A host endpoint names addresses and no interface: it guards the node's own traffic at those addresses, and nothing that
    /// the node forwards.
    HostWithoutInterface {
        /// The endpoint.
        endpoint: ResourceKey,
    },
}

/// How large a ruleset is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// The chains.
    pub chains: usize,
    /// The rules of all chains.
    pub rules: usize,
    /// The sets and maps.
    pub sets: usize,
    /// The elements of all sets and maps.
    pub elements: usize,
}

impl Ruleset {
    /// Counts what is in it.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let in_sets: usize = self.sets.values().map(|set| set.elements.len()).sum();
        let in_maps: usize = self.maps.values().map(|map| map.elements.len()).sum();
        Stats {
            chains: self.chains.len(),
            rules: self.chains.values().map(|chain| chain.rules.len()).sum(),
            sets: self.sets.len() + self.maps.len(),
            elements: in_sets + in_maps,
        }
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Warning::HttpRule { policy } => write!(
                f,
                "{} {} allows HTTP requests, which needs an application-layer enforcer: the rule allows nothing",
                policy.kind, policy.id
            ),
            Warning::SharedInterface { endpoint } => write!(
                f,
                "{} {} claims an interface that another endpoint of the node has: it is left without",
                endpoint.kind, endpoint.id
            ),
            Warning::HostWithoutInterface { endpoint } => write!(
                f,
                "{} {} names no interface: it guards the node's own traffic at its addresses, and nothing forwarded",
                endpoint.kind, endpoint.id
            ),
            Warning::MisnamedInterface { endpoint } => write!(
                f,
                "the interface of {} {} does not begin with one of interfacePrefix: it is not guarded",
                endpoint.kind, endpoint.id
            ),
        }
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Stats { chains, rules, sets, elements } = self;
        write!(f, "{chains} chains, {rules} rules, {sets} sets, {elements} elements")
    }
}
