//! The malformed messages that have taken down other speakers, replayed on a live session: each gets one of the outcomes
//! that the RFCs allow, and the other peer's session and routes are unharmed.
//!
//! A prefix is announced well, then badly with another path, then another prefix well: what becomes of the first one tells
//! the outcome.

use calico_bgp::family::FamilySet;
use calico_bgp::session::{ConnectionId, State};
use calico_bgp::wire::{self, AsPath, Capabilities, HoldTime, MessageType, Notification, Open};

use crate::hostile::{EVIL, GOOD, Rig, good_attributes, message, update};
use crate::world::{asn, ip};

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
    AsPath::sequence(&[asn(65066)])
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

/// Attributes whose path is the peer's and nothing else.
fn first_attributes() -> Vec<u8> {
    [origin(), attribute(0x40, 2, &[2, 1, 0, 0, 0xfe, 0x2a])].concat()
}

/// An address of 2001:db8::/32 that ends so.
fn v6(last: u8) -> Vec<u8> {
    vec![0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

/// MP_REACH_NLRI's value for IPv6, with these octets as the next hop and as the prefixes.
fn reach(next_hop: &[u8], prefixes: &[u8]) -> Vec<u8> {
    [&[0, 2, 1, next_hop.len() as u8], next_hop, &[0], prefixes].concat()
}

/// An UPDATE of good attributes and MP_REACH_NLRI.
fn reaching(flags: u8, value: &[u8]) -> Vec<u8> {
    update(&[origin(), as_path(), attribute(flags, 14, value)].concat(), &[])
}

/// An UPDATE of MP_UNREACH_NLRI alone.
fn unreaching(flags: u8, value: &[u8]) -> Vec<u8> {
    update(&attribute(flags, 15, value), &[])
}

/// What is malformed in the attributes of RFC 4760, on a session of both families on which 2020::/16 is announced.
fn multiprotocol() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    const PREFIX: &[u8] = &[16, 0x20, 0x20];
    let hop = |octets: &[u8]| reaching(0x80, &reach(octets, PREFIX));
    let nlri = |octets: &[u8]| reaching(0x80, &reach(&v6(0x66), octets));
    let good = || attribute(0x80, 14, &reach(&v6(0x66), PREFIX));
    let gone = || attribute(0x80, 15, &[&[0, 2, 1], PREFIX].concat());
    let of = |attributes: &[Vec<u8>]| update(&attributes.concat(), &[]);
    let mapped = [&[0; 10][..], &[255, 255, 10, 0, 0, 66]].concat();
    vec![
        ("mp-reach-good", of(&[origin(), as_path(), good()]), "accept"),
        ("mp-reach-empty", reaching(0x80, &[]), "3/9"),
        ("mp-reach-3-octets", reaching(0x80, &[0, 2, 1]), "3/9"),
        ("mp-reach-nexthop-overrun", reaching(0x80, &[0, 2, 1, 200, 1]), "3/9"),
        ("mp-reach-no-reserved-octet", reaching(0x80, &reach(&v6(0x66), &[])[..20]), "3/9"),
        ("mp-reach-nexthop-len-0", hop(&[]), "3/9"),
        ("mp-reach-nexthop-len-4", hop(&[10, 0, 0, 66]), "3/9"),
        ("mp-reach-nexthop-len-15", hop(&v6(0x66)[..15]), "3/9"),
        ("mp-reach-nexthop-len-24", hop(&[&[0; 8], &v6(0x66)[..]].concat()), "3/9"),
        ("mp-reach-nexthop-len-224", hop(&[1; 224]), "3/9"),
        ("mp-reach-v4-nexthop-len-5", reaching(0x80, &[0, 1, 1, 5, 10, 0, 0, 66, 1, 0, 8, 20]), "3/9"),
        ("mp-reach-nexthop-unspecified", hop(&[0; 16]), "withdraw"),
        ("mp-reach-nexthop-loopback", hop(&[&[0; 15][..], &[1]].concat()), "withdraw"),
        ("mp-reach-nexthop-multicast", hop(&[0xff; 16]), "withdraw"),
        ("mp-reach-nexthop-mapped", hop(&mapped), "withdraw|accept"),
        ("mp-reach-prefix-len-129", nlri(&[&[129][..], &[0x20; 17]].concat()), "3/9|3/10"),
        ("mp-reach-prefix-len-255", nlri(&[&[255][..], &[0x20; 32]].concat()), "3/9|3/10"),
        ("mp-reach-prefix-overrun", nlri(&[PREFIX, &[64, 0x20]].concat()), "3/9|3/10"),
        ("mp-reach-twice", of(&[origin(), as_path(), good(), good()]), "3/1"),
        ("mp-reach-flag-transitive", reaching(0xc0, &reach(&v6(0x66), PREFIX)), "withdraw"),
        ("mp-reach-flag-wellknown", reaching(0x40, &reach(&v6(0x66), PREFIX)), "withdraw"),
        ("mp-reach-without-origin", of(&[as_path(), good()]), "withdraw"),
        ("mp-reach-without-aspath", of(&[origin(), good()]), "withdraw"),
        ("mp-reach-attribute-overrun", of(&[origin(), as_path(), good()[..12].to_vec()]), "3/1"),
        ("mp-reach-behind-an-overrun", of(&[origin(), as_path(), vec![0xc0, 99, 200], good()]), "3/1"),
        ("mp-reach-unknown-family", reaching(0x80, &[0, 25, 70, 0, 0]), "up"),
        ("mp-reach-unknown-safi", reaching(0x80, &[0, 2, 128, 3, 1, 2, 3, 0, 255]), "up"),
        ("mp-unreach-good", of(&[gone()]), "gone"),
        ("mp-unreach-empty", unreaching(0x80, &[]), "3/9"),
        ("mp-unreach-2-octets", unreaching(0x80, &[0, 2]), "3/9"),
        (
            "mp-unreach-prefix-len-129",
            unreaching(0x80, &[&[0, 2, 1, 129], &[0x20; 17][..]].concat()),
            "3/9|3/10",
        ),
        ("mp-unreach-prefix-overrun", unreaching(0x80, &[0, 2, 1, 64, 0x20]), "3/9|3/10"),
        ("mp-unreach-twice", of(&[gone(), gone()]), "3/1"),
        ("mp-unreach-flag-transitive", unreaching(0xc0, &[&[0, 2, 1], PREFIX].concat()), "withdraw"),
        ("mp-unreach-attribute-overrun", of(&[gone()[..5].to_vec()]), "3/1"),
        ("mp-unreach-unknown-family", unreaching(0x80, &[0, 25, 70, 9, 9]), "up"),
        ("mp-unreach-of-what-is-reached", of(&[origin(), as_path(), good(), gone()]), "accept"),
    ]
}

/// What is malformed in the attributes that are only spoken inside an AS.
fn internal() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |flags, kind, value: &[u8]| {
        let last = attribute(flags, kind, value);
        all(&[origin(), as_path(), next_hop(), if kind == 5 { last } else { [local_pref(), last].concat() }])
    };
    vec![
        ("localpref-good", with(0x40, 5, &[0, 0, 0, 7]), "accept"),
        ("localpref-missing", all(&[origin(), as_path(), next_hop()]), "accept|withdraw"),
        ("localpref-len-0", with(0x40, 5, &[]), "withdraw"),
        ("localpref-len-3", with(0x40, 5, &[0; 3]), "withdraw"),
        ("localpref-len-5", with(0x40, 5, &[0; 5]), "withdraw"),
        ("localpref-flag-optional", with(0xc0, 5, &[0; 4]), "withdraw"),
        ("originator-good", with(0x80, 9, &[10, 7, 7, 7]), "accept"),
        ("originator-len-0", with(0x80, 9, &[]), "withdraw"),
        ("originator-len-3", with(0x80, 9, &[1; 3]), "withdraw"),
        ("originator-len-5", with(0x80, 9, &[1; 5]), "withdraw"),
        ("originator-flag-transitive", with(0xc0, 9, &[1; 4]), "withdraw"),
        ("originator-is-dut", with(0x80, 9, &[10, 0, 0, 1]), "gone"),
        ("clusterlist-good", with(0x80, 10, &[1, 1, 1, 1, 2, 2, 2, 2]), "accept"),
        ("clusterlist-len-0", with(0x80, 10, &[]), "withdraw"),
        ("clusterlist-len-3", with(0x80, 10, &[1; 3]), "withdraw"),
        ("clusterlist-len-5", with(0x80, 10, &[1; 5]), "withdraw"),
        ("clusterlist-flag-transitive", with(0xc0, 10, &[1; 4]), "withdraw"),
        ("clusterlist-has-dut", with(0x80, 10, &[1, 1, 1, 1, 10, 0, 0, 1]), "gone"),
        ("aspath-empty", all(&[origin(), attribute(0x40, 2, &[]), next_hop(), local_pref()]), "accept"),
    ]
}

