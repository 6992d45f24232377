//! What monitoring stations are told (RFC 7854), each at its own pace.
//!
//! A feed keeps which routes its station does not know yet, not what to say of them: a slow station costs memory for the
//! number of routes, not for how often they change, and hears how they stand when it gets to them (section 3.3 of the
//! RFC allows that). Routes that came and went meanwhile count too, and what is said of sessions is kept as it was, both up
//! to a bound; a station that is farther behind is cut off and begins anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use calico_model::Family;

use super::import::Noted;
use super::peer::{Peer, Up};
use super::{Action, Speaker};
use crate::bmp::{self, PeerDown, PeerHeader, Statistic};
use crate::family::PerFamily;
use crate::rib::{Path, PeerId, Tabled};
use crate::session::Ended;
use crate::wire::{self, Address, Dialect, MAX_EXTENDED_MESSAGE, Nlri, update};

/// Names one feed of one speaker, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedId(u32);

/// How many octets one [`Speaker::feed`] hands out, about.
const ENOUGH: usize = 64 * 1024;
/// How many routes are looked at together.
const BATCH: usize = 1000;
/// How many messages about sessions may wait for a station.
const PATIENCE: usize = 10_000;
/// How many routes a station may not know, besides twice as many as there are.
const LEEWAY: usize = 100_000;

/// What waits for a station.
#[derive(Debug, Default)]
pub(super) struct Feed {
    sessions: VecDeque<Vec<u8>>,
    v4: BTreeSet<(PeerId, Nlri<Ipv4Addr>)>,
    v6: BTreeSet<(PeerId, Nlri<Ipv6Addr>)>,
    /// Whose first table is being told, which ends with End-of-RIB.
    first: PerFamily<BTreeSet<PeerId>>,
    /// With how many unknown routes it is looked at whether they are too many.
    look_at: usize,
    is_awake: bool,
}

impl Feed {
    fn is_behind(&self) -> bool {
        self.sessions.len() > PATIENCE || self.routes() > self.look_at.max(LEEWAY)
    }

    fn routes(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

/// A family whose routes are fed.
pub(super) trait Fed: Noted {
    fn unknown(feed: &mut Feed) -> &mut BTreeSet<(PeerId, Nlri<Self>)>;
}

impl Fed for Ipv4Addr {
    fn unknown(feed: &mut Feed) -> &mut BTreeSet<(PeerId, Nlri<Self>)> {
        &mut feed.v4
    }
}

impl Fed for Ipv6Addr {
    fn unknown(feed: &mut Feed) -> &mut BTreeSet<(PeerId, Nlri<Self>)> {
        &mut feed.v6
    }
}

/// All feeds.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    feeds: BTreeMap<FeedId, Feed>,
    next: u32,
}

impl Feeds {
    /// Forgets the routes of a peer that is gone, whose number may become another's.
    pub(super) fn forget(&mut self, id: PeerId) {
        for feed in self.feeds.values_mut() {
            feed.v4.retain(|(peer, _)| *peer != id);
            feed.v6.retain(|(peer, _)| *peer != id);
        }
    }

    fn wake(&mut self, actions: &mut VecDeque<Action>) {
        let mut behind = Vec::new();
        for (id, feed) in &mut self.feeds {
            if feed.is_behind() {
                behind.push(*id);
            } else if !std::mem::replace(&mut feed.is_awake, true) {
                actions.push_back(Action::WakeFeed(*id));
            }
        }
        for id in behind {
            self.feeds.remove(&id);
            actions.push_back(Action::CloseFeed(id));
        }
    }
}

impl Speaker {
    /// Begins a feed for a monitoring station: who we are, which sessions there are, and their routes; then every change.
    pub fn open_feed(&mut self, description: &str, name: &str) -> FeedId {
        self.feeds.next += 1;
        let id = FeedId(self.feeds.next);
        let feed = Feed { sessions: [bmp::initiation(description, name)].into(), ..Feed::default() };
        self.feeds.feeds.insert(id, feed);
        for peer in self.by_address.values().copied().collect::<Vec<_>>() {
            self.feed_session(peer, Some(id));
        }
        self.wake_feeds();
        id
    }

