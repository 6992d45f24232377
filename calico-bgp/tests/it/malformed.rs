//! The malformed messages that have taken down other speakers, replayed on a live session: each gets one of the outcomes
//! that the RFCs allow, and the other peer's session and routes are unharmed.
//!
//! A prefix is announced well, then badly with another path, then another prefix well: what becomes of the first one tells
//! the outcome.

use calico_bgp::session::State;
use calico_bgp::wire::{self, AsPath};

use crate::hostile::{EVIL, GOOD, Rig, good_attributes, message, update};
use crate::world::ip;

fn attribute(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    [&[flags, kind, value.len() as u8], value].concat()
}

fn origin() -> Vec<u8> {
    attribute(0x40, 1, &[0])
}

/// Another path than the good one, also of the peer.
fn as_path() -> Vec<u8> {
    attribute(0x40, 2, &[2, 2, 0, 0, 0xfe, 0x2a, 0, 0, 0, 7])
}

fn next_hop() -> Vec<u8> {
    attribute(0x40, 3, &[10, 0, 0, 66])
}

fn all(attributes: &[Vec<u8>]) -> Vec<u8> {
    update(&attributes.concat(), &[8, 20])
}

/// Good attributes and one more.
fn with(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    all(&[origin(), as_path(), next_hop(), attribute(flags, kind, value)])
}

/// Good attributes and more octets.
fn tail(octets: &[u8]) -> Vec<u8> {
    all(&[origin(), as_path(), next_hop(), octets.to_vec()])
}

fn with_origin(flags: u8, value: &[u8]) -> Vec<u8> {
    all(&[attribute(flags, 1, value), as_path(), next_hop()])
}

fn with_path(value: &[u8]) -> Vec<u8> {
    let [high, low] = (value.len() as u16).to_be_bytes();
    all(&[origin(), [&[0x50, 2, high, low], value].concat(), next_hop()])
}

fn with_hop(value: &[u8]) -> Vec<u8> {
    all(&[origin(), as_path(), attribute(0x40, 3, value)])
}

