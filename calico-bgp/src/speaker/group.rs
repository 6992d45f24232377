//! Update groups: peers that are told the same share one Adj-RIB-Out and one encoding.
//!
//! A group keeps what it has told for each prefix and a stream of encoded messages. Each member is a position in that
//! stream, so a message is encoded once and held once however many peers it goes to. A member that joins first gets
//! everything told so far from a backlog, which members that join together share too.
//!
//! What a peer told us is not told back to it. A message therefore holds routes of one source only, and that source
//! skips it; when it had been told another speaker's route before, it gets a withdrawal of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use calico_model::Family;

use super::export::{GroupKey, World};
use crate::family::FamilySet;
use crate::rib::{PeerId, Rib, Tabled};
use crate::wire::{Attributes, Nlri, Prefix, update};

/// Who a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    All,
    AllBut(PeerId),
    Only(PeerId),
}

#[derive(Debug)]
struct Item {
    audience: Audience,
    bytes: Box<[u8]>,
}

impl Item {
    fn is_for(&self, member: PeerId) -> bool {
        match self.audience {
            Audience::All => true,
            Audience::AllBut(peer) => peer != member,
            Audience::Only(peer) => peer == member,
        }
    }
}

/// What was told for a prefix: the attributes as they are in the tables, before they were made fit for the group.
#[derive(Debug)]
struct Told {
    attributes: Arc<Attributes>,
    source: PeerId,
}

#[derive(Debug)]
struct Out<A> {
    told: BTreeMap<Prefix<A>, Told>,
    dirty: BTreeSet<Prefix<A>>,
}

impl<A> Default for Out<A> {
    fn default() -> Self {
        Self { told: BTreeMap::new(), dirty: BTreeSet::new() }
    }
}

/// Prefixes that can share messages.
struct Batch<A> {
    attributes: Arc<Attributes>,
    prefixes: Vec<Nlri<A>>,
}

/// Where a member is.
#[derive(Debug)]
struct Member {
    backlog: Option<(Arc<Vec<Item>>, usize)>,
    position: u64,
}

/// A stream longer than this many octets drops the members that are farthest behind.
const STREAM_LIMIT: usize = 64 << 20;

/// One update group.
#[derive(Debug)]
pub(crate) struct Group {
    key: GroupKey,
    v4: Out<std::net::Ipv4Addr>,
    v6: Out<std::net::Ipv6Addr>,
    stream: VecDeque<Item>,
    stream_len: usize,
    base: u64,
    members: BTreeMap<PeerId, Member>,
    joining: BTreeMap<PeerId, FamilySet>,
}

/// A family of which a [`Group`] keeps what was told.
trait Grouped: Tabled {
    fn out(group: &mut Group) -> &mut Out<Self>;
}

impl Grouped for std::net::Ipv4Addr {
    fn out(group: &mut Group) -> &mut Out<Self> {
        &mut group.v4
    }
}

impl Grouped for std::net::Ipv6Addr {
    fn out(group: &mut Group) -> &mut Out<Self> {
        &mut group.v6
    }
}

impl Group {
    pub(crate) fn new(key: GroupKey, world: &World<'_>) -> Self {
        let mut group = Self {
            key,
            v4: Out::default(),
            v6: Out::default(),
            stream: VecDeque::new(),
            stream_len: 0,
            base: 0,
            members: BTreeMap::new(),
            joining: BTreeMap::new(),
        };
        group.mark_all(world.rib);
        group
    }

    /// Looks at every destination again in the next round.
    pub(crate) fn mark_all(&mut self, rib: &Rib) {
        self.v4.dirty.extend(std::net::Ipv4Addr::table(rib).iter().map(|(prefix, _)| prefix));
        self.v6.dirty.extend(std::net::Ipv6Addr::table(rib).iter().map(|(prefix, _)| prefix));
        self.v4.dirty.extend(self.v4.told.keys());
        self.v6.dirty.extend(self.v6.told.keys());
    }

    pub(crate) fn mark_v4(&mut self, prefix: Prefix<std::net::Ipv4Addr>) {
        if self.key.families.contains(Family::V4) {
            self.v4.dirty.insert(prefix);
        }
    }

    pub(crate) fn mark_v6(&mut self, prefix: Prefix<std::net::Ipv6Addr>) {
        if self.key.families.contains(Family::V6) {
            self.v6.dirty.insert(prefix);
        }
    }

