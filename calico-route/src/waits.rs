//! What has to wait for the machine, together.

use std::collections::{BTreeMap, BTreeSet};

use crate::compute::Delta;
use crate::resolve::Waiting;
use crate::route::RouteKey;

/// What has to wait for the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waits {
    /// What the node and its devices wait for.
    pub node: BTreeSet<Waiting>,
    /// What each route waits for.
    pub routes: BTreeMap<RouteKey, Waiting>,
}

impl Waits {
    /// Reports whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.node.is_empty() && self.routes.is_empty()
    }

    /// Walks what is waited for, each once.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.node.iter().chain(self.routes.values()).collect::<BTreeSet<_>>().into_iter()
    }

    /// Reports whether routes of other tables than the main one may end a wait.
    #[must_use]
    pub fn is_for_other_tables(&self) -> bool {
        self.routes.values().any(|waiting| matches!(waiting, Waiting::NotOnLink { .. }))
    }

    /// Takes over what routes wait for that a delta does not have.
    pub(crate) fn keep(&mut self, earlier: &Waits, delta: &Delta) {
        let kept = earlier.routes.iter().filter(|(key, _)| !delta.routes.contains(key));
        self.routes.extend(kept.map(|(key, waiting)| (*key, waiting.clone())));
    }
}
