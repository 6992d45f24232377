//! What the cluster says of a resource, in its `status`.
//!
//! Nothing here acts on a status: it is checked when somebody writes one, shown, and kept as it is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::Kind;
use crate::net::Cidr;
use crate::wire::{FromWire, Path, Report, Schemas, wire_enum, wire_struct};

/// Reports what is wrong with the status of a resource of this kind.
pub(super) fn check_status(kind: Kind, status: &Value, report: &mut Report) {
    let at = Path::root("status");
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds have no status")]
    match kind {
        Kind::CalicoNodeStatus => drop(OfNodeStatus::from_wire(status, at, report)),
        Kind::IpPool => drop(OfPool::from_wire(status, at, report)),
        Kind::KubeControllersConfiguration => drop(OfControllers::from_wire(status, at, report)),
        Kind::Node => drop(OfNode::from_wire(status, at, report)),
        _ if !status.is_object() => report.fault(at, Some(status), "must be an object"),
        _ => {}
    }
}

/// Describes the status of the resources of this kind.
pub(super) fn status_schema(kind: Kind, schemas: &mut Schemas) -> Value {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds have no status")]
    match kind {
        Kind::CalicoNodeStatus => OfNodeStatus::schema(schemas),
        Kind::IpPool => OfPool::schema(schemas),
        Kind::KubeControllersConfiguration => OfControllers::schema(schemas),
        Kind::Node => OfNode::schema(schemas),
        _ => json!({"type": "object", "description": "What the cluster says of the resource."}),
    }
}

wire_struct! {
    /// What the agents of a node say of it.
    struct OfNodeStatus {
        /// The agents.
        agent: Option<Agents> = "agent" optional,
        /// The BGP sessions.
        bgp: Option<Sessions> = "bgp" optional,
        /// The routes.
        routes: Option<Routes> = "routes" optional,
        /// When this was written, in RFC 3339.
        last_updated: Option<String> = "lastUpdated" optional,
    }
}

wire_struct! {
    /// The BGP speakers of a node.
    struct Agents {
        /// The one for IPv4.
        v4: Option<Speaker> = "birdV4" optional,
        /// The one for IPv6.
        v6: Option<Speaker> = "birdV6" optional,
    }
}

wire_struct! {
    /// A BGP speaker.
    struct Speaker {
        /// Whether it is ready.
        state: Option<String> = "state" optional,
        /// Its version.
        version: Option<String> = "version" optional,
        /// Its router ID.
        router_id: Option<String> = "routerID" optional,
        /// When it was started.
        last_boot_time: Option<String> = "lastBootTime" optional,
        /// When its configuration changed.
        last_reconfiguration_time: Option<String> = "lastReconfigurationTime" optional,
    }
}

wire_struct! {
    /// The BGP sessions of a node.
    struct Sessions {
        /// How many IPv4 sessions are up.
        established_v4: u32 = "numberEstablishedV4" default(0),
        /// How many IPv6 sessions are up.
        established_v6: u32 = "numberEstablishedV6" default(0),
        /// How many IPv4 sessions are not.
        not_established_v4: u32 = "numberNotEstablishedV4" default(0),
        /// How many IPv6 sessions are not.
        not_established_v6: u32 = "numberNotEstablishedV6" default(0),
        /// The IPv4 sessions.
        peers_v4: Vec<Session> = "peersV4" empty,
        /// The IPv6 sessions.
        peers_v6: Vec<Session> = "peersV6" empty,
    }
}

wire_struct! {
    /// A BGP session.
    struct Session {
        /// The peer.
        peer_ip: Option<IpAddr> = "peerIP" optional,
        /// What makes it one.
        peer_type: Option<PeerType> = "type" optional,
        /// How far the session has come.
        state: Option<SessionState> = "state" optional,
        /// Since when.
        since: Option<String> = "since" optional,
    }
}

