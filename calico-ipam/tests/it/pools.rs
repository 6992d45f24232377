//! Which pool an address comes from: what it is for, who asks, and from where.

use std::net::IpAddr;
use std::sync::Arc;

use calico_ipam::{AssignAddress, AssignError, AutoAssign, Ipam, PoolRef};
use calico_model::datastore::Atomicity;
use calico_model::datastore::faulty::{Fault, FaultyStore};
use calico_model::resource::block::Owner;
use calico_model::resource::{AllowedUse, AssignmentMode, IpPool, Node, Object};
use calico_model::{Labels, MemoryStore};

use crate::common::{State, addr, at, ipam, pool, put, store_with, v4};

/// A pool, by its third number: `10.0.N.0/24`.
fn numbered(name: &str, number: u8, change: impl FnOnce(&mut IpPool)) -> Object<IpPool> {
    let mut pool = pool(name, &format!("10.0.{number}.0/24"), 28);
    change(&mut pool.spec);
    pool
}

/// Pools that differ in whom they serve.
fn store() -> MemoryStore {
    let store = store_with([
        numbered("a-rack", 1, |pool| pool.node_selector = "rack == '7'".parse().unwrap()),
        numbered("b-shop", 2, |pool| {
            pool.namespace_selector = Some("team == 'shop'".parse().unwrap());
            pool.allowed_uses = vec![AllowedUse::Workload];
        }),
        numbered("c-tunnels", 3, |pool| pool.allowed_uses = vec![AllowedUse::Tunnel]),
        numbered("d-services", 4, |pool| pool.allowed_uses = vec![AllowedUse::LoadBalancer]),
        numbered("e-by-name", 5, |pool| pool.assignment_mode = AssignmentMode::Manual),
        numbered("f-all", 6, |_| {}),
    ]);
    let mut node = Object::new("racked".parse().unwrap(), Node::new());
    node.metadata.labels = labels("rack", "7");
    store.commit_now(vec![put(node)]).unwrap();
    store
}

fn labels(key: &str, value: &str) -> Labels {
    [(key, value)].into_iter().collect()
}

fn request(node: &str, change: impl FnOnce(&mut AutoAssign)) -> AutoAssign {
    let mut request = v4(node, "h", 1);
    change(&mut request);
    request
}

