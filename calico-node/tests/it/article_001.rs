//! A pool without a tunnel, always with one, and with one across subnets only: routes and packets on three hosts with
//! the addresses of a published example. Where the kernel has IPIP the tunnel is that, elsewhere VXLAN.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use calico_node::lab::{Capture, Ending, IPIP, IpHeader, Lab, Packet, UDP, Verdict};

use crate::agent::eventually;
use crate::article::{Tunnel, assert_routes, interface, tunnel};
use crate::lab::up;

const TOPOLOGY: &str = "
name: walkers
subnets:
  - {name: walkers, cidr: 172.16.6.0/24, gateway: 172.16.6.254}
  - {name: demi, cidr: 172.16.199.0/24, gateway: 172.16.199.254}
hosts:
  - {name: walker-1, address: 172.16.6.47}
  - {name: walker-2, address: 172.16.6.249}
  - {name: demi-1, address: 172.16.199.114}
workloads:
  - {name: busybox-0, host: walker-1, address: 192.168.187.209}
  - {name: busybox-1, host: walker-1, address: 192.168.187.211}
  - {name: busybox-2, host: walker-2, address: 192.168.135.74}
  - {name: busybox-3, host: demi-1, address: 192.168.121.2}
resources:
  - {apiVersion: v1, kind: ipPool, metadata: {cidr: 192.168.0.0/16}, spec: {nat-outgoing: true}}
";

const WALKER_1: Ipv4Addr = Ipv4Addr::new(172, 16, 6, 47);
const WALKER_2: Ipv4Addr = Ipv4Addr::new(172, 16, 6, 249);
const DEMI_1: Ipv4Addr = Ipv4Addr::new(172, 16, 199, 114);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 16, 6, 254);
const BUSYBOX_1: Ipv4Addr = Ipv4Addr::new(192, 168, 187, 211);
const BUSYBOX_2: Ipv4Addr = Ipv4Addr::new(192, 168, 135, 74);
const BUSYBOX_3: Ipv4Addr = Ipv4Addr::new(192, 168, 121, 2);

#[test]
fn a_pool_has_its_routes_and_packets_without_a_tunnel_always_with_one_and_across_subnets_only() {
    let tunnel = tunnel();
    let mut lab = up(TOPOLOGY);
    let born = host_links(&lab);
    if tunnel == Tunnel::Ipip {
        leave_things_on_tunl0(&lab);
    }

    assert_routes(&lab, "walker-1", &[constant_part(&lab), off()].concat());
    goes_bare(&lab, WALKER_2);
    goes_to_the_gateway_and_is_lost(&lab);

    lab.apply(&pool(tunnel, "always")).unwrap();
    let both = [behind(&lab, tunnel, "demi-1"), behind(&lab, tunnel, "walker-2")];
    assert_routes(&lab, "walker-1", &[constant_part(&lab), both.to_vec()].concat());
    goes_through(&lab, tunnel, "busybox-2", BUSYBOX_2, WALKER_2);
    goes_through(&lab, tunnel, "busybox-3", BUSYBOX_3, DEMI_1);

    lab.apply(&pool(tunnel, "cross-subnet")).unwrap();
    let across = [behind(&lab, tunnel, "demi-1"), off()[1].clone()];
    assert_routes(&lab, "walker-1", &[constant_part(&lab), across.to_vec()].concat());
    goes_bare(&lab, WALKER_2);
    goes_through(&lab, tunnel, "busybox-3", BUSYBOX_3, DEMI_1);
    if tunnel == Tunnel::Ipip {
        tunl0_was_adopted(&lab, &born);
    }
    an_agent_that_starts_anew_writes_nothing(&mut lab);

    lab.apply(&pool(tunnel, "off")).unwrap();
    assert_routes(&lab, "walker-1", &[constant_part(&lab), off()].concat());
    if tunnel == Tunnel::Ipip {
        tunl0_is_given_back(&lab);
    }
    lab.down().unwrap();
}

