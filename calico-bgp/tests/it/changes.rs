//! Every change of a peer's settings in every state of its session: the session comes up under the new settings, a running
//! one is reset only when it must be, and the other peer never notices.

use std::time::{Duration, Instant};

use calico_bgp::bfd::BfdConfig;
use calico_bgp::family::FamilySet;
use calico_bgp::filter::{Facts, Import, Policy, Program};
use calico_bgp::session::{ConnectionId, Initiation, Peering, Roles, State};
use calico_bgp::speaker::{
    AsSets, Distance, Exchange, LongLived, MaxPrefixes, NextHopMode, Password, Reflection,
};
use calico_bgp::wire::open::{AddPath, Feature, Role};
use calico_bgp::wire::{self, Capabilities, HoldTime, MessageType, Open};
use calico_bgp::{Action, PeerConfig, Speaker, SpeakerConfig};
use calico_model::{Cidr, Community};

use crate::world::{asn, beginning, ip, settings};

const US: &str = "10.0.0.1";
const PEER: &str = "10.0.0.2";
const OTHER: &str = "10.0.0.3";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The session is reset.
    Reset,
    /// It goes on.
    Soft,
}
use Effect::{Reset, Soft};

pub(crate) type Change = (&'static str, Effect, fn(&mut PeerConfig));

/// Every setting, what its change means for a running session, and a change.
pub(crate) const CHANGES: &[Change] = &[
    ("port", Soft, |peer| peer.port = 1179),
    ("name", Soft, |peer| peer.name = "another".to_owned()),
    ("remote_as", Reset, |peer| peer.remote_as = asn(65009)),
    ("local_as", Reset, |peer| peer.local_as = asn(65008)),
    ("local_address", Reset, |peer| peer.local_address = Some(ip(US))),
    ("other_next_hop", Soft, |peer| peer.other_next_hop = Some(ip("fd00::1"))),
    ("initiation", Soft, |peer| peer.initiation = Initiation::Passive),
    ("hold_time", Reset, |peer| peer.hold_time = HoldTime::SUGGESTED),
    ("connect_retry", Soft, |peer| peer.connect_retry = Duration::from_secs(1)),
    ("families", Reset, |peer| peer.families = FamilySet::BOTH),
    ("add_path", Reset, |peer| peer.add_path = AddPath::Both),
    ("reflection", Soft, |peer| peer.reflection = Reflection::Client),
    ("next_hop", Soft, |peer| peer.next_hop = NextHopMode::Own),
    ("password", Reset, |peer| peer.password = Password::new("secret")),
    ("distance", Reset, |peer| peer.distance = Distance::Within(1)),
    ("restart_time", Reset, |peer| peer.restart_time = 60),
    ("long_lived", Reset, |peer| peer.long_lived = LongLived::For(3600)),
    ("send_hold", Soft, |peer| peer.send_hold = Some(Duration::from_secs(600))),
    ("keepalive", Soft, |peer| peer.keepalive = Some(Duration::from_secs(7))),
    ("max_prefixes", Soft, |peer| peer.max_prefixes = Some(MaxPrefixes::new(10))),
    ("bfd", Soft, |peer| peer.bfd = Some(BfdConfig::default())),
    ("as_sets", Soft, |peer| peer.as_sets = AsSets::Accept),
    ("allow_own_as", Soft, |peer| peer.allow_own_as = 1),
    ("add_communities", Soft, |peer| peer.add_communities = vec![Community::Standard(1, 2)]),
    ("default_local_pref", Soft, |peer| peer.default_local_pref = Some(7)),
    ("import", Soft, |peer| peer.import = Exchange::Unsaid),
    ("export", Soft, |peer| peer.export = Exchange::Unsaid),
    ("role", Reset, |peer| peer.role = Some(Role::Customer)),
    ("roles", Reset, |peer| peer.roles = Roles::Strict),
    ("nothing", Soft, |_| {}),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
    /// It was established; its routes are kept.
    Retained,
}
const STAGES: [Stage; 6] =
    [Stage::Connect, Stage::Active, Stage::OpenSent, Stage::OpenConfirm, Stage::Established, Stage::Retained];

/// A speaker with two peers that are nothing but octets.
struct Script {
    speaker: Speaker,
    now: Instant,
    peers: Vec<PeerConfig>,
    /// What is dialed and not answered, and what is connected, by peer.
    dialing: Vec<(ConnectionId, std::net::IpAddr)>,
    open: Vec<(ConnectionId, std::net::IpAddr)>,
    closed: Vec<std::net::IpAddr>,
    kinds: Vec<(std::net::IpAddr, MessageType)>,
}

impl Script {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// The first peer has other settings.
    fn with(change: impl FnOnce(&mut PeerConfig)) -> Self {
        let now = beginning();
        let mut speaker = Speaker::new(settings(US, 65001), now);
        let mut peers: Vec<PeerConfig> =
            [PEER, OTHER].iter().map(|peer| PeerConfig::new(ip(peer), asn(65001), asn(65001))).collect();
        change(&mut peers[0]);
        speaker.set_peers(peers.clone(), now);
        let mut script = Self {
            speaker,
            now,
            peers,
            dialing: Vec::new(),
            open: Vec::new(),
            closed: Vec::new(),
            kinds: Vec::new(),
        };
        script.act();
        script.establish(OTHER);
        script.closed.clear();
        script.kinds.clear();
        script
    }

    fn act(&mut self) {
        while let Some(action) = self.speaker.poll() {
            match action {
                Action::Dial { connection, peer } => self.dialing.push((connection, peer.address)),
                Action::Close(connection) => {
                    let at = self.open.iter().position(|(open, _)| *open == connection);
                    self.closed.extend(at.map(|at| self.open.remove(at).1));
                    self.dialing.retain(|(dialed, _)| *dialed != connection);
                }
                Action::Wake(connection) => self.send(connection),
                Action::Watch { .. }
                | Action::Unwatch(_)
                | Action::WakeFeed(_)
                | Action::CloseFeed(_)
                | Action::Event(_)
                | _ => {}
            }
        }
    }

    fn send(&mut self, connection: ConnectionId) {
        let to = self.open.iter().find(|(open, _)| *open == connection).map(|(_, to)| *to);
        loop {
            let mut octets = Vec::new();
            self.speaker.transmit(connection, &mut octets, self.now);
            if octets.is_empty() {
                return;
            }
            let mut rest = &octets[..];
            while let Some(frame) = wire::frame(rest, wire::MAX_EXTENDED_MESSAGE).unwrap() {
                self.kinds.extend(to.map(|to| (to, frame.kind)));
                rest = &rest[frame.len..];
            }
        }
    }

    fn state(&self, peer: &str) -> State {
        self.speaker.status().into_iter().find(|status| status.address == ip(peer)).unwrap().state
    }

    fn connect(&mut self, peer: &str) -> ConnectionId {
        for _ in 0..100 {
            // The last one: what was dialed before a reset is of no use any more.
            if let Some(at) = self.dialing.iter().rposition(|(_, to)| *to == ip(peer)) {
                let (connection, to) = self.dialing.remove(at);
                self.dialing.retain(|(_, to)| *to != ip(peer));
                self.open.push((connection, to));
                self.speaker.connected(connection, ip(US), self.now);
                self.act();
                return connection;
            }
            let passive =
                self.peers.iter().any(|p| p.address == ip(peer) && p.initiation == Initiation::Passive);
            if passive {
                let connection = self.speaker.accept(ip(peer), ip(US), self.now).unwrap();
                self.open.push((connection, ip(peer)));
                self.act();
                return connection;
            }
            self.now += Duration::from_secs(1);
            self.speaker.timeout(self.now);
            self.act();
        }
        panic!("{peer} is not dialed");
    }

    fn hear(&mut self, connection: ConnectionId, octets: &[u8]) {
        self.speaker.receive(connection, octets, self.now);
        self.act();
    }

    /// The OPEN that our settings ask of a peer.
    fn open_of(&self, peer: &str) -> Vec<u8> {
        let config = self.peers.iter().find(|config| config.address == ip(peer)).unwrap();
        let role = config.role.filter(|_| config.remote_as != config.local_as).map(|_| Role::Provider);
        Open {
            asn: config.remote_as,
            hold_time: HoldTime::CALICO,
            router_id: peer.parse().unwrap(),
            capabilities: Capabilities {
                families: Some(FamilySet::V4),
                four_octet_as: Some(config.remote_as),
                features: [Feature::RouteRefresh].into(),
                graceful_restart: Some(wire::open::GracefulRestart {
                    restart_time: 120,
                    state: wire::open::RestartState::Fresh,
                    on_notification: wire::open::OnNotification::Keep,
                    families: calico_bgp::family::PerFamily {
                        v4: Some(wire::open::Forwarding::Preserved),
                        v6: None,
                    },
                }),
                role,
                ..Capabilities::default()
            },
        }
        .encode()
    }

    fn establish(&mut self, peer: &str) -> ConnectionId {
        let connection = self.connect(peer);
        let open = self.open_of(peer);
        self.hear(connection, &open);
        self.hear(connection, &wire::keepalive());
        assert_eq!(self.state(peer), State::Established, "{:?}", self.speaker.status());
        connection
    }

    /// Brings the peer's session into a stage.
    fn reach(&mut self, stage: Stage) {
        match stage {
            Stage::Connect => assert_eq!(self.state(PEER), State::Connect),
            Stage::Active => {
                let (connection, _) = self.dialing.remove(0);
                self.speaker.refused(connection, "no route".to_owned(), self.now);
                self.act();
                assert_eq!(self.state(PEER), State::Active);
            }
            Stage::OpenSent => {
                self.connect(PEER);
            }
            Stage::OpenConfirm => {
                let connection = self.connect(PEER);
                let open = self.open_of(PEER);
                self.hear(connection, &open);
                assert_eq!(self.state(PEER), State::OpenConfirm);
            }
            Stage::Established => {
                self.establish(PEER);
            }
            Stage::Retained => {
                let connection = self.establish(PEER);
                self.open.retain(|(open, _)| *open != connection);
                self.speaker.closed(connection, "gone".to_owned(), self.now);
                self.act();
            }
        }
        self.closed.clear();
        self.kinds.clear();
    }

    /// Ends what is left of old attempts as the peer would, and brings the session up.
    fn come_up(&mut self) {
        if self.state(PEER) == State::Established {
            return;
        }
        let old: Vec<ConnectionId> =
            self.open.iter().filter(|(_, to)| *to == ip(PEER)).map(|(open, _)| *open).collect();
        for connection in old {
            self.open.retain(|(open, _)| *open != connection);
            self.speaker.closed(connection, "the peer gave up".to_owned(), self.now);
            self.act();
        }
        self.establish(PEER);
    }
}

#[test]
fn every_change_in_every_state_takes_effect_and_resets_only_what_it_must() {
    for stage in STAGES {
        for (name, effect, change) in CHANGES {
            let mut script = Script::new();
            script.reach(stage);
            change(&mut script.peers[0]);
            script.speaker.set_peers(script.peers.clone(), script.now);
            script.act();
            let was_reset = script.closed.contains(&ip(PEER));
            let expected = *effect == Reset && stage >= Stage::OpenSent && stage != Stage::Retained;
            assert_eq!(was_reset, expected, "{stage:?} {name}");
            if expected {
                assert!(script.kinds.contains(&(ip(PEER), MessageType::Notification)), "{stage:?} {name}");
            }
            script.come_up();
            assert!(!script.closed.contains(&ip(OTHER)), "{stage:?} {name}: the other peer is not touched");
            assert_eq!(script.state(OTHER), State::Established, "{stage:?} {name}");
            let refreshed =
                script.kinds.iter().any(|(to, kind)| *to == ip(OTHER) && *kind != MessageType::Keepalive);
            assert!(!refreshed, "{stage:?} {name}: the other peer hears nothing of it: {:?}", script.kinds);
        }
    }
}

#[test]
fn a_peer_that_was_waited_for_is_dialed_from_any_state_once_we_are_to_dial() {
    for stage in STAGES.into_iter().filter(|stage| *stage != Stage::Connect) {
        let mut script = Script::with(|peer| peer.initiation = Initiation::Passive);
        if stage == Stage::Active {
            assert_eq!(script.state(PEER), State::Active);
        } else {
            script.reach(stage);
        }
        script.peers[0].initiation = Initiation::Active;
        script.speaker.set_peers(script.peers.clone(), script.now);
        script.act();
        assert!(!script.closed.contains(&ip(PEER)), "{stage:?}");
        script.come_up();
    }
}

#[test]
fn what_is_kept_of_a_peer_that_is_away_is_judged_by_what_is_taken_from_it_now() {
    let only = |refused: &[&str]| {
        let refused = refused.iter().map(|network| network.parse::<Cidr>().unwrap()).collect();
        let facts = Facts { peering: Peering::Internal, interfaces: None };
        Exchange::Filtered(Policy::new(Program::import(|_| Vec::new(), &facts, Import { refused })))
    };
    type Taken<'t> = (&'static str, &'t dyn Fn(&mut PeerConfig), &'static [&'static str]);
    let changes: [Taken<'_>; 4] = [
        ("a network", &|peer| peer.import = only(&["20.0.0.0/7"]), &["30.0.0.0/8"]),
        ("another way", &|peer| peer.import = Exchange::nothing(), &[]),
        ("own AS", &|peer| peer.allow_own_as = 0, &["20.0.0.0/8"]),
        (
            "with a new session",
            &|peer| (peer.import, peer.restart_time) = (only(&["20.0.0.0/7"]), 60),
            &["30.0.0.0/8"],
        ),
    ];
    for stage in [Stage::Established, Stage::Retained] {
        for (name, change, left) in changes {
            let mut script = Script::new();
            (script.peers[0].import, script.peers[0].allow_own_as) = (only(&[]), 1);
            script.speaker.set_peers(script.peers.clone(), script.now);
            let connection = script.establish(PEER);
            let told = |path: &[u8], prefix: &[u8]| {
                let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, path.len() as u8];
                attributes.extend_from_slice(path);
                attributes.extend_from_slice(&[0x40, 3, 4, 10, 0, 0, 2, 0x40, 5, 4, 0, 0, 0, 100]);
                crate::hostile::update(&attributes, prefix)
            };
            script.hear(connection, &told(&[2, 1, 0, 0, 0, 9], &[8, 20]));
            script.hear(connection, &told(&[2, 1, 0, 0, 0xfd, 0xe9], &[8, 30]));
            assert_eq!(script.speaker.routes().len(), 2);
            if stage == Stage::Retained {
                script.open.retain(|(open, _)| *open != connection);
                script.speaker.closed(connection, "gone".to_owned(), script.now);
            }
            change(&mut script.peers[0]);
            script.speaker.set_peers(script.peers.clone(), script.now);
            script.act();
            let held: Vec<String> =
                script.speaker.routes().iter().map(|route| route.prefix.to_string()).collect();
            // Who is there and can be asked tells everything again.
            let is_asked = stage == Stage::Established && name.contains("way");
            assert_eq!(held, if is_asked { &["20.0.0.0/8", "30.0.0.0/8"] } else { left }, "{stage:?} {name}");
        }
    }
}

#[test]
fn the_speakers_own_settings_change_in_every_state_and_reset_only_what_they_must() {
    type Own = (&'static str, Effect, fn(&mut SpeakerConfig));
    let changes: [Own; 5] = [
        ("router_id", Reset, |own| own.router_id = "10.0.0.99".parse().unwrap()),
        ("cluster_id", Soft, |own| own.cluster_id = Some([1, 0, 0, 1].into())),
        ("local_as", Soft, |own| own.local_as = asn(65009)),
        ("default_local_pref", Soft, |own| own.default_local_pref = 7),
        ("batching", Soft, |own| own.batching = Duration::from_millis(50)),
    ];
    for stage in STAGES {
        for (name, effect, change) in changes {
            let mut script = Script::new();
            script.reach(stage);
            let mut own = script.speaker.config().clone();
            change(&mut own);
            script.speaker.set_config(own.clone(), script.now);
            script.act();
            assert_eq!(script.speaker.config(), &own, "{stage:?} {name}");
            for (peer, connected) in
                [(PEER, stage >= Stage::OpenSent && stage != Stage::Retained), (OTHER, true)]
            {
                let was_reset = script.closed.contains(&ip(peer));
                assert_eq!(was_reset, effect == Reset && connected, "{stage:?} {name}: {peer}");
            }
            script.come_up();
            if effect == Reset {
                script.establish(OTHER);
            }
            assert_eq!(script.state(OTHER), State::Established, "{stage:?} {name}");
        }
    }
}

#[test]
fn a_peer_that_is_removed_and_comes_again_in_any_state_is_a_new_one() {
    for stage in STAGES {
        let mut script = Script::new();
        script.reach(stage);
        let peers = script.peers.clone();
        script.speaker.set_peers(vec![peers[1].clone()], script.now);
        script.act();
        assert!(!script.open.iter().any(|(_, to)| *to == ip(PEER)), "{stage:?}");
        assert_eq!(script.speaker.status().len(), 1, "{stage:?}");
        script.dialing.clear();
        script.speaker.set_peers(peers, script.now);
        script.act();
        script.establish(PEER);
        assert_eq!(script.state(OTHER), State::Established, "{stage:?}");
    }
}
