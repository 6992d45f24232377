//! A peer that says things it should not: what it gets, and that nobody else notices.

use std::time::Instant;

use calico_bgp::family::FamilySet;
use calico_bgp::session::{ConnectionId, Peering, State};
use calico_bgp::speaker::{MaxPrefixes, Reflection};
use calico_bgp::wire::{self, Dialect, MessageType, Notification, Open, Update};
use calico_bgp::{Action, PeerConfig, Speaker};

use crate::world::{asn, beginning, ip, settings};

const US: &str = "10.0.0.1";
pub(crate) const EVIL: &str = "10.0.0.66";
pub(crate) const GOOD: &str = "10.0.0.2";

/// Our speaker with two eBGP peers that are nothing but octets.
pub(crate) struct Rig {
    pub(crate) speaker: Speaker,
    pub(crate) now: Instant,
    peers: Vec<PeerConfig>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let now = beginning();
        let mut speaker = Speaker::new(settings(US, 65001), now);
        let peer = |address: &str, remote_as| {
            let mut peer = PeerConfig::new(ip(address), asn(remote_as), asn(65001));
            peer.initiation = calico_bgp::session::Initiation::Passive;
            peer.max_prefixes = Some(MaxPrefixes::new(100));
            peer
        };
        let peers = vec![peer(EVIL, 65066), peer(GOOD, 65002)];
        speaker.set_peers(peers.clone(), now);
        Self { speaker, now, peers }
    }

    /// Changes the settings of a peer.
    pub(crate) fn change(&mut self, peer: &str, change: impl Fn(&mut PeerConfig)) {
        self.peers.iter_mut().filter(|config| config.address == ip(peer)).for_each(change);
        self.speaker.set_peers(self.peers.clone(), self.now);
    }

    pub(crate) fn accept(&mut self, from: &str) -> ConnectionId {
        let connection = self.speaker.accept(ip(from), ip(US), self.now).unwrap();
        self.sent(connection);
        connection
    }

    pub(crate) fn receive(&mut self, connection: ConnectionId, octets: &[u8]) {
        self.speaker.receive(connection, octets, self.now);
    }

    pub(crate) fn open(&self, remote_as: u32, id: &str) -> Vec<u8> {
        Open {
            asn: asn(remote_as),
            hold_time: wire::HoldTime::SUGGESTED,
            router_id: id.parse().unwrap(),
            capabilities: wire::Capabilities { four_octet_as: Some(asn(remote_as)), ..Default::default() },
        }
        .encode()
    }

    pub(crate) fn establish(&mut self, from: &str, remote_as: u32) -> ConnectionId {
        let connection = self.accept(from);
        let open = self.open(remote_as, from);
        self.receive(connection, &open);
        self.receive(connection, &wire::keepalive());
        self.sent(connection);
        assert_eq!(self.state(from), State::Established);
        connection
    }

    pub(crate) fn state(&self, peer: &str) -> State {
        self.speaker.status().into_iter().find(|status| status.address == ip(peer)).unwrap().state
    }

    /// Everything that is sent on a connection, as messages.
    pub(crate) fn sent(&mut self, connection: ConnectionId) -> Vec<(MessageType, Vec<u8>)> {
        while self.speaker.poll().is_some_and(|action| !matches!(action, Action::Close(_))) {}
        let mut messages = Vec::new();
        loop {
            let mut octets = Vec::new();
            self.speaker.transmit(connection, &mut octets, self.now);
            if octets.is_empty() {
                return messages;
            }
            let mut rest = &octets[..];
            while let Some(frame) = wire::frame(rest, wire::MAX_MESSAGE).unwrap() {
                messages.push((frame.kind, frame.body.to_vec()));
                rest = &rest[frame.len..];
            }
        }
    }

    pub(crate) fn notification(&mut self, connection: ConnectionId) -> Option<Notification> {
        self.sent(connection)
            .into_iter()
            .find(|(kind, _)| *kind == MessageType::Notification)
            .map(|(_, body)| wire::read_notification(&body))
    }
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&((19 + body.len()) as u16).to_be_bytes());
    octets.push(kind);
    octets.extend_from_slice(body);
    octets
}

/// An UPDATE that announces prefixes with these attributes.
pub(crate) fn update(attributes: &[u8], prefixes: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    body.extend_from_slice(attributes);
    body.extend_from_slice(prefixes);
    message(2, &body)
}

