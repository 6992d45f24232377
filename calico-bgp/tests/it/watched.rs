//! Peers that BFD watches, and stations that watch the speaker.

use std::time::Duration;

use calico_bgp::bfd::{BfdConfig, Change, Diagnostic, WhenBroken};
use calico_bgp::{Action, Event};

use crate::hostile::{EVIL, Rig, good_attributes, message, update};
use crate::world::{World, ip};

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";
const C: &str = "10.0.0.3";

fn watched() -> World {
    let mut world = World::new();
    for address in [A, B, C] {
        world.add(address, 64512);
    }
    world.join_with(A, B, |peer| peer.bfd = Some(BfdConfig::default()));
    world.join(A, C);
    world.originate(B, &["192.168.0.0/26"]);
    world.originate(C, &["192.168.1.0/26"]);
    world.run_secs(5);
    world
}

fn watches(world: &World) -> Vec<String> {
    let of_a = |(at, action): &(_, Action)| {
        if let Action::Watch { peer, local, .. } = action {
            return (*at == ip(A)).then(|| format!("watch {peer} from {local}"));
        }
        let Action::Unwatch(peer) = action else { return None };
        (*at == ip(A)).then(|| format!("leave {peer}"))
    };
    world.others.iter().filter_map(of_a).collect()
}

#[test]
fn a_broken_path_ends_the_session_and_its_routes_at_once_although_restarts_are_graceful() {
    let mut world = watched();
    assert_eq!(watches(&world), ["watch 10.0.0.2 from 10.0.0.1"]);
    assert_eq!(world.learned(A).len(), 2);
    world.cut(A, B);
    let now = world.now;
    world.speaker(A).path_changed(ip(B), Change::Up, now);
    assert_eq!(world.learned(A).len(), 2);
    world.speaker(A).path_changed(ip(B), Change::Down(Diagnostic::DetectionTimeExpired), now);
    assert_eq!(world.learned_text(A), ["192.168.1.0/26 via 10.0.0.3"]);
    assert!(world.is_up(A, C));
    let status = world.speaker(A).status().into_iter().find(|status| status.address == ip(B)).unwrap();
    assert_eq!(status.last_error.as_deref(), Some("we closed the session: BFD session down (6/10)"));
    world.run_secs(10);
    assert_eq!(watches(&world)[1..], ["leave 10.0.0.2"]);
    world.mend(A, B);
    world.run_secs(300);
    assert!(world.is_up(A, B));
    assert_eq!(world.learned(A).len(), 2);
}

#[test]
fn a_broken_path_may_count_as_a_restart_where_bfd_restarts_together_with_bgp() {
    let mut world = watched();
    let mut peers = world.peers_of(A);
    let mut bfd = BfdConfig::default();
    bfd.when_broken = WhenBroken::Restart;
    peers[0].bfd = Some(bfd);
    world.set_peers(A, peers);
    let now = world.now;
    world.speaker(A).path_changed(ip(B), Change::Down(Diagnostic::DetectionTimeExpired), now);
    assert!(!world.is_up(A, B));
    assert_eq!(world.learned(A).len(), 2, "kept");
    let status = world.speaker(A).status().into_iter().find(|status| status.address == ip(B)).unwrap();
    let words = "connection lost: BFD says that nothing was heard for the detection time";
    assert_eq!(status.last_error.as_deref(), Some(words));
    world.run_secs(60);
    assert!(world.is_up(A, B));
    assert_eq!(world.learned(A).len(), 2);
}

#[test]
fn what_bfd_noticed_of_a_peer_that_is_watched_no_longer_says_nothing() {
    let mut world = watched();
    let mut peers = world.peers_of(A);
    peers[0].bfd = None;
    world.set_peers(A, peers);
    let now = world.now;
    world.speaker(A).path_changed(ip(B), Change::Down(Diagnostic::DetectionTimeExpired), now);
    assert!(world.is_up(A, B));
    let status = world.speaker(A).status().into_iter().find(|status| status.address == ip(B)).unwrap();
    assert_eq!((status.path, status.counters.established), (None, 1));
}

#[test]
fn an_operator_who_holds_bfd_down_says_nothing_of_the_path() {
    let mut world = watched();
    let now = world.now;
    world.speaker(A).path_changed(ip(B), Change::Up, now);
    world.speaker(A).path_changed(ip(B), Change::HeldDown, now);
    world.run_secs(5);
    assert!(world.is_up(A, B));
    assert!(!world.events.iter().any(|(_, event)| matches!(event, Event::Down(..))));
}

