//! Assigning and releasing, one operation after the other.

use std::sync::Arc;

use calico_ipam::{
    AssignAddress, AssignError, HandleUse, Ipam, Kept, Release, ReleaseError, Released, WINDOWS_RESERVED,
};
use calico_model::MemoryStore;
use calico_model::datastore::faulty::{Fault, FaultyStore};
use calico_model::datastore::{Atomicity, Precondition, Write};
use calico_model::resource::block::config_key;

use crate::common::{State, addr, at, ipam, pool, put, store_with, v4};
use crate::explore::block_on;

fn configure(store: &MemoryStore, json: &str) {
    let write = Write::put(config_key(), json.as_bytes().to_vec(), Precondition::Any);
    store.commit_now(vec![write]).unwrap();
}

#[tokio::test]
async fn an_address_is_assigned_found_and_released() {
    let store = store_with([pool("p", "10.0.0.0/24", 28)]);
    let ipam = ipam(&store);
    let got = ipam.auto_assign(v4("n1", "h1", 2), at(0)).await.unwrap();
    assert!(got.is_complete());
    assert_eq!(got.v4.len(), 2);
    let addrs: Vec<_> = got.v4.iter().map(|a| a.addr).collect();
    assert_eq!(ipam.addrs_by_handle("h1", at(0)).await.unwrap(), addrs);
    let found = ipam.attributes(addrs[0], at(0)).await.unwrap().unwrap();
    assert_eq!(found.handle.as_deref(), Some("h1"));
    assert_eq!(found.attributes["node"], "n1");
    State::read(&store).check();
    let released = ipam.release_by_handle("h1", at(1)).await.unwrap();
    assert_eq!(released.released, addrs);
    let state = State::read(&store);
    state.check();
    assert_eq!((state.held(), state.handles.len(), state.blocks.len()), (0, 0, 1));
}