pub(crate) fn good_attributes(remote_as: u16) -> Vec<u8> {
    let [high, low] = remote_as.to_be_bytes();
    vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, high, low, 0x40, 3, 4, 10, 0, 0, 66]
}

#[test]
fn a_bad_announcement_takes_its_prefix_away_and_the_session_stays() {
    let mut rig = Rig::new();
    let evil = rig.establish(EVIL, 65066);
    rig.receive(evil, &update(&good_attributes(65066), &[8, 20]));
    assert_eq!(rig.speaker.learned().unwrap().len(), 1);
    // The origin is 9 now.
    let mut bad = good_attributes(65066);
    bad[3] = 9;
    rig.receive(evil, &update(&bad, &[8, 20, 8, 21]));
    assert!(rig.speaker.learned().unwrap().is_empty());
    assert_eq!(rig.state(EVIL), State::Established);
    let status = &rig.speaker.status()[1];
    assert_eq!(status.last_fault.as_deref(), Some("path attribute 1: the origin is not one of three"));
    assert_eq!(status.counters.faults_in, 1);
}

#[test]
fn routes_that_have_been_here_or_lead_here_are_not_taken() {
    let mut rig = Rig::new();
    let evil = rig.establish(EVIL, 65066);
    let own_as =
        vec![0x40, 1, 1, 0, 0x40, 2, 10, 2, 2, 0, 0, 0xfe, 0x2a, 0, 0, 0xfd, 0xe9, 0x40, 3, 4, 10, 0, 0, 66];
    rig.receive(evil, &update(&own_as, &[8, 20]));
    let mut own_address = good_attributes(65066);
    own_address[19] = 1;
    rig.receive(evil, &update(&own_address, &[8, 21]));
    assert!(rig.speaker.learned().unwrap().is_empty());
    assert_eq!(rig.state(EVIL), State::Established);
}

#[test]
fn each_next_hop_of_an_update_is_looked_at_and_every_address_of_ours_is_one() {
    const ANOTHER: [u8; 4] = [10, 0, 0, 66];
    const OWN: [u8; 4] = [10, 0, 0, 1];
    const OTHER_OWN: [u8; 4] = [10, 9, 9, 9];
    for (plain, mp, taken) in [
        (ANOTHER, ANOTHER, &["20.0.0.0/8", "21.0.0.0/8"][..]),
        (ANOTHER, OWN, &["20.0.0.0/8"]),
        (ANOTHER, OTHER_OWN, &["20.0.0.0/8"]),
        (OWN, ANOTHER, &["21.0.0.0/8"]),
        (OWN, OTHER_OWN, &[]),
    ] {
        let mut rig = Rig::new();
        rig.change(EVIL, |peer| peer.other_next_hop = Some(OTHER_OWN.into()));
        let evil = rig.establish(EVIL, 65066);
        let mut attributes = good_attributes(65066);
        attributes[16..].copy_from_slice(&plain);
        // 21.0.0.0/8 in MP_REACH_NLRI.
        attributes.extend_from_slice(&[0x80, 14, 11, 0, 1, 1, 4]);
        attributes.extend_from_slice(&mp);
        attributes.extend_from_slice(&[0, 8, 21]);
        rig.receive(evil, &update(&attributes, &[8, 20]));
        let held: Vec<String> = rig.speaker.learned().unwrap().keys().map(ToString::to_string).collect();
        assert_eq!(held, taken, "{plain:?} {mp:?}");
        let status = rig.speaker.status().into_iter().find(|status| status.address == ip(EVIL)).unwrap();
        let refused = 2 - taken.len() as u64;
        assert_eq!(status.counters.rejected_in, refused, "{plain:?} {mp:?}");
        assert_eq!(status.counters.refused_in, refused.min(1), "one UPDATE");
        assert_eq!(status.last_refusal.is_some(), refused > 0);
    }
}