fn local_pref() -> Vec<u8> {
    attribute(0x40, 5, &[0, 0, 0, 100])
}

/// Tells a prefix well, then what is in the row, then another prefix well, and says what became of the first one.
fn replay(rig: &mut Rig, evil: ConnectionId, octets: [&[u8]; 3], prefixes: [&str; 2]) -> String {
    let held = |rig: &Rig, prefix: &str| {
        rig.speaker.routes().into_iter().find(|route| route.prefix.to_string() == prefix)
    };
    rig.receive(evil, octets[0]);
    let before = held(rig, prefixes[0]).unwrap();
    rig.receive(evil, octets[1]);
    if rig.state(EVIL) != State::Established {
        assert!(held(rig, prefixes[0]).is_none(), "what a session told ends with it");
        return rig.notification(evil).map_or_else(|| "closed".to_owned(), |what| said(&what));
    }
    rig.receive(evil, octets[2]);
    assert!(held(rig, prefixes[1]).is_some(), "the sentinel");
    let status = rig.speaker.status().into_iter().find(|status| status.address == ip(EVIL)).unwrap();
    match (held(rig, prefixes[0]), status.counters.faults_in) {
        (None, 0) => "gone",
        (None, _) => "withdraw",
        (Some(route), _) if route.attributes.as_path == before.attributes.as_path => "up",
        (Some(_), 0) => "accept",
        (Some(_), _) => "discard",
    }
    .to_owned()
}

