//! What is explored.

use std::net::IpAddr;

use calico_ipam::{AutoAssign, Emptiness, Ipam, Release, TunnelKind};
use calico_model::NodeName;
use calico_model::datastore::Atomicity;

use super::{BOTH, Claim, Ledger, Process, Scenario, Task, explore_both, explore_on, explores_all};
use crate::common::{at, v4};

fn request(node: &str, handle: &str, count: usize) -> AutoAssign {
    v4(node, handle, count)
}

async fn assign(ipam: &Ipam, ledger: &Ledger, node: &str, handle: &str, count: usize, time: u64) {
    let claim = match ipam.auto_assign(request(node, handle, count), at(time)).await {
        Ok(assigned) => Claim::Holds(assigned.v4.iter().map(|allocation| allocation.addr).collect()),
        Err(_) => Claim::Gone,
    };
    ledger.lock().unwrap().insert(handle.to_owned(), claim);
}

async fn release(ipam: &Ipam, ledger: &Ledger, handle: &str, time: u64) {
    ledger.lock().unwrap().insert(handle.to_owned(), Claim::Gone);
    let _ = ipam.release_by_handle(handle, at(time)).await;
}

async fn release_addrs(ipam: &Ipam, ledger: &Ledger, handle: &str, time: u64) {
    let held = ledger.lock().unwrap().insert(handle.to_owned(), Claim::Gone);
    let Some(Claim::Holds(addrs)) = held else { return };
    let release = |addr: IpAddr| Release { addr, handle: Some(handle.to_owned()), sequence: None };
    let releases: Vec<Release> = addrs.into_iter().map(release).collect();
    let _ = ipam.release(&releases, at(time)).await;
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

macro_rules! process {
    (|$ipam:ident, $ledger:ident| $body:expr) => {
        (|ipam: Ipam, ledger: Ledger| -> Task {
            Box::pin(async move {
                let ($ipam, $ledger) = (&ipam, &ledger);
                $body
            })
        }) as Process
    };
}

const NOTHING: Process = |_, _| Box::pin(async {});

fn scenario(name: &'static str, setup: Process, processes: &'static [Process], faults: u32) -> Scenario {
    Scenario { name, pool: ("10.0.0.0/30", 31), strict: false, setup, processes, faults, large: false }
}

/// A scenario that is explored with lost answers on a store that applies write by write only when time does not matter.
fn large(name: &'static str, setup: Process, processes: &'static [Process], faults: u32) -> Scenario {
    Scenario { large: true, ..scenario(name, setup, processes, faults) }
}

async fn tunnel(ipam: &Ipam, ledger: &Ledger, time: u64) {
    let addr = ipam.tunnel_address(&node("n1"), TunnelKind::Vxlan, &[], at(time)).await;
    let claim = addr.map_or(Claim::Gone, |addr| Claim::Holds(vec![addr]));
    ledger.lock().unwrap().insert(TunnelKind::Vxlan.handle(&node("n1")), claim);
}

/// Write by write the two undo each other's counts until the pauses between attempts, which have no place here, set them
/// apart.
#[test]
fn two_processes_of_one_host_ask_for_the_address_of_its_tunnel() {
    let scenario = scenario(
        "one tunnel",
        NOTHING,
        &[
            process!(|ipam, ledger| tunnel(ipam, ledger, 1).await),
            process!(|ipam, ledger| tunnel(ipam, ledger, 2).await),
        ],
        0,
    );
    explore_on(&scenario, &[Atomicity::Atomic]);
}

#[test]
fn two_hosts_assign_from_an_empty_pool() {
    explore_both(&large(
        "two hosts",
        NOTHING,
        &[
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "a", 1, 1).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n2", "b", 1, 2).await),
        ],
        1,
    ));
}

#[test]
fn two_processes_of_one_host_assign_from_an_empty_pool() {
    explore_both(&large(
        "one host twice",
        NOTHING,
        &[
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "a", 1, 1).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "b", 2, 2).await),
        ],
        1,
    ));
}

