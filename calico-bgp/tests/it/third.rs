//! What becomes of one peer's settings is nothing to the other peers but what it changes in the routes: they end up with
//! what they would have been told had it always been so.

use calico_bgp::speaker::Reflection;
use calico_bgp::{PeerConfig, RouteStatus};

use crate::changes::{CHANGES, Change, Effect};
use crate::world::{World, asn};

const US: &str = "10.0.0.1";
const PEER: &str = "10.0.0.2";
const THIRDS: [(&str, u32); 2] = [("10.0.0.3", 65001), ("10.0.0.4", 65003)];

/// We have the peer with these settings and what a change makes of them; it expects what fits.
fn configure(world: &mut World, remote_as: u32, change: impl Fn(&mut PeerConfig)) {
    world.join_one(US, PEER, |peer| {
        peer.remote_as = asn(remote_as);
        change(peer);
    });
    let ours = world.peers_of(US).into_iter().find(|peer| peer.address == crate::world::ip(PEER)).unwrap();
    world.join_one(PEER, US, |peer| {
        (peer.remote_as, peer.local_as) = (ours.local_as, ours.remote_as);
    });
}

fn world() -> World {
    let mut world = World::new();
    for (address, number) in [(US, 65001), (PEER, 65001)].into_iter().chain(THIRDS) {
        world.add(address, number);
    }
    for (third, _) in THIRDS {
        world.join(US, third);
    }
    world.originate(PEER, &["10.8.0.0/16", "10.9.0.0/16"]);
    world
}

/// What the others have been told.
fn told(world: &mut World) -> Vec<(&'static str, Vec<RouteStatus>)> {
    THIRDS.into_iter().map(|(third, _)| (third, world.speaker(third).routes())).collect()
}

/// Says what the others have after a change, and after the peer has told less, in a world that it happened in and in one
/// that it was always so in.
fn both(remote_as: u32, first: impl Fn(&mut PeerConfig), change: impl Fn(&mut PeerConfig)) -> [Told; 2] {
    let mut changed = world();
    configure(&mut changed, remote_as, &first);
    changed.run_secs(20);
    configure(&mut changed, remote_as, |peer| {
        first(peer);
        change(peer);
    });
    let mut always = world();
    configure(&mut always, remote_as, |peer| {
        first(peer);
        change(peer);
    });
    [changed, always].map(|mut world| {
        // Longer than a restart and a table may take.
        world.run_secs(400);
        let all = told(&mut world);
        world.originate(PEER, &["10.8.0.0/16"]);
        world.run_secs(5);
        [all, told(&mut world)]
    })
}
type Told = [Vec<(&'static str, Vec<RouteStatus>)>; 2];

#[test]
fn whatever_is_changed_for_one_peer_the_others_have_what_they_would_have_had_it_always_been_so() {
    let inwards: Change = ("remote_as, to our own", Effect::Reset, |peer| peer.remote_as = asn(65001));
    let client: Change = ("not a client", Effect::Soft, |peer| peer.reflection = Reflection::NonClient);
    for remote_as in [65001, 65002] {
        for first in [Reflection::NonClient, Reflection::Client] {
            for (name, _, change) in CHANGES.iter().chain([&inwards, &client]) {
                let [changed, always] = both(remote_as, |peer| peer.reflection = first, change);
                assert_eq!(changed, always, "{name} of a peer in AS {remote_as}, {first:?}");
            }
        }
    }
}
