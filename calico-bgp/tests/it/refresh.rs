//! Tables that a peer tells again between two marks (RFC 7313).

use std::time::Duration;

use calico_bgp::family::{FamilySet, PerFamily};
use calico_bgp::session::{ConnectionId, State};
use calico_bgp::wire::open::{Feature, Forwarding, GracefulRestart, OnNotification, RestartState};
use calico_bgp::wire::{self, Capabilities, HoldTime, MessageType, Open, Refresh};
use calico_model::Family;

use crate::hostile::{EVIL, GOOD, Rig, good_attributes, message, update};
use crate::world::asn;

const BEGIN: Refresh = Refresh::Begin(Family::V4);
const END: Refresh = Refresh::End(Family::V4);

/// A session with a peer that knows the marks, and graceful restart or not.
fn meet(restarts: bool) -> (Rig, ConnectionId) {
    let mut rig = Rig::new();
    let connection = establish(&mut rig, restarts);
    (rig, connection)
}

/// The same with a speaker that is there already.
pub(crate) fn establish(rig: &mut Rig, restarts: bool) -> ConnectionId {
    establish_with(rig, restarts, &[Feature::RouteRefresh, Feature::EnhancedRouteRefresh])
}

pub(crate) fn establish_with(rig: &mut Rig, restarts: bool, features: &[Feature]) -> ConnectionId {
    let connection = rig.accept(EVIL);
    let graceful_restart = restarts.then_some(GracefulRestart {
        restart_time: 120,
        state: RestartState::Fresh,
        on_notification: OnNotification::Keep,
        families: PerFamily { v4: Some(Forwarding::Preserved), v6: None },
    });
    let open = Open {
        asn: asn(65066),
        hold_time: HoldTime::CALICO,
        router_id: EVIL.parse().unwrap(),
        capabilities: Capabilities {
            families: Some(FamilySet::V4),
            four_octet_as: Some(asn(65066)),
            features: features.iter().copied().collect(),
            graceful_restart,
            ..Capabilities::default()
        },
    };
    rig.receive(connection, &open.encode());
    rig.receive(connection, &wire::keepalive());
    rig.sent(connection);
    assert_eq!(rig.state(EVIL), State::Established);
    connection
}

/// The peer tells these networks, of 8 bits each.
fn tell(rig: &mut Rig, connection: ConnectionId, networks: &[u8]) {
    let prefixes: Vec<u8> = networks.iter().flat_map(|network| [8, *network]).collect();
    rig.receive(connection, &update(&good_attributes(65066), &prefixes));
}

fn tell_again(rig: &mut Rig, connection: ConnectionId, networks: &[u8]) {
    rig.receive(connection, &wire::refresh(BEGIN));
    tell(rig, connection, networks);
    rig.receive(connection, &wire::refresh(END));
}

fn held(rig: &Rig) -> Vec<String> {
    rig.speaker.learned().unwrap().keys().map(ToString::to_string).collect()
}

fn pass(rig: &mut Rig, seconds: u64) {
    rig.now += Duration::from_secs(seconds);
    rig.speaker.timeout(rig.now);
}

/// How often the peer was asked to tell everything.
fn questions(rig: &mut Rig, connection: ConnectionId) -> usize {
    let request = wire::refresh(Refresh::Request(Family::V4))[19..].to_vec();
    let is_one =
        |(kind, body): &(MessageType, Vec<u8>)| *kind == MessageType::RouteRefresh && *body == request;
    rig.sent(connection).iter().filter(|message| is_one(message)).count()
}

#[test]
fn what_is_not_told_between_the_marks_goes_with_the_second() {
    for networks in [&[20][..], &[20, 22], &[]] {
        let (mut rig, peer) = meet(false);
        tell(&mut rig, peer, &[20, 21]);
        rig.receive(peer, &wire::refresh(BEGIN));
        assert_eq!(held(&rig).len(), 2, "all are kept meanwhile");
        tell(&mut rig, peer, networks);
        rig.receive(peer, &wire::refresh(END));
        let told: Vec<String> = networks.iter().map(|network| format!("{network}.0.0.0/8")).collect();
        assert_eq!(held(&rig), told);
        assert_eq!(rig.speaker.status()[1].prefixes_in.v4 as usize, networks.len());
    }
}