#[test]
fn watching_begins_changes_and_ends_with_the_settings_without_a_new_session() {
    let mut world = watched();
    let mut peers = world.peers_of(A);
    peers[0].bfd = None;
    world.set_peers(A, peers.clone());
    let mut slower = BfdConfig::default();
    slower.min_tx = Duration::from_secs(1);
    peers[0].bfd = Some(slower);
    peers[1].bfd = Some(slower);
    world.set_peers(A, peers);
    world.run_secs(5);
    assert_eq!(
        watches(&world),
        [
            "watch 10.0.0.2 from 10.0.0.1",
            "leave 10.0.0.2",
            "watch 10.0.0.2 from 10.0.0.1",
            "watch 10.0.0.3 from 10.0.0.1"
        ]
    );
    assert!(!world.events.iter().any(|(_, event)| matches!(event, Event::Down(..))));
}

/// What a station is told, in words; each message is checked for its length.
fn told(octets: &[u8]) -> Vec<String> {
    use calico_bgp::session::Peering;
    use calico_bgp::wire::{Dialect, MAX_EXTENDED_MESSAGE, Update, frame};
    let mut rest = octets;
    let mut words = Vec::new();
    while let [3, a, b, c, d, kind, ..] = *rest {
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        let (message, after) = rest.split_at(len);
        rest = after;
        let from =
            message.get(28..32).map(|a| format!("{}.{}.{}.{}", a[0], a[1], a[2], a[3])).unwrap_or_default();
        words.push(match kind {
            0 => {
                let frame = frame(&message[48..], MAX_EXTENDED_MESSAGE).unwrap().unwrap();
                assert_eq!(48 + frame.len, len);
                let update = Update::decode(frame.body, &Dialect::plain(Peering::Internal)).unwrap();
                assert!(update.faults.is_empty());
                let new: Vec<String> = update.announced.iter().map(|nlri| nlri.prefix.to_string()).collect();
                let gone: Vec<String> = update.withdrawn.iter().map(|nlri| nlri.prefix.to_string()).collect();
                match update.end_of_rib {
                    Some(_) => format!("{from} end"),
                    None => format!("{from} +[{}] -[{}]", new.join(" "), gone.join(" ")),
                }
            }
            1 => format!("{from} statistics"),
            2 => format!("{from} down {}", message[48]),
            3 => {
                let opens = &message[68..];
                let sent = frame(opens, MAX_EXTENDED_MESSAGE).unwrap().unwrap();
                let received = frame(&opens[sent.len..], MAX_EXTENDED_MESSAGE).unwrap().unwrap();
                assert_eq!(68 + sent.len + received.len, len, "two OPENs and nothing else");
                format!("{from} up")
            }
            4 => "hello".to_owned(),
            other => format!("message {other}"),
        });
    }
    assert!(rest.is_empty());
    words
}

#[test]
fn a_station_hears_of_sessions_and_routes_and_of_every_change() {
    let mut world = watched();
    let at = Duration::from_secs(1_700_000_000);
    let feed = world.speaker(A).open_feed("a test", "node1");
    let next = |world: &mut World| {
        let mut octets = Vec::new();
        loop {
            let before = octets.len();
            let mut portion = Vec::new();
            world.speaker(A).feed(feed, &mut portion, at);
            octets.append(&mut portion);
            if octets.len() == before {
                return told(&octets);
            }
        }
    };
    let first = next(&mut world);
    assert_eq!(
        first,
        [
            "hello",
            "10.0.0.2 up",
            "10.0.0.3 up",
            "10.0.0.2 +[192.168.0.0/26] -[]",
            "10.0.0.2 end",
            "10.0.0.3 +[192.168.1.0/26] -[]",
            "10.0.0.3 end",
        ]
    );
    world.originate(B, &["192.168.2.0/26", "192.168.3.0/26"]);
    world.run_secs(1);
    assert_eq!(
        next(&mut world),
        ["10.0.0.2 +[] -[192.168.0.0/26]", "10.0.0.2 +[192.168.2.0/26 192.168.3.0/26] -[]"]
    );
    world.run_secs(1);
    assert!(next(&mut world).is_empty());
    // Back and forth while the station does not listen costs nothing.
    for _ in 0..10 {
        world.originate(B, &[]);
        world.run_secs(1);
        world.originate(B, &["192.168.2.0/26", "192.168.3.0/26"]);
        world.run_secs(1);
    }
    assert_eq!(next(&mut world), ["10.0.0.2 +[192.168.2.0/26 192.168.3.0/26] -[]"]);
    world.speaker(A).feed_statistics();
    assert_eq!(next(&mut world), ["10.0.0.2 statistics", "10.0.0.3 statistics"]);
    // The routes of a peer that restarts are kept, and the station hears of them again with the new session.
    world.break_connections(A, B);
    world.run_secs(30);
    let again = next(&mut world);
    assert_eq!(again[..2], ["10.0.0.2 down 4", "10.0.0.2 up"]);
    assert!(again.contains(&"10.0.0.2 +[192.168.2.0/26 192.168.3.0/26] -[]".to_owned()), "{again:?}");
    world.speaker(A).close_feed(feed);
    assert!(!world.speaker(A).has_feeds());
}

