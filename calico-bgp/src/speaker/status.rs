//! What a speaker tells of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use calico_model::{AsNumber, Cidr, Family, LearnedRoute, LearnedRoutes, RouterId};

use super::Speaker;
use super::config::METRIC_BASE;
use super::export::GroupKey;
use super::group::Counted;
use super::peer::Peer;

use crate::bfd::Change;
use crate::decision::{self, Reason};
use crate::family::PerFamily;
use crate::rib::{Choice, Effect, Path, PeerId, Tabled};
use crate::session::{Negotiated, Peering, State};
use crate::wire::{self, Attributes};

/// What was counted for one peer since the speaker started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// UPDATE messages received.
    pub updates_in: u64,
    /// UPDATE messages sent.
    pub updates_out: u64,
    /// Faults in UPDATE messages that were survived (RFC 7606).
    pub faults_in: u64,
    /// UPDATE messages with such a fault, or such AS paths (RFC 9774), that their routes were treated as withdrawn.
    pub treated_as_withdrawn_in: u64,
    /// Prefixes that those announced, and that were treated as withdrawn.
    pub prefixes_treated_as_withdrawn_in: u64,
    /// UPDATE messages whose routes were not taken because of where they have been or where they lead.
    pub refused_in: u64,
    /// Those of them with our own AS in the path.
    pub as_loops_in: u64,
    /// Those of them that we brought into the AS.
    pub originator_loops_in: u64,
    /// Those of them that were reflected through our own cluster.
    pub cluster_loops_in: u64,
    /// Prefixes that were announced and not taken, for another reason than a loop, a fault or a set in the AS path.
    pub rejected_in: u64,
    /// How often the session was established.
    pub established: u64,
}

/// One peer as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Its address.
    pub address: IpAddr,
    /// What it is called.
    pub name: String,
    /// Its AS number.
    pub remote_as: AsNumber,
    /// Whether it is in our AS.
    pub peering: Peering,
    /// The session's state.
    pub state: State,
    /// Since when it is in this state.
    pub since: Instant,
    /// Since when the session is established, or is not, however often it was tried meanwhile.
    pub turned: Instant,
    /// Its identifier, while the session is established.
    pub remote_id: Option<RouterId>,
    /// What was agreed on, while the session is established.
    pub negotiated: Option<std::sync::Arc<Negotiated>>,
    /// Why the last session or connection ended, in words.
    pub last_error: Option<String>,
    /// The last NOTIFICATION we sent, in words.
    pub last_sent: Option<String>,
    /// The last NOTIFICATION that came, in words.
    pub last_received: Option<String>,
    /// Why routes of it were not taken, the last time, in words.
    pub last_refusal: Option<String>,
    /// The last fault in an UPDATE that was survived, in words.
    pub last_fault: Option<String>,
    /// What BFD said last of the path to it; `None` while it is not watched, or was not heard yet.
    pub path: Option<Change>,
    /// The prefixes held from it.
    pub prefixes_in: PerFamily<u32>,
    /// The prefixes told to it.
    pub prefixes_out: PerFamily<u32>,
    /// Until when its routes are kept while it restarts, if it does.
    pub retained_until: Option<Instant>,
    /// How many octets are held of messages of which the rest has not come: twice the longest message at most.
    pub octets_begun: usize,
    /// What was counted.
    pub counters: Counters,
}

/// One path as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteStatus {
    /// The destination.
    pub prefix: Cidr,
    /// The peer that told it; `None` for a route that begins here.
    pub peer: Option<IpAddr>,
    /// What it is.
    pub attributes: std::sync::Arc<Attributes>,
    /// Why it is not the best one; `None` for the best, if there is one.
    pub lost_to: Option<Reason>,
    /// For the best of several: the last step in which another was worse, which left this one alone.
    pub won_by: Option<Reason>,
}

impl RouteStatus {
    /// Says in words why it is not the best one, or why it is where it is the best of several.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        match self.lost_to {
            Some(lost) => Some(lost.to_string()),
            None => self.won_by.map(|won| won.of_the_best().to_owned()),
        }
    }
}

