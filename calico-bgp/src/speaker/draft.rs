//! What a group is about to say, and the messages that say it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::export::GroupKey;
use super::run::{Audience, Runs};
use super::world::World;
use crate::filter::ChangeId;
use crate::rib::{Packed, Path, PeerId, Tabled};
use crate::wire::{HEADER_LEN, Nlri, PathIds, update};

/// Destinations that share messages: one source, one set of attributes, one change of them.
#[derive(Debug)]
struct Batch<A> {
    source: PeerId,
    change: ChangeId,
    attributes: Arc<Packed>,
    prefixes: Vec<Nlri<A>>,
}

/// Announcements and withdrawals of one family, gathered so that they fill as few messages as possible.
#[derive(Debug)]
pub(super) struct Draft<A> {
    gone: Vec<Nlri<A>>,
    gone_for: BTreeMap<PeerId, Vec<Nlri<A>>>,
    batches: Vec<Batch<A>>,
    /// Where the batch of a source, a change and an address of attributes is.
    at: HashMap<(PeerId, ChangeId, usize), usize>,
    /// The batch used last: most destinations come in runs.
    last: usize,
    octets: usize,
}

impl<A: Tabled> Draft<A> {
    pub(super) fn new() -> Self {
        Self {
            gone: Vec::new(),
            gone_for: BTreeMap::new(),
            batches: Vec::new(),
            at: HashMap::new(),
            last: 0,
            octets: 0,
        }
    }

    /// Returns about how many octets the announcements will be.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// Takes a destination away from everybody.
    pub(super) fn withdraw(&mut self, nlri: Nlri<A>) {
        self.gone.push(nlri);
    }

    /// Takes a destination away from one member.
    pub(super) fn withdraw_from(&mut self, member: PeerId, nlri: Nlri<A>) {
        self.gone_for.entry(member).or_default().push(nlri);
    }

    /// Tells a path to everybody but the one who told it.
    pub(super) fn announce(&mut self, (path, change): (&Path, ChangeId), nlri: Nlri<A>) {
        let (source, attributes) = (path.peer(), &path.attributes);
        let fits = |batch: &Batch<A>| {
            batch.source == source && batch.change == change && Arc::ptr_eq(&batch.attributes, attributes)
        };
        if !self.batches.get(self.last).is_some_and(fits) {
            let key = (source, change, Arc::as_ptr(attributes) as usize);
            self.last = *self.at.entry(key).or_insert_with(|| {
                let attributes = attributes.clone();
                self.octets += HEADER_LEN + attributes.octets();
                self.batches.push(Batch { source, change, attributes, prefixes: Vec::new() });
                self.batches.len() - 1
            });
        }
        self.octets += nlri.encoded_len(PathIds::Absent);
        self.batches[self.last].prefixes.push(nlri);
    }

    /// Makes the messages: withdrawals first, then announcements in the order in which they were begun. Routes that
    /// cannot be told in the group's words are withdrawn.
    pub(super) fn write(self, key: &GroupKey, world: &World<'_>, runs: &mut Runs) {
        let dialect = key.dialect();
        let withdraw = |audience, prefixes: &[Nlri<A>], runs: &mut Runs| {
            update::withdraw(prefixes, &dialect, |message, _| runs.push(audience, &message));
        };
        withdraw(Audience::All, &self.gone, runs);
        for (member, prefixes) in self.gone_for {
            withdraw(Audience::Only(member), &prefixes, runs);
        }
        for Batch { source, change, attributes, prefixes } in self.batches {
            let audience = if source == PeerId::LOCAL { Audience::All } else { Audience::AllBut(source) };
            let emit = |message: Vec<u8>, _: &[Nlri<A>]| runs.push(audience, &message);
            let told = key
                .fit(&attributes, A::FAMILY, (source, change), world)
                .is_some_and(|fit| update::announce(&fit, &prefixes, &dialect, emit).is_ok());
            if !told {
                withdraw(audience, &prefixes, runs);
            }
        }
    }
}
