//! Route reflectors: the mesh, no mesh, and one reflector on hosts with the addresses of a published example; and racks
//! with a pair of reflectors and a cluster id each. Reflectors are agents with nothing but BGP to do.

use std::fmt::Write;
use std::process::{Child, Command, Stdio};

use calico_node::lab::{Ending, Lab};

use crate::agent::eventually;
use crate::article::{assert_routes, interface};
use crate::lab::up;

const MESH_OFF: &str = "
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false, asNumber: 65100}
";

const KUBES: &str = "
name: kubes
subnets:
  - {name: kubes, cidr: 172.17.42.0/24, gateway: 172.17.42.254}
hosts:
  - {name: kube-master, address: 172.17.42.30, as: 65100}
  - {name: kube-node1, address: 172.17.42.31, as: 65100}
  - {name: kube-node2, address: 172.17.42.32, as: 65100}
  - {name: node1, address: 172.17.42.40, as: 65100}
pools:
  - {cidr: 192.168.0.0/16}
workloads:
  - {name: a, host: kube-node1, address: 192.168.0.2}
  - {name: b, host: kube-node2, address: 192.168.0.64}
  - {name: c, host: kube-node2, address: 192.168.0.65}
resources:
  - apiVersion: projectcalico.org/v3
    kind: Node
    metadata: {name: node1, labels: {reflector: \"\"}}
    spec: {bgp: {ipv4Address: 172.17.42.40/24, asNumber: 65100, routeReflectorClusterID: 1.0.0.1}}
";

const PEER: &str = "
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflector}
spec: {nodeSelector: \"!has(reflector)\", peerSelector: has(reflector)}
";

#[test]
fn routes_go_with_the_mesh_and_come_back_the_same_by_a_route_reflector() {
    let lab = up(KUBES);
    kubes_have_their_routes(&lab);
    assert_eq!(peers(&lab, "node1", 0), Vec::<String>::new(), "a reflector is not in the mesh");

    lab.apply(MESH_OFF).unwrap();
    assert_routes(&lab, "kube-master", &link("172.17.42", 30));
    assert_routes(&lab, "kube-node1", &[link("172.17.42", 31), own_of_node1(&lab)].concat());
    assert_routes(&lab, "kube-node2", &[link("172.17.42", 32), own_of_node2(&lab)].concat());

    lab.apply(PEER).unwrap();
    kubes_have_their_routes(&lab);
    assert_eq!(peers(&lab, "node1", 3), ["172.17.42.30", "172.17.42.31", "172.17.42.32"]);
    assert_eq!(peers(&lab, "kube-node1", 1), ["172.17.42.40"]);
    lab.down().unwrap();
}

const PEER_BY_ADDRESS: &str = "
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflector}
spec: {peerIP: 172.17.42.40, asNumber: 65100}
";

/// A program that runs beside the lab's own; ended when this is dropped.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_stand_alone_reflector_serves_the_nodes_whose_bgppeer_names_its_address() {
    let plain = KUBES.split("resources:").next().unwrap();
    let mut lab = up(plain);
    lab.apply(MESH_OFF).unwrap();
    lab.end_agent("node1", Ending::Asked).unwrap();
    lab.exec("node1", "calico-node", &["cleanup"]).unwrap();
    // A reflector takes the place of no node.
    lab.calicoctl("node1", &["delete", "node", "node1"], "").unwrap();
    let host = lab.state().host("node1").unwrap().clone();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &host.netns, env!("CARGO_BIN_EXE_calico-node"), "route-reflector"]);
    command.args(["--ip", "172.17.42.40", "--cluster-id", "1.0.0.1", "--as", "65100"]);
    let _reflector = Beside(command.envs(&host.environment).stderr(Stdio::null()).spawn().unwrap());
    lab.apply(PEER_BY_ADDRESS).unwrap();
    kubes_have_their_routes(&lab);
    assert_eq!(peers(&lab, "node1", 3), ["172.17.42.30", "172.17.42.31", "172.17.42.32"]);
    assert_eq!(peers(&lab, "kube-node1", 1), ["172.17.42.40"]);
    assert_routes(&lab, "node1", &link("172.17.42", 40));

    for host in ["node1", "kube-node1"] {
        let listening = lab.exec(host, "ss", &["-H", "-l", "-n", "-t", "-u"]).unwrap().stdout;
        let places: Vec<&str> = listening.lines().filter_map(|line| line.split_whitespace().nth(4)).collect();
        assert!(
            !places.is_empty() && places.iter().all(|place| place.ends_with(":179")),
            "{host}: {listening}"
        );
    }

    let ask = |words: &[&str]| lab.calicoctl("kube-node1", words, "").unwrap();
    let table = ask(&["bgp", "peers"]);
    assert!(
        table.lines().nth(1).unwrap().starts_with("172.17.42.40   65100   iBGP   Established"),
        "{table}"
    );
    let why = ask(&["bgp", "why", "192.168.0.64/26"]);
    let verdict =
        "The path to 192.168.0.64/26 from 172.17.42.40 via 172.17.42.32 is the only one, and in use.";
    assert_eq!(why.lines().next(), Some(verdict));
    let routes: serde_json::Value = serde_json::from_str(&ask(&["bgp", "routes", "-o", "json"])).unwrap();
    let prefixes: Vec<&str> =
        routes.as_array().unwrap().iter().filter_map(|r| r["prefix"].as_str()).collect();
    assert_eq!(prefixes, ["192.168.0.0/26", "192.168.0.64/26"]);
    lab.down().unwrap();
}

