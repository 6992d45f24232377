//! Finding what is wrong, mending it, and counting what is used.

use std::net::IpAddr;

use calico_ipam::{Emptiness, Finding, Liveness, Release};
use calico_model::datastore::{Precondition, Write};
use calico_model::resource::block::{StoredAffinity, StoredBlock, affinity_key, block_key, handle_key};
use calico_model::resource::{IpReservation, Kind, Node, Object, ObjectId, ResourceKey};
use calico_model::{Cidr, Family, MemoryStore};

use crate::common::{State, at, ipam, pool, put, store_with, v4};

pub(crate) async fn pod(store: &MemoryStore, handle: &str) -> IpAddr {
    let mut request = v4("n1", handle, 1);
    request.attributes.insert("pod".into(), handle.into());
    request.attributes.insert("namespace".into(), "default".into());
    ipam(store).auto_assign(request, at(0)).await.unwrap().v4[0].addr
}

pub(crate) fn node(store: &MemoryStore, name: &str) {
    store.commit_now(vec![put(Object::new(name.parse().unwrap(), Node::new()))]).unwrap();
}

pub(crate) fn endpoint(store: &MemoryStore, name: &str, addr: IpAddr) {
    let json = serde_json::json!({
        "apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
        "metadata": {"name": format!("n1-k8s-{name}-eth0"), "namespace": "default"},
        "spec": {"orchestrator": "k8s", "node": "n1", "pod": name, "endpoint": "eth0",
                 "interfaceName": "cali1", "ipNetworks": [Cidr::host(addr).to_string()]},
    });
    let document = calico_model::resource::Document::from_value(json).unwrap();
    let key = document.key().unwrap().datastore_key();
    let write = Write::put(key, document.stored_form(), Precondition::Any);
    store.commit_now(vec![write]).unwrap();
}

