//! What becomes of a route between ASes by the role of each (RFC 9234), as tables of all roles.

use std::time::Duration;

use calico_bgp::session::Peering;
use calico_bgp::wire::open::Role;
use calico_bgp::wire::{Dialect, MessageType, Update};

use crate::hostile::{EVIL, GOOD, Rig, good_attributes, update};
use crate::world::World;

const ROLES: [Role; 5] =
    [Role::Provider, Role::RouteServer, Role::RouteServerClient, Role::Customer, Role::Peer];

/// The AS of the rig's speaker, of who tells it a route, and another one.
const US: u32 = 65001;
const TELLER: u32 = 65066;
const OTHER: u32 = 65009;

/// An UPDATE of a route that may carry Only to Customer.
fn route(only_to_customer: Option<u32>) -> Vec<u8> {
    let mut attributes = good_attributes(TELLER as u16);
    if let Some(asn) = only_to_customer {
        attributes.extend([0xc0, 35, 4]);
        attributes.extend(asn.to_be_bytes());
    }
    update(&attributes, &[8, 20])
}

/// What Only to Customer says in a route that a speaker in this role took, or `None` where it did not take the route.
fn taken(role: Option<Role>, came: Option<u32>) -> Option<Option<u32>> {
    let mut rig = Rig::new();
    rig.change(EVIL, |peer| peer.role = role);
    let teller = rig.establish(EVIL, TELLER);
    rig.receive(teller, &route(came));
    let held = rig.speaker.routes();
    let refusals: Vec<String> =
        rig.speaker.status().into_iter().filter_map(|peer| peer.last_refusal).collect();
    let leaked = "it is for customers only and must not have come this way (RFC 9234)";
    assert_eq!(refusals, if held.is_empty() { vec![leaked] } else { Vec::new() });
    held.first().map(|route| route.attributes.extra().only_to_customer)
}

/// What Only to Customer says in a route that a speaker in this role tells, or `None` where it does not tell the route.
fn told(role: Option<Role>, held: Option<u32>) -> Option<Option<u32>> {
    let mut rig = Rig::new();
    rig.change(GOOD, |peer| peer.role = role);
    let (hears, teller) = (rig.establish(GOOD, 65002), rig.establish(EVIL, TELLER));
    rig.receive(teller, &route(held));
    rig.now += Duration::from_secs(1);
    let now = rig.now;
    rig.speaker.timeout(now);
    let updates = rig.sent(hears).into_iter().filter(|(kind, _)| *kind == MessageType::Update);
    let said = |(_, body): (_, Vec<u8>)| {
        let update = Update::decode(&body, &Dialect::plain(Peering::External)).unwrap();
        Some(update.attributes?.extra().only_to_customer)
    };
    updates.filter_map(said).next()
}

/// RFC 9234 section 5, the three rules of ingress.
#[test]
fn what_is_for_customers_only_is_refused_from_below_and_marked_from_above() {
    let unchanged = [Some(None), Some(Some(TELLER)), Some(Some(OTHER))];
    let from_above = [Some(Some(TELLER)), Some(Some(TELLER)), Some(Some(OTHER))];
    let from_below = [Some(None), None, None];
    for (role, expected) in [
        (None, unchanged),
        (Some(Role::Provider), from_below),
        (Some(Role::RouteServer), from_below),
        (Some(Role::RouteServerClient), from_above),
        (Some(Role::Customer), from_above),
        (Some(Role::Peer), [Some(Some(TELLER)), Some(Some(TELLER)), None]),
    ] {
        assert_eq!([None, Some(TELLER), Some(OTHER)].map(|came| taken(role, came)), expected, "{role:?}");
    }
}

/// RFC 9234 section 5, the two rules of egress.
#[test]
fn what_is_for_customers_only_is_not_told_upwards_and_all_is_marked_downwards() {
    let upwards = [Some(None), None];
    let downwards = [Some(Some(US)), Some(Some(OTHER))];
    for (role, expected) in [
        (None, [Some(None), Some(Some(OTHER))]),
        (Some(Role::Provider), downwards),
        (Some(Role::RouteServer), downwards),
        (Some(Role::RouteServerClient), upwards),
        (Some(Role::Customer), upwards),
        (Some(Role::Peer), [Some(Some(US)), None]),
    ] {
        assert_eq!([None, Some(OTHER)].map(|held| told(role, held)), expected, "{role:?}");
    }
}

/// RFC 9234 section 4.2, table 2.
#[test]
fn a_session_comes_up_between_roles_that_face_each_other_and_no_others() {
    const A: &str = "10.0.0.1";
    const B: &str = "10.0.0.2";
    let mut up = Vec::new();
    for (ours, theirs) in ROLES.iter().flat_map(|ours| ROLES.map(|theirs| (*ours, theirs))) {
        let mut world = World::new();
        world.add(A, 65001);
        world.add(B, 65002);
        world.join_one(A, B, |peer| peer.role = Some(ours));
        world.join_one(B, A, |peer| peer.role = Some(theirs));
        world.run_secs(5);
        if world.is_up(A, B) {
            up.push((ours, theirs));
        }
    }
    assert_eq!(
        up,
        [
            (Role::Provider, Role::Customer),
            (Role::RouteServer, Role::RouteServerClient),
            (Role::RouteServerClient, Role::RouteServer),
            (Role::Customer, Role::Provider),
            (Role::Peer, Role::Peer),
        ]
    );
}
