//! What each malformed message must get, and messages that come back as they were.

mod faults;
mod round_trips;

pub(crate) use round_trips::any_attributes;

use super::*;

/// What came of an UPDATE, in the words of RFC 7606.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accept,
    Discard,
    Withdraw,
    Reset(u8, u8),
}

fn outcome(body: &[u8], dialect: &Dialect) -> Outcome {
    match Update::decode(body, dialect) {
        Err(fault) => match fault.remedy {
            Remedy::Reset(n) => Outcome::Reset(n.code, n.subcode),
            Remedy::Discard | Remedy::TreatAsWithdraw => panic!("{fault} is no reason to fail"),
        },
        Ok(update) => match (&update.attributes, update.faults.is_empty()) {
            (None, _) => Outcome::Withdraw,
            (Some(_), true) => Outcome::Accept,
            (Some(_), false) => Outcome::Discard,
        },
    }
}

/// An attribute as octets, its length told truly.
fn attribute(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    attribute::put(&mut octets, flags, kind, value);
    octets
}

/// The body of an UPDATE that announces 10.0.0.0/8 with these attributes.
fn body(attributes: &[Vec<u8>]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = vec![0, 0];
    body.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    body.extend_from_slice(&attributes);
    body.extend_from_slice(&[8, 10]);
    body
}

fn origin() -> Vec<u8> {
    attribute(0x40, 1, &[0])
}

fn as_path() -> Vec<u8> {
    attribute(0x40, 2, &[2, 1, 0, 0, 0xfd, 0xe9])
}

fn next_hop() -> Vec<u8> {
    attribute(0x40, 3, &[192, 0, 2, 1])
}

fn external() -> Dialect {
    Dialect::plain(Peering::External)
}

/// A good announcement with one more attribute.
fn with(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    body(&[origin(), as_path(), next_hop(), attribute(flags, kind, value)])
}

fn with_path(value: &[u8]) -> Vec<u8> {
    body(&[origin(), attribute(0x40, 2, value), next_hop()])
}

fn with_next_hop(value: &[u8]) -> Vec<u8> {
    body(&[origin(), as_path(), attribute(0x40, 3, value)])
}

fn with_origin(flags: u8, value: &[u8]) -> Vec<u8> {
    body(&[attribute(flags, 1, value), as_path(), next_hop()])
}

/// Attributes with octets appended that are no whole attribute.
fn with_tail(tail: &[u8]) -> Vec<u8> {
    body(&[origin(), as_path(), next_hop(), tail.to_vec()])
}

