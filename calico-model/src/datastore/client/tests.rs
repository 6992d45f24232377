use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::*;
use crate::datastore::{MemoryStore, Precondition, Write};
use crate::resource::block::{block_key, config_key};
use crate::resource::{IpPool, Node, NodeBgp};

fn client() -> Client {
    let count = AtomicU32::new(0);
    let stamps = move || Stamp {
        uid: format!("00000000-0000-4000-8000-{:012}", count.fetch_add(1, Ordering::Relaxed)),
        created: "2026-01-02T03:04:05Z".to_owned(),
    };
    Client::new(Arc::new(MemoryStore::new()), stamps)
}

fn document(kind: &str, name: &str, spec: Value) -> Document {
    let value =
        json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec});
    Document::from_value(value).unwrap()
}

fn pool(name: &str, cidr: &str) -> Document {
    document("IPPool", name, json!({"cidr": cidr}))
}

fn in_namespace(mut document: Document, namespace: &str) -> Document {
    document.set_metadata("namespace", namespace);
    document
}

#[tokio::test]
async fn a_created_resource_has_an_identity_its_defaults_and_a_revision() {
    let client = client();
    let created = client.create(&pool("p", "10.0.0.0/16")).await.unwrap();
    assert_eq!(created.metadata("uid"), Some("00000000-0000-4000-8000-000000000000"));
    assert_eq!(created.metadata("creationTimestamp"), Some("2026-01-02T03:04:05Z"));
    assert_eq!(created.value()["spec"]["blockSize"], 26);
    assert_eq!(client.get(&created.key().unwrap()).await.unwrap(), created);
    let again = client.create(&pool("p", "10.0.0.0/16")).await.unwrap_err();
    assert!(matches!(again, ClientError::AlreadyExists { .. }), "{again}");
}

#[tokio::test]
async fn a_new_resource_may_not_bring_a_revision() {
    let mut document = pool("p", "10.0.0.0/16");
    document.set_metadata("resourceVersion", "7");
    let refused = client().create(&document).await.unwrap_err().to_string();
    assert!(refused.contains("metadata.resourceVersion"), "{refused}");
}

#[tokio::test]
async fn an_update_with_a_stale_revision_is_a_conflict_and_without_one_wins() {
    let client = client();
    let first = client.create(&pool("p", "10.0.0.0/16")).await.unwrap();
    let mut changed = first.clone();
    changed.value_mut()["spec"]["disabled"] = json!(true);
    let second = client.update(&changed).await.unwrap();
    assert_eq!(second.metadata("uid"), first.metadata("uid"));
    let stale = client.update(&changed).await.unwrap_err();
    assert!(matches!(stale, ClientError::Conflict { .. }), "{stale}");
    let third = client.update(&pool("p", "10.0.0.0/16")).await.unwrap();
    assert_eq!(third.metadata("uid"), first.metadata("uid"));
    assert_eq!(third.value()["spec"].get("disabled"), None);
    let missing = client.update(&pool("q", "10.1.0.0/16")).await.unwrap_err();
    assert!(matches!(missing, ClientError::NotFound { .. }), "{missing}");
}

#[tokio::test]
async fn an_update_replaces_labels_and_keeps_what_nobody_here_understands() {
    let client = client();
    let mut old =
        document("HostEndpoint", "h", json!({"node": "n", "interfaceName": "eth0", "future": {"a": 1}}));
    old.value_mut()["metadata"]["labels"] = json!({"a": "1", "b": "2"});
    old.value_mut()["status"] = json!({"seen": true});
    client.create(&old).await.unwrap();
    let mut new = document("HostEndpoint", "h", json!({"node": "n", "expectedIPs": ["10.0.0.1"]}));
    new.value_mut()["metadata"]["labels"] = json!({"b": "3"});
    let updated = client.apply(&new).await.unwrap();
    assert_eq!(updated.value()["metadata"]["labels"], json!({"b": "3"}));
    assert_eq!(
        updated.value()["spec"],
        json!({"node": "n", "expectedIPs": ["10.0.0.1"], "future": {"a": 1}})
    );
    assert_eq!(updated.value()["status"], json!({"seen": true}));
}

