//! Cases that went wrong elsewhere: overlapping owners, addresses at the edge of a block, a pool that is full.
//!
//! That clients die, answers are late or repeated and clocks disagree is `examples/chaos` and `explore`.

use calico_ipam::{Block, Finding, Release};
use calico_model::datastore::{Precondition, Write};
use calico_model::resource::block::config_key;
use calico_model::resource::{Kind, ObjectId, ResourceKey};

use crate::check::{endpoint, node, pod};
use crate::common::{State, addr, at, ipam, pool, store_with, v4};

/// Kubernetes: a finished pod loses its address at once, a terminating one when its sandbox is gone.
#[tokio::test]
async fn the_address_of_a_pod_that_finished_is_the_next_pods_and_its_late_release_frees_nobody() {
    let store = store_with([pool("p", "10.0.0.0/32", 32)]);
    let ipam = ipam(&store);
    let first = ipam.auto_assign(v4("n1", "finished", 1), at(0)).await.unwrap().v4[0].clone();
    ipam.release_by_handle("finished", at(1)).await.unwrap();
    let second = ipam.auto_assign(v4("n1", "next", 1), at(1)).await.unwrap().v4[0].clone();
    assert_eq!(first.addr, second.addr);
    // The runtime takes the sandbox down later, and releases once more.
    let release =
        Release { addr: first.addr, handle: Some("finished".into()), sequence: Some(first.sequence) };
    let released = ipam.release(&[release], at(2)).await.unwrap();
    assert_eq!((released.released.len(), released.not_held), (0, vec![first.addr]));
    assert!(ipam.release_by_handle("finished", at(2)).await.unwrap().released.is_empty());
    assert_eq!(ipam.addrs_by_handle("next", at(2)).await.unwrap(), [second.addr]);
    State::read(&store).check();
}

/// For a moment two endpoints have one address, whichever comes or goes first.
#[tokio::test]
async fn an_address_that_one_of_two_endpoints_still_has_is_not_leaked() {
    for gone in ["a", "b"] {
        let store = store_with([pool("p", "10.0.0.0/30", 30)]);
        node(&store, "n1");
        let shared = pod(&store, "a").await;
        endpoint(&store, "a", shared);
        endpoint(&store, "b", shared);
        let ipam = ipam(&store);
        let leaked = async || {
            let findings = ipam.check(at(1000)).await.unwrap().findings;
            findings.iter().filter(|finding| matches!(finding, Finding::LeakedAddress { .. })).count()
        };
        assert_eq!(leaked().await, 0);
        let delete = |name: &str| {
            let id = ObjectId {
                namespace: Some("default".parse().unwrap()),
                name: format!("n1-k8s-{name}-eth0").parse().unwrap(),
            };
            let key = ResourceKey { kind: Kind::WorkloadEndpoint, id }.datastore_key();
            store.commit_now(vec![Write::delete(key, Precondition::Any)]).unwrap();
        };
        delete(gone);
        assert_eq!(leaked().await, 0, "the other one has it");
        delete(if gone == "a" { "b" } else { "a" });
        assert_eq!(leaked().await, 1);
    }
}

/// The first and the last address of a block are addresses like any other; what belongs to a host is reserved.
#[tokio::test]
async fn a_blocks_network_address_is_assigned_and_a_reserved_one_of_a_host_never() {
    let store = store_with([pool("p", "10.0.0.0/30", 30)]);
    let reservation =
        calico_model::resource::IpReservation { reserved_cidrs: vec!["10.0.0.2/32".parse().unwrap()] };
    let object = calico_model::resource::Object::new("hosts".parse().unwrap(), reservation);
    store.commit_now(vec![crate::common::put(object)]).unwrap();
    let got = ipam(&store).auto_assign(v4("n1", "h", 4), at(0)).await.unwrap();
    let addrs: Vec<_> = got.v4.iter().map(|allocation| allocation.addr).collect();
    assert_eq!(addrs, ["10.0.0.0", "10.0.0.1", "10.0.0.3"].map(addr));
}

/// A pool of 1,024 blocks without a free address: the error says so, and each address that is released is found.
#[tokio::test]
async fn a_full_pool_says_so_and_the_last_free_address_is_found() {
    let store = store_with([pool("default-ipv4-ippool", "10.0.0.0/21", 31)]);
    let filler = ipam(&store);
    for host in 0..1024 {
        filler.auto_assign(v4(&format!("n{host}"), &format!("h{host}"), 2), at(0)).await.unwrap();
    }
    let full = async |node: &str| {
        ipam(&store).auto_assign(v4(node, "none", 1), at(100)).await.unwrap_err().to_string()
    };
    let error = "pool default-ipv4-ippool has no free address for late: 1,024 blocks full";
    assert_eq!(full("late").await, error);
    for host in [7, 512, 1023] {
        let free = filler.addrs_by_handle(&format!("h{host}"), at(100)).await.unwrap()[1];
        filler.release(&[Release::of(free)], at(100)).await.unwrap();
        let got = ipam(&store).auto_assign(v4("late", &format!("late-{host}"), 1), at(100)).await.unwrap();
        assert_eq!(got.v4[0].addr, free);
        assert_eq!(full("late").await, error);
    }
    let strict = br#"{"strict_affinity":true,"auto_allocate_blocks":true}"#.to_vec();
    store.commit_now(vec![Write::put(config_key(), strict, Precondition::Any)]).unwrap();
    assert_eq!(full("late").await, format!("{error}, strict affinity on"));
    // An empty block of another host is found too.
    filler.release_by_handle("h300", at(100)).await.unwrap();
    let got = ipam(&store).auto_assign(v4("late", "last", 2), at(200)).await.unwrap();
    assert_eq!(got.v4.len(), 2);
    State::read(&store).check();
    let state = State::read(&store);
    assert_eq!(state.blocks.values().map(Block::free).sum::<usize>(), 0);
}
