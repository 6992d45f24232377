//! Claiming blocks and giving them back.

use calico_ipam::{AccessError, AffinityError, AssignAddress, ConfigError, Emptiness, Release};
use calico_model::datastore::{Precondition, Write};
use calico_model::resource::block::{Owner, StoredIpamConfig, block_key};
use calico_model::{Cidr, NodeName};

use crate::common::{State, at, ipam, pool, store_with, v4};

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

#[tokio::test]
async fn a_network_is_claimed_block_by_block_and_what_is_anothers_is_refused() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let ipam = ipam(&store);
    let net = "10.0.0.0/29".parse().unwrap();
    let first = ipam.claim_affinity(&node("n1"), &net, at(0)).await.unwrap();
    assert_eq!(first.claimed.len(), 2);
    let all = "10.0.0.0/28".parse().unwrap();
    let second = ipam.claim_affinity(&node("n2"), &all, at(0)).await.unwrap();
    assert_eq!((second.claimed.len(), second.refused.len()), (2, 2));
    assert_eq!(second.refused[0].1, Some(Owner::Host(node("n1"))));
    State::read(&store).check();
    let tiny = "10.0.0.0/31".parse().unwrap();
    let error = ipam.claim_affinity(&node("n1"), &tiny, at(0)).await.unwrap_err();
    assert!(matches!(error, AffinityError::NotInPool { .. }), "{error}");
}

#[tokio::test]
async fn a_block_in_use_is_kept_or_left_to_its_holders() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let ipam = ipam(&store);
    ipam.auto_assign(v4("n1", "h", 1), at(0)).await.unwrap();
    let error = ipam.release_host_affinities(&node("n1"), Emptiness::Required, at(0)).await.unwrap_err();
    assert!(error.to_string().ends_with("has 1 addresses in use"), "{error}");
    State::read(&store).check();
    ipam.release_host_affinities(&node("n1"), Emptiness::NotRequired, at(0)).await.unwrap();
    let state = State::read(&store);
    state.check();
    assert_eq!((state.held(), state.affinities.len(), state.blocks.len()), (1, 0, 1));
    ipam.release_by_handle("h", at(0)).await.unwrap();
    assert_eq!(State::read(&store).blocks.len(), 0, "who releases the last address deletes the block");
}

#[tokio::test]
async fn a_removed_host_has_nothing_and_its_name_can_be_used_again() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let old = ipam(&store);
    old.auto_assign(v4("n1", "h", 5), at(0)).await.unwrap();
    ipam(&store).remove_host(&node("n1"), at(1)).await.unwrap();
    State::read(&store).check();
    assert_eq!(State::read(&store).affinities.len(), 0);
    let again = old.auto_assign(v4("n1", "h2", 1), at(2)).await.unwrap();
    assert_eq!(again.v4.len(), 1, "what it remembers of the old blocks does no harm");
    State::read(&store).check();
}

#[tokio::test]
async fn a_pool_gives_up_its_blocks_only_when_they_are_empty() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let ipam = ipam(&store);
    let cidr = "10.0.0.0/28".parse().unwrap();
    ipam.ensure_block(&node("n2"), calico_model::Family::V4, &[], at(0)).await.unwrap();
    ipam.auto_assign(v4("n1", "h", 1), at(0)).await.unwrap();
    assert!(matches!(ipam.release_pool_affinities(&cidr, at(0)).await, Err(AffinityError::NotEmpty { .. })));
    assert_eq!(State::read(&store).blocks.len(), 1, "the empty one is gone all the same");
    ipam.release_by_handle("h", at(0)).await.unwrap();
    ipam.release_pool_affinities(&cidr, at(0)).await.unwrap();
    let state = State::read(&store);
    assert_eq!((state.blocks.len(), state.affinities.len()), (0, 0));
}

