//! All that is known at one instant.
//!
//! A [`Snapshot`] is what every decision is made from. It is built by applying [`Update`]s, in whatever order and
//! grouping they come; the same final state of the datastore always gives the same snapshot.
//!
//! Of an object that does not validate the last good form stays in force. For one that was never good something stands in
//! that allows less (see [`Snapshot::apply`]). Both are listed in [`Snapshot::invalid`] until they are mended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::datastore::{Entry, Key};
use crate::label::Labels;
use crate::name::{Name, NodeName};
use crate::net::Cidr;
use crate::resource::block::{StoredBlock, block_from_key};
use crate::resource::{
    BgpConfiguration, BgpFilter, BgpPeer, ClusterInformation, DEFAULT_ALLOW_PROFILE, Document,
    FelixConfiguration, GlobalNetworkPolicy, GlobalNetworkSet, HostEndpoint, IpPool, IpReservation, Kind,
    KubernetesEndpointSlice, KubernetesService, NetworkPolicy, NetworkSet, Node, Object, ObjectId, Profile,
    Resource, ResourceKey, Spec, StagedGlobalNetworkPolicy, StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy, Tier, WorkloadEndpoint,
};
use crate::selector::LabelSource;

use shared::Shared;

mod closed;
mod shared;

/// All objects of one kind, by namespace and name. A clone of the table shares the objects.
pub type Table<S> = BTreeMap<ObjectId, Arc<Object<S>>>;

/// One change to what is known.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// A resource is now this.
    Put(Box<Resource>),
    /// A resource is gone.
    Removed(ResourceKey),
    /// A resource is stored that does not validate.
    Invalid {
        /// Its key.
        key: ResourceKey,
        /// What is wrong with it, for people.
        problem: String,
        /// What stands in for it when no good form was ever seen.
        closed: Option<Box<Resource>>,
    },
    /// A block is now this.
    PutBlock(Box<StoredBlock>),
    /// A block is gone.
    RemovedBlock(Cidr),
    /// A block is stored that cannot be read.
    InvalidBlock {
        /// The block.
        cidr: Cidr,
        /// What is wrong with it, for people.
        problem: String,
    },
    /// Everything that the datastore held when it was first read has been applied.
    InSync,
}

impl Update {
    /// Reads a stored entry; `None` when its key is not one that snapshots hold.
    #[must_use]
    pub fn from_entry(entry: &Entry) -> Option<Update> {
        if let Some(cidr) = block_from_key(&entry.key) {
            return Some(match serde_json::from_slice::<StoredBlock>(&entry.value) {
                Ok(block) if block.cidr == cidr => Update::PutBlock(Box::new(block)),
                Ok(block) => Update::InvalidBlock {
                    cidr,
                    problem: format!("it says that it is the block {}", block.cidr),
                },
                Err(error) => Update::InvalidBlock { cidr, problem: error.to_string() },
            });
        }
        let key = ResourceKey::from_datastore_key(&entry.key)?;
        let document = match Document::from_json(&entry.value) {
            Ok(document) => document,
            Err(error) => {
                let closed = closed::of_unreadable(&key).map(Box::new);
                return Some(Update::Invalid { key, problem: error.to_string(), closed });
            }
        };
        if document.key().as_ref() != Some(&key) {
            let problem = "its kind, namespace and name are not those of its key".to_owned();
            let closed = closed::of_unreadable(&key).map(Box::new);
            return Some(Update::Invalid { key, problem, closed });
        }
        let document = document.at_revision(entry.revision);
        Some(match document.check() {
            Ok(resource) => Update::Put(Box::new(resource)),
            Err(error) => {
                let closed = closed::stand_in(&document).map(Box::new);
                Update::Invalid { key, problem: error.to_string(), closed }
            }
        })
    }

    /// Makes the update for a key that is gone; `None` when it is not one that snapshots hold.
    #[must_use]
    pub fn from_deletion(key: &Key) -> Option<Update> {
        block_from_key(key)
            .map(Update::RemovedBlock)
            .or_else(|| ResourceKey::from_datastore_key(key).map(Update::Removed))
    }
}

