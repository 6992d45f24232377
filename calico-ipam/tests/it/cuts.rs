//! Every operation, cut off after each of its writes: what is left is sound, and the next attempt and a reclaim mend it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_ipam::{
    AccessError, AffinityError, Allocation, AssignAddress, AssignError, Emptiness, Finding, Held, Ipam,
    Liveness, Release,
};
use calico_model::datastore::faulty::FaultyStore;
use calico_model::datastore::{Atomicity, Prefix};
use calico_model::resource::{AssignmentMode, IpReservation, Object};
use calico_model::{Cidr, Family, MemoryStore};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::common::{State, at, pool, put, v4};

/// What a process does. Handles are named after the place of their operation in the history.
#[derive(Debug, Clone)]
enum Step {
    Assign { node: u8, count: usize },
    AssignGiven { node: u8, ordinal: u8 },
    Release { which: usize },
    ReleaseByHandle { which: usize },
    Claim { node: u8, block: u8 },
    EnsureBlock { node: u8 },
    GiveBack { node: u8 },
    RemoveHost { node: u8 },
    Reclaim,
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 1u8..4;
    prop_oneof![
        5 => (node(), 1usize..5).prop_map(|(node, count)| Step::Assign { node, count }),
        1 => (node(), 0u8..8).prop_map(|(node, ordinal)| Step::AssignGiven { node, ordinal }),
        2 => (0usize..8).prop_map(|which| Step::Release { which }),
        2 => (0usize..8).prop_map(|which| Step::ReleaseByHandle { which }),
        1 => (node(), 0u8..4).prop_map(|(node, block)| Step::Claim { node, block }),
        1 => node().prop_map(|node| Step::EnsureBlock { node }),
        1 => node().prop_map(|node| Step::GiveBack { node }),
        1 => node().prop_map(|node| Step::RemoveHost { node }),
        1 => Just(Step::Reclaim),
    ]
}

const RESERVED: &str = "10.0.0.3/32";

/// A store, and what is known of who holds what.
struct World {
    memory: MemoryStore,
    store: FaultyStore<MemoryStore>,
    atomicity: Atomicity,
    holders: BTreeMap<String, Vec<Allocation>>,
    /// What a release that was cut off was about to give up.
    releasing: Option<(String, Vec<Allocation>)>,
    /// Addresses that were asked for by name, which a reservation does not forbid.
    given: Vec<IpAddr>,
}

impl World {
    /// Four blocks of two addresses, one of them reserved; a pool that must be named, and one that serves nobody.
    fn new(atomicity: Atomicity) -> Self {
        let memory = MemoryStore::new();
        let mut manual = pool("a-manual", "10.1.0.0/30", 31);
        manual.spec.assignment_mode = AssignmentMode::Manual;
        let mut disabled = pool("b-disabled", "10.2.0.0/30", 31);
        disabled.spec.disabled = true;
        let reserved = IpReservation { reserved_cidrs: vec![RESERVED.parse().unwrap()] };
        let reserved = put(Object::new("r".parse().unwrap(), reserved));
        let writes = vec![put(pool("p", "10.0.0.0/29", 31)), put(manual), put(disabled), reserved];
        memory.commit_now(writes).unwrap();
        let store = FaultyStore::new(memory.clone(), atomicity);
        Self { memory, store, atomicity, holders: BTreeMap::new(), releasing: None, given: Vec::new() }
    }

    /// A process that knows nothing yet.
    fn ipam(&self) -> Ipam {
        Ipam::new(std::sync::Arc::new(self.store.clone()))
    }

    /// Carries out one step; returns whether the store went away meanwhile.
    async fn perform(&mut self, step: &Step, place: usize) -> bool {
        let (ipam, now) = (self.ipam(), at(100 * place as u64));
        let handle = format!("h{place}");
        let node = |node: &u8| format!("n{node}").parse().unwrap();
        match step {
            Step::Assign { node, count } => {
                let got = ipam.auto_assign(v4(&format!("n{node}"), &handle, *count), now).await;
                self.assigned(handle, got.map(|assigned| assigned.v4))
            }
            Step::AssignGiven { node: host, ordinal } => {
                let addr = IpAddr::from([10, 0, 0, *ordinal]);
                self.given.push(addr);
                let got = ipam.assign(AssignAddress::new(addr, node(host), handle.clone()), now).await;
                self.assigned(handle, got.map(|allocation| vec![allocation]))
            }
            Step::Release { which } => {
                let Some((handle, allocations)) = self.take(*which) else { return false };
                let release = |allocation: &Allocation| Release {
                    addr: allocation.addr,
                    handle: Some(handle.clone()),
                    sequence: Some(allocation.sequence),
                };
                let releases: Vec<Release> = allocations.iter().map(release).collect();
                let crashed = ipam.release(&releases, now).await.is_err();
                self.releasing = crashed.then_some((handle, allocations));
                crashed
            }
            Step::ReleaseByHandle { which } => {
                let Some((handle, allocations)) = self.take(*which) else { return false };
                let crashed = ipam.release_by_handle(&handle, now).await.is_err();
                self.releasing = crashed.then_some((handle, allocations));
                crashed
            }
            Step::Claim { node: host, block } => {
                let block = Cidr::holding(IpAddr::from([10, 0, 0, 2 * block]), 31).unwrap();
                failed(ipam.claim_affinity(&node(host), &block, now).await.map(drop))
            }
            Step::EnsureBlock { node: host } => {
                let outcome = ipam.ensure_block(&node(host), Family::V4, &[], now).await;
                matches!(outcome, Err(AssignError::Access(_)))
            }
            Step::GiveBack { node: host } => {
                failed(ipam.release_host_affinities(&node(host), Emptiness::Required, now).await.map(drop))
            }
            Step::RemoveHost { node: host } => failed(ipam.remove_host(&node(host), now).await.map(drop)),
            Step::Reclaim => self.reclaim(at(100 * place as u64)).await.is_err(),
        }
    }

