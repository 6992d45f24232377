//! The kinds of resource, and everything that is true of all of them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{
    BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, CalicoNodeStatus, ClusterInformation,
    FelixConfiguration, GlobalNetworkPolicy, GlobalNetworkSet, HostEndpoint, IpPool, IpReservation,
    IpamBlock, IpamConfiguration, IpamHandle, KubeControllersConfiguration, KubernetesEndpointSlice,
    KubernetesService, Metadata, NetworkPolicy, NetworkSet, Node, Profile, StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy, StagedNetworkPolicy, Tier, WorkloadEndpoint,
};
use crate::datastore::{Key, Prefix};
use crate::name::{Name, Namespace};
use crate::net::ParseError;
use crate::wire::{FromWire, ToWire};

/// Whether a kind's resources live in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One name space for the whole cluster.
    Cluster,
    /// One name space for each namespace.
    Namespaced,
}

/// The spec of one kind of resource.
pub trait Spec: Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The kind this is the spec of.
    const KIND: Kind;

    /// Makes an object of this kind a resource of any.
    fn into_resource(object: Object<Self>) -> Resource;

    /// Takes the object out of a resource; `None` when it is of another kind.
    fn from_resource(resource: Resource) -> Option<Object<Self>>;
}

/// A resource of one kind: metadata and a spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<S> {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// What the resource says.
    pub spec: S,
}

impl<S> Object<S> {
    /// Makes an object with a name and nothing else in its metadata.
    #[must_use]
    pub fn new(name: Name, spec: S) -> Self {
        Self { metadata: Metadata::named(name), spec }
    }

    /// Returns the name and namespace.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        ObjectId { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }
}

impl<S: Spec> Object<S> {
    /// Returns the key: kind, namespace and name.
    #[must_use]
    pub fn key(&self) -> ResourceKey {
        ResourceKey { kind: S::KIND, id: self.id() }
    }
}

/// What names a resource among those of its kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// The namespace, for kinds that live in one.
    pub namespace: Option<Namespace>,
    /// The name.
    pub name: Name,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => self.name.fmt(f),
        }
    }
}

impl From<Name> for ObjectId {
    fn from(name: Name) -> Self {
        Self { namespace: None, name }
    }
}

/// What names a resource among all: its kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// The kind.
    pub kind: Kind,
    /// The name, and the namespace for kinds that live in one.
    pub id: ObjectId,
}

impl ResourceKey {
    /// Returns the datastore key, which is that of Calico's etcd datastore.
    #[must_use]
    pub fn datastore_key(&self) -> Key {
        let folder = self.kind.datastore_prefix();
        let path = match &self.id.namespace {
            Some(namespace) => format!("{folder}{namespace}/{}", self.id.name),
            None => format!("{folder}{}", self.id.name),
        };
        path.parse()
            .expect("names have no slash and no control character, and the longest path is under 1024 bytes")
    }

    /// Reads a datastore key; `None` when it is not that of a resource of a known kind.
    #[must_use]
    pub fn from_datastore_key(key: &Key) -> Option<Self> {
        let path = key.as_str().strip_prefix(RESOURCES)?;
        let (plural, rest) = path.split_once('/')?;
        let kind = Kind::ALL.iter().copied().find(|kind| kind.plural() == plural)?;
        let (namespace, name) = match kind.scope() {
            Scope::Cluster => (None, rest),
            Scope::Namespaced => rest.split_once('/').map(|(namespace, name)| (Some(namespace), name))?,
        };
        let namespace = namespace.map(str::parse).transpose().ok()?;
        Some(Self { kind, id: ObjectId { namespace, name: name.parse().ok()? } })
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.kind, self.id)
    }
}

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";

