//! The programs joined: agents, CNI and `calicoctl` on the hosts of a lab, checked with packets.

use std::time::Duration;

use calico_node::lab::{CniVerb, Ending, Lab, Probe, Verdict};

use crate::lab::up;

/// Two hosts, in one subnet or in two, and a pool.
fn cluster(subnet_of_second: &str, vxlan: &str) -> Lab {
    let second = if subnet_of_second == "left" { "172.16.6.249" } else { "172.16.199.114" };
    up(&format!(
        "
name: any
subnets:
  - {{name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254}}
  - {{name: right, cidr: 172.16.199.0/24, gateway: 172.16.199.254}}
hosts:
  - {{name: node1, address: 172.16.6.47}}
  - {{name: node2, address: {second}}}
pools:
  - {{cidr: 192.168.0.0/16, vxlanMode: {vxlan}, natOutgoing: true}}
workloads:
  - {{name: web, host: node1, labels: {{app: web}}, listen: [80]}}
  - {{name: app, host: node1}}
  - {{name: far, host: node2, listen: [80]}}
"
    ))
}

/// Waits until every pair of workloads can talk, or shows which cannot.
fn all_reach_all(lab: &Lab) {
    let matrix = lab.observe(&lab.expect(|_, _, _| Verdict::Allowed), Duration::from_secs(10)).unwrap();
    assert!(matrix.is_as_expected(), "{matrix}");
}

fn stdout(lab: &Lab, member: &str, program: &str, arguments: &[&str]) -> String {
    lab.exec(member, program, arguments).unwrap().stdout
}

#[test]
fn workloads_reach_one_another_over_vxlan_between_subnets() {
    let lab = cluster("right", "CrossSubnet");
    all_reach_all(&lab);
    let routes = stdout(&lab, "node1", "ip", &["route"]);
    assert!(routes.contains("dev vxlan.calico"), "{routes}");
    // The agent found out what the network carries, and the plugin was told.
    let eth0 = stdout(&lab, "web", "ip", &["link", "show", "eth0"]);
    assert!(eth0.contains("mtu 1450"), "{eth0}");
}

#[test]
fn workloads_reach_one_another_without_encapsulation_by_routes_that_bgp_learned() {
    let lab = cluster("left", "Never");
    all_reach_all(&lab);
    let routes = stdout(&lab, "node1", "ip", &["route"]);
    assert!(routes.contains("via 172.16.6.249 dev eth0") && !routes.contains("vxlan"), "{routes}");
}

#[test]
fn an_agent_that_was_asked_to_end_leaves_everything_in_force() {
    let mut lab = cluster("right", "CrossSubnet");
    all_reach_all(&lab);
    let before = lab.quiet_kernel_objects("node1", Duration::from_millis(300)).unwrap();
    let flows = [
        ("web", lab.address("far").unwrap(), Probe::Ping),
        ("far", lab.address("web").unwrap(), Probe::Tcp(80)),
    ];
    let traffic = lab.traffic(&flows).unwrap();
    lab.end_agent("node1", Ending::Asked).unwrap();
    all_reach_all(&lab);
    assert_eq!(before.difference(&lab.kernel_objects("node1").unwrap()), Vec::<String>::new());
    let events = lab.kernel_events("node1").unwrap();
    lab.start_agent("node1").unwrap();
    lab.await_mesh().unwrap();
    assert_eq!(before.difference(&lab.kernel_objects("node1").unwrap()), Vec::<String>::new());
    assert_eq!(events.drain().unwrap(), Vec::<String>::new());
    for count in traffic.stop().unwrap() {
        assert_eq!(count.answered, count.sent);
    }
}

const DUAL_STACK: &str = "
name: any
subnets:
  - {name: left, cidr: 172.16.6.0/24, gateway: 172.16.6.254, cidr6: '2001:db8:6::/64', gateway6: '2001:db8:6::254'}
  - {name: right, cidr: 172.16.199.0/24, gateway: 172.16.199.254, cidr6: '2001:db8:199::/64', gateway6: '2001:db8:199::254'}
