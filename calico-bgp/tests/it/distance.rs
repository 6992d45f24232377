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
