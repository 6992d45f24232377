//! Which changes of a datastore a node's plan depends on.

use std::collections::{BTreeMap, BTreeSet};

use calico_model::name::NodeName;
use calico_model::resource::block::StoredBlock;
use calico_model::resource::{Kind, Object, Resource, ResourceKey, WorkloadEndpoint};
use calico_model::{Cidr, Update};

/// Follows a datastore for one node, and tells the changes after which its [plan](super::plan) may be another from those
/// that are nothing to it: workloads and blocks of other nodes, of which a large cluster changes many each second, policy,
/// and what no decision of a node is made from.
#[derive(Debug, Clone)]
pub struct Concerns {
    node: NodeName,
    /// The addresses of the node's workloads.
    workloads: BTreeMap<ResourceKey, Vec<Cidr>>,
    blocks: BTreeSet<Cidr>,
}

impl Concerns {
    /// Begins with a datastore in which there is nothing.
    #[must_use]
    pub fn of(node: NodeName) -> Self {
        Self { node, workloads: BTreeMap::new(), blocks: BTreeSet::new() }
    }

    /// Takes in a change; reports whether the plan may be another after it.
    pub fn has(&mut self, update: &Update) -> bool {
        match update {
            Update::Put(resource) => self.put(resource),
            Update::Removed(key) if key.kind == Kind::WorkloadEndpoint => {
                self.workloads.remove(key).is_some()
            }
            Update::Removed(key) => bears_on_plans(key.kind),
            Update::Invalid { closed, .. } => {
                if let Some(closed) = closed {
                    self.put(closed);
                }
                true
            }
            Update::PutBlock(block) => self.block(block),
            Update::RemovedBlock(cidr) => self.blocks.remove(cidr) | self.has_workload_in(cidr),
            Update::InvalidBlock { .. } | Update::InSync => true,
            _ => true,
        }
    }

    fn put(&mut self, resource: &Resource) -> bool {
        if let Resource::WorkloadEndpoint(workload) = resource {
            self.workload(workload)
        } else {
            bears_on_plans(resource.kind())
        }
    }

    fn workload(&mut self, workload: &Object<WorkloadEndpoint>) -> bool {
        let was_here = self.workloads.remove(&workload.key()).is_some();
        let is_here = workload.spec.node == self.node;
        if is_here {
            self.workloads.insert(workload.key(), workload.spec.ip_networks.clone());
        }
        was_here || is_here
    }

    fn block(&mut self, block: &StoredBlock) -> bool {
        let was_ours = self.blocks.remove(&block.cidr);
        let is_ours = block.host() == Some(&self.node);
        if is_ours {
            self.blocks.insert(block.cidr);
        }
        was_ours || is_ours || self.has_workload_in(&block.cidr)
    }

    fn has_workload_in(&self, block: &Cidr) -> bool {
        self.workloads.values().flatten().any(|network| block.covers(network))
    }
}

fn bears_on_plans(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::BlockAffinity
            | Kind::CalicoNodeStatus
            | Kind::GlobalNetworkPolicy
            | Kind::GlobalNetworkSet
            | Kind::HostEndpoint
            | Kind::IpamBlock
            | Kind::IpamConfiguration
            | Kind::IpamHandle
            | Kind::KubeControllersConfiguration
            | Kind::NetworkPolicy
            | Kind::NetworkSet
            | Kind::StagedGlobalNetworkPolicy
            | Kind::StagedKubernetesNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::Tier
    )
}

#[cfg(test)]
mod tests {
    use calico_model::Snapshot;
    use calico_model::name::Name;
    use calico_model::resource::{BgpConfiguration, IpPool, NetworkSet, Node, NodeBgp, ObjectId};
    use proptest::prelude::*;

    use super::super::{Secrets, plan};
    use super::*;

    const NODES: [&str; 2] = ["node1", "node2"];
    const BLOCKS: [&str; 2] = ["10.0.0.0/26", "10.0.0.64/26"];
    const ADDRESSES: [&str; 3] = ["10.0.0.1/32", "10.0.0.65/32", "10.0.0.66/32"];

    fn workload(name: &str, node: &str, address: &str) -> Object<WorkloadEndpoint> {
        let mut object = Object::new(name.parse().unwrap(), WorkloadEndpoint::on(node.parse().unwrap()));
        object.metadata.namespace = Some("default".parse().unwrap());
        object.spec.ip_networks = vec![address.parse().unwrap()];
        object
    }

