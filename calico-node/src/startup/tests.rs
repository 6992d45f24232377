use std::sync::Arc;

use calico_model::MemoryStore;

use super::*;

fn settings(vars: &[(&str, &str)]) -> Settings {
    let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    Settings::read(find, None, "n1").unwrap()
}

fn addrs() -> Vec<HostAddr> {
    vec![HostAddr { interface: "eth0".to_owned(), addr: "172.16.6.47/24".parse().unwrap() }]
}

fn ipv4(node: &Node) -> String {
    node.addr(Family::V4).map(|addr| addr.to_string()).unwrap_or_default()
}

fn folder(test: &str) -> (Paths, PathBuf) {
    let folder = std::env::temp_dir().join(format!("calico-startup-{test}-{}", std::process::id()));
    let lib = folder.to_str().unwrap().to_owned();
    (Paths::from_vars(|name| (name == "CALICO_LIB_DIR").then(|| lib.clone())), folder)
}

#[test]
fn a_given_address_takes_its_prefix_from_the_interface_that_has_it() {
    let node = |ip| described(Node::new(), &settings(&[("IP", ip)]), &addrs()).unwrap();
    assert_eq!(ipv4(&node("172.16.6.47")), "172.16.6.47/24");
    assert_eq!(ipv4(&node("10.0.0.1")), "10.0.0.1/32");
    assert_eq!(ipv4(&node("172.16.6.47/16")), "172.16.6.47/16");
}

#[test]
fn a_stored_address_stays_unless_another_is_asked_for() {
    let stored = Node { bgp: Some(NodeBgp::at("10.9.9.9/8".parse().unwrap())), ..Node::new() };
    let node = |vars: &[(&str, &str)]| described(stored.clone(), &settings(vars), &addrs()).unwrap();
    assert_eq!(ipv4(&node(&[])), "10.9.9.9/8");
    assert_eq!(ipv4(&node(&[("IP", "none")])), "10.9.9.9/8");
    assert_eq!(ipv4(&node(&[("IP", "autodetect")])), "172.16.6.47/24");
}

#[test]
fn a_node_that_finds_no_address_says_which_variable_to_set() {
    let error = described(Node::new(), &settings(&[]), &[]).unwrap_err();
    assert!(error.to_string().contains("set IP"), "{error}");
}