/// Returns the pool that serves a request in an empty cluster, or why none does.
async fn served(request: AutoAssign) -> Result<String, String> {
    match ipam(&store()).auto_assign(request, at(0)).await {
        Ok(got) => {
            let IpAddr::V4(addr) = got.v4[0].addr else { unreachable!() };
            assert_eq!(addr.octets()[2], got.v4[0].pool.as_str().as_bytes()[0] - b'a' + 1);
            Ok(got.v4[0].pool.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn the_first_pool_that_fits_serves() {
    let named = |pool: &str| {
        let pool: PoolRef = pool.parse().unwrap();
        request("n1", |request| request.pools.v4 = vec![pool])
    };
    let shop = request("n1", |request| request.namespace_labels = Some(labels("team", "shop")));
    let other = request("n1", |request| request.namespace_labels = Some(labels("team", "other")));
    let tunnel = request("n1", |request| request.intended_use = AllowedUse::Tunnel);
    for (request, pool) in [
        (v4("n1", "h", 1), "f-all"),
        (v4("racked", "h", 1), "a-rack"),
        (shop, "b-shop"),
        (other, "f-all"),
        (tunnel, "c-tunnels"),
        // Who names a pool gets it, whatever it selects, for what and in which mode.
        (named("a-rack"), "a-rack"),
        (named("b-shop"), "b-shop"),
        (named("10.0.3.0/24"), "c-tunnels"),
        (named("e-by-name"), "e-by-name"),
    ] {
        assert_eq!(served(request).await.as_deref(), Ok(pool));
    }
    let unknown =
        "there is no pool 10.9.0.0/24: the pools are a-rack, b-shop, c-tunnels, d-services, e-by-name, f-all";
    assert_eq!(served(named("10.9.0.0/24")).await, Err(unknown.to_owned()));
    let v6 = request("n1", |request| {
        request.count.v6 = 1;
        request.pools.v6 = vec!["f-all".parse().unwrap()];
    });
    assert_eq!(served(v6).await, Err("pool f-all (10.0.6.0/24) is not an IPv6 pool".to_owned()));
}

#[tokio::test]
async fn where_no_pool_fits_each_says_why() {
    let store = store();
    let mut closed = numbered("f-all", 6, |_| {});
    closed.spec.disabled = true;
    store.commit_now(vec![put(closed)]).unwrap();
    let error = ipam(&store).auto_assign(v4("n1", "h", 1), at(0)).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "no pool serves IPv4 requests of n1: pool a-rack does not select the node (rack == \"7\"); pool b-shop serves only \
         workloads in namespaces; pool c-tunnels is not for Workload addresses; pool d-services is not for Workload \
         addresses; pool e-by-name serves only requests that name it; pool f-all is disabled"
    );
}

/// The blocks of services belong to no node, so that no route leads to one because of them.
#[tokio::test]
async fn the_addresses_of_services_are_of_no_node() {
    let store = store();
    let mut request = AutoAssign::load_balancer("service");
    request.count.v4 = 2;
    let got = ipam(&store).auto_assign(request, at(0)).await.unwrap().v4;
    assert_eq!(got[0].pool.as_str(), "d-services");
    let state = State::read(&store);
    state.check();
    let owner = state.blocks[&got[0].block].owner();
    assert_eq!(owner, Some(&Owner::Virtual("load-balancer".parse().unwrap())));
}

#[tokio::test]
async fn a_given_address_is_assigned_for_what_its_pool_is_for() {
    let store = store();
    let given = |wanted| {
        let mut request = AssignAddress::new(addr("10.0.3.9"), "n1".parse().unwrap(), "h");
        request.intended_use = wanted;
        request
    };
    let refused = ipam(&store).assign(given(Some(AllowedUse::Workload)), at(0)).await.unwrap_err();
    assert_eq!(refused.to_string(), "address 10.0.3.9 is in pool c-tunnels, which is not for Workload");
    let outside = AssignAddress::new(addr("10.9.0.1"), "n1".parse().unwrap(), "h");
    let refused = ipam(&store).assign(outside, at(0)).await.unwrap_err();
    assert_eq!(refused.to_string(), "address 10.9.0.1 is not in an enabled pool");
    let got = ipam(&store).assign(given(Some(AllowedUse::Tunnel)), at(0)).await.unwrap();
    assert_eq!((got.addr, got.pool.as_str()), (addr("10.0.3.9"), "c-tunnels"));
}

/// What disables a pool, and makes the commit that comes next fail as if somebody else had been first.
fn disabled_meanwhile(store: &MemoryStore) -> Ipam {
    let faulty = FaultyStore::new(store.clone(), Atomicity::Atomic);
    let (rival, mut first) = (store.clone(), true);
    faulty.before_commit(move |_| {
        if !std::mem::take(&mut first) {
            return Fault::None;
        }
        let mut closed = pool("p", "10.0.0.0/28", 30);
        closed.spec.disabled = true;
        rival.commit_now(vec![put(closed)]).unwrap();
        Fault::Conflict
    });
    Ipam::new(Arc::new(faulty))
}

#[tokio::test]
async fn a_pool_that_is_disabled_between_two_attempts_serves_nobody() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let error = disabled_meanwhile(&store).auto_assign(v4("n1", "h", 1), at(0)).await.unwrap_err();
    assert!(matches!(error, AssignError::NoPool { .. }), "{error}");
    assert_eq!(State::read(&store).held(), 0);

    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let request = AssignAddress::new(addr("10.0.0.1"), "n1".parse().unwrap(), "h");
    let error = disabled_meanwhile(&store).assign(request, at(0)).await.unwrap_err();
    assert!(matches!(error, AssignError::NotInPool { pool: Some(_), .. }), "{error}");
    assert_eq!(State::read(&store).held(), 0);
}