#[tokio::test]
async fn a_field_that_a_program_does_not_touch_follows_the_user_and_survives_programs() {
    let client = client();
    let node = |spec: Value| document("Node", "n", spec);
    let wireguard = json!({"interfaceIPv4Address": "10.0.0.9"});
    client.create(&node(json!({"wireguard": wireguard, "interfaces": [], "future": 1}))).await.unwrap();
    let addr = "10.0.0.7".parse().unwrap();
    let id = constant("n").into();
    let kept =
        client.of::<Node>().modify(&id, |_, node| node.ipv4_vxlan_tunnel_addr = Some(addr)).await.unwrap();
    let stored = client.get(&kept.key()).await.unwrap();
    let expected =
        json!({"wireguard": wireguard, "interfaces": [], "future": 1, "ipv4VXLANTunnelAddr": "10.0.0.7"});
    assert_eq!(stored.value()["spec"], expected);
    let applied = client.apply(&node(json!({"interfaces": [{"name": "eth0"}]}))).await.unwrap();
    assert_eq!(applied.value()["spec"], json!({"interfaces": [{"name": "eth0"}], "future": 1}));
    let wrong = client.apply(&node(json!({"interfaces": "all"}))).await.unwrap_err().to_string();
    assert!(wrong.contains("spec.interfaces = \"all\": must be a list"), "{wrong}");
}

#[tokio::test]
async fn what_the_author_wrote_stays_as_written_and_defaults_are_added() {
    let client = client();
    let spec = json!({
        "selector": "role == 'db' && env in {'b', 'a'}", "order": null,
        "ingress": [{"action": "Allow", "protocol": "6", "source": {"selector": "has( x )"}}],
    });
    let created = client.create(&document("GlobalNetworkPolicy", "p", spec)).await.unwrap();
    let expected = json!({
        "selector": "role == 'db' && env in {'b', 'a'}", "tier": "default", "types": ["Ingress"],
        "ingress": [{"action": "Allow", "protocol": "6", "source": {"selector": "has( x )"}}],
    });
    assert_eq!(created.value()["spec"], expected);
}

#[tokio::test]
async fn an_update_mends_what_is_stored_and_invalid() {
    let client = client();
    let key = pool("p", "10.0.0.0/16").key().unwrap().datastore_key();
    let broken = document("IPPool", "p", json!({"cidr": "10.0.0.0/16", "namespaceSelector": "((("}));
    client.store().commit(vec![Write::put(key, broken.stored_form(), Precondition::Any)]).await.unwrap();
    let mended = client.update(&pool("p", "10.0.0.0/16")).await.unwrap();
    assert!(mended.check().is_ok());
}

#[tokio::test]
async fn pools_may_not_overlap_and_keep_their_network() {
    let client = client();
    client.create(&pool("first", "10.0.0.0/16")).await.unwrap();
    let refused = client.apply(&pool("second", "10.0.128.0/17")).await.unwrap_err().to_string();
    assert!(refused.contains("second") && refused.contains("\"first\", which is 10.0.0.0/16"), "{refused}");
    let moved = client.apply(&pool("first", "10.1.0.0/16")).await.unwrap_err().to_string();
    assert!(moved.contains("spec.cidr") && moved.contains("must stay 10.0.0.0/16"), "{moved}");
    let resized = document("IPPool", "first", json!({"cidr": "10.0.0.0/16", "blockSize": 28}));
    assert!(client.apply(&resized).await.unwrap_err().to_string().contains("spec.blockSize"));
}

#[tokio::test]
async fn a_new_pool_takes_the_block_size_of_blocks_that_exist() {
    let client = client();
    put_block(&client, "10.0.0.0/28", block("10.0.0.0/28")).await;
    let refused = client.create(&pool("p", "10.0.0.0/16")).await.unwrap_err().to_string();
    assert!(refused.contains("spec.blockSize") && refused.contains("10.0.0.0/28"), "{refused}");
    client.create(&pool("elsewhere", "10.1.0.0/16")).await.unwrap();
}

#[tokio::test]
async fn a_new_pool_does_not_lie_inside_a_block_that_exists() {
    let client = client();
    put_block(&client, "10.0.0.0/26", block("10.0.0.0/26")).await;
    let inside = document("IPPool", "p", json!({"cidr": "10.0.0.0/27", "blockSize": 28}));
    let refused = client.create(&inside).await.unwrap_err().to_string();
    assert!(refused.contains("spec.cidr") && refused.contains("10.0.0.0/26"), "{refused}");
    let mut gone = block("10.0.0.0/26");
    gone["deleted"] = json!(true);
    put_block(&client, "10.0.0.0/26", gone).await;
    client.create(&inside).await.unwrap();
}

