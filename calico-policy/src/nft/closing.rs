//! What becomes of rules that the kernel refuses: the chain at fault drops everything, and all else is in force.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use nix::libc;

use super::Operation;
use crate::delta::Delta;
use crate::output::{Part, parts};
use crate::ruleset::{Action, Chain, ChainKind, ChainName, Rule, Ruleset, SetName};

/// A chain that does not hold what it should, as the kernel refuses that. It drops everything; one that only translates addresses is
/// left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The chain.
    pub chain: ChainName,
    /// What the kernel refuses, as nft text.
    pub operation: String,
    /// What the kernel says.
    pub why: String,
}

/// An operation that the kernel refused.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) errno: i32,
    /// The operation as nft text; `None` when the kernel does not say which.
    pub(super) operation: Option<String>,
    pub(super) at: Option<At>,
}

/// What an operation that makes something is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    Chain(ChainName),
    /// A set or a map.
    Set(SetName),
}

impl At {
    pub(super) fn of(operation: &Operation) -> Option<Self> {
        match operation {
            Operation::AddRule(chain, _) | Operation::AddChain(chain, _) => Some(Self::Chain(chain.clone())),
            Operation::AddSet(name, ..)
            | Operation::AddMap(name, _)
            | Operation::AddElements(name, _)
            | Operation::AddMapElements(name, _) => Some(Self::Set(name.clone())),
            Operation::DeleteTable
            | Operation::AddTable
            | Operation::FlushSet(_)
            | Operation::DeleteElements(..)
            | Operation::Settle
            | Operation::FlushChain(_)
            | Operation::DeleteMapElements(..)
            | Operation::DeleteChain(_)
            | Operation::DeleteSet(_)
            | Operation::DeleteMap(_) => None,
        }
    }
}

/// What is closed.
#[derive(Debug, Default)]
pub(super) struct Closed {
    chains: BTreeMap<ChainName, Refused>,
    /// The sets and maps that are left out, with the rules that look at them.
    sets: BTreeSet<SetName>,
}

impl Closed {
    pub(super) fn chains(&self) -> impl Iterator<Item = &Refused> {
        self.chains.values()
    }

    /// Reports whether changes can be written that are planned without regard to what is closed.
    pub(super) fn takes_changes(&self) -> bool {
        self.sets.is_empty()
    }

    /// Forgets the chains that were written as they should be, or removed.
    pub(super) fn forget(&mut self, delta: &Delta) {
        let Delta { before, after, .. } = delta;
        self.chains.retain(|name, _| !before.chains.contains_key(name) && !after.chains.contains_key(name));
    }

    /// Returns a ruleset with what is closed.
    pub(super) fn close<'r>(&self, desired: &'r Ruleset) -> Cow<'r, Ruleset> {
        if self.chains.is_empty() && self.sets.is_empty() {
            return Cow::Borrowed(desired);
        }
        let mut closed = desired.clone();
        closed.chains.retain(|name, chain| !self.chains.contains_key(name) || chain.base.is_none());
        for name in self.chains.keys() {
            if let Some(chain) = closed.chains.get_mut(name) {
                chain.rules = vec![Rule::always(Action::Drop)];
            }
        }
        closed.sets.retain(|name, _| !self.sets.contains(name));
        closed.maps.retain(|name, _| !self.sets.contains(name));
        Cow::Owned(closed)
    }

    /// Closes what the kernel found fault with. Returns whether there was anything more to close: a chain that all packets of a
    /// hook pass is not closed, since the node itself would be cut off.
    pub(super) fn add(&mut self, desired: &Ruleset, faults: &[Fault]) -> bool {
        let before = self.chains.len();
        for fault in faults.iter().filter(|fault| !is_passing(fault.errno)) {
            match &fault.at {
                Some(At::Chain(name)) => {
                    if let Some(chain) = desired.chains.get(name) {
                        self.add_chain(name, chain, fault);
                    }
                }
                Some(At::Set(set)) => self.add_set(desired, set, fault),
                None => {}
            }
        }
        self.chains.len() > before
    }

    fn add_set(&mut self, desired: &Ruleset, set: &SetName, fault: &Fault) {
        let looks = |chain: &Chain| {
            parts(&chain.rules).any(|part| matches!(part, Part::Set(name) | Part::Map(name) if name == *set))
        };
        let looking: Vec<_> = desired.chains.iter().filter(|(_, chain)| looks(chain)).collect();
        if looking.iter().all(|(_, chain)| can_be_closed(chain)) {
            looking.into_iter().for_each(|(name, chain)| self.add_chain(name, chain, fault));
            self.sets.insert(set.clone());
        }
    }

    fn add_chain(&mut self, name: &ChainName, chain: &Chain, fault: &Fault) {
        if can_be_closed(chain) && !self.chains.contains_key(name) {
            let refused = Refused {
                chain: name.clone(),
                operation: fault.operation.clone().unwrap_or_default(),
                why: std::io::Error::from_raw_os_error(fault.errno).to_string(),
            };
            self.chains.insert(name.clone(), refused);
        }
    }
}

fn can_be_closed(chain: &Chain) -> bool {
    chain.base.is_none_or(|base| base.kind == ChainKind::Nat)
}

/// Reports whether an error is of the moment, or of the whole, and not of what was refused.
fn is_passing(errno: i32) -> bool {
    matches!(errno, libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EINTR | libc::EPERM)
}