/// The pool as users write it: in the old dialect for IPIP, which did not know VXLAN.
fn pool(tunnel: Tunnel, mode: &str) -> String {
    match (tunnel, mode) {
        (_, "off") => {
            "{apiVersion: v1, kind: ipPool, metadata: {cidr: 192.168.0.0/16}, spec: {nat-outgoing: true}}"
                .to_owned()
        }
        (Tunnel::Ipip, mode) => format!(
            "{{apiVersion: v1, kind: ipPool, metadata: {{cidr: 192.168.0.0/16}}, \
             spec: {{nat-outgoing: true, ipip: {{enabled: true, mode: {mode}}}}}}}"
        ),
        (Tunnel::Vxlan, mode) => format!(
            "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: 192-168-0-0-16}}, \
             spec: {{cidr: 192.168.0.0/16, natOutgoing: true, vxlanMode: {}}}}}",
            if mode == "always" { "Always" } else { "CrossSubnet" }
        ),
    }
}

/// The routes of walker-1 that are the same in every state.
fn constant_part(lab: &Lab) -> Vec<String> {
    vec![
        "default via 172.16.6.254 dev eth0".to_owned(),
        "172.16.6.0/24 dev eth0 scope link src 172.16.6.47".to_owned(),
        "blackhole 192.168.187.192/26".to_owned(),
        format!("192.168.187.209 dev {} scope link", interface(lab, "busybox-0")),
        format!("192.168.187.211 dev {} scope link", interface(lab, "busybox-1")),
    ]
}

/// The remote blocks without a tunnel. The one of the other subnet is printed with its host as the gateway, which is not
/// on the link: what it says of the frames, that they go to the physical gateway, is how such a route resolves.
fn off() -> Vec<String> {
    vec![
        "192.168.121.0/26 via 172.16.6.254 dev eth0".to_owned(),
        "192.168.135.64/26 via 172.16.6.249 dev eth0".to_owned(),
    ]
}

/// A remote block behind the tunnel: IPIP leads to the host itself, VXLAN to its tunnel's address.
fn behind(lab: &Lab, tunnel: Tunnel, host: &str) -> String {
    let (block, address) = match host {
        "demi-1" => ("192.168.121.0/26", DEMI_1),
        _ => ("192.168.135.64/26", WALKER_2),
    };
    if tunnel == Tunnel::Ipip {
        return format!("{block} via {address} dev tunl0 onlink");
    }
    let peer = eventually(|| address_of(lab, host, "vxlan.calico"), Option::is_some).unwrap();
    format!("{block} via {peer} dev vxlan.calico onlink")
}

fn address_of(lab: &Lab, host: &str, device: &str) -> Option<String> {
    let text = lab.exec(host, "ip", &["-4", "-o", "address", "show", "dev", device]).unwrap().stdout;
    text.split_whitespace().skip_while(|word| *word != "inet").nth(1)?.strip_suffix("/32").map(str::to_owned)
}

/// Pings from busybox-1 until it is answered, and returns what the last ping made of packets on the wire of walker-1.
fn ping(lab: &Lab, to: Ipv4Addr) -> Vec<Packet> {
    let wire = lab.capture("walker-1", "eth0").unwrap();
    let ask = || {
        wire.drain().unwrap();
        lab.ping("busybox-1", IpAddr::V4(to)).unwrap()
    };
    assert_eq!(eventually(ask, |verdict| *verdict == Verdict::Allowed), Verdict::Allowed, "{to}");
    between_workloads(&wire)
}

fn between_workloads(wire: &Capture) -> Vec<Packet> {
    let workload = |address: Ipv4Addr| address.octets().starts_with(&[192, 168]);
    let mut packets = wire.drain().unwrap();
    packets.retain(|packet| workload(packet.innermost().source) && workload(packet.innermost().destination));
    packets
}

fn icmp(source: Ipv4Addr, destination: Ipv4Addr) -> IpHeader {
    IpHeader { source, destination, protocol: 1 }
}

/// Within the subnet: as they are, from host to host.
fn goes_bare(lab: &Lab, host: Ipv4Addr) {
    let packets = ping(lab, BUSYBOX_2);
    let headers: Vec<_> = packets.iter().map(|packet| (packet.outer, packet.inner)).collect();
    let expected = [(icmp(BUSYBOX_1, BUSYBOX_2), None), (icmp(BUSYBOX_2, BUSYBOX_1), None)];
    assert_eq!(headers, expected, "a request and its reply");
    assert_eq!(packets[0].hop, link_address(lab, host));
}

