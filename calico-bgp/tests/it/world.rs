//! Speakers in one process on an in-memory wire, with a clock that only moves when told to.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use calico_bgp::session::{ConnectionId, State};
use calico_bgp::{Action, Event, Origination, PeerConfig, Speaker, SpeakerConfig, Start};
use calico_model::{AsNumber, LearnedRoutes};

/// One end of a connection: which speaker, and its name for it.
type End = (IpAddr, ConnectionId);

#[derive(Debug)]
struct Parcel {
    arrives: Instant,
    to: End,
    what: Cargo,
}

#[derive(Debug)]
enum Cargo {
    Octets(Vec<u8>),
    Closed,
}

/// The world: speakers by address, the wire between them and the time.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) speakers: BTreeMap<IpAddr, Speaker>,
    pub(crate) events: Vec<(IpAddr, Event)>,
    pub(crate) delay: Duration,
    other_end: BTreeMap<End, End>,
    wire: VecDeque<Parcel>,
    cut: Vec<(IpAddr, IpAddr)>,
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
            delay: Duration::from_millis(1),
            other_end: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: Vec::new(),
            configured: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, address: &str, local_as: u32) {
        self.add_with(address, settings(address, local_as));
    }

    pub(crate) fn add_with(&mut self, address: &str, config: SpeakerConfig) {
        self.speakers.insert(ip(address), Speaker::new(config, self.now));
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
        self.speakers.get_mut(&ip(at)).unwrap()
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
        self.cut.push((ip(a), ip(b)));
        self.cut.push((ip(b), ip(a)));
        let other_end = &self.other_end;
        self.wire.retain(|parcel| {
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
            self.speakers.get_mut(&end.0).unwrap().closed(end.1, "connection reset by peer".to_owned(), now);
        }
    }

    /// Kills a speaker without a word and starts another one in its place.
    pub(crate) fn restart(&mut self, at: &str, start: Start) {
        let mut config = self.speakers[&ip(at)].config().clone();
        config.start = start;
        let ends: Vec<End> = self.other_end.keys().filter(|end| end.0 == ip(at)).copied().collect();
        for end in ends {
            self.close(end);
        }
        let mut speaker = Speaker::new(config, self.now);
        speaker.set_peers(self.peers_of(at), self.now);
        self.speakers.insert(ip(at), speaker);
    }

    fn close(&mut self, end: End) {
        if let Some(other) = self.other_end.remove(&end) {
            self.send(other, end.0, Cargo::Closed);
        }
    }

    fn send(&mut self, to: End, from: IpAddr, what: Cargo) {
        if !self.cut.contains(&(from, to.0)) {
            self.wire.push_back(Parcel { arrives: self.now + self.delay, to, what });
        }
    }

    /// Lets time pass, handling everything that is due in between.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.act();
            let due = self.wire.iter().map(|parcel| parcel.arrives).min();
            let deadline = self.speakers.values().filter_map(Speaker::deadline).min();
            let Some(next) = due.into_iter().chain(deadline).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.deliver();
            let now = self.now;
            for speaker in self.speakers.values_mut() {
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
        while let Some(at) = self.wire.iter().position(|parcel| parcel.arrives <= self.now) {
            let Some(parcel) = self.wire.remove(at) else { return };
            let now = self.now;
            let (address, connection) = parcel.to;
            let Some(speaker) = self.speakers.get_mut(&address) else { continue };
            match parcel.what {
                Cargo::Octets(octets) => speaker.receive(connection, &octets, now),
                Cargo::Closed => {
                    self.other_end.remove(&parcel.to);
                    speaker.closed(connection, "the peer closed the connection".to_owned(), now);
                }
            }
        }
    }

    fn act(&mut self) {
        loop {
            let mut quiet = true;
            for address in self.speakers.keys().copied().collect::<Vec<_>>() {
                while let Some(action) = self.speakers.get_mut(&address).unwrap().poll() {
                    quiet = false;
                    self.carry_out(address, action);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn carry_out(&mut self, address: IpAddr, action: Action) {
        let now = self.now;
        match action {
            Action::Dial { connection, peer } => {
                let reachable = !self.cut.contains(&(address, peer.address));
                let accepted = self
                    .speakers
                    .get_mut(&peer.address)
                    .filter(|_| reachable)
                    .and_then(|other| other.accept(address, peer.address, now).ok());
                let speaker = self.speakers.get_mut(&address).unwrap();
                match accepted {
                    Some(theirs) => {
                        self.other_end.insert((address, connection), (peer.address, theirs));
                        self.other_end.insert((peer.address, theirs), (address, connection));
                        speaker.connected(connection, address, now);
                    }
                    None => speaker.refused(connection, "no answer".to_owned(), now),
                }
            }
            Action::Wake(connection) => loop {
                let mut octets = Vec::new();
                self.speakers.get_mut(&address).unwrap().transmit(connection, &mut octets, now);
                if octets.is_empty() {
                    break;
                }
                if let Some(other) = self.other_end.get(&(address, connection)).copied() {
                    self.send(other, address, Cargo::Octets(octets));
                }
            },
            Action::Close(connection) => self.close((address, connection)),
            Action::Event(event) => self.events.push((address, event)),
            _ => {}
        }
    }
}
