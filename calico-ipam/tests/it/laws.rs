//! The laws of a block, against a model so plain that it is surely right.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use calico_ipam::plan::{Candidate, Role, View, plan};
use calico_ipam::strategies::{Operation, apply, block, holder, operation};
use calico_ipam::{Block, Expected, Kept, Mismatch, PerFamily, Versioned};
use calico_model::datastore::Atomicity;
use calico_model::resource::block::StoredBlock;
use calico_model::{Cidr, SequenceNumber};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::common::{addr, at};

const COOLDOWN: Duration = Duration::from_secs(10);

/// Each address in one of three states, and the order in which the free ones became free.
struct Naive {
    held: BTreeMap<IpAddr, String>,
    cooling: Vec<(IpAddr, SystemTime)>,
    free: Vec<IpAddr>,
}

impl Naive {
    fn new(cidr: Cidr) -> Self {
        let free = (0..8).filter_map(|ordinal| cidr.nth(ordinal)).collect();
        Self { held: BTreeMap::new(), cooling: Vec::new(), free }
    }

    fn thaw(&mut self, now: SystemTime) {
        let cold = |since: SystemTime| match now.duration_since(since) {
            Ok(passed) => passed >= COOLDOWN,
            Err(ahead) => ahead.duration() > COOLDOWN,
        };
        let mut thawed: Vec<_> = self.cooling.iter().filter(|(_, since)| cold(*since)).copied().collect();
        thawed.sort_by_key(|(addr, since)| (*since, *addr));
        self.cooling.retain(|(_, since)| !cold(*since));
        self.free.extend(thawed.into_iter().map(|(addr, _)| addr));
    }

