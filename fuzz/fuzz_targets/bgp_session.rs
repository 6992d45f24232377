//! A whole speaker between one hostile peer, one that comes and goes, and one that behaves: whatever the first two do, the
//! last one's session and route stay, the counts are right, and memory is bounded by what is held.
#![no_main]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use calico_bgp::family::{FamilySet, PerFamily};
use calico_bgp::session::{ConnectionId, Initiation, State};
use calico_bgp::speaker::{DynamicPeers, MaxPrefixes};
use calico_bgp::wire::open::{AddPath, Feature, Forwarding, GracefulRestart, OnNotification, RestartState};
use calico_bgp::wire::{self, Capabilities, HoldTime, MAX_EXTENDED_MESSAGE, Open};
use calico_bgp::{Action, PeerConfig, Speaker, SpeakerConfig};
use calico_model::AsNumber;
use libfuzzer_sys::fuzz_target;

const US: [u8; 4] = [10, 0, 0, 1];
const GOOD: [u8; 4] = [10, 0, 0, 2];
const EVIL: [u8; 4] = [10, 0, 0, 66];
const STRANGER: [u8; 4] = [10, 9, 0, 1];

struct Rig {
    speaker: Speaker,
    now: Instant,
    evil: Vec<ConnectionId>,
    peers: Vec<PeerConfig>,
}

fn asn(number: u32) -> AsNumber {
    AsNumber::new(number).expect("not zero")
}