#[tokio::test]
async fn an_address_without_a_workload_is_leaked_and_reclaimed_unless_it_came_back() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    node(&store, "n1");
    let (live, dead, late) = (pod(&store, "a").await, pod(&store, "b").await, pod(&store, "c").await);
    endpoint(&store, "a", live);
    let ipam = ipam(&store);
    let first = ipam.check(at(0)).await.unwrap();
    let leaked: Vec<IpAddr> = first
        .findings
        .iter()
        .filter_map(|finding| {
            let Finding::LeakedAddress { addr, .. } = finding else { return None };
            Some(*addr)
        })
        .collect();
    assert_eq!(leaked, [dead, late]);
    endpoint(&store, "c", late);
    let plan: Vec<Finding> = first.findings.iter().cloned().collect();
    let done = ipam.reclaim(&plan, at(900)).await.unwrap();
    assert_eq!((done.mended.len(), done.kept.len()), (1, 1));
    assert_eq!(State::read(&store).held(), 2);
    State::read(&store).check();
    assert!(ipam.check(at(901)).await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn an_address_assigned_anew_is_not_what_was_leaked() {
    let store = store_with([pool("p", "10.0.0.0/32", 32)]);
    node(&store, "n1");
    let addr = pod(&store, "a").await;
    let ipam = ipam(&store);
    let first = ipam.check(at(0)).await.unwrap();
    ipam.release(&[Release::of(addr)], at(1)).await.unwrap();
    assert_eq!(pod(&store, "a").await, addr);
    let plan: Vec<Finding> = first.findings.iter().cloned().collect();
    assert_eq!(plan.len(), 1);
    assert_eq!(ipam.reclaim(&plan, at(2)).await.unwrap().mended, []);
    let second = ipam.check(at(2)).await.unwrap();
    assert_eq!(second.also_in(&first).count(), 0);
}

#[tokio::test]
async fn counts_and_claims_that_a_crash_left_are_mended() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    node(&store, "n1");
    let ipam = ipam(&store);
    let got = ipam.auto_assign(v4("n1", "h", 1), at(0)).await.unwrap();
    let block = got.v4[0].block;
    let put = |key, value: String| Write::put(key, value.into_bytes(), Precondition::Any);
    let orphan = format!(r#"{{"block":{{"{block}":3,"10.0.0.0/30":1}},"deleted":false}}"#);
    let skewed = format!(r#"{{"block":{{"{block}":5}},"deleted":false}}"#);
    let owner = "host:n9".parse().unwrap();
    let stale = serde_json::to_string(&StoredAffinity::default()).unwrap();
    store
        .commit_now(vec![
            put(handle_key("ghost").unwrap(), orphan),
            put(handle_key("h").unwrap(), skewed),
            put(affinity_key(&owner, &block), stale),
            Write::delete(affinity_key(&"host:n1".parse().unwrap(), &block), Precondition::Any),
        ])
        .unwrap();
    let found = ipam.check(at(1)).await.unwrap();
    assert_eq!(found.findings.len(), 5, "{:?}", found.findings);
    let plan: Vec<Finding> = found.findings.into_iter().collect();
    let done = ipam.reclaim(&plan, at(1)).await.unwrap();
    assert_eq!(done.kept, []);
    State::read(&store).check();
    assert_eq!(State::read(&store).held(), 1);
}

#[tokio::test]
async fn while_an_endpoint_cannot_be_read_nobody_is_gone() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    node(&store, "n1");
    let (broken, dead) = (pod(&store, "a").await, pod(&store, "b").await);
    let ipam = ipam(&store);
    let before = ipam.check(at(0)).await.unwrap();
    assert_eq!(before.findings.len(), 2, "neither has an endpoint yet: {:?}", before.findings);
    let json = serde_json::json!({
        "apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
        "metadata": {"name": "n1-k8s-a-eth0", "namespace": "default"},
        "spec": {"node": "n1", "ipNetworks": [broken.to_string(), "of a later version"]},
    });
    let id = ObjectId { namespace: "default".parse().ok(), name: "n1-k8s-a-eth0".parse().unwrap() };
    let key = ResourceKey { kind: Kind::WorkloadEndpoint, id }.datastore_key();
    let write = |value: Vec<u8>| Write::put(key.clone(), value, Precondition::Any);
    store.commit_now(vec![write(json.to_string().into_bytes())]).unwrap();
    let found = ipam.check(at(1)).await.unwrap();
    assert_eq!(found.findings.len(), 0, "{:?}", found.findings);
    assert!(
        found.problems[0].starts_with("WorkloadEndpoint(default/n1-k8s-a-eth0) cannot be read"),
        "{found:?}"
    );
    let plan: Vec<Finding> = before.findings.iter().cloned().collect();
    assert_eq!(ipam.reclaim(&plan, at(1)).await.unwrap().mended, []);
    store.commit_now(vec![Write::delete(key, Precondition::Any)]).unwrap();
    endpoint(&store, "a", broken);
    let mended = ipam.reclaim(&plan, at(2)).await.unwrap().mended;
    assert!(matches!(&mended[..], [Finding::LeakedAddress { addr, .. }] if *addr == dead), "{mended:?}");
}

#[tokio::test]
async fn the_blocks_of_a_node_that_is_gone_are_taken_back_unless_it_returned() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    for name in ["n1", "n2"] {
        ipam(&store).auto_assign(v4(name, name, 1), at(0)).await.unwrap();
    }
    let ipam = ipam(&store);
    let plan: Vec<Finding> = ipam.check(at(1)).await.unwrap().findings.into_iter().collect();
    assert_eq!(plan.len(), 2, "{plan:?}");
    node(&store, "n2");
    let done = ipam.reclaim(&plan, at(2)).await.unwrap();
    assert!(
        matches!(&done.mended[..], [Finding::OrphanedBlock { node, .. }] if node.as_str() == "n1"),
        "{done:?}"
    );
    assert_eq!(done.kept.len(), 1);
    let state = State::read(&store);
    state.check();
    assert_eq!((state.held(), state.affinities.len()), (2, 1), "held addresses stay held");
}

#[tokio::test]
async fn an_address_with_two_users_or_none_that_holds_it_is_told() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    node(&store, "n1");
    let shared = pod(&store, "a").await;
    endpoint(&store, "a", shared);
    endpoint(&store, "b", shared);
    endpoint(&store, "c", "10.0.0.15".parse().unwrap());
    let found = ipam(&store).check(at(1)).await.unwrap();
    let told: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    let expected = [
        "10.0.0.15 is used by WorkloadEndpoint(default/n1-k8s-c-eth0) and not allocated".to_owned(),
        format!(
            "{shared} is used by several: WorkloadEndpoint(default/n1-k8s-a-eth0), \
             WorkloadEndpoint(default/n1-k8s-b-eth0)"
        ),
    ];
    assert_eq!(told, expected);
    assert!(found.findings.iter().all(|finding| !finding.is_mendable()));
}