wire_enum! {
    /// What makes a peer one.
    enum PeerType {
        /// The mesh of all nodes.
        NodeMesh = "NodeMesh",
        /// A BGPPeer for one node or several.
        NodePeer = "NodePeer",
        /// A BGPPeer for all nodes.
        GlobalPeer = "GlobalPeer",
    }
}

wire_enum! {
    /// How far a session has come.
    enum SessionState {
        /// Nothing is tried.
        Idle = "Idle",
        /// A connection is being made.
        Connect = "Connect",
        /// A connection is waited for.
        Active = "Active",
        /// Our OPEN is out.
        OpenSent = "OpenSent",
        /// The peer's OPEN is taken.
        OpenConfirm = "OpenConfirm",
        /// It is up.
        Established = "Established",
        /// It is being closed.
        Close = "Close",
    }
}

wire_struct! {
    /// The routes of a node.
    struct Routes {
        /// Those of IPv4.
        v4: Vec<Route> = "routesV4" empty,
        /// Those of IPv6.
        v6: Vec<Route> = "routesV6" empty,
    }
}

wire_struct! {
    /// A route.
    struct Route {
        /// Where it is.
        route_type: Option<RouteType> = "type" optional,
        /// Where it leads.
        destination: Option<Cidr> = "destination" optional,
        /// Through whom.
        gateway: Option<String> = "gateway" optional,
        /// Through which interface.
        interface: Option<String> = "interface" optional,
        /// Whom it is from.
        learned_from: Option<LearnedFrom> = "learnedFrom" optional,
    }
}

wire_enum! {
    /// Where a route is.
    enum RouteType {
        /// In the kernel.
        Fib = "FIB",
        /// In the BGP speaker alone.
        Rib = "RIB",
    }
}

wire_struct! {
    /// Whom a route is from.
    struct LearnedFrom {
        /// What sort of source.
        source_type: Option<RouteSource> = "sourceType" optional,
        /// The peer, when it is one.
        peer_ip: Option<IpAddr> = "peerIP" optional,
    }
}

wire_enum! {
    /// What sort of source a route is from.
    enum RouteSource {
        /// The kernel.
        Kernel = "Kernel",
        /// The speaker's configuration.
        Static = "Static",
        /// An interface's network.
        Direct = "Direct",
        /// A node of the mesh.
        NodeMesh = "NodeMesh",
        /// A BGPPeer.
        BgpPeer = "BGPPeer",
    }
}

wire_struct! {
    /// What is said of a pool.
    struct OfPool {
        /// The conditions it is in.
        conditions: Vec<Condition> = "conditions" empty,
    }
}

wire_struct! {
    /// A condition, as Kubernetes has them.
    struct Condition {
        /// Which, such as `Allocatable`.
        condition_type: String = "type" required,
        /// Whether it is so.
        status: Truth = "status" required,
        /// Why, in a word.
        reason: Option<String> = "reason" optional,
        /// Why, in a sentence.
        message: Option<String> = "message" optional,
        /// Since when.
        last_transition_time: Option<String> = "lastTransitionTime" optional,
        /// Of which form of the resource this is said.
        observed_generation: Option<i64> = "observedGeneration" optional,
    }
}

wire_enum! {
    /// Whether something is so.
    enum Truth {
        /// It is.
        True = "True",
        /// It is not.
        False = "False",
        /// Nobody knows.
        Unknown = "Unknown",
    }
}

wire_struct! {
    /// What the controllers say of their settings.
    struct OfControllers {
        /// The environment variables that override the settings.
        environment_vars: BTreeMap<String, String> = "environmentVars" empty,
        /// The settings that are in force.
        running_config: Option<Value> = "runningConfig" optional,
    }
}

wire_struct! {
    /// What is said of a node.
    struct OfNode {
        /// Its public key for WireGuard over IPv4.
        wireguard_public_key: Option<String> = "wireguardPublicKey" optional,
        /// Its public key for WireGuard over IPv6.
        wireguard_public_key_v6: Option<String> = "wireguardPublicKeyV6" optional,
        /// The networks of its pods.
        pod_cidrs: Vec<Cidr> = "podCIDRs" empty,
    }
}
