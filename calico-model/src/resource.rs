//! Calico's resources in their checked form.
//!
//! A resource is an [`Object`]: [`Metadata`] and a spec, where the spec is a struct of this module such as [`IpPool`]
//! or [`NetworkPolicy`]. [`Resource`] is an object of any kind. Outside, a resource is JSON (or YAML) as the
//! `projectcalico.org/v3` API has it; [`Document`] is that outside form, kept whole.
//!
//! The conversion from outside to inside happens once, at the datastore's door, gathers every fault, and never makes
//! half a value.

pub mod bgp;
pub mod block;
mod cluster;
pub mod controllers;
mod document;
pub mod duration;
pub mod endpoint;
pub mod felix;
pub mod filter;
pub mod ipam;
mod kind;
mod metadata;
mod named;
mod node;
pub mod node_status;
pub mod policy;
mod pool;
mod profile;
mod schema;
pub mod service;
mod sets;
pub mod severity;
pub mod staged;
mod status;
mod tier;

pub use bgp::{BgpConfiguration, BgpPeer};
pub use cluster::ClusterInformation;
pub use controllers::KubeControllersConfiguration;
pub use document::{API_VERSION, Document, ReadError};
pub use duration::GoDuration;
pub use endpoint::{EndpointPort, HostEndpoint, QosControls, WorkloadEndpoint};
pub use felix::{EndpointToHostAction, FelixConfiguration, ProgramClusterRoutes, ProtoPort};
pub use filter::BgpFilter;
pub use ipam::{BlockAffinity, IpamBlock, IpamConfiguration, IpamHandle};
pub use kind::{Kind, Object, ObjectId, Resource, ResourceKey, Scope, Spec};
pub use metadata::Metadata;
pub use node::{Node, NodeBgp, NodeInterface, OrchRef};
pub use node_status::CalicoNodeStatus;
pub use policy::{
    Action, EntityRule, GlobalNetworkPolicy, Http, Icmp, NetworkPolicy, Policy, PolicyType, PortMatch, Rule,
    ServiceAccounts,
};
pub use pool::{AllowedUse, AssignmentMode, EncapMode, IpPool, IpReservation};
pub use profile::{DEFAULT_ALLOW_PROFILE, Profile};
pub use service::{KubernetesEndpointSlice, KubernetesService};
pub use sets::{GlobalNetworkSet, NetworkSet};
pub use severity::Severity;
pub use staged::{
    StagedAction, StagedGlobalNetworkPolicy, StagedKubernetesNetworkPolicy, StagedNetworkPolicy,
};
pub use tier::{DefaultAction, Tier};

/// The largest metric of a route that may be configured: the largest but one that fits into 31 bits.
pub(crate) const MAX_ROUTE_PRIORITY: i64 = 2_147_483_646;

#[cfg(test)]
mod tests;
