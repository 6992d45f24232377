//! What is told for services.

use super::*;
use calico_model::resource::OrchRef;
use calico_model::resource::ipam::Switch;
use calico_model::resource::service::{
    KubernetesEndpointSlice, KubernetesService, ServiceType, TrafficPolicy,
};

fn networks(cidrs: &[&str]) -> Vec<bgp::ServiceNetwork> {
    cidrs.iter().map(|cidr| bgp::ServiceNetwork { cidr: cidr.parse().unwrap() }).collect()
}

/// The cluster, which advertises all kinds of addresses of services.
fn advertising(change: impl FnOnce(&mut BgpConfiguration)) -> Snapshot {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| {
        c.service_cluster_ips = networks(&["10.96.0.0/12"]);
        c.service_external_ips = networks(&["10.7.0.0/16", "10.8.0.1/32"]);
        c.service_load_balancer_ips = networks(&["10.9.0.0/16", "10.10.0.1/32"]);
        change(c);
    });
    snapshot
}

/// Adds a service with an address of each kind, and one external address that is not advertised.
fn serve(snapshot: &mut Snapshot, policy: TrafficPolicy, change: impl FnOnce(&mut KubernetesService)) {
    let mut service = KubernetesService {
        service_type: ServiceType::LoadBalancer,
        cluster_ip: Some("10.96.0.1".parse().unwrap()),
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        external_ips: vec!["10.7.0.1".parse().unwrap(), "203.0.113.1".parse().unwrap()],
        external_traffic_policy: Some(policy),
        load_balancer_ip: None,
        load_balancer_ips: vec!["10.9.0.1".parse().unwrap()],
    };
    change(&mut service);
    let mut service = Object::new("web".parse::<Name>().unwrap(), service);
    service.metadata.namespace = Some("default".parse().unwrap());
    snapshot.insert(service);
}

/// Adds an endpoint of a service.
fn endpoint(snapshot: &mut Snapshot, service: &str, on: &str, addr: &str, ready: Option<bool>) {
    let mut slice = KubernetesEndpointSlice::new([addr.parse().unwrap()], &[]);
    slice.endpoints[0].node_name = Some(named_node(on));
    slice.endpoints[0].conditions.ready = ready;
    let mut slice = Object::new("web-1".parse::<Name>().unwrap(), slice);
    slice.metadata.namespace = Some("default".parse().unwrap());
    slice.metadata.labels = [("kubernetes.io/service-name", service)].into_iter().collect();
    snapshot.insert(slice);
}

/// The single addresses that a node tells.
fn single(snapshot: &Snapshot, node: &str) -> Vec<String> {
    let told = originated(snapshot, &named_node(node)).into_keys().filter(Cidr::is_host);
    told.map(|cidr| cidr.addr().to_string()).collect()
}

const ALL: [&str; 3] = ["10.7.0.1", "10.9.0.1", "10.96.0.1"];
const NONE: [&str; 0] = [];

#[test]
fn local_services_are_told_where_a_ready_endpoint_is() {
    let mut snapshot = advertising(|_| {});
    serve(&mut snapshot, TrafficPolicy::Local, |_| {});
    assert_eq!(single(&snapshot, "node1"), NONE, "no endpoint");
    for (ready, told) in [(None, &ALL[..]), (Some(true), &ALL), (Some(false), &NONE)] {
        endpoint(&mut snapshot, "web", "node1", "192.168.0.1", ready);
        assert_eq!(single(&snapshot, "node1"), told, "{ready:?}");
        assert_eq!(single(&snapshot, "node2"), NONE, "{ready:?}");
    }
    endpoint(&mut snapshot, "web", "node1", "fd00::1", None);
    assert_eq!(single(&snapshot, "node1"), NONE, "another family");
    endpoint(&mut snapshot, "other", "node1", "192.168.0.1", None);
    assert_eq!(single(&snapshot, "node1"), NONE, "another service");
}