#[test]
fn each_malformed_update_gets_the_remedy_of_rfc_7606_and_no_more() {
    use Outcome::*;
    let long_path: Vec<u8> = std::iter::once([2, 255].to_vec())
        .chain((0..255).map(|_| vec![0, 0, 0xfd, 0xe9]))
        .flatten()
        .collect::<Vec<u8>>()
        .repeat(3);
    let cases: Vec<(&str, Vec<u8>, &[Outcome])> = vec![
        ("control-good", body(&[origin(), as_path(), next_hop()]), &[Accept]),
        ("origin-flag-optional", with_origin(0xc0, &[0]), &[Withdraw]),
        ("origin-flag-partial", with_origin(0x60, &[0]), &[Withdraw, Accept]),
        ("flags-low-bits-set", with_origin(0x4f, &[0]), &[Accept]),
        ("origin-len-0", with_origin(0x40, &[]), &[Withdraw]),
        ("origin-len-2", with_origin(0x40, &[0, 0]), &[Withdraw]),
        ("origin-value-3", with_origin(0x40, &[3]), &[Withdraw]),
        ("origin-value-255", with_origin(0x40, &[255]), &[Withdraw]),
        ("origin-missing", body(&[as_path(), next_hop()]), &[Withdraw]),
        ("aspath-missing", body(&[origin(), next_hop()]), &[Withdraw]),
        ("nexthop-missing", body(&[origin(), as_path()]), &[Withdraw]),
        ("origin-duplicate", body(&[origin(), origin(), as_path(), next_hop()]), &[Accept, Discard]),
        (
            "med-duplicate",
            body(&[
                origin(),
                as_path(),
                next_hop(),
                attribute(0x80, 4, &[0; 4]),
                attribute(0x80, 4, &[0; 4]),
            ]),
            &[Accept, Discard],
        ),
        ("all-missing-unknown-only", body(&[attribute(0xc0, 99, &[1])]), &[Withdraw]),
        ("aspath-empty-ebgp", with_path(&[]), &[Withdraw, Accept]),
        ("aspath-seg-type-0", with_path(&[0, 1, 0, 0, 0, 1]), &[Withdraw]),
        ("aspath-seg-type-5", with_path(&[5, 1, 0, 0, 0, 1]), &[Withdraw]),
        ("aspath-confed-from-ebgp", with_path(&[3, 1, 0, 0, 0, 1]), &[Withdraw]),
        ("aspath-seg-len-0", with_path(&[2, 0]), &[Withdraw]),
        ("aspath-seg-overrun", with_path(&[2, 3, 0, 0, 0, 1]), &[Withdraw]),
        ("aspath-one-octet", with_path(&[2]), &[Withdraw]),
        ("aspath-as-zero", with_path(&[2, 1, 0, 0, 0, 0]), &[Withdraw]),
        ("aspath-as-trans-23456", with_path(&[2, 1, 0, 0, 0x5b, 0xa0]), &[Accept]),
        ("aspath-as-set", with_path(&[2, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 2]), &[Accept, Withdraw]),
        ("aspath-255x3-long", with_path(&long_path), &[Accept, Withdraw]),
        ("nexthop-len-3", with_next_hop(&[1, 2, 3]), &[Withdraw]),
        ("nexthop-len-5", with_next_hop(&[1, 2, 3, 4, 5]), &[Withdraw]),
        ("nexthop-len-0", with_next_hop(&[]), &[Withdraw]),
        ("nexthop-zero", with_next_hop(&[0; 4]), &[Withdraw]),
        ("nexthop-loopback", with_next_hop(&[127, 0, 0, 1]), &[Withdraw]),
        ("nexthop-multicast", with_next_hop(&[224, 0, 0, 1]), &[Withdraw]),
        ("med-len-3", with(0x80, 4, &[0; 3]), &[Withdraw]),
        ("med-len-0", with(0x80, 4, &[]), &[Withdraw]),
        ("med-flag-transitive", with(0xc0, 4, &[0; 4]), &[Withdraw]),
        ("localpref-from-ebgp", with(0x40, 5, &[0; 4]), &[Discard]),
        ("localpref-len-3-ebgp", with(0x40, 5, &[0; 3]), &[Discard]),
        ("atomic-len-1", with(0x40, 6, &[0]), &[Discard, Accept]),
        ("atomic-flag-optional", with(0xc0, 6, &[]), &[Withdraw]),
        ("aggregator-flag-nontrans", with(0x80, 7, &[0, 0, 0, 1, 1, 1, 1, 1]), &[Withdraw]),
        ("mp-reach-flag-transitive", with(0xc0, 14, &[0, 1, 1, 4, 10, 0, 0, 9, 0, 8, 20]), &[Withdraw]),
        ("mp-unreach-flag-transitive", with(0xc0, 15, &[0, 1, 1, 8, 20]), &[Withdraw]),
        ("aggregator-len-5", with(0xc0, 7, &[0; 5]), &[Discard, Accept]),
        ("aggregator-as-zero", with(0xc0, 7, &[0, 0, 0, 0, 1, 1, 1, 1]), &[Discard]),
        ("community-len-0", with(0xc0, 8, &[]), &[Withdraw, Accept, Discard]),
        ("community-len-5", with(0xc0, 8, &[0; 5]), &[Withdraw]),
        ("community-flag-nontrans", with(0x80, 8, &[0; 4]), &[Withdraw]),
        ("extcomm-len-9", with(0xc0, 16, &[0; 9]), &[Withdraw]),
        ("extcomm-len-0", with(0xc0, 16, &[]), &[Withdraw, Accept, Discard]),
        ("v6extcomm-len-21", with(0xc0, 25, &[0; 21]), &[Withdraw, Accept]),
        ("largecomm-len-13", with(0xc0, 32, &[0; 13]), &[Withdraw]),
        ("largecomm-len-0", with(0xc0, 32, &[]), &[Withdraw, Accept, Discard]),
        ("largecomm-flag-nontrans", with(0x80, 32, &[0; 12]), &[Withdraw]),
        ("originator-from-ebgp", with(0x80, 9, &[1; 4]), &[Discard]),
        ("originator-len-3-ebgp", with(0x80, 9, &[1; 3]), &[Discard]),
        ("clusterlist-from-ebgp", with(0x80, 10, &[1; 4]), &[Discard]),
        ("clusterlist-len-5-ebgp", with(0x80, 10, &[1; 5]), &[Discard]),
        ("as4path-from-new-speaker", with(0xc0, 17, &[2, 1, 0, 0, 0, 1]), &[Discard]),
        ("as4path-malformed", with(0xc0, 17, &[9, 9, 9]), &[Discard, Withdraw]),
        (
            "as4path-before-aspath-bad",
            body(&[origin(), attribute(0xc0, 17, &[2, 1]), attribute(0x40, 2, &[2]), next_hop()]),
            &[Discard, Withdraw],
        ),
        ("pmsi-len-4", with(0xc0, 22, &[0; 4]), &[Withdraw, Accept, Discard]),
        ("encap-23-corrupt", with(0xc0, 23, &[0, 1, 255, 255, 1]), &[Withdraw, Accept, Discard]),
        ("encap-23-len-3", with(0xc0, 23, &[0; 3]), &[Withdraw, Accept, Discard]),
        ("aigp-26-transitive", with(0xc0, 26, &[1, 0, 3]), &[Discard, Accept, Withdraw]),
        ("aigp-26-len-0", with(0x80, 26, &[]), &[Discard, Accept]),
        ("entropy-28-zero", with(0xc0, 28, &[]), &[Discard, Accept, Withdraw]),
        ("linkstate-29-garbage", with(0x80, 29, &[7; 9]), &[Discard, Accept, Withdraw]),
        ("otc-35-len-3", with(0xc0, 35, &[0; 3]), &[Withdraw, Accept]),
        ("otc-35-good", with(0xc0, 35, &[0, 0, 0, 1]), &[Accept, Withdraw]),
        ("prefixsid-40-corrupt", with(0xc0, 40, &[1, 0, 99, 1]), &[Discard, Accept, Withdraw]),
        ("attrset-128-garbage", with(0xc0, 128, &[9; 7]), &[Discard, Accept, Withdraw]),
        ("reserved-0", with(0xc0, 0, &[1]), &[Discard, Accept, Withdraw]),
        ("development-255", with(0xc0, 255, &[1, 2, 3]), &[Accept]),
        ("unknown-transitive", with(0xc0, 99, &[1, 2, 3]), &[Accept]),
        ("unknown-nontransitive", with(0x80, 99, &[1, 2, 3]), &[Accept, Discard]),
        ("unknown-extlen-short", with_tail(&[0xd0, 99, 0, 1, 7]), &[Accept]),
        ("unknown-wellknown", with(0x40, 99, &[1]), &[Withdraw, Reset(3, 2)]),
        ("attr-overruns-total", with_tail(&[0xc0, 99, 200, 1]), &[Withdraw]),
        ("attr-truncated-header", with_tail(&[0xc0]), &[Withdraw]),
        ("attr-extlen-truncated", with_tail(&[0xd0, 99, 0]), &[Withdraw]),
        ("total-attr-len-too-big", vec![0, 0, 0, 99, 0x40, 1, 1, 0], &[Withdraw, Reset(3, 1)]),
        ("withdrawn-len-too-big", vec![0, 99, 0, 0], &[Reset(3, 1)]),
        (
            "nlri-len-33",
            {
                let mut body = body(&[origin(), as_path(), next_hop()]);
                body.extend_from_slice(&[33, 1, 1, 1, 1, 1]);
                body
            },
            &[Reset(3, 10)],
        ),
        ("mp-reach-3-octets", with(0x80, 14, &[0, 1, 1]), &[Reset(3, 9)]),
        ("mp-reach-next-hop-3-octets", with(0x80, 14, &[0, 2, 1, 3, 1, 2, 3, 0]), &[Reset(3, 9)]),
        ("mp-unreach-2-octets", with(0x80, 15, &[0, 2]), &[Reset(3, 9)]),
        ("mp-reach-unknown-family", with(0x80, 14, &[0, 25, 70, 0, 0]), &[Accept]),
        (
            "mp-reach-twice",
            {
                let mp = attribute(0x80, 14, &[0, 25, 70, 0, 0]);
                body(&[origin(), as_path(), next_hop(), mp.clone(), mp])
            },
            &[Reset(3, 1)],
        ),
    ];
    for (name, body, expected) in cases {
        let got = outcome(&body, &external());
        assert!(expected.contains(&got), "{name}: {got:?}");
    }
}