#[test]
fn a_second_mark_without_a_first_says_nothing() {
    let (mut rig, peer) = meet(false);
    tell(&mut rig, peer, &[20, 21]);
    rig.receive(peer, &wire::refresh(END));
    assert_eq!(held(&rig).len(), 2);
    tell_again(&mut rig, peer, &[20, 21]);
    rig.receive(peer, &wire::refresh(END));
    assert_eq!(held(&rig).len(), 2);
}

#[test]
fn who_restarts_gracefully_has_to_tell_everything_once_before_its_marks_count() {
    let (mut rig, peer) = meet(true);
    tell(&mut rig, peer, &[20, 21]);
    tell_again(&mut rig, peer, &[20]);
    assert_eq!(held(&rig).len(), 2, "before its End-of-RIB");
    rig.receive(peer, &message(2, &[0, 0, 0, 0]));
    tell_again(&mut rig, peer, &[20]);
    assert_eq!(held(&rig), ["20.0.0.0/8"]);
}

#[test]
fn marks_that_follow_one_another_too_fast_do_not_count_and_the_peer_is_asked_once_more() {
    let (mut rig, peer) = meet(false);
    tell(&mut rig, peer, &[20, 21, 22]);
    tell_again(&mut rig, peer, &[20, 21]);
    assert_eq!(held(&rig).len(), 2);
    for _ in 0..1000 {
        tell_again(&mut rig, peer, &[20]);
    }
    assert_eq!(held(&rig).len(), 2, "each would cost two walks over the table");
    assert_eq!(questions(&mut rig, peer), 0);
    pass(&mut rig, 1);
    assert_eq!(questions(&mut rig, peer), 1);
    tell_again(&mut rig, peer, &[20]);
    assert_eq!(held(&rig), ["20.0.0.0/8"]);
    pass(&mut rig, 10);
    assert_eq!(questions(&mut rig, peer), 0, "it is asked only when something was missed");
}

#[test]
fn a_table_that_begins_anew_before_its_end_is_asked_for_once_more() {
    let (mut rig, peer) = meet(false);
    tell(&mut rig, peer, &[20, 21, 22]);
    rig.receive(peer, &wire::refresh(BEGIN));
    tell(&mut rig, peer, &[20, 21]);
    tell_again(&mut rig, peer, &[20]);
    assert_eq!(held(&rig).len(), 2, "what was not told since the first mark is gone");
    pass(&mut rig, 1);
    assert_eq!(questions(&mut rig, peer), 1);
}

#[test]
fn a_table_that_never_ends_is_taken_as_told_after_three_minutes() {
    let (mut rig, peer) = meet(false);
    tell(&mut rig, peer, &[20, 21]);
    rig.receive(peer, &wire::refresh(BEGIN));
    tell(&mut rig, peer, &[20]);
    pass(&mut rig, 179);
    assert_eq!(held(&rig).len(), 2);
    pass(&mut rig, 1);
    assert_eq!(held(&rig), ["20.0.0.0/8"]);
    assert_eq!(rig.state(EVIL), State::Established);
}

#[test]
fn who_is_back_at_the_last_moment_has_the_whole_time_for_its_table() {
    for tells in [true, false] {
        let mut rig = Rig::new();
        let mut peer = establish(&mut rig, true);
        tell(&mut rig, peer, &[20, 21]);
        for (away, back) in [(0, 5), (170, 120)] {
            pass(&mut rig, away);
            rig.speaker.closed(peer, "reset".to_owned(), rig.now);
            pass(&mut rig, back - 1);
            rig.now += Duration::from_secs(1);
            peer = establish(&mut rig, true);
        }
        // 295 seconds after it went; one restart and one table are 300.
        pass(&mut rig, 100);
        assert_eq!(held(&rig).len(), 2);
        if tells {
            tell(&mut rig, peer, &[20]);
            rig.receive(peer, &message(2, &[0, 0, 0, 0]));
            assert_eq!(held(&rig), ["20.0.0.0/8"]);
        } else {
            rig.speaker.closed(peer, "reset".to_owned(), rig.now);
            assert!(held(&rig).is_empty(), "it is not waited for any more");
        }
    }
}