#[test]
fn a_station_hears_the_notification_as_it_was_said() {
    let mut world = World::new();
    for address in [A, B, C] {
        world.add(address, 64512);
    }
    // Only the one that does graceful restart knows hard resets.
    world.join_with(A, B, |peer| peer.restart_time = 0);
    world.join(A, C);
    world.run_secs(5);
    let feed = world.speaker(A).open_feed("a test", "node1");
    world.speaker(A).feed(feed, &mut Vec::new(), Duration::ZERO);
    let now = world.now;
    world.speaker(A).shut_down("kernel update", now);
    let mut octets = Vec::new();
    world.speaker(A).feed(feed, &mut octets, Duration::ZERO);
    let mut said = Vec::new();
    while let [3, a, b, c, d, 2, ..] = octets[..] {
        let rest = octets.split_off(u32::from_be_bytes([a, b, c, d]) as usize);
        said.push((octets[31], octets[68], octets[69]));
        octets = rest;
    }
    assert_eq!(said, [(2, 6, 2), (3, 6, 9)]);
}

/// Prefixes of one message.
fn prefixes(from: u32) -> Vec<u8> {
    (from..from + 500).flat_map(|n| [&[32][..], &(0x1400_0000 + n).to_be_bytes()].concat()).collect()
}

#[test]
fn a_station_that_lags_behind_routes_that_come_and_go_is_cut_off_and_one_that_waits_for_a_table_is_not() {
    for stay in [true, false] {
        let mut rig = Rig::new();
        rig.change(EVIL, |peer| peer.max_prefixes = None);
        let evil = rig.establish(EVIL, 65066);
        let feed = rig.speaker.open_feed("a test", "node1");
        for told in (0..102_000).step_by(500).map(prefixes) {
            rig.receive(evil, &update(&good_attributes(65066), &told));
            if !stay {
                let gone = [&(told.len() as u16).to_be_bytes()[..], &told, &[0, 0]].concat();
                rig.receive(evil, &message(2, &gone));
            }
        }
        assert_eq!(rig.speaker.has_feed(feed), stay);
        let cut_off = |action| matches!(action, Action::CloseFeed(closed) if closed == feed);
        assert_eq!(std::iter::from_fn(|| rig.speaker.poll()).any(cut_off), !stay);
        assert_eq!(rig.state(EVIL), calico_bgp::session::State::Established);
    }
}

#[test]
fn a_station_hears_of_a_table_of_any_size_that_is_there_already() {
    let mut rig = Rig::new();
    rig.change(EVIL, |peer| peer.max_prefixes = None);
    let evil = crate::refresh::establish(&mut rig, true);
    for told in (0..102_000).step_by(500).map(prefixes) {
        rig.receive(evil, &update(&good_attributes(65066), &told));
    }
    let feed = rig.speaker.open_feed("a test", "node1");
    assert!(rig.speaker.has_feed(feed), "one that comes to it");
    while {
        let mut octets = Vec::new();
        rig.speaker.feed(feed, &mut octets, Duration::ZERO);
        !octets.is_empty()
    } {}
    rig.speaker.closed(evil, "reset".to_owned(), rig.now);
    assert_eq!(rig.speaker.learned().unwrap().len(), 102_000, "the peer restarts");
    crate::refresh::establish(&mut rig, true);
    assert!(rig.speaker.has_feed(feed), "one that was there before");
}

#[test]
fn a_station_is_told_each_route_once_and_the_end_last_where_each_has_attributes_of_its_own() {
    let mut rig = Rig::new();
    rig.change(EVIL, |peer| peer.max_prefixes = None);
    let evil = rig.establish(EVIL, 65066);
    for number in 0..3_000_u32 {
        let med = [&[0x80, 4, 4][..], &number.to_be_bytes()].concat();
        let prefix = [&[32][..], &(0x1400_0000 + number).to_be_bytes()].concat();
        rig.receive(evil, &update(&[good_attributes(65066), med].concat(), &prefix));
    }
    let feed = rig.speaker.open_feed("a test", "node1");
    let (mut words, mut portions) = (Vec::new(), 0);
    loop {
        let mut octets = Vec::new();
        rig.speaker.feed(feed, &mut octets, Duration::ZERO);
        if octets.is_empty() {
            break;
        }
        assert!(octets.len() < 65 * 1024, "{} octets", octets.len());
        portions += 1;
        words.extend(told(&octets));
    }
    assert!(portions > 3, "{portions}");
    assert_eq!(words[..2], ["hello", "10.0.0.66 up"]);
    assert_eq!(words.pop().as_deref(), Some("10.0.0.66 end"));
    let route = |number: u32| format!("10.0.0.66 +[20.0.{}.{}/32] -[]", number / 256, number % 256);
    words[2..].sort_unstable();
    let mut all: Vec<String> = (0..3_000).map(route).collect();
    all.sort_unstable();
    assert!(words[2..] == all, "each once: {} of {}", words.len() - 2, all.len());
}