#[tokio::test]
async fn a_pool_is_in_use_while_an_address_is_held_in_a_block_of_nobody_or_may_be() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let ipam = ipam(&store);
    let cidr = "10.0.0.0/28".parse().unwrap();
    ipam.auto_assign(v4("n1", "h", 1), at(0)).await.unwrap();
    ipam.remove_host(&node("n1"), at(0)).await.unwrap();
    let error = ipam.release_pool_affinities(&cidr, at(0)).await.unwrap_err();
    assert!(error.to_string().ends_with("of nobody has 1 addresses in use"), "{error}");
    ipam.release_by_handle("h", at(0)).await.unwrap();
    ipam.release_pool_affinities(&cidr, at(0)).await.unwrap();

    let damaged = block_key(&"10.0.0.4/30".parse().unwrap());
    store.commit_now(vec![Write::put(damaged, b"damaged".to_vec(), Precondition::Any)]).unwrap();
    let error = ipam.release_pool_affinities(&cidr, at(0)).await.unwrap_err();
    assert!(matches!(error, AffinityError::Access(AccessError::Unreadable { .. })), "{error}");
}

#[tokio::test]
async fn ensuring_a_block_claims_one_and_only_one() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let first = ipam(&store).ensure_block(&node("n1"), calico_model::Family::V4, &[], at(0)).await.unwrap();
    let again = ipam(&store).ensure_block(&node("n1"), calico_model::Family::V4, &[], at(0)).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(State::read(&store).blocks.len(), 1);
    State::read(&store).check();
}

#[tokio::test]
async fn an_empty_block_of_another_host_is_taken_over_after_a_minute() {
    let store = store_with([pool("p", "10.0.0.0/30", 30)]);
    let ipam = ipam(&store);
    ipam.configure(|config| config.strict_affinity = true, at(0)).await.unwrap();
    ipam.ensure_block(&node("n1"), calico_model::Family::V4, &[], at(0)).await.unwrap();
    assert!(ipam.auto_assign(v4("n2", "h", 1), at(59)).await.is_err());
    assert!(ipam.auto_assign(v4("n2", "h", 1), at(60)).await.is_ok());
    State::read(&store).check();
    assert!(ipam.auto_assign(v4("n1", "h1", 1), at(61)).await.is_err());
    State::read(&store).check();
}

#[tokio::test]
async fn a_limit_of_blocks_holds_and_zero_is_none() {
    let store = store_with([pool("p", "10.0.0.0/24", 30)]);
    let ipam = ipam(&store);
    let got = ipam.auto_assign(v4("n1", "h0", 100), at(0)).await.unwrap();
    assert_eq!(
        got.v4.len(),
        100,
        "25 blocks, which is more than the 20 that Calico gives when no limit is set"
    );
    let limited = |config: &mut StoredIpamConfig| {
        config.strict_affinity = true;
        config.max_blocks_per_host = 2;
    };
    ipam.configure(limited, at(0)).await.unwrap();
    let got = ipam.auto_assign(v4("n2", "h", 9), at(0)).await.unwrap();
    assert_eq!(got.v4.len(), 8);
    let text = "pool p has no free address for n2: the limit of 2 blocks per host is reached";
    assert_eq!(got.shortages[0].to_string(), text);

    // Nor is one claimed for an address that is asked for; those of the host's own blocks it may have.
    ipam.ensure_block(&node("n3"), calico_model::Family::V4, &[], at(0)).await.unwrap();
    let own = got.v4[0].addr;
    ipam.release(&[Release::of(own)], at(0)).await.unwrap();
    ipam.assign(AssignAddress::new(own, node("n2"), "given"), at(0)).await.unwrap();
    let state = State::read(&store);
    let mut blocks = (0..64).filter_map(|nth| "10.0.0.0/24".parse::<Cidr>().unwrap().subnet(30, nth));
    let absent = blocks.rfind(|block| !state.blocks.contains_key(block)).unwrap();
    let given = AssignAddress::new(absent.addr(), node("n2"), "given");
    assert_eq!(ipam.assign(given, at(0)).await.unwrap_err().to_string(), text);
    let given = AssignAddress::new(absent.addr(), node("n3"), "given");
    ipam.assign(given, at(0)).await.unwrap();
    let elsewhere = store_with([pool("other", "10.1.0.0/24", 30), pool("p", "10.0.0.0/24", 30)]);
    let ipam = crate::common::ipam(&elsewhere);
    ipam.configure(limited, at(0)).await.unwrap();
    ipam.auto_assign(v4("n2", "h", 8), at(0)).await.unwrap();
    let refused =
        ipam.ensure_block(&node("n2"), calico_model::Family::V4, &["p".parse().unwrap()], at(0)).await;
    assert_eq!(refused.unwrap_err().to_string(), text);
}

