//! What a routing protocol tells the route programmer: the one noun that `calico-bgp` and `calico-route` share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::net::Cidr;

/// A route that was learned from a peer and chosen as best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedRoute {
    /// The gateways, all equally good; more than one makes a multipath route. Never empty.
    pub next_hops: BTreeSet<IpAddr>,
    /// The kernel metric it asks for (`2147483647 - LOCAL_PREF` between Calico nodes), when it asks for one.
    pub priority: Option<u32>,
}

/// All learned best routes at one instant, by destination.
pub type LearnedRoutes = BTreeMap<Cidr, LearnedRoute>;
