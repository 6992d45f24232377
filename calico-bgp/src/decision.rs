//! The choice between paths (RFC 4271 section 9.1.2, RFC 4456 section 9), whatever the order in which they arrived.
//!
//! The steps are taken over the whole set of paths: each removes those that are worse in one respect than another path
//! that is still there. MULTI_EXIT_DISC is compared inside one neighbouring AS only, so it is no total order between
//! paths; removing by steps, instead of comparing pairs in some order, makes the outcome a function of the set.
//!
//! Whether and how far a next hop can be reached only the routes of the machine tell: whoever embeds the speaker says so by
//! [`Speaker::set_reachability`](crate::Speaker::set_reachability). A path whose next hop cannot be reached is no candidate (RFC
//! 4271 section 9.1.2.1), and of what is left the nearest is chosen (9.1.2.2 e). A next hop of which nothing was said counts
//! as reachable, at cost 0; paths that begin here are not judged.
//!
//! Paths that get as far as [`Reason::RouterId`] are equally good: packets may be spread over them.

mod next_hops;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use calico_model::RouterId;

use crate::rib::{Path, PeerId};
use crate::session::Peering;
pub use next_hops::{NextHop, NextHops, Reachability};

/// The LOCAL_PREF of a path that carries none.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// What the decision must know of the speaker that told a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Whether it is in our AS; routes that begin here count as internal.
    pub peering: Peering,
    /// Its identifier.
    pub router_id: RouterId,
    /// Its address.
    pub address: IpAddr,
}

/// The speakers that paths were told by, by number, and what is known of next hops: each comparison looks here.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    speakers: Vec<Option<Source>>,
    /// What is known of next hops.
    pub next_hops: NextHops,
}

impl Sources {
    /// Sets what is known of a speaker.
    pub fn set(&mut self, peer: PeerId, source: Source) {
        let at = peer.0 as usize;
        if self.speakers.len() <= at {
            self.speakers.resize(at + 1, None);
        }
        self.speakers[at] = Some(source);
    }

    /// Forgets a speaker.
    pub fn remove(&mut self, peer: PeerId) {
        if let Some(source) = self.speakers.get_mut(peer.0 as usize) {
            *source = None;
        }
    }

    /// Returns what is known of a speaker.
    #[must_use]
    pub fn get(&self, peer: PeerId) -> Option<&Source> {
        self.speakers.get(peer.0 as usize)?.as_ref()
    }

    /// Reports whether a path may be chosen and told: its next hop can be reached, or it begins here.
    #[must_use]
    pub fn reaches(&self, path: &Path) -> bool {
        self.next_hops.is_empty() || self.way_to(path) != NextHop::Unreachable
    }

    fn way_to(&self, path: &Path) -> NextHop {
        if path.peer() == PeerId::LOCAL {
            return NextHop::Cost(0);
        }
        self.next_hops.get(path.attributes.next_hop())
    }
}

/// Why a path is not the best one: its next hop cannot be reached, or the first step in which another was better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// Its next hop cannot be reached: it is no candidate, even where there is no other.
    Unreachable,
    /// Another one begins here.
    NotLocal,
    /// Whoever told it has been away for longer than its restart time (RFC 9494 section 4.3).
    LongLivedStale,
    /// Another one has a higher LOCAL_PREF.
    LocalPref,
    /// Another one has a shorter AS path.
    AsPathLength,
    /// Another one has a better origin.
    Origin,
    /// Another one from the same neighbouring AS has a lower MULTI_EXIT_DISC.
    Med,
    /// Another one comes from another AS directly.
    Internal,
    /// Another one's next hop is nearer.
    InteriorCost,
    /// Another one comes from a speaker with a lower identifier.
    RouterId,
    /// Another one was reflected fewer times.
    ClusterList,
    /// Another one comes from a speaker with a lower address.
    PeerAddress,
    /// Another one of the same speaker has a lower path identifier.
    PathId,
}

