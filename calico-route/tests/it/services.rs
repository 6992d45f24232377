//! Learned routes to services.

use calico_model::Snapshot;
use calico_model::learned::LearnedRoutes;
use calico_model::resource::bgp::ServiceNetwork;
use calico_model::resource::{BgpConfiguration, Object};
use calico_route::compute;

use crate::cluster::{learn, node_name, three_nodes};

#[test]
fn what_peers_tell_of_services_is_no_route_for_a_node_finds_them_by_itself() {
    let mut snapshot = three_nodes();
    let mut learned = LearnedRoutes::new();
    for prefix in ["10.96.0.7/32", "10.7.0.0/16", "10.9.0.1/32", "10.0.0.0/8"] {
        learn(&mut learned, prefix, &["172.16.6.2"]);
    }
    let prefixes = |snapshot: &Snapshot| {
        let desired = compute(snapshot, &node_name("node1"), &learned);
        let keys = desired.routes.into_keys().map(|key| key.prefix.to_string());
        keys.filter(|prefix| prefix.starts_with("10.")).collect::<Vec<_>>()
    };
    assert_eq!(prefixes(&snapshot).len(), 4);
    let networks = |cidr: &str| vec![ServiceNetwork { cidr: cidr.parse().unwrap() }];
    let mut configuration = BgpConfiguration::new();
    configuration.service_cluster_ips = networks("10.96.0.0/12");
    configuration.service_external_ips = networks("10.7.0.0/16");
    configuration.service_load_balancer_ips = networks("10.9.0.1/32");
    snapshot.insert(Object::new("default".parse().unwrap(), configuration));
    assert_eq!(prefixes(&snapshot), ["10.0.0.0/8"]);
}
