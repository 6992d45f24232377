//! What a node sends and receives itself, as packets: its links, translated destinations, addresses that no resource names.

use std::net::UdpSocket;
use std::time::Duration;

use crate::edge_cases::{host_endpoint, host_policy};
use crate::lab::{Filter, Lab, connect, serve};
use crate::netns::Namespace;

/// A host without workloads and its neighbour by eth0, both with addresses of both families.
fn host_and_neighbour() -> (Lab, Namespace) {
    let lab = Lab::without_workloads();
    let neighbour = lab.neighbour();
    for (namespace, addr) in [(&lab.host, "fd00:7::1/64"), (&neighbour, "fd00:7::2/64")] {
        namespace.ip(&format!("addr add {addr} dev eth0 nodad"));
    }
    (lab, neighbour)
}

#[test]
fn pe72_pe73_neighbours_are_discovered_where_a_host_endpoint_denies_all_but_its_failsafe_ports() {
    let deny = |place: &str| host_policy(place, "ingress: [{action: Deny}]");
    let worlds = [
        host_endpoint(""),
        host_endpoint(&deny("types: [Ingress]")),
        host_endpoint(&deny("preDNAT: true, applyOnForward: true, types: [Ingress]")),
        host_endpoint(&host_policy(
            "doNotTrack: true, applyOnForward: true, types: [Ingress, Egress]",
            "ingress: [{action: Deny}], egress: [{action: Deny}]",
        )),
    ];
    for (number, world) in worlds.iter().enumerate() {
        for filter in Filter::ALL {
            let case = format!("{filter:?}, world {number}");
            let (lab, neighbour) = host_and_neighbour();
            lab.host.within(|| [22, 80].map(|port| serve(&format!("[::]:{port}"))));
            let server = neighbour.within(|| UdpSocket::bind("[::]:53").unwrap());
            server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            lab.apply_in(filter, world);
            let forget = || [&lab.host, &neighbour].map(|namespace| namespace.ip("-6 neigh flush dev eth0"));
            let reached = [22, 80].map(|port| {
                forget();
                let to = format!("[fd00:7::1]:{port}").parse().unwrap();
                neighbour.within(|| connect(to)).is_some()
            });
            assert_eq!(reached, [true, false], "{case}");
            forget();
            lab.host.within(|| UdpSocket::bind("[::]:0").unwrap().send_to(b"x", "[fd00:7::2]:53").unwrap());
            let (_, heard) = server.recv_from(&mut [0; 8]).expect("what a failsafe port lets out arrives");
            assert_eq!(heard.ip().to_string(), "fd00:7::1", "{case}");
        }
    }
}