#[tokio::test]
async fn two_nodes_set_up_one_cluster_and_a_third_may_not_take_an_address() {
    let client = Client::new(Arc::new(MemoryStore::new()), crate::stamp::stamp);
    let (paths, folder) = folder("cluster");
    for (name, ip) in [("n1", "172.16.6.1/24"), ("n2", "172.16.6.2/24"), ("n1", "172.16.6.1/24")] {
        let settings = settings(&[
            ("NODENAME", name),
            ("IP", ip),
            ("AS", "65000"),
            ("CALICO_IPV4POOL_VXLAN", "CrossSubnet"),
        ]);
        register(&client, &settings, &addrs(), &paths).await.unwrap();
    }
    assert_eq!(client.of::<Node>().list(None).await.unwrap().items.len(), 2);
    let pools = client.of::<IpPool>().list(None).await.unwrap().items;
    assert_eq!(pools.len(), 1);
    assert_eq!(pools[0].metadata.name.as_str(), "default-ipv4-ippool");
    assert_eq!(std::fs::read_to_string(paths.nodename_file()).unwrap(), "n1");

    let third = settings(&[("NODENAME", "n3"), ("IP", "172.16.6.2/24")]);
    let error = register(&client, &third, &addrs(), &paths).await.unwrap_err();
    assert!(error.to_string().contains("n2"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn what_others_wrote_into_the_node_stays() {
    let client = Client::new(Arc::new(MemoryStore::new()), crate::stamp::stamp);
    let (paths, folder) = folder("others");
    let settings = settings(&[("IP", "172.16.6.1/24")]);
    register(&client, &settings, &addrs(), &paths).await.unwrap();
    let id = ObjectId::from("n1".parse::<Name>().unwrap());
    let tunnel = "192.168.0.1".parse().ok();
    client.of::<Node>().modify(&id, |_, node: &mut Node| node.ipv4_vxlan_tunnel_addr = tunnel).await.unwrap();
    register(&client, &settings, &addrs(), &paths).await.unwrap();
    assert_eq!(client.of::<Node>().get(&id).await.unwrap().spec.ipv4_vxlan_tunnel_addr, tunnel);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_configuration_that_is_not_valid_keeps_no_agent_from_starting() {
    use calico_model::datastore::{Precondition, Write};
    let client = Client::new(Arc::new(MemoryStore::new()), crate::stamp::stamp);
    for (kind, spec) in [
        (Kind::BgpConfiguration, serde_json::json!({ "listenPort": 1790, "asNumber": "none" })),
        (Kind::FelixConfiguration, serde_json::json!({ "vxlanMTU": "large" })),
    ] {
        let key = ResourceKey { kind, id: "default".parse::<Name>().unwrap().into() };
        let stored = serde_json::json!({
            "apiVersion": "projectcalico.org/v3", "kind": kind.as_str(),
            "metadata": { "name": "default" }, "spec": spec,
        });
        let write = Write::put(key.datastore_key(), stored.to_string().into_bytes(), Precondition::Absent);
        client.store().commit(vec![write]).await.unwrap();
        client.get(&key).await.unwrap().check().unwrap_err();
    }
    let (paths, folder) = folder("invalid");
    let settings = settings(&[("IP", "172.16.6.1/24")]);
    assert_eq!(configured_port(&client, &settings).await.unwrap(), Some(1790));
    register(&client, &settings, &addrs(), &paths).await.unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

/// Locks the datastore, or ends that.
async fn lock(client: &Client, locked: bool) {
    let name: Name = ClusterInformation::NAME.parse().unwrap();
    let write = |_: &mut _, cluster: &mut ClusterInformation| cluster.datastore_ready = Some(!locked);
    client.of::<ClusterInformation>().modify(&name.into(), write).await.unwrap();
}

#[tokio::test]
async fn while_the_datastore_is_locked_a_node_that_is_in_it_starts_and_a_new_one_waits() {
    let client = Client::new(Arc::new(MemoryStore::new()), crate::stamp::stamp);
    let (paths, folder) = folder("locked");
    let first = settings(&[("IP", "172.16.6.1/24")]);
    register(&client, &first, &addrs(), &paths).await.unwrap();
    lock(&client, true).await;
    std::fs::remove_file(paths.nodename_file()).unwrap();
    let revision = async || client.of::<Node>().list(None).await.unwrap().revision;
    let before = revision().await;
    let moved = settings(&[("IP", "172.16.6.9/24"), ("WAIT_FOR_DATASTORE", "true")]);
    register(&client, &moved, &addrs(), &paths).await.unwrap();
    assert_eq!(revision().await, before, "nothing was written");
    assert_eq!(std::fs::read_to_string(paths.nodename_file()).unwrap(), "n1");

    let new = |wait| settings(&[("NODENAME", "n2"), ("IP", "172.16.6.2/24"), ("WAIT_FOR_DATASTORE", wait)]);
    let error = register_in_time(&client, &new("false"), &paths).await.unwrap_err();
    assert!(matches!(error, StartupError::Locked { .. }), "{error}");
    let patient = new("true");
    let (registered, ()) = tokio::join!(register_in_time(&client, &patient, &paths), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(revision().await, before);
        lock(&client, false).await;
    });
    registered.unwrap();
    assert_eq!(client.of::<Node>().list(None).await.unwrap().items.len(), 2);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn the_port_that_is_tried_is_the_nodes_own_before_the_clusters() {
    let client = Client::new(Arc::new(MemoryStore::new()), crate::stamp::stamp);
    let settings = settings(&[("IP", "172.16.6.1/24")]);
    for (name, port, found) in [
        ("default", Some(1790), Some(1790)),
        ("node.n2", Some(1792), Some(1790)),
        ("node.n1", Some(1791), Some(1791)),
    ] {
        let configuration = BgpConfiguration { listen_port: port, ..BgpConfiguration::new() };
        client.of().create(Object::new(name.parse().unwrap(), configuration)).await.unwrap();
        assert_eq!(configured_port(&client, &settings).await.unwrap(), found, "{name}");
    }
}

#[test]
fn the_default_ipv6_network_is_the_clusters_own() {
    assert_eq!(unique_local("0123456789abcdef0123456789abcdef").unwrap().to_string(), "fd01:2345:6789::/48");
    assert_eq!(unique_local("short"), None);
}