    fn put(resource: impl Into<Resource>) -> Update {
        Update::Put(Box::new(resource.into()))
    }

    fn removed(kind: Kind, name: &str) -> Update {
        let name: Name = name.parse().unwrap();
        Update::Removed(ResourceKey { kind, id: ObjectId::from(name) })
    }

    fn update() -> impl Strategy<Value = Update> {
        let of = proptest::sample::select::<&'static str>;
        let name = || of(&["a", "b", "c"][..]);
        let node = || of(&NODES[..]);
        let block = || of(&BLOCKS[..]);
        prop_oneof![
            (name(), node(), of(&ADDRESSES[..])).prop_map(|(name, node, at)| put(workload(name, node, at))),
            name().prop_map(|name| Update::Removed(workload(name, NODES[0], ADDRESSES[0]).key())),
            (block(), node()).prop_map(|(block, node)| {
                Update::PutBlock(Box::new(StoredBlock::on(block.parse().unwrap(), node.parse().unwrap())))
            }),
            block().prop_map(|block| Update::RemovedBlock(block.parse().unwrap())),
            (node(), any::<bool>()).prop_map(|(node, has_address)| {
                let bgp = has_address.then(|| NodeBgp::at("172.16.0.1/24".parse().unwrap()));
                put(Object::new(node.parse().unwrap(), Node { bgp, ..Node::new() }))
            }),
            any::<bool>().prop_map(|export| {
                let mut pool = IpPool::new("10.0.0.0/16".parse().unwrap());
                pool.disable_bgp_export = !export;
                put(Object::new("pool".parse().unwrap(), pool))
            }),
            any::<bool>().prop_map(|mesh| {
                let mesh = Some(mesh);
                let spec = BgpConfiguration { node_to_node_mesh_enabled: mesh, ..BgpConfiguration::new() };
                put(Object::new("default".parse().unwrap(), spec))
            }),
            (proptest::sample::select(Kind::ALL), name()).prop_map(|(kind, name)| removed(kind, name)),
        ]
    }

    proptest! {
        #[test]
        fn a_plan_that_is_made_anew_when_it_is_concerned_is_always_the_one_of_the_snapshot(
            updates in proptest::collection::vec(update(), 1..40),
        ) {
            let node: NodeName = NODES[0].parse().unwrap();
            let (mut snapshot, mut concerns) = (Snapshot::default(), Concerns::of(node.clone()));
            let mut held = plan(&snapshot, &node, &Secrets::default());
            for update in updates {
                let is_concerned = concerns.has(&update);
                snapshot.apply(update.clone());
                let now = plan(&snapshot, &node, &Secrets::default());
                if is_concerned {
                    held = now.clone();
                }
                prop_assert_eq!(&held, &now, "after {:?}", update);
            }
        }
    }

    #[test]
    fn what_other_nodes_do_is_nothing_to_a_plan() {
        let mut concerns = Concerns::of(NODES[0].parse().unwrap());
        assert!(concerns.has(&put(workload("a", NODES[0], ADDRESSES[0]))));
        assert!(!concerns.has(&put(workload("b", NODES[1], ADDRESSES[1]))));
        let block = |network: &str, node: &str| {
            Update::PutBlock(Box::new(StoredBlock::on(network.parse().unwrap(), node.parse().unwrap())))
        };
        assert!(concerns.has(&block(BLOCKS[0], NODES[1])), "the first workload's address is in it");
        assert!(!concerns.has(&block(BLOCKS[1], NODES[1])));
        let set = NetworkSet { nets: Vec::new() };
        let mut set = Object::new("set".parse().unwrap(), set);
        set.metadata.namespace = Some("default".parse().unwrap());
        assert!(!concerns.has(&put(set)));
        let never_read = [
            Kind::BlockAffinity,
            Kind::CalicoNodeStatus,
            Kind::IpamBlock,
            Kind::IpamConfiguration,
            Kind::IpamHandle,
            Kind::KubeControllersConfiguration,
        ];
        for kind in never_read {
            assert!(!concerns.has(&removed(kind, "a")), "{kind}");
        }
    }
}