#[test]
fn two_hosts_assign_more_than_there_is() {
    let mut scenario = large(
        "two hosts, one block",
        NOTHING,
        &[
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "a", 2, 1).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n2", "b", 1, 2).await),
        ],
        1,
    );
    scenario.pool = ("10.0.0.0/31", 31);
    explore_both(&scenario);
}

#[test]
fn a_release_meets_an_assignment_of_the_same_block() {
    explore_both(&scenario(
        "release and assign",
        process!(|ipam, ledger| assign(ipam, ledger, "n1", "old", 2, 0).await),
        &[
            process!(|ipam, ledger| release(ipam, ledger, "old", 1).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "new", 1, 2).await),
        ],
        1,
    ));
}

#[test]
fn the_same_addresses_are_released_twice_while_one_is_assigned_anew() {
    explore_both(&scenario(
        "two releases and an assignment",
        process!(|ipam, ledger| assign(ipam, ledger, "n1", "old", 2, 0).await),
        &[
            process!(|ipam, ledger| release_addrs(ipam, ledger, "old", 1).await),
            process!(|ipam, ledger| release(ipam, ledger, "old", 1).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "new", 1, 2).await),
        ],
        0,
    ));
}

#[test]
fn a_host_is_removed_while_it_assigns() {
    explore_both(&large(
        "removal and assign",
        process!(|ipam, ledger| assign(ipam, ledger, "n1", "old", 1, 0).await),
        &[
            process!(|ipam, _ledger| {
                let _ = ipam.remove_host(&node("n1"), at(1)).await;
            }),
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "new", 1, 2).await),
        ],
        1,
    ));
}

/// The first process remembers the block as nobody's when the second has claimed it anew.
#[test]
fn a_host_is_removed_and_comes_back_under_its_name() {
    let scenario = scenario(
        "removal and return",
        process!(|ipam, ledger| {
            assign(ipam, ledger, "n1", "old", 1, 0).await;
            assign(ipam, ledger, "n1", "stay", 1, 0).await;
        }),
        &[
            process!(|ipam, ledger| {
                let _ = ipam.remove_host(&node("n1"), at(1)).await;
                release(ipam, ledger, "old", 1).await;
                assign(ipam, ledger, "n1", "a", 1, 1).await;
            }),
            process!(|ipam, ledger| {
                release(ipam, ledger, "stay", 2).await;
                assign(ipam, ledger, "n1", "b", 1, 2).await;
            }),
        ],
        0,
    );
    // Write by write there are more states than every run of the tests can wait for.
    explore_on(&scenario, if explores_all() { &BOTH } else { &[Atomicity::Atomic] });
}

#[test]
fn an_empty_block_is_given_back_while_it_is_wanted() {
    explore_both(&large(
        "giving back and assign",
        process!(|ipam, ledger| {
            assign(ipam, ledger, "n1", "old", 1, 0).await;
            release(ipam, ledger, "old", 0).await;
            ledger.lock().unwrap().clear();
        }),
        &[
            process!(|ipam, _ledger| {
                let _ = ipam.release_host_affinities(&node("n1"), Emptiness::Required, at(1)).await;
            }),
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "new", 1, 2).await),
        ],
        1,
    ));
}

#[test]
fn an_empty_block_is_taken_over_while_its_owner_assigns() {
    let mut scenario = scenario(
        "take-over",
        process!(|ipam, ledger| {
            assign(ipam, ledger, "n1", "old", 1, 0).await;
            release(ipam, ledger, "old", 0).await;
            ledger.lock().unwrap().clear();
        }),
        &[
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "a", 1, 100).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n2", "b", 1, 101).await),
        ],
        1,
    );
    scenario.pool = ("10.0.0.0/31", 31);
    scenario.strict = true;
    explore_both(&scenario);
}

