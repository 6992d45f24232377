//! Dialects that not everybody speaks: two-octet AS numbers (RFC 6793), and messages of more than 4,096 octets (RFC 8654).

#[cfg(feature = "net")]
mod with_bird;

use calico_bgp::filter::{Facts, Import, Policy, Program};
use calico_bgp::session::{ConnectionId, Peering};
use calico_bgp::speaker::Exchange;
use calico_bgp::wire::open::Feature;
use calico_bgp::wire::{self, AsWidth, Capabilities, Dialect, HoldTime, MessageType, Open, Update};
use calico_model::Community;
use calico_model::resource::filter::{AddCommunity, FilterAction, FilterOperation, FilterRule};

use crate::hostile::{EVIL, GOOD, Rig, message, update};
use crate::world::asn;

/// Brings a peer up that says these of itself.
fn establish(rig: &mut Rig, from: &str, number: u32, capabilities: Capabilities) -> ConnectionId {
    let connection = rig.accept(from);
    let open = Open {
        asn: asn(number),
        hold_time: HoldTime::SUGGESTED,
        router_id: from.parse().unwrap(),
        capabilities,
    };
    rig.receive(connection, &open.encode());
    rig.receive(connection, &wire::keepalive());
    connection
}

fn wide(number: u32) -> Capabilities {
    Capabilities { four_octet_as: Some(asn(number)), ..Capabilities::default() }
}

fn long(capabilities: Capabilities) -> Capabilities {
    Capabilities { features: [Feature::ExtendedMessages].into(), ..capabilities }
}

fn attribute(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    let [high, low] = (value.len() as u16).to_be_bytes();
    [&[flags | 0x10, kind, high, low], value].concat()
}

fn with_path(width: AsWidth, more: &[Vec<u8>]) -> Vec<u8> {
    let path: &[u8] = match width {
        AsWidth::Two => &[2, 3, 0xfe, 0x2a, 0x5b, 0xa0, 0, 7],
        AsWidth::Four => &[2, 3, 0, 0, 0xfe, 0x2a, 0, 1, 0x11, 0x70, 0, 0, 0, 7],
    };
    let own = [attribute(0x40, 1, &[0]), attribute(0x40, 2, path), attribute(0x40, 3, &[10, 0, 0, 66])];
    [own.concat(), more.concat()].concat()
}

/// The attributes that a peer is told, as they are on the wire.
fn told(rig: &mut Rig, to: ConnectionId) -> Vec<u8> {
    rig.now += std::time::Duration::from_secs(1);
    rig.speaker.timeout(rig.now);
    let sent = rig.sent(to);
    let mut updates = sent.into_iter().filter(|(kind, body)| *kind == MessageType::Update && body.len() > 4);
    updates.next().expect("an UPDATE").1
}