impl Speaker {
    /// Returns every peer, by address.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        let world = self.tables.world();
        let told: BTreeMap<&GroupKey, PerFamily<Counted>> = self
            .groups
            .iter()
            .map(|(key, group)| (key, PerFamily::new(|family| group.told(family, &world))))
            .collect();
        let status = |peer: &Peer| {
            let told = peer.up.as_ref().and_then(|up| told.get(&up.group));
            status_of(peer, told)
        };
        self.by_address.values().filter_map(|id| self.peers.get(id)).map(status).collect()
    }

    /// Returns every path in the tables with the reason why it is or is not the best one.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteStatus> {
        let mut routes = self.routes_of::<std::net::Ipv4Addr>();
        routes.extend(self.routes_of::<std::net::Ipv6Addr>());
        routes
    }

    /// Returns every path to one destination with the reason why it is or is not the best one, the best one first.
    #[must_use]
    pub fn routes_to(&self, prefix: Cidr) -> Vec<RouteStatus> {
        let v4 = wire::Prefix::<std::net::Ipv4Addr>::of(prefix);
        let v6 = wire::Prefix::<std::net::Ipv6Addr>::of(prefix);
        let v4 = v4.map(|prefix| self.explained_at(prefix));
        let v6 = v6.map(|prefix| self.explained_at(prefix));
        v4.into_iter().chain(v6).flatten().collect()
    }

    /// Returns the next hops of the destinations to which no path is chosen, because none of them can be reached; none while
    /// a recovering speaker has not heard all that may lead to them.
    /// The same value as long as nothing of that changes: the tables are looked at again only where a path came or went that has
    /// to do with it.
    #[must_use]
    pub fn unreached(&self) -> Arc<BTreeSet<IpAddr>> {
        if self.deferral.is_some() {
            return Arc::default();
        }
        Arc::clone(self.unreached.get_or_init(|| {
            let mut unreached = BTreeSet::new();
            if !self.tables.sources.next_hops.all_reached() {
                self.add_unreached::<std::net::Ipv4Addr>(&mut unreached);
                self.add_unreached::<std::net::Ipv6Addr>(&mut unreached);
            }
            Arc::new(unreached)
        }))
    }

    /// Forgets which next hops are [unreached](Self::unreached) where a path that came or went may make a difference: one to a
    /// destination to which none was chosen before, or is now.
    pub(super) fn forget_unreached<A: Tabled>(&mut self, prefix: wire::Prefix<A>, effect: &Effect) {
        if self.unreached.get().is_none() || !self.asked.has_lost() {
            return;
        }
        let before = if let Choice::Changed { before } = &effect.choice { before.as_ref() } else { None };
        let after = A::table(&self.tables.rib).best(prefix);
        if before.into_iter().chain(after).any(|best| !self.tables.sources.reaches(best)) {
            self.unreached.take();
        }
    }

    fn add_unreached<A: Tabled>(&self, unreached: &mut BTreeSet<IpAddr>) {
        let sources = &self.tables.sources;
        for (_, paths) in A::table(&self.tables.rib).iter() {
            if paths.first().is_some_and(|best| !sources.reaches(best)) {
                unreached.extend(paths.iter().map(|path| path.attributes.next_hop()));
            }
        }
    }

    fn routes_of<A: Tabled>(&self) -> Vec<RouteStatus> {
        let table = A::table(&self.tables.rib);
        table.iter().flat_map(|(prefix, paths)| self.explained(prefix, paths)).collect()
    }

    fn explained_at<A: Tabled>(&self, prefix: wire::Prefix<A>) -> Vec<RouteStatus> {
        self.explained(prefix, A::table(&self.tables.rib).paths(prefix))
    }

    fn explained<A: Tabled>(&self, prefix: wire::Prefix<A>, paths: &[Path]) -> Vec<RouteStatus> {
        let reasons = decision::explain(paths, &self.tables.sources);
        let last = reasons.iter().flatten().max().copied();
        let status = |(path, lost_to): (&Path, Option<Reason>)| RouteStatus {
            prefix: prefix.cidr(),
            peer: self.peers.get(&path.peer()).map(|peer| peer.config.address),
            attributes: path.attributes.attributes().into(),
            lost_to,
            won_by: last.filter(|_| lost_to.is_none()),
        };
        paths.iter().zip(reasons).map(status).collect()
    }

    /// Returns the best routes learned from peers, or `None` while a recovering speaker has not heard enough to
    /// choose: the routes in the kernel are then better than anything known here.
    #[must_use]
    pub fn learned(&self) -> Option<LearnedRoutes> {
        if self.deferral.is_some() {
            return None;
        }
        let mut learned = self.learned_of::<std::net::Ipv4Addr>();
        learned.append(&mut self.learned_of::<std::net::Ipv6Addr>());
        Some(learned)
    }

    fn learned_of<A: Tabled>(&self) -> LearnedRoutes {
        let chosen = |(prefix, paths): (wire::Prefix<A>, &[Path])| {
            let best = paths.first().filter(|best| best.peer() != PeerId::LOCAL)?;
            if !self.tables.sources.reaches(best) {
                return None;
            }
            let next_hops = decision::equally_good(paths, &self.tables.sources)
                .into_iter()
                .map(|at| paths[at].attributes.next_hop())
                .collect();
            let priority = best.attributes.local_pref().and_then(|said| METRIC_BASE.checked_sub(said));
            Some((prefix.cidr(), LearnedRoute { next_hops, priority }))
        };
        A::table(&self.tables.rib).iter().filter_map(chosen).collect()
    }
}

fn status_of(peer: &Peer, told: Option<&PerFamily<Counted>>) -> PeerStatus {
    PeerStatus {
        address: peer.config.address,
        name: peer.config.name.clone(),
        remote_as: peer.config.remote_as,
        peering: peer.config.peering(),
        state: peer.state,
        since: peer.since,
        turned: peer.turned,
        remote_id: peer.up.as_ref().map(|up| up.negotiated.remote_id),
        negotiated: peer.up.as_ref().map(|up| up.negotiated.clone()),
        last_error: peer.last_error.as_ref().map(ToString::to_string),
        last_sent: peer.last_sent.as_ref().map(|n| n.unwrapped().to_string()),
        last_received: peer.last_received.as_ref().map(|n| n.unwrapped().to_string()),
        last_refusal: peer.last_refusal.as_ref().map(ToString::to_string),
        last_fault: peer.last_fault.clone(),
        path: peer.path,
        prefixes_in: peer.held,
        prefixes_out: PerFamily::new(|family| {
            let told = told.map_or(0, |told| told[family].to(peer.id));
            u32::try_from(told).unwrap_or(u32::MAX)
        }),
        retained_until: peer
            .retained
            .until()
            .or_else(|| Family::ALL.into_iter().filter_map(|f| peer.up.as_ref()?.refresh[f].until).max())
            .or_else(|| Family::ALL.into_iter().filter_map(|family| peer.long_lived[family]).max()),
        octets_begun: peer.lines.values().map(|line| line.received.capacity()).sum(),
        counters: peer.counters,
    }
}