    /// Takes a handle to release from the holders: the one whose release was cut off, if there is one.
    fn take(&mut self, which: usize) -> Option<(String, Vec<Allocation>)> {
        if let Some(releasing) = self.releasing.take() {
            return Some(releasing);
        }
        let handle = self.holders.keys().nth(which % self.holders.len().max(1))?.clone();
        self.holders.remove_entry(&handle)
    }

    fn assigned(&mut self, handle: String, got: Result<Vec<Allocation>, AssignError>) -> bool {
        match got {
            Ok(allocations) => {
                self.holders.insert(handle, allocations);
                false
            }
            Err(error) => matches!(error, AssignError::Access(_)),
        }
    }

    async fn reclaim(&self, now: std::time::SystemTime) -> Result<(), AccessError> {
        let ipam = self.ipam();
        let judge = |held: &Held| match &held.handle {
            Some(handle) if self.holders.contains_key(handle) => Liveness::Alive,
            Some(_) | None => Liveness::Gone,
        };
        let findings: Vec<Finding> = ipam.check_with(&judge, now).await?.findings.into_iter().collect();
        ipam.reclaim_with(&findings, &judge, now).await.map(drop)
    }

    fn state(&self) -> State {
        State::from_entries(self.memory.list_now(&Prefix::new("/calico/ipam/v2").unwrap()).entries)
    }

    /// What holds wherever an operation is cut off.
    fn check_cut(&self) {
        let state = self.state();
        if self.atomicity == Atomicity::Atomic {
            state.check();
        }
        for (handle, allocations) in &self.holders {
            for allocation in allocations {
                let block = &state.blocks[&allocation.block];
                let holder = block.attributes_of(allocation.addr).and_then(|found| found.handle_id.as_ref());
                assert_eq!(holder, Some(handle), "{} is {handle}'s", allocation.addr);
                assert_eq!(block.sequence_of(allocation.addr), Some(allocation.sequence));
            }
        }
        for block in state.blocks.values() {
            for (addr, attributes) in block.holders() {
                let handle = attributes.handle_id.as_ref().unwrap();
                let counted = state.handles.get(handle).and_then(|counts| counts.get(&block.cidr()));
                assert!(counted.is_some_and(|counted| *counted >= block.count_of(handle)), "{handle}");
                let served: Cidr = "10.0.0.0/29".parse().unwrap();
                assert!(served.contains(addr), "{addr} is of a pool that serves nobody unasked");
                let reserved: Cidr = RESERVED.parse().unwrap();
                assert!(!reserved.contains(addr) || self.given.contains(&addr), "{addr} is reserved");
            }
        }
    }

    /// What holds once what was begun was tried again, and what leaked was reclaimed.
    fn check_end(&self) {
        self.check_cut();
        let state = self.state();
        state.check();
        assert!(state.tombstones.is_empty(), "blocks marked as deleted are left: {:?}", state.tombstones);
        assert_eq!(state.held(), self.holders.values().map(Vec::len).sum::<usize>(), "nothing is leaked");
    }
}

/// A block that is not empty is no failure.
fn failed(outcome: Result<(), AffinityError>) -> bool {
    matches!(outcome, Err(AffinityError::Access(_)))
}

/// Carries out the history, and its last step with a cut; returns whether it was cut.
async fn cut(history: &[Step], atomicity: Atomicity, writes: u64) -> bool {
    let mut world = World::new(atomicity);
    let (last, before) = history.split_last().unwrap();
    for (place, step) in before.iter().enumerate() {
        assert!(!world.perform(step, place).await, "{step:?} finds the store");
    }
    let place = before.len();
    world.store.crash_after(writes);
    let crashed = world.perform(last, place).await;
    world.check_cut();
    world.store.revive();
    if crashed {
        world.ipam().release_by_handle(&format!("h{place}"), at(100 * place as u64)).await.unwrap();
        world.check_cut();
        assert!(!world.perform(last, place).await, "{last:?} can be tried again");
        world.check_cut();
    }
    for _ in 0..2 {
        world.reclaim(at(10_000)).await.unwrap();
    }
    world.check_end();
    crashed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn an_operation_that_is_cut_off_after_any_write_is_mended(history in vec(step(), 1..9)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for atomicity in [Atomicity::Atomic, Atomicity::InOrder] {
                let mut writes = 0;
                while cut(&history, atomicity, writes).await {
                    writes += 1;
                }
            }
        });
    }
}