    /// Ends a feed.
    pub fn close_feed(&mut self, id: FeedId) {
        self.feeds.feeds.remove(&id);
    }

    /// Reports whether there is such a feed: one that was too far behind is gone.
    #[must_use]
    pub fn has_feed(&self, id: FeedId) -> bool {
        self.feeds.feeds.contains_key(&id)
    }

    /// Reports whether anybody is fed.
    #[must_use]
    pub fn has_feeds(&self) -> bool {
        !self.feeds.feeds.is_empty()
    }

    /// Appends what a station is to be told, about 64 KiB at most, to `out`. Nothing appended means that nothing waits: more
    /// is announced by [`Action::WakeFeed`]. `at` is the time since 1970.
    pub fn feed(&mut self, id: FeedId, out: &mut Vec<u8>, at: Duration) {
        let Some(mut feed) = self.feeds.feeds.remove(&id) else { return };
        while out.len() < ENOUGH
            && let Some(mut message) = feed.sessions.pop_front()
        {
            bmp::stamp(&mut message, at);
            out.extend_from_slice(&message);
        }
        self.feed_routes::<Ipv4Addr>(&mut feed, out, at);
        self.feed_routes::<Ipv6Addr>(&mut feed, out, at);
        feed.is_awake = !out.is_empty();
        self.feeds.feeds.insert(id, feed);
    }

    /// Tells every station what was counted.
    pub fn feed_statistics(&mut self) {
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        for peer in self.peers.values() {
            let Some(up) = &peer.up else { continue };
            let held = peer.held;
            let mut statistics = vec![
                Statistic::Rejected(count(peer.counters.rejected_in)),
                Statistic::ClusterLoops(count(peer.counters.cluster_loops_in)),
                Statistic::AsLoops(count(peer.counters.as_loops_in)),
                Statistic::OriginatorLoops(count(peer.counters.originator_loops_in)),
                Statistic::TreatedAsWithdraw(count(peer.counters.treated_as_withdrawn_in)),
                Statistic::PrefixesTreatedAsWithdraw(count(peer.counters.prefixes_treated_as_withdrawn_in)),
                Statistic::Held(u64::from(held.v4) + u64::from(held.v6)),
            ];
            let families = up.negotiated.families.iter();
            statistics.extend(families.map(|family| Statistic::HeldOf(family, held[family].into())));
            let message = bmp::statistics(&header(peer, up), &statistics);
            self.feeds.feeds.values_mut().for_each(|feed| feed.sessions.push_back(message.clone()));
        }
        self.wake_feeds();
    }

    /// Tells one station, or all, that a session is established, and its routes.
    pub(super) fn feed_session(&mut self, id: PeerId, only: Option<FeedId>) {
        let Some(peer) = self.peers.get(&id) else { return };
        let Some(up) = &peer.up else { return };
        let Some(line) = peer.lines.get(&up.connection) else { return };
        let message = bmp::peer_up(&header(peer, up), line.local, line.ports, &line.open_out, &line.open_in);
        let rib = &self.tables.rib;
        for (_, feed) in
            self.feeds.feeds.iter_mut().filter(|(feed, _)| only.is_none_or(|only| only == **feed))
        {
            feed.sessions.push_back(message.clone());
            for family in up.negotiated.families.iter() {
                feed.first[family].insert(id);
                match family {
                    Family::V4 if peer.held.v4 > 0 => feed.v4.extend(held::<Ipv4Addr>(rib, id)),
                    Family::V6 if peer.held.v6 > 0 => feed.v6.extend(held::<Ipv6Addr>(rib, id)),
                    Family::V4 | Family::V6 => {}
                }
            }
        }
        self.wake_feeds();
    }