#[test]
fn inside_an_as_a_malformed_local_pref_or_reflection_attribute_withdraws() {
    let internal = Dialect::plain(Peering::Internal);
    for (flags, kind, len) in [(0x40, 5, 3), (0x80, 9, 3), (0x80, 10, 5), (0x80, 10, 0)] {
        assert_eq!(outcome(&with(flags, kind, &vec![1; len]), &internal), Outcome::Withdraw, "{kind}");
    }
    assert_eq!(outcome(&with_path(&[]), &internal), Outcome::Accept, "a route of the own AS");
}

#[test]
fn bits_beyond_a_prefixes_length_are_cleared() {
    let body = {
        let mut body = body(&[origin(), as_path(), next_hop()]);
        body.extend_from_slice(&[9, 0xff, 0xff]);
        body
    };
    let update = Update::decode(&body, &external()).unwrap();
    let prefixes: Vec<String> = update.announced.iter().map(|nlri| nlri.prefix.to_string()).collect();
    assert_eq!(prefixes, ["10.0.0.0/8", "255.128.0.0/9"]);
}

/// The NOTIFICATION that an OPEN's body gets, or `None`.
fn refusal(body: &[u8]) -> Option<(u8, u8)> {
    match Open::decode(body) {
        Ok(_) => None,
        Err(DecodeError { remedy: Remedy::Reset(n), .. }) => Some(n.kind()),
        Err(other) => panic!("{other}"),
    }
}