/// In a tunnel: from host to host on the outside, from workload to workload inside.
fn goes_through(lab: &Lab, tunnel: Tunnel, name: &str, workload: Ipv4Addr, host: Ipv4Addr) {
    assert_eq!(lab.address(name).unwrap(), IpAddr::V4(workload));
    let protocol = if tunnel == Tunnel::Ipip { IPIP } else { UDP };
    let headers: Vec<_> = ping(lab, workload).iter().map(|packet| (packet.outer, packet.inner)).collect();
    let outer = |source, destination| IpHeader { source, destination, protocol };
    let expected = [
        (outer(WALKER_1, host), Some(icmp(BUSYBOX_1, workload))),
        (outer(host, WALKER_1), Some(icmp(workload, BUSYBOX_1))),
    ];
    assert_eq!(headers, expected, "a request and its reply");
}

/// Across subnets without a tunnel: to the router, which knows no workloads.
fn goes_to_the_gateway_and_is_lost(lab: &Lab) {
    let wire = lab.capture("walker-1", "eth0").unwrap();
    assert_ne!(lab.ping("busybox-1", IpAddr::V4(BUSYBOX_3)).unwrap(), Verdict::Allowed);
    let packets = between_workloads(&wire);
    let headers: Vec<_> = packets.iter().map(|packet| (packet.hop, packet.outer, packet.inner)).collect();
    assert_eq!(headers, [(link_address(lab, GATEWAY), icmp(BUSYBOX_1, BUSYBOX_3), None)]);
}

/// The link-layer address that walker-1 has learned for a neighbour.
fn link_address(lab: &Lab, neighbour: Ipv4Addr) -> [u8; 6] {
    let text =
        lab.exec("walker-1", "ip", &["neighbour", "show", &neighbour.to_string(), "dev", "eth0"]).unwrap();
    let mac = text.stdout.split_whitespace().skip_while(|word| *word != "lladdr").nth(1);
    let bytes = mac.unwrap_or_default().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().unwrap()
}

/// The links of walker-1 with their numbers.
fn host_links(lab: &Lab) -> String {
    let text = lab.exec("walker-1", "ip", &["-o", "link", "show"]).unwrap().stdout;
    let names = text.lines().filter_map(|line| line.split('@').next()).map(|line| line.split(": <").next());
    names.flatten().filter(|line| !line.contains("cali")).collect::<Vec<_>>().join("\n")
}

/// What walker-1 has on its tunl0 before a pool wants it: an address of its own, and a route that BIRD left there.
fn leave_things_on_tunl0(lab: &Lab) {
    for arguments in [
        &["address", "add", "10.99.0.1/32", "dev", "tunl0"][..],
        &["link", "set", "tunl0", "up"],
        &["route", "add", "192.168.7.0/26", "via", "172.16.6.249", "dev", "tunl0", "onlink", "proto", "bird"],
    ] {
        let answer = lab.exec("walker-1", "ip", arguments).unwrap();
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

/// The tunl0 that the kernel made with the namespace is in use, and what others put on it is still there.
fn tunl0_was_adopted(lab: &Lab, born: &str) {
    assert!(born.contains(": tunl0"), "{born}");
    assert_eq!(host_links(lab), *born);
    let link = lab.exec("walker-1", "ip", &["-d", "address", "show", "dev", "tunl0"]).unwrap().stdout;
    assert!(link.contains("mtu 1480") && link.contains(",UP"), "{link}");
    assert!(link.contains("inet 10.99.0.1/32"), "{link}");
    assert!(link.contains("inet 192.168.187.") && link.contains("tunl0:cali"), "{link}");
}

/// What walker-1 has in its kernel is right already, and its next agent sees that.
fn an_agent_that_starts_anew_writes_nothing(lab: &mut Lab) {
    let before = lab.quiet_kernel_objects("walker-1", Duration::from_millis(500)).unwrap();
    lab.end_agent("walker-1", Ending::Killed).unwrap();
    let writes = lab.kernel_events("walker-1").unwrap();
    lab.start_agent("walker-1").unwrap();
    lab.await_mesh().unwrap();
    let after = lab.quiet_kernel_objects("walker-1", Duration::from_millis(500)).unwrap();
    assert_eq!(before.difference(&after), Vec::<String>::new());
    assert_eq!(writes.drain().unwrap(), Vec::<String>::new());
}

/// Our address is gone from it, and nothing else.
fn tunl0_is_given_back(lab: &Lab) {
    let ask = || lab.exec("walker-1", "ip", &["address", "show", "dev", "tunl0"]).unwrap().stdout;
    let link = eventually(ask, |link| !link.contains("tunl0:cali"));
    assert!(!link.contains("192.168.187.") && link.contains("inet 10.99.0.1/32"), "{link}");
}
