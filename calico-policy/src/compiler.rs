//! The compiler that follows a datastore: what a change costs depends on what changed.

use std::collections::BTreeSet;

use calico_model::resource::ResourceKey;
use calico_model::{NodeName, Snapshot, Update};

use crate::closed::Enforcers;
use crate::compile::Machine;
use crate::delta::Delta;
use crate::flow::FlowJudge;
use crate::optimise::Layout;
use crate::ruleset::{ChainName, Ruleset};

/// Compiles what is known, as it changes.
///
/// After any updates, in whatever order and grouping they came, its ruleset equals what [`compile`](crate::compile()) makes of
/// the same snapshot. An update of an endpoint asks only the selectors that look at its labels; a chain is made anew when
/// something that it is made of changed; sets and chains are shared by all that use them.
///
/// ```
/// use calico_model::resource::{GlobalNetworkSet, Object};
/// use calico_model::Update;
/// use calico_policy::{Changes, Compiler};
///
/// let mut compiler = Compiler::new("node-1".parse()?);
/// assert_eq!(compiler.changes(), Changes::Everything);
/// let set = Object::new("anybody".parse()?, GlobalNetworkSet { nets: vec!["192.0.2.0/24".parse()?] });
/// compiler.apply(Update::Put(Box::new(set.into())));
/// let Changes::Only(delta) = compiler.changes() else { unreachable!("it was asked before") };
/// assert!(delta.is_empty(), "no rule asks for it");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Compiler {
    snapshot: Snapshot,
    machine: Machine,
}

/// What changed since somebody last asked.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Nobody asked before: all of [`Compiler::ruleset`] is new.
    Everything,
    /// This, which may be nothing.
    Only(Delta),
}

impl Compiler {
    /// Makes a compiler for a node, of which nothing is known yet.
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self { snapshot: Snapshot::default(), machine: Machine::new(node, Layout::default()) }
    }

    /// Says who else enforces what rules alone cannot, before anything is learned.
    #[must_use]
    pub fn with_enforcers(mut self, enforcers: Enforcers) -> Self {
        self.machine.enforcers = enforcers;
        self
    }

    /// Learns one change.
    pub fn apply(&mut self, update: Update) {
        let key = key(&update);
        self.snapshot.apply(update);
        if let Some(key) = key {
            self.machine.note(&self.snapshot, &key);
        }
    }

    /// Returns all that is known.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Returns what the node's kernel should hold.
    pub fn ruleset(&mut self) -> &Ruleset {
        self.machine.settle(&self.snapshot);
        self.machine.sets.out.ruleset()
    }

    /// Returns the policies and profiles whose rules lead to a chain of the ruleset, as it was last asked for: none when all
    /// have it in common.
    #[must_use]
    pub fn behind(&self, chain: &ChainName) -> BTreeSet<&ResourceKey> {
        self.machine.origins(chain)
    }

    /// Returns a judge of live flows by the node's rules; `None` when flows go on to their end (`flowReevaluation`).
    pub fn flow_judge(&mut self) -> Option<FlowJudge<'_>> {
        self.machine.settle(&self.snapshot);
        let wanted = self.snapshot.felix_configuration(self.machine.node()).reevaluates_flows();
        let ruleset = self.machine.sets.out.ruleset();
        wanted.then(|| FlowJudge::new(&self.snapshot, self.machine.node().clone(), ruleset))
    }

    /// Returns what changed in the ruleset since this was last called.
    pub fn changes(&mut self) -> Changes {
        self.machine.settle(&self.snapshot);
        self.machine.sets.out.take_delta().map_or(Changes::Everything, Changes::Only)
    }
}

/// Returns what an update is about, if rules are made of such things.
fn key(update: &Update) -> Option<ResourceKey> {
    match update {
        Update::Put(resource) => Some(resource.key()),
        Update::Removed(key) | Update::Invalid { key, .. } => Some(key.clone()),
        Update::PutBlock(_) | Update::RemovedBlock(_) | Update::InvalidBlock { .. } | Update::InSync | _ => {
            None
        }
    }
}