hosts:
  - {name: node1, address: 172.16.6.47, address6: '2001:db8:6::47'}
  - {name: node2, address: 172.16.199.114, address6: '2001:db8:199::114'}
pools:
  - {cidr: 192.168.0.0/16, vxlanMode: CrossSubnet}
  - {cidr: 'fd00:10::/48', vxlanMode: CrossSubnet}
workloads:
  - {name: web, host: node1, listen: [80]}
  - {name: far, host: node2, listen: [80]}
";

#[test]
fn an_agent_of_two_address_families_that_was_killed_writes_nothing_when_it_is_back() {
    let mut lab = up(DUAL_STACK);
    all_reach_all(&lab);
    let before = lab.quiet_kernel_objects("node1", Duration::from_secs(1)).unwrap();
    let routes = stdout(&lab, "node1", "ip", &["-6", "route"]);
    assert!(routes.contains("dev vxlan-v6.calico") && routes.contains("dev cali"), "{routes}");
    let events = lab.kernel_events("node1").unwrap();
    lab.end_agent("node1", Ending::Killed).unwrap();
    lab.start_agent("node1").unwrap();
    lab.await_mesh().unwrap();
    // Longer than until the first look at everything.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(before.difference(&lab.kernel_objects("node1").unwrap()), Vec::<String>::new());
    assert_eq!(events.drain().unwrap(), Vec::<String>::new());
    lab.down().unwrap();
}

#[test]
fn a_workload_that_comes_while_the_agent_is_dead_is_closed_until_the_agent_is_back() {
    let mut lab = cluster("right", "CrossSubnet");
    all_reach_all(&lab);
    lab.detach("web").unwrap();
    lab.end_agent("node1", Ending::Killed).unwrap();
    let web = lab.attach("web").unwrap();
    let (app, far) = (lab.address("app").unwrap(), lab.address("far").unwrap());
    let probes = [
        ("web", app, Probe::Ping),
        ("web", far, Probe::Tcp(80)),
        ("app", web, Probe::Tcp(80)),
        ("far", web, Probe::Ping),
    ];
    assert_eq!(lab.probe_all(&probes).unwrap(), [Verdict::TimedOut; 4]);
    lab.start_agent("node1").unwrap();
    lab.await_mesh().unwrap();
    all_reach_all(&lab);
}

#[test]
fn a_detached_workload_leaves_nothing_and_its_address_answers_no_more() {
    let mut lab = cluster("right", "CrossSubnet");
    all_reach_all(&lab);
    lab.cni(CniVerb::Check, "web").unwrap();
    let web = lab.address("web").unwrap();
    lab.detach("web").unwrap();
    assert_ne!(lab.ping("far", web).unwrap(), Verdict::Allowed);
    assert!(!stdout(&lab, "node1", "ip", &["route"]).contains(&web.to_string()));
    assert_eq!(stdout(&lab, "web", "ls", &["/sys/class/net"]).trim(), "lo");
    assert!(lab.cni(CniVerb::Check, "web").is_err());
    // As the specification of the CNI has it, deleting what is gone is no failure.
    lab.detach("web").unwrap();
    lab.attach("web").unwrap();
    all_reach_all(&lab);
}

#[test]
fn policies_come_into_force_and_go() {
    let lab = cluster("left", "CrossSubnet");
    all_reach_all(&lab);
    let policy = "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec:
  selector: app == 'web'
  types: [Ingress]
  ingress:
    - {action: Allow, protocol: TCP, destination: {ports: [80]}}
";
    lab.apply(policy).unwrap();
    let expected = lab.expect(|_, to, probe| match (to, probe) {
        ("web", Probe::Ping) => Verdict::TimedOut,
        _ => Verdict::Allowed,
    });
    let matrix = lab.observe(&expected, Duration::from_secs(10)).unwrap();
    assert!(matrix.is_as_expected(), "{matrix}");
    lab.calicoctl("node2", &["delete", "networkpolicy", "web"], "").unwrap();
    all_reach_all(&lab);
}
