//! What cannot be read stops only what depends on it.

use calico_ipam::{AccessError, AssignError, Release, ReleaseError};
use calico_model::datastore::{Key, Precondition, Write};
use calico_model::resource::block::{Owner, affinity_key, block_key};
use calico_model::resource::{Kind, ObjectId, ResourceKey};
use calico_model::{Cidr, MemoryStore};

use crate::common::{State, at, ipam, pool, store_with, v4};

fn damage(store: &MemoryStore, key: Key) {
    store.commit_now(vec![Write::put(key, b"damaged".to_vec(), Precondition::Any)]).unwrap();
}

#[tokio::test]
async fn an_affinity_that_cannot_be_read_is_written_anew_by_the_next_claim() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let owner = Owner::Host("n1".parse().unwrap());
    let block = ipam(&store).auto_assign(v4("n1", "first", 1), at(0)).await.unwrap().v4[0].block;
    let absent = Cidr::holding("10.0.0.0".parse().unwrap(), 30).unwrap();
    assert_ne!(block, absent);
    damage(&store, affinity_key(&owner, &block));
    damage(&store, affinity_key(&owner, &absent));
    let got = ipam(&store).auto_assign(v4("n1", "more", 6), at(1)).await.unwrap();
    assert_eq!(got.v4.len(), 6);
    State::read(&store).check();

    damage(&store, affinity_key(&owner, &block));
    ipam(&store).remove_host(&"n1".parse().unwrap(), at(2)).await.unwrap();
    let state = State::read(&store);
    state.check();
    assert_eq!((state.held(), state.affinities.len()), (7, 0));
}

#[tokio::test]
async fn a_block_that_cannot_be_read_keeps_no_other_blocks_address_from_being_released() {
    let store = store_with([pool("four", "10.0.0.0/28", 28), pool("six", "fd00::/122", 122)]);
    let mut both = v4("n1", "h", 1);
    both.count.v6 = 1;
    let got = ipam(&store).auto_assign(both, at(0)).await.unwrap();
    damage(&store, block_key(&got.v4[0].block));
    let error = ipam(&store).release_by_handle("h", at(1)).await.unwrap_err();
    assert!(matches!(error, ReleaseError::Access(AccessError::Unreadable { .. })), "{error}");
    let held = ipam(&store).attributes(got.v6[0].addr, at(1)).await.unwrap();
    assert_eq!(held, None);
}

#[tokio::test]
async fn a_reservation_that_cannot_be_read_stops_assignments_and_no_release() {
    let store = store_with([pool("p", "10.0.0.0/28", 28)]);
    let got = ipam(&store).auto_assign(v4("n1", "one", 1), at(0)).await.unwrap();
    ipam(&store).auto_assign(v4("n1", "other", 1), at(0)).await.unwrap();
    let id = ObjectId { namespace: None, name: "bad".parse().unwrap() };
    damage(&store, ResourceKey { kind: Kind::IpReservation, id }.datastore_key());
    let refused = ipam(&store).auto_assign(v4("n1", "late", 1), at(1)).await.unwrap_err();
    assert!(matches!(refused, AssignError::Access(AccessError::Unreadable { .. })), "{refused}");
    ipam(&store).release_by_handle("other", at(1)).await.unwrap();
    ipam(&store).release(&[Release::of(got.v4[0].addr)], at(1)).await.unwrap();
    assert_eq!(State::read(&store).held(), 0);
}
