//! Sessions with peers outside the mesh.

use std::net::IpAddr;
use std::time::Duration;

use super::{Password, PeerAddress};
use crate::asn::AsNumber;
use crate::name::{Name, NodeName};
use crate::net::{Cidr, Family};
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

wire_enum! {
    /// How a peer that no longer answers is noticed before its hold time is over.
    pub enum FailureDetection {
        /// Not at all.
        HoldTime = "None",
        /// By BFD (RFC 5880), where the peer is in a network of one of the node's interfaces.
        Bfd = "BFDIfDirectlyConnected",
    }
}

wire_enum! {
    /// For how long routes outlive a session that is lost.
    pub enum RestartMode {
        /// For the restart time (RFC 4724).
        Graceful = "GracefulRestart",
        /// For the long-lived stale time too, as a last resort (RFC 9494).
        LongLived = "LongLivedGracefulRestart",
    }
}

wire_struct! {
    /// A `BGPPeer`: a session with a peer outside the mesh, for all nodes, one, or those selected. One that says neither
    /// an address nor a selector is no session yet.
    ///
    /// `peerCIDR`, `maxPeers`, `maxPrefixes`, `holdTime` and `longLivedStaleTime` are ours: Calico has no names for what they
    /// say.
    pub struct BgpPeer {
        /// The node that peers; with no `nodeSelector` either, all do.
        node: Option<NodeName> = "node" omitempty [Limit::Length(253)],
        /// The nodes that peer.
        node_selector: Option<Selector> = "nodeSelector" omitempty [Limit::Length(1024)],
        /// The peer's address, with an optional port.
        peer_ip: Option<PeerAddress> = "peerIP" omitempty [Limit::Length(64)],
        /// The network from which peers may come without being named one by one; nobody in it is dialed.
        peer_cidr: Option<Cidr> = "peerCIDR" optional,
        /// How many peers may come from `peerCIDR` at once; `None` is 100.
        max_peers: Option<u32> = "maxPeers" optional(100) [Limit::Range(1, 65_535)],
        /// How many prefixes of one family a peer may tell; one that tells more has its session ended. `None` is any number.
        max_prefixes: Option<u32> = "maxPrefixes" optional [Limit::Range(1, 4_294_967_295)],
        /// The peer's AS number.
        as_number: Option<AsNumber> = "asNumber" optional,
        /// This side's AS number in this session; `None` is the node's own.
        local_as_number: Option<AsNumber> = "localASNumber" optional,
        /// The nodes that are peered with.
        peer_selector: Option<Selector> = "peerSelector" omitempty [Limit::Length(1024)],
        /// The workloads of the node that are peered with.
        local_workload_selector: Option<Selector> = "localWorkloadSelector" omitempty [Limit::Length(1024)],
        /// What becomes of next hops; `None` is `Auto`.
        next_hop_mode: Option<NextHopMode> = "nextHopMode" optional("Auto"),
        /// Deprecated by `nextHopMode: Keep`.
        keep_original_next_hop: Option<bool> = "keepOriginalNextHop" optional,
        /// The session's password.
        password: Option<Password> = "password" optional,
        /// The address the session comes from; `None` is the node's own.
        source_address: Option<SourceAddress> = "sourceAddress" omitempty("UseNodeIP"),
        /// For how long the peer may keep our routes when we restart (RFC 4724).
        max_restart_time: Option<GoDuration> = "maxRestartTime" optional("120s"),
        /// Whether routes outlive the restart time; `None` is `GracefulRestart`.
        restart_mode: Option<RestartMode> = "restartMode" optional("GracefulRestart"),
        /// For how long the peer may keep our routes after the restart time, where `restartMode` says so.
        long_lived_stale_time: Option<GoDuration> = "longLivedStaleTime" optional("1h"),
        /// How a peer that no longer answers is noticed; `None` is by the hold time alone.
        failure_detection_mode: Option<FailureDetection> = "failureDetectionMode" optional("None"),
        /// How often the session says that it is alive; `None`, and at the least, is a third of the hold time.
        keepalive_time: Option<GoDuration> = "keepaliveTime" optional,
        /// After which silence the session is over, if the peer does not ask for less; `0s` never ends it.
        hold_time: Option<GoDuration> = "holdTime" optional("4m"),
        /// How often our own AS number may be in the path of a route that is taken.
        num_allowed_local_as_numbers: Option<u32> = "numAllowedLocalASNumbers" optional,
        /// The number of network hops that packets may take (RFC 5082); `None` does not check.
        ttl_security: Option<u8> = "ttlSecurity" optional,
        /// The gateway that leads to a peer outside the node's subnets.
        reachable_by: Option<IpAddr> = "reachableBy" omitempty,
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
            peer_cidr: None,
            max_peers: None,
            max_prefixes: None,
            as_number: None,
            local_as_number: None,
            peer_selector: None,
            local_workload_selector: None,
            next_hop_mode: None,
            keep_original_next_hop: None,
            password: None,
            source_address: None,
            max_restart_time: None,
            restart_mode: None,
            long_lived_stale_time: None,
            failure_detection_mode: None,
            keepalive_time: None,
            hold_time: None,
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
        (peer.peer_cidr.is_some() && peer.peer_ip.is_some(), "peerIP", "peerCIDR"),
        (peer.peer_cidr.is_some() && peer.peer_selector.is_some(), "peerSelector", "peerCIDR"),
        (
            peer.peer_cidr.is_some() && peer.local_workload_selector.is_some(),
            "localWorkloadSelector",
            "peerCIDR",
        ),
        (
            // Upstream cannot tell false from absent.
            peer.next_hop_mode.is_some() && peer.keep_original_next_hop == Some(true),
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
            ("peerCIDR", peer.peer_cidr.is_some()),
        ];
        for (key, _) in needed.into_iter().filter(|(_, given)| *given) {
            rules.broken("asNumber", &[], format!("is required when {key} is given"));
        }
    }
    if peer.max_peers.is_some() && peer.peer_cidr.is_none() {
        rules.broken("maxPeers", &[], "must be absent when peerCIDR is");
    }
    if peer.long_lived_stale_time.is_some() && peer.restart_mode != Some(RestartMode::LongLived) {
        let rule = "must be absent unless restartMode is LongLivedGracefulRestart";
        rules.broken("longLivedStaleTime", &["restartMode"], rule);
    }
    check_times(peer, &mut rules);
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

/// BGP's messages carry whole seconds, in so many bits.
fn check_times(peer: &BgpPeer, rules: &mut Rules<'_, '_, '_>) {
    let whole_within = |time: &Option<GoDuration>, least: u64, most: u64| {
        time.as_ref().is_none_or(|time| {
            time.get().subsec_nanos() == 0 && (least..=most).contains(&time.get().as_secs())
        })
    };
    if !whole_within(&peer.keepalive_time, 1, 21_845) {
        rules.wrong(
            "keepaliveTime",
            "must be whole seconds from 1s to 21845s, a third of the longest hold time",
        );
    }
    if !whole_within(&peer.hold_time, 3, 65_535) && !whole_within(&peer.hold_time, 0, 0) {
        rules.wrong("holdTime", "must be 0s, or whole seconds from 3s to 65535s");
    }
    if is_too_long_a_restart(peer.max_restart_time.as_ref()) {
        rules.wrong("maxRestartTime", RESTART_TIME_RULE);
    }
    if !whole_within(&peer.long_lived_stale_time, 1, 16_777_215) {
        rules.wrong("longLivedStaleTime", "must be whole seconds from 1s to 16777215s");
    }
}

/// What [`is_too_long_a_restart`] asks for.
pub(super) const RESTART_TIME_RULE: &str = "must be at most 4095s, for which BGP has room";

/// Reports whether a restart time does not fit into the 12 bits that the capability has for it (RFC 4724 section 3).
pub(super) fn is_too_long_a_restart(time: Option<&GoDuration>) -> bool {
    time.is_some_and(|time| time.get() > Duration::from_secs(0xfff))
}