    fn apply(&mut self, cidr: Cidr, operation: &Operation, now: SystemTime) {
        match operation {
            Operation::Assign { count, holder } => {
                self.thaw(now);
                for addr in self.free.drain(..(*count).min(self.free.len())) {
                    self.held.insert(addr, holder.handle.clone());
                }
            }
            Operation::AssignAddress { ordinal, holder } => {
                let Some(addr) = cidr.nth((*ordinal).into()) else { return };
                let held = self.held.contains_key(&addr);
                let before = (self.cooling.clone(), self.free.clone());
                self.thaw(now);
                if self.free.contains(&addr) && !held {
                    self.free.retain(|free| *free != addr);
                    self.held.insert(addr, holder.handle.clone());
                } else {
                    // Nothing is written, so what thawed stays as it was.
                    (self.cooling, self.free) = before;
                }
            }
            Operation::Release { ordinal } => {
                let Some(addr) = cidr.nth((*ordinal).into()) else { return };
                if self.held.remove(&addr).is_some() {
                    self.cooling.push((addr, now));
                }
            }
            Operation::ReleaseHandle { handle } => {
                let gone = self.held.iter().filter(|(_, by)| *by == handle);
                let gone: Vec<IpAddr> = gone.map(|(addr, _)| *addr).collect();
                for addr in gone {
                    self.held.remove(&addr);
                    self.cooling.push((addr, now));
                }
            }
            Operation::Wait(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn a_block_does_what_the_plain_model_does(operations in vec(operation(), 0..60)) {
        let mut block = Block::new("10.0.0.0/29".parse().unwrap(), None, at(0));
        let mut naive = Naive::new(block.cidr());
        let mut now = at(100);
        for operation in &operations {
            naive.apply(block.cidr(), operation, now);
            block = apply(&block, operation, &mut now, COOLDOWN);
            let held: BTreeMap<IpAddr, String> = block
                .holders()
                .map(|(addr, attributes)| (addr, attributes.handle_id.clone().unwrap()))
                .collect();
            prop_assert_eq!(&held, &naive.held);
            prop_assert_eq!(block.cooling(), naive.cooling.len());
            prop_assert_eq!(block.free_addrs().collect::<Vec<_>>(), naive.free.clone());
            prop_assert_eq!(block.held() + block.cooling() + block.free(), block.size());
        }
    }

    #[test]
    fn a_block_is_stored_and_read_back_without_loss(block in block()) {
        let stored = StoredBlock::from(&block);
        let text = serde_json::to_vec(&stored).unwrap();
        let again: StoredBlock = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(&again, &stored);
        let written: StoredBlock = serde_json::from_slice(&serde_json::to_vec(&block).unwrap()).unwrap();
        prop_assert_eq!(&written, &stored);
        prop_assert_eq!(Block::try_from(again).unwrap(), block);
    }

    #[test]
    fn a_release_undoes_an_assignment_once_it_has_cooled(block in block(), holder in holder()) {
        let block = block.thawed(at(1_000_000), COOLDOWN);
        let (assigned, addrs) = block.assign(2, &holder, &[], at(1_000_000), COOLDOWN);
        let expected: Vec<Expected> = addrs.iter().map(|addr| Expected {
            addr: *addr, handle: Some(holder.handle.clone()), sequence: assigned.sequence_of(*addr),
        }).collect();
        let freed = assigned.release(&expected, at(1_000_000), COOLDOWN).unwrap();
        let back = freed.block.thawed(at(1_000_010), COOLDOWN);
        let held = |block: &Block| block.holders().map(|(addr, a)| (addr, a.clone())).collect::<Vec<_>>();
        prop_assert_eq!(held(&back), held(&block));
        prop_assert_eq!(back.free(), block.free());
    }

    #[test]
    fn an_old_sequence_number_never_frees_a_newer_assignment(block in block(), holder in holder()) {
        let (first, addrs) = block.assign(1, &holder, &[], at(0), Duration::ZERO);
        prop_assume!(!addrs.is_empty());
        let old = Expected { addr: addrs[0], handle: None, sequence: first.sequence_of(addrs[0]) };
        let free = first.release(std::slice::from_ref(&old), at(0), Duration::ZERO).unwrap().block;
        let anew = free.assign_address(addrs[0], &holder, at(0), Duration::ZERO).unwrap();
        let late = anew.release(&[old], at(0), Duration::ZERO).unwrap();
        prop_assert_eq!((late.freed, late.not_held), (vec![], vec![addrs[0]]));
        prop_assert_eq!(&late.block, &anew);
        let made_up = anew.sequence_of(addrs[0]).map(SequenceNumber::next);
        let made_up = Expected { addr: addrs[0], handle: None, sequence: made_up };
        let refused = anew.release(&[made_up], at(0), Duration::ZERO);
        let refused_for_sequence = matches!(refused, Err(Mismatch::Sequence { .. }));
        prop_assert!(refused_for_sequence);
    }

    #[test]
    fn reserved_addresses_keep_their_place_and_are_never_assigned(block in block(), holder in holder()) {
        let reserved: [Cidr; 2] = ["10.0.0.2/31".parse().unwrap(), "10.0.0.7/32".parse().unwrap()];
        let (after, addrs) = block.assign(8, &holder, &reserved, at(0), COOLDOWN);
        prop_assert!(addrs.iter().all(|addr| !reserved.iter().any(|net| net.contains(*addr))));
        let left: Vec<IpAddr> = after.free_addrs().collect();
        let thawed = block.thawed(at(0), COOLDOWN);
        let expected: Vec<IpAddr> = thawed.free_addrs().filter(|addr| left.contains(addr)).collect();
        prop_assert_eq!(left, expected);
    }

    #[test]
    fn a_plan_brings_what_its_blocks_hold_and_counts_it(blocks in vec(block(), 1..4), holder in holder(), count in 1usize..20) {
        let owner = "host:n1".parse().unwrap();
        let candidates: Vec<Candidate> = (0u8..).zip(blocks).map(|(index, block)| {
            let mut stored = StoredBlock::from(&block);
            stored.cidr = format!("10.0.{index}.0/29").parse().unwrap();
            let block = Versioned::at(Block::try_from(stored).unwrap(), calico_model::Revision(7));
            let cidr = block.value.as_ref().unwrap().cidr();
            Candidate { pool: "p".parse().unwrap(), cidr, block, affinity: Versioned::absent(), role: Role::Borrow }
        }).collect();
        for atomicity in [Atomicity::Atomic, Atomicity::InOrder] {
            let view = View { owner: &owner, candidates: &candidates, handle: &Versioned::absent(), reserved: &[],
                              cooldown: COOLDOWN, atomicity, kept: Kept::NONE };
            let made = plan(&view, PerFamily { v4: count, v6: 0 }, &holder, at(1_000_000));
            let space: usize = candidates.iter()
                .map(|c| c.block.value.as_ref().unwrap().thawed(at(1_000_000), COOLDOWN).free()).sum();
            prop_assert_eq!(made.allocations.len(), count.min(space));
            let counts = made.handle.and_then(|handle| handle.value);
            for block in made.blocks.iter().filter_map(|block| block.value.as_ref()) {
                let counted = counts.as_ref().unwrap().block[&block.cidr()];
                prop_assert_eq!(counted, block.count_of(&holder.handle));
            }
        }
    }
}

#[test]
fn damaged_blocks_are_told_from_sound_ones() {
    let sound = StoredBlock::from(&Block::new("10.0.0.0/30".parse().unwrap(), None, at(0)));
    let damages: [fn(&mut StoredBlock); 5] = [
        |block| block.unallocated = vec![0, 1, 2],
        |block| block.unallocated = vec![0, 1, 2, 2],
        |block| block.allocations[0] = Some(9),
        |block| {
            block.allocations.pop();
        },
        |block| block.cidr = "10.0.0.0/8".parse().unwrap(),
    ];
    for damage in damages {
        let mut block = sound.clone();
        damage(&mut block);
        let error = Block::try_from(block).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
    }
    let held = Block::try_from(sound).unwrap();
    assert_eq!(held.sequence_of(addr("10.0.0.0")), None);
}
