//! A BIRD that keeps to two-octet AS numbers, and one that sends long messages.

use std::time::Duration;

use calico_bgp::net;
use calico_bgp::wire::AsWidth;
use calico_bgp::{Origination, PeerConfig};
use calico_model::Community;

use crate::lab::{Bird, Namespace, paths, wait_for_routes, wait_until_up};
use crate::world::{asn, ip, settings};

/// A BIRD at the other end of the wire of this number, in an AS of this number.
fn bird(number: u32, local_as: u32, route: &str, export: &str, more: &str) -> String {
    format!(
        "router id 10.99.{number}.2;
protocol static {{ ipv4; route {route} blackhole; }}
protocol bgp calico {{
  local 10.99.{number}.2 as {local_as};
  neighbor 10.99.{number}.1 as 64512;
  connect delay time 1; connect retry time 1; error wait time 1,2;
  {more}
  ipv4 {{ import all; export filter {{ if source != RTS_STATIC then reject; {export} accept; }}; next hop self; }};
}}
"
    )
}

fn peer(number: u32, remote_as: u32) -> PeerConfig {
    let mut peer = PeerConfig::new(ip(&format!("10.99.{number}.2")), asn(remote_as), asn(64512));
    peer.local_address = Some(ip(&format!("10.99.{number}.1")));
    peer.connect_retry = Duration::from_secs(1);
    peer
}

#[test]
fn wide_as_numbers_come_through_an_old_bird_both_ways() {
    let (ours, old, new) = (Namespace::new(), Namespace::new(), Namespace::new());
    ours.wire(&["10.99.1.1/24"], &old, &["10.99.1.2/24"]);
    ours.wire(&["10.99.2.1/24"], &new, &["10.99.2.2/24"]);
    let prepend = "bgp_path.prepend(4200000009);";
    let old = Bird::start(&old, &bird(1, 65001, "10.5.0.0/16", prepend, "enable as4 off;"));
    let _new = Bird::start(&new, &bird(2, 4_200_000_002, "10.6.0.0/16", "", ""));
    ours.block_on(async {
        let handle = net::spawn(&["0.0.0.0:179".parse().unwrap()], settings("10.99.1.1", 64512)).unwrap();
        handle.set_peers(vec![peer(1, 65001), peer(2, 4_200_000_002)]).await.unwrap();
        let up = wait_until_up(&handle, "10.99.1.2").await;
        assert_eq!(up.negotiated.unwrap().dialect.as_width, AsWidth::Two);
        wait_for_routes(&handle, |routes| routes.len() == 2).await;
        let through = paths(&handle, "10.5.0.0/16").await.remove(0).attributes;
        assert_eq!(through.as_path.to_string(), "65001 4200000009");
        old.wait_for("show route all for 10.6.0.0/16", "BGP.as_path: 64512 4200000002").await;
    });
}

#[test]
fn messages_of_more_than_4096_octets_pass_both_ways() {
    let (ours, theirs) = (Namespace::new(), Namespace::new());
    ours.wire(&["10.99.1.1/24"], &theirs, &["10.99.1.2/24"]);
    let add: String = (0..1100).map(|n| format!("bgp_community.add((65001,{n}));")).collect();
    let theirs = Bird::start(&theirs, &bird(1, 65001, "10.5.0.0/16", &add, "enable extended messages on;"));
    ours.block_on(async {
        let handle = net::spawn(&["0.0.0.0:179".parse().unwrap()], settings("10.99.1.1", 64512)).unwrap();
        let mut long = Origination::default();
        long.communities = (0..1100).map(|n| Community::Standard(64512, n)).collect();
        handle.set_originated([("10.1.0.0/16".parse().unwrap(), long)].into()).await.unwrap();
        handle.set_peers(vec![peer(1, 65001)]).await.unwrap();
        wait_for_routes(&handle, |routes| routes.len() == 1).await;
        let told = paths(&handle, "10.5.0.0/16").await.remove(0).attributes;
        assert_eq!(told.communities().len(), 1100);
        let heard = theirs.wait_for("show route all for 10.1.0.0/16", "(64512,1099)").await;
        assert_eq!(heard.matches("(64512,").count(), 1100);
    });
}
