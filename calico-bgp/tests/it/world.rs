//! Speakers in one process on an in-memory wire, with a clock that only moves when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use calico_bgp::session::{ConnectionId, State};
use calico_bgp::{Action, Event, Origination, PeerConfig, Speaker, SpeakerConfig, Start};
use calico_model::{AsNumber, LearnedRoutes};

/// One end of a connection: which speaker, and its name for it.
type End = (IpAddr, ConnectionId);

#[derive(Debug)]
struct Parcel {
    to: End,
    what: Cargo,
}

#[derive(Debug)]
enum Cargo {
    /// The first packet of a connection to a peer.
    Dial(IpAddr),
    Octets(Vec<u8>),
    Closed,
}

/// Small, fast and the same for the same seed (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Rolls a number below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len() as u64) as usize]
    }
}

/// The world: speakers by address, the wire between them and the time.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) speakers: BTreeMap<IpAddr, Speaker>,
    pub(crate) events: Vec<(IpAddr, Event)>,
    /// Actions that are for other drivers than that of connections.
    pub(crate) others: Vec<(IpAddr, Action)>,
    pub(crate) delay: Duration,
    /// With dice, each connection has a delay of its own, up to this many milliseconds: connections overtake each other.
    pub(crate) dice: Option<(Dice, u64)>,
    delays: BTreeMap<End, Duration>,
    other_end: BTreeMap<End, End>,
    wire: BTreeMap<(Instant, u64), Parcel>,
    parcels: u64,
    cut: BTreeSet<(IpAddr, IpAddr)>,
    /// Speakers that may have something to do.
    touched: BTreeSet<IpAddr>,
    deadlines: BTreeSet<(Instant, IpAddr)>,
    filed: BTreeMap<IpAddr, Instant>,
    configured: BTreeMap<IpAddr, Vec<PeerConfig>>,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn asn(number: u32) -> AsNumber {
    AsNumber::new(number).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary beginning of time")]
pub(crate) fn beginning() -> Instant {
    Instant::now()
}

pub(crate) fn settings(address: &str, local_as: u32) -> SpeakerConfig {
    SpeakerConfig::new(asn(local_as), address.parse().unwrap())
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            now: beginning(),
            speakers: BTreeMap::new(),
            events: Vec::new(),
            others: Vec::new(),
            delay: Duration::from_millis(1),
            dice: None,
            delays: BTreeMap::new(),
            other_end: BTreeMap::new(),
            wire: BTreeMap::new(),
            parcels: 0,
            cut: BTreeSet::new(),
            touched: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            filed: BTreeMap::new(),
            configured: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, address: &str, local_as: u32) {
        self.add_with(address, settings(address, local_as));
    }

    pub(crate) fn add_with(&mut self, address: &str, config: SpeakerConfig) {
        self.speakers.insert(ip(address), Speaker::new(config, self.now));
        self.touched.insert(ip(address));
    }

    /// Makes two speakers peers of each other.
    pub(crate) fn join(&mut self, a: &str, b: &str) {
        self.join_with(a, b, |_| {});
    }

    pub(crate) fn join_with(&mut self, a: &str, b: &str, change: impl Fn(&mut PeerConfig)) {
        self.join_one(a, b, &change);
        self.join_one(b, a, &change);
    }

    /// Makes one speaker expect another as its peer.
    pub(crate) fn join_one(&mut self, one: &str, other: &str, change: impl Fn(&mut PeerConfig)) {
        let local_as = self.speakers[&ip(one)].config().local_as;
        let remote_as = self.speakers[&ip(other)].config().local_as;
        let mut peer = PeerConfig::new(ip(other), remote_as, local_as);
        peer.local_address = Some(ip(one));
        change(&mut peer);
        self.add_peer(one, peer);
    }

    pub(crate) fn add_peer(&mut self, at: &str, peer: PeerConfig) {
        let now = self.now;
        let mut peers = self.peers_of(at);
        peers.retain(|held| held.address != peer.address);
        peers.push(peer);
        self.configured.insert(ip(at), peers.clone());
        self.speaker(at).set_peers(peers, now);
    }

    pub(crate) fn peers_of(&self, at: &str) -> Vec<PeerConfig> {
        self.configured.get(&ip(at)).cloned().unwrap_or_default()
    }

    pub(crate) fn set_peers(&mut self, at: &str, peers: Vec<PeerConfig>) {
        let now = self.now;
        self.configured.insert(ip(at), peers.clone());
        self.speaker(at).set_peers(peers, now);
    }

    pub(crate) fn speaker(&mut self, at: &str) -> &mut Speaker {
        self.at(ip(at))
    }

    fn at(&mut self, address: IpAddr) -> &mut Speaker {
        self.touched.insert(address);
        self.speakers.get_mut(&address).unwrap()
    }

    pub(crate) fn originate(&mut self, at: &str, prefixes: &[&str]) {
        let now = self.now;
        let prefixes = prefixes.iter().map(|p| (p.parse().unwrap(), Origination::default())).collect();
        self.speaker(at).set_originated(prefixes, now);
    }

    pub(crate) fn learned(&mut self, at: &str) -> LearnedRoutes {
        self.speaker(at).learned().expect("not recovering")
    }

    /// The learned routes as text: destination, gateways.
    pub(crate) fn learned_text(&mut self, at: &str) -> Vec<String> {
        self.learned(at)
            .iter()
            .map(|(cidr, route)| {
                let hops: Vec<String> = route.next_hops.iter().map(ToString::to_string).collect();
                format!("{cidr} via {}", hops.join(","))
            })
            .collect()
    }

    pub(crate) fn state(&mut self, at: &str, peer: &str) -> State {
        self.speaker(at).status().into_iter().find(|s| s.address == ip(peer)).unwrap().state
    }

    pub(crate) fn is_up(&mut self, at: &str, peer: &str) -> bool {
        self.state(at, peer) == State::Established
    }

    /// Cuts or mends the wire between two speakers; what is under way is lost, and nobody is told.
    pub(crate) fn cut(&mut self, a: &str, b: &str) {
        self.cut.extend([(ip(a), ip(b)), (ip(b), ip(a))]);
        let other_end = &self.other_end;
        self.wire.retain(|_, parcel| {
            let from = other_end.get(&parcel.to).map(|end| end.0);
            !(parcel.to.0 == ip(a) && from == Some(ip(b)) || parcel.to.0 == ip(b) && from == Some(ip(a)))
        });
    }

    pub(crate) fn mend(&mut self, a: &str, b: &str) {
        self.cut.retain(|cut| *cut != (ip(a), ip(b)) && *cut != (ip(b), ip(a)));
    }

    /// Breaks every connection between two speakers as a reset would: both are told.
    pub(crate) fn break_connections(&mut self, a: &str, b: &str) {
        let ends: Vec<End> = self
            .other_end
            .iter()
            .filter(|(x, y)| x.0 == ip(a) && y.0 == ip(b) || x.0 == ip(b) && y.0 == ip(a))
            .map(|(end, _)| *end)
            .collect();
        for end in ends {
            self.other_end.remove(&end);
            let now = self.now;
            self.at(end.0).closed(end.1, "connection reset by peer".to_owned(), now);
        }
    }

    /// Kills a speaker without a word and starts another one in its place.
    pub(crate) fn restart(&mut self, at: &str, start: Start) {
        let mut config = self.speakers[&ip(at)].config().clone();
        config.start = start;
        let ends: Vec<End> = self.other_end.keys().filter(|end| end.0 == ip(at)).copied().collect();
        for end in ends {
            // What is still said to the old one must not reach the new one, whose connections have the same names.
            if let Some(other) = self.other_end.get(&end).copied() {
                self.close(end);
                self.other_end.remove(&other);
            }
        }
        self.wire.retain(|_, parcel| parcel.to.0 != ip(at));
        let mut speaker = Speaker::new(config, self.now);
        speaker.set_peers(self.peers_of(at), self.now);
        self.speakers.insert(ip(at), speaker);
        self.touched.insert(ip(at));
    }

    fn close(&mut self, end: End) {
        if let Some(other) = self.other_end.remove(&end) {
            self.delays.remove(&end);
            self.send(other, end.0, Cargo::Closed);
        }
    }

    fn send(&mut self, to: End, from: IpAddr, what: Cargo) {
        if !self.cut.contains(&(from, to.0)) {
            let delay = self.delays.get(&to).copied().unwrap_or(self.delay);
            self.post(delay, to, what);
        }
    }

    fn post(&mut self, delay: Duration, to: End, what: Cargo) {
        self.parcels += 1;
        self.wire.insert((self.now + delay, self.parcels), Parcel { to, what });
    }

    /// How long a new connection takes each way.
    fn new_delay(&mut self) -> Duration {
        match &mut self.dice {
            Some((dice, most)) => Duration::from_millis(1 + dice.roll(*most)),
            None => self.delay,
        }
    }

    /// Lets time pass, handling everything that is due in between.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.act();
            let due = self.wire.keys().next().map(|(at, _)| *at);
            let deadline = self.deadlines.first().map(|(at, _)| *at);
            let Some(next) = due.into_iter().chain(deadline).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.deliver();
            let now = self.now;
            while let Some((at, address)) = self.deadlines.first().copied()
                && at <= now
            {
                self.deadlines.pop_first();
                self.filed.remove(&address);
                let speaker = self.at(address);
                if speaker.deadline().is_some_and(|at| at <= now) {
                    speaker.timeout(now);
                }
            }
        }
    }

    pub(crate) fn run_secs(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    fn deliver(&mut self) {
        while let Some(parcel) = self.wire.first_entry().filter(|parcel| parcel.key().0 <= self.now) {
            let Parcel { to, what } = parcel.remove();
            let now = self.now;
            let (address, connection) = to;
            match what {
                Cargo::Dial(peer) => self.dial(to, peer),
                Cargo::Octets(octets) => self.at(address).receive(connection, &octets, now),
                Cargo::Closed => {
                    self.other_end.remove(&to);
                    self.at(address).closed(connection, "the peer closed the connection".to_owned(), now);
                }
            }
        }
    }

    fn act(&mut self) {
        while let Some(address) = self.touched.pop_first() {
            while let Some(action) = self.speakers.get_mut(&address).and_then(Speaker::poll) {
                self.carry_out(address, action);
            }
            let deadline = self.speakers.get(&address).and_then(Speaker::deadline);
            let filed = self.filed.get(&address).copied();
            if deadline != filed {
                if let Some(filed) = filed {
                    self.deadlines.remove(&(filed, address));
                }
                self.filed.remove(&address);
                if let Some(deadline) = deadline {
                    self.deadlines.insert((deadline, address));
                    self.filed.insert(address, deadline);
                }
            }
        }
    }

    fn dial(&mut self, from: End, peer: IpAddr) {
        let now = self.now;
        let reachable = !self.cut.contains(&(from.0, peer)) && self.speakers.contains_key(&peer);
        let accepted = if reachable { self.at(peer).accept(from.0, peer, now).ok() } else { None };
        match accepted {
            Some(theirs) => {
                let delay = self.new_delay();
                for (end, other) in [(from, (peer, theirs)), ((peer, theirs), from)] {
                    self.other_end.insert(end, other);
                    self.delays.insert(end, delay);
                }
                self.at(from.0).connected(from.1, from.0, now);
            }
            None => self.at(from.0).refused(from.1, "no answer".to_owned(), now),
        }
    }

    fn carry_out(&mut self, address: IpAddr, action: Action) {
        let now = self.now;
        match action {
            Action::Dial { connection, peer } => match self.dice {
                None => self.dial((address, connection), peer.address),
                Some(_) => {
                    let delay = self.new_delay();
                    self.post(delay, (address, connection), Cargo::Dial(peer.address));
                }
            },
            Action::Wake(connection) => loop {
                let mut octets = Vec::new();
                self.at(address).transmit(connection, &mut octets, now);
                if octets.is_empty() {
                    break;
                }
                if let Some(other) = self.other_end.get(&(address, connection)).copied() {
                    self.send(other, address, Cargo::Octets(octets));
                }
            },
            Action::Close(connection) => self.close((address, connection)),
            Action::Event(event) => self.events.push((address, event)),
            Action::Watch { .. } | Action::Unwatch(_) | Action::WakeFeed(_) | Action::CloseFeed(_) | _ => {
                self.others.push((address, action))
            }
        }
    }
}
