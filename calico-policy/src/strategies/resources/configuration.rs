//! Generators of what the cluster is configured to.

use calico_model::resource::bgp::ServiceNetwork;
use calico_model::resource::felix::{DenyAction, LoopPrevention, NatExclusions, NftablesMode};
use calico_model::resource::ipam::Switch;
use calico_model::resource::{
    AllowedUse, BgpConfiguration, EncapMode, EndpointToHostAction, FelixConfiguration, IpPool, ProtoPort,
};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::PORTS;
use super::{NETS, constant};

pub(super) fn pool() -> impl Strategy<Value = IpPool> {
    let encap = || prop_oneof![3 => Just(EncapMode::Never), 1 => Just(EncapMode::CrossSubnet)];
    let uses = prop_oneof![4 => Just(AllowedUse::Workload), 1 => Just(AllowedUse::LoadBalancer)];
    (select(&NETS[..]), encap(), encap(), any::<[bool; 2]>(), uses).prop_map(
        |(net, ipip_mode, vxlan_mode, [nat_outgoing, disabled], uses)| IpPool {
            ipip_mode,
            vxlan_mode,
            nat_outgoing,
            disabled,
            allowed_uses: vec![uses],
            ..IpPool::new(constant(net))
        },
    )
}

/// The networks of services, two of three kinds.
pub(super) fn services() -> impl Strategy<Value = BgpConfiguration> {
    let network = || select(&["10.0.1.0/24", "172.16.0.0/16", "fd01::/64"][..]);
    let network = || network().prop_map(|cidr| ServiceNetwork { cidr: constant(cidr) });
    (vec(network(), 0..3), vec(network(), 0..2)).prop_map(|(cluster, external)| BgpConfiguration {
        service_cluster_ips: cluster,
        service_external_ips: external,
        ..BgpConfiguration::default()
    })
}

pub(super) fn felix() -> impl Strategy<Value = FelixConfiguration> {
    let actions = [EndpointToHostAction::Drop, EndpointToHostAction::Accept, EndpointToHostAction::Return];
    let flags = (any::<[Option<bool>; 3]>(), weighted(0.3, select(&[Switch::Enabled, Switch::Disabled][..])));
    (
        weighted(0.5, select(actions.to_vec())),
        flags,
        weighted(0.6, Just("cali,tap")),
        (failsafes(), failsafes()),
        (
            weighted(0.4, select(&[LoopPrevention::Disabled, LoopPrevention::Reject][..])),
            weighted(0.3, Just(NatExclusions::PoolsAndHosts)),
            weighted(0.1, select(&["eth0", "eth+", "cali1"][..])),
            weighted(0.3, select(&["10.0.9.1", "203.0.113.7"][..])),
            weighted(0.3, select(&["0", "0:9", "1024", "1024:2047", "named"][..])),
        ),
        (weighted(0.3, Just(NftablesMode::Disabled)), deny_action(), deny_action()),
    )
        .prop_map(|(action, ([vxlan, ipip, invalid], flows), prefix, failsafes, outgoing, denies)| {
            FelixConfiguration {
                nftables_mode: denies.0,
                nftables_filter_deny_action: denies.1,
                iptables_filter_deny_action: denies.2,
                service_loop_prevention: outgoing.0,
                nat_outgoing_exclusions: outgoing.1,
                iptables_nat_outgoing_interface_filter: outgoing.2.map(str::to_owned),
                nat_outgoing_address: outgoing.3.map(constant),
                nat_port_range: outgoing.4.map(constant),
                default_endpoint_to_host_action: action,
                allow_vxlan_packets_from_workloads: vxlan,
                allow_ipip_packets_from_workloads: ipip,
                disable_conntrack_invalid_check: invalid,
                flow_reevaluation: flows,
                interface_prefix: prefix.map(str::to_owned),
                failsafe_inbound_host_ports: failsafes.0,
                failsafe_outbound_host_ports: failsafes.1,
                ..FelixConfiguration::new()
            }
        })
}

fn deny_action() -> impl Strategy<Value = Option<DenyAction>> {
    weighted(0.4, select(&[DenyAction::Drop, DenyAction::Reject][..]))
}

fn failsafes() -> impl Strategy<Value = Option<Vec<ProtoPort>>> {
    let net = weighted(0.4, select(&NETS[..]));
    let port = (net, select(&["TCP", "udp", "icmp"][..]), select(&PORTS[..]));
    let port = port.prop_map(|(net, protocol, port)| ProtoPort {
        net: net.map(constant),
        protocol: protocol.to_owned(),
        port,
    });
    weighted(0.7, vec(port, 0..3))
}
