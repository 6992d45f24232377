//! What is set: of the kernel for workloads' interfaces, and by the operator for tunnels.

use std::collections::BTreeMap;

use calico_model::LearnedRoutes;
use calico_model::resource::{FelixConfiguration, Object};
use calico_route::fake::FakeKernel;
use calico_route::route::Class;
use calico_route::{Desired, compute};

use crate::cluster::{node_name, three_nodes, workload};

fn on_node1(snapshot: &calico_model::Snapshot) -> Desired {
    compute(snapshot, &node_name("node1"), &LearnedRoutes::new())
}

#[test]
fn a_workloads_interface_has_every_setting_and_no_ipv6_unless_it_has_an_address() {
    let mut snapshot = three_nodes();
    workload(&mut snapshot, "six", "node1", "cali6", "fd00::7/128");
    workload(&mut snapshot, "spoofer", "node1", "cali7", "192.168.0.7/32");
    let id = snapshot.workloads.keys().find(|id| id.name.as_str() == "spoofer").unwrap().clone();
    let mut spoofer = Object::clone(&snapshot.workloads[&id]);
    spoofer.spec.allow_spoofed_source_prefixes = vec!["10.1.0.0/16".parse().unwrap()];
    snapshot.insert(spoofer);
    let desired = on_node1(&snapshot);
    let of = |device: &str| -> BTreeMap<&str, &str> {
        let all = desired.sysctls.iter();
        let its = all.filter(|(sysctl, _)| sysctl.device().is_some_and(|its| its.as_str() == device));
        its.map(|(sysctl, value)| (sysctl.path(), value.as_str())).collect()
    };
    let four = [
        ("net/ipv4/conf/cali1/forwarding", "1"),
        ("net/ipv4/conf/cali1/proxy_arp", "1"),
        ("net/ipv4/conf/cali1/rp_filter", "1"),
        ("net/ipv4/neigh/cali1/proxy_delay", "0"),
        ("net/ipv6/conf/cali1/accept_ra", "0"),
        ("net/ipv6/conf/cali1/disable_ipv6", "1"),
    ];
    assert_eq!(of("cali1"), four.into());
    let six = [
        ("net/ipv4/conf/cali6/forwarding", "1"),
        ("net/ipv4/conf/cali6/proxy_arp", "1"),
        ("net/ipv4/conf/cali6/rp_filter", "1"),
        ("net/ipv4/neigh/cali6/proxy_delay", "0"),
        ("net/ipv6/conf/cali6/accept_ra", "0"),
        ("net/ipv6/conf/cali6/disable_ipv6", "0"),
        ("net/ipv6/conf/cali6/forwarding", "1"),
        ("net/ipv6/conf/cali6/proxy_ndp", "1"),
    ];
    assert_eq!(of("cali6"), six.into());
    assert_eq!(of("cali7")["net/ipv4/conf/cali7/rp_filter"], "0", "it may send from others' addresses");
    let node = desired.sysctls.iter().filter(|(sysctl, _)| sysctl.device().is_none());
    let node: Vec<_> = node.map(|(sysctl, value)| (sysctl.path(), value.as_str())).collect();
    assert_eq!(node, [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")]);
}

/// The kernel binds a VXLAN device to the link that carries its packets.
#[test]
fn a_link_that_is_wider_than_the_nodes_own_widens_no_tunnel() {
    let mut kernel = FakeKernel::default();
    kernel.add_link(&"eth0".parse().unwrap(), &["172.16.6.1/24".parse().unwrap()]);
    kernel.add_link(&"wide0".parse().unwrap(), &[]);
    kernel.links.get_mut(&"wide0".parse().unwrap()).unwrap().mtu = 9000;
    let mut snapshot = three_nodes();
    let pattern = Some("^wide".to_owned());
    let spec = FelixConfiguration { mtu_iface_pattern: pattern, ..FelixConfiguration::new() };
    snapshot.insert(Object::new("default".parse().unwrap(), spec));
    let desired = on_node1(&snapshot);
    let actual = kernel.read(&desired.ownership);
    assert_eq!(desired.workload_mtu(&actual.host), 1450);
    let text: Vec<_> = calico_route::diff(&desired, &actual).iter().map(ToString::to_string).collect();
    assert!(
        text.iter().any(|change| change.contains("vxlan.calico") && change.contains("mtu 1450")),
        "{text:?}"
    );
}

/// As upstream ranks them; what a peer told comes after all that the datastore says.
#[test]
fn the_classes_of_routes_are_ranked() {
    let ranked = [
        Class::LocalWorkload,
        Class::VxlanSameSubnet,
        Class::VxlanTunnel,
        Class::IpipSameSubnet,
        Class::IpipTunnel,
        Class::NoEncap,
        Class::Blackhole,
        Class::Learned,
    ];
    assert!(ranked.is_sorted(), "{ranked:?}");
}

#[cfg(feature = "netlink")]
#[tokio::test]
async fn an_mtu_that_a_tunnel_cannot_have_is_one_line_and_the_nearest_is_taken() {
    let machine = crate::namespace::machine();
    let mut netlink = machine.connect();
    let mut snapshot = three_nodes();
    let line = |bytes| {
        format!(
            "vxlanMTU of the FelixConfiguration is {bytes}, but vxlan.calico can have 68 to 1450; set it to one of these, \
             or to 0 to have it detected"
        )
    };
    for (bytes, taken, told) in
        [(9000, 1450, Some(line(9000))), (20, 68, Some(line(20))), (1400, 1400, None), (0, 1450, None)]
    {
        let spec = FelixConfiguration { vxlan_mtu: Some(bytes), ..FelixConfiguration::new() };
        snapshot.insert(Object::new("default".parse().unwrap(), spec));
        // Both when the device is made and when it is there.
        for before in ["link show eth0", "link del vxlan.calico"] {
            machine.ip(before);
            let desired = on_node1(&snapshot);
            let actual = netlink.read(&desired.ownership).await.unwrap();
            for outcome in netlink.apply(&calico_route::diff(&desired, &actual)).await {
                assert!(outcome.result.is_ok(), "{}: {:?}", outcome.change, outcome.result);
            }
            let actual = netlink.read(&desired.ownership).await.unwrap();
            let plan = calico_route::plan(&desired, &actual);
            assert_eq!(plan.changes, [], "{bytes}");
            let waiting: Vec<_> = plan.waiting.iter().map(ToString::to_string).collect();
            assert_eq!(waiting, told.clone().into_iter().collect::<Vec<_>>());
            assert_eq!(actual.host.links[&"vxlan.calico".parse().unwrap()].mtu, taken, "{bytes}");
            assert_eq!(desired.workload_mtu(&actual.host), taken, "{bytes}");
        }
    }
}