fn kubes_have_their_routes(lab: &Lab) {
    let to_node1 = vec!["192.168.0.0/26 via 172.17.42.31 dev eth0".to_owned()];
    let to_node2 = vec!["192.168.0.64/26 via 172.17.42.32 dev eth0".to_owned()];
    let both = [to_node1.clone(), to_node2.clone()].concat();
    assert_routes(lab, "kube-master", &[link("172.17.42", 30), both].concat());
    assert_routes(lab, "kube-node1", &[link("172.17.42", 31), own_of_node1(lab), to_node2].concat());
    assert_routes(lab, "kube-node2", &[link("172.17.42", 32), own_of_node2(lab), to_node1].concat());
}

fn own_of_node1(lab: &Lab) -> Vec<String> {
    vec!["blackhole 192.168.0.0/26".to_owned(), format!("192.168.0.2 dev {} scope link", interface(lab, "a"))]
}

fn own_of_node2(lab: &Lab) -> Vec<String> {
    vec![
        "blackhole 192.168.0.64/26".to_owned(),
        format!("192.168.0.64 dev {} scope link", interface(lab, "b")),
        format!("192.168.0.65 dev {} scope link", interface(lab, "c")),
    ]
}

/// What a host has before Calico.
fn link(network: &str, host: u8) -> Vec<String> {
    vec![
        format!("default via {network}.254 dev eth0"),
        format!("{network}.0/24 dev eth0 scope link src {network}.{host}"),
    ]
}

/// The addresses of the peers of a host whose sessions are up, once they are as many as said.
fn peers(lab: &Lab, host: &str, count: usize) -> Vec<String> {
    let ask = || lab.status(host).unwrap().bgp.map_or(Vec::new(), |bgp| bgp.peers);
    let peers = eventually(ask, |peers| peers.len() == count && peers.iter().all(|peer| peer.state == "up"));
    assert!(peers.iter().all(|peer| peer.state == "up"), "{host}: {peers:?}");
    let mut addresses: Vec<_> = peers.into_iter().map(|peer| peer.address).collect();
    addresses.sort();
    addresses
}

/// The number of nodes; each has one workload, and so one block.
const NODES: u8 = 9;
/// The number of reflectors, two in each rack.
const REFLECTORS: u8 = 6;

/// The last byte of a reflector's address.
fn reflector(number: u8) -> u8 {
    100 + number
}

/// The last two bytes of the base of a node's block.
fn block(node: u8) -> (u8, u8) {
    ((node - 1) / 4, (node - 1) % 4 * 64)
}