#[tokio::test]
async fn a_configuration_that_contradicts_itself_is_refused() {
    let ipam = ipam(&store_with([]));
    for change in [
        (|c| c.auto_allocate_blocks = false) as fn(&mut StoredIpamConfig),
        |c| c.max_blocks_per_host = 1,
        |c| c.ip_cooldown_seconds = 1201,
    ] {
        assert!(matches!(ipam.configure(change, at(0)).await, Err(ConfigError::Unsound { .. })));
    }
}

#[tokio::test]
async fn the_empty_blocks_of_a_pool_that_selects_the_node_no_more_are_given_back() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let ipam = ipam(&store);
    ipam.auto_assign(v4("n1", "a", 4), at(0)).await.unwrap();
    ipam.auto_assign(v4("n1", "b", 1), at(0)).await.unwrap();
    assert_eq!(State::read(&store).affinities.len(), 2);
    assert_eq!(ipam.release_unselected_affinities(&node("n1"), at(1)).await.unwrap(), []);
    ipam.release_by_handle("b", at(1)).await.unwrap();
    let mut elsewhere = pool("p", "10.0.0.0/28", 30);
    elsewhere.spec.node_selector = "rack == '7'".parse().unwrap();
    store.commit_now(vec![crate::common::put(elsewhere)]).unwrap();
    assert_eq!(ipam.release_unselected_affinities(&node("n1"), at(2)).await.unwrap().len(), 1);
    let state = State::read(&store);
    state.check();
    assert_eq!((state.affinities.len(), state.held()), (1, 4), "what is in use stays");
}

#[tokio::test]
async fn what_has_cooled_down_in_a_block_of_nobody_is_freed_and_the_block_goes() {
    let store = store_with([pool("p", "10.0.0.0/28", 30)]);
    let ipam = ipam(&store);
    ipam.configure(|config| config.ip_cooldown_seconds = 60, at(0)).await.unwrap();
    ipam.auto_assign(v4("n1", "a", 2), at(0)).await.unwrap();
    ipam.auto_assign(v4("n1", "b", 4), at(0)).await.unwrap();
    ipam.release_by_handle("a", at(10)).await.unwrap();
    assert_eq!(ipam.free_cooled(at(69)).await.unwrap(), 0);
    assert_eq!(ipam.free_cooled(at(70)).await.unwrap(), 2);
    ipam.remove_host(&node("n1"), at(80)).await.unwrap();
    ipam.release_by_handle("b", at(80)).await.unwrap();
    assert!(!State::read(&store).blocks.is_empty(), "they cool down");
    assert_eq!(ipam.free_cooled(at(140)).await.unwrap(), 4);
    assert_eq!(State::read(&store).blocks.len(), 0);
}

#[tokio::test]
async fn a_released_address_cools_down() {
    let store = store_with([pool("p", "10.0.0.0/31", 31)]);
    let ipam = ipam(&store);
    ipam.configure(|config| config.ip_cooldown_seconds = 60, at(0)).await.unwrap();
    ipam.auto_assign(v4("n1", "h", 2), at(0)).await.unwrap();
    ipam.release_by_handle("h", at(10)).await.unwrap();
    assert!(ipam.auto_assign(v4("n1", "h", 1), at(69)).await.is_err());
    assert_eq!(ipam.auto_assign(v4("n1", "h", 2), at(70)).await.unwrap().v4.len(), 2);
    State::read(&store).check();
}
