//! Path identifiers as other speakers see them (RFC 7911): one number for each path of each peer, whatever numbers the
//! peers use among themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::{Path, PeerId, Rib, Tabled};

/// The identifiers given out. A peer that tells one path for each destination needs none: its paths go by its number.
#[derive(Debug, Default)]
pub struct PathNames {
    given: BTreeMap<(PeerId, u32), u32>,
    taken: BTreeSet<u32>,
    next: u32,
    sweep_at: usize,
}

/// Identifiers from here on are given out; below are the numbers of peers.
const FIRST: u32 = 1 << 31;
/// Sweeping is not worth it below this many.
const SMALLEST_SWEEP: usize = 4096;

impl PathNames {
    /// Gives the path an identifier.
    pub fn give(&mut self, peer: PeerId, path_id: u32) {
        if path_id != 0 && !self.given.contains_key(&(peer, path_id)) {
            let mut free = FIRST | self.next;
            while !self.taken.insert(free) {
                free = FIRST | free.wrapping_add(1);
            }
            self.next = free.wrapping_add(1);
            self.given.insert((peer, path_id), free);
        }
    }

    /// Returns a path's identifier.
    #[must_use]
    pub fn of(&self, path: &Path) -> u32 {
        let numbered = path.peer().0 + 1;
        if path.path_id == 0 {
            numbered
        } else {
            self.given.get(&(path.peer(), path.path_id)).copied().unwrap_or(numbered)
        }
    }

    /// Forgets identifiers of paths that are gone, once there may be many: a peer can use up as many as it likes.
    pub fn sweep(&mut self, rib: &Rib) {
        if self.given.len() < self.sweep_at.max(SMALLEST_SWEEP) {
            return;
        }
        let mut live = BTreeSet::new();
        collect::<std::net::Ipv4Addr>(rib, &mut live);
        collect::<std::net::Ipv6Addr>(rib, &mut live);
        self.given.retain(|key, _| live.contains(key));
        self.taken = self.given.values().copied().collect();
        self.sweep_at = self.given.len() * 2;
    }
}

fn collect<A: Tabled>(rib: &Rib, live: &mut BTreeSet<(PeerId, u32)>) {
    let paths = A::table(rib).iter().flat_map(|(_, paths)| paths);
    live.extend(paths.filter(|path| path.path_id != 0).map(|path| (path.peer(), path.path_id)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rib::intern::Interner;
    use crate::wire::Attributes;

    #[test]
    fn every_path_of_every_peer_has_an_identifier_of_its_own_and_used_up_ones_are_forgotten() {
        let attributes =
            Interner::default().intern(&Attributes::originated("10.0.0.1".parse().unwrap())).unwrap();
        let path = |peer, id| Path::new(attributes.clone(), PeerId(peer), id);
        let mut names = PathNames::default();
        let paths: Vec<Path> =
            (0..3).flat_map(|peer| (0..5).map(move |id| (peer, id))).map(|(p, id)| path(p, id)).collect();
        paths.iter().for_each(|path| names.give(path.peer(), path.path_id));
        let distinct: BTreeSet<u32> = paths.iter().map(|path| names.of(path)).collect();
        assert_eq!(distinct.len(), paths.len());
        for id in 1..100_000 {
            names.give(PeerId(9), id);
            names.sweep(&Rib::default());
        }
        assert!(names.given.len() <= SMALLEST_SWEEP);
    }
}