macro_rules! kinds {
    ($($spec:ident: $kind:literal, $plural:literal, $scope:ident, [$($alias:literal),*];)*) => {
        /// A kind of resource of the `projectcalico.org/v3` API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Kind {
            $(#[doc = concat!("`", $kind, "`.")] $spec),*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$spec),*];

            /// Returns the name that resources use: `IPPool`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$spec => $kind),* }
            }

            /// Returns the lower-case plural that keys and commands use: `ippools`.
            #[must_use]
            pub fn plural(self) -> &'static str {
                match self { $(Kind::$spec => $plural),* }
            }

            /// Says whether resources of this kind live in namespaces.
            #[must_use]
            pub fn scope(self) -> Scope {
                match self { $(Kind::$spec => Scope::$scope),* }
            }

            fn aliases(self) -> &'static [&'static str] {
                match self { $(Kind::$spec => &[$($alias),*]),* }
            }
        }

        $(impl Spec for $spec {
            const KIND: Kind = Kind::$spec;

            fn into_resource(object: Object<Self>) -> Resource {
                Resource::$spec(object)
            }

            fn from_resource(resource: Resource) -> Option<Object<Self>> {
                if let Resource::$spec(object) = resource { Some(object) } else { None }
            }
        })*

        $(impl From<Object<$spec>> for Resource {
            fn from(object: Object<$spec>) -> Self {
                Resource::$spec(object)
            }
        })*

        $(impl From<Arc<Object<$spec>>> for Resource {
            fn from(object: Arc<Object<$spec>>) -> Self {
                Resource::$spec(Arc::unwrap_or_clone(object))
            }
        })*

        /// A resource of any kind.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        #[expect(clippy::large_enum_variant, reason = "a resource on its way is boxed, and tables hold objects of one kind")]
        pub enum Resource {
            $(#[doc = concat!("A `", $kind, "`.")] $spec(Object<$spec>)),*
        }

        impl Resource {
            /// Returns the kind.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $(Resource::$spec(_) => Kind::$spec),* }
            }

            /// Returns the metadata.
            #[must_use]
            pub fn metadata(&self) -> &Metadata {
                match self { $(Resource::$spec(object) => &object.metadata),* }
            }

            /// Returns the metadata, to change it.
            pub fn metadata_mut(&mut self) -> &mut Metadata {
                match self { $(Resource::$spec(object) => &mut object.metadata),* }
            }

            pub(crate) fn spec_to_wire(&self) -> serde_json::Value {
                match self { $(Resource::$spec(object) => object.spec.to_wire()),* }
            }

            pub(crate) fn spec_schema(kind: Kind, schemas: &mut crate::wire::Schemas) -> serde_json::Value {
                match kind { $(Kind::$spec => $spec::schema(schemas)),* }
            }

            /// Reads what can be read of a spec; see [`FromWire::in_part`](crate::wire::FromWire::in_part).
            pub(crate) fn spec_in_part(
                kind: Kind,
                metadata: Metadata,
                spec: &serde_json::Value,
                at: crate::wire::Path<'_>,
                report: &mut crate::wire::Report,
            ) -> Self {
                match kind {
                    $(Kind::$spec => {
                        Resource::$spec(Object { metadata, spec: $spec::in_part(spec, at, report) })
                    })*
                }
            }
        }
    };
}