/// An OPEN of AS 65001 with these capabilities in one parameter.
fn open_with(capabilities: &[u8]) -> Vec<u8> {
    let mut body = vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1];
    body.extend_from_slice(&[(capabilities.len() + 2) as u8, 2, capabilities.len() as u8]);
    body.extend_from_slice(capabilities);
    body
}

#[test]
fn each_malformed_open_gets_its_notification() {
    let plain = |version: u8, asn: u16, hold: u16, id: [u8; 4]| {
        let mut body = vec![version];
        body.extend_from_slice(&asn.to_be_bytes());
        body.extend_from_slice(&hold.to_be_bytes());
        body.extend_from_slice(&id);
        body.push(0);
        body
    };
    let id = [10, 0, 0, 1];
    let cases = vec![
        ("open-no-caps", plain(4, 65001, 90, id), None),
        ("open-version-3", plain(3, 65001, 90, id), Some((2, 1))),
        ("open-as2-zero", plain(4, 0, 90, id), Some((2, 2))),
        ("open-as4-zero", open_with(&[65, 4, 0, 0, 0, 0]), Some((2, 2))),
        ("open-rid-zero", plain(4, 65001, 90, [0; 4]), Some((2, 3))),
        ("open-hold-0", plain(4, 65001, 0, id), None),
        ("open-hold-1", plain(4, 65001, 1, id), Some((2, 6))),
        ("open-hold-2", plain(4, 65001, 2, id), Some((2, 6))),
        ("open-opt-param-1", vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 2, 1, 0], Some((2, 4))),
        ("open-opt-len-overrun", vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 9, 2, 0], Some((2, 0))),
        ("open-extopt-255-empty", vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 255, 255, 0, 0], None),
        ("open-extopt-truncated", vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 255, 255, 0], Some((2, 0))),
        (
            "open-extopt-valid-9072",
            vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 255, 255, 0, 5, 2, 0, 2, 2, 0],
            None,
        ),
        (
            "open-extopt-other-length",
            vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 9, 255, 0, 5, 2, 0, 2, 2, 0],
            None,
        ),
        ("open-cap-overrun", open_with(&[65, 9, 0, 0]), Some((2, 0))),
        ("open-cap-unknown", open_with(&[200, 2, 1, 2]), None),
        ("open-cap-mp-len-3", open_with(&[1, 3, 0, 1, 0]), None),
        ("open-cap-as4-len-3", open_with(&[65, 3, 0, 0, 1]), None),
        ("open-cap-gr-odd", open_with(&[64, 3, 0, 120, 0]), None),
        ("open-cap-addpath-odd", open_with(&[69, 3, 0, 1, 1]), None),
        ("open-cap-fqdn-overrun", open_with(&[73, 2, 200, 1]), None),
        ("open-cap-version-len-0", open_with(&[75, 0]), None),
        ("open-dup-caps", open_with(&[2, 0, 2, 0, 1, 4, 0, 1, 0, 1, 1, 4, 0, 1, 0, 1]), None),
    ];
    for (name, body, expected) in cases {
        assert_eq!(refusal(&body), expected, "{name}");
    }
}

