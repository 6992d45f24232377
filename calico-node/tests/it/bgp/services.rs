//! Addresses of Kubernetes' services.

use super::{Bird, FABRIC, lab, session};
use crate::agent::eventually;

const ADVERTISED: &str = "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec:
  nodeToNodeMeshEnabled: false
  serviceClusterIPs: [{cidr: 10.96.0.0/12}]
  serviceExternalIPs: [{cidr: 203.0.113.7/32}]
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: fabric}
spec: {peerIP: 172.16.6.249, asNumber: 65001}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.7
  clusterIPs: [10.96.0.7]
  externalIPs: [203.0.113.7]
  externalTrafficPolicy: Local
";

/// The service's endpoint on a node.
fn endpoint(node: &str, ready: bool) -> String {
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: default, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
endpoints: [{{addresses: [192.168.0.9], nodeName: {node}, conditions: {{ready: {ready}}}}}]
ports: [{{port: 80, protocol: TCP}}]
"
    )
}

#[test]
fn a_local_service_is_told_while_an_endpoint_of_it_is_ready_on_the_node() {
    let lab = lab();
    lab.apply(ADVERTISED).unwrap();
    let tells =
        FABRIC.replace("10.5.0.0/16 blackhole;", "10.5.0.0/16 blackhole; route 10.96.0.99/32 blackhole;");
    let bird = Bird::start(&lab, "fabric", &tells);
    session(&lab, "Established");
    bird.wait_for("show route", "10.96.0.0/12");
    let told = |prefix: &str| bird.ask("show route").contains(prefix);
    let both = |is_told: bool| {
        let now = || ["10.96.0.7/32", "203.0.113.7/32"].map(&told);
        assert_eq!(eventually(now, |now| *now == [is_told; 2]), [is_told; 2], "{}", bird.ask("show route"));
    };
    both(false);
    for (node, ready, is_told) in
        [("node1", true, true), ("node1", false, false), ("node1", true, true), ("elsewhere", true, false)]
    {
        lab.apply(&endpoint(node, ready)).unwrap();
        both(is_told);
    }
    // What others tell of services is not the way to them: each node finds them by itself.
    let routes = || lab.exec("node1", "ip", &["route"]).unwrap().stdout;
    let learned = eventually(routes, |routes| routes.contains("10.5.0.0/16"));
    assert!(learned.contains("10.5.0.0/16") && !learned.contains("10.96."), "{learned}");
    lab.down().unwrap();
}