#[tokio::test]
async fn a_new_pool_keeps_clear_of_blocks_that_cannot_be_read() {
    let client = client();
    put_block(&client, "10.0.0.0/26", json!("damaged")).await;
    for cidr in ["10.0.0.0/27", "10.0.0.0/16"] {
        let other = document("IPPool", "p", json!({"cidr": cidr, "blockSize": 28}));
        let refused = client.create(&other).await.unwrap_err().to_string();
        assert!(refused.contains("10.0.0.0/26"), "{refused}");
    }
    // IPAM assigns nothing from a block that it finds and cannot read.
    client.create(&pool("p", "10.0.0.0/16")).await.unwrap();
}

fn block(cidr: &str) -> Value {
    json!({"cidr": cidr, "affinity": "host:n", "allocations": [], "unallocated": [], "attributes": []})
}

async fn put_block(client: &Client, cidr: &str, value: Value) {
    let key = block_key(&cidr.parse().unwrap());
    let write = Write::put(key, value.to_string().into_bytes(), Precondition::Any);
    client.store().commit(vec![write]).await.unwrap();
}

#[tokio::test]
async fn the_built_in_profile_is_always_there_and_never_written() {
    let client = client();
    let profile = document("Profile", DEFAULT_ALLOW_PROFILE, json!({}));
    assert_eq!(client.get(&profile.key().unwrap()).await.unwrap().metadata("resourceVersion"), Some("1"));
    client.create(&document("Profile", "aaa", json!({}))).await.unwrap();
    client.create(&document("Profile", "zzz", json!({}))).await.unwrap();
    let listed = client.list(Kind::Profile, None).await.unwrap().items;
    let names: Vec<_> = listed.iter().filter_map(|d| d.metadata("name")).collect();
    assert_eq!(names, ["aaa", DEFAULT_ALLOW_PROFILE, "zzz"]);
    assert!(matches!(client.apply(&profile).await, Err(ClientError::Forbidden { .. })));
    assert!(matches!(client.delete(&profile.key().unwrap(), None).await, Err(ClientError::Forbidden { .. })));
}

#[tokio::test]
async fn the_tiers_of_every_cluster_stay() {
    let client = client();
    client.ensure_initialized("v0.1.0", "0123456789abcdef0123456789abcdef").await.unwrap();
    client.ensure_initialized("v9", "ffffffffffffffffffffffffffffffff").await.unwrap();
    let information = client.of::<ClusterInformation>().get(&constant("default").into()).await.unwrap();
    assert_eq!(information.spec.cluster_guid, "0123456789abcdef0123456789abcdef");
    assert_eq!(information.spec.datastore_ready, Some(true));
    let moved = document("Tier", "default", json!({"order": 5}));
    assert!(client.apply(&moved).await.unwrap_err().to_string().contains("spec.order"));
    let turned = document("Tier", "kube-admin", json!({"order": 1000, "defaultAction": "Deny"}));
    assert!(client.apply(&turned).await.unwrap_err().to_string().contains("spec.defaultAction"));
    for (name, _) in Tier::reserved() {
        let key = document("Tier", name, json!({})).key().unwrap();
        assert!(matches!(client.delete(&key, None).await, Err(ClientError::Forbidden { .. })), "{name}");
    }
    assert!(client.create(&document("Tier", "a.b", json!({}))).await.is_err());
}

#[tokio::test]
async fn a_policy_needs_its_tier_and_a_tier_with_policies_stays() {
    let client = client();
    let policy = in_namespace(document("NetworkPolicy", "p", json!({"tier": "security"})), "ns");
    let refused = client.create(&policy).await.unwrap_err().to_string();
    assert!(refused.contains("spec.tier = \"security\""), "{refused}");
    let tier = document("Tier", "security", json!({"order": 10}));
    client.create(&tier).await.unwrap();
    let created = client.create(&policy).await.unwrap();
    assert_eq!(created.value()["metadata"]["labels"]["projectcalico.org/tier"], "security");
    let kept = client.delete(&tier.key().unwrap(), None).await.unwrap_err().to_string();
    assert!(kept.contains("NetworkPolicy(ns/p)"), "{kept}");
    client.delete(&policy.key().unwrap(), None).await.unwrap();
    client.delete(&tier.key().unwrap(), None).await.unwrap();
}