fn said(what: &Notification) -> String {
    format!("{}/{}", what.code, what.subcode)
}

/// The other peer's session and route are there, and nothing but what the rows' routes are to it has been sent to it.
fn assert_unharmed(rig: &mut Rig, good: ConnectionId, name: &str) {
    assert_eq!(rig.state(GOOD), State::Established, "{name}");
    assert!(rig.speaker.routes().iter().any(|route| route.prefix.to_string() == "30.0.0.0/8"), "{name}");
    assert!(rig.sent(good).iter().all(|(kind, _)| *kind == MessageType::Update), "{name}");
}

fn assert_allowed(name: &str, got: &str, allowed: &str) {
    assert!(allowed.split('|').any(|allowed| allowed == got), "{name}: {got}, not {allowed}");
}

#[test]
fn each_malformed_multiprotocol_attribute_has_the_outcome_of_rfc_7606() {
    for (name, octets, allowed) in multiprotocol() {
        let mut rig = Rig::new();
        rig.change(EVIL, |peer| peer.families = FamilySet::BOTH);
        let good = rig.establish(GOOD, 65002);
        rig.receive(good, &update(&good_attributes(65002), &[8, 30]));
        let evil = rig.accept(EVIL);
        let open = Open {
            asn: asn(65066),
            hold_time: HoldTime::SUGGESTED,
            router_id: EVIL.parse().unwrap(),
            capabilities: Capabilities {
                families: Some(FamilySet::BOTH),
                four_octet_as: Some(asn(65066)),
                ..Capabilities::default()
            },
        };
        rig.receive(evil, &[open.encode(), wire::keepalive()].concat());
        let well = |prefix: u8| {
            let told = attribute(0x80, 14, &reach(&v6(0x66), &[16, 0x20, prefix]));
            update(&[first_attributes(), told].concat(), &[])
        };
        let got = replay(&mut rig, evil, [&well(0x20), &octets, &well(0x21)], ["2020::/16", "2021::/16"]);
        assert_allowed(name, &got, allowed);
        assert_unharmed(&mut rig, good, name);
    }
}

#[test]
fn each_malformed_attribute_that_is_spoken_inside_an_as_has_the_outcome_of_rfc_7606() {
    for (name, octets, allowed) in internal() {
        let mut rig = Rig::new();
        rig.change(EVIL, |peer| peer.remote_as = asn(65001));
        let good = rig.establish(GOOD, 65002);
        rig.receive(good, &update(&good_attributes(65002), &[8, 30]));
        let evil = rig.establish(EVIL, 65001);
        let well = |prefix: u8| update(&[good_attributes(65066), local_pref()].concat(), &[8, prefix]);
        let got = replay(&mut rig, evil, [&well(20), &octets, &well(21)], ["20.0.0.0/8", "21.0.0.0/8"]);
        assert_allowed(name, &got, allowed);
        assert_unharmed(&mut rig, good, name);
    }
}