fn updates() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let long = [&[2, 255][..], &[0, 0, 0xfe, 0x2a].repeat(255)].concat().repeat(3);
    vec![
        ("control-good", all(&[origin(), as_path(), next_hop()]), "accept"),
        ("origin-flag-optional", with_origin(0xc0, &[0]), "withdraw"),
        ("origin-flag-partial", with_origin(0x60, &[0]), "withdraw|accept"),
        ("flags-low-bits-set", with_origin(0x4f, &[0]), "accept"),
        ("origin-len-0", with_origin(0x40, &[]), "withdraw"),
        ("origin-len-2", with_origin(0x40, &[0, 0]), "withdraw"),
        ("origin-value-3", with_origin(0x40, &[3]), "withdraw"),
        ("origin-value-255", with_origin(0x40, &[255]), "withdraw"),
        ("origin-missing", all(&[as_path(), next_hop()]), "withdraw"),
        ("aspath-missing", all(&[origin(), next_hop()]), "withdraw"),
        ("nexthop-missing", all(&[origin(), as_path()]), "withdraw"),
        ("origin-duplicate", all(&[origin(), origin(), as_path(), next_hop()]), "accept"),
        ("med-duplicate", tail(&[0x80, 4, 4, 0, 0, 0, 0, 0x80, 4, 4, 0, 0, 0, 0]), "accept|discard"),
        ("all-missing-unknown-only", all(&[attribute(0xc0, 99, &[1])]), "withdraw"),
        ("aspath-empty-ebgp", with_path(&[]), "withdraw|accept"),
        ("aspath-first-as-wrong", with_path(&[2, 1, 0, 0, 0, 9]), "withdraw|accept"),
        ("aspath-seg-type-0", with_path(&[0, 1, 0, 0, 0, 1]), "withdraw"),
        ("aspath-seg-type-5", with_path(&[5, 1, 0, 0, 0, 1]), "withdraw"),
        ("aspath-confed-from-ebgp", with_path(&[3, 1, 0, 0, 0, 1]), "withdraw"),
        ("aspath-seg-len-0", with_path(&[2, 0]), "withdraw"),
        ("aspath-seg-overrun", with_path(&[2, 3, 0, 0, 0, 1]), "withdraw"),
        ("aspath-one-octet", with_path(&[2]), "withdraw"),
        ("aspath-as-zero", with_path(&[2, 2, 0, 0, 0xfe, 0x2a, 0, 0, 0, 0]), "withdraw"),
        ("aspath-as-trans-23456", with_path(&[2, 2, 0, 0, 0xfe, 0x2a, 0, 0, 0x5b, 0xa0]), "accept"),
        ("aspath-as-set", with_path(&[2, 1, 0, 0, 0xfe, 0x2a, 1, 1, 0, 0, 0, 2]), "accept|withdraw"),
        ("aspath-own-as", with_path(&[2, 2, 0, 0, 0xfe, 0x2a, 0, 0, 0xfd, 0xe9]), "ignore|withdraw"),
        ("aspath-255x3-long", with_path(&long), "accept|withdraw"),
        ("nexthop-len-3", with_hop(&[1, 2, 3]), "withdraw"),
        ("nexthop-len-5", with_hop(&[1, 2, 3, 4, 5]), "withdraw"),
        ("nexthop-len-0", with_hop(&[]), "withdraw"),
        ("nexthop-zero", with_hop(&[0; 4]), "withdraw|ignore"),
        ("nexthop-loopback", with_hop(&[127, 0, 0, 1]), "withdraw|ignore"),
        ("nexthop-multicast", with_hop(&[224, 0, 0, 1]), "withdraw|ignore"),
        ("nexthop-is-dut", with_hop(&[10, 0, 0, 1]), "withdraw|ignore"),
        ("med-len-3", with(0x80, 4, &[0; 3]), "withdraw"),
        ("med-len-0", with(0x80, 4, &[]), "withdraw"),
        ("med-flag-transitive", with(0xc0, 4, &[0; 4]), "withdraw"),
        ("localpref-from-ebgp", with(0x40, 5, &[0; 4]), "discard|accept"),
        ("localpref-len-3-ebgp", with(0x40, 5, &[0; 3]), "discard|accept"),
        ("atomic-len-1", with(0x40, 6, &[0]), "discard|accept"),
        ("aggregator-len-5", with(0xc0, 7, &[0; 5]), "discard|accept"),
        ("aggregator-as-zero", with(0xc0, 7, &[0, 0, 0, 0, 1, 1, 1, 1]), "discard"),
        ("community-len-0", with(0xc0, 8, &[]), "withdraw|accept|discard"),
        ("community-len-5", with(0xc0, 8, &[0; 5]), "withdraw"),
        ("community-flag-nontrans", with(0x80, 8, &[0; 4]), "withdraw"),
        ("extcomm-len-9", with(0xc0, 16, &[0; 9]), "withdraw"),
        ("extcomm-len-0", with(0xc0, 16, &[]), "withdraw|accept|discard"),
        ("v6extcomm-len-21", with(0xc0, 25, &[0; 21]), "withdraw|accept"),
        ("largecomm-len-13", with(0xc0, 32, &[0; 13]), "withdraw"),
        ("largecomm-len-0", with(0xc0, 32, &[]), "withdraw|accept|discard"),
        ("largecomm-flag-nontrans", with(0x80, 32, &[0; 12]), "withdraw"),
        ("originator-from-ebgp", with(0x80, 9, &[1; 4]), "discard"),
        ("originator-len-3-ebgp", with(0x80, 9, &[1; 3]), "discard"),
        ("clusterlist-from-ebgp", with(0x80, 10, &[1; 4]), "discard"),
        ("clusterlist-len-5-ebgp", with(0x80, 10, &[1; 5]), "discard"),
        ("as4path-from-new-speaker", with(0xc0, 17, &[2, 1, 0, 0, 0, 1]), "discard"),
        ("as4path-malformed", with(0xc0, 17, &[9, 9, 9]), "discard|withdraw"),
        (
            "as4path-before-aspath-bad",
            all(&[origin(), attribute(0xc0, 17, &[2, 1]), attribute(0x40, 2, &[2]), next_hop()]),
            "discard|withdraw",
        ),
        ("pmsi-len-4", with(0xc0, 22, &[0; 4]), "withdraw|accept|discard"),
        ("encap-23-corrupt", with(0xc0, 23, &[0, 1, 255, 255, 1]), "withdraw|accept|discard"),
        ("encap-23-len-3", with(0xc0, 23, &[0; 3]), "withdraw|accept|discard"),
        ("traffic-eng-24", with(0x80, 24, &[1; 9]), "accept|discard|withdraw"),
        ("aigp-26-transitive", with(0xc0, 26, &[1, 0, 3]), "discard|accept|withdraw"),
        ("aigp-26-len-0", with(0x80, 26, &[]), "discard|accept"),
        ("pedistinguisher-27", with(0xc0, 27, &[1; 5]), "accept|discard|withdraw"),
        ("entropy-28-zero", with(0xc0, 28, &[]), "accept|discard|withdraw"),
        ("entropy-28-garbage", with(0xc0, 28, &[0xee; 17]), "accept|discard|withdraw"),
        ("linkstate-29-garbage", with(0x80, 29, &[7; 9]), "accept|discard|withdraw"),
        ("linkstate-29-transitive", with(0xc0, 29, &[7; 9]), "accept|discard|withdraw"),
        ("bgpsec-33-garbage", with(0x80, 33, &[3; 11]), "accept|discard|withdraw"),
        ("otc-35-len-3", with(0xc0, 35, &[0; 3]), "withdraw|accept"),
        ("otc-35-good", with(0xc0, 35, &[0, 0, 0, 1]), "accept|withdraw"),
        ("prefixsid-40-corrupt", with(0xc0, 40, &[1, 0, 99, 1]), "discard|accept|withdraw"),
        ("attrset-128-garbage", with(0xc0, 128, &[9; 7]), "accept|discard|withdraw"),
        ("reserved-0", with(0xc0, 0, &[1]), "accept|discard|withdraw"),
        ("development-255", with(0xc0, 255, &[1, 2, 3]), "accept"),
        ("unknown-transitive", with(0xc0, 99, &[1, 2, 3]), "accept"),
        ("unknown-nontransitive", with(0x80, 99, &[1, 2, 3]), "discard"),
        ("unknown-extlen-short", tail(&[0xd0, 99, 0, 1, 7]), "accept"),
        ("unknown-wellknown", with(0x40, 99, &[1]), "withdraw|reset"),
        ("attr-overruns-total", tail(&[0xc0, 99, 200, 1]), "withdraw"),
        ("attr-truncated-header", tail(&[0xc0]), "withdraw"),
        ("attr-extlen-truncated", tail(&[0xd0, 99, 0]), "withdraw"),
        ("total-attr-len-too-big", message(2, &[0, 0, 0, 99, 0x40, 1, 1, 0]), "withdraw|reset"),
        ("withdrawn-len-too-big", message(2, &[0, 99, 0, 0]), "reset"),
        ("keepalive-len-20", message(4, &[0]), "1/2"),
        ("notification-len-20", message(3, &[6]), "closed|1/2"),
        ("notification-text-overrun", message(3, &[6, 2, 200, b'x']), "closed"),
        ("routerefresh-len-22", message(5, &[0, 1, 0]), "1/2|7/1|up"),
        ("routerefresh-unknown-afi", message(5, &[0, 25, 0, 70]), "up"),
        ("routerefresh-subtype-9", message(5, &[0, 1, 9, 1]), "up"),
    ]
}