#[test]
fn three_racks_with_two_reflectors_and_a_cluster_id_each_know_all_blocks() {
    let lab = up(&racks());
    lab.apply(&rack_resources()).unwrap();
    for node in 1..=NODES {
        let rack = (node - 1) / 3;
        let expected = [1, 2].map(|which| format!("172.17.42.{}", reflector(rack * 2 + which)));
        assert_eq!(peers(&lab, &format!("n{node}"), 2), expected, "n{node} peers with its rack's two");
        let (third, fourth) = block(node);
        let own = vec![
            format!("blackhole 192.168.{third}.{fourth}/26"),
            format!("192.168.{third}.{} dev {} scope link", fourth + 2, interface(&lab, &format!("w{node}"))),
        ];
        assert_routes(
            &lab,
            &format!("n{node}"),
            &[link("172.17.42", node), own, remote_blocks(node)].concat(),
        );
    }
    for number in 1..=REFLECTORS {
        let name = format!("rr{number}");
        assert_eq!(peers(&lab, &name, 8).len(), 8, "three nodes and five reflectors");
        assert_routes(&lab, &name, &[link("172.17.42", reflector(number)), remote_blocks(0)].concat());
    }
    lab.down().unwrap();
}

/// The blocks of all nodes but one, each by the node that has it.
fn remote_blocks(but: u8) -> Vec<String> {
    let others = (1..=NODES).filter(|node| *node != but);
    others
        .map(|node| {
            let (third, fourth) = block(node);
            format!("192.168.{third}.{fourth}/26 via 172.17.42.{node} dev eth0")
        })
        .collect()
}

fn racks() -> String {
    let mut yaml = "
name: racks
subnets:
  - {name: racks, cidr: 172.17.42.0/24, gateway: 172.17.42.254}
pools:
  - {cidr: 192.168.0.0/16}
hosts:
"
    .to_owned();
    for node in 1..=NODES {
        writeln!(yaml, "  - {{name: n{node}, address: 172.17.42.{node}, as: 65100}}").unwrap();
    }
    for number in 1..=REFLECTORS {
        let address = reflector(number);
        writeln!(yaml, "  - {{name: rr{number}, address: 172.17.42.{address}, as: 65100}}").unwrap();
    }
    yaml.push_str("workloads:\n");
    for node in 1..=NODES {
        let (third, fourth) = block(node);
        let address = format!("192.168.{third}.{}", fourth + 2);
        writeln!(yaml, "  - {{name: w{node}, host: n{node}, address: {address}}}").unwrap();
    }
    yaml
}

/// Nodes are labelled with their rack, reflectors also get its cluster id; nodes peer with their rack's reflectors, and
/// reflectors with one another.
fn rack_resources() -> String {
    let mut yaml = String::new();
    let mut node = |name: String, address: u8, labels: String, cluster: String| {
        write!(
            yaml,
            "---\napiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n\
             spec: {{bgp: {{ipv4Address: 172.17.42.{address}/24, asNumber: 65100{cluster}}}}}\n"
        )
        .unwrap();
    };
    for number in 1..=NODES {
        node(format!("n{number}"), number, format!("rack: r{}", (number - 1) / 3 + 1), String::new());
    }
    for number in 1..=REFLECTORS {
        let rack = (number - 1) / 2 + 1;
        let cluster = format!(", routeReflectorClusterID: 1.0.0.{rack}");
        node(format!("rr{number}"), reflector(number), format!("rack: r{rack}, reflector: \"\""), cluster);
    }
    let mut peer = |name: &str, nodes: &str, reflectors: &str| {
        write!(
            yaml,
            "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {name}}}\n\
             spec: {{nodeSelector: \"{nodes}\", peerSelector: \"{reflectors}\"}}\n"
        )
        .unwrap();
    };
    for rack in ["r1", "r2", "r3"] {
        peer(
            rack,
            &format!("rack == '{rack}' && !has(reflector)"),
            &format!("rack == '{rack}' && has(reflector)"),
        );
    }
    peer("reflectors", "has(reflector)", "has(reflector)");
    format!("{yaml}---{MESH_OFF}")
}
