//! What holds for all sessions.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::peer::{RESTART_TIME_RULE, is_too_long_a_restart};
use super::{Password, PeerAddress};
use crate::asn::{AsNumber, Community};
use crate::net::Cidr;
use crate::resource::duration::GoDuration;
use crate::resource::ipam::Switch;
use crate::resource::severity::Severity;
use crate::resource::{MAX_ROUTE_PRIORITY, ProgramClusterRoutes};
use crate::wire::{Limit, Rules, wire_enum, wire_struct};

wire_struct! {
    /// A `BGPConfiguration`: `default` is for the cluster, `node.NAME` for one node.
    pub struct BgpConfiguration {
        /// Whether every node peers with every other; `None` is true. Only in `default`.
        node_to_node_mesh_enabled: Option<bool> = "nodeToNodeMeshEnabled" optional(true),
        /// The AS number of nodes that have none of their own; `None` is 64512. Only in `default`.
        as_number: Option<AsNumber> = "asNumber" optional(64512),
        /// The TCP port to listen on; `None` is 179.
        listen_port: Option<u16> = "listenPort" optional(179) [Limit::Range(1, 65_535)],
        /// Calico's log level of the BGP part. It is kept and has no effect: the agent is one process with one log, whose level
        /// `CALICO_LOG` or `FELIX_LOGSEVERITYSCREEN` says.
        log_severity_screen: Severity = "logSeverityScreen" default(Severity::Info),
        /// Names for communities.
        communities: Vec<NamedCommunity> = "communities" empty [Limit::Items(0, 500)],
        /// Communities to add to routes inside networks.
        prefix_advertisements: Vec<PrefixAdvertisement> = "prefixAdvertisements" empty [Limit::Items(0, 500)],
        /// Networks of services' load-balancer addresses that are told to peers. Only in `default`.
        service_load_balancer_ips: Vec<ServiceNetwork> = "serviceLoadBalancerIPs" empty,
        /// Networks of services' external addresses that are told to peers. Only in `default`.
        service_external_ips: Vec<ServiceNetwork> = "serviceExternalIPs" empty,
        /// Networks of services' cluster addresses that are told to peers. Only in `default`.
        service_cluster_ips: Vec<ServiceNetwork> = "serviceClusterIPs" empty,
        /// Whether load-balancer addresses are told as their networks rather than one by one.
        service_load_balancer_aggregation: Switch = "serviceLoadBalancerAggregation" default(Switch::Enabled),
        /// The password of the sessions of the mesh. Only in `default`.
        node_mesh_password: Option<Password> = "nodeMeshPassword" optional,
        /// How long nodes of the mesh keep the routes of one that restarts (RFC 4724). Only in `default`.
        node_mesh_max_restart_time: Option<GoDuration> = "nodeMeshMaxRestartTime" optional("120s"),
        /// Which addresses are listened on; `None` is all. Only that of `default` counts.
        bind_mode: Option<BindMode> = "bindMode" optional("None"),
        /// Interfaces whose routes are not told; `*` stands for any text. Only that of `default` counts.
        ignored_interfaces: Vec<String> = "ignoredInterfaces" empty [Limit::Each(&Limit::Chars(1, 15, "_.-*"))],
        /// The address that local workloads peer with over IPv4. Only that of `default` counts.
        local_workload_peering_ipv4: Option<Ipv4Addr> = "localWorkloadPeeringIPV4" optional,
        /// The address that local workloads peer with over IPv6. Only that of `default` counts.
        local_workload_peering_ipv6: Option<Ipv6Addr> = "localWorkloadPeeringIPV6" optional,
        /// Which routes between nodes are written from what BGP learned; the route programmer writes the others.
        program_cluster_routes: Option<ProgramClusterRoutes> = "programClusterRoutes" optional("EnabledNoEncapOnly"),
        /// The metric of ordinary IPv4 routes; `None` is 1024. Only that of `default` counts.
        ipv4_normal_route_priority: Option<u32> = "ipv4NormalRoutePriority" optional(1024) [Limit::Range(1, MAX_ROUTE_PRIORITY)],
        /// The metric of ordinary IPv6 routes; `None` is 1024. Only that of `default` counts.
        ipv6_normal_route_priority: Option<u32> = "ipv6NormalRoutePriority" optional(1024) [Limit::Range(1, MAX_ROUTE_PRIORITY)],
        /// The monitoring stations that are told of sessions and routes (BMP, RFC 7854). Ours: Calico has no name for them.
        bmp_stations: Vec<BmpStation> = "bmpStations" empty [Limit::Items(0, 16)],
    }
    check = check;
}

wire_struct! {
    /// A name for a community.
    pub struct NamedCommunity {
        /// The name.
        name: String = "name" required,
        /// The community.
        value: Community = "value" required,
    }
}

