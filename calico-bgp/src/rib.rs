//! The tables of routes: every accepted path once (Adj-RIB-In and Loc-RIB in one), prefixes by family, attributes
//! shared. What was told to whom (Adj-RIB-Out) is kept by the update groups in [`crate::speaker`].

mod blocks;
pub mod intern;
pub mod names;
mod ranked;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use blocks::{Blocks, Place};
pub use intern::Packed;
use ranked::Ranked;

use crate::decision::Sources;
use crate::wire::{Address, Prefix};

/// Names the speaker that told a path; the numbers are not used again while paths of theirs exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub(crate) u32);

impl PeerId {
    /// Ourselves: routes that begin here.
    pub const LOCAL: PeerId = PeerId(0);
}

/// Whether the peer still stands by a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Told in the present session.
    Fresh,
    /// Kept while the peer restarts (RFC 4724 section 4.2).
    Stale,
}

/// One path to one destination, in 16 octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// What it is.
    pub attributes: Arc<Packed>,
    /// Which of the peer's paths for the prefix it is (RFC 7911); 0 without identifiers.
    pub path_id: u32,
    /// The peer's number, and in the last bit whether the path is stale.
    teller: u32,
}

impl Path {
    /// Makes a fresh path that a peer told.
    #[must_use]
    pub fn new(attributes: Arc<Packed>, peer: PeerId, path_id: u32) -> Self {
        Self { attributes, path_id, teller: peer.0 << 1 }
    }

    /// Returns who told it.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        PeerId(self.teller >> 1)
    }

    /// Returns whether the peer still stands by it.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        if self.teller & 1 == 0 { Freshness::Fresh } else { Freshness::Stale }
    }

    fn make_stale(&mut self) {
        self.teller |= 1;
    }

    fn is(&self, peer: PeerId, path_id: u32) -> bool {
        self.peer() == peer && self.path_id == path_id
    }

    /// Reports whether both are the same path of the same peer, and say the same.
    pub(crate) fn says_the_same(&self, other: &Path) -> bool {
        self.peer() == other.peer()
            && self.path_id == other.path_id
            && Arc::ptr_eq(&self.attributes, &other.attributes)
    }
}

/// The paths of one destination, the best one first. Most destinations have one, which then needs no list.
#[derive(Debug)]
enum Paths {
    One(Path),
    /// In a box, so that a destination with one path takes 16 octets.
    Many(Box<Ranked>),
}

impl Paths {
    fn as_slice(&self) -> &[Path] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths.as_slice(),
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Self::One(path) => std::slice::from_mut(path),
            Self::Many(paths) => paths.as_mut_slice(),
        }
    }

    fn find(&self, peer: PeerId, path_id: u32) -> Option<usize> {
        match self {
            Self::One(path) => path.is(peer, path_id).then_some(0),
            Self::Many(paths) => paths.find(peer, path_id),
        }
    }

    /// Adds a path of which there is none with the same peer and identifier.
    fn add(&mut self, path: Path, sources: &Sources) -> Choice {
        match self {
            Self::Many(all) => all.add(path, sources),
            Self::One(only) => {
                let mut all = Ranked::of(only.clone(), sources);
                let choice = all.add(path, sources);
                *self = Self::Many(Box::new(all));
                choice
            }
        }
    }
}

/// What one change did to a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// How the number of paths of the peer changed: 1, 0 or -1.
    pub held: i32,
    /// The path that was there before with the same peer and identifier.
    pub replaced: Option<Path>,
    /// Whether the best path, or the set of equally good ones, may be another.
    pub choice: Choice,
}

impl Effect {
    const NOTHING: Effect = Effect { held: 0, replaced: None, choice: Choice::Same };
}

/// Whether the choice for a destination may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Nothing about the destination's paths is new.
    Same,
    /// The choice is what it was, but another path came or went: only peers that are told every path want to know.
    SameOfMore,
    /// The best path is what it was, but the set of equally good ones may be another.
    SameBest,
    /// The best path is another.
    Changed {
        /// The best path until now.
        before: Option<Path>,
    },
}

/// The routes of one family.
#[derive(Debug)]
pub struct Table<A> {
    routes: Blocks<Prefix<A>, Paths>,
    /// Where the last path was put: the next prefix of a message is often the next one in the table.
    last: Place,
}

impl<A> Default for Table<A> {
    fn default() -> Self {
        Self { routes: Blocks::default(), last: Place::default() }
    }
}

