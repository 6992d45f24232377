//! What the embedder knows of the way to next hops (RFC 4271 section 9.1.2.1).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Whether and how far a next hop can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// No route leads to it: paths by way of it are not chosen and not told.
    Unreachable,
    /// It can be reached, and of paths that are as good otherwise the one with the lowest cost is chosen.
    Cost(u32),
}

/// What is known of next hops; one that is not among them can be reached at cost 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NextHops(BTreeMap<IpAddr, NextHop>);

impl FromIterator<(IpAddr, NextHop)> for NextHops {
    fn from_iter<I: IntoIterator<Item = (IpAddr, NextHop)>>(known: I) -> Self {
        Self(known.into_iter().filter(|(_, way)| *way != NextHop::Cost(0)).collect())
    }
}

impl NextHops {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what is known of an address.
    #[must_use]
    pub fn get(&self, address: IpAddr) -> NextHop {
        self.0.get(&address).copied().unwrap_or(NextHop::Cost(0))
    }

    /// Returns the addresses of which one says other things than the other.
    pub(crate) fn differences(&self, other: &Self) -> BTreeSet<IpAddr> {
        let both = self.0.keys().chain(other.0.keys()).copied();
        both.filter(|address| self.get(*address) != other.get(*address)).collect()
    }
}
