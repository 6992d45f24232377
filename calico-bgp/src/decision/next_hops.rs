//! What the embedder knows of the way to next hops (RFC 4271 section 9.1.2.1).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Whether and how far a next hop can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// No route leads to it: paths by way of it are not chosen and not told.
    Unreachable,
    /// It can be reached, and of paths that are as good otherwise the one with the lowest cost is chosen.
    Cost(u32),
}

impl NextHop {
    /// It is on a link of the machine, or the machine's own.
    pub const ON_LINK: NextHop = NextHop::Cost(0);
    /// It is behind a gateway, however far. Kernel routes say no more, so this is one cost for all, above every true one:
    /// 2^31, as BIRD has it for routes whose protocol has no metric of its own.
    pub const BEHIND_GATEWAY: NextHop = NextHop::Cost(1 << 31);
}

/// Says of any address whether and how far the routes of the machine lead to it that do not come from the speaker.
#[derive(Clone)]
pub struct Reachability(Arc<dyn Fn(IpAddr) -> NextHop + Send + Sync>);

impl Reachability {
    /// Makes one of a function, which must give the same answer each time.
    #[must_use]
    pub fn new(of: impl Fn(IpAddr) -> NextHop + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    /// Returns what is so of an address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> NextHop {
        (self.0)(address)
    }
}

impl From<NextHops> for Reachability {
    fn from(known: NextHops) -> Self {
        Self::new(move |address| known.get(address))
    }
}

impl fmt::Debug for Reachability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reachability")
    }
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

    /// Reports whether all can be reached.
    pub(crate) fn all_reached(&self) -> bool {
        !self.0.values().any(|way| *way == NextHop::Unreachable)
    }

    /// Returns what is known of an address.
    #[must_use]
    pub fn get(&self, address: IpAddr) -> NextHop {
        self.0.get(&address).copied().unwrap_or(NextHop::Cost(0))
    }

    pub(crate) fn set(&mut self, address: IpAddr, way: NextHop) {
        match way {
            NextHop::Cost(0) => self.0.remove(&address),
            NextHop::Unreachable | NextHop::Cost(_) => self.0.insert(address, way),
        };
    }

    /// Forgets all but these.
    pub(crate) fn keep(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.0.retain(|address, _| addresses.contains(address));
    }

    /// Returns the addresses of which one says other things than the other.
    pub(crate) fn differences(&self, other: &Self) -> BTreeSet<IpAddr> {
        let both = self.0.keys().chain(other.0.keys()).copied();
        both.filter(|address| self.get(*address) != other.get(*address)).collect()
    }
}