#[test]
fn a_prefix_that_no_packets_can_be_sent_to_is_left_out_and_the_others_are_taken() {
    let mut rig = Rig::new();
    rig.change(EVIL, |peer| peer.families = FamilySet::BOTH);
    let evil = rig.accept(EVIL);
    let open = Open {
        asn: asn(65066),
        hold_time: wire::HoldTime::SUGGESTED,
        router_id: EVIL.parse().unwrap(),
        capabilities: wire::Capabilities {
            four_octet_as: Some(asn(65066)),
            families: Some(FamilySet::BOTH),
            ..Default::default()
        },
    };
    rig.receive(evil, &open.encode());
    rig.receive(evil, &wire::keepalive());
    let mut rejected = 0;
    let mut told = |told: &[u8], v6: Option<&[u8]>| {
        let mut attributes = good_attributes(65066);
        if let Some(prefixes) = v6 {
            let next_hop = "2001:db8::66".parse::<std::net::Ipv6Addr>().unwrap().octets();
            let value = [&[0, 2, 1, 16][..], &next_hop, &[0], prefixes].concat();
            attributes.extend([&[0x80, 14, value.len() as u8][..], &value].concat());
        }
        rig.receive(evil, &update(&attributes, told));
        assert_eq!(rig.state(EVIL), State::Established);
        let held: Vec<String> = rig.speaker.learned().unwrap().keys().map(ToString::to_string).collect();
        let status = rig.speaker.status().into_iter().find(|status| status.address == ip(EVIL)).unwrap();
        let refused =
            status.counters.rejected_in - std::mem::replace(&mut rejected, status.counters.rejected_in);
        (held, refused, status.last_refusal)
    };
    let (held, refused, why) = told(&[4, 224, 8, 20], None);
    assert_eq!((held, refused), (vec!["20.0.0.0/8".to_owned()], 1));
    assert_eq!(why.as_deref(), Some("no packets can be sent to 224.0.0.0/4 by way of a router"));
    let impossible: &[u8] =
        &[24, 239, 1, 2, 8, 127, 32, 127, 0, 0, 1, 8, 0, 16, 0, 9, 32, 255, 255, 255, 255, 3, 224];
    assert_eq!(told(impossible, None).1, 7);
    // The halves of everything, as the whole, hold more than what is impossible; what was reserved once is in use.
    let (held, refused, _) = told(&[0, 1, 0, 1, 128, 7, 126, 4, 240], None);
    assert_eq!((held.len(), refused), (6, 0));
    let v6 = |octets: &[u8], len: u8| {
        let mut prefix = vec![len];
        prefix.extend((0..usize::from(len).div_ceil(8)).map(|at| octets.get(at).copied().unwrap_or(0)));
        prefix
    };
    let one = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let all = [
        v6(&[0xff], 8),
        v6(&[0xff, 2], 128),
        v6(&one, 128),
        v6(&[], 128),
        v6(&[0xfe, 0x80], 10),
        v6(&[0xfe, 0x80], 64),
    ];
    let (held, refused, why) = told(&[], Some(&all.concat()));
    assert_eq!((held.len(), refused), (6, 6));
    assert_eq!(why.as_deref(), Some("no packets can be sent to fe80::/64 by way of a router"));
    let good = [v6(&[], 0), v6(&[0xfd], 8), v6(&[0x20], 3), v6(&[], 127), v6(&[0xfe, 0xc0], 10)];
    let (held, refused, _) = told(&[], Some(&good.concat()));
    assert_eq!((held.len(), refused), (11, 0));
}

/// A peer of the own AS owes it (RFC 4271 section 5.1.5).
#[test]
fn a_route_that_came_without_a_preference_is_chosen_by_what_others_are_told() {
    let mut rig = Rig::new();
    for peer in [EVIL, GOOD] {
        rig.change(peer, |peer| {
            peer.remote_as = asn(65001);
            peer.reflection = Reflection::Client;
            peer.default_local_pref = Some(700);
        });
    }
    let evil = rig.establish(EVIL, 65001);
    let good = rig.establish(GOOD, 65001);
    rig.receive(evil, &update(&good_attributes(65066), &[8, 20]));
    let mut less = good_attributes(65066);
    less[19] = 67;
    less.extend_from_slice(&[0x40, 5, 4, 0, 0, 2, 0x58]);
    rig.receive(good, &update(&less, &[8, 20]));
    let learned = rig.speaker.learned().unwrap();
    assert!(learned.values().all(|route| route.next_hops.contains(&ip(EVIL))), "700 is more than 600");
    rig.now += std::time::Duration::from_secs(1);
    rig.speaker.timeout(rig.now);
    let told = rig.sent(good).into_iter().filter(|(kind, _)| *kind == MessageType::Update);
    let preferences = told.filter_map(|(_, body)| {
        let update = Update::decode(&body, &Dialect::plain(Peering::Internal)).unwrap();
        update.attributes?.local_pref
    });
    assert_eq!(preferences.collect::<Vec<_>>(), [700]);
}