#[test]
fn a_service_of_both_families_is_told_in_those_that_it_is_served_in() {
    let mut snapshot = advertising(|c| {
        c.service_cluster_ips.extend(networks(&["fd96::/108"]));
        c.service_external_ips.extend(networks(&["fd07::/64", "fd08::1/128"]));
    });
    serve(&mut snapshot, TrafficPolicy::Local, |s| {
        s.cluster_ips.push("fd96::1".parse().unwrap());
        s.external_ips.extend(["fd07::1", "fd08::1"].map(|addr| addr.parse::<IpAddr>().unwrap()));
    });
    assert_eq!(single(&snapshot, "node1"), NONE);
    endpoint(&mut snapshot, "web", "node1", "fd00::1", None);
    assert_eq!(single(&snapshot, "node1"), ["fd07::1", "fd08::1", "fd96::1"]);
    let mut both = snapshot.endpoint_slices.values().next().unwrap().as_ref().clone();
    both.metadata.name = "web-2".parse().unwrap();
    both.spec.endpoints[0].addresses = vec!["192.168.0.1".parse().unwrap()];
    snapshot.insert(both);
    assert_eq!(single(&snapshot, "node1"), [&ALL[..], &["fd07::1", "fd08::1", "fd96::1"]].concat());
    assert_eq!(single(&snapshot, "node2"), NONE);
}

#[test]
fn an_entry_that_is_one_address_is_told_for_its_service_alone() {
    let mut snapshot = advertising(|_| {});
    assert_eq!(single(&snapshot, "node1"), NONE, "nobody's");
    serve(&mut snapshot, TrafficPolicy::Local, |s| {
        s.external_ips.push("10.8.0.1".parse().unwrap());
        s.load_balancer_ips.push("10.10.0.1".parse().unwrap());
    });
    assert_eq!(single(&snapshot, "node1"), NONE, "not served here");
    endpoint(&mut snapshot, "web", "node1", "192.168.0.1", None);
    assert_eq!(single(&snapshot, "node1"), ["10.7.0.1", "10.8.0.1", "10.9.0.1", "10.10.0.1", "10.96.0.1"]);
    assert_eq!(single(&snapshot, "node2"), NONE, "served elsewhere");
}

#[test]
fn an_endpoint_names_its_node_as_kubernetes_does() {
    let mut snapshot = advertising(|_| {});
    serve(&mut snapshot, TrafficPolicy::Local, |_| {});
    endpoint(&mut snapshot, "web", "worker-7", "192.168.0.1", None);
    assert_eq!(single(&snapshot, "node1"), NONE);
    let mut own = node("node1", "172.16.6.9/24");
    own.spec.orch_refs =
        vec![OrchRef { node_name: Some("worker-7".to_owned()), orchestrator: "k8s".to_owned() }];
    snapshot.insert(own);
    assert_eq!(single(&snapshot, "node1"), ALL);
}

#[test]
fn only_kinds_of_addresses_that_are_advertised_are_told() {
    let mut snapshot = advertising(|c| c.service_cluster_ips.clear());
    serve(&mut snapshot, TrafficPolicy::Local, |_| {});
    endpoint(&mut snapshot, "web", "node1", "192.168.0.1", None);
    assert_eq!(single(&snapshot, "node1"), ["10.7.0.1", "10.9.0.1"]);
    serve(&mut snapshot, TrafficPolicy::Local, |s| s.cluster_ip = None);
    assert_eq!(single(&snapshot, "node1"), NONE, "headless");
    serve(&mut snapshot, TrafficPolicy::Local, |s| s.service_type = ServiceType::ExternalName);
    assert_eq!(single(&snapshot, "node1"), NONE, "only a name");
}

#[test]
fn an_address_outside_the_networks_that_are_advertised_is_not_told_whatever_its_kind() {
    let mut snapshot = advertising(|_| {});
    serve(&mut snapshot, TrafficPolicy::Local, |s| {
        s.cluster_ip = "172.16.6.1".parse().ok();
        s.cluster_ips = ["172.16.6.1", "fd96::1"].map(|addr| addr.parse().unwrap()).to_vec();
        s.load_balancer_ips.push("172.16.6.9".parse().unwrap());
    });
    endpoint(&mut snapshot, "web", "node1", "192.168.0.1", None);
    assert_eq!(single(&snapshot, "node1"), ["10.7.0.1", "10.9.0.1"]);
}