#[tokio::test]
async fn what_a_windows_host_keeps_is_made_with_each_of_its_blocks() {
    let store = store_with([pool("p", "10.0.0.0/28", 29)]);
    configure(&store, r#"{"strict_affinity":true,"auto_allocate_blocks":true}"#);
    let windows = ipam(&store).keeping(Kept::WINDOWS);
    let got = windows.auto_assign(v4("w", "pod", 5), at(0)).await.unwrap();
    let blocks: std::collections::BTreeSet<_> = got.v4.iter().map(|a| a.block).collect();
    assert_eq!((got.v4.len(), blocks.len()), (5, 2), "a block of eight has four for workloads");
    for allocation in &got.v4 {
        let place =
            u8::try_from(allocation.addr.to_string().rsplit('.').next().unwrap().parse::<u32>().unwrap() % 8);
        assert!((3..7).contains(&place.unwrap()), "{} is the host's own", allocation.addr);
    }
    let kept = addr(&blocks.first().unwrap().addr().to_string());
    let found = windows.attributes(kept, at(0)).await.unwrap().unwrap();
    assert_eq!(found.handle.as_deref(), Some(WINDOWS_RESERVED));
    // They go with the block, and nobody counts them as a use of it.
    windows.release_by_handle("pod", at(1)).await.unwrap();
    windows.remove_host(&"w".parse().unwrap(), at(1)).await.unwrap();
    assert!(State::read(&store).blocks.is_empty());
}

#[tokio::test]
async fn a_host_uses_its_block_up_then_claims_another_then_borrows() {
    let store = store_with([pool("p", "10.0.0.0/29", 30)]);
    let ipam = ipam(&store);
    ipam.auto_assign(v4("n2", "other", 1), at(0)).await.unwrap();
    for n in 0..7 {
        let got = ipam.auto_assign(v4("n1", &format!("h{n}"), 1), at(0)).await.unwrap();
        assert_eq!(got.v4.len(), 1, "{n}");
    }
    let state = State::read(&store);
    state.check();
    assert_eq!((state.held(), state.affinities.len()), (8, 2));
    let error = ipam.auto_assign(v4("n1", "h9", 1), at(0)).await.unwrap_err();
    assert_eq!(error.to_string(), "pool p has no free address for n1: 2 blocks full");
}

#[tokio::test]
async fn strict_affinity_does_not_borrow_and_says_so() {
    let store = store_with([pool("default-ipv4-ippool", "10.0.0.0/29", 30)]);
    configure(&store, r#"{"strict_affinity":true,"auto_allocate_blocks":true}"#);
    let ipam = ipam(&store);
    ipam.auto_assign(v4("n2", "other", 1), at(0)).await.unwrap();
    let got = ipam.auto_assign(v4("n1", "h", 6), at(0)).await.unwrap();
    assert_eq!(got.v4.len(), 4);
    let text = "pool default-ipv4-ippool has no free address for n1: 2 blocks full, strict affinity on";
    assert_eq!(got.shortages[0].to_string(), text);
    assert_eq!(got.shortages[0].missing, 2);
    State::read(&store).check();
}

#[tokio::test]
async fn a_full_request_spreads_over_many_blocks() {
    let store = store_with([pool("p", "10.0.0.0/22", 30)]);
    let ipam = ipam(&store);
    let got = ipam.auto_assign(v4("n1", "h", 1000), at(0)).await.unwrap();
    assert_eq!((got.v4.len(), got.is_complete()), (1000, true));
    let state = State::read(&store);
    state.check();
    assert_eq!(state.affinities.len(), 250);
    ipam.release_by_handle("h", at(0)).await.unwrap();
    assert_eq!(State::read(&store).held(), 0);
}

#[tokio::test]
async fn a_release_with_a_stale_sequence_number_frees_nothing() {
    let store = store_with([pool("p", "10.0.0.0/30", 30)]);
    let ipam = ipam(&store);
    let first = ipam.auto_assign(v4("n1", "h", 4), at(0)).await.unwrap().v4;
    let release = |sequence| Release { addr: first[0].addr, handle: None, sequence };
    ipam.release(&[release(Some(first[0].sequence))], at(0)).await.unwrap();
    let second = ipam.auto_assign(v4("n1", "h2", 1), at(0)).await.unwrap().v4;
    assert_eq!(second[0].addr, first[0].addr);
    let late = ipam.release(&[release(Some(first[0].sequence))], at(0)).await.unwrap();
    assert_eq!(late, Released { released: vec![], not_held: vec![first[0].addr] });
    let made_up = Some(second[0].sequence.next());
    let error = ipam.release(&[release(made_up)], at(0)).await.unwrap_err();
    assert!(matches!(error, ReleaseError::Mismatch { .. }), "{error}");
    assert_eq!(State::read(&store).held(), 4);
    ipam.release(&[release(Some(second[0].sequence))], at(0)).await.unwrap();
    State::read(&store).check();
}

/// The store is asked twice: the first answer is lost, and before the second one somebody else gets the address.
#[tokio::test]
async fn a_release_that_happened_unheard_is_over_when_the_address_is_assigned_anew() {
    for (atomicity, presents) in
        [(Atomicity::Atomic, true), (Atomicity::Atomic, false), (Atomicity::InOrder, true)]
    {
        let memory = store_with([pool("p", "10.0.0.0/30", 30)]);
        let store = FaultyStore::new(memory.clone(), atomicity);
        let ipam = Ipam::new(Arc::new(store.clone()));
        let held = ipam.auto_assign(v4("n1", "h", 4), at(0)).await.unwrap().v4;
        let (rival, inner, mut first) = (crate::common::ipam(&memory), memory.clone(), true);
        store.before_commit(move |writes| {
            if !std::mem::take(&mut first) {
                return Fault::None;
            }
            inner.commit_now(writes.to_vec()).unwrap();
            block_on(rival.auto_assign(v4("n1", "rival", 1), at(0))).unwrap();
            Fault::Conflict
        });
        let releases: Vec<Release> = held[1..3]
            .iter()
            .map(|held| Release {
                addr: held.addr,
                handle: Some("h".to_owned()),
                sequence: presents.then_some(held.sequence),
            })
            .collect();
        let released = ipam.release(&releases, at(0)).await.unwrap();
        let not_held = vec![held[1].addr, held[2].addr];
        assert_eq!(released, Released { released: vec![], not_held }, "{atomicity:?}");
        let state = State::read(&memory);
        state.check();
        assert_eq!(state.held(), 3);
        assert_eq!(ipam.addrs_by_handle("rival", at(0)).await.unwrap(), [held[1].addr]);
    }
}

#[tokio::test]
async fn a_given_address_is_assigned_once_and_claims_its_block() {
    let store = store_with([pool("p", "10.0.0.0/24", 28)]);
    let ipam = ipam(&store);
    let ask = |node: &str| AssignAddress::new(addr("10.0.0.77"), node.parse().unwrap(), "h");
    let got = ipam.assign(ask("n1"), at(0)).await.unwrap();
    assert_eq!(got.block, "10.0.0.64/28".parse().unwrap());
    let error = ipam.assign(ask("n2"), at(0)).await.unwrap_err();
    assert_eq!(error.to_string(), r#"address 10.0.0.77 is in use by "h""#);
    let outside = AssignAddress::new(addr("10.1.0.1"), "n1".parse().unwrap(), "h");
    assert!(matches!(ipam.assign(outside, at(0)).await, Err(AssignError::NotInPool { .. })));
    State::read(&store).check();
}

#[tokio::test]
async fn a_new_handle_is_refused_when_it_exists() {
    let store = store_with([pool("p", "10.0.0.0/24", 28)]);
    let ipam = ipam(&store);
    let mut request = v4("n1", "h", 1);
    request.handle_use = HandleUse::New;
    ipam.auto_assign(request.clone(), at(0)).await.unwrap();
    let again = crate::common::ipam(&store).auto_assign(request, at(0)).await;
    assert!(matches!(again, Err(AssignError::HandleInUse { .. })));
    assert_eq!(State::read(&store).held(), 1);
}

#[tokio::test]
async fn both_families_are_served_by_one_request() {
    let store = store_with([pool("p4", "10.0.0.0/24", 28), pool("p6", "fd00::/64", 122)]);
    let ipam = ipam(&store);
    let mut request = v4("n1", "h", 1);
    request.count.v6 = 1;
    let got = ipam.auto_assign(request, at(0)).await.unwrap();
    assert_eq!((got.v4.len(), got.v6.len()), (1, 1));
    State::read(&store).check();
    let before = store.revision();
    ipam.release_by_handle("h", at(0)).await.unwrap();
    assert!(store.revision().0 - before.0 <= 2);
    State::read(&store).check();
}

#[tokio::test]
async fn a_disabled_pool_serves_nobody() {
    let store = store_with([]);
    let mut closed = pool("p", "10.0.0.0/24", 28);
    closed.spec.disabled = true;
    store.commit_now(vec![put(closed)]).unwrap();
    let error = ipam(&store).auto_assign(v4("n1", "h", 1), at(0)).await.unwrap_err();
    assert_eq!(error.to_string(), "no pool serves IPv4 requests of n1: pool p is disabled");
    let mut named = v4("n1", "h", 1);
    named.pools.v4.push("p".parse().unwrap());
    let error = ipam(&store).auto_assign(named, at(0)).await.unwrap_err();
    assert!(matches!(error, AssignError::PoolDisabled { .. }));
}

/// The process of another node has added to the handle since this one has read it.
#[tokio::test]
async fn a_release_from_an_old_memory_of_its_handle_leaves_no_count() {
    let store = store_with([pool("p", "10.0.0.0/24", 28)]);
    let first = ipam(&store);
    first.auto_assign(v4("n1", "h", 1), at(0)).await.unwrap();
    let got = ipam(&store).auto_assign(v4("n2", "h", 1), at(0)).await.unwrap().v4[0].clone();
    let release = Release { addr: got.addr, handle: Some("h".into()), sequence: Some(got.sequence) };
    first.release(&[release], at(0)).await.unwrap();
    let state = State::read(&store);
    state.check();
    assert_eq!(state.held(), 1);
}
