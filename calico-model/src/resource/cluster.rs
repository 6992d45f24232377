//! What the cluster says of itself.

use crate::wire::wire_struct;

wire_struct! {
    /// The `ClusterInformation`, of which there is one, named `default`.
    pub struct ClusterInformation {
        /// An identifier of the cluster: 32 hex digits.
        cluster_guid: String = "clusterGUID" empty,
        /// A comma-separated list of what the cluster is made of.
        cluster_type: String = "clusterType" empty,
        /// The version that wrote this last.
        calico_version: String = "calicoVersion" empty,
        /// Whether agents and plugins may act on the datastore; `None` is false.
        datastore_ready: Option<bool> = "datastoreReady" optional,
        /// The edition.
        variant: String = "variant" empty,
    }
}

impl ClusterInformation {
    /// The only name there is.
    pub const NAME: &'static str = "default";
}