#[tokio::test]
async fn a_workload_endpoint_has_the_name_and_labels_that_it_is_made_of() {
    let client = client();
    let spec = json!({"node": "node-1", "orchestrator": "k8s", "pod": "pod-name", "endpoint": "eth0"});
    let mut nameless = in_namespace(document("WorkloadEndpoint", "x", spec.clone()), "ns");
    nameless.remove_metadata("name");
    let created = client.create(&nameless).await.unwrap();
    assert_eq!(created.metadata("name"), Some("node--1-k8s-pod--name-eth0"));
    let labels = json!({"projectcalico.org/namespace": "ns", "projectcalico.org/orchestrator": "k8s"});
    assert_eq!(created.value()["metadata"]["labels"], labels);
    let misnamed = in_namespace(document("WorkloadEndpoint", "x", spec), "ns");
    let refused = client.create(&misnamed).await.unwrap_err().to_string();
    assert!(refused.contains("must be node--1-k8s-pod--name-eth0"), "{refused}");
}

#[tokio::test]
async fn there_is_one_cluster_information() {
    let refused = client().create(&document("ClusterInformation", "other", json!({}))).await.unwrap_err();
    assert!(refused.to_string().contains("must be default"), "{refused}");
}

#[tokio::test]
async fn a_namespace_lists_its_own_and_no_sibling() {
    let client = client();
    for namespace in ["ns1", "ns10"] {
        client.create(&in_namespace(document("NetworkSet", "s", json!({})), namespace)).await.unwrap();
    }
    let ns1 = "ns1".parse().unwrap();
    assert_eq!(client.list(Kind::NetworkSet, Some(&ns1)).await.unwrap().items.len(), 1);
    assert_eq!(client.list(Kind::NetworkSet, None).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn a_corrupt_value_is_one_error_and_not_the_end_of_the_list() {
    let client = client();
    client.create(&pool("good", "10.0.0.0/16")).await.unwrap();
    let key = pool("bad", "10.0.0.0/16").key().unwrap();
    let write = Write::put(key.datastore_key(), b"not json".to_vec(), Precondition::Any);
    client.store().commit(vec![write]).await.unwrap();
    let listed = client.list(Kind::IpPool, None).await.unwrap();
    assert_eq!((listed.items.len(), listed.corrupt.len()), (1, 1));
    assert!(matches!(client.get(&key).await, Err(ClientError::Corrupt { .. })));
    client.delete(&key, None).await.unwrap();
}

#[tokio::test]
async fn typed_objects_round_trip_and_are_modified() {
    let client = client();
    let nodes = client.of::<Node>();
    let mut node = Node::new();
    node.bgp = Some(NodeBgp::at("172.16.6.1/24".parse().unwrap()));
    let created = nodes.create(Object::new(constant("node1"), node)).await.unwrap();
    let changed = nodes
        .modify(&created.id(), |metadata, node| {
            metadata.labels =
                [("rack", "a")].into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            node.ipv4_vxlan_tunnel_addr = "192.168.0.1".parse().ok();
        })
        .await
        .unwrap();
    assert_eq!(nodes.list(None).await.unwrap().items, std::slice::from_ref(&changed));
    assert_eq!(nodes.modify(&created.id(), |_, _| {}).await.unwrap(), changed);
    let stale = nodes.update(created.clone()).await.unwrap_err();
    assert!(matches!(stale, ClientError::Conflict { .. }), "{stale}");
    nodes.delete(&created.id(), None).await.unwrap();
    assert!(matches!(nodes.get(&created.id()).await, Err(ClientError::NotFound { .. })));
    let pools = client.of::<IpPool>().list(None).await.unwrap();
    assert!(pools.items.is_empty());
}

#[tokio::test]
async fn a_delete_at_a_stale_revision_is_a_conflict() {
    let client = client();
    let created = client.create(&pool("p", "10.0.0.0/16")).await.unwrap();
    let first = Revision(created.metadata("resourceVersion").unwrap().parse().unwrap());
    client.update(&pool("p", "10.0.0.0/16")).await.unwrap();
    let key = created.key().unwrap();
    assert!(matches!(client.delete(&key, Some(first)).await, Err(ClientError::Conflict { .. })));
    client.delete(&key, None).await.unwrap();
    assert!(matches!(client.delete(&key, None).await, Err(ClientError::NotFound { .. })));
}

#[tokio::test]
async fn a_peer_names_filters_that_exist() {
    let client = client();
    let peer = |filters: Value| {
        document("BGPPeer", "tor", json!({"peerIP": "10.0.0.1", "asNumber": 65001, "filters": filters}))
    };
    let refused = client.create(&peer(json!(["out", "in"]))).await.unwrap_err().to_string();
    assert!(refused.contains("spec.filters[0] = \"out\": must be a BGPFilter that exists"), "{refused}");
    client.create(&document("BGPFilter", "out", json!({}))).await.unwrap();
    client.create(&peer(json!(["out"]))).await.unwrap();
    let refused = client.apply(&peer(json!(["out", "in"]))).await.unwrap_err().to_string();
    assert!(refused.contains("spec.filters[1] = \"in\""), "{refused}");
}

#[tokio::test]
async fn a_pool_for_load_balancers_stays_one() {
    let client = client();
    let pool = |uses: Value| {
        document("IPPool", "lb", json!({"cidr": "10.0.0.0/24", "nodeSelector": "all()", "allowedUses": uses}))
    };
    client.create(&pool(json!(["LoadBalancer"]))).await.unwrap();
    let refused = client.apply(&pool(json!(["Workload"]))).await.unwrap_err().to_string();
    assert!(refused.contains("spec.allowedUses = [\"Workload\"]: must stay LoadBalancer"), "{refused}");
}

fn ipam_configuration_of(spec: Value) -> Document {
    document("IPAMConfiguration", "default", spec)
}

async fn settings(client: &Client) -> Option<Value> {
    let entry = client.store().get(&config_key()).await.unwrap()?;
    Some(serde_json::from_slice(&entry.value).unwrap())
}

async fn configure(client: &Client, settings: Value) {
    let write = Write::put(config_key(), settings.to_string().into_bytes(), Precondition::Any);
    client.store().commit(vec![write]).await.unwrap();
}

#[tokio::test]
async fn an_ipam_configuration_is_written_where_ipam_reads_it() {
    let client = client();
    let strict = ipam_configuration_of(json!({"strictAffinity": true, "maxBlocksPerHost": 3}));
    let created = client.create(&strict).await.unwrap();
    let expected = json!({"strict_affinity": true, "auto_allocate_blocks": true, "maxBlocksPerHost": 3});
    assert_eq!(settings(&client).await, Some(expected));
    let key = created.key().unwrap();
    assert_eq!(client.get(&key).await.unwrap(), created);
    client.apply(&ipam_configuration_of(json!({"ipCooldownSeconds": 5}))).await.unwrap();
    assert_eq!(settings(&client).await, Some(json!({"auto_allocate_blocks": true, "ipCooldownSeconds": 5})));
    let again = client.create(&strict).await.unwrap_err();
    assert!(matches!(again, ClientError::AlreadyExists { .. }), "{again}");
    client.delete(&key, None).await.unwrap();
    assert_eq!(settings(&client).await, None);
    assert!(matches!(client.delete(&key, None).await, Err(ClientError::NotFound { .. })));
    assert!(client.list(Kind::IpamConfiguration, None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn an_ipam_configuration_is_what_ipam_goes_by() {
    let client = client();
    configure(&client, json!({"strict_affinity": true, "auto_allocate_blocks": true, "future": 1})).await;
    let key = ipam_configuration();
    let spec = |document: &Document| document.value()["spec"].clone();
    let found = client.get(&key).await.unwrap();
    let expected = json!({"strictAffinity": true, "autoAllocateBlocks": true, "maxBlocksPerHost": 0});
    assert_eq!(spec(&found), expected);
    let taken = client.create(&ipam_configuration_of(json!({}))).await.unwrap_err();
    assert!(matches!(taken, ClientError::AlreadyExists { .. }), "{taken}");

    let mut changed = found.clone();
    changed.value_mut()["spec"]["maxBlocksPerHost"] = json!(7);
    let written = client.update(&changed).await.unwrap();
    assert!(written.metadata("uid").is_some());
    let kept =
        json!({"strict_affinity": true, "auto_allocate_blocks": true, "maxBlocksPerHost": 7, "future": 1});
    assert_eq!(settings(&client).await, Some(kept));

    configure(&client, json!({"auto_allocate_blocks": true, "kubeVirtVMAddressPersistence": "Disabled"}))
        .await;
    let stale = client.update(&written).await.unwrap_err();
    assert!(matches!(stale, ClientError::Conflict { .. }), "{stale}");
    let listed = client.list(Kind::IpamConfiguration, None).await.unwrap().items;
    assert_eq!(listed, [client.get(&key).await.unwrap()]);
    let expected = json!({"strictAffinity": false, "autoAllocateBlocks": true, "maxBlocksPerHost": 0,
                          "kubeVirtVMAddressPersistence": "Disabled"});
    assert_eq!(spec(&listed[0]), expected);
    assert_eq!(listed[0].metadata("uid"), written.metadata("uid"));
}

#[tokio::test]
async fn settings_of_ipam_that_cannot_be_read_are_told_and_can_be_deleted() {
    let client = client();
    let write = Write::put(config_key(), b"not json".to_vec(), Precondition::Any);
    client.store().commit(vec![write]).await.unwrap();
    let key = ipam_configuration();
    let Err(ClientError::Corrupt { key: at, .. }) = client.get(&key).await else { panic!("it was read") };
    assert_eq!(at, config_key());
    assert_eq!(client.list(Kind::IpamConfiguration, None).await.unwrap().corrupt.len(), 1);
    client.delete(&key, None).await.unwrap();
    client.create(&ipam_configuration_of(json!({}))).await.unwrap();
}

#[tokio::test]
async fn a_watch_tells_of_resources_as_documents_and_as_objects() {
    let client = client();
    let before = client.create(&pool("old", "10.0.0.0/16")).await.unwrap();
    let from = client.list(Kind::IpPool, None).await.unwrap().revision;
    let mut documents = client.watch(Kind::IpPool, None, from).await.unwrap();
    let typed = client.of::<IpPool>();
    let mut objects = typed.watch(None, from).await.unwrap();
    assert_eq!(documents.next().await.unwrap(), ResourceEvent::InSync(from));
    assert_eq!(objects.next().await.unwrap(), ObjectEvent::InSync(from));
    let made = client.create(&pool("p", "10.1.0.0/16")).await.unwrap();
    client.delete(&before.key().unwrap(), None).await.unwrap();
    let corrupt: Key = "/calico/resources/v3/projectcalico.org/ippools/bad".parse().unwrap();
    let write = Write::put(corrupt.clone(), b"{".to_vec(), Precondition::Any);
    client.store().commit(vec![write]).await.unwrap();
    assert_eq!(documents.next().await.unwrap(), ResourceEvent::Put(made.clone()));
    assert!(
        matches!(documents.next().await.unwrap(), ResourceEvent::Deleted { key, .. } if Some(&key) == before.key().as_ref())
    );
    assert!(matches!(documents.next().await.unwrap(), ResourceEvent::Corrupt { key, .. } if key == corrupt));
    let ObjectEvent::Put(object) = objects.next().await.unwrap() else { panic!("the pool was made") };
    assert_eq!(object.metadata.resource_version.as_deref(), made.metadata("resourceVersion"));
    assert!(
        matches!(objects.next().await.unwrap(), ObjectEvent::Deleted { id, .. } if id.name.as_str() == "old")
    );
    assert!(matches!(objects.next().await.unwrap(), ObjectEvent::Invalid { key, .. } if key == corrupt));
}

/// As `calicoctl ipam configure` does.
#[tokio::test]
async fn a_watcher_of_the_ipam_configuration_hears_of_changed_settings() {
    let client = client();
    let from = client.list(Kind::IpamConfiguration, None).await.unwrap().revision;
    let typed = client.of::<crate::resource::IpamConfiguration>();
    let mut objects = typed.watch(None, from).await.unwrap();
    assert!(matches!(objects.next().await.unwrap(), ObjectEvent::InSync(_)));
    for seconds in [5, 7] {
        let settings = client.store().get(&config_key()).await.unwrap();
        let config =
            crate::resource::block::StoredIpamConfig { ip_cooldown_seconds: seconds, ..Default::default() };
        let store = client.store().as_ref();
        let writes = ipam_settings(store, &config, settings.as_ref()).await.unwrap();
        store.commit(writes).await.unwrap();
        let ObjectEvent::Put(heard) = objects.next().await.unwrap() else { panic!("nothing was heard") };
        assert_eq!(heard.spec.ip_cooldown_seconds, Some(seconds));
        assert_eq!(typed.get(&heard.id()).await.unwrap().spec, heard.spec);
    }
    // Somebody who changes the resource afterwards gives it the identity that it has not had yet.
    let changed = client.apply(&ipam_configuration_of(json!({"strictAffinity": true}))).await.unwrap();
    assert!(changed.metadata("uid").is_some());
}