/// What the last report of statistics says of a peer: counters of 32 bits by their type.
fn counted(rig: &mut Rig, feed: calico_bgp::speaker::FeedId) -> std::collections::BTreeMap<u16, u32> {
    let mut octets = Vec::new();
    rig.speaker.feed_statistics();
    rig.speaker.feed(feed, &mut octets, Duration::ZERO);
    let mut rest = &octets[..];
    let mut counters = std::collections::BTreeMap::new();
    while let [3, a, b, c, d, kind, ..] = *rest {
        let (message, after) = rest.split_at(u32::from_be_bytes([a, b, c, d]) as usize);
        rest = after;
        let mut fields = if kind == 1 { &message[52..] } else { &[] };
        while let [k, l, 0, len, ..] = *fields {
            if let Ok(count) = fields[4..4 + usize::from(len)].try_into() {
                counters.insert(u16::from_be_bytes([k, l]), u32::from_be_bytes(count));
            }
            fields = &fields[4 + usize::from(len)..];
        }
    }
    counters
}

#[test]
fn a_station_is_told_how_many_prefixes_were_rejected_and_how_many_updates_were_loops_or_treated_as_withdrawn()
{
    let mut rig = Rig::new();
    let evil = crate::refresh::establish(&mut rig, false);
    let feed = rig.speaker.open_feed("a test", "node1");
    let counts = |rig: &mut Rig| {
        let counters = counted(rig, feed);
        [0, 3, 4, 5, 11, 12].map(|kind| counters[&kind])
    };
    let good = good_attributes(65066);
    rig.receive(evil, &update(&good, &[8, 20, 8, 21]));
    // What is only dropped: the origin is there twice.
    rig.receive(evil, &update(&[&good[..], &[0x40, 1, 1, 0]].concat(), &[8, 20]));
    assert_eq!(counts(&mut rig), [0; 6]);
    let mut own_address = good.clone();
    own_address[19] = 1;
    rig.receive(evil, &update(&own_address, &[8, 20, 8, 21]));
    assert_eq!(counts(&mut rig), [2, 0, 0, 0, 0, 0]);
    let mut own_as = good.clone();
    own_as[11..13].copy_from_slice(&65001_u16.to_be_bytes());
    own_as[6] = 10;
    own_as[8] = 2;
    own_as.splice(9..9, [0, 0, 0xfe, 0x2a]);
    rig.receive(evil, &update(&own_as, &[8, 20, 8, 21]));
    assert_eq!(counts(&mut rig), [2, 0, 1, 0, 0, 0]);
    // One message with two faults.
    let mut bad = [&good[..], &[0x80, 4, 1, 0]].concat();
    bad[3] = 9;
    rig.receive(evil, &update(&bad, &[8, 20]));
    assert_eq!(counts(&mut rig), [2, 0, 1, 0, 1, 1]);
    // Prefixes in both places where they can be, and one that is only withdrawn.
    let mut both = [&bad[..], &[0x80, 14, 13, 0, 1, 1, 4, 10, 0, 0, 66, 0, 8, 22, 8, 23]].concat();
    both.splice(0..0, [0x80, 15, 5, 0, 1, 1, 8, 24]);
    rig.receive(evil, &update(&both, &[8, 20, 8, 21]));
    assert_eq!(counts(&mut rig), [2, 0, 1, 0, 2, 5]);
    // A set in the path is a fault of that kind too (RFC 9774 section 3).
    let mut set = good.clone();
    set[7] = 1;
    rig.receive(evil, &update(&set, &[8, 20, 8, 21, 8, 22]));
    assert_eq!(counts(&mut rig), [2, 0, 1, 0, 3, 8]);
    rig.change(EVIL, |peer| peer.import = calico_bgp::speaker::Exchange::nothing());
    rig.receive(evil, &update(&good, &[8, 20, 8, 21, 8, 22]));
    assert_eq!(counts(&mut rig), [5, 0, 1, 0, 3, 8]);
}