#[test]
fn each_malformed_update_has_an_outcome_that_the_rfcs_allow() {
    for (name, octets, allowed) in updates() {
        let mut rig = Rig::new();
        let (good, evil) = (rig.establish(GOOD, 65002), rig.establish(EVIL, 65066));
        rig.receive(good, &update(&good_attributes(65002), &[8, 30]));
        rig.receive(evil, &update(&good_attributes(65066), &[8, 20]));
        rig.receive(evil, &octets);
        rig.receive(evil, &update(&good_attributes(65066), &[8, 21]));
        let routes = rig.speaker.routes();
        let of = |prefix: &str| routes.iter().find(|route| route.prefix.to_string() == prefix);
        let got: Vec<String> = if rig.state(EVIL) != State::Established {
            assert!(of("20.0.0.0/8").is_none() && of("21.0.0.0/8").is_none(), "{name}");
            match rig.notification(evil) {
                Some(sent) => vec!["reset".to_owned(), format!("{}/{}", sent.code, sent.subcode)],
                None => vec!["closed".to_owned()],
            }
        } else {
            assert!(of("21.0.0.0/8").is_some(), "{name}: the sentinel");
            match of("20.0.0.0/8") {
                None => vec!["withdraw".to_owned(), "ignore".to_owned()],
                Some(route) if route.attributes.as_path == old_path() => vec!["up".to_owned()],
                Some(route) if route.attributes.extra() == &Default::default() => {
                    vec!["discard".to_owned(), "accept".to_owned()]
                }
                Some(_) => vec!["accept".to_owned()],
            }
        };
        assert!(allowed.split('|').any(|allowed| got.iter().any(|got| got == allowed)), "{name}: {got:?}");
        assert_eq!(rig.state(GOOD), State::Established, "{name}");
        assert!(of("30.0.0.0/8").is_some(), "{name}: the other peer's route");
    }
}