fn finds(octets: &[u8], wanted: &[u8]) -> bool {
    octets.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn what_an_old_speaker_cannot_say_comes_through_it() {
    let mut rig = Rig::new();
    let old = establish(&mut rig, EVIL, 65066, Capabilities::default());
    let new = establish(&mut rig, GOOD, 65002, wide(65002));
    let as4_path = attribute(0xc0, 17, &[2, 2, 0, 1, 0x11, 0x70, 0, 0, 0, 7]);
    let aggregator = attribute(0xc0, 7, &[0x5b, 0xa0, 10, 9, 8, 7]);
    let as4_aggregator = attribute(0xc0, 18, &[0, 1, 0x11, 0x71, 10, 9, 8, 7]);
    rig.receive(old, &update(&with_path(AsWidth::Two, &[aggregator, as4_path, as4_aggregator]), &[8, 20]));
    let route = rig.speaker.routes().remove(0);
    assert_eq!(route.attributes.as_path.to_string(), "65066 70000 7");
    assert_eq!(route.attributes.extra().aggregator, Some((asn(70001), "10.9.8.7".parse().unwrap())));
    let body = told(&mut rig, new);
    let heard = Update::decode(&body, &Dialect::plain(Peering::External)).unwrap();
    assert!(heard.faults.is_empty());
    assert_eq!(heard.attributes.unwrap().as_path.to_string(), "65001 65066 70000 7");
}

#[test]
fn an_old_speaker_is_told_beside_what_it_knows_what_others_need() {
    let mut rig = Rig::new();
    let new = establish(&mut rig, EVIL, 65066, wide(65066));
    let old = establish(&mut rig, GOOD, 65002, Capabilities::default());
    let aggregator = attribute(0xc0, 7, &[0, 1, 0x11, 0x71, 10, 9, 8, 7]);
    rig.receive(new, &update(&with_path(AsWidth::Four, &[aggregator]), &[8, 20]));
    let body = told(&mut rig, old);
    let narrow = [0x40, 2, 10, 2, 4, 0xfd, 0xe9, 0xfe, 0x2a, 0x5b, 0xa0, 0, 7];
    assert!(finds(&body, &narrow), "AS_PATH in {body:02x?}");
    let wide = [0xc0, 17, 18, 2, 4, 0, 0, 0xfd, 0xe9, 0, 0, 0xfe, 0x2a, 0, 1, 0x11, 0x70, 0, 0, 0, 7];
    assert!(finds(&body, &wide), "AS4_PATH in {body:02x?}");
    assert!(finds(&body, &[0xc0, 7, 6, 0x5b, 0xa0, 10, 9, 8, 7]), "AGGREGATOR in {body:02x?}");
    assert!(finds(&body, &[0xc0, 18, 8, 0, 1, 0x11, 0x71, 10, 9, 8, 7]), "AS4_AGGREGATOR in {body:02x?}");
}

#[test]
fn a_path_that_is_too_long_once_its_numbers_are_wide_takes_the_route_away() {
    let mut rig = Rig::new();
    let old = establish(&mut rig, EVIL, 65066, long(Capabilities::default()));
    let with = |segments: usize| {
        let path = [&[2, 255][..], &[0xfe, 0x2a].repeat(255)].concat().repeat(segments);
        let attributes =
            [attribute(0x40, 1, &[0]), attribute(0x40, 2, &path), attribute(0x40, 3, &[10, 0, 0, 66])];
        update(&attributes.concat(), &[8, 20])
    };
    rig.receive(old, &with(64));
    assert_eq!(rig.speaker.routes()[0].attributes.as_path.hops(), 64 * 255);
    rig.receive(old, &with(65));
    assert!(rig.speaker.routes().is_empty());
    assert_eq!(rig.state(EVIL), calico_bgp::session::State::Established);
}

#[test]
fn a_filter_that_makes_an_attribute_too_long_takes_the_route_away() {
    let mut rule = FilterRule::new(FilterAction::Accept);
    rule.operations = (0..30)
        .map(|n| FilterOperation {
            add_community: Some(AddCommunity { value: format!("1:{n}").parse().unwrap() }),
            prepend_as_path: None,
            set_priority: None,
        })
        .collect();
    let facts = Facts { peering: Peering::External, interfaces: None };
    let program = Program::import(|_| vec![&rule], &facts, Import::default());
    let mut rig = Rig::new();
    rig.change(EVIL, |peer| peer.import = Exchange::Filtered(Policy::new(program.clone())));
    let teller = establish(&mut rig, EVIL, 65066, long(wide(65066)));
    // An attribute holds 16,383 of them.
    for (count, taken) in [(16_000, true), (16_360, false), (16_353, true)] {
        let list: Vec<u8> = (0..count).flat_map(|n: u32| (65066 << 16 | n).to_be_bytes()).collect();
        rig.receive(teller, &update(&with_path(AsWidth::Four, &[attribute(0xc0, 8, &list)]), &[8, 20]));
        assert_eq!(rig.speaker.routes().len(), usize::from(taken), "{count}");
    }
    assert_eq!(rig.speaker.routes()[0].attributes.communities().len(), 16_383);
}

#[test]
fn extended_communities_that_are_not_transitive_stay_inside_the_as() {
    let of_ipv6 = |first: u8| [&[first, 2][..], &[7; 18]].concat();
    let lists = [
        attribute(0xc0, 16, &[[0, 2, 1, 1, 1, 1, 1, 1], [0x40, 2, 1, 1, 1, 1, 1, 1]].concat()),
        attribute(0xc0, 25, &[of_ipv6(0), of_ipv6(0x40)].concat()),
    ];
    let mut rig = Rig::new();
    let teller = establish(&mut rig, EVIL, 65066, wide(65066));
    let hearer = establish(&mut rig, GOOD, 65002, wide(65002));
    rig.receive(teller, &update(&with_path(AsWidth::Four, &lists), &[8, 20]));
    let body = told(&mut rig, hearer);
    assert!(finds(&body, &[0xc0, 16, 8, 0, 2, 1, 1, 1, 1, 1, 1]), "{body:02x?}");
    assert!(finds(&body, &[&[0xc0, 25, 20][..], &of_ipv6(0)].concat()), "{body:02x?}");
    rig.receive(teller, &update(&with_path(AsWidth::Four, &[attribute(0xc0, 25, &of_ipv6(0x40))]), &[8, 20]));
    let body = told(&mut rig, hearer);
    assert!(!finds(&body, &[0xc0, 25]), "{body:02x?}");
}

#[test]
fn an_attribute_that_somebody_did_not_know_is_marked_for_good() {
    let mut rig = Rig::new();
    let teller = establish(&mut rig, EVIL, 65066, wide(65066));
    let hearer = establish(&mut rig, GOOD, 65002, wide(65002));
    let all: [(u8, Vec<u8>); 5] = [
        (7, vec![0, 0, 0, 7, 10, 9, 8, 7]),
        (8, vec![0, 7, 0, 1]),
        (16, vec![0, 2, 0, 7, 0, 0, 0, 1]),
        (32, vec![0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2]),
        (35, vec![0, 0, 0, 7]),
    ];
    for marked in 0..=all.len() {
        let flags = |at: usize| if at == marked { 0xe0 } else { 0xc0 };
        let each = all.iter().enumerate().map(|(at, (kind, value))| attribute(flags(at), *kind, value));
        let each: Vec<Vec<u8>> = each.collect();
        rig.receive(teller, &update(&with_path(AsWidth::Four, &each), &[8, 20]));
        let body = told(&mut rig, hearer);
        for (at, (kind, value)) in all.iter().enumerate() {
            let expected = [&[flags(at), *kind, value.len() as u8], &value[..]].concat();
            assert!(finds(&body, &expected), "type {kind} where {marked} is marked: {body:02x?}");
        }
    }
}

/// 1,100 communities: 4,400 octets.
fn communities() -> Vec<u8> {
    (0..1100u32).flat_map(|n| (65066 << 16 | n).to_be_bytes()).collect()
}

#[test]
fn what_fits_long_messages_only_is_told_to_those_who_take_them() {
    for (theirs, fits) in [(long(wide(65002)), true), (wide(65002), false)] {
        let mut rig = Rig::new();
        let teller = establish(&mut rig, EVIL, 65066, long(wide(65066)));
        let hearer = establish(&mut rig, GOOD, 65002, theirs);
        rig.sent(hearer);
        let octets = update(&with_path(AsWidth::Four, &[attribute(0xc0, 8, &communities())]), &[8, 20]);
        assert!(octets.len() > wire::MAX_MESSAGE);
        rig.receive(teller, &octets);
        assert_eq!(rig.speaker.routes()[0].attributes.communities().len(), 1100);
        assert!(rig.speaker.routes()[0].attributes.carries(Community::Standard(65066, 1099)));
        rig.now += std::time::Duration::from_secs(1);
        rig.speaker.timeout(rig.now);
        let mut sent = Vec::new();
        rig.speaker.transmit(hearer, &mut sent, rig.now);
        assert_eq!(finds(&sent, &communities()), fits);
        assert_eq!(rig.state(GOOD), calico_bgp::session::State::Established);
    }
}

#[test]
fn a_long_message_is_taken_from_who_takes_none() {
    let mut rig = Rig::new();
    let teller = establish(&mut rig, EVIL, 65066, wide(65066));
    rig.receive(teller, &update(&with_path(AsWidth::Four, &[attribute(0xc0, 8, &communities())]), &[8, 20]));
    assert_eq!(rig.speaker.routes()[0].attributes.communities().len(), 1100);
    assert_eq!(rig.state(EVIL), calico_bgp::session::State::Established);
}

#[test]
fn a_long_message_before_anybody_said_what_it_takes_ends_the_session() {
    let mut rig = Rig::new();
    let stranger = rig.accept(EVIL);
    rig.receive(stranger, &message(2, &vec![0; 4078]));
    let said = rig.notification(stranger).unwrap();
    assert_eq!((said.kind(), said.data), ((1, 2), vec![0x10, 1]));
}
