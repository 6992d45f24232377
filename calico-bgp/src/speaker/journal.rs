//! What has changed in the tables since the peers were last told.

use std::net::{Ipv4Addr, Ipv6Addr};

use calico_model::Cidr;

use crate::rib::{Choice, Effect, Path, PeerId, Rib, Tabled};
use crate::wire::Prefix;

/// Changes of one family, with what was there before them.
#[derive(Debug)]
pub(crate) struct Changes<A> {
    /// Destinations whose best path may be another, and the best one until then.
    pub(super) best: Vec<(Prefix<A>, Option<Path>)>,
    /// Single paths, by the peer and its identifier, kept only where some peer is told every path (RFC 7911).
    pub(super) each: Vec<PathChange<A>>,
}

/// A change of one path: which destination, which peer's, under which identifier, and what it was until then.
#[derive(Debug)]
pub(crate) struct PathChange<A> {
    pub(super) prefix: Prefix<A>,
    pub(super) peer: PeerId,
    pub(super) path_id: u32,
    pub(super) before: Option<Path>,
}

impl<A> Default for Changes<A> {
    fn default() -> Self {
        Self { best: Vec::new(), each: Vec::new() }
    }
}

impl<A: Tabled> Changes<A> {
    /// Takes down what one change did.
    pub(super) fn note(
        &mut self,
        prefix: Prefix<A>,
        (peer, path_id): (PeerId, u32),
        effect: Effect,
        detail: Detail,
    ) {
        if detail == Detail::EachPath && effect.choice != Choice::Same {
            self.each.push(PathChange { prefix, peer, path_id, before: effect.replaced });
        }
        if let Choice::Changed { before } = effect.choice {
            self.best.push((prefix, before));
        }
    }

    /// Sorts, and keeps what was there before the first of several changes.
    fn settle(&mut self) {
        self.best.sort_by_key(|(prefix, _)| *prefix);
        self.best.dedup_by_key(|(prefix, _)| *prefix);
        let key = |change: &PathChange<A>| (change.prefix, change.peer, change.path_id);
        self.each.sort_by_key(key);
        self.each.dedup_by_key(|change| key(change));
    }
}

/// How much must be taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// The best paths.
    BestPath,
    /// Every path.
    EachPath,
}

/// The changes of both families.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(super) v4: Changes<Ipv4Addr>,
    pub(super) v6: Changes<Ipv6Addr>,
}

impl Journal {
    /// Returns a journal in which all of some destinations may have changed, though the paths are the same.
    pub(super) fn of(rib: &Rib, touched: impl Fn(Cidr, &[Path]) -> bool + Copy) -> Self {
        Self { v4: all_of(rib, touched), v6: all_of(rib, touched) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.v4.best.is_empty()
            && self.v6.best.is_empty()
            && self.v4.each.is_empty()
            && self.v6.each.is_empty()
    }

    /// Hands out what was taken down, in order, and begins anew.
    pub(super) fn take(&mut self) -> Self {
        let mut taken = std::mem::take(self);
        taken.v4.settle();
        taken.v6.settle();
        taken
    }
}

fn all_of<A: Tabled>(rib: &Rib, touched: impl Fn(Cidr, &[Path]) -> bool) -> Changes<A> {
    let touched: Vec<(Prefix<A>, &[Path])> =
        A::table(rib).iter().filter(|(prefix, paths)| touched(prefix.cidr(), paths)).collect();
    let each = |(prefix, paths): (Prefix<A>, &'_ [Path])| {
        let of = |path: &Path| PathChange {
            prefix,
            peer: path.peer(),
            path_id: path.path_id,
            before: Some(path.clone()),
        };
        paths.iter().map(of).collect::<Vec<_>>()
    };
    Changes {
        best: touched.iter().map(|(prefix, paths)| (*prefix, paths.first().cloned())).collect(),
        each: touched.into_iter().flat_map(each).collect(),
    }
}