wire_struct! {
    /// Communities for the routes inside a network.
    pub struct PrefixAdvertisement {
        /// The network.
        cidr: Cidr = "cidr" required,
        /// Names or values of communities.
        communities: Vec<String> = "communities" empty [Limit::Items(0, 50)],
    }
}

wire_struct! {
    /// A network of service addresses.
    pub struct ServiceNetwork {
        /// The network.
        cidr: Cidr = "cidr" required,
    }
}

wire_struct! {
    /// A monitoring station.
    pub struct BmpStation {
        /// Where it listens; the port must be given, because BMP has none of its own.
        address: PeerAddress = "address" required,
    }
}

wire_enum! {
    /// Which addresses are listened on.
    pub enum BindMode {
        /// All.
        All = "None",
        /// The node's own.
        NodeIp = "NodeIP",
    }
}

impl BgpConfiguration {
    /// The name of the configuration that is for the whole cluster.
    pub const DEFAULT: &'static str = "default";

    /// Makes a configuration in which nothing is set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            node_to_node_mesh_enabled: None,
            as_number: None,
            listen_port: None,
            log_severity_screen: Severity::Info,
            communities: Vec::new(),
            prefix_advertisements: Vec::new(),
            service_load_balancer_ips: Vec::new(),
            service_external_ips: Vec::new(),
            service_cluster_ips: Vec::new(),
            service_load_balancer_aggregation: Switch::Enabled,
            node_mesh_password: None,
            node_mesh_max_restart_time: None,
            bind_mode: None,
            ignored_interfaces: Vec::new(),
            local_workload_peering_ipv4: None,
            local_workload_peering_ipv6: None,
            program_cluster_routes: None,
            ipv4_normal_route_priority: None,
            ipv6_normal_route_priority: None,
            bmp_stations: Vec::new(),
        }
    }

    /// Returns the networks of services' addresses that are told to peers, of all kinds. Nodes find those addresses by
    /// themselves: no route to them is taken from a peer.
    pub fn service_networks(&self) -> impl Iterator<Item = Cidr> {
        let networks = self.service_cluster_ips.iter().chain(&self.service_external_ips);
        networks.chain(&self.service_load_balancer_ips).map(|network| network.cidr)
    }

    /// Returns the fields that are set and that only the cluster's configuration may set, by name.
    pub(crate) fn of_the_cluster_alone(&self) -> Vec<&'static str> {
        [
            ("nodeToNodeMeshEnabled", self.node_to_node_mesh_enabled.is_some()),
            ("asNumber", self.as_number.is_some()),
            ("serviceLoadBalancerIPs", !self.service_load_balancer_ips.is_empty()),
            ("serviceExternalIPs", !self.service_external_ips.is_empty()),
            ("serviceClusterIPs", !self.service_cluster_ips.is_empty()),
            ("nodeMeshPassword", self.node_mesh_password.is_some()),
            ("nodeMeshMaxRestartTime", self.node_mesh_max_restart_time.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, set)| set.then_some(key))
        .collect()
    }
}

impl Default for BgpConfiguration {
    fn default() -> Self {
        Self::new()
    }
}

fn check(configuration: &mut BgpConfiguration, mut rules: Rules<'_, '_, '_>) {
    if configuration.node_to_node_mesh_enabled == Some(false) {
        for (key, given) in [
            ("nodeMeshPassword", configuration.node_mesh_password.is_some()),
            ("nodeMeshMaxRestartTime", configuration.node_mesh_max_restart_time.is_some()),
        ] {
            if given {
                let rule = "must be absent when nodeToNodeMeshEnabled is false";
                rules.broken(key, &["nodeToNodeMeshEnabled"], rule);
            }
        }
    }
    if is_too_long_a_restart(configuration.node_mesh_max_restart_time.as_ref()) {
        rules.wrong("nodeMeshMaxRestartTime", RESTART_TIME_RULE);
    }
    if !configuration.communities.is_empty() && configuration.prefix_advertisements.is_empty() {
        rules.broken("communities", &[], "must be absent when no prefixAdvertisements use them");
    }
    for (i, advertisement) in configuration.prefix_advertisements.iter().enumerate() {
        for (j, text) in advertisement.communities.iter().enumerate() {
            let named = configuration.communities.iter().any(|community| community.name == *text);
            if !named && text.parse::<Community>().is_err() {
                let at = format!("prefixAdvertisements[{i}].communities[{j}]");
                let rule = "must be one of the names in communities, or a community such as 65000:1";
                rules.broken(&at, &[&at, "communities"], rule);
            }
        }
    }
    for (i, _) in configuration.bmp_stations.iter().enumerate().filter(|(_, s)| s.address.port.is_none()) {
        rules.wrong(&format!("bmpStations[{i}].address"), "must have a port, such as 10.0.0.1:11019");
    }
    for (i, _) in configuration.ignored_interfaces.iter().enumerate().filter(|(_, name)| *name == "*") {
        rules.wrong(&format!("ignoredInterfaces[{i}]"), "must not be every interface");
    }
}