impl<A: Address> Table<A> {
    /// Returns the number of destinations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Reports whether there are no destinations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.len() == 0
    }

    /// Returns the best path to a destination, or one whose next hop cannot be reached where there is no other: see
    /// [`Sources::reaches`].
    #[must_use]
    pub fn best(&self, prefix: Prefix<A>) -> Option<&Path> {
        self.paths(prefix).first()
    }

    /// Returns the best paths to destinations that come in ascending order.
    pub(crate) fn bests<I>(
        &self,
        prefixes: impl Iterator<Item = (Prefix<A>, I)>,
    ) -> impl Iterator<Item = (Prefix<A>, I, Option<&Path>)> {
        let found = self.routes.get_ascending(prefixes);
        found.map(|(prefix, item, paths)| (prefix, item, paths.and_then(|paths| paths.as_slice().first())))
    }

    /// Returns all paths to a destination, the best one (if there is one) first and the others in no order.
    #[must_use]
    pub fn paths(&self, prefix: Prefix<A>) -> &[Path] {
        self.routes.get(prefix).map(Paths::as_slice).unwrap_or_default()
    }

    /// Returns the path of a peer to a destination, by its identifier.
    #[must_use]
    pub fn path(&self, prefix: Prefix<A>, peer: PeerId, path_id: u32) -> Option<&Path> {
        let paths = self.routes.get(prefix)?;
        Some(&paths.as_slice()[paths.find(peer, path_id)?])
    }

    /// Returns all destinations with their paths, the best path first, in the order of the prefixes.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix<A>, &[Path])> {
        self.routes.iter().map(|(prefix, paths)| (prefix, paths.as_slice()))
    }

    /// Returns the destinations behind one, or all without one, with their paths in the same way.
    pub(crate) fn iter_after(&self, prefix: Option<Prefix<A>>) -> impl Iterator<Item = (Prefix<A>, &[Path])> {
        self.routes.iter_after(prefix).map(|(prefix, paths)| (prefix, paths.as_slice()))
    }

    /// Puts a path in the place of the one with the same peer and identifier.
    pub fn insert(&mut self, prefix: Prefix<A>, path: Path, sources: &Sources) -> Effect {
        let found = self.routes.find_near(self.last, prefix);
        self.last = found.unwrap_or_else(|place| place);
        let paths = match found {
            Ok(place) => self.routes.at_mut(place),
            Err(place) => {
                self.routes.insert(place, prefix, Paths::One(path));
                return Effect { held: 1, replaced: None, choice: Choice::Changed { before: None } };
            }
        };
        let Some(at) = paths.find(path.peer(), path.path_id) else {
            return Effect { held: 1, replaced: None, choice: paths.add(path, sources) };
        };
        let slot = &mut paths.as_mut_slice()[at];
        if Arc::ptr_eq(&slot.attributes, &path.attributes) {
            *slot = path;
            return Effect::NOTHING;
        }
        let (replaced, choice) = match paths {
            Paths::One(only) => {
                let before = std::mem::replace(only, path);
                (before.clone(), Choice::Changed { before: Some(before) })
            }
            Paths::Many(all) => all.replace(at, path, sources),
        };
        Effect { held: 0, replaced: Some(replaced), choice }
    }

    /// Takes a path out.
    pub fn remove(&mut self, prefix: Prefix<A>, peer: PeerId, path_id: u32, sources: &Sources) -> Effect {
        let Ok(place) = self.routes.find(prefix) else { return Effect::NOTHING };
        let paths = self.routes.at_mut(place);
        let Some(at) = paths.find(peer, path_id) else { return Effect::NOTHING };
        let (gone, choice) = match paths {
            Paths::One(only) => {
                let gone = only.clone();
                self.routes.remove(place);
                (gone.clone(), Choice::Changed { before: Some(gone) })
            }
            Paths::Many(all) => {
                let outcome = all.take(at, sources);
                if let [last] = all.as_slice() {
                    *paths = Paths::One(last.clone());
                }
                outcome
            }
        };
        Effect { held: -1, replaced: Some(gone), choice }
    }

    /// Takes out the paths of a peer that `goes` picks; returns what that did, by destination and identifier.
    pub fn remove_of(
        &mut self,
        peer: PeerId,
        goes: impl Fn(&Path) -> bool,
        sources: &Sources,
    ) -> Vec<(Prefix<A>, u32, Effect)> {
        let of_peer = |(prefix, paths): (Prefix<A>, &'_ [Path])| {
            let goes = |path: &&Path| path.peer() == peer && goes(path);
            paths.iter().filter(goes).map(|path| (prefix, path.path_id)).collect::<Vec<_>>()
        };
        let going: Vec<(Prefix<A>, u32)> = self.iter().flat_map(of_peer).collect();
        going.into_iter().map(|(prefix, id)| (prefix, id, self.remove(prefix, peer, id, sources))).collect()
    }

    /// Chooses anew for the destinations of a peer of which something else is known now.
    pub(crate) fn rank_again(&mut self, peer: PeerId, sources: &Sources) {
        for paths in self.routes.values_mut() {
            if let Paths::Many(all) = paths {
                all.rank_again(peer, sources);
            }
        }
    }

    /// Chooses anew for a destination of whose next hops something else is known now.
    pub(crate) fn choose_again(&mut self, prefix: Prefix<A>, sources: &Sources) {
        if let Ok(place) = self.routes.find(prefix)
            && let Paths::Many(all) = self.routes.at_mut(place)
        {
            all.choose_again(sources);
        }
    }

    /// Marks all paths of a peer as stale.
    pub fn mark_stale(&mut self, peer: PeerId) {
        for paths in self.routes.values_mut() {
            paths.as_mut_slice().iter_mut().filter(|p| p.peer() == peer).for_each(Path::make_stale);
        }
    }
}

/// The tables of both families.
#[derive(Debug, Default)]
pub struct Rib {
    v4: Table<Ipv4Addr>,
    v6: Table<Ipv6Addr>,
}

/// A family whose table a [`Rib`] holds, so that everything about routes is written once.
pub trait Tabled: Address {
    /// Returns the family's table.
    fn table(rib: &Rib) -> &Table<Self>;

    /// Returns the family's table to change it.
    fn table_mut(rib: &mut Rib) -> &mut Table<Self>;
}

impl Tabled for Ipv4Addr {
    fn table(rib: &Rib) -> &Table<Self> {
        &rib.v4
    }

    fn table_mut(rib: &mut Rib) -> &mut Table<Self> {
        &mut rib.v4
    }
}

impl Tabled for Ipv6Addr {
    fn table(rib: &Rib) -> &Table<Self> {
        &rib.v6
    }

    fn table_mut(rib: &mut Rib) -> &mut Table<Self> {
        &mut rib.v6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_prefix_are_as_small_as_the_memory_budget_says() {
        assert!(size_of::<Path>() <= 16);
        assert!(size_of::<Paths>() <= 16);
        assert_eq!(size_of::<Prefix<Ipv4Addr>>(), 5);
        assert_eq!(size_of::<Prefix<Ipv6Addr>>(), 17);
    }
}
