//! Distances that are checked by the time to live (GTSM, RFC 5082): whoever dials, both sides must hear each other.

use std::time::Duration;

use calico_bgp::PeerConfig;
use calico_bgp::net::{self, Handle};
use calico_bgp::session::Initiation;
use calico_bgp::speaker::Distance;
use tokio::sync::watch;

use crate::lab::{Bird, Namespace, wait_until_up};
use crate::world::{asn, ip, settings};

/// The addresses of the two ends, of each family.
const ENDS: [(&str, &str); 2] = [("10.99.0.1", "10.99.0.2"), ("fd99::1", "fd99::2")];

/// Two namespaces, joined by a wire.
fn two() -> (Namespace, Namespace) {
    let (ours, theirs) = (Namespace::new(), Namespace::new());
    ours.wire(&["10.99.0.1/24", "fd99::1/64"], &theirs, &["10.99.0.2/24", "fd99::2/64"]);
    (ours, theirs)
}

fn neighbour(address: &str, local: &str, initiation: Initiation) -> PeerConfig {
    let mut peer = PeerConfig::new(ip(address), asn(64512), asn(64512));
    peer.local_address = Some(ip(local));
    peer.connect_retry = Duration::from_secs(1);
    peer.distance = Distance::Within(1);
    peer.initiation = initiation;
    peer
}

async fn start(router_id: &str, peers: Vec<PeerConfig>) -> Handle {
    let listen = ["0.0.0.0:179".parse().unwrap(), "[::]:179".parse().unwrap()];
    let handle = net::spawn(&listen, settings(router_id, 64512)).unwrap();
    handle.set_peers(peers).await.unwrap();
    handle
}

#[test]
fn two_of_ours_hear_each_other_when_only_one_of_them_dials() {
    let (one, other) = two();
    let (done, mut end) = watch::channel(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            other.block_on(async {
                let peers = ENDS.map(|(one, other)| neighbour(one, other, Initiation::Passive));
                let _running = start("10.99.0.2", peers.to_vec()).await;
                end.wait_for(|end| *end).await.unwrap();
            });
        });
        // Dropped, and with it the other side's wait, when this panics.
        let done = done;
        one.block_on(async {
            let peers = ENDS.map(|(one, other)| neighbour(other, one, Initiation::Active));
            let handle = start("10.99.0.1", peers.to_vec()).await;
            for (_, other) in ENDS {
                wait_until_up(&handle, other).await;
            }
        });
        done.send_replace(true);
    });
}

#[test]
fn bird_hears_us_when_only_bird_dials() {
    let (ours, theirs) = two();
    let neighbours: String = ["ipv4", "ipv6"]
        .iter()
        .zip(ENDS)
        .map(|(family, (us, bird))| {
            format!(
                "protocol bgp {family}_peer {{
  local {bird} as 64512; neighbor {us} as 64512;
  direct; ttl security on; connect delay time 1; connect retry time 120; error wait time 1,2;
  {family} {{ import all; export all; }};
}}
"
            )
        })
        .collect();
    let bird = Bird::start(&theirs, &format!("router id 10.99.0.2;\n{neighbours}"));
    // BIRD looks at the distance from just after it has dialed. On this wire we would have answered by then, so that no answer
    // leaves before it has.
    for (_, address) in ENDS {
        ours.ip(&format!("route add blackhole {address}"));
    }
    ours.block_on(async {
        let peers = ENDS.map(|(us, bird)| neighbour(bird, us, Initiation::Passive));
        let handle = start("10.99.0.1", peers.to_vec()).await;
        for protocol in ["ipv4_peer", "ipv6_peer"] {
            bird.wait_for(&format!("show protocols {protocol}"), "Connect").await;
        }
        for (_, address) in ENDS {
            ours.ip(&format!("route del blackhole {address}"));
            wait_until_up(&handle, address).await;
        }
        bird.wait_for("show protocols ipv6_peer", "Established").await;
    });
}

/// Two namespaces with a router between them: two hops. Each pair of addresses is the last number of both.
fn two_hops_apart(pairs: usize) -> (Namespace, Namespace, Namespace) {
    let (ours, router, theirs) = (Namespace::new(), Namespace::new(), Namespace::new());
    for (link, namespace) in [(1, &ours), (2, &theirs)] {
        let addresses: Vec<String> = (1..=pairs)
            .flat_map(|n| [format!("10.99.{link}.{n}/24"), format!("fd99:{link}::{n}/64")])
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let (v4, v6) = (format!("10.99.{link}.254"), format!("fd99:{link}::fe"));
        namespace.wire(&addresses, &router, &[&format!("{v4}/24"), &format!("{v6}/64")]);
        namespace.ip(&format!("route add default via {v4}"));
        namespace.ip(&format!("-6 route add default via {v6}"));
    }
    for forwarding in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        let status = router.command("sysctl").args(["-qw", forwarding]).status().unwrap();
        assert!(status.success());
    }
    (ours, router, theirs)
}

/// The other side takes whatever comes: it is our side that keeps who is too far away out, whoever dials.
#[test]
fn a_peer_that_is_farther_away_or_hides_how_far_does_not_come_up() {
    let cases = [
        (Distance::Within(1), Distance::Within(2), false),
        (Distance::Within(2), Distance::Within(2), true),
        // Its packets leave with the system's usual time to live, as from 190 hops away.
        (Distance::Within(2), Distance::Any, false),
    ];
    let initiations = [Initiation::Active, Initiation::Passive];
    let all: Vec<_> = cases.iter().flat_map(|case| initiations.map(|dials| (*case, dials))).collect();
    let (ours, _router, theirs) = two_hops_apart(all.len());
    let mut ours_of = Vec::new();
    let mut theirs_of = Vec::new();
    let mut expected = Vec::new();
    for (n, ((our_distance, their_distance, comes_up), dials)) in (1..).zip(all) {
        for (us, them) in [
            (format!("10.99.1.{n}"), format!("10.99.2.{n}")),
            (format!("fd99:1::{n}"), format!("fd99:2::{n}")),
        ] {
            let mut our_side = neighbour(&them, &us, dials);
            our_side.distance = our_distance;
            let theirs_dials =
                if dials == Initiation::Active { Initiation::Passive } else { Initiation::Active };
            let mut their_side = neighbour(&us, &them, theirs_dials);
            their_side.distance = their_distance;
            ours_of.push(our_side);
            theirs_of.push(their_side);
            expected.push((them, comes_up));
        }
    }
    let (done, mut end) = watch::channel(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            theirs.block_on(async {
                let _running = start("10.99.2.1", theirs_of).await;
                end.wait_for(|end| *end).await.unwrap();
            });
        });
        // Dropped, and with it the other side's wait, when this panics.
        let done = done;
        ours.block_on(async {
            let handle = start("10.99.1.1", ours_of).await;
            for (address, _) in expected.iter().filter(|(_, comes_up)| *comes_up) {
                wait_until_up(&handle, address).await;
            }
            // Each side that dials has tried several times by now.
            tokio::time::sleep(Duration::from_secs(4)).await;
            let status = handle.status().await.unwrap();
            for (address, comes_up) in &expected {
                let peer = status.iter().find(|peer| peer.address == ip(address)).unwrap();
                assert_eq!(peer.counters.established > 0, *comes_up, "{address}: {peer:?}");
            }
        });
        done.send_replace(true);
    });
}