#[test]
fn what_cannot_be_followed_ends_the_session_with_the_right_notification_and_no_other() {
    let cases: Vec<(&str, Vec<u8>, (u8, u8))> = vec![
        ("no marker", vec![0; 19], (1, 1)),
        ("keepalive of 20 octets", message(4, &[0]), (1, 2)),
        ("unknown type", message(99, &[]), (1, 3)),
        ("second OPEN", Rig::new().open(65066, EVIL), (5, 3)),
        ("withdrawn length past the end", message(2, &[0, 99, 0, 0]), (3, 1)),
        ("prefix of 33 bits", update(&good_attributes(65066), &[33, 1, 1, 1, 1, 1]), (3, 10)),
        ("refresh of 3 octets", message(5, &[0, 1, 0]), (7, 1)),
    ];
    for (name, octets, expected) in cases {
        let mut rig = Rig::new();
        let good = rig.establish(GOOD, 65002);
        let evil = rig.establish(EVIL, 65066);
        rig.receive(good, &update(&good_attributes(65002), &[8, 30]));
        rig.receive(evil, &update(&good_attributes(65066), &[8, 20]));
        rig.receive(evil, &octets);
        assert_eq!(rig.notification(evil).map(|n| n.kind()), Some(expected), "{name}");
        assert_ne!(rig.state(EVIL), State::Established, "{name}");
        assert_eq!(rig.state(GOOD), State::Established, "{name}");
        assert_eq!(rig.speaker.learned().unwrap().len(), 1, "{name}: the other peer's route stays");
    }
}

#[test]
fn one_prefix_too_many_ends_the_session_and_says_the_limit() {
    let mut rig = Rig::new();
    let evil = rig.establish(EVIL, 65066);
    let prefixes: Vec<u8> = (0..100).flat_map(|n| [16, 20, n]).collect();
    rig.receive(evil, &update(&good_attributes(65066), &prefixes));
    rig.receive(evil, &update(&good_attributes(65066), &prefixes));
    assert_eq!(rig.state(EVIL), State::Established, "the same prefixes again are not more");
    rig.receive(evil, &update(&good_attributes(65066), &[16, 21, 0]));
    let notification = rig.notification(evil).unwrap();
    assert_eq!(notification.kind(), (6, 1));
    assert_eq!(notification.data, [0, 1, 1, 0, 0, 0, 100]);
    assert!(rig.speaker.learned().unwrap().is_empty());
}

#[test]
fn an_unknown_address_is_refused_and_half_open_connections_do_not_pile_up() {
    let mut rig = Rig::new();
    assert!(rig.speaker.accept(ip("10.0.0.99"), ip(US), rig.now).is_err());
    let good = rig.establish(GOOD, 65002);
    let connections: Vec<ConnectionId> = (0..1000).map(|_| rig.accept(EVIL)).collect();
    let mut live = 0;
    for connection in connections {
        let open = rig.open(65066, EVIL);
        rig.receive(connection, &open[..10]);
        rig.receive(connection, &open[10..]);
        live += usize::from(rig.sent(connection).iter().any(|(kind, _)| *kind == MessageType::Keepalive));
    }
    assert_eq!(live, 1, "each new connection takes the place of the one before");
    rig.receive(good, &wire::keepalive());
    assert_eq!(rig.state(GOOD), State::Established);
}

#[test]
fn messages_in_any_portions_mean_the_same() {
    let mut stream = Vec::new();
    for n in 0..50 {
        stream.extend(update(&good_attributes(65066), &[16, 20, n]));
        stream.extend(wire::keepalive());
    }
    for portion in [1, 7, 19, 64, 1000] {
        let mut rig = Rig::new();
        let evil = rig.establish(EVIL, 65066);
        stream.chunks(portion).for_each(|octets| rig.receive(evil, octets));
        assert_eq!(rig.speaker.learned().unwrap().len(), 50, "portions of {portion}");
    }
}