#[test]
fn who_knows_the_marks_alone_is_asked_as_well() {
    let mut rig = Rig::new();
    let peer = establish_with(&mut rig, false, &[Feature::EnhancedRouteRefresh]);
    tell(&mut rig, peer, &[20, 21, 22]);
    tell_again(&mut rig, peer, &[20, 21]);
    tell_again(&mut rig, peer, &[20]);
    pass(&mut rig, 1);
    assert_eq!(questions(&mut rig, peer), 1);
    tell_again(&mut rig, peer, &[20]);
    assert_eq!(held(&rig), ["20.0.0.0/8"]);
}

#[test]
fn who_begins_twice_each_time_is_asked_ever_more_rarely() {
    let (mut rig, peer) = meet(false);
    let twice = |rig: &mut Rig| {
        rig.receive(peer, &wire::refresh(BEGIN));
        tell_again(rig, peer, &[20]);
    };
    tell(&mut rig, peer, &[20, 21]);
    twice(&mut rig);
    let mut asked = 0;
    for _ in 0..600 {
        pass(&mut rig, 1);
        if questions(&mut rig, peer) > 0 {
            asked += 1;
            twice(&mut rig);
        }
        if rig.now.duration_since(crate::world::beginning()).as_secs().is_multiple_of(30) {
            rig.receive(peer, &wire::keepalive());
        }
    }
    assert!((7..20).contains(&asked), "{asked} times in ten minutes");
    // One that does it well is asked at once the next time.
    pass(&mut rig, 64);
    rig.sent(peer);
    tell_again(&mut rig, peer, &[20]);
    pass(&mut rig, 64);
    assert_eq!(questions(&mut rig, peer), 0);
    twice(&mut rig);
    pass(&mut rig, 1);
    assert_eq!(questions(&mut rig, peer), 1);
}

#[test]
fn who_asks_to_be_told_everything_again_and_again_is_told_it_to_the_end_and_once_more() {
    const ROUTES: u32 = 60_000;
    let (mut rig, peer) = meet(false);
    rig.change(GOOD, |peer| peer.max_prefixes = None);
    let good = rig.establish(GOOD, 65002);
    for from in (0..ROUTES).step_by(500) {
        let prefixes =
            (from..from + 500).flat_map(|n| [&[32][..], &(0x1400_0000 + n).to_be_bytes()].concat());
        rig.receive(good, &update(&good_attributes(65002), &prefixes.collect::<Vec<u8>>()));
    }
    let take = |rig: &mut Rig, told: &mut Vec<u8>| {
        rig.now += Duration::from_millis(25);
        rig.speaker.timeout(rig.now);
        rig.speaker.offer(peer, rig.now, |octets| {
            // So slowly that it asks again before it has been told everything.
            let taken = octets.len().min(4096);
            told.extend_from_slice(&octets[..taken]);
            taken
        })
    };
    let drain = |rig: &mut Rig, told: &mut Vec<u8>| {
        let mut quiet = 0;
        while quiet < 100 {
            quiet = if take(rig, told) == 0 { quiet + 1 } else { 0 };
        }
    };
    let mut table = Vec::new();
    drain(&mut rig, &mut table);
    let mut told = Vec::new();
    for _ in 0..100 {
        rig.receive(peer, &wire::refresh(Refresh::Request(Family::V4)));
        take(&mut rig, &mut told);
    }
    drain(&mut rig, &mut told);
    let is_mark = |kind: MessageType, body: &[u8], mark| {
        kind == MessageType::RouteRefresh && *body == wire::refresh(mark)[19..]
    };
    let (mut marks, mut rest) = (Vec::new(), &told[..]);
    let mut last = false;
    while let Some(frame) = wire::frame(rest, wire::MAX_MESSAGE).unwrap() {
        rest = &rest[frame.len..];
        let [begins, ends] = [BEGIN, END].map(|mark| is_mark(frame.kind, frame.body, mark));
        if begins || ends {
            marks.push(begins);
        }
        // What keeps the session alive says nothing of routes.
        last = ends || (last && frame.kind == MessageType::Keepalive);
    }
    assert!(last, "End-of-RR comes last");
    let pairs = marks.chunks(2).all(|pair| pair == [true, false]);
    assert!(pairs && marks.len() >= 4, "each time is told to its end: {marks:?}");
    // At once, after a second, after two, and what was asked for in the third.
    assert!(told.len() < 5 * table.len(), "{} of a table of {} octets", told.len(), table.len());
}