#[test]
fn each_malformed_header_gets_its_notification() {
    let header = |len: u16, kind: u8| {
        let mut octets = vec![0xff; 16];
        octets.extend_from_slice(&len.to_be_bytes());
        octets.push(kind);
        octets.resize(usize::from(len).max(HEADER_LEN), 0);
        octets
    };
    let refusal = |octets: &[u8]| match frame(octets, MAX_MESSAGE) {
        Err(DecodeError { remedy: Remedy::Reset(n), .. }) => (n.kind(), n.data),
        other => panic!("{other:?}"),
    };
    let mut bad_marker = header(19, 4);
    bad_marker[3] = 0;
    assert_eq!(refusal(&bad_marker).0, (1, 1));
    assert_eq!(refusal(&header(18, 4)), ((1, 2), vec![0, 18]));
    assert_eq!(refusal(&header(4097, 2)), ((1, 2), vec![0x10, 1]));
    assert_eq!(refusal(&header(20, 4)), ((1, 2), vec![0, 20]));
    assert_eq!(refusal(&header(28, 1)), ((1, 2), vec![0, 28]));
    assert_eq!(refusal(&header(20, 3)), ((1, 2), vec![0, 20]));
    assert_eq!(refusal(&header(22, 2)), ((1, 2), vec![0, 22]));
    assert_eq!(refusal(&header(19, 0)), ((1, 3), vec![0]));
    assert_eq!(refusal(&header(19, 99)), ((1, 3), vec![99]));
    assert!(frame(&header(19, 4)[..18], MAX_MESSAGE).unwrap().is_none(), "more octets are needed");
    assert!(frame(&header(4097, 2), MAX_EXTENDED_MESSAGE).unwrap().is_some());
    let long = [7; 300];
    let answered = read_refresh(&long).unwrap_err().remedy;
    let whole = [&[0xff; 16][..], &[1, 63, 5], &long].concat();
    assert_eq!(answered, Remedy::Reset(Notification::new((7, 1)).with_data(&whole)), "the whole message");
    assert!(read_refresh(&[0, 1, 0]).is_err());
    assert_eq!(read_refresh(&[0, 25, 0, 70]), Ok(Refresh::Unknown));
    assert_eq!(read_refresh(&[0, 1, 9, 1]), Ok(Refresh::Unknown));
}