#[tokio::test]
async fn what_is_used_reserved_and_free_adds_up() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let reservation = IpReservation { reserved_cidrs: vec!["10.0.0.0/31".parse().unwrap()] };
    store.commit_now(vec![put(Object::new("r".parse().unwrap(), reservation))]).unwrap();
    let ipam = ipam(&store);
    let got = ipam.auto_assign(v4("n1", "h", 20), at(0)).await.unwrap();
    assert_eq!(got.v4.len(), 14, "reserved addresses are never assigned");
    let shown = ipam.utilisation(at(0)).await.unwrap();
    let usage = shown.pools[0].usage;
    assert_eq!((usage.capacity, usage.in_use, usage.reserved, usage.available()), (16, 14, 2, 0));
    assert_eq!(shown.pools[0].blocks.len(), 4);
    let sum: u128 = shown.pools[0].blocks.iter().map(|block| block.usage.reserved).sum();
    assert_eq!(sum, 2);
}

/// A block as Calico on a Windows host makes it: the first three addresses and the last are the host's own.
async fn windows_block(store: &MemoryStore) -> Cidr {
    let ipam = ipam(store);
    let block = ipam.ensure_block(&"win".parse().unwrap(), Family::V4, &[], at(0)).await.unwrap();
    let mut stored = StoredBlock::from(&State::read(store).blocks[&block]);
    let last = stored.allocations.len() - 1;
    for ordinal in [0, 1, 2, last] {
        stored.allocations[ordinal] = Some(0);
    }
    stored.unallocated.retain(|ordinal| (3..last).contains(ordinal));
    let attributes = serde_json::json!({"handle_id": "windows-reserved-ipam-handle"});
    stored.attributes = vec![serde_json::from_value(attributes).unwrap()];
    let value = serde_json::to_vec(&stored).unwrap();
    store.commit_now(vec![Write::put(block_key(&block), value, Precondition::Any)]).unwrap();
    block
}

#[tokio::test]
async fn what_a_windows_host_keeps_for_itself_is_no_leak() {
    let store = store_with([pool("p", "10.0.0.0/28", 29)]);
    node(&store, "win");
    let block = windows_block(&store).await;
    let ipam = ipam(&store);
    let check = ipam.check_with(&|_| Liveness::Gone, at(100)).await.unwrap();
    assert_eq!((check.held.len(), check.findings.len()), (4, 0), "{:?}", check.findings);
    let addr = block.addr();
    let handle = Some("windows-reserved-ipam-handle".to_owned());
    let forced = [Finding::LeakedAddress { addr, handle, sequence: None }];
    let done = ipam.reclaim_with(&forced, &|_| Liveness::Gone, at(100)).await.unwrap();
    assert_eq!((done.mended.len(), done.kept.len()), (0, 1));
    assert_eq!(State::read(&store).held(), 4);
}

#[tokio::test]
async fn a_block_in_which_only_its_windows_host_keeps_addresses_is_empty() {
    let store = store_with([pool("p", "10.0.0.0/29", 29)]);
    let block = windows_block(&store).await;
    let win = "win".parse().unwrap();
    ipam(&store).release_host_affinities(&win, Emptiness::Required, at(1)).await.unwrap();
    assert!(State::read(&store).blocks.is_empty(), "it is deleted");

    assert_eq!(windows_block(&store).await, block);
    let got = ipam(&store).auto_assign(v4("n1", "h", 8), at(100)).await.unwrap();
    assert_eq!(got.v4.len(), 8, "who takes the block over has all of it");
    State::read(&store).check();
}

#[tokio::test]
async fn the_last_release_deletes_a_block_that_a_windows_host_has_lost() {
    let store = store_with([pool("p", "10.0.0.0/29", 29)]);
    windows_block(&store).await;
    ipam(&store).auto_assign(v4("win", "h", 1), at(1)).await.unwrap();
    ipam(&store).remove_host(&"win".parse().unwrap(), at(2)).await.unwrap();
    assert_eq!(State::read(&store).held(), 5);
    ipam(&store).release_by_handle("h", at(3)).await.unwrap();
    assert!(State::read(&store).blocks.is_empty());
}
