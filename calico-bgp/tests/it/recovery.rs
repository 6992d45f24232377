//! A speaker that has started again waits for what its peers have to tell before it chooses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use calico_bgp::family::{FamilySet, PerFamily};
use calico_bgp::session::{ConnectionId, State};
use calico_bgp::speaker::Reflection;
use calico_bgp::wire::open::{Feature, Forwarding, GracefulRestart, OnNotification, RestartState};
use calico_bgp::wire::{self, Capabilities, HoldTime, Open};
use calico_bgp::{Action, PeerConfig, Speaker, Start};

use crate::world::{asn, beginning, ip, settings};

const US: &str = "10.0.0.1";
const PEER: &str = "10.0.0.2";
/// End-of-RIB of IPv4 (RFC 4724 section 2): an UPDATE of nothing.
const END_OF_RIB: [u8; 23] = {
    let mut message = [0xff; 23];
    (message[16], message[17], message[18]) = (0, 23, 2);
    (message[19], message[20], message[21], message[22]) = (0, 0, 0, 0);
    message
};

/// A speaker that recovers and has a session with a peer that says this of graceful restart, and that has told nothing.
fn meet(graceful_restart: Option<GracefulRestart>) -> (Speaker, ConnectionId) {
    let now = beginning();
    let mut config = settings(US, 65001);
    config.start = Start::Recovering;
    let mut speaker = Speaker::new(config, now);
    speaker.set_originated(BTreeMap::new(), now);
    speaker.set_peers(vec![PeerConfig::new(ip(PEER), asn(65001), asn(65001))], now);
    let dialed = |action| if let Action::Dial { connection, .. } = action { Some(connection) } else { None };
    let connection = std::iter::from_fn(|| speaker.poll()).find_map(dialed).unwrap();
    speaker.connected(connection, ip(US), now);
    say_open(&mut speaker, connection, graceful_restart, now);
    assert_eq!(speaker.status()[0].state, State::Established);
    assert!(settled(&mut speaker) || graceful_restart.is_some());
    (speaker, connection)
}

/// The peer's OPEN and its KEEPALIVE.
fn say_open(
    speaker: &mut Speaker,
    connection: ConnectionId,
    graceful_restart: Option<GracefulRestart>,
    now: Instant,
) {
    let open = Open {
        asn: asn(65001),
        hold_time: HoldTime::CALICO,
        router_id: PEER.parse().unwrap(),
        capabilities: Capabilities {
            families: Some(FamilySet::V4),
            four_octet_as: Some(asn(65001)),
            features: [Feature::RouteRefresh].into(),
            graceful_restart,
            ..Capabilities::default()
        },
    };
    speaker.receive(connection, &open.encode(), now);
    speaker.receive(connection, &wire::keepalive(), now);
}

/// Reports whether a speaker has chosen.
fn settled(speaker: &mut Speaker) -> bool {
    while speaker.poll().is_some() {}
    speaker.learned().is_some()
}

fn says(state: RestartState, v4: Option<Forwarding>) -> Option<GracefulRestart> {
    let families = PerFamily { v4, v6: None };
    Some(GracefulRestart { restart_time: 120, state, on_notification: OnNotification::Drop, families })
}

#[test]
fn every_peer_that_knows_graceful_restart_is_waited_for_whatever_it_preserves_itself() {
    for (what, graceful_restart, waits) in [
        ("it preserves routes", says(RestartState::Fresh, Some(Forwarding::Preserved)), true),
        ("it has lost them", says(RestartState::Fresh, Some(Forwarding::Lost)), true),
        (
            "it only helps others, as BIRD and FRR do unless told otherwise",
            says(RestartState::Fresh, None),
            true,
        ),
        ("it has started again as well", says(RestartState::Restarting, Some(Forwarding::Preserved)), false),
        ("it knows nothing of it", None, false),
    ] {
        let (mut speaker, connection) = meet(graceful_restart);
        assert_eq!(settled(&mut speaker), !waits, "{what}");
        speaker.receive(connection, &END_OF_RIB, beginning());
        assert!(settled(&mut speaker), "{what}");
    }
}

#[test]
fn a_peer_that_is_lost_before_it_has_told_everything_is_still_waited_for_briefly() {
    let now = beginning();
    for (told, waits) in [(false, true), (true, false)] {
        let (mut speaker, connection) = meet(says(RestartState::Fresh, Some(Forwarding::Preserved)));
        if told {
            speaker.receive(connection, &END_OF_RIB, now);
        }
        speaker.closed(connection, "reset".to_owned(), now);
        assert_eq!(settled(&mut speaker), !waits, "told: {told}");
        speaker.timeout(now + Duration::from_secs(13));
        assert!(settled(&mut speaker), "told: {told}");
    }
}

#[test]
fn a_session_that_replaces_another_is_up_since_then() {
    let (mut speaker, _) = meet(says(RestartState::Fresh, None));
    let later = beginning() + Duration::from_secs(20);
    let anew = speaker.accept(ip(PEER), ip(US), later).unwrap();
    say_open(&mut speaker, anew, says(RestartState::Restarting, None), later);
    let status = &speaker.status()[0];
    assert_eq!((status.state, status.since), (State::Established, later));
}

#[test]
fn a_peer_that_becomes_a_client_while_routes_are_awaited_is_told_nothing_yet() {
    let (mut speaker, connection) = meet(says(RestartState::Fresh, None));
    let drain = |speaker: &mut Speaker| {
        let mut heard = Vec::new();
        speaker.offer(connection, beginning(), |octets| {
            heard.extend_from_slice(octets);
            octets.len()
        });
        heard
    };
    while !drain(&mut speaker).is_empty() {}
    let mut peer = PeerConfig::new(ip(PEER), asn(65001), asn(65001));
    peer.reflection = Reflection::Client;
    speaker.set_peers(vec![peer], beginning());
    assert!(drain(&mut speaker).is_empty(), "an End-of-RIB would have it flush what it keeps for us");
    speaker.receive(connection, &END_OF_RIB, beginning());
    assert!(settled(&mut speaker));
    assert_eq!(drain(&mut speaker), END_OF_RIB);
}