fn old_path() -> AsPath {
    AsPath::sequence(&[crate::world::asn(65066)])
}

fn open(body: &[u8]) -> Vec<u8> {
    message(1, body)
}

const HEAD: [u8; 9] = [4, 0xfe, 0x2a, 0, 90, 10, 0, 0, 66];

/// An OPEN whose head has other octets from a place on.
fn head(at: usize, octets: &[u8]) -> Vec<u8> {
    let mut body = [&HEAD[..], &[0]].concat();
    body[at..at + octets.len()].copy_from_slice(octets);
    open(&body)
}

/// An OPEN with these octets from the length of the parameters on.
fn parameters(octets: &[u8]) -> Vec<u8> {
    open(&[&HEAD[..], octets].concat())
}

fn capabilities(octets: &[u8]) -> Vec<u8> {
    parameters(&[&[octets.len() as u8 + 2, 2, octets.len() as u8], octets].concat())
}

/// Sent before anything else, and followed by a good KEEPALIVE.
fn firsts() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let header = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = message(4, &[]);
        change(&mut octets);
        octets
    };
    vec![
        ("hdr-bad-marker", header(&|octets| octets[3] = 0), "1/1"),
        ("hdr-len-18", header(&|octets| octets[17] = 18), "1/2"),
        ("hdr-len-4097", header(&|octets| octets[16..19].copy_from_slice(&[16, 1, 2])), "1/2"),
        ("hdr-type-0", header(&|octets| octets[18] = 0), "1/3"),
        ("hdr-type-99", header(&|octets| octets[18] = 99), "1/3"),
        ("open-len-28", open(&HEAD), "1/2"),
        ("open-version-3", head(0, &[3]), "2/1"),
        ("open-wrong-as", head(1, &[0xfe, 0x2b]), "2/2"),
        ("open-as4-zero", capabilities(&[65, 4, 0, 0, 0, 0]), "2/2"),
        ("open-as2-zero", head(1, &[0, 0]), "2/2"),
        ("open-rid-zero", head(5, &[0; 4]), "2/3"),
        ("open-rid-same-as-dut", head(5, &[10, 0, 0, 1]), "up|2/3"),
        ("open-hold-1", head(3, &[0, 1]), "2/6"),
        ("open-hold-2", head(3, &[0, 2]), "2/6"),
        ("open-hold-0", head(3, &[0, 0]), "up|2/6"),
        ("open-opt-param-1", parameters(&[2, 1, 0]), "2/4|2/5"),
        ("open-opt-len-overrun", parameters(&[9, 2, 0]), "2/0|1/2|2/4"),
        ("open-ends-at-optlen", parameters(&[4]), "2/0|1/2|2/4|up"),
        ("open-extopt-255-empty", parameters(&[255, 255, 0, 0]), "2/0|1/2|2/4|up"),
        ("open-extopt-truncated", parameters(&[255, 255, 0]), "2/0|1/2|2/4"),
        ("open-extopt-valid-9072", parameters(&[255, 255, 0, 5, 2, 0, 2, 2, 0]), "up"),
        ("open-cap-overrun", capabilities(&[65, 9, 0, 0]), "2/0|2/4|1/2|up"),
        ("open-cap-unknown", capabilities(&[200, 2, 1, 2]), "up"),
        ("open-cap-mp-len-3", capabilities(&[1, 3, 0, 1, 0]), "2/0|2/4|up"),
        ("open-cap-as4-len-3", capabilities(&[65, 3, 0, 0, 1]), "2/0|2/4|up|2/2"),
        ("open-cap-gr-odd", capabilities(&[64, 3, 0, 120, 0]), "up|2/0|2/4"),
        ("open-cap-addpath-odd", capabilities(&[69, 3, 0, 1, 1]), "up|2/0|2/4"),
        ("open-cap-fqdn-overrun", capabilities(&[73, 2, 200, 1]), "up|2/0|2/4"),
        ("open-cap-role-len-2", capabilities(&[9, 2, 0, 0]), "up|2/0|2/4|2/11"),
        ("open-cap-version-len-0", capabilities(&[75, 0]), "up"),
        ("open-no-caps", parameters(&[0]), "up|2/7|2/0"),
        ("open-dup-caps", capabilities(&[2, 0, 2, 0, 1, 4, 0, 1, 0, 1, 1, 4, 0, 1, 0, 1]), "up"),
        ("update-in-opensent", message(2, &[0, 0, 0, 0]), "5/1|5/0|5/3"),
        ("keepalive-in-opensent", message(4, &[]), "5/1|5/0|5/3"),
        ("update-in-openconfirm", [head(0, &[4]), message(2, &[0, 0, 0, 0])].concat(), "5/2|5/0|5/3|up"),
        ("open-twice", [head(0, &[4]), head(0, &[4])].concat(), "5/2|5/3|5/0|6/7"),
    ]
}

#[test]
fn each_malformed_header_and_open_has_an_outcome_that_the_rfcs_allow() {
    for (name, octets, allowed) in firsts() {
        let mut rig = Rig::new();
        let good = rig.establish(GOOD, 65002);
        rig.receive(good, &update(&good_attributes(65002), &[8, 30]));
        let evil = rig.accept(EVIL);
        rig.receive(evil, &octets);
        let notification = rig.notification(evil).map(|what| format!("{}/{}", what.code, what.subcode));
        let got = notification.unwrap_or_else(|| {
            rig.receive(evil, &wire::keepalive());
            assert_eq!(rig.state(EVIL), State::Established, "{name}");
            "up".to_owned()
        });
        assert!(allowed.split('|').any(|allowed| allowed == got), "{name}: {got}");
        assert_eq!(rig.state(GOOD), State::Established, "{name}");
        assert_eq!(rig.speaker.learned().unwrap().len(), 1, "{name}: the other peer's route");
        let status = rig.speaker.status().into_iter().find(|status| status.address == ip(EVIL)).unwrap();
        assert_eq!(status.last_sent.is_some(), got != "up", "{name}: {:?}", status.last_sent);
    }
}