impl Reason {
    const STEPS: [Reason; 13] = [
        Self::Unreachable,
        Self::NotLocal,
        Self::LongLivedStale,
        Self::LocalPref,
        Self::AsPathLength,
        Self::Origin,
        Self::Med,
        Self::Internal,
        Self::InteriorCost,
        Self::RouterId,
        Self::ClusterList,
        Self::PeerAddress,
        Self::PathId,
    ];

    /// Says in words how the best path is better than those that lost last, where this is their reason.
    #[must_use]
    pub fn of_the_best(self) -> &'static str {
        match self {
            Self::Unreachable => "it is the only one whose next hop can be reached",
            Self::NotLocal => "it begins on this node",
            Self::LongLivedStale => "the peer that told it is not away",
            Self::LocalPref => "it has a higher LOCAL_PREF",
            Self::AsPathLength => "it has a shorter AS path",
            Self::Origin => "it has a better origin",
            Self::Med => "it has a lower MED",
            Self::Internal => "it was learned from another AS directly",
            Self::InteriorCost => "it has a nearer next hop",
            Self::RouterId => "it comes from a lower router id",
            Self::ClusterList => "it was reflected fewer times",
            Self::PeerAddress => "it comes from a lower peer address",
            Self::PathId => "it has a lower path identifier",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "its next hop cannot be reached",
            Self::NotLocal => "a route that begins on this node is preferred",
            Self::LongLivedStale => "the peer has been away for longer than its restart time",
            Self::LocalPref => "another path has a higher LOCAL_PREF",
            Self::AsPathLength => "another path has a shorter AS path",
            Self::Origin => "another path has a better origin",
            Self::Med => "another path from the same neighbouring AS has a lower MED",
            Self::Internal => "another path was learned from another AS directly",
            Self::InteriorCost => "another path has a nearer next hop",
            Self::RouterId => "another path comes from a lower router id",
            Self::ClusterList => "another path was reflected fewer times",
            Self::PeerAddress => "another path comes from a lower peer address",
            Self::PathId => "another path of the same peer has a lower path identifier",
        })
    }
}

/// Returns the index of the best path, or `None` where no next hop can be reached.
#[must_use]
pub fn best(paths: &[Path], sources: &Sources) -> Option<usize> {
    if let [] | [_] = paths {
        return paths.first().filter(|only| sources.reaches(only)).map(|_| 0);
    }
    // The steps before MULTI_EXIT_DISC are a total order: one pass settles most choices without a list.
    let mut least = burden_before_med(&paths[0], sources);
    let mut first = 0;
    let mut rivals = 0;
    for (at, path) in paths.iter().enumerate().skip(1) {
        let burden = burden_before_med(path, sources);
        if burden < least {
            (least, first, rivals) = (burden, at, 0);
        } else if burden == least {
            rivals += 1;
        }
    }
    if !sources.reaches(&paths[first]) {
        return None;
    }
    if rivals == 0 {
        return Some(first);
    }
    let mut alive: Vec<usize> =
        (first..paths.len()).filter(|at| burden_before_med(&paths[*at], sources) == least).collect();
    for step in Reason::STEPS.into_iter().filter(|step| *step >= Reason::Med) {
        if alive.len() == 1 {
            break;
        }
        take_step(step, paths, sources, &mut alive, |_| {});
    }
    alive.first().copied()
}

/// What the steps before [`Reason::Med`] compare, in their order, in one number of which the least is best. These steps
/// look at one path at a time: a path with a greater number than another's neither wins nor changes which one does.
///
/// ```text
/// [1 bit: unreachable] [1: not local] [1: long-lived stale] [32: lower LOCAL_PREF] [16: AS path length] [2: origin]
/// ```
pub(crate) fn burden_before_med(path: &Path, sources: &Sources) -> u64 {
    let attributes = &path.attributes;
    let place = u64::from(!sources.reaches(path)) << 1 | u64::from(path.peer() != PeerId::LOCAL);
    let place = place << 1 | u64::from(attributes.is_long_lived_stale());
    let place = place << 32 | u64::from(u32::MAX - attributes.preference);
    (place << 16 | u64::from(attributes.hops)) << 2 | attributes.origin as u64
}

