//! From what is known to what is wanted on this node, change by change; but for rules, which a compiler keeps.

use std::sync::Arc;

use calico_bgp::peers::{self, Concerns, Plan, Secrets};
use calico_model::{Cidr, LearnedRoutes, NodeName, RouterId, Snapshot, Update};
use calico_route::encap::Source;
use calico_route::{Computer, Delta, Peering};

use crate::settings::Backend;

/// What is wanted on a node beside rules. It depends on what is known alone, not on the order in which that came.
#[derive(Debug, Clone)]
pub struct Desired {
    node: NodeName,
    backend: Backend,
    router_id: Option<RouterId>,
    routes: Computer,
    secrets: Secrets,
    bgp: Option<Plan>,
    concerns: Concerns,
    /// Whether the plan may be another by now.
    is_outdated: bool,
}

impl Desired {
    /// Makes what is wanted on a node of which nothing is known.
    #[must_use]
    pub fn new(node: NodeName, backend: Backend) -> Self {
        let routes = Computer::new(node.clone());
        let concerns = Concerns::of(node.clone());
        let (secrets, bgp) = (Secrets::default(), None);
        Self { routes, node, backend, router_id: None, secrets, bgp, concerns, is_outdated: true }
    }

    /// Makes the node known to its peers by an identifier; `None` is the one that follows from its Node.
    #[must_use]
    pub fn known_as(mut self, router_id: Option<RouterId>) -> Self {
        self.router_id = router_id;
        self
    }

    /// Takes in one change of the datastore.
    pub fn apply(&mut self, update: &Update) {
        self.routes.apply(update);
        self.is_outdated |= self.concerns.has(update);
    }

    /// Takes in the passwords that resources refer to.
    pub fn know(&mut self, secrets: Secrets) {
        self.is_outdated |= self.secrets != secrets;
        self.secrets = secrets;
    }

    /// Works out what is wanted of `snapshot`, of whose changes all were [applied](Desired::apply), and of what BGP has
    /// learned; says which routes and so on became different. What was learned ends with the speaker that learned it:
    /// without one nothing counts as learned.
    pub fn settle(&mut self, snapshot: &Snapshot, learned: Option<&Arc<LearnedRoutes>>) -> Delta {
        if std::mem::take(&mut self.is_outdated) {
            self.bgp = match self.backend {
                Backend::None => None,
                Backend::Bgp => peers::plan(snapshot, &self.node, &self.secrets),
            };
            if let (Some(plan), Some(router_id)) = (&mut self.bgp, self.router_id) {
                plan.speaker.router_id = router_id;
            }
        }
        self.routes.learn(learned.filter(|_| self.bgp.is_some()).cloned().unwrap_or_default());
        let peering = |plan: &Plan| Peering {
            gateways: plan.gateways.clone(),
            workloads: plan.workload_peering.clone(),
        };
        self.routes.peer(self.bgp.as_ref().map(peering).unwrap_or_default());
        self.routes.settle()
    }

    /// Returns where it goes.
    #[must_use]
    pub fn routes(&self) -> &calico_route::Desired {
        self.routes.desired()
    }

    /// Returns what says whether BGP may tell of a destination, which it does not where the datastore is the source of routes.
    pub fn may_be_learned(&self) -> impl Fn(&Cidr) -> bool {
        let source = self.routes.sources();
        move |destination| source(destination) != Some(Source::Datastore)
    }

    /// Returns who else is told; `None` when BGP is off or the node has no address to speak from.
    #[must_use]
    pub fn bgp(&self) -> Option<&Plan> {
        self.bgp.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use calico_model::learned::LearnedRoute;
    use calico_model::resource::{Node, NodeBgp, Object};

    use super::*;

    #[test]
    fn what_was_learned_ends_with_the_speaker_that_learned_it() {
        let hop = LearnedRoute { next_hops: ["172.16.6.249".parse().unwrap()].into(), priority: None };
        let learned = Arc::new(LearnedRoutes::from([("192.168.135.64/26".parse().unwrap(), hop)]));
        for (backend, routes) in [(Backend::Bgp, 1), (Backend::None, 0)] {
            let (mut snapshot, mut desired) =
                (Snapshot::default(), Desired::new("node1".parse().unwrap(), backend));
            let bgp = Some(NodeBgp::at("172.16.6.47/24".parse().unwrap()));
            let mut put = |desired: &mut Desired, bgp| {
                let node = Object::new("node1".parse().unwrap(), Node { bgp, ..Node::new() });
                let update = Update::Put(Box::new(node.into()));
                desired.apply(&update);
                snapshot.apply(update);
                desired.settle(&snapshot, Some(&learned));
            };
            put(&mut desired, bgp.clone());
            assert_eq!(desired.routes().routes.len(), routes);
            put(&mut desired, None);
            assert_eq!(desired.routes().routes.len(), 0);
            put(&mut desired, bgp);
            assert_eq!(desired.routes().routes.len(), routes);
        }
    }

    #[test]
    fn the_node_is_known_by_the_identifier_that_it_was_given() {
        let mut snapshot = Snapshot::default();
        let bgp = Some(NodeBgp::at("172.16.6.47/24".parse().unwrap()));
        snapshot.insert(Object::new("node1".parse().unwrap(), Node { bgp, ..Node::new() }));
        for (given, known) in [(None, "172.16.6.47"), (Some("10.9.8.7"), "10.9.8.7")] {
            let given = given.map(|id| id.parse().unwrap());
            let mut desired = Desired::new("node1".parse().unwrap(), Backend::Bgp).known_as(given);
            desired.settle(&snapshot, None);
            assert_eq!(desired.bgp().unwrap().speaker.router_id.to_string(), known);
        }
    }
}