/// Explores what an owner does while another host borrows an address of its only block.
fn borrowing(name: &'static str, processes: &'static [Process]) {
    let setup = process!(|ipam, ledger| assign(ipam, ledger, "n1", "old", 1, 0).await);
    explore_both(&Scenario { pool: ("10.0.0.0/31", 31), ..scenario(name, setup, processes, 1) });
}

#[test]
fn an_address_is_borrowed_while_the_owner_assigns() {
    borrowing(
        "borrowing and assign",
        &[
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "a", 1, 2).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n2", "b", 1, 3).await),
        ],
    );
}

#[test]
fn an_address_is_borrowed_while_the_owner_releases() {
    borrowing(
        "borrowing and release",
        &[
            process!(|ipam, ledger| release(ipam, ledger, "old", 1).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n2", "b", 1, 3).await),
        ],
    );
}

#[test]
fn a_given_address_is_wanted_by_two() {
    explore_both(&scenario(
        "a given address",
        NOTHING,
        &[
            process!(|ipam, ledger| given(ipam, ledger, "n1", "a", 1).await),
            process!(|ipam, ledger| given(ipam, ledger, "n2", "b", 2).await),
        ],
        1,
    ));
}

async fn given(ipam: &Ipam, ledger: &Ledger, node: &str, handle: &str, time: u64) {
    let addr: IpAddr = "10.0.0.1".parse().unwrap();
    let request = calico_ipam::AssignAddress::new(addr, node.parse().unwrap(), handle);
    let claim = match ipam.assign(request, at(time)).await {
        Ok(allocation) => Claim::Holds(vec![allocation.addr]),
        Err(_) => Claim::Gone,
    };
    ledger.lock().unwrap().insert(handle.to_owned(), claim);
}

#[test]
fn leaks_are_reclaimed_while_others_assign_and_release() {
    explore_both(&large(
        "reclaim",
        process!(|ipam, ledger| {
            assign(ipam, ledger, "n1", "leak", 1, 0).await;
            ledger.lock().unwrap().insert("leak".to_owned(), Claim::Gone);
        }),
        &[
            process!(|ipam, ledger| reclaim(ipam, ledger).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "new", 1, 2).await),
        ],
        1,
    ));
}

/// A count that is ahead of its block for a moment looks wrong to a check, which lowers it; the block is made and deleted
/// meanwhile, so that the assignment finds it absent as before.
#[test]
fn counts_are_mended_while_a_block_is_claimed() {
    explore_both(&large(
        "mending and assign",
        NOTHING,
        &[
            process!(|ipam, ledger| reclaim(ipam, ledger).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "b", 1, 2).await),
        ],
        1,
    ));
}

async fn reclaim(ipam: &Ipam, _ledger: &Ledger) {
    let judge = |held: &calico_ipam::Held| match held.handle.as_deref() {
        Some("leak") => calico_ipam::Liveness::Gone,
        _ => calico_ipam::Liveness::Unknown,
    };
    let Ok(check) = ipam.check_with(&judge, at(1)).await else { return };
    let plan: Vec<calico_ipam::Finding> = check.findings.into_iter().collect();
    let _ = ipam.reclaim_with(&plan, &judge, at(1)).await;
}

#[test]
fn three_hosts_assign_from_two_blocks() {
    explore_both(&scenario(
        "three hosts",
        NOTHING,
        &[
            process!(|ipam, ledger| assign(ipam, ledger, "n1", "a", 1, 1).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n2", "b", 1, 2).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n3", "c", 1, 3).await),
        ],
        0,
    ));
}