    /// Tells every station that a session is over, and with it its routes.
    pub(super) fn feed_end(&mut self, id: PeerId, up: &Up, ended: &Ended) {
        let Some(peer) = self.peers.get(&id).filter(|_| !self.feeds.feeds.is_empty()) else { return };
        let header = header(peer, up);
        let message = match ended {
            Ended::Sent(what) => {
                let said = up.negotiated.as_said(what);
                bmp::peer_down(&header, PeerDown::Sent(&wire::notification(&said)))
            }
            Ended::Received(what) => bmp::peer_down(&header, PeerDown::Received(&wire::notification(what))),
            Ended::Lost(_) | Ended::Undialed(_) | Ended::Replaced => bmp::peer_down(&header, PeerDown::Lost),
        };
        for feed in self.feeds.feeds.values_mut() {
            feed.sessions.push_back(message.clone());
            feed.v4.retain(|(peer, _)| *peer != id);
            feed.v6.retain(|(peer, _)| *peer != id);
            feed.first.v4.remove(&id);
            feed.first.v6.remove(&id);
        }
        self.wake_feeds();
    }

    /// Takes down that a path is another than the stations know.
    pub(super) fn feed_change<A: Fed>(&mut self, id: PeerId, nlri: Nlri<A>) {
        if self.feeds.feeds.is_empty() || id == PeerId::LOCAL {
            return;
        }
        for feed in self.feeds.feeds.values_mut() {
            A::unknown(feed).insert((id, nlri));
        }
        self.wake_feeds();
    }

    /// Has every station told what waits for it, and cuts off those that are too far behind for the routes there are now.
    fn wake_feeds(&mut self) {
        for feed in self.feeds.feeds.values_mut().filter(|feed| feed.is_behind()) {
            let held: u32 = self.peers.values().map(|peer| peer.held.v4 + peer.held.v6).sum();
            feed.look_at = LEEWAY + 2 * held as usize;
        }
        self.feeds.wake(&mut self.events);
    }

    fn feed_routes<A: Fed>(&self, feed: &mut Feed, out: &mut Vec<u8>, at: Duration) {
        while out.len() < ENOUGH
            && let Some((id, _)) = A::unknown(feed).first().copied()
        {
            self.feed_batch::<A>(id, A::unknown(feed), out, at);
            self.end_first::<A>(feed, out, at);
        }
        self.end_first::<A>(feed, out, at);
    }

    /// Says End-of-RIB for those whose first table is told.
    fn end_first<A: Fed>(&self, feed: &mut Feed, out: &mut Vec<u8>, at: Duration) {
        let next = A::unknown(feed).first().map(|(id, _)| *id);
        let first = &mut feed.first[A::FAMILY];
        while let Some(id) = first.first().copied().filter(|id| next.is_none_or(|next| *id < next)) {
            first.pop_first();
            if let Some((peer, up)) = self.peers.get(&id).and_then(|peer| Some((peer, peer.up.as_ref()?))) {
                let header = PeerHeader { at, ..header(peer, up) };
                out.extend(bmp::route_monitoring(&header, &update::end_of_rib(A::FAMILY)));
            }
        }
    }

    /// Says how some routes of a peer stand: in one message those that share their attributes, or are gone together. What
    /// is more than enough stays unknown.
    fn feed_batch<A: Fed>(
        &self,
        id: PeerId,
        unknown: &mut BTreeSet<(PeerId, Nlri<A>)>,
        out: &mut Vec<u8>,
        at: Duration,
    ) {
        let table = A::table(&self.tables.rib);
        let path = |nlri: Nlri<A>| table.path(nlri.prefix, id, nlri.path_id).map(|path| &path.attributes);
        let batch = take_batch(id, unknown, path);
        let Some((peer, up)) = self.peers.get(&id).and_then(|peer| Some((peer, peer.up.as_ref()?))) else {
            return;
        };
        let header = PeerHeader { at, ..header(peer, up) };
        let dialect = Dialect {
            path_ids_out: up.negotiated.dialect.path_ids_in,
            ..Dialect::plain(crate::session::Peering::Internal)
        };
        for (attributes, routes) in batch {
            if out.len() >= ENOUGH {
                unknown.extend(routes.into_iter().map(|nlri| (id, nlri)));
                continue;
            }
            let mut emit =
                |message: Vec<u8>, _: &[Nlri<A>]| out.extend(bmp::route_monitoring(&header, &message));
            match attributes {
                None => update::withdraw(&routes, &dialect, &mut emit),
                Some(attributes) => {
                    let long = Dialect { max_len_out: MAX_EXTENDED_MESSAGE, ..dialect };
                    // Attributes that fill even the long form came in one message with a prefix: LOCAL_PREF is all we add.
                    let attributes = &attributes.attributes();
                    let _told = update::announce(attributes, &routes, &dialect, &mut emit)
                        .or_else(|_| update::announce(attributes, &routes, &long, &mut emit));
                }
            }
        }
    }
}

/// What was found of routes, and of which.
type Batch<'t, T, A> = Vec<(Option<&'t Arc<T>>, Vec<Nlri<A>>)>;

