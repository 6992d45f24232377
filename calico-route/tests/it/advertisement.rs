//! What a workload says of routers.

use std::time::Duration;

use calico_model::learned::LearnedRoutes;
use calico_model::resource::EncapMode;
use calico_route::{compute, diff};
use nix::sys::socket::sockopt::Ipv6Ttl;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket,
};

use crate::cluster::{dual_stack, node_name, pool, three_nodes, workload};
use crate::namespace::{TestNamespace, machine};

/// A router advertisement (RFC 4861 section 4.2): a default router for half an hour.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];

/// Advertises a router to the host, from a workload.
fn advertise(pod: &TestNamespace, host: &str) {
    let index: u32 = pod.run("cat /sys/class/net/eth0/ifindex").trim().parse().unwrap();
    let to = std::net::SocketAddrV6::new(host.parse().unwrap(), 0, 0, index);
    pod.inside(|| {
        let raw =
            socket(AddressFamily::Inet6, SockType::Raw, SockFlag::empty(), SockProtocol::IcmpV6).unwrap();
        // Others are not believed (section 6.1.2).
        setsockopt(&raw, Ipv6Ttl, &255).unwrap();
        let raw = std::os::fd::AsRawFd::as_raw_fd(&raw);
        sendto(raw, &ADVERTISEMENT, &SockaddrIn6::from(to), MsgFlags::empty()).unwrap();
    });
    std::thread::sleep(Duration::from_millis(200));
}

/// CVE-2020-13597: with its default settings a kernel would send all its traffic to the workload.
#[tokio::test]
async fn pe74_a_workload_that_advertises_itself_as_a_router_is_not_believed() {
    let host = machine();
    let pod = TestNamespace::new();
    host.ip("link del cali1");
    host.join("cali1", &pod, "eth0");
    for (namespace, device) in [(&host, "cali1"), (&pod, "eth0")] {
        namespace.run(&format!("sysctl -qw net.ipv6.conf.{device}.accept_dad=0"));
        namespace.ip(&format!("link set {device} down"));
        namespace.ip(&format!("link set {device} up"));
    }
    host.run("sysctl -qw net.ipv6.conf.cali1.accept_ra=2");
    let addresses = host.ip("-6 -o address show dev cali1 scope link");
    let link_local = addresses.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned();
    let believed = || host.ip("-6 route show default").contains("cali1");
    advertise(&pod, &link_local);
    assert!(believed(), "by a kernel that nobody looks after");
    host.ip("-6 route flush default");
    assert!(!believed());

    let mut snapshot = three_nodes();
    pool(&mut snapshot, "fd00::/48", EncapMode::Never, EncapMode::Never);
    dual_stack(&mut snapshot, "node1", "2001:db8::1/64", "fd00::100");
    workload(&mut snapshot, "six", "node1", "cali1", "fd00::101/128");
    let desired = compute(&snapshot, &node_name("node1"), &LearnedRoutes::new());
    let mut netlink = host.connect();
    let changes = diff(&desired, &netlink.read(&desired.ownership).await.unwrap());
    assert!(netlink.apply(&changes).await.iter().all(|outcome| outcome.result.is_ok()));
    // The kernel's own come and go while it looks for duplicate addresses.
    let routes = || {
        let all = host.ip("-6 route show table all");
        all.lines().filter(|route| !route.contains("proto kernel")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = routes();
    advertise(&pod, &link_local);
    assert!(!believed());
    assert_eq!(routes(), before);
}
