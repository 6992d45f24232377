//! Two owners of one address while a virtual machine moves.

use std::collections::BTreeMap;

use calico_ipam::{ExpectedOwner, Ipam, OwnerChange, OwnerError, PodRef};

use crate::common::{State, at, ipam, pool, store_with, v4};

fn notes(pod: &str, node: &str) -> BTreeMap<String, String> {
    [("namespace", "ns"), ("pod", pod), ("node", node)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn pod(name: &str) -> PodRef {
    PodRef { namespace: "ns".into(), name: name.into() }
}

/// A machine of two addresses in the pod `source`.
async fn machine(ipam: &Ipam) -> [std::net::IpAddr; 2] {
    let mut request = v4("n1", "vm", 2);
    request.attributes = notes("source", "n1");
    let got = ipam.auto_assign(request, at(0)).await.unwrap().v4;
    [got[0].addr, got[1].addr]
}

#[tokio::test]
async fn the_address_of_a_machine_that_moves_lives_where_the_machine_is() {
    let store = store_with([pool("p", "10.0.0.0/29", 29)]);
    let ipam = ipam(&store);
    let [addr, other] = machine(&ipam).await;
    let sequence = ipam.attributes(addr, at(0)).await.unwrap().unwrap().sequence;
    let stays = OwnerChange { expected: ExpectedOwner::Pod(pod("source")), notes: None };
    let comes = OwnerChange { expected: ExpectedOwner::Nobody, notes: Some(notes("target", "n2")) };
    for _ in 0..2 {
        ipam.set_owner_attributes(addr, "vm", &stays, &comes, at(1)).await.unwrap();
    }
    for _ in 0..2 {
        ipam.promote_owner(addr, "vm", &pod("target"), at(2)).await.unwrap();
    }
    let held = ipam.attributes(addr, at(2)).await.unwrap().unwrap();
    assert_eq!((held.attributes, held.alternate), (notes("target", "n2"), notes("source", "n1")));
    assert_eq!(held.sequence, sequence, "it is the same assignment, and releases that know it hold");
    let untouched = ipam.attributes(other, at(2)).await.unwrap().unwrap();
    assert_eq!(untouched.attributes, notes("source", "n1"));
    let state = State::read(&store);
    state.check();
    let block = state.blocks.values().next().unwrap();
    let borrowed: Vec<_> = block.borrowed().map(|(addr, node)| (addr, node.to_string())).collect();
    assert_eq!(borrowed, [(addr, "n2".to_owned())]);
    // The source is gone for good; then both addresses are alike again once the target has both.
    let gone = OwnerChange { expected: ExpectedOwner::Pod(pod("source")), notes: Some(BTreeMap::new()) };
    let any = OwnerChange::default();
    ipam.set_owner_attributes(addr, "vm", &any, &gone, at(3)).await.unwrap();
    assert_eq!(ipam.release_by_handle("vm", at(4)).await.unwrap().released.len(), 2);
    State::read(&store).check();
}

#[tokio::test]
async fn who_is_not_expected_changes_nothing() {
    let store = store_with([pool("p", "10.0.0.0/29", 29)]);
    let ipam = ipam(&store);
    let [addr, _] = machine(&ipam).await;
    let before = store.revision();
    let any = OwnerChange::default();
    let wrong = OwnerChange { expected: ExpectedOwner::Pod(pod("x")), notes: Some(notes("y", "n1")) };
    let told = |error: OwnerError| error.to_string();
    let error = ipam.set_owner_attributes(addr, "vm", &wrong, &any, at(1)).await.unwrap_err();
    assert_eq!(told(error), format!("the active owner of address {addr} is ns/source, not ns/x"));
    let error = ipam.promote_owner(addr, "vm", &pod("target"), at(1)).await.unwrap_err();
    assert_eq!(told(error), format!("the alternate owner of address {addr} is nobody, not ns/target"));
    let error = ipam.promote_owner(addr, "other", &pod("source"), at(1)).await.unwrap_err();
    assert_eq!(told(error), format!("address {addr} is held by Some(\"vm\"), not by \"other\""));
    let free = "10.0.0.7".parse().unwrap();
    let error = ipam.promote_owner(free, "vm", &pod("source"), at(1)).await.unwrap_err();
    assert_eq!(told(error), "address 10.0.0.7 is not assigned");
    assert_eq!(store.revision(), before);
}