#[test]
fn of_three_hosts_one_releases_one_claims_and_one_borrows() {
    explore_both(&large(
        "release, claim and borrow",
        process!(|ipam, ledger| assign(ipam, ledger, "n1", "old", 2, 0).await),
        &[
            process!(|ipam, ledger| release(ipam, ledger, "old", 1).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n2", "b", 1, 2).await),
            process!(|ipam, ledger| assign(ipam, ledger, "n3", "c", 1, 3).await),
        ],
        1,
    ));
}

#[test]
fn of_three_hosts_one_is_removed_one_assigns_and_leaks_are_reclaimed() {
    let scenario = large(
        "removal, assign and reclaim",
        process!(|ipam, ledger| {
            assign(ipam, ledger, "n1", "leak", 1, 0).await;
            ledger.lock().unwrap().insert("leak".to_owned(), Claim::Gone);
        }),
        &[
            process!(|ipam, _ledger| {
                let _ = ipam.remove_host(&node("n1"), at(1)).await;
            }),
            process!(|ipam, ledger| assign(ipam, ledger, "n2", "b", 1, 2).await),
            process!(|ipam, ledger| reclaim(ipam, ledger).await),
        ],
        1,
    );
    explore_both(&scenario);
}

#[test]
fn a_host_is_removed_while_another_assigns_in_a_pool_of_four_blocks() {
    let mut scenario = scenario(
        "four blocks, one address",
        process!(|ipam, ledger| assign(ipam, ledger, "n1", "old", 1, 0).await),
        &[
            process!(|ipam, _ledger| {
                let _ = ipam.remove_host(&node("n1"), at(1)).await;
            }),
            process!(|ipam, ledger| assign(ipam, ledger, "n2", "b", 1, 2).await),
        ],
        1,
    );
    scenario.pool = ("10.0.0.0/29", 31);
    explore_both(&scenario);
}

async fn claim(ipam: &Ipam, host: &str, net: &str, time: u64) {
    let _ = ipam.claim_affinity(&node(host), &net.parse().unwrap(), at(time)).await;
}

#[test]
fn two_hosts_claim_the_same_block() {
    explore_both(&scenario(
        "two claims",
        NOTHING,
        &[
            process!(|ipam, _ledger| claim(ipam, "n1", "10.0.0.0/31", 1).await),
            process!(|ipam, _ledger| claim(ipam, "n2", "10.0.0.0/31", 2).await),
        ],
        1,
    ));
}

#[test]
fn a_block_is_claimed_while_its_owner_gives_it_back_and_assigns() {
    explore_both(&scenario(
        "claim and giving back",
        process!(|ipam, _ledger| claim(ipam, "n1", "10.0.0.0/31", 0).await),
        &[
            process!(|ipam, _ledger| claim(ipam, "n2", "10.0.0.0/31", 1).await),
            process!(|ipam, _ledger| {
                let block = "10.0.0.0/31".parse().unwrap();
                let _ = ipam.release_block_affinity(&block, Emptiness::Required, at(2)).await;
            }),
        ],
        1,
    ));
}

#[test]
fn a_host_is_removed_while_another_borrows_from_it() {
    let mut scenario = scenario(
        "removal and borrowing",
        process!(|ipam, ledger| assign(ipam, ledger, "n1", "old", 1, 0).await),
        &[
            process!(|ipam, _ledger| {
                let _ = ipam.remove_host(&node("n1"), at(1)).await;
            }),
            process!(|ipam, ledger| assign(ipam, ledger, "n2", "b", 1, 2).await),
        ],
        1,
    );
    scenario.pool = ("10.0.0.0/31", 31);
    explore_both(&scenario);
}

#[test]
fn a_host_of_four_blocks_is_removed_while_another_claims_two() {
    let mut scenario = scenario(
        "four blocks",
        process!(|ipam, ledger| assign(ipam, ledger, "n1", "old", 1, 0).await),
        &[
            process!(|ipam, _ledger| {
                let _ = ipam.remove_host(&node("n1"), at(1)).await;
            }),
            process!(|ipam, ledger| assign(ipam, ledger, "n2", "b", 3, 2).await),
        ],
        1,
    );
    scenario.pool = ("10.0.0.0/29", 31);
    explore_both(&scenario);
}
