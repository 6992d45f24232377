//! The communities that say how far a route may go (RFC 1997), as a table.

use calico_bgp::Origination;
use calico_bgp::speaker::Reflection;
use calico_model::Community;

use crate::world::World;

const US: &str = "10.0.0.1";
/// In our AS: a client, and one that hears of it.
const CLIENT: &str = "10.0.0.2";
const INSIDE: &str = "10.0.0.3";
/// In other ASes.
const NEIGHBOUR: &str = "10.0.0.4";
const OUTSIDE: &str = "10.0.0.5";

const PREFIX: &str = "10.1.0.0/16";

/// Reports whether a route with a community that begins at one speaker is heard by way of us inside the AS and outside of it.
fn heard(begins: &str, community: Option<Community>) -> [bool; 2] {
    let communities: Vec<Community> = community.into_iter().collect();
    let mut world = World::new();
    for (address, asn) in
        [(US, 65001), (CLIENT, 65001), (INSIDE, 65001), (NEIGHBOUR, 65004), (OUTSIDE, 65005)]
    {
        world.add(address, asn);
    }
    for other in [CLIENT, INSIDE, NEIGHBOUR, OUTSIDE] {
        world.join_one(US, other, |peer| {
            if other == CLIENT {
                peer.reflection = Reflection::Client;
            }
        });
        // It is put on as the route leaves: it binds whoever hears it, not who tells it.
        world.join_one(other, US, |peer| peer.add_communities = communities.clone());
    }
    let mut own = Origination::default();
    if begins == US {
        own.communities.clone_from(&communities);
    }
    let now = world.now;
    world.speaker(begins).set_originated([(PREFIX.parse().unwrap(), own)].into(), now);
    world.run_secs(2);
    let held = world.speaker(US).routes();
    assert_eq!(held.len(), 1, "it may be used");
    assert_eq!(held[0].attributes.communities(), communities);
    [INSIDE, OUTSIDE].map(|other| !world.learned(other).is_empty())
}

#[test]
fn a_route_goes_as_far_as_its_well_known_community_says() {
    let well_known = |low| Some(Community::Standard(0xffff, low));
    for (name, community, expected) in [
        ("none", None, [true, true]),
        ("another", Some(Community::Standard(65001, 7)), [true, true]),
        ("NO_EXPORT", well_known(0xff01), [true, false]),
        ("NO_ADVERTISE", well_known(0xff02), [false, false]),
        // Whoever is in no confederation is one of its own.
        ("NO_EXPORT_SUBCONFED", well_known(0xff03), [true, false]),
    ] {
        for begins in [US, CLIENT, NEIGHBOUR] {
            assert_eq!(heard(begins, community), expected, "{name}, from {begins}");
        }
    }
}
