//! The tables of routes: every accepted path once (Adj-RIB-In and Loc-RIB in one), prefixes by family, attributes
//! shared. What was told to whom (Adj-RIB-Out) is kept by the update groups in [`crate::speaker`].

pub mod intern;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::decision::{self, Sources};
use crate::wire::{Address, Attributes, Prefix};

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

/// One path to one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// What it is.
    pub attributes: Arc<Attributes>,
    /// Who told it.
    pub peer: PeerId,
    /// Which of the peer's paths for the prefix it is (RFC 7911); 0 without identifiers.
    pub path_id: u32,
    /// Whether the peer still stands by it.
    pub freshness: Freshness,
}

/// The paths of one destination, the best one first. Most destinations have one, which then needs no list.
#[derive(Debug)]
enum Paths {
    One(Path),
    #[expect(clippy::box_collection, reason = "keeps the destinations that have one path at 24 octets")]
    Many(Box<Vec<Path>>),
}

impl Paths {
    fn as_slice(&self) -> &[Path] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }
}

/// What one change did to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// How the number of paths of the peer changed: 1, 0 or -1.
    pub held: i32,
    /// Whether the best path, or the set of equally good ones, may be another.
    pub choice: Choice,
}

/// Whether the choice for a destination may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It is what it was.
    Same,
    /// It may be another.
    Changed,
}

/// The routes of one family.
#[derive(Debug)]
pub struct Table<A> {
    routes: BTreeMap<Prefix<A>, Paths>,
}

impl<A> Default for Table<A> {
    fn default() -> Self {
        Self { routes: BTreeMap::new() }
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
        self.routes.is_empty()
    }

    /// Returns the best path to a destination.
    #[must_use]
    pub fn best(&self, prefix: Prefix<A>) -> Option<&Path> {
        self.paths(prefix).first()
    }

    /// Returns all paths to a destination, the best one first and the others in no order.
    #[must_use]
    pub fn paths(&self, prefix: Prefix<A>) -> &[Path] {
        self.routes.get(&prefix).map(Paths::as_slice).unwrap_or_default()
    }

    /// Returns all destinations with their paths, the best path first, in the order of the prefixes.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix<A>, &[Path])> {
        self.routes.iter().map(|(prefix, paths)| (*prefix, paths.as_slice()))
    }

    /// Puts a path in the place of the one with the same peer and identifier.
    pub fn insert(&mut self, prefix: Prefix<A>, path: Path, sources: &Sources) -> Effect {
        let Some(paths) = self.routes.get_mut(&prefix) else {
            self.routes.insert(prefix, Paths::One(path));
            return Effect { held: 1, choice: Choice::Changed };
        };
        let at = paths.as_slice().iter().position(|p| p.peer == path.peer && p.path_id == path.path_id);
        match (at, paths) {
            (Some(at), paths) => {
                let slot = match paths {
                    Paths::One(only) => only,
                    Paths::Many(all) => &mut all[at],
                };
                let same = Arc::ptr_eq(&slot.attributes, &path.attributes);
                *slot = path;
                if same {
                    return Effect { held: 0, choice: Choice::Same };
                }
                self.choose(prefix, sources);
                Effect { held: 0, choice: Choice::Changed }
            }
            (None, paths) => {
                match paths {
                    Paths::One(only) => *paths = Paths::Many(Box::new(vec![only.clone(), path])),
                    Paths::Many(all) => all.push(path),
                }
                self.choose(prefix, sources);
                Effect { held: 1, choice: Choice::Changed }
            }
        }
    }

    /// Takes a path out.
    pub fn remove(&mut self, prefix: Prefix<A>, peer: PeerId, path_id: u32, sources: &Sources) -> Effect {
        let gone = self.retain_at(prefix, |path| path.peer != peer || path.path_id != path_id, sources);
        Effect { held: -(gone as i32), choice: if gone > 0 { Choice::Changed } else { Choice::Same } }
    }

    /// Takes out all paths that `goes` picks; returns the destinations that had one.
    pub fn remove_where(&mut self, goes: impl Fn(&Path) -> bool, sources: &Sources) -> Vec<Prefix<A>> {
        let touched: Vec<Prefix<A>> =
            self.iter().filter(|(_, paths)| paths.iter().any(&goes)).map(|(prefix, _)| prefix).collect();
        for prefix in &touched {
            self.retain_at(*prefix, |path| !goes(path), sources);
        }
        touched
    }

    /// Marks all paths of a peer as stale.
    pub fn mark_stale(&mut self, peer: PeerId) {
        for paths in self.routes.values_mut() {
            let slice = match paths {
                Paths::One(path) => std::slice::from_mut(path),
                Paths::Many(paths) => paths.as_mut_slice(),
            };
            slice.iter_mut().filter(|p| p.peer == peer).for_each(|p| p.freshness = Freshness::Stale);
        }
    }

    fn retain_at(&mut self, prefix: Prefix<A>, stays: impl Fn(&Path) -> bool, sources: &Sources) -> usize {
        let Some(paths) = self.routes.get_mut(&prefix) else { return 0 };
        match paths {
            Paths::One(path) if stays(path) => 0,
            Paths::One(_) => {
                self.routes.remove(&prefix);
                1
            }
            Paths::Many(all) => {
                let before = all.len();
                all.retain(stays);
                let after = all.len();
                match (after, all.pop()) {
                    (1, Some(last)) => *paths = Paths::One(last),
                    (_, Some(last)) => all.push(last),
                    (_, None) => {
                        self.routes.remove(&prefix);
                    }
                }
                if after > 1 && after < before {
                    self.choose(prefix, sources);
                }
                before - after
            }
        }
    }

    fn choose(&mut self, prefix: Prefix<A>, sources: &Sources) {
        if let Some(Paths::Many(paths)) = self.routes.get_mut(&prefix)
            && let Some(best) = decision::best(paths, sources)
        {
            paths.swap(0, best);
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
        assert!(size_of::<Path>() <= 24);
        assert!(size_of::<Paths>() <= 24);
        assert_eq!(size_of::<Prefix<Ipv4Addr>>(), 5);
        assert_eq!(size_of::<Prefix<Ipv6Addr>>(), 17);
    }
}