#[test]
fn other_services_are_told_when_an_entry_is_their_address() {
    let told = |change: fn(&mut KubernetesService)| {
        let mut snapshot = advertising(|_| {});
        serve(&mut snapshot, TrafficPolicy::Cluster, change);
        endpoint(&mut snapshot, "web", "node2", "192.168.0.1", None);
        single(&snapshot, "node1")
    };
    let and = |addr: &'static str| {
        let mut all = [&ALL[..], &[addr]].concat();
        all.sort_by_key(|addr| addr.parse::<IpAddr>().unwrap());
        all
    };
    assert_eq!(told(|_| {}), NONE);
    assert_eq!(told(|s| s.load_balancer_ip = "10.10.0.1".parse().ok()), ALL, "asked for");
    assert_eq!(told(|s| s.load_balancer_ips.push("10.10.0.1".parse().unwrap())), and("10.10.0.1"), "given");
    assert_eq!(told(|s| s.external_ips.push("10.8.0.1".parse().unwrap())), and("10.8.0.1"));
    let no_balancer = |s: &mut KubernetesService| {
        s.service_type = ServiceType::NodePort;
        s.load_balancer_ip = "10.10.0.1".parse().ok();
    };
    assert_eq!(told(no_balancer), NONE);
}

#[test]
fn without_aggregation_every_node_tells_the_addresses_of_services_with_endpoints() {
    let mut snapshot = advertising(|c| c.service_load_balancer_aggregation = Switch::Disabled);
    serve(&mut snapshot, TrafficPolicy::Cluster, |_| {});
    assert_eq!(single(&snapshot, "node1"), NONE);
    endpoint(&mut snapshot, "web", "node2", "192.168.0.1", None);
    assert_eq!(single(&snapshot, "node1"), ALL);
    for of_no_balancer in [ServiceType::ClusterIp, ServiceType::NodePort] {
        serve(&mut snapshot, TrafficPolicy::Cluster, |s| s.service_type = of_no_balancer);
        assert_eq!(single(&snapshot, "node1"), NONE, "{of_no_balancer:?}");
        serve(&mut snapshot, TrafficPolicy::Cluster, |s| {
            s.service_type = of_no_balancer;
            s.external_traffic_policy = None;
        });
        assert_eq!(single(&snapshot, "node1"), NONE, "{of_no_balancer:?}");
    }
}

/// Reports whether a node passes on to all its peers what one of them tells of a single address.
fn passes_on(snapshot: &Snapshot, node: &str, addr: &str) -> bool {
    let attributes = Attributes::originated("172.16.6.9".parse().unwrap());
    let route = Route {
        prefix: Cidr::host(addr.parse().unwrap()),
        attributes: (&attributes).into(),
        teller: Teller::Peer,
    };
    let peers = peers(snapshot, &named_node(node));
    assert!(!peers.is_empty());
    peers.iter().all(|peer| {
        let Exchange::Filtered(policy) = &peer.export else { panic!("resources decide") };
        policy.program().decide(&route, &PrefixSet::default()) != Verdict::LeaveOut
    })
}

#[test]
fn a_reflector_passes_on_what_nodes_tell_of_services_unless_it_is_excluded_and_others_do_not() {
    let mut snapshot = advertising(|_| {});
    let to_reflectors = BgpPeer { peer_selector: Some("has(reflector)".parse().unwrap()), ..BgpPeer::new() };
    snapshot.insert(Object::new("reflectors".parse::<Name>().unwrap(), to_reflectors));
    let excluded = "node.kubernetes.io/exclude-from-external-load-balancers";
    for (label, told) in [("false", [true, true, true, false]), ("true", [false, true, true, false])] {
        let mut reflector = node("node3", "172.16.199.12/24");
        reflector.metadata.labels = [("reflector", "yes"), (excluded, label)].into_iter().collect();
        reflector.spec.bgp.as_mut().unwrap().route_reflector_cluster_id = Some("1.0.0.1".parse().unwrap());
        snapshot.insert(reflector);
        let of = |node| {
            ["10.96.0.1", "10.7.0.1", "10.9.0.1", "203.0.113.1"].map(|at| passes_on(&snapshot, node, at))
        };
        assert_eq!(of("node3"), told, "{label}");
        assert_eq!(of("node1"), [false; 4], "{label}");
    }
}

#[test]
fn excluded_nodes_tell_nothing_for_services() {
    let mut snapshot = advertising(|_| {});
    serve(&mut snapshot, TrafficPolicy::Local, |_| {});
    endpoint(&mut snapshot, "web", "node1", "192.168.0.1", None);
    for (value, excluded) in [("false", false), ("true", true)] {
        let mut own = node("node1", "172.16.6.9/24");
        own.metadata.labels =
            [("node.kubernetes.io/exclude-from-external-load-balancers", value)].into_iter().collect();
        snapshot.insert(own);
        assert_eq!(originated(&snapshot, &named_node("node1")).is_empty(), excluded, "{value}");
    }
}
