//! Why a container gets no address, in the words that the runtime shows its user.

use calico_ipam::{AssignAddress, Ipam, Release};
use calico_model::resource::{AllowedUse, IpPool, Object, ObjectId};
use serde_json::json;

use super::{Container, Node, v4_only};
use crate::namespace::Namespace;

#[expect(clippy::disallowed_methods, reason = "the plugins that run beside it have the world's time")]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

async fn create(node: &Node, name: &str, pool: IpPool) {
    node.client().of().create(Object::new(name.parse().unwrap(), pool)).await.unwrap();
}

#[tokio::test]
async fn each_reason_names_pool_block_host_and_what_stood_in_the_way() {
    let (node, workload) = (Node::new().await, Namespace::new("wl"));
    let ipam = Ipam::new(node.client().store().clone());
    let pool = |cidr: &str| IpPool::new(cidr.parse().unwrap());
    create(&node, "off", IpPool { disabled: true, ..pool("10.1.0.0/24") }).await;
    create(&node, "tunnels", IpPool { allowed_uses: [AllowedUse::Tunnel].into(), ..pool("10.2.0.0/24") })
        .await;
    create(&node, "tiny", IpPool { block_size: 32, ..pool("10.3.0.0/32") }).await;

    let told = |args: &str, pools: &[&str], reason: &str| {
        let mut config = v4_only();
        if !pools.is_empty() {
            config["ipam"]["ipv4_pools"] = json!(pools);
        }
        let container = Container { args, ..Container::of("c1", &workload) };
        let answer = node.call("ADD", &container, &config);
        // Of the log's fields, quotes are escaped.
        assert!(answer.log.replace('\\', "").contains(reason), "{}", answer.log);
        let message = answer.failure();
        assert!(
            message.contains("no address could be assigned on node-1") && message.contains(reason),
            "{message}"
        );
    };
    let hold = async |addr: &str, host: &str| {
        let request = AssignAddress::new(addr.parse().unwrap(), host.parse().unwrap(), "other");
        ipam.assign(request, now()).await.unwrap();
    };
    told("", &["off"], "pool off is disabled: enable it or name another");
    told(
        "",
        &["nowhere"],
        "there is no pool nowhere: the pools are default-ipv4-ippool, default-ipv6-ippool, off, ti",
    );
    told("", &["default-ipv6-ippool"], "pool default-ipv6-ippool (fd80:24::/120) is not an IPv4 pool");
    told("IP=10.1.0.5", &[], "address 10.1.0.5 is not in an enabled pool: pool off is disabled");
    told("IP=10.9.0.5", &[], "address 10.9.0.5 is not in an enabled pool");
    told("IP=10.2.0.5", &[], "address 10.2.0.5 is in pool tunnels, which is not for Workload");
    hold("192.168.0.77", "node-2").await;
    hold("10.3.0.0", "node-2").await;
    told("IP=192.168.0.77", &[], "address 192.168.0.77 is in use by \"other\"");
    told("", &["tiny"], "pool tiny has no free address for node-1: 1 block full");
    ipam.configure(|config| config.strict_affinity = true, now()).await.unwrap();
    let block = "address 192.168.0.78 is in block 192.168.0.64/26 of host:node-2, and strict affinity is on";
    told("IP=192.168.0.78", &[], block);
    told("", &["tiny"], "pool tiny has no free address for node-1: 1 block full, strict affinity on");
    ipam.configure(|config| config.ip_cooldown_seconds = 1200, now()).await.unwrap();
    hold("192.168.0.10", "node-1").await;
    ipam.release(&[Release::of("192.168.0.10".parse().unwrap())], now()).await.unwrap();
    told("IP=192.168.0.10", &[], "address 192.168.0.10 was released less than 1200 seconds ago");
    ipam.configure(|config| config.max_blocks_per_host = 1, now()).await.unwrap();
    told("", &["tiny"], "pool tiny has no free address for node-1: the limit of 1 block per host is reached");
    for name in ["default-ipv4-ippool", "tiny"] {
        let id = ObjectId::from(name.parse::<calico_model::Name>().unwrap());
        node.client().of::<IpPool>().modify(&id, |_, pool| pool.disabled = true).await.unwrap();
    }
    let none = "no pool serves IPv4 requests of node-1: pool default-ipv4-ippool is disabled; pool off is disabled; \
                pool tiny is disabled; pool tunnels is not for Workload addresses";
    told("", &[], none);
}