    /// Takes a member in with the next round, or has it told the families again.
    pub(crate) fn join(&mut self, member: PeerId, families: FamilySet) {
        let interrupted = self.members.get(&member).is_some_and(|m| m.backlog.is_some());
        let families = if interrupted { self.key.families } else { families };
        let asked = self.joining.entry(member).or_default();
        *asked = families.iter().chain(asked.iter()).collect();
    }

    pub(crate) fn leave(&mut self, member: PeerId) {
        self.members.remove(&member);
        self.joining.remove(&member);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.joining.is_empty()
    }

    pub(crate) fn has_work(&self) -> bool {
        !(self.joining.is_empty() && self.v4.dirty.is_empty() && self.v6.dirty.is_empty())
    }

    /// Returns how many prefixes of a family were told.
    pub(crate) fn told(&self, family: Family, member: PeerId) -> usize {
        match family {
            Family::V4 => self.v4.told.values().filter(|told| told.source != member).count(),
            Family::V6 => self.v6.told.values().filter(|told| told.source != member).count(),
        }
    }

    /// One round: encodes what changed, lets joining members in, drops what everybody has. Returns the members that
    /// are too far behind and must be cut off.
    pub(crate) fn round(&mut self, world: &World<'_>) -> Vec<PeerId> {
        self.tell_changes::<std::net::Ipv4Addr>(world);
        self.tell_changes::<std::net::Ipv6Addr>(world);
        self.admit(world);
        self.trim()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.members.keys().copied()
    }

    /// Reports whether something waits for a member.
    pub(crate) fn waits_for(&self, member: PeerId) -> bool {
        self.members
            .get(&member)
            .is_some_and(|m| m.backlog.is_some() || m.position < self.base + self.stream.len() as u64)
    }

    /// Appends a member's next messages to `out` until it holds `enough` octets; returns how many messages.
    pub(crate) fn take(&mut self, member: PeerId, out: &mut Vec<u8>, enough: usize) -> u64 {
        let Some(state) = self.members.get_mut(&member) else { return 0 };
        let mut count = 0;
        while out.len() < enough {
            let item = match &mut state.backlog {
                Some((items, at)) => match items.get(*at) {
                    Some(item) => {
                        *at += 1;
                        item
                    }
                    None => {
                        state.backlog = None;
                        continue;
                    }
                },
                None => {
                    let at = (state.position - self.base) as usize;
                    let Some(item) = self.stream.get(at) else { break };
                    state.position += 1;
                    item
                }
            };
            if item.is_for(member) {
                out.extend_from_slice(&item.bytes);
                count += 1;
            }
        }
        count
    }

    fn tell_changes<A: Grouped>(&mut self, world: &World<'_>) {
        let dirty = std::mem::take(&mut A::out(self).dirty);
        if dirty.is_empty() {
            return;
        }
        let mut gone: Vec<Nlri<A>> = Vec::new();
        let mut gone_for: BTreeMap<PeerId, Vec<Nlri<A>>> = BTreeMap::new();
        let mut batches: BTreeMap<(PeerId, usize), Batch<A>> = BTreeMap::new();
        let mut fits = Vec::new();
        for prefix in dirty {
            let nlri = Nlri { prefix, path_id: 0 };
            let chosen = A::table(world.rib).best(prefix).filter(|path| self.key.is_told(path, world));
            let told = A::out(self).told.get(&prefix);
            match (chosen, told) {
                (None, None) => {}
                (None, Some(_)) => {
                    gone.push(nlri);
                    A::out(self).told.remove(&prefix);
                }
                (Some(path), told) => {
                    if told.is_some_and(|t| {
                        t.source == path.peer && Arc::ptr_eq(&t.attributes, &path.attributes)
                    }) {
                        continue;
                    }
                    if told.is_some_and(|t| t.source != path.peer) && path.peer != PeerId::LOCAL {
                        gone_for.entry(path.peer).or_default().push(nlri);
                    }
                    let key = (path.peer, Arc::as_ptr(&path.attributes) as usize);
                    if !batches.contains_key(&key) {
                        fits.push(key);
                    }
                    let batch = || Batch { attributes: path.attributes.clone(), prefixes: Vec::new() };
                    batches.entry(key).or_insert_with(batch).prefixes.push(nlri);
                    let told = Told { attributes: path.attributes.clone(), source: path.peer };
                    A::out(self).told.insert(prefix, told);
                }
            }
        }
        if self.members.is_empty() {
            return;
        }
        let dialect = self.key.dialect();
        let mut items = Vec::new();
        let item = |audience, bytes: Vec<u8>| Item { audience, bytes: bytes.into() };
        update::withdraw(&gone, &dialect, |bytes, _| items.push(item(Audience::All, bytes)));
        for (peer, prefixes) in gone_for {
            update::withdraw(&prefixes, &dialect, |bytes, _| items.push(item(Audience::Only(peer), bytes)));
        }
        for key in fits {
            if let Some(batch) = batches.get(&key) {
                self.encode(key.0, &batch.attributes, &batch.prefixes, world, &mut items);
            }
        }
        self.stream_len += items.iter().map(|item| item.bytes.len()).sum::<usize>();
        self.stream.extend(items);
    }