kinds! {
    IpPool: "IPPool", "ippools", Cluster, ["ippool", "ipp", "ipps", "pool", "pools"];
    IpReservation: "IPReservation", "ipreservations", Cluster, ["ipreservation", "reservation", "reservations"];
    IpamConfiguration: "IPAMConfiguration", "ipamconfigurations", Cluster, ["ipamconfiguration", "ipamconfig", "ipamconfigs"];
    BlockAffinity: "BlockAffinity", "blockaffinities", Cluster, ["blockaffinity"];
    IpamBlock: "IPAMBlock", "ipamblocks", Cluster, ["ipamblock"];
    IpamHandle: "IPAMHandle", "ipamhandles", Cluster, ["ipamhandle"];
    Node: "Node", "nodes", Cluster, ["node", "no", "nos"];
    WorkloadEndpoint: "WorkloadEndpoint", "workloadendpoints", Namespaced, ["workloadendpoint", "wep", "weps"];
    HostEndpoint: "HostEndpoint", "hostendpoints", Cluster, ["hostendpoint", "hep", "heps"];
    Profile: "Profile", "profiles", Cluster, ["profile", "pro", "pros"];
    Tier: "Tier", "tiers", Cluster, ["tier"];
    NetworkPolicy: "NetworkPolicy", "networkpolicies", Namespaced, ["networkpolicy", "policy", "policies", "np", "nps", "pol", "pols"];
    GlobalNetworkPolicy: "GlobalNetworkPolicy", "globalnetworkpolicies", Cluster, ["globalnetworkpolicy", "gnp", "gnps"];
    StagedNetworkPolicy: "StagedNetworkPolicy", "stagednetworkpolicies", Namespaced, ["stagednetworkpolicy", "stagedpolicy", "stagedpolicies", "snp", "snps", "spol", "spols"];
    StagedGlobalNetworkPolicy: "StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", Cluster, ["stagedglobalnetworkpolicy", "sgnp", "sgnps"];
    StagedKubernetesNetworkPolicy: "StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", Namespaced, ["stagedkubernetesnetworkpolicy", "stagedkubernetespolicy", "stagedkubernetespolicies", "sknp", "sknps", "skpol", "skpols"];
    NetworkSet: "NetworkSet", "networksets", Namespaced, ["networkset", "netset", "netsets"];
    GlobalNetworkSet: "GlobalNetworkSet", "globalnetworksets", Cluster, ["globalnetworkset", "gnetset", "gnetsets"];
    KubernetesService: "KubernetesService", "kubernetesservices", Namespaced, ["kubernetesservice", "service", "services", "svc"];
    KubernetesEndpointSlice: "KubernetesEndpointSlice", "kubernetesendpointslices", Namespaced, ["kubernetesendpointslice", "endpointslice", "endpointslices"];
    BgpConfiguration: "BGPConfiguration", "bgpconfigurations", Cluster, ["bgpconfiguration", "bgpconfig", "bgpconfigs"];
    BgpPeer: "BGPPeer", "bgppeers", Cluster, ["bgppeer", "bgpp", "bgpps", "bp", "bps"];
    BgpFilter: "BGPFilter", "bgpfilters", Cluster, ["bgpfilter", "bgpf", "bgpfs", "bf", "bfs"];
    CalicoNodeStatus: "CalicoNodeStatus", "caliconodestatuses", Cluster, ["caliconodestatus", "nodestatus", "nodestatuses"];
    KubeControllersConfiguration: "KubeControllersConfiguration", "kubecontrollersconfigurations", Cluster, ["kubecontrollersconfiguration", "kubecontrollersconfig", "kubecontrollersconfigs"];
    FelixConfiguration: "FelixConfiguration", "felixconfigurations", Cluster, ["felixconfiguration", "felixconfig", "felixconfigs"];
    ClusterInformation: "ClusterInformation", "clusterinformations", Cluster, ["clusterinformation", "clusterinfo", "clusterinfos"];
}

impl Kind {
    /// Returns the kind that a resource's `kind` field names, in exactly the API's case.
    #[must_use]
    pub fn from_api_name(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }

    /// Returns the folder of the datastore that holds all resources of this kind.
    #[must_use]
    pub fn datastore_prefix(self) -> Prefix {
        Prefix::new(&format!("{RESOURCES}{}", self.plural())).expect("plurals are plain lower-case words")
    }

    /// Returns the folder of the datastore that holds the resources of all kinds.
    #[must_use]
    pub fn all_prefix() -> Prefix {
        Prefix::new(RESOURCES).expect("a constant path")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ParseError;

    /// Reads a kind as users type it: any case, singular, plural or short.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let lower = text.to_lowercase();
        let named = |kind: &Kind| kind.plural() == lower || kind.aliases().contains(&lower.as_str());
        Kind::ALL.iter().copied().find(named).ok_or_else(|| {
            ParseError::new(
                text,
                "a kind of resource, such as ippool, node, networkpolicy or workloadendpoint",
            )
        })
    }
}

impl Resource {
    /// Returns the key: kind, namespace and name.
    #[must_use]
    pub fn key(&self) -> ResourceKey {
        let metadata = self.metadata();
        let id = ObjectId { namespace: metadata.namespace.clone(), name: metadata.name.clone() };
        ResourceKey { kind: self.kind(), id }
    }
}
