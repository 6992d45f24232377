//! Sessions with peers outside the mesh.

use std::net::IpAddr;

use super::{Password, PeerAddress};
use crate::asn::AsNumber;
use crate::name::{Name, NodeName};
use crate::net::Family;
use crate::resource::duration::GoDuration;
use crate::selector::Selector;
use crate::wire::{Limit, Rules, wire_enum, wire_struct};

wire_enum! {
    /// What becomes of a route's next hop when it is told to a peer.
    pub enum NextHopMode {
        /// This node for external peers, and unchanged for internal ones.
        Auto = "Auto",
        /// This node.
        SelfHop = "Self",
        /// Unchanged.
        Keep = "Keep",
    }
}

wire_enum! {
    /// Which address a session comes from.
    pub enum SourceAddress {
        /// The node's own.
        NodeIp = "UseNodeIP",
        /// Whichever the kernel takes.
        Any = "None",
    }
}

wire_enum! {
    /// Whether a node that is selected as a peer peers back.
    pub enum ReversePeering {
        /// It does, by itself.
        Auto = "Auto",
        /// Only when another BGPPeer says so.
        Manual = "Manual",
    }
}

wire_struct! {
    /// A `BGPPeer`: a session with a peer outside the mesh, for all nodes, one, or those selected. One that says neither
    /// an address nor a selector is no session yet.
    pub struct BgpPeer {
        /// The node that peers; with no `nodeSelector` either, all do.
        node: Option<NodeName> = "node" optional [Limit::Length(253)],
        /// The nodes that peer.
        node_selector: Option<Selector> = "nodeSelector" optional [Limit::Length(1024)],
        /// The peer's address, with an optional port.
        peer_ip: Option<PeerAddress> = "peerIP" optional [Limit::Length(64)],
        /// The peer's AS number.
        as_number: Option<AsNumber> = "asNumber" optional,
        /// This side's AS number in this session; `None` is the node's own.
        local_as_number: Option<AsNumber> = "localASNumber" optional,
        /// The nodes that are peered with.
        peer_selector: Option<Selector> = "peerSelector" optional [Limit::Length(1024)],
        /// The workloads of the node that are peered with.
        local_workload_selector: Option<Selector> = "localWorkloadSelector" optional [Limit::Length(1024)],
        /// What becomes of next hops; `None` is `Auto`.
        next_hop_mode: Option<NextHopMode> = "nextHopMode" optional("Auto"),
        /// Deprecated by `nextHopMode: Keep`.
        keep_original_next_hop: Option<bool> = "keepOriginalNextHop" optional,
        /// The session's password.
        password: Option<Password> = "password" optional,
        /// The address the session comes from; `None` is the node's own.
        source_address: Option<SourceAddress> = "sourceAddress" optional("UseNodeIP"),
        /// For how long the peer may keep our routes when we restart (RFC 4724).
        max_restart_time: Option<GoDuration> = "maxRestartTime" optional("120s"),
        /// How often an idle session says that it is alive.
        keepalive_time: Option<GoDuration> = "keepaliveTime" optional,
        /// How often our own AS number may be in the path of a route that is taken.
        num_allowed_local_as_numbers: Option<u32> = "numAllowedLocalASNumbers" optional,
        /// The number of network hops that packets may take (RFC 5082); `None` does not check.
        ttl_security: Option<u8> = "ttlSecurity" optional,
        /// The gateway that leads to a peer outside the node's subnets.
        reachable_by: Option<IpAddr> = "reachableBy" optional,
        /// The BGPFilters that decide which routes are told and taken, in order.
        filters: Vec<Name> = "filters" empty,
        /// Whether nodes that `peerSelector` selects peer back; `None` is `Auto`.
        reverse_peering: Option<ReversePeering> = "reversePeering" optional("Auto"),
    }
    check = check;
}

impl BgpPeer {
    /// Makes a peer of which nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            node: None,
            node_selector: None,
            peer_ip: None,
            as_number: None,
            local_as_number: None,
            peer_selector: None,
            local_workload_selector: None,
            next_hop_mode: None,
            keep_original_next_hop: None,
            password: None,
            source_address: None,
            max_restart_time: None,
            keepalive_time: None,
            num_allowed_local_as_numbers: None,
            ttl_security: None,
            reachable_by: None,
            filters: Vec::new(),
            reverse_peering: None,
        }
    }

    /// Returns what becomes of next hops, whichever of the two fields says it.
    #[must_use]
    pub fn next_hop(&self) -> NextHopMode {
        match (self.next_hop_mode, self.keep_original_next_hop) {
            (Some(mode), _) => mode,
            (None, Some(true)) => NextHopMode::Keep,
            (None, _) => NextHopMode::Auto,
        }
    }
}

impl Default for BgpPeer {
    fn default() -> Self {
        Self::new()
    }
}

fn check(peer: &mut BgpPeer, mut rules: Rules<'_, '_, '_>) {
    for (given, key, other) in [
        (peer.node.is_some() && peer.node_selector.is_some(), "nodeSelector", "node"),
        (peer.peer_ip.is_some() && peer.peer_selector.is_some(), "peerSelector", "peerIP"),
        (peer.peer_selector.is_some() && peer.as_number.is_some(), "asNumber", "peerSelector"),
        (peer.local_workload_selector.is_some() && peer.peer_ip.is_some(), "peerIP", "localWorkloadSelector"),
        (
            peer.local_workload_selector.is_some() && peer.peer_selector.is_some(),
            "peerSelector",
            "localWorkloadSelector",
        ),
        (
            peer.next_hop_mode.is_some() && peer.keep_original_next_hop.is_some(),
            "keepOriginalNextHop",
            "nextHopMode",
        ),
    ] {
        if given {
            rules.broken(key, &[], format!("must be absent when {other} is given"));
        }
    }
    if peer.as_number.is_none() {
        let needed = [
            ("peerIP", peer.peer_ip.is_some()),
            ("localWorkloadSelector", peer.local_workload_selector.is_some()),
        ];
        for (key, _) in needed.into_iter().filter(|(_, given)| *given) {
            rules.broken("asNumber", &[], format!("is required when {key} is given"));
        }
    }
    if let Some(gateway) = peer.reachable_by {
        match &peer.peer_ip {
            None => rules.broken("reachableBy", &[], "must be absent when peerIP is"),
            Some(address) if Family::of(address.addr) != Family::of(gateway) => {
                let rule = format!("must be an {} address, as peerIP is", Family::of(address.addr));
                rules.broken("reachableBy", &["reachableBy", "peerIP"], rule);
            }
            Some(_) => {}
        }
    }
}