    fn encode<A: Grouped>(
        &self,
        source: PeerId,
        attributes: &Attributes,
        prefixes: &[Nlri<A>],
        world: &World<'_>,
        items: &mut Vec<Item>,
    ) {
        let audience = if source == PeerId::LOCAL { Audience::All } else { Audience::AllBut(source) };
        let dialect = self.key.dialect();
        let emit = |bytes: Vec<u8>, _: &[Nlri<A>]| items.push(Item { audience, bytes: bytes.into() });
        let done = match self.key.fit(attributes, A::FAMILY, source, world) {
            Some(fit) => update::announce(&fit, prefixes, &dialect, emit).is_ok(),
            None => false,
        };
        if !done {
            update::withdraw(prefixes, &dialect, |bytes, _| {
                items.push(Item { audience, bytes: bytes.into() });
            });
        }
    }

    /// Gives members that join everything told so far, then End-of-RIB (RFC 4724 section 2).
    fn admit(&mut self, world: &World<'_>) {
        let joining = std::mem::take(&mut self.joining);
        let end = self.base + self.stream.len() as u64;
        let mut shared: BTreeMap<FamilySet, Arc<Vec<Item>>> = BTreeMap::new();
        for (member, families) in joining {
            let backlog = shared.entry(families).or_insert_with(|| {
                let mut items = Vec::new();
                for family in families.iter() {
                    match family {
                        Family::V4 => self.tell_all(&self.v4, world, &mut items),
                        Family::V6 => self.tell_all(&self.v6, world, &mut items),
                    }
                    items.push(Item { audience: Audience::All, bytes: update::end_of_rib(family).into() });
                }
                Arc::new(items)
            });
            self.members.insert(member, Member { backlog: Some((backlog.clone(), 0)), position: end });
        }
    }

    fn tell_all<A: Grouped>(&self, out: &Out<A>, world: &World<'_>, items: &mut Vec<Item>) {
        let mut batches: BTreeMap<(PeerId, usize), Batch<A>> = BTreeMap::new();
        for (prefix, told) in &out.told {
            let key = (told.source, Arc::as_ptr(&told.attributes) as usize);
            let batch = batches
                .entry(key)
                .or_insert_with(|| Batch { attributes: told.attributes.clone(), prefixes: Vec::new() });
            batch.prefixes.push(Nlri { prefix: *prefix, path_id: 0 });
        }
        let mut batches: Vec<_> = batches.into_iter().collect();
        batches.sort_by_key(|(_, batch)| batch.prefixes.first().copied());
        for ((source, _), batch) in batches {
            self.encode(source, &batch.attributes, &batch.prefixes, world, items);
        }
    }

    fn trim(&mut self) -> Vec<PeerId> {
        let mut late = Vec::new();
        loop {
            let end = self.base + self.stream.len() as u64;
            let reached = self.members.values().map(|m| m.position).min().unwrap_or(end);
            while self.base < reached
                && let Some(item) = self.stream.pop_front()
            {
                self.stream_len -= item.bytes.len();
                self.base += 1;
            }
            if self.stream_len <= STREAM_LIMIT {
                return late;
            }
            let base = self.base;
            let behind: Vec<PeerId> =
                self.members.iter().filter(|(_, m)| m.position == base).map(|(id, _)| *id).collect();
            behind.iter().for_each(|id| self.leave(*id));
            late.extend(behind);
        }
    }
}
