//! Plugging workloads in, as the kernel shows it.

use std::process::Command;

use calico_node::workload::{
    Attachment, Forwarding, Netns, Unplugged, WorkloadError, differences, inside, plug, unplug,
};

use crate::namespace::Namespace;

fn attachment(host: &str, addresses: &[&str]) -> Attachment {
    Attachment {
        host_interface: host.parse().unwrap(),
        interface: "eth0".parse().unwrap(),
        mac: "02:00:00:00:00:07".parse().unwrap(),
        addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
        mtu: Some(1410),
        queues: None,
        forwarding: Forwarding::Off,
    }
}

/// Plugs in from within the node's namespace.
async fn plug_in(
    node: &Namespace,
    workload: &Namespace,
    attachment: &Attachment,
) -> Result<(), WorkloadError> {
    let (attachment, netns) = (attachment.clone(), workload.path());
    inside(&node.open(), move || async move { plug(&attachment, &Netns::open(&netns)?).await }).await?
}

async fn differ(node: &Namespace, workload: &Namespace, attachment: &Attachment) -> Vec<String> {
    let (attachment, netns) = (attachment.clone(), workload.path());
    let compare = move || async move { differences(&attachment, &Netns::open(&netns)?).await };
    inside(&node.open(), compare).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_workload_of_both_families_is_plugged_in_as_calico_does() {
    let (node, workload) = (Namespace::new("node"), Namespace::new("wl"));
    let wanted = attachment("cali0123456789a", &["192.168.3.65", "fd80::3:65"]);
    plug_in(&node, &workload, &wanted).await.unwrap();

    let host = &node.ip("link show cali0123456789a")[0];
    assert_eq!((&host["address"], &host["mtu"]), (&"ee:ee:ee:ee:ee:ee".into(), &1410.into()));
    assert_eq!(host["operstate"], "UP");
    for (setting, value) in [
        ("ipv4/conf/cali0123456789a/proxy_arp", "1"),
        ("ipv4/conf/cali0123456789a/forwarding", "1"),
        ("ipv4/conf/cali0123456789a/route_localnet", "0"),
        ("ipv4/neigh/cali0123456789a/proxy_delay", "0"),
        ("ipv6/conf/cali0123456789a/proxy_ndp", "1"),
        ("ipv6/conf/cali0123456789a/forwarding", "1"),
        ("ipv6/conf/cali0123456789a/accept_ra", "0"),
    ] {
        assert_eq!(node.setting(setting), value, "{setting}");
    }
    let route = &node.ip("route show 192.168.3.65")[0];
    assert_eq!((&route["dev"], &route["scope"]), (&"cali0123456789a".into(), &"link".into()));
    assert_eq!(node.ip("-6 route show fd80::3:65")[0]["dev"], "cali0123456789a");

    let eth0 = &workload.ip("addr show eth0")[0];
    assert_eq!((&eth0["address"], &eth0["mtu"]), (&"02:00:00:00:00:07".into(), &1410.into()));
    let addresses: Vec<String> = eth0["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|addr| addr["scope"] == "global")
        .map(|addr| format!("{}/{}", addr["local"].as_str().unwrap(), addr["prefixlen"]))
        .collect();
    assert_eq!(addresses, ["192.168.3.65/32", "fd80::3:65/128"]);
    assert!(eth0["addr_info"][0].get("broadcast").is_none(), "{eth0}");
    let routes = workload.ip("route show");
    assert_eq!((&routes[0]["dst"], &routes[0]["gateway"]), (&"default".into(), &"169.254.1.1".into()));
    assert_eq!((&routes[1]["dst"], &routes[1]["scope"]), (&"169.254.1.1".into(), &"link".into()));
    assert_eq!(workload.ip("-6 route show default")[0]["gateway"], "fe80::ecee:eeff:feee:eeee");
    assert_eq!(workload.setting("ipv4/ip_forward"), "0");

    assert_eq!(differ(&node, &workload, &wanted).await, [""; 0]);
}

#[tokio::test]
async fn a_workload_reaches_its_node_over_either_family() {
    let (node, workload) = (Namespace::new("node"), Namespace::new("wl"));
    plug_in(&node, &workload, &attachment("cali00000000001", &["10.65.0.2", "fd80::2"])).await.unwrap();
    node.ip("addr add 10.0.0.1/32 dev lo");
    node.ip("addr add fd80::1/128 dev lo nodad");
    node.ip("link set lo up");
    for addr in ["10.0.0.1", "fd80::1"] {
        let ping = workload.command("ping").args(["-c1", "-W2", addr]).output().unwrap();
        assert!(ping.status.success(), "{addr}: {}", String::from_utf8_lossy(&ping.stdout));
    }
}

#[tokio::test]
async fn a_workload_without_ipv6_cannot_talk_it_to_the_node() {
    let (node, workload) = (Namespace::new("node"), Namespace::new("wl"));
    plug_in(&node, &workload, &attachment("cali00000000001", &["10.65.0.2"])).await.unwrap();
    assert_eq!(node.setting("ipv6/conf/cali00000000001/disable_ipv6"), "1");
    assert_eq!(node.ip("-6 addr show dev cali00000000001").as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn a_refused_step_leaves_nothing_behind() {
    let (node, workload) = (Namespace::new("node"), Namespace::new("wl"));
    workload.ip("link add other type veth peer name other2");
    workload.ip("link set other up");
    workload.ip("route add default dev other");
    let error = plug_in(&node, &workload, &attachment("cali00000000001", &["10.65.0.2"])).await.unwrap_err();
    assert_eq!(error.to_string(), "could not route everything else via 169.254.1.1 on eth0");
    assert_eq!(node.interfaces(), ["lo"]);
    assert_eq!(workload.interfaces(), ["lo", "other", "other2"]);
}

#[tokio::test]
async fn an_address_that_another_workload_has_is_refused() {
    let (node, first, second) = (Namespace::new("node"), Namespace::new("wl"), Namespace::new("wl"));
    plug_in(&node, &first, &attachment("cali00000000001", &["10.65.0.2"])).await.unwrap();
    let error = plug_in(&node, &second, &attachment("cali00000000002", &["10.65.0.2"])).await.unwrap_err();
    assert!(error.to_string().contains("routed to cali00000000001, another workload's interface"), "{error}");
    assert_eq!(node.interfaces(), ["cali00000000001", "lo"]);
    assert_eq!(node.ip("route show 10.65.0.2")[0]["dev"], "cali00000000001");
}

#[tokio::test]
async fn a_route_left_over_from_elsewhere_is_replaced() {
    let (node, workload) = (Namespace::new("node"), Namespace::new("wl"));
    node.ip("link add up0 type veth peer name up1");
    node.ip("link set up0 up");
    node.ip("route add 10.65.0.2/32 dev up0 proto 80 metric 1024");
    plug_in(&node, &workload, &attachment("cali00000000001", &["10.65.0.2"])).await.unwrap();
    assert_eq!(node.ip("route show 10.65.0.2")[0]["dev"], "cali00000000001");
}

#[tokio::test]
async fn another_programs_route_to_the_address_is_told_of_and_stays() {
    for (address, ip) in [("10.65.0.2", "route"), ("fd80::2", "-6 route")] {
        let (node, workload) = (Namespace::new("node"), Namespace::new("wl"));
        node.ip("link add up0 type veth peer name up1");
        node.ip("link set up0 up");
        node.ip(&format!("{ip} add {address} dev up0 proto static metric 1024"));
        let error = plug_in(&node, &workload, &attachment("cali00000000001", &[address])).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("dev up0 scope link protocol 4); remove it"), "{text}");
        assert_eq!(node.interfaces(), ["lo", "up0", "up1"]);
        assert_eq!(node.ip(&format!("{ip} show {address}"))[0]["dev"], "up0");
    }
}

#[tokio::test]
async fn what_is_changed_behind_our_back_is_told() {
    let (node, workload) = (Namespace::new("node"), Namespace::new("wl"));
    let wanted = attachment("cali00000000001", &["10.65.0.2"]);
    plug_in(&node, &workload, &wanted).await.unwrap();
    // With its last address an interface loses its routes too.
    workload.ip("addr add 10.9.9.9/32 dev eth0");
    workload.ip("addr del 10.65.0.2/32 dev eth0");
    node.ip("route del 10.65.0.2");
    node.ip("link set cali00000000001 mtu 1400");
    assert_eq!(
        differ(&node, &workload, &wanted).await,
        [
            "cali00000000001 has an MTU of 1400, not 1410",
            "in the workload, eth0 does not have the address 10.65.0.2/32",
            "10.65.0.2/32 is not routed to cali00000000001",
        ]
    );
}

#[tokio::test]
async fn unplugging_removes_both_ends_and_may_be_repeated() {
    let (node, workload) = (Namespace::new("node"), Namespace::new("wl"));
    let wanted = attachment("cali00000000001", &["10.65.0.2"]);
    plug_in(&node, &workload, &wanted).await.unwrap();
    assert_eq!(unplug(&wanted.interface, &workload.open()).await.unwrap(), Unplugged::Removed);
    assert_eq!(node.interfaces(), ["lo"]);
    assert_eq!(unplug(&wanted.interface, &workload.open()).await.unwrap(), Unplugged::WasAbsent);
}

#[tokio::test]
async fn only_a_namespace_of_its_own_is_taken() {
    let file = std::env::temp_dir().join(format!("no-namespace-{}", std::process::id()));
    std::fs::write(&file, "").unwrap();
    let error = Netns::open(&file).unwrap_err();
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(error, WorkloadError::NotANamespace { .. }), "{error}");
    let error = Netns::open("/proc/self/ns/net".as_ref()).unwrap_err();
    assert!(matches!(error, WorkloadError::OwnNamespace { .. }), "{error}");
    let error = Netns::open("/var/run/netns/nothing-of-this-name".as_ref()).unwrap_err();
    assert!(matches!(error, WorkloadError::NoNamespace { .. }), "{error}");
}

#[tokio::test]
async fn plugging_leaves_the_callers_namespace_alone() {
    let own = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = own();
    let (node, workload) = (Namespace::new("node"), Namespace::new("wl"));
    plug_in(&node, &workload, &attachment("cali00000000001", &["10.65.0.2"])).await.unwrap();
    assert_eq!(own(), before);
    let host = Command::new("ip").args(["link", "show", "cali00000000001"]).output().unwrap();
    assert!(!host.status.success(), "the interface appeared in the namespace of the test");
}