/// Returns for each path why it is not the best one; `None` for the best, if there is one.
#[must_use]
pub fn explain(paths: &[Path], sources: &Sources) -> Vec<Option<Reason>> {
    let mut reasons = vec![None; paths.len()];
    let mut alive: Vec<usize> = (0..paths.len()).collect();
    for step in Reason::STEPS {
        take_step(step, paths, sources, &mut alive, |lost| reasons[lost] = Some(step));
    }
    alive.iter().skip(1).for_each(|lost| reasons[*lost] = Some(Reason::PathId));
    reasons
}

/// Returns the paths that packets may be spread over: the best one and those that lost only in the steps from
/// [`Reason::RouterId`] on.
#[must_use]
pub fn equally_good(paths: &[Path], sources: &Sources) -> Vec<usize> {
    if let [only] = paths {
        return if sources.reaches(only) { vec![0] } else { Vec::new() };
    }
    let mut alive: Vec<usize> = (0..paths.len()).collect();
    for step in Reason::STEPS.into_iter().take_while(|step| *step < Reason::RouterId) {
        take_step(step, paths, sources, &mut alive, |_| {});
    }
    alive
}

fn take_step(
    step: Reason,
    paths: &[Path],
    sources: &Sources,
    alive: &mut Vec<usize>,
    mut lost: impl FnMut(usize),
) {
    let mut keep = |alive: &mut Vec<usize>, stays: &dyn Fn(usize) -> bool| {
        alive.retain(|at| {
            let stays = stays(*at);
            if !stays {
                lost(*at);
            }
            stays
        });
    };
    if matches!(step, Reason::Unreachable | Reason::InteriorCost) && sources.next_hops.is_empty() {
        return;
    }
    if step == Reason::Med {
        let first = alive.first().map(|at| paths[*at].attributes.med);
        if alive.iter().all(|at| Some(paths[*at].attributes.med) == first) {
            return;
        }
        let mut lowest = BTreeMap::new();
        for at in &*alive {
            let attributes = &paths[*at].attributes;
            let held = lowest.entry(attributes.neighbor).or_insert(attributes.med);
            *held = attributes.med.min(*held);
        }
        keep(alive, &|at| {
            let attributes = &paths[at].attributes;
            lowest.get(&attributes.neighbor) == Some(&attributes.med)
        });
    } else if step == Reason::Unreachable {
        keep(alive, &|at| sources.reaches(&paths[at]));
    } else if let Some(least) = alive.iter().map(|at| burden(step, &paths[*at], sources)).min() {
        keep(alive, &|at| burden(step, &paths[at], sources) == least);
    }
}

/// What one step compares, as a number of which the lowest wins.
fn burden(step: Reason, path: &Path, sources: &Sources) -> u128 {
    let attributes = &path.attributes;
    let source = || sources.get(path.peer());
    match step {
        Reason::Unreachable => u128::from(!sources.reaches(path)),
        Reason::NotLocal => u128::from(path.peer() != PeerId::LOCAL),
        Reason::LongLivedStale => u128::from(attributes.is_long_lived_stale()),
        Reason::LocalPref => u128::from(u32::MAX - attributes.preference),
        Reason::AsPathLength => u128::from(attributes.hops),
        Reason::Origin => attributes.origin as u128,
        Reason::Med => u128::from(attributes.med),
        Reason::Internal => u128::from(source().is_none_or(|s| s.peering == Peering::Internal)),
        Reason::InteriorCost => match sources.way_to(path) {
            NextHop::Cost(cost) => u128::from(cost),
            NextHop::Unreachable => u128::MAX,
        },
        Reason::RouterId => {
            let id = attributes.originator.or(source().map(|s| s.router_id.addr()));
            u128::from(id.map_or(u32::MAX, u32::from))
        }
        Reason::ClusterList => u128::from(attributes.clusters),
        Reason::PeerAddress => match source().map(|s| s.address) {
            Some(IpAddr::V4(v4)) => u128::from(u32::from(v4)),
            Some(IpAddr::V6(v6)) => u128::from(v6),
            None => u128::MAX,
        },
        Reason::PathId => u128::from(path.path_id),
    }
}

#[cfg(test)]
mod tests;