macro_rules! snapshot {
    (
        $($(#[$meta:meta])* $field:ident: $spec:ident),*;
        not held: $($other:ident),* $(,)?
    ) => {
        /// All that is known at one instant.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Snapshot {
            $($(#[$meta])* pub $field: Table<$spec>,)*
            /// The blocks of addresses that exist, by network.
            pub blocks: BTreeMap<Cidr, StoredBlock>,
            /// What is stored and does not validate, with what is wrong with it.
            pub invalid: BTreeMap<Key, String>,
            /// Whether everything that the datastore held at the start has been applied. Nothing may be written to a
            /// kernel before.
            pub in_sync: bool,
            /// Those of which something stands in that was never good.
            stand_ins: BTreeSet<ResourceKey>,
            shared: Shared,
        }

        impl Snapshot {
            fn put(&mut self, resource: Resource) {
                match resource {
                    $(Resource::$spec(object) => { self.$field.insert(object.id(), Arc::new(object)); })*
                    $(Resource::$other(_) => {})*
                }
            }

            fn remove(&mut self, key: &ResourceKey) {
                match key.kind {
                    $(Kind::$spec => { self.$field.remove(&key.id); })*
                    $(Kind::$other => {})*
                }
            }

            fn holds(&self, key: &ResourceKey) -> bool {
                match key.kind {
                    $(Kind::$spec => self.$field.contains_key(&key.id),)*
                    $(Kind::$other => false),*
                }
            }
        }

        $(impl Held for $spec {
            fn table(snapshot: &Snapshot) -> &Table<Self> {
                &snapshot.$field
            }
        })*
    };
}

/// A kind of which a [`Snapshot`] holds a table.
pub trait Held: Spec {
    /// Returns the table.
    fn table(snapshot: &Snapshot) -> &Table<Self>;
}

snapshot! {
    /// The pools of addresses.
    pools: IpPool,
    /// The addresses that are not assigned automatically.
    reservations: IpReservation,
    /// The nodes.
    nodes: Node,
    /// The workloads' interfaces.
    workloads: WorkloadEndpoint,
    /// The nodes' interfaces that are guarded.
    hosts: HostEndpoint,
    /// The profiles. The built-in one is not here: see [`Snapshot::profile`].
    profiles: Profile,
    /// The tiers.
    tiers: Tier,
    /// The policies of namespaces.
    policies: NetworkPolicy,
    /// The policies of the cluster.
    global_policies: GlobalNetworkPolicy,
    /// The policies of namespaces that are not in force.
    staged_policies: StagedNetworkPolicy,
    /// The policies of the cluster that are not in force.
    staged_global_policies: StagedGlobalNetworkPolicy,
    /// The Kubernetes policies that are not in force.
    staged_kubernetes_policies: StagedKubernetesNetworkPolicy,
    /// The network sets of namespaces.
    network_sets: NetworkSet,
    /// The network sets of the cluster.
    global_network_sets: GlobalNetworkSet,
    /// Kubernetes' services.
    services: KubernetesService,
    /// The endpoints of Kubernetes' services.
    endpoint_slices: KubernetesEndpointSlice,
    /// The BGP configurations.
    bgp_configurations: BgpConfiguration,
    /// The BGP peers outside the mesh.
    bgp_peers: BgpPeer,
    /// The filters that BGP peers name.
    bgp_filters: BgpFilter,
    /// The agents' configurations.
    felix_configurations: FelixConfiguration,
    /// The cluster's own description.
    cluster_informations: ClusterInformation;
    // What no decision of a node is made from.
    not held: IpamConfiguration, BlockAffinity, IpamBlock, IpamHandle, CalicoNodeStatus, KubeControllersConfiguration,
}

impl Snapshot {
    /// Applies one change.
    ///
    /// A resource that does not validate keeps its last good form. One that was never good is *closed*: a policy selects
    /// as far as it can be read and allows nothing, a profile allows nothing, a BGPConfiguration and a FelixConfiguration
    /// say what of them can be read, with no mesh where that it is off or its password cannot, and any other kind is absent.
    /// What stands in follows what is stored.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Put(mut resource) => {
                self.shared.share(&mut resource);
                if !self.stand_ins.is_empty() {
                    self.stand_ins.remove(&resource.key());
                }
                if !self.invalid.is_empty() {
                    self.invalid.remove(&resource.key().datastore_key());
                }
                self.put(*resource);
            }
            Update::Removed(key) => {
                self.invalid.remove(&key.datastore_key());
                self.stand_ins.remove(&key);
                self.remove(&key);
            }
            Update::Invalid { key, problem, closed } => {
                let was_good = self.holds(&key) && !self.stand_ins.contains(&key);
                self.invalid.insert(key.datastore_key(), problem);
                if let Some(closed) = closed.filter(|_| !was_good) {
                    self.put(*closed);
                    self.stand_ins.insert(key);
                }
            }
            Update::PutBlock(block) => {
                self.invalid.remove(&crate::resource::block::block_key(&block.cidr));
                if block.deleted {
                    self.blocks.remove(&block.cidr);
                } else {
                    self.blocks.insert(block.cidr, *block);
                }
            }
            Update::RemovedBlock(cidr) => {
                self.invalid.remove(&crate::resource::block::block_key(&cidr));
                self.blocks.remove(&cidr);
            }
            Update::InvalidBlock { cidr, problem } => {
                self.invalid.insert(crate::resource::block::block_key(&cidr), problem);
            }
            Update::InSync => self.in_sync = true,
        }
    }

    /// Adds a resource: a convenience for programs that build a snapshot by hand.
    pub fn insert(&mut self, resource: impl Into<Resource>) {
        self.apply(Update::Put(Box::new(resource.into())));
    }

    /// Returns a node.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(&Name::from(name.clone()).into()).map(|node| &node.spec)
    }

    /// Returns the enabled or disabled pool that an address or block is in.
    #[must_use]
    pub fn pool_of(&self, cidr: &Cidr) -> Option<&Object<IpPool>> {
        self.pools.values().map(Arc::as_ref).find(|pool| pool.spec.cidr.covers(cidr))
    }

    /// Returns a profile, the built-in one included. A profile that is listed but does not exist allows nothing.
    #[must_use]
    pub fn profile(&self, name: &Name) -> Option<std::borrow::Cow<'_, Profile>> {
        if name.as_str() == DEFAULT_ALLOW_PROFILE {
            return Some(std::borrow::Cow::Owned(Profile::allow_all()));
        }
        self.profiles.get(&name.clone().into()).map(|profile| std::borrow::Cow::Borrowed(&profile.spec))
    }

    /// Returns the agent's configuration of a node: its own over the cluster's.
    #[must_use]
    pub fn felix_configuration(&self, node: &NodeName) -> FelixConfiguration {
        let named =
            |name: &str| self.felix_configurations.get(&name.parse::<Name>().ok()?.into()).map(|c| &c.spec);
        let cluster = named(FelixConfiguration::DEFAULT).cloned().unwrap_or_default();
        named(&format!("node.{node}")).map_or(cluster.clone(), |own| own.or(&cluster))
    }

    /// Returns the BGP configuration of the cluster; nothing is set in it when there is none.
    #[must_use]
    pub fn bgp_configuration(&self) -> BgpConfiguration {
        let name: Option<Name> = BgpConfiguration::DEFAULT.parse().ok();
        name.and_then(|name| self.bgp_configurations.get(&name.into()))
            .map(|c| c.spec.clone())
            .unwrap_or_default()
    }

    /// Returns the labels of a workload as selectors see them: its own, then what its profiles add, in order.
    #[must_use]
    pub fn workload_labels<'s>(&'s self, endpoint: &'s Object<WorkloadEndpoint>) -> InheritedLabels<'s> {
        let named = |name: &Name| {
            self.profiles.get(&name.clone().into()).map(|profile| &profile.spec.labels_to_apply)
        };
        let profiles = endpoint.spec.profiles.iter().filter_map(named).filter(|labels| !labels.is_empty());
        InheritedLabels { own: &endpoint.metadata.labels, profiles: profiles.collect() }
    }
}

/// An endpoint's own labels and those it inherits, looked at without copying.
#[derive(Debug, Clone)]
pub struct InheritedLabels<'s> {
    own: &'s Labels,
    profiles: Vec<&'s Labels>,
}

impl InheritedLabels<'_> {
    /// Returns all labels as one set.
    #[must_use]
    pub fn merged(&self) -> Labels {
        let layers = self.profiles.iter().rev().copied().chain([self.own]);
        layers.flat_map(Labels::iter).collect()
    }
}

impl LabelSource for InheritedLabels<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.own.get(key).or_else(|| self.profiles.iter().find_map(|labels| labels.get(key)))
    }
}

#[cfg(test)]
mod tests;
