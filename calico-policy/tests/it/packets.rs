//! Allowed and denied as packets, not as rules: workloads on veths of one host, with the compiled policy in its kernel.

use std::net::TcpStream;
use std::time::Duration;

use calico_model::resource::{EndpointToHostAction, FelixConfiguration, Object};
use calico_policy::{Packet, Path, Transport, Verdict, evaluate};

use crate::golden;
use crate::lab::{Lab, PORTS, Workload, connect, echoes, serve};
use crate::netns::Namespace;

#[test]
fn the_kernel_agrees_with_the_resources_about_every_pair() {
    let world = golden::world("database");
    let lab = Lab::of(&world);
    lab.apply(&world);
    let mut allowed = 0;
    for from in &lab.workloads {
        for to in lab.workloads.iter().filter(|to| to.interface != from.interface) {
            for port in PORTS {
                for (source, target) in [(&from.addr, to.socket(port)), (&from.addr6, to.socket6(port))] {
                    let path = Path::Forward {
                        from: from.interface.parse().unwrap(),
                        to: to.interface.parse().unwrap(),
                    };
                    let node = "node-1".parse().unwrap();
                    let packet =
                        Packet::new(node, path, source.parse().unwrap(), target.ip(), Transport::tcp(port))
                            .unwrap();
                    let expected = evaluate(&world, &packet);
                    let observed = from.namespace.within(|| connect(target)).is_some();
                    assert_eq!(observed, expected.outcome.verdict == Verdict::Allow, "{packet}: {expected}");
                    allowed += usize::from(observed);
                }
            }
        }
    }
    // Frontend to database on 3306, and between frontend and other where no policy applies but the frontend's own.
    assert_eq!(allowed, 2 + 4, "in both families");
}

#[test]
fn pe75_a_workload_sends_from_no_address_but_its_own() {
    let world = golden::world("database");
    let lab = Lab::of(&world);
    lab.apply(&world);
    let other = lab.workload("cali0000other1");
    let (web, db) = (lab.workload("cali000000web1"), lab.workload("cali0000000db1"));
    other.namespace.ip(&format!("addr add {}/32 dev eth0", web.addr));
    let before = received(db);
    for address in [&web.addr, "1.2.3.4"] {
        let _ = other.namespace.within(|| {
            std::process::Command::new("ping").args(["-c1", "-W1", "-I", address, &db.addr]).output()
        });
    }
    let spoofed = other.namespace.within(|| {
        let socket = std::net::UdpSocket::bind((web.addr.as_str(), 0)).unwrap();
        socket.send_to(b"x", db.socket(3306)).is_ok()
    });
    assert!(spoofed, "the packet left the workload");
    assert_eq!(received(db), before, "and did not arrive");
}

/// How many IPv4 packets reached a workload, as its kernel counts them.
fn received(workload: &Workload) -> u64 {
    let counters = workload.namespace.exec("cat /proc/net/snmp");
    let values = counters.lines().filter(|line| line.starts_with("Ip: ")).nth(1).unwrap();
    values.split(' ').nth(3).unwrap().parse().unwrap()
}

#[test]
fn pe90_an_interface_without_policy_neither_sends_nor_receives() {
    let world = golden::world("database");
    let mut lab = Lab::of(&world);
    lab.apply(&world);
    lab.plug("cali00000stray", "192.168.1.99", "fd00:168::99");
    let (stray, other) = (lab.workload("cali00000stray"), lab.workload("cali0000other1"));
    for (from, to) in [(stray, other), (other, stray)] {
        assert!(from.namespace.within(|| connect(to.socket(80))).is_none());
        assert!(from.namespace.within(|| connect(to.socket6(80))).is_none());
    }
    // Not even the host, whose kernel says so at once.
    let from_host =
        lab.host.within(|| TcpStream::connect_timeout(&stray.socket(80), Duration::from_millis(400)));
    assert!(from_host.is_err());
    lab.host.within(|| serve("0.0.0.0:8080"));
    lab.host.ip("addr add 172.16.6.11/32 dev lo");
    assert!(stray.namespace.within(|| connect("172.16.6.11:8080".parse().unwrap())).is_none());
}

#[test]
fn pe70_pe71_a_host_reaches_its_workloads_and_they_do_not_reach_it() {
    let world = golden::world("database");
    let lab = Lab::of(&world);
    lab.apply(&world);
    lab.host.ip("addr add 172.16.6.11/32 dev lo");
    lab.host.within(|| serve("0.0.0.0:8080"));
    let (db, other) = (lab.workload("cali0000000db1"), lab.workload("cali0000other1"));
    assert!(lab.host.within(|| connect(db.socket(80))).is_some());
    assert!(other.namespace.within(|| connect("172.16.6.11:8080".parse().unwrap())).is_none());
}

/// CVE-2020-8558: with `route_localnet`, which Service proxies set for all.
#[test]
fn pe76_loopback_addresses_are_reached_from_the_node_alone() {
    let mut world = golden::world("database");
    let open = FelixConfiguration {
        default_endpoint_to_host_action: Some(EndpointToHostAction::Return),
        ..FelixConfiguration::new()
    };
    world.insert(Object::new("default".parse().unwrap(), open));
    let lab = Lab::of(&world);
    lab.host.exec("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    lab.host.ip("link set lo up");
    lab.host.ip("addr add 172.16.6.11/32 dev lo");
    lab.host.within(|| serve("0.0.0.0:8080"));
    let neighbour = lab.neighbour();
    let other = &lab.workload("cali0000other1").namespace;
    for (sender, gateway) in [(&neighbour, "172.16.7.1"), (other, "169.254.1.1")] {
        sender.exec("sysctl -qw net.ipv4.conf.all.route_localnet=1");
        sender.ip("addr flush dev lo");
        sender.ip(&format!("route add 127.0.0.1 via {gateway} dev eth0"));
    }
    let reaches = |sender: &Namespace, to: &str| sender.within(|| connect(to.parse().unwrap())).is_some();
    for sender in [&neighbour, other] {
        assert!(reaches(sender, "127.0.0.1:8080"), "without rules");
    }
    lab.apply(&world);
    for sender in [&neighbour, other] {
        assert!(reaches(sender, "172.16.6.11:8080"), "the node itself is open");
        assert!(!reaches(sender, "127.0.0.1:8080"));
    }
    assert!(reaches(&lab.host, "127.0.0.1:8080"));
}

#[test]
fn pe92_connections_outlive_a_policy_written_anew_and_an_agent_that_starts_again() {
    let world = golden::world("database");
    let lab = Lab::of(&world);
    lab.apply(&world);
    let (web, db) = (lab.workload("cali000000web1"), lab.workload("cali0000000db1"));
    let mut stream = web.namespace.within(|| connect(db.socket(3306))).unwrap();
    assert!(echoes(&mut stream));

    let before = lab.host.exec("nft -a list table inet calico");
    lab.apply(&world);
    assert_eq!(lab.host.exec("nft -a list table inet calico"), before, "not a handle has changed");

    let mut closed = world.clone();
    for policy in closed.policies.values_mut().map(std::sync::Arc::make_mut) {
        policy.spec.0.ingress.clear();
        policy.spec.0.egress.clear();
    }
    lab.apply(&closed);
    assert!(echoes(&mut stream), "what was let through goes on");
    assert!(web.namespace.within(|| connect(db.socket(3306))).is_none(), "nothing new begins");
    lab.apply(&world);
    assert!(web.namespace.within(|| connect(db.socket(3306))).is_some());
}