/// The OPEN of a peer that says of itself what the bits pick, and with none of them little.
fn open(number: u32, id: [u8; 4], bits: u8) -> Vec<u8> {
    let has = |bit: u8| bits & bit != 0;
    let mut capabilities = Capabilities { four_octet_as: Some(asn(number)).filter(|_| !has(1)), ..Capabilities::default() };
    let features = [
        (2, Feature::ExtendedMessages),
        (4, Feature::RouteRefresh),
        (4, Feature::EnhancedRouteRefresh),
        (8, Feature::ExtendedNextHop),
    ];
    capabilities.features = features.into_iter().filter(|(bit, _)| has(*bit)).map(|(_, feature)| feature).collect();
    if has(16) {
        capabilities.families = Some(FamilySet::BOTH);
    }
    if has(32) {
        capabilities.add_path = PerFamily { v4: AddPath::Both, v6: AddPath::Both };
    }
    capabilities.graceful_restart = has(64).then_some(GracefulRestart {
        restart_time: 120,
        state: if has(128) { RestartState::Restarting } else { RestartState::Fresh },
        on_notification: OnNotification::Keep,
        families: PerFamily { v4: Some(Forwarding::Preserved), v6: None },
    });
    Open {
        asn: asn(number),
        hold_time: HoldTime::new(0).expect("zero is a hold time"),
        router_id: IpAddr::from(id).to_string().parse().expect("an identifier"),
        capabilities,
    }
    .encode()
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        let id = IpAddr::from(US).to_string().parse().expect("an identifier");
        let mut speaker = Speaker::new(SpeakerConfig::new(asn(65001), id), now);
        let peer = |address: [u8; 4], number| {
            let mut peer = PeerConfig::new(address.into(), asn(number), asn(65001));
            peer.initiation = Initiation::Passive;
            peer.families = [calico_model::Family::V4, calico_model::Family::V6].into_iter().collect();
            peer
        };
        let mut evil = peer(EVIL, 65066);
        evil.max_prefixes = Some(MaxPrefixes::new(1000));
        let peers = vec![peer(GOOD, 65002), evil];
        speaker.set_peers(peers.clone(), now);
        let settings = peer(STRANGER, 65066);
        let prefix = "10.9.0.0/16".parse().expect("a prefix");
        speaker.set_dynamic_peers(vec![DynamicPeers { prefix, limit: 2, settings }], now);
        let good = speaker.accept(GOOD.into(), US.into(), now).expect("expected");
        speaker.receive(good, &open(65002, GOOD, 0), now);
        speaker.receive(good, &wire::keepalive(), now);
        let update = [
            &[0xff; 16][..],
            &[0, 45, 2, 0, 0, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea],
            &[0x40, 3, 4, 10, 0, 0, 2, 8, 99],
        ]
        .concat();
        speaker.receive(good, &update, now);
        Self { speaker, now, evil: Vec::new(), peers }
    }

    fn step(&mut self, op: u8, octets: &[u8]) {
        let now = self.now;
        let at = self.evil.len().checked_sub(1 + usize::from(op >> 4) % self.evil.len().max(1));
        let evil = at.map(|at| self.evil[at]);
        match (op & 0x0f, evil) {
            (0, _) => self.evil.extend(self.speaker.accept(EVIL.into(), US.into(), now).ok()),
            (1, _) => {
                let from = [10, 9, 0, octets.first().copied().unwrap_or_default()];
                self.evil.extend(self.speaker.accept(from.into(), US.into(), now).ok());
            }
            (2, Some(evil)) => {
                let bits = octets.first().copied().unwrap_or_default();
                self.speaker.receive(evil, &open(65066, EVIL, bits), now);
            }
            (3, Some(evil)) => self.speaker.receive(evil, &wire::keepalive(), now),
            (4, Some(evil)) => self.speaker.closed(evil, "gone".to_owned(), now),
            (5, _) => {
                self.now += Duration::from_millis(octets.iter().map(|o| u64::from(*o) * 100).sum());
                while self.speaker.deadline().is_some_and(|due| due <= self.now) {
                    let due = self.speaker.deadline().expect("just seen");
                    self.speaker.timeout(due.max(now));
                    // The good one takes what it is sent, at once.
                    self.drain();
                }
            }
            (6, _) => {
                let evil = &mut self.peers[1];
                match octets.first().copied().unwrap_or_default() % 6 {
                    0 => evil.allow_own_as ^= 1,
                    1 => evil.max_prefixes = Some(MaxPrefixes::new(octets.len() as u32)),
                    2 => evil.restart_time ^= 120,
                    3 => evil.reflection = calico_bgp::speaker::Reflection::NonClient,
                    4 => evil.add_path = calico_bgp::wire::open::AddPath::Both,
                    _ => evil.families = calico_bgp::family::FamilySet::BOTH,
                }
                self.speaker.set_peers(self.peers.clone(), now);
            }
            (7, _) => self.speaker.reset_peer(EVIL.into(), "again", now),
            // A message with a right header around what was made up; the last two are long.
            (8..=13, Some(evil)) => {
                let kind = [2, 2, 1, 5, 2, 2][usize::from(op & 0x0f) - 8];
                let mut message = vec![0xff; 16];
                message.extend_from_slice(&(19 + octets.len() as u16).to_be_bytes());
                message.push(kind);
                message.extend_from_slice(octets);
                self.speaker.receive(evil, &message, now);
            }
            (_, Some(evil)) => self.speaker.receive(evil, octets, now),
            (_, None) => {}
        }
        self.drain();
    }

    /// Takes everything that is to be sent and done.
    fn drain(&mut self) {
        let mut awake = Vec::new();
        while let Some(action) = self.speaker.poll() {
            match action {
                Action::Wake(connection) => awake.push(connection),
                Action::Close(connection) => self.evil.retain(|held| *held != connection),
                _ => {}
            }
        }
        let mut octets = Vec::new();
        for connection in awake {
            loop {
                octets.clear();
                self.speaker.transmit(connection, &mut octets, self.now);
                if octets.is_empty() {
                    break;
                }
            }
        }
    }

    fn check(&self) {
        let status = self.speaker.status();
        let routes = self.speaker.routes();
        for peer in &status {
            let held = routes.iter().filter(|route| route.peer == Some(peer.address)).count();
            assert_eq!(held, (peer.prefixes_in.v4 + peer.prefixes_in.v6) as usize, "{}", peer.address);
        }
        let good = status.iter().find(|peer| peer.address == IpAddr::from(GOOD)).expect("configured");
        assert_eq!(good.state, State::Established, "{:?}", good.last_error);
        let theirs = |route: &&calico_bgp::RouteStatus| route.peer == Some(GOOD.into());
        assert_eq!(routes.iter().filter(theirs).count(), 1, "its route stays");
        assert!(status.len() <= 4, "dynamic peers are bounded");
        assert!(self.evil.len() < 100, "connections are bounded: {}", self.evil.len());
        let begun: usize = status.iter().map(|peer| peer.octets_begun).sum();
        assert!(begun <= 2 * MAX_EXTENDED_MESSAGE * (1 + self.evil.len()), "{begun} octets of messages that are not whole");
        let held = self.speaker.octets_held();
        assert!(held <= 1 << 20, "{held} octets that nobody takes");
    }
}

fuzz_target!(|input: &[u8]| {
    let mut rig = Rig::new();
    rig.drain();
    rig.check();
    let mut rest = input;
    while let [op, len, tail @ ..] = rest {
        // The length of long messages is told in steps, so that the input need not be.
        let step = if matches!(op & 0x0f, 12 | 13) { 64 } else { 1 };
        let (octets, after) = tail.split_at(tail.len().min(step * usize::from(*len)));
        rig.step(*op, octets);
        rest = after;
    }
    rig.drain();
    rig.check();
});
