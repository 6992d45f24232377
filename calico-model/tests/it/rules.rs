//! Every rule of every kind: what breaks it, and what is said of that.
//!
//! The rules are those of upstream's field validators, its CRD schemas and its rules between fields. Each row is a
//! resource, and all the faults that it has: path, value and rule.

use calico_model::resource::{API_VERSION, Document, ReadError};
use serde_json::{Value, json};

/// Returns the faults of a resource as a user is told them.
fn faults(kind: &str, metadata: Value, spec: Value) -> Vec<String> {
    let value = json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec});
    match Document::from_value(value).unwrap().check_input() {
        Err(ReadError::Invalid { faults, .. }) => faults.0.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("not of its fields: {error}"),
        Ok(_) => Vec::new(),
    }
}

macro_rules! rules {
    ($($test:ident { $($kind:literal $metadata:tt $spec:tt => [$($fault:literal),* $(,)?];)* })*) => {$(
        #[test]
        fn $test() {
            $(
                let spec = json!($spec);
                let found = faults($kind, json!($metadata), spec.clone());
                let expected: &[&str] = &[$($fault),*];
                assert_eq!(found, expected, "{} {spec}", $kind);
            )*
        }
    )*};
}

rules! {
    what_is_told_of_clusters_and_limits_is_checked {
        "ClusterInformation" {"name": "default"} {"clusterGUID": "0123456789abcdef0123456789abcdeg"} => [
            r#"spec.clusterGUID = "0123456789abcdef0123456789abcdeg": must be 32 hex digits"#,
        ];
        "ClusterInformation" {"name": "default"} {"clusterGUID": ""} => [];
        "FelixConfiguration" {"name": "default"} {"logActionRateLimit": "9999/day"} => [];
        "FelixConfiguration" {"name": "default"} {"logActionRateLimit": "05/minute"} => [
            r#"spec.logActionRateLimit = "05/minute": must be a number from 1 to 9999, '/' and second, minute, hour or day"#,
        ];
        "FelixConfiguration" {"name": "default"} {"logActionRateLimit": "5/week"} => [
            r#"spec.logActionRateLimit = "5/week": must be a number from 1 to 9999, '/' and second, minute, hour or day"#,
        ];
        "WorkloadEndpoint" {"name": "n-cni-c-eth0", "namespace": "default"} {"node": "n", "qosControls": {"ingressBandwidth": -1, "egressPacketRate": "fast"}} => [
            r#"spec.qosControls.ingressBandwidth = -1: must be a whole number from 0 to 18446744073709551615"#,
            r#"spec.qosControls.egressPacketRate = "fast": must be a whole number from 0 to 18446744073709551615"#,
        ];
    }

    pools_are_checked {
        "IPPool" {"name": "x"} {} => [
            r#"spec.cidr: is required"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.1/16"} => [
            r#"spec.cidr = "10.0.0.1/16": must be a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "169.254.1.0/24"} => [
            r#"spec.cidr = "169.254.1.0/24": must not overlap a link-local network"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "fe80::/64"} => [
            r#"spec.cidr = "fe80::/64": must not overlap a link-local network"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.0/16", "blockSize": 19} => [
            r#"spec.blockSize = 19: must be from 20 to 32 in an IPv4 pool"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.0/16", "blockSize": 33} => [
            r#"spec.blockSize = 33: must be from 20 to 32 in an IPv4 pool"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "fd00::/64", "blockSize": 115} => [
            r#"spec.blockSize = 115: must be from 116 to 128 in an IPv6 pool"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.0/27"} => [
            r#"spec.cidr = "10.0.0.0/27": must hold at least one block of /26"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "CrossSubnet"} => [
            r#"spec.ipipMode = "Always": must be Never when vxlanMode is not"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "fd00::/64", "ipipMode": "Always"} => [
            r#"spec.ipipMode = "Always": must be Never in an IPv6 pool"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.0/16", "ipipMode": "always", "vxlanMode": "Sometimes"} => [
            r#"spec.ipipMode = "always": must be one of Never, Always, CrossSubnet"#,
            r#"spec.vxlanMode = "Sometimes": must be one of Never, Always, CrossSubnet"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer", "Workload"]} => [
            r#"spec.allowedUses = ["LoadBalancer","Workload"]: must have no other use beside LoadBalancer"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "ipipMode": "Always", "disableBGPExport": true, "nodeSelector": "a == 'b'"} => [
            r#"spec.ipipMode = "Always": must be Never when allowedUses is LoadBalancer"#,
            r#"spec.disableBGPExport = true: must not be set when allowedUses is LoadBalancer"#,
            r#"spec.nodeSelector = "a == 'b'": must be all() when allowedUses is LoadBalancer"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.0/16", "allowedUses": ["Tunnel"], "namespaceSelector": "all()"} => [
            r#"spec.namespaceSelector = "all()": must be absent when allowedUses has Tunnel"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.0/16", "allowedUses": ["Workload"], "nodeSelector": "global()", "namespaceSelector": "global()"} => [
            r#"spec.nodeSelector = "global()": must not use global()"#,
            r#"spec.namespaceSelector = "global()": must not use global()"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.0/16", "allowedUses": ["Service"], "assignmentMode": "Auto"} => [
            r#"spec.allowedUses[0] = "Service": must be one of Workload, Tunnel, LoadBalancer"#,
            r#"spec.assignmentMode = "Auto": must be one of Automatic, Manual"#,
        ];
    }

    a_rule_between_fields_is_told_together_with_what_is_wrong_with_others {
        "IPPool" {"name": "X"} {"cidr": "10.0.0.0/16", "blockSize": 19, "ipipMode": "Always", "vxlanMode": "Always", "nodeSelector": "a = b", "natOutgoing": "yes"} => [
            r#"metadata.name = "X": must be a name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"#,
            r#"spec.natOutgoing = "yes": must be true or false"#,
            r#"spec.nodeSelector = "a = b": selector is invalid at column 3: expected a test after the label: "==", "!=", "in", "not in", "contains", "starts with" or "ends with", found '='"#,
            r#"spec.blockSize = 19: must be from 20 to 32 in an IPv4 pool"#,
            r#"spec.ipipMode = "Always": must be Never when vxlanMode is not"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "fd00::/64", "ipipMode": "Always", "vxlanMode": "Sometimes"} => [
            r#"spec.vxlanMode = "Sometimes": must be one of Never, Always, CrossSubnet"#,
            r#"spec.ipipMode = "Always": must be Never in an IPv6 pool"#,
        ];
        "IPPool" {"name": "x"} {"cidr": "10.0.0.1/16", "ipipMode": "Always", "blockSize": 19} => [
            r#"spec.cidr = "10.0.0.1/16": must be a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length"#,
        ];
        "IPPool" {"name": "x"} {"allowedUses": ["LoadBalancer", "Dance"], "disableBGPExport": true} => [
            r#"spec.cidr: is required"#,
            r#"spec.allowedUses[1] = "Dance": must be one of Workload, Tunnel, LoadBalancer"#,
        ];
        "IPAMConfiguration" {"name": "default"} {"maxBlocksPerHost": 1000001, "ipCooldownSeconds": "long"} => [
            r#"spec.maxBlocksPerHost = 1000001: must be from 0 to 1000000"#,
            r#"spec.ipCooldownSeconds = "long": must be a whole number from 0 to 4294967295"#,
            r#"spec.maxBlocksPerHost = 1000001: must be 0 unless strictAffinity is true"#,
        ];
        "IPAMConfiguration" {"name": "default"} {"maxBlocksPerHost": 1, "strictAffinity": "no"} => [
            r#"spec.strictAffinity = "no": must be true or false"#,
        ];
        "BGPPeer" {"name": "x"} {"node": "N", "nodeSelector": "all()", "peerIP": "x", "peerSelector": "all()", "reachableBy": "10.0.0.1"} => [
            r#"spec.node = "N": must be a node name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"#,
            r#"spec.peerIP = "x": must be an address with an optional port, such as 10.0.0.1:179 or [fd00::1]:179"#,
            r#"spec.nodeSelector = "all()": must be absent when node is given"#,
            r#"spec.peerSelector = "all()": must be absent when peerIP is given"#,
            r#"spec.asNumber: is required when peerIP is given"#,
        ];
        "BGPConfiguration" {"name": "node.n1"} {"asNumber": 0, "listenPort": 0, "prefixAdvertisements": [{"cidr": "x", "communities": ["b"]}]} => [
            r#"spec.asNumber = 0: must be an AS number from 1 to 4294967295"#,
            r#"spec.listenPort = 0: must be from 1 to 65535"#,
            r#"spec.prefixAdvertisements[0].cidr = "x": must be a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length"#,
            r#"spec.prefixAdvertisements[0].communities[0] = "b": must be one of the names in communities, or a community such as 65000:1"#,
            r#"spec.asNumber = 0: must be absent: only the BGPConfiguration named default may set it"#,
        ];
        "BGPFilter" {"name": "x"} {"exportV4": [{"action": "Allow", "cidr": "fd00::/8", "matchOperator": "Inside"}, {"action": "Reject", "priority": -1, "operations": [{}]}]} => [
            r#"spec.exportV4[0].matchOperator = "Inside": must be one of Equal, NotEqual, In, NotIn"#,
            r#"spec.exportV4[0].action = "Allow": must be one of Accept, Reject"#,
            r#"spec.exportV4[1].priority = -1: must be a whole number from 0 to 4294967295"#,
            r#"spec.exportV4[1].operations[0] = {}: must have exactly one of addCommunity, prependASPath and setPriority"#,
            r#"spec.exportV4[1].operations = [{}]: must be absent unless action is Accept"#,
            r#"spec.exportV4[0].cidr = "fd00::/8": must be an IPv4 network"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"order": "first", "ingress": [{"action": "Allow", "protocol": "ICMP", "source": {"selector": "(", "ports": [80]}}, {"action": "Permit", "ipVersion": 4, "destination": {"services": {"name": "s"}, "nets": ["fd00::/8", "x"]}}]} => [
            r#"spec.order = "first": must be a number"#,
            r#"spec.ingress[0].source.selector = "(": selector is invalid at column 2: expected a label, "has(", "all()", "!" or "(", found the end"#,
            r#"spec.ingress[0].source.ports = [80]: must be absent: ICMP has no ports"#,
            r#"spec.ingress[1].action = "Permit": must be one of Allow, Deny, Log, Pass"#,
            r#"spec.ingress[1].destination.nets[1] = "x": must be a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length"#,
            r#"spec.ingress[1].destination.services = {"name":"s"}: must be the only field of its end of the rule"#,
            r#"spec.ingress[1].destination.services = {"name":"s"}: must be absent: only the source of ingress and the destination of egress may be services"#,
        ];
        "GlobalNetworkPolicy" {"name": "x"} {"preDNAT": true, "order": "first", "egress": [{"action": "Permit"}], "namespaceSelector": 5} => [
            r#"spec.order = "first": must be a number"#,
            r#"spec.egress[0].action = "Permit": must be one of Allow, Deny, Log, Pass"#,
            r#"spec.namespaceSelector = 5: must be text"#,
            r#"spec.applyOnForward: must be true when preDNAT is"#,
            r#"spec.egress = [{"action":"Permit"}]: must be absent when preDNAT is set"#,
        ];
        "WorkloadEndpoint" {"name": "n-cni-c-eth0"} {"node": "N", "ipNetworks": ["10.0.0.0/24", "x"], "ipNATs": [{"internalIP": "y", "externalIP": "10.0.0.1"}], "ports": [{"protocol": "ICMP", "port": 0}]} => [
            r#"metadata.namespace: is required: a WorkloadEndpoint lives in one"#,
            r#"spec.node = "N": must be a node name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"#,
            r#"spec.ipNetworks[1] = "x": must be a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length"#,
            r#"spec.ipNATs[0].internalIP = "y": must be an address without a prefix length"#,
            r#"spec.ports[0].port = 0: must be from 1 to 65535"#,
            r#"spec.ports[0].protocol = "ICMP": must be TCP, UDP or SCTP"#,
            r#"spec.ipNetworks[0] = "10.0.0.0/24": must be a single address"#,
        ];
        "FelixConfiguration" {"name": "node.n1"} {"nodeSelector": "(", "routeTableRange": {"min": 0, "max": 251}, "routeTableRanges": "all", "interfacePrefix": "a/b"} => [
            r#"spec.routeTableRanges = "all": must be a list"#,
            r#"spec.nodeSelector = "(": selector is invalid at column 2: expected a label, "has(", "all()", "!" or "(", found the end"#,
            r#"spec.interfacePrefix = "a/b": must be a comma-separated list of 1 to 11 letters, digits, '_', '.' or '-' each"#,
            r#"spec.routeTableRanges = "all": must be absent when routeTableRange is given"#,
            r#"spec.routeTableRange = {"max":251,"min":0}: must be inside 1 to 250, with min not above max"#,
            r#"spec.nodeSelector = "(": must be absent from the FelixConfiguration named node.n1"#,
        ];
        "Tier" {"name": "default"} {"order": "first", "defaultAction": "Pass"} => [
            r#"spec.order = "first": must be a number"#,
            r#"spec.defaultAction = "Pass": must be Deny: the tier's action is fixed"#,
        ];
        "StagedNetworkPolicy" {"name": "p", "namespace": "n"} {"stagedAction": "Delete", "selector": "("} => [
            r#"spec.selector = "(": selector is invalid at column 2: expected a label, "has(", "all()", "!" or "(", found the end"#,
            r#"spec.selector = "(": must be absent when stagedAction is Delete"#,
        ];
        "Node" {"name": "x"} {"bgp": {"asNumber": 0, "ipv4Address": "fd00::1"}} => [
            r#"spec.bgp.asNumber = 0: must be an AS number from 1 to 4294967295"#,
            r#"spec.bgp.ipv4Address = "fd00::1": must be an IPv4 address"#,
        ];
    }

    reservations_are_checked {
        "IPReservation" {"name": "x"} {"reservedCIDRs": ["10.0.0.1/16", "x"]} => [
            r#"spec.reservedCIDRs[0] = "10.0.0.1/16": must be a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length"#,
            r#"spec.reservedCIDRs[1] = "x": must be a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length"#,
        ];
    }

    the_ipam_configuration_is_checked {
        "IPAMConfiguration" {"name": "default"} {"strictAffinity": true, "maxBlocksPerHost": 1000001} => [
            r#"spec.maxBlocksPerHost = 1000001: must be from 0 to 1000000"#,
        ];
        "IPAMConfiguration" {"name": "default"} {"maxBlocksPerHost": 1, "autoAllocateBlocks": false} => [
            r#"spec.maxBlocksPerHost = 1: must be 0 unless strictAffinity is true"#,
            r#"spec.autoAllocateBlocks = false: must be true unless strictAffinity is true"#,
        ];
        "IPAMConfiguration" {"name": "default"} {"ipCooldownSeconds": 1201, "kubeVirtVMAddressPersistence": "On"} => [
            r#"spec.kubeVirtVMAddressPersistence = "On": must be one of Enabled, Disabled"#,
            r#"spec.ipCooldownSeconds = 1201: must be from 0 to 1200"#,
        ];
        "IPAMConfiguration" {"name": "other"} {} => [
            r#"metadata.name = "other": must be default: there is one IPAMConfiguration"#,
        ];
    }

    bgp_configurations_are_checked {
        "BGPConfiguration" {"name": "default"} {"nodeToNodeMeshEnabled": false, "nodeMeshPassword": {"secretKeyRef": {"name": "s", "key": "k"}}, "nodeMeshMaxRestartTime": "10s"} => [
            r#"spec.nodeMeshPassword = {"secretKeyRef":{"key":"k","name":"s"}}: must be absent when nodeToNodeMeshEnabled is false"#,
            r#"spec.nodeMeshMaxRestartTime = "10s": must be absent when nodeToNodeMeshEnabled is false"#,
        ];
        "BGPConfiguration" {"name": "default"} {"communities": [{"name": "a", "value": "1:2"}]} => [
            r#"spec.communities = [{"name":"a","value":"1:2"}]: must be absent when no prefixAdvertisements use them"#,
        ];
        "BGPConfiguration" {"name": "default"} {"communities": [{"name": "a", "value": "65536:1"}, {"value": "1:2:4294967296"}]} => [
            r#"spec.communities[0].value = "65536:1": must be a community: aa:nn with 16-bit halves, or aa:nn:mm with 32-bit parts"#,
            r#"spec.communities[1].name: is required"#,
            r#"spec.communities[1].value = "1:2:4294967296": must be a community: aa:nn with 16-bit halves, or aa:nn:mm with 32-bit parts"#,
            r#"spec.communities = [{"name":"a","value":"65536:1"},{"value":"1:2:4294967296"}]: must be absent when no prefixAdvertisements use them"#,
        ];
        "BGPConfiguration" {"name": "default"} {"prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["1:2", "b", "1:2:3:4"]}]} => [
            r#"spec.prefixAdvertisements[0].communities[1] = "b": must be one of the names in communities, or a community such as 65000:1"#,
            r#"spec.prefixAdvertisements[0].communities[2] = "1:2:3:4": must be one of the names in communities, or a community such as 65000:1"#,
        ];
        "BGPConfiguration" {"name": "default"} {"bmpStations": [{"address": "10.0.0.1:11019"}, {"address": "10.0.0.1"}, {}]} => [
            r#"spec.bmpStations[2].address: is required"#,
            r#"spec.bmpStations[1].address = "10.0.0.1": must have a port, such as 10.0.0.1:11019"#,
        ];
        "BGPConfiguration" {"name": "default"} {"ignoredInterfaces": ["eth*", "*", "a b", "abcdefghijklmnop"]} => [
            r#"spec.ignoredInterfaces[2] = "a b": must be 1 to 15 letters, digits or '_', '.', '-', '*'"#,
            r#"spec.ignoredInterfaces[3] = "abcdefghijklmnop": must be 1 to 15 letters, digits or '_', '.', '-', '*'"#,
            r#"spec.ignoredInterfaces[1] = "*": must not be every interface"#,
        ];
        "BGPConfiguration" {"name": "default"} {"ignoredInterfaces": ["eth*", "*"]} => [
            r#"spec.ignoredInterfaces[1] = "*": must not be every interface"#,
        ];
        "BGPConfiguration" {"name": "node.n1"} {"nodeToNodeMeshEnabled": true, "asNumber": 64513, "serviceClusterIPs": [{"cidr": "10.0.0.0/8"}], "serviceExternalIPs": [{"cidr": "10.0.0.0/8"}], "serviceLoadBalancerIPs": [{"cidr": "10.0.0.0/8"}], "nodeMeshPassword": {}, "nodeMeshMaxRestartTime": "1s"} => [
            r#"spec.nodeToNodeMeshEnabled = true: must be absent: only the BGPConfiguration named default may set it"#,
            r#"spec.asNumber = 64513: must be absent: only the BGPConfiguration named default may set it"#,
            r#"spec.serviceLoadBalancerIPs = [{"cidr":"10.0.0.0/8"}]: must be absent: only the BGPConfiguration named default may set it"#,
            r#"spec.serviceExternalIPs = [{"cidr":"10.0.0.0/8"}]: must be absent: only the BGPConfiguration named default may set it"#,
            r#"spec.serviceClusterIPs = [{"cidr":"10.0.0.0/8"}]: must be absent: only the BGPConfiguration named default may set it"#,
            r#"spec.nodeMeshPassword = {}: must be absent: only the BGPConfiguration named default may set it"#,
            r#"spec.nodeMeshMaxRestartTime = "1s": must be absent: only the BGPConfiguration named default may set it"#,
        ];
        "BGPConfiguration" {"name": "default"} {"listenPort": 0, "ipv4NormalRoutePriority": 0, "ipv6NormalRoutePriority": 2147483647u32} => [
            r#"spec.listenPort = 0: must be from 1 to 65535"#,
            r#"spec.ipv4NormalRoutePriority = 0: must be from 1 to 2147483646"#,
            r#"spec.ipv6NormalRoutePriority = 2147483647: must be from 1 to 2147483646"#,
        ];
        "BGPConfiguration" {"name": "default"} {"asNumber": "65536.1", "logSeverityScreen": "Loud", "bindMode": "Node", "serviceLoadBalancerAggregation": "On", "programClusterRoutes": "Yes", "localWorkloadPeeringIPV4": "fd00::1", "localWorkloadPeeringIPV6": "10.0.0.1", "nodeMeshMaxRestartTime": "1 day"} => [
            r#"spec.asNumber = "65536.1": must be an AS number from 1 to 4294967295, or in dotted form such as 1.10"#,
            r#"spec.logSeverityScreen = "Loud": must be one of Trace, Debug, Info, Warning, Error, Fatal"#,
            r#"spec.serviceLoadBalancerAggregation = "On": must be one of Enabled, Disabled"#,
            r#"spec.nodeMeshMaxRestartTime = "1 day": must be a duration such as 1m30s: numbers of ms, s, m or h"#,
            r#"spec.bindMode = "Node": must be one of None, NodeIP"#,
            r#"spec.localWorkloadPeeringIPV4 = "fd00::1": must be an IPv4 address without a prefix length"#,
            r#"spec.localWorkloadPeeringIPV6 = "10.0.0.1": must be an IPv6 address without a prefix length"#,
            r#"spec.programClusterRoutes = "Yes": must be one of Disabled, Enabled, EnabledIPIPOnly, EnabledNoEncapOnly"#,
        ];
    }

    bgp_peers_are_checked {
        "BGPPeer" {"name": "x"} {} => [];
        "BGPPeer" {"name": "x"} {"password": {"secretKeyRef": {"name": "s", "key": "k"}}} => [];
        "BGPPeer" {"name": "x"} {"node": "n", "nodeSelector": "all()", "peerIP": "10.0.0.1", "asNumber": 1} => [
            r#"spec.nodeSelector = "all()": must be absent when node is given"#,
        ];
        "BGPPeer" {"name": "x"} {"peerIP": "10.0.0.1", "peerSelector": "all()"} => [
            r#"spec.peerSelector = "all()": must be absent when peerIP is given"#,
            r#"spec.asNumber: is required when peerIP is given"#,
        ];
        "BGPPeer" {"name": "x"} {"peerSelector": "all()", "asNumber": 65000} => [
            r#"spec.asNumber = 65000: must be absent when peerSelector is given"#,
        ];
        "BGPPeer" {"name": "x"} {"peerIP": "10.0.0.1"} => [
            r#"spec.asNumber: is required when peerIP is given"#,
        ];
        "BGPPeer" {"name": "x"} {"localWorkloadSelector": "all()", "peerIP": "10.0.0.1", "asNumber": 1} => [
            r#"spec.peerIP = "10.0.0.1": must be absent when localWorkloadSelector is given"#,
        ];
        "BGPPeer" {"name": "x"} {"localWorkloadSelector": "all()", "peerSelector": "all()"} => [
            r#"spec.peerSelector = "all()": must be absent when localWorkloadSelector is given"#,
            r#"spec.asNumber: is required when localWorkloadSelector is given"#,
        ];
        "BGPPeer" {"name": "x"} {"peerCIDR": "10.0.0.0/24", "peerIP": "10.0.0.1", "peerSelector": "all()"} => [
            r#"spec.peerSelector = "all()": must be absent when peerIP is given"#,
            r#"spec.peerIP = "10.0.0.1": must be absent when peerCIDR is given"#,
            r#"spec.peerSelector = "all()": must be absent when peerCIDR is given"#,
            r#"spec.asNumber: is required when peerIP is given"#,
            r#"spec.asNumber: is required when peerCIDR is given"#,
        ];
        "BGPPeer" {"name": "x"} {"peerCIDR": "10.0.0.0/24", "asNumber": 1, "localWorkloadSelector": "all()", "maxPeers": 0, "maxPrefixes": 0} => [
            r#"spec.maxPeers = 0: must be from 1 to 65535"#,
            r#"spec.maxPrefixes = 0: must be from 1 to 4294967295"#,
            r#"spec.localWorkloadSelector = "all()": must be absent when peerCIDR is given"#,
        ];
        "BGPPeer" {"name": "x"} {"peerCIDR": "10.0.0.0/24", "asNumber": 1, "maxPeers": 2000, "maxPrefixes": 1000000, "holdTime": "3s", "keepaliveTime": "1s", "restartMode": "LongLivedGracefulRestart", "longLivedStaleTime": "16777215s", "failureDetectionMode": "BFDIfDirectlyConnected"} => [];
        "BGPPeer" {"name": "x"} {"maxPeers": 7, "longLivedStaleTime": "1h", "holdTime": "2s", "keepaliveTime": "500ms"} => [
            r#"spec.maxPeers = 7: must be absent when peerCIDR is"#,
            r#"spec.longLivedStaleTime = "1h": must be absent unless restartMode is LongLivedGracefulRestart"#,
            r#"spec.keepaliveTime = "500ms": must be whole seconds from 1s to 21845s, a third of the longest hold time"#,
            r#"spec.holdTime = "2s": must be 0s, or whole seconds from 3s to 65535s"#,
        ];
        "BGPPeer" {"name": "x"} {"restartMode": "LongLivedGracefulRestart", "longLivedStaleTime": "16777216s", "holdTime": "18h12m16s", "failureDetectionMode": "BFD"} => [
            r#"spec.failureDetectionMode = "BFD": must be one of None, BFDIfDirectlyConnected"#,
            r#"spec.holdTime = "18h12m16s": must be 0s, or whole seconds from 3s to 65535s"#,
            r#"spec.longLivedStaleTime = "16777216s": must be whole seconds from 1s to 16777215s"#,
        ];
        "BGPPeer" {"name": "x"} {"maxRestartTime": "4095s"} => [];
        "BGPPeer" {"name": "x"} {"maxRestartTime": "68m16s"} => [
            r#"spec.maxRestartTime = "68m16s": must be at most 4095s, for which BGP has room"#,
        ];
        "BGPConfiguration" {"name": "default"} {"nodeMeshMaxRestartTime": "4095s"} => [];
        "BGPConfiguration" {"name": "default"} {"nodeMeshMaxRestartTime": "4096s"} => [
            r#"spec.nodeMeshMaxRestartTime = "4096s": must be at most 4095s, for which BGP has room"#,
        ];
        "BGPPeer" {"name": "x"} {"peerSelector": "all()", "reachableBy": "10.0.0.1"} => [
            r#"spec.reachableBy = "10.0.0.1": must be absent when peerIP is"#,
        ];
        "BGPPeer" {"name": "x"} {"peerIP": "fd00::1", "asNumber": 1, "reachableBy": "10.0.0.1"} => [
            r#"spec.reachableBy = "10.0.0.1": must be an IPv6 address, as peerIP is"#,
        ];
        "BGPPeer" {"name": "x"} {"peerIP": "10.0.0.1", "asNumber": 1, "keepOriginalNextHop": true, "nextHopMode": "Self"} => [
            r#"spec.keepOriginalNextHop = true: must be absent when nextHopMode is given"#,
        ];
        "BGPPeer" {"name": "x"} {"peerIP": "10.0.0.1", "asNumber": 1, "keepOriginalNextHop": false, "nextHopMode": "Self"} => [];
        "BGPPeer" {"name": "x"} {"node": "n", "nodeSelector": "", "peerIP": "10.0.0.1", "asNumber": 1, "peerSelector": "", "localWorkloadSelector": "", "reachableBy": "", "sourceAddress": ""} => [];
        "BGPPeer" {"name": "x"} {"node": "", "nodeSelector": "all()", "peerIP": "", "peerSelector": "all()"} => [];
        "BGPFilter" {"name": "x"} {"importV4": [{"action": "Reject", "cidr": "", "matchOperator": "", "source": "", "interface": "", "peerType": ""}]} => [];
        "BGPFilter" {"name": "x"} {"importV4": [{"action": "Reject", "priority": 1}, {"action": "Reject", "priority": 2147483646}, {"action": "Reject", "priority": 0}]} => [
            r#"spec.importV4[2].priority = 0: must be from 1 to 2147483646"#,
        ];
        "BGPPeer" {"name": "x"} {"peerIP": "10.0.0.1:0", "asNumber": 0, "localASNumber": -1, "sourceAddress": "eth0", "maxRestartTime": 10, "keepaliveTime": "x", "numAllowedLocalASNumbers": -1, "ttlSecurity": 256, "reachableBy": "gw", "filters": ["Bad"], "nextHopMode": "Me", "reversePeering": "No", "password": "secret", "localWorkloadSelector": "a = b"} => [
            r#"spec.peerIP = "10.0.0.1:0": must be an address with an optional port, such as 10.0.0.1:179 or [fd00::1]:179"#,
            r#"spec.asNumber = 0: must be an AS number from 1 to 4294967295"#,
            r#"spec.localASNumber = -1: must be an AS number from 1 to 4294967295"#,
            r#"spec.localWorkloadSelector = "a = b": selector is invalid at column 3: expected a test after the label: "==", "!=", "in", "not in", "contains", "starts with" or "ends with", found '='"#,
            r#"spec.nextHopMode = "Me": must be one of Auto, Self, Keep"#,
            r#"spec.password = "secret": must be an object"#,
            r#"spec.sourceAddress = "eth0": must be one of UseNodeIP, None"#,
            r#"spec.maxRestartTime = 10: must be text"#,
            r#"spec.keepaliveTime = "x": must be a duration such as 1m30s: numbers of ms, s, m or h"#,
            r#"spec.numAllowedLocalASNumbers = -1: must be a whole number from 0 to 4294967295"#,
            r#"spec.ttlSecurity = 256: must be a whole number from 0 to 255"#,
            r#"spec.reachableBy = "gw": must be an address without a prefix length"#,
            r#"spec.filters[0] = "Bad": must be a name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"#,
            r#"spec.reversePeering = "No": must be one of Auto, Manual"#,
            r#"spec.peerIP = "10.0.0.1:0": must be absent when localWorkloadSelector is given"#,
        ];
        "BGPPeer" {"name": "x"} {"peerIP": "10.0.0.1", "asNumber": 1, "password": {"secretKeyRef": {"name": "s"}}} => [
            r#"spec.password.secretKeyRef.key: is required"#,
        ];
    }

    bgp_filters_are_checked {
        "BGPFilter" {"name": "x"} {"exportV4": [{"action": "Accept", "cidr": "10.0.0.0/8"}, {"action": "Accept", "matchOperator": "In"}]} => [
            r#"spec.exportV4[0].matchOperator: must be given together with cidr"#,
            r#"spec.exportV4[1].matchOperator = "In": must be given together with cidr"#,
        ];
        "BGPFilter" {"name": "x"} {"importV4": [{"action": "Accept", "prefixLength": {"min": 8}}]} => [
            r#"spec.importV4[0].cidr: is required when prefixLength is given"#,
        ];
        "BGPFilter" {"name": "x"} {"exportV4": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 0, "max": 33}}], "importV6": [{"action": "Accept", "cidr": "fd00::/8", "matchOperator": "In", "prefixLength": {"max": 129}}]} => [
            r#"spec.exportV4[0].prefixLength.max = 33: must be from 0 to 32"#,
            r#"spec.importV6[0].prefixLength.max = 129: must be from 0 to 128"#,
        ];
        "BGPFilter" {"name": "x"} {"exportV4": [{"action": "Accept", "cidr": "fd00::/8", "matchOperator": "In"}], "exportV6": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In"}]} => [
            r#"spec.exportV4[0].cidr = "fd00::/8": must be an IPv4 network"#,
            r#"spec.exportV6[0].cidr = "10.0.0.0/8": must be an IPv6 network"#,
        ];
        "BGPFilter" {"name": "x"} {"exportV4": [{"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}]} => [
            r#"spec.exportV4[0].operations = [{"setPriority":{"value":1}}]: must be absent unless action is Accept"#,
        ];
        "BGPFilter" {"name": "x"} {"exportV4": [{"action": "Accept", "operations": [{}, {"setPriority": {"value": 1}, "addCommunity": {"value": "1:2"}}]}]} => [
            r#"spec.exportV4[0].operations[0] = {}: must have exactly one of addCommunity, prependASPath and setPriority"#,
            r#"spec.exportV4[0].operations[1] = {"addCommunity":{"value":"1:2"},"setPriority":{"value":1}}: must have exactly one of addCommunity, prependASPath and setPriority"#,
        ];
        "BGPFilter" {"name": "x"} {"exportV4": [{"action": "Accept", "operations": []}, {"action": "Accept", "operations": [{"setPriority": {"value": 0}}, {"prependASPath": {"prefix": []}}, {"addCommunity": {"value": "1"}}]}]} => [
            r#"spec.exportV4[0].operations = []: must have 1 to 10 items"#,
            r#"spec.exportV4[1].operations[0].setPriority.value = 0: must be from 1 to 2147483646"#,
            r#"spec.exportV4[1].operations[1].prependASPath.prefix = []: must have 1 to 10 items"#,
            r#"spec.exportV4[1].operations[2].addCommunity.value = "1": must be a community: aa:nn with 16-bit halves, or aa:nn:mm with 32-bit parts"#,
        ];
        "BGPFilter" {"name": "x"} {"exportV4": [{"action": "Allow", "source": "Kernel", "interface": "eth0/1", "peerType": "ebgp", "communities": {"values": ["1:1", "2:2"]}, "asPathPrefix": [0], "priority": -1, "matchOperator": "Inside"}, {}]} => [
            r#"spec.exportV4[0].matchOperator = "Inside": must be one of Equal, NotEqual, In, NotIn"#,
            r#"spec.exportV4[0].source = "Kernel": must be one of RemotePeers"#,
            r#"spec.exportV4[0].interface = "eth0/1": must be 1 to 15 letters, digits or '_', '.', '-', '*'"#,
            r#"spec.exportV4[0].peerType = "ebgp": must be one of eBGP, iBGP"#,
            r#"spec.exportV4[0].communities.values = ["1:1","2:2"]: must have exactly 1 item"#,
            r#"spec.exportV4[0].asPathPrefix[0] = 0: must be an AS number from 1 to 4294967295"#,
            r#"spec.exportV4[0].priority = -1: must be a whole number from 0 to 4294967295"#,
            r#"spec.exportV4[0].action = "Allow": must be one of Accept, Reject"#,
            r#"spec.exportV4[0].matchOperator = "Inside": must be given together with cidr"#,
            r#"spec.exportV4[1].action: is required"#,
        ];
    }

    status_requests_are_checked {
        "CalicoNodeStatus" {"name": "x"} {} => [
            r#"spec.node: is required"#,
        ];
        "CalicoNodeStatus" {"name": "x"} {"node": "n", "classes": ["Agent", "Kernel"], "updatePeriodSeconds": 86401} => [
            r#"spec.classes[1] = "Kernel": must be one of Agent, BGP, Routes"#,
            r#"spec.updatePeriodSeconds = 86401: must be from 0 to 86400"#,
        ];
    }

    the_controllers_configuration_is_checked {
        "KubeControllersConfiguration" {"name": "default"} {"logSeverityScreen": "x", "healthChecks": "on", "etcdV3CompactionPeriod": "often", "prometheusMetricsPort": 65536, "debugProfilePort": -1, "controllers": {"node": {"reconcilerPeriod": 5, "syncLabels": true, "leakGracePeriod": "x", "hostEndpoint": {"autoCreate": "Yes", "createDefaultHostEndpoint": "No", "templates": [{"interfaceCIDRs": ["x"], "nodeSelector": "="}]}}, "policy": {"reconcilerPeriod": "x"}, "loadBalancer": {"assignIPs": "Some"}, "migration": {"policyNameMigrator": "x"}}} => [
            r#"spec.logSeverityScreen = "x": must be one of Trace, Debug, Info, Warning, Error, Fatal"#,
            r#"spec.healthChecks = "on": must be one of Enabled, Disabled"#,
            r#"spec.etcdV3CompactionPeriod = "often": must be a duration such as 1m30s: numbers of ms, s, m or h"#,
            r#"spec.prometheusMetricsPort = 65536: must be a whole number from 0 to 65535"#,
            r#"spec.debugProfilePort = -1: must be a whole number from 0 to 65535"#,
            r#"spec.controllers.node.reconcilerPeriod = 5: must be text"#,
            r#"spec.controllers.node.syncLabels = true: must be one of Enabled, Disabled"#,
            r#"spec.controllers.node.hostEndpoint.autoCreate = "Yes": must be one of Enabled, Disabled"#,
            r#"spec.controllers.node.hostEndpoint.createDefaultHostEndpoint = "No": must be one of Enabled, Disabled"#,
            r#"spec.controllers.node.hostEndpoint.templates[0].generateName: is required"#,
            r#"spec.controllers.node.hostEndpoint.templates[0].interfaceCIDRs[0] = "x": must be a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length"#,
            r#"spec.controllers.node.hostEndpoint.templates[0].nodeSelector = "=": selector is invalid at column 1: expected a label, "has(", "all()", "!" or "(", found '='"#,
            r#"spec.controllers.node.leakGracePeriod = "x": must be a duration such as 1m30s: numbers of ms, s, m or h"#,
            r#"spec.controllers.policy.reconcilerPeriod = "x": must be a duration such as 1m30s: numbers of ms, s, m or h"#,
            r#"spec.controllers.loadBalancer.assignIPs = "Some": must be one of AllServices, RequestedServicesOnly"#,
            r#"spec.controllers.migration.policyNameMigrator = "x": must be one of Enabled, Disabled"#,
        ];
        "KubeControllersConfiguration" {"name": "mine"} {} => [
            r#"metadata.name = "mine": must be default: there is one KubeControllersConfiguration"#,
        ];
    }

    policies_are_checked {
        "GlobalNetworkPolicy" {"name": "x"} {"doNotTrack": true, "preDNAT": true, "applyOnForward": true} => [
            r#"spec.preDNAT = true: must not be set together with doNotTrack"#,
        ];
        "GlobalNetworkPolicy" {"name": "x"} {"doNotTrack": true} => [
            r#"spec.applyOnForward: must be true when doNotTrack is"#,
        ];
        "GlobalNetworkPolicy" {"name": "x"} {"preDNAT": true, "applyOnForward": true, "egress": [{"action": "Allow"}]} => [
            r#"spec.egress = [{"action":"Allow"}]: must be absent when preDNAT is set"#,
        ];
        "GlobalNetworkPolicy" {"name": "x"} {"preDNAT": true, "applyOnForward": true, "types": ["Egress"]} => [
            r#"spec.types = ["Egress"]: must not have Egress when preDNAT is set"#,
        ];
        "GlobalNetworkPolicy" {"name": "x"} {"selector": "global()", "namespaceSelector": "global()", "serviceAccountSelector": "global()"} => [
            r#"spec.selector = "global()": must not use global(), which belongs into the namespaceSelector of a rule alone"#,
            r#"spec.serviceAccountSelector = "global()": must not use global(), which belongs into the namespaceSelector of a rule alone"#,
            r#"spec.namespaceSelector = "global()": must not use global(), which belongs into the namespaceSelector of a rule alone"#,
        ];
        "GlobalNetworkPolicy" {"name": "x"} {"namespaceSelector": "global()"} => [
            r#"spec.namespaceSelector = "global()": must not use global(), which belongs into the namespaceSelector of a rule alone"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"types": ["Ingress", "Ingress"]} => [
            r#"spec.types = ["Ingress","Ingress"]: must name each direction once"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"types": ["Ingress", "Egress", "Ingress"]} => [
            r#"spec.types = ["Ingress","Egress","Ingress"]: must have at most 2 items"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"types": ["ingress"], "order": "first", "performanceHints": ["Fast"], "tier": "A"} => [
            r#"spec.tier = "A": must be a name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"#,
            r#"spec.order = "first": must be a number"#,
            r#"spec.types[0] = "ingress": must be one of Ingress, Egress"#,
            r#"spec.performanceHints[0] = "Fast": must be one of AssumeNeededOnEveryNode"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": vec![json!({"action": "Allow"}); 1025]} => [
            r#"spec.ingress = [{"action":"Allow"},{"action":"Allow"},{"action":"Allow"},{"action":"Allow"},...: must have at most 1024 items"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"selector": "a".repeat(512) + " == '" + &"b".repeat(520) + "'"} => [
            r#"spec.selector = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...: must have at most 1024 characters"#,
        ];
        "NetworkPolicy" {"name": "a.b.c", "namespace": "n"} {} => [
            r#"metadata.name = "a.b.c": must be one or two labels of at most 63 characters with a dot between, or begin with knp.default. or ossg.default."#,
        ];
        "StagedNetworkPolicy" {"name": "ossg.other.c", "namespace": "n"} {} => [
            r#"metadata.name = "ossg.other.c": must be one or two labels of at most 63 characters with a dot between, or begin with knp.default. or ossg.default."#,
        ];
        "GlobalNetworkPolicy" {"name": "knp.default.c"} {} => [
            r#"metadata.name = "knp.default.c": must be one or two labels of at most 63 characters with a dot between, or begin with kcnp.kube-admin. or kcnp.kube-baseline."#,
        ];
        "StagedGlobalNetworkPolicy" {"name": "a.b.c"} {} => [
            r#"metadata.name = "a.b.c": must be one or two labels of at most 63 characters with a dot between, or begin with kcnp.kube-admin. or kcnp.kube-baseline."#,
        ];
    }

    rules_of_policies_are_checked {
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "allow"}, {}]} => [
            r#"spec.ingress[0].action = "allow": must be one of Allow, Deny, Log, Pass"#,
            r#"spec.ingress[1].action: is required"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "icmp": {"type": 8}}, {"action": "Allow", "protocol": "TCP", "icmp": {"type": 8}}]} => [
            r#"spec.ingress[0].protocol: must be ICMP or ICMPv6 when icmp is given"#,
            r#"spec.ingress[1].protocol = "TCP": must be ICMP or ICMPv6 when icmp is given"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "protocol": "ICMP", "icmp": {"type": 255}}, {"action": "Allow", "protocol": "ICMP", "icmp": {"code": 1}}, {"action": "Allow", "protocol": "ICMP", "icmp": {"type": 1, "code": 256}}]} => [
            r#"spec.ingress[0].icmp.type = 255: must be from 0 to 254"#,
            r#"spec.ingress[1].icmp.type: is required when code is given"#,
            r#"spec.ingress[2].icmp.code = 256: must be a whole number from 0 to 255"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "protocol": "ICMP", "ipVersion": 6}, {"action": "Allow", "protocol": 58, "ipVersion": 4}, {"action": "Allow", "notProtocol": "ICMPv6", "ipVersion": 4}, {"action": "Allow", "ipVersion": 5}]} => [
            r#"spec.ingress[0].ipVersion = 6: must be 4 when protocol is ICMP"#,
            r#"spec.ingress[1].ipVersion = 4: must be 6 when protocol is ICMPv6"#,
            r#"spec.ingress[2].ipVersion = 4: must be 6 when notProtocol is ICMPv6"#,
            r#"spec.ingress[3].ipVersion = 5: must be 4 or 6"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Deny", "http": {"methods": ["GET"]}}, {"action": "Allow", "protocol": "UDP", "http": {"methods": ["GET"]}}]} => [
            r#"spec.ingress[0].http = {"methods":["GET"]}: must be absent unless action is Allow"#,
            r#"spec.ingress[1].protocol = "UDP": must be TCP or absent when http is given"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"egress": [{"action": "Allow", "http": {"methods": ["GET"]}}]} => [
            r#"spec.egress[0].http = {"methods":["GET"]}: must be absent from an egress rule"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "http": {"paths": [{}, {"exact": "/", "prefix": "/"}]}}, {"action": "Allow", "http": {"methods": vec!["GET"; 21], "paths": vec![json!({"exact": "/"}); 21]}}]} => [
            r#"spec.ingress[0].http.paths[0] = {}: must have exactly one of exact and prefix"#,
            r#"spec.ingress[0].http.paths[1] = {"exact":"/","prefix":"/"}: must have exactly one of exact and prefix"#,
            r#"spec.ingress[1].http.methods = ["GET","GET","GET","GET","GET","GET","GET","GET","GET","GET","GET","GET","GET...: must have at most 20 items"#,
            r#"spec.ingress[1].http.paths = [{"exact":"/"},{"exact":"/"},{"exact":"/"},{"exact":"/"},{"exact":"/"},{"exac...: must have at most 20 items"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "destination": {"ports": [80]}}, {"action": "Allow", "protocol": "ICMP", "destination": {"notPorts": ["web"]}}]} => [
            r#"spec.ingress[0].destination.ports = [80]: must be absent unless protocol is TCP, UDP or SCTP"#,
            r#"spec.ingress[1].destination.notPorts = ["web"]: must be absent: ICMP has no ports"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "protocol": "tcp", "notProtocol": 256}]} => [
            r#"spec.ingress[0].protocol = "tcp": must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 0 to 255"#,
            r#"spec.ingress[0].notProtocol = 256: must be a whole number from 0 to 255"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "protocol": "TCP", "source": {"ports": [65536, "9:1", "a b"]}}]} => [
            r#"spec.ingress[0].source.ports[0] = 65536: must be a whole number from 0 to 65535"#,
            r#"spec.ingress[0].source.ports[1] = "9:1": must be a port from 0 to 65535, a range such as 8000:8080, or a name of 1 to 128 letters, digits, '_', '.' or '-'"#,
            r#"spec.ingress[0].source.ports[2] = "a b": must be a port from 0 to 65535, a range such as 8000:8080, or a name of 1 to 128 letters, digits, '_', '.' or '-'"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "source": {"nets": ["10.0.0.0/8"]}, "destination": {"nets": ["fd00::/8"]}}, {"action": "Allow", "ipVersion": 6, "source": {"notNets": ["10.0.0.0/8"]}}]} => [
            r#"spec.ingress[0] = {"action":"Allow","destination":{"nets":["fd00::/8"]},"source":{"nets":["10.0...: must not mix IPv4 and IPv6: write one rule for each"#,
            r#"spec.ingress[1] = {"action":"Allow","ipVersion":6,"source":{"notNets":["10.0.0.0/8"]}}: must not mix IPv4 and IPv6: write one rule for each"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "source": {"nets": ["10.0.0.1", "10.0.0.1/8"], "notNets": ["fd00::1"]}}]} => [
            r#"spec.ingress[0].source.nets[1] = "10.0.0.1/8": must be a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length"#,
            r#"spec.ingress[0].source.notNets[0] = "fd00::1": must be a network with its prefix length, such as 10.0.0.1/32"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "source": {"notNets": ["0.0.0.0/0"]}}, {"action": "Allow", "source": {"notNets": ["::/0"]}}]} => [
            r#"spec.ingress[0].source.notNets[0] = "0.0.0.0/0": must not be every address: the rule would match nothing"#,
            r#"spec.ingress[1].source.notNets[0] = "::/0": must not be every address: the rule would match nothing"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "source": {"nets": vec!["10.0.0.0/8"; 257]}}, {"action": "Allow", "protocol": "TCP", "source": {"ports": vec![1; 51]}}]} => [
            r#"spec.ingress[0].source.nets = ["10.0.0.0/8","10.0.0.0/8","10.0.0.0/8","10.0.0.0/8","10.0.0.0/8","10.0.0.0/8...: must have at most 256 items"#,
            r#"spec.ingress[1].source.ports = [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,...: must have at most 50 items"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "source": {"services": {"name": "s"}, "selector": "all()"}}, {"action": "Allow", "protocol": "TCP", "source": {"services": {"name": "s"}, "ports": [1]}}, {"action": "Allow", "source": {"services": {}}}]} => [
            r#"spec.ingress[0].source.services = {"name":"s"}: must be the only field of its end of the rule"#,
            r#"spec.ingress[1].source.services = {"name":"s"}: must be the only field of its end of the rule"#,
            r#"spec.ingress[2].source.services.name: is required"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "destination": {"services": {"name": "s"}}}]} => [
            r#"spec.ingress[0].destination.services = {"name":"s"}: must be absent: only the source of ingress and the destination of egress may be services"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"egress": [{"action": "Allow", "source": {"services": {"name": "s"}}}]} => [
            r#"spec.egress[0].source.services = {"name":"s"}: must be absent: only the source of ingress and the destination of egress may be services"#,
        ];
        "GlobalNetworkPolicy" {"name": "x"} {"ingress": [{"action": "Allow", "source": {"services": {"name": "s"}}}]} => [
            r#"spec.ingress[0].source.services.namespace: is required: a global policy has no namespace of its own"#,
        ];
        "NetworkPolicy" {"name": "p", "namespace": "n"} {"ingress": [{"action": "Allow", "source": {"selector": "global()", "notSelector": "global()", "serviceAccounts": {"selector": "global()"}, "namespaceSelector": "global() || has(a)"}}]} => [
            r#"spec.ingress[0].source.selector = "global()": must not use global(), which belongs into the namespaceSelector of a rule alone"#,
            r#"spec.ingress[0].source.notSelector = "global()": must not use global(), which belongs into the namespaceSelector of a rule alone"#,
            r#"spec.ingress[0].source.serviceAccounts.selector = "global()": must not use global(), which belongs into the namespaceSelector of a rule alone"#,
            r#"spec.ingress[0].source.namespaceSelector = "global() || has(a)": must be global() alone, or not use it"#,
        ];
    }

    host_endpoints_are_checked {
        "HostEndpoint" {"name": "x"} {} => [
            r#"spec.node: is required"#,
            r#"spec.interfaceName: is required when expectedIPs is empty"#,
        ];
        "HostEndpoint" {"name": "x"} {"node": "n"} => [
            r#"spec.interfaceName: is required when expectedIPs is empty"#,
        ];
        "HostEndpoint" {"name": "x"} {"node": "N", "interfaceName": "abcdefghijklmnop", "expectedIPs": ["10.0.0.0/8"], "profiles": ["P"], "ports": [{"name": "a b", "protocol": "TCP", "port": 0}, {"protocol": "TCP"}]} => [
            r#"spec.node = "N": must be a node name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"#,
            r#"spec.interfaceName = "abcdefghijklmnop": must be an interface name: 1 to 15 letters, digits, '_', '.' or '-'"#,
            r#"spec.expectedIPs[0] = "10.0.0.0/8": must be an address without a prefix length"#,
            r#"spec.profiles[0] = "P": must be a name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"#,
            r#"spec.ports[0].name = "a b": must be 0 to 128 letters, digits or '_', '.', '-'"#,
            r#"spec.ports[0].port = 0: must be from 1 to 65535"#,
            r#"spec.ports[1].port: is required"#,
        ];
        "HostEndpoint" {"name": "x"} {"node": "n", "interfaceName": "*", "ports": [{"name": "a", "protocol": "ICMP", "port": 1}]} => [
            r#"spec.ports[0].protocol = "ICMP": must be TCP, UDP or SCTP"#,
        ];
        "HostEndpoint" {"name": "x"} {"node": "n", "interfaceName": "*", "ports": [{"name": "a", "protocol": "TCP", "port": 1, "hostPort": 2, "hostIP": "10.0.0.1"}]} => [
            r#"spec.ports[0].hostPort = 2: is only for ports of a WorkloadEndpoint"#,
            r#"spec.ports[0].hostIP = "10.0.0.1": is only for ports of a WorkloadEndpoint"#,
        ];
    }

    workload_endpoints_are_checked {
        "WorkloadEndpoint" {"name": "n-cni-c-eth0", "namespace": "n"} {"node": "n", "ipNetworks": ["10.0.0.0/24"], "ipNATs": [{"internalIP": "10.0.1.1", "externalIP": "fd00::1"}]} => [
            r#"spec.ipNetworks[0] = "10.0.0.0/24": must be a single address"#,
            r#"spec.ipNATs[0] = {"externalIP":"fd00::1","internalIP":"10.0.1.1"}: must have two addresses of one family"#,
            r#"spec.ipNATs[0] = {"externalIP":"fd00::1","internalIP":"10.0.1.1"}: must have an internalIP that is one of ipNetworks"#,
        ];
        "WorkloadEndpoint" {"name": "n-cni-c-eth0", "namespace": "n"} {"node": "n", "containerID": "a/b", "ipv4Gateway": "fd00::1", "ipv6Gateway": "10.0.0.1", "mac": "zz", "interfaceName": "a/b"} => [
            r#"spec.containerID = "a/b": must be 0 to 1024 letters, digits or '_', '.', '-'"#,
            r#"spec.ipv4Gateway = "fd00::1": must be an IPv4 address without a prefix length"#,
            r#"spec.ipv6Gateway = "10.0.0.1": must be an IPv6 address without a prefix length"#,
            r#"spec.interfaceName = "a/b": must be an interface name: 1 to 15 letters, digits, '_', '.' or '-'"#,
            r#"spec.mac = "zz": must be a MAC address such as ee:ee:ee:ee:ee:ee"#,
        ];
    }

    tiers_are_checked {
        "Tier" {"name": "x"} {"defaultAction": "Allow"} => [
            r#"spec.defaultAction = "Allow": must be one of Deny, Pass"#,
        ];
        "Tier" {"name": "a.b"} {} => [
            r#"metadata.name = "a.b": must have no dot and at most 63 characters"#,
        ];
        "Tier" {"name": "default"} {"order": 5, "defaultAction": "Pass"} => [
            r#"spec.order = 5: must be 1000000: the tier's place is fixed"#,
            r#"spec.defaultAction = "Pass": must be Deny: the tier's action is fixed"#,
        ];
        "Tier" {"name": "kube-admin"} {} => [
            r#"spec.order: must be 1000: the tier's place is fixed"#,
            r#"spec.defaultAction: must be Pass: the tier's action is fixed"#,
        ];
        "Tier" {"name": "kube-baseline"} {"order": 10000000, "defaultAction": "Deny"} => [
            r#"spec.defaultAction = "Deny": must be Pass: the tier's action is fixed"#,
        ];
    }

    staged_policies_are_checked {
        "StagedNetworkPolicy" {"name": "p", "namespace": "n"} {"stagedAction": "Delete", "selector": "all()", "tier": "default"} => [
            r#"spec.selector = "all()": must be absent when stagedAction is Delete"#,
        ];
        "StagedGlobalNetworkPolicy" {"name": "x"} {"stagedAction": "Remove"} => [
            r#"spec.stagedAction = "Remove": must be one of Set, Delete, Learn, Ignore"#,
        ];
        "StagedKubernetesNetworkPolicy" {"name": "p", "namespace": "n"} {"stagedAction": "Delete", "podSelector": {}} => [
            r#"spec.stagedAction = "Delete": must not be Delete when any other field is given"#,
        ];
    }

    sets_and_profiles_are_checked {
        "NetworkSet" {"name": "s", "namespace": "n"} {"nets": ["10.0.0.1/8"]} => [
            r#"spec.nets[0] = "10.0.0.1/8": must be a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length"#,
        ];
        "NetworkSet" {"name": "s", "namespace": "n", "labels": {"projectcalico.org/namespace": "n"}} {} => [
            r#"metadata.labels.projectcalico.org/namespace = "n": must be absent: it says which namespace the set is in"#,
        ];
        "GlobalNetworkSet" {"name": "x"} {"nets": ["x"]} => [
            r#"spec.nets[0] = "x": must be a network such as 192.168.0.0/16 or fd00::/64, with no bits set beyond the prefix length"#,
        ];
        "Profile" {"name": "x"} {"labelsToApply": {"a b": "c", "d": "e f"}, "ingress": [{"action": "Allow", "protocol": "x"}]} => [
            r#"spec.ingress[0].protocol = "x": must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 0 to 255"#,
            r#"spec.labelsToApply.a b = "a b": must have a key of an optional DNS prefix and '/', then 1 to 63 letters, digits, '-', '_' or '.' between letters or digits"#,
            r#"spec.labelsToApply.d = "e f": must be empty, or 1 to 63 letters, digits, '-', '_' or '.' between letters or digits"#,
        ];
    }

    nodes_are_checked {
        "Node" {"name": "x"} {"bgp": {}} => [
            r#"spec.bgp = {}: must not be empty: leave it out"#,
        ];
        "Node" {"name": "x"} {"bgp": {"ipv4Address": "fd00::1", "ipv6Address": "10.0.0.1/24"}} => [
            r#"spec.bgp.ipv4Address = "fd00::1": must be an IPv4 address"#,
            r#"spec.bgp.ipv6Address = "10.0.0.1/24": must be an IPv6 address"#,
        ];
        "Node" {"name": "x"} {"bgp": {"asNumber": 0, "ipv4IPIPTunnelAddr": "fd00::1", "routeReflectorClusterID": "0.0.0.0"}, "ipv4VXLANTunnelAddr": "x", "vxlanTunnelMACAddr": "x", "wireguard": {"interfaceIPv4Address": "fd00::1"}, "addresses": [{"address": "x", "type": "Home"}], "interfaces": [{"addresses": ["x"]}], "orchRefs": [{}]} => [
            r#"spec.bgp.asNumber = 0: must be an AS number from 1 to 4294967295"#,
            r#"spec.bgp.ipv4IPIPTunnelAddr = "fd00::1": must be an IPv4 address without a prefix length"#,
            r#"spec.bgp.routeReflectorClusterID = "0.0.0.0": must be a router id: an IPv4 address other than 0.0.0.0"#,
            r#"spec.ipv4VXLANTunnelAddr = "x": must be an IPv4 address without a prefix length"#,
            r#"spec.vxlanTunnelMACAddr = "x": must be a MAC address such as ee:ee:ee:ee:ee:ee"#,
            r#"spec.orchRefs[0].orchestrator: is required"#,
            r#"spec.addresses[0].address = "x": must be an address with an optional prefix length, such as 172.16.6.47/24"#,
            r#"spec.addresses[0].type = "Home": must be one of CalicoNodeIP, InternalIP, ExternalIP"#,
            r#"spec.wireguard.interfaceIPv4Address = "fd00::1": must be an IPv4 address without a prefix length"#,
            r#"spec.interfaces[0].name: is required"#,
            r#"spec.interfaces[0].addresses[0] = "x": must be an address with an optional prefix length, such as 172.16.6.47/24"#,
        ];
    }

    felix_configurations_are_checked {
        "FelixConfiguration" {"name": "default"} {"nodeSelector": "all()"} => [
            r#"spec.nodeSelector = "all()": must be absent from the FelixConfiguration named default"#,
        ];
        "FelixConfiguration" {"name": "node.n1"} {"nodeSelector": "all()"} => [
            r#"spec.nodeSelector = "all()": must be absent from the FelixConfiguration named node.n1"#,
        ];
        "FelixConfiguration" {"name": "default"} {"routeTableRange": {"min": 1, "max": 250}, "routeTableRanges": [{"min": 1, "max": 2}]} => [
            r#"spec.routeTableRanges = [{"max":2,"min":1}]: must be absent when routeTableRange is given"#,
        ];
        "FelixConfiguration" {"name": "default"} {"routeTableRange": {"min": 0, "max": 251}} => [
            r#"spec.routeTableRange = {"max":251,"min":0}: must be inside 1 to 250, with min not above max"#,
        ];
        "FelixConfiguration" {"name": "default"} {"natOutgoingAddress": "fd00::1", "deviceRouteSourceAddress": "fd00::1", "deviceRouteSourceAddressIPv6": "10.0.0.1"} => [
            r#"spec.deviceRouteSourceAddress = "fd00::1": must be an IPv4 address without a prefix length"#,
            r#"spec.deviceRouteSourceAddressIPv6 = "10.0.0.1": must be an IPv6 address without a prefix length"#,
            r#"spec.natOutgoingAddress = "fd00::1": must be an IPv4 address without a prefix length"#,
        ];
        "FelixConfiguration" {"name": "default"} {"healthTimeoutOverrides": [{"name": "a/b", "timeout": "1s"}, {"name": "a", "timeout": "1"}]} => [
            r#"spec.healthTimeoutOverrides[0].name = "a/b": must be letters, digits or '_', ' ', '-'"#,
            r#"spec.healthTimeoutOverrides[1].timeout = "1": must be a duration such as 1m30s: numbers of ms, s, m or h"#,
        ];
        "FelixConfiguration" {"name": "default"} {"interfacePrefix": "abcdefghijkl"} => [
            r#"spec.interfacePrefix = "abcdefghijkl": must be a comma-separated list of 1 to 11 letters, digits, '_', '.' or '-' each"#,
        ];
        "FelixConfiguration" {"name": "default"} {"featureGates": "a", "featureDetectOverride": "a=b,c", "prometheusMetricsHost": "a b", "iptablesNATOutgoingInterfaceFilter": "a/b", "bpfForceTrackPacketsFromIfaces": ["docker+", "a/b"], "istioDSCPMark": 64, "vxlanVNI": 16777216, "ipv4ElevatedRoutePriority": 0, "reportingInterval": "5", "failsafeInboundHostPorts": [{"protocol": "ICMP", "port": 1}], "kubeNodePortRanges": ["9:1"], "natPortRange": "x y", "bpfConntrackTimeouts": {"tcpFinsSeen": "auto"}} => [
            r#"spec.featureDetectOverride = "a=b,c": must be a comma-separated list of name=value"#,
            r#"spec.featureGates = "a": must be a comma-separated list of name=value"#,
            r#"spec.prometheusMetricsHost = "a b": must be 1 to 64 letters, digits or ':', '.', '_', '+', '-'"#,
            r#"spec.failsafeInboundHostPorts[0].protocol = "ICMP": must be TCP, UDP or SCTP"#,
            r#"spec.ipv4ElevatedRoutePriority = 0: must be from 1 to 2147483646"#,
            r#"spec.istioDSCPMark = "64": must be a DSCP value: 0 to 63, DF, EF, AF11 to AF43 or CS0 to CS6"#,
            r#"spec.natPortRange = "x y": must be a port from 0 to 65535, a range such as 8000:8080, or a name of 1 to 128 letters, digits, '_', '.' or '-'"#,
            r#"spec.iptablesNATOutgoingInterfaceFilter = "a/b": must be 1 to 15 letters, digits or ':', '.', '_', '+', '-'"#,
            r#"spec.kubeNodePortRanges[0] = "9:1": must be a port from 0 to 65535, a range such as 8000:8080, or a name of 1 to 128 letters, digits, '_', '.' or '-'"#,
            r#"spec.bpfConntrackTimeouts.tcpFinsSeen = "auto": must be a duration such as 1m30s: numbers of ms, s, m or h"#,
            r#"spec.bpfForceTrackPacketsFromIfaces[1] = "a/b": must be 1 to 15 letters, digits or ':', '.', '_', '+', '-'"#,
            r#"spec.reportingInterval = "5": must be a duration such as 1m30s: numbers of ms, s, m or h"#,
            r#"spec.vxlanVNI = 16777216: must be from 0 to 16777215"#,
        ];
    }

    metadata_is_checked {
        "GlobalNetworkSet" {"name": "Upper"} {} => [
            r#"metadata.name = "Upper": must be a name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"#,
        ];
        "GlobalNetworkSet" {"name": "a".repeat(254)} {} => [
            r#"metadata.name = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...: must be a name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"#,
        ];
        "GlobalNetworkSet" {"name": "s", "labels": {"": "x", "a/b/c": "y", "ok": "no spaces"}, "annotations": {"not ok": "x"}} {} => [
            r#"metadata.labels. = "": must have a key of an optional DNS prefix and '/', then 1 to 63 letters, digits, '-', '_' or '.' between letters or digits"#,
            r#"metadata.labels.a/b/c = "a/b/c": must have a key of an optional DNS prefix and '/', then 1 to 63 letters, digits, '-', '_' or '.' between letters or digits"#,
            r#"metadata.labels.ok = "no spaces": must be empty, or 1 to 63 letters, digits, '-', '_' or '.' between letters or digits"#,
            r#"metadata.annotations.not ok = "not ok": must have a key of an optional DNS prefix and '/', then 1 to 63 letters, digits, '-', '_' or '.' between letters or digits"#,
        ];
        "GlobalNetworkSet" {"name": "s", "annotations": {"a": "x".repeat(262144)}} {} => [
            r#"metadata.annotations = {"a":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...: must be at most 262144 bytes in all, but are 262145"#,
        ];
        "GlobalNetworkSet" {"name": "s", "resourceVersion": "new"} {} => [
            r#"metadata.resourceVersion = "new": must be a revision as a read returned it"#,
        ];
        "NetworkSet" {"name": "s"} {} => [
            r#"metadata.namespace: is required: a NetworkSet lives in one"#,
        ];
        "Tier" {"name": "s", "namespace": "n"} {} => [
            r#"metadata.namespace = "n": must be absent: a Tier belongs to the whole cluster"#,
        ];
    }

    the_cluster_information_is_checked {
        "ClusterInformation" {"name": "other"} {"datastoreReady": "yes"} => [
            r#"spec.datastoreReady = "yes": must be true or false"#,
            r#"metadata.name = "other": must be default: there is one ClusterInformation"#,
        ];
    }

    ipam_resources_are_checked {
        "BlockAffinity" {"name": "x"} {"state": "lost", "node": "N", "type": "x"} => [
            r#"spec.state = "lost": must be one of confirmed, pending, pendingDeletion"#,
            r#"spec.node = "N": must be a node name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, at most 253 characters"#,
            r#"spec.type = "x": must be one of host, virtual"#,
            r#"spec.cidr: is required"#,
        ];
        "IPAMBlock" {"name": "x"} {"affinity": "n", "allocations": ["x"], "sequenceNumber": -1} => [
            r#"spec.cidr: is required"#,
            r#"spec.affinity = "n": must be the owner of a block: host:NAME or virtual:NAME"#,
            r#"spec.allocations[0] = "x": must be a whole number from 0 to 4294967295"#,
            r#"spec.sequenceNumber = -1: must be a whole number from 0 to 18446744073709551615"#,
        ];
        "IPAMHandle" {"name": "x"} {"block": {"10.0.0.0/26": "one"}} => [
            r#"spec.handleID: is required"#,
            r#"spec.block.10.0.0.0/26 = "one": must be a whole number from 0 to 18446744073709551615"#,
        ];
    }
}