/// Takes out up to [`BATCH`] routes of a peer, and returns those together of which the same is found, in the order of the
/// first of each. Each is looked up once.
fn take_batch<'t, A: Address, T>(
    id: PeerId,
    unknown: &mut BTreeSet<(PeerId, Nlri<A>)>,
    mut found: impl FnMut(Nlri<A>) -> Option<&'t Arc<T>>,
) -> Batch<'t, T, A> {
    let mut batch = Batch::<T, A>::new();
    let mut places = BTreeMap::new();
    for _ in 0..BATCH {
        let Some((_, nlri)) = unknown.first().copied().filter(|(peer, _)| *peer == id) else { break };
        unknown.pop_first();
        let what = found(nlri);
        let place = *places.entry(what.map(Arc::as_ptr)).or_insert(batch.len());
        match batch.get_mut(place) {
            Some((_, routes)) => routes.push(nlri),
            None => batch.push((what, vec![nlri])),
        }
    }
    batch
}

fn header(peer: &Peer, up: &Up) -> PeerHeader {
    PeerHeader {
        address: peer.config.address,
        asn: peer.config.remote_as,
        router_id: up.negotiated.remote_id,
        at: Duration::ZERO,
    }
}

/// Everything that a peer has told.
fn held<A: Tabled>(rib: &crate::rib::Rib, id: PeerId) -> impl Iterator<Item = (PeerId, Nlri<A>)> + '_ {
    let of_peer = move |(prefix, paths): (wire::Prefix<A>, &'_ [Path])| {
        let paths = paths.iter().filter(|path| path.peer() == id);
        paths.map(|path| (id, Nlri { prefix, path_id: path.path_id })).collect::<Vec<_>>()
    };
    A::table(rib).iter().flat_map(of_peer)
}

#[cfg(test)]
mod tests {
    use calico_model::Cidr;

    use super::*;
    use crate::wire::Prefix;

    #[test]
    fn each_route_is_looked_up_once_however_few_share_their_attributes() {
        const ROUTES: u32 = 3_500;
        let nlri = |n: u32| {
            let prefix = Prefix::of(Cidr::host(Ipv4Addr::from(n).into())).unwrap();
            Nlri { prefix, path_id: 0 }
        };
        let (one, other) = (PeerId(1), PeerId(2));
        for shared in [1, 2, ROUTES] {
            let attributes: Vec<Arc<u32>> = (0..ROUTES / shared).map(Arc::new).collect();
            let mut unknown: BTreeSet<_> = (0..ROUTES).map(|n| (one, nlri(n))).collect();
            unknown.insert((other, nlri(7)));
            let (mut looked, mut told) = (0, Vec::new());
            while unknown.first().is_some_and(|(peer, _)| *peer == one) {
                let found = |route: Nlri<Ipv4Addr>| {
                    looked += 1;
                    attributes.get((u32::from(route.prefix.addr()) % (ROUTES / shared)) as usize)
                };
                for (what, routes) in take_batch(one, &mut unknown, found) {
                    let numbers = routes.iter().map(|route| u32::from(route.prefix.addr()));
                    let is_one = |number| what.is_some_and(|what| **what == number % (ROUTES / shared));
                    assert!(numbers.clone().all(is_one));
                    told.extend(numbers);
                }
            }
            told.sort_unstable();
            assert_eq!((looked, told), (ROUTES, (0..ROUTES).collect()), "{shared} share");
            assert_eq!(unknown.len(), 1, "another peer's routes wait");
        }
    }
}
