//! Faults whose remedy depends on what else the message says.

use std::net::Ipv6Addr;

use super::*;

/// The body of an UPDATE that withdraws 30.0.0.0/8, with these attributes and no announced IPv4 prefix.
fn announcing_none(attributes: &[Vec<u8>]) -> Vec<u8> {
    let attributes = attributes.concat();
    [&[0, 2, 8, 30], &(attributes.len() as u16).to_be_bytes()[..], &attributes].concat()
}

/// The whole fd00::/16, by way of 2001:db8::1.
fn reach() -> Vec<u8> {
    let next_hop = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    attribute(0x80, 14, &[&[0, 2, 1, 16][..], &next_hop, &[0, 16, 0xfd, 0]].concat())
}

fn unreach(flags: u8) -> Vec<u8> {
    attribute(flags, 15, &[0, 2, 1, 16, 0xfd, 0])
}

#[test]
fn a_fault_that_may_have_hidden_every_prefix_ends_the_session() {
    use Outcome::*;
    let swallowing = |octets: u8| vec![0xc0, 99, octets];
    let bad_origin = || attribute(0x40, 1, &[3]);
    let foreign = || attribute(0x80, 14, &[0, 25, 70, 0, 0, 1, 2, 3]);
    let empty = || attribute(0x80, 14, &[0, 1, 1, 4, 10, 0, 0, 9, 0]);
    let cases: [(&str, &[Vec<u8>], Outcome); 11] = [
        ("an attribute runs over MP_REACH", &[origin(), as_path(), swallowing(200), reach()], Reset(3, 1)),
        ("MP_REACH is cut short", &[origin(), as_path(), reach()[..12].to_vec()], Reset(3, 1)),
        ("MP_UNREACH is cut short", &[unreach(0x80)[..6].to_vec()], Reset(3, 1)),
        ("after MP_UNREACH one is cut short", &[unreach(0x80), swallowing(9)], Reset(3, 1)),
        ("a bad value and no prefix", &[bad_origin(), as_path(), next_hop()], Reset(3, 1)),
        ("a bad value and withdrawn prefixes", &[bad_origin(), unreach(0x80)], Reset(3, 1)),
        ("a bad value and an empty MP_REACH", &[bad_origin(), as_path(), empty()], Reset(3, 1)),
        ("a bad value and prefixes", &[bad_origin(), as_path(), reach()], Withdraw),
        ("a bad value and prefixes of a family that we do not speak", &[bad_origin(), foreign()], Withdraw),
        ("bad flags of withdrawn prefixes, and nothing else", &[unreach(0xc0)], Withdraw),
        ("what is discarded, and no prefix", &[attribute(0x40, 5, &[0; 3])], Withdraw),
    ];
    for (name, attributes, expected) in cases {
        assert_eq!(outcome(&announcing_none(attributes), &external()), expected, "{name}");
    }
}

#[test]
fn the_reset_says_which_attribute_was_at_fault() {
    let message = announcing_none(&[attribute(0x40, 1, &[3]), as_path()]);
    let fault = Update::decode(&message, &external()).unwrap_err();
    assert_eq!(fault.to_string(), "path attribute 1: the origin is not one of three");
}

#[test]
fn a_next_hop_beside_nothing_but_multiprotocol_prefixes_is_not_looked_at() {
    let beside = |hop: Vec<u8>| announcing_none(&[origin(), as_path(), hop, reach()]);
    for hop in
        [attribute(0x40, 3, &[0; 4]), attribute(0x40, 3, &[1, 2, 3]), attribute(0xc0, 3, &[10, 0, 0, 1])]
    {
        assert_eq!(outcome(&beside(hop), &external()), Outcome::Accept);
    }
    let with_both = body(&[origin(), as_path(), attribute(0x40, 3, &[0; 4]), reach()]);
    assert_eq!(outcome(&with_both, &external()), Outcome::Withdraw, "it is that of the other prefixes");
}

#[test]
fn a_link_local_address_is_a_next_hop_only_behind_a_global_one() {
    let global = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let by_way_of = |hops: &[[u8; 16]]| {
        let hops = hops.concat();
        let value = [&[0, 2, 1, hops.len() as u8][..], &hops, &[0, 16, 0xfd, 0]].concat();
        announcing_none(&[origin(), as_path(), attribute(0x80, 14, &value)])
    };
    let both = by_way_of(&[global, local]);
    let update = Update::decode(&both, &external()).unwrap();
    assert_eq!(update.attributes.unwrap().next_hop, Ipv6Addr::from(global));
    for hops in [&[local][..], &[local, local], &[[0; 16], local]] {
        assert_eq!(outcome(&by_way_of(hops), &external()), Outcome::Withdraw, "{hops:?}");
    }
}

#[test]
fn a_fault_of_the_aggregator_in_wide_numbers_is_told_under_its_own_type() {
    for (value, problem) in [(&[0; 5][..], "the length is wrong"), (&[0; 8], "the aggregator is AS 0")] {
        let message = body(&[
            origin(),
            attribute(0x40, 2, &[2, 1, 0xfd, 0xe9]),
            next_hop(),
            attribute(0xc0, 18, value),
        ]);
        let update = Update::decode(&message, &narrow()).unwrap();
        assert_eq!(update.faults, [DecodeError::discard(18, problem)]);
    }
}

fn narrow() -> Dialect {
    Dialect { as_width: AsWidth::Two, ..external() }
}

#[test]
fn what_a_confederation_left_in_the_path_of_an_old_speaker_is_skipped() {
    let path = |as4_path: &[u8]| {
        let message = body(&[
            origin(),
            attribute(0x40, 2, &[2, 3, 0xfd, 0xe9, 0x5b, 0xa0, 0, 7]),
            next_hop(),
            attribute(0xc0, 17, as4_path),
        ]);
        let update = Update::decode(&message, &narrow()).unwrap();
        (update.attributes.unwrap().as_path.to_string(), update.faults.len())
    };
    let wide = [2, 2, 0, 1, 0x11, 0x70, 0, 0, 0, 7];
    let confederation = [3, 1, 0, 0, 0, 9, 4, 1, 0, 0, 0, 8];
    assert_eq!(path(&[&confederation[..], &wide].concat()), ("65001 70000 7".to_owned(), 0));
    assert_eq!(path(&[&[3, 9, 0, 0][..], &wide].concat()), ("65001 23456 7".to_owned(), 1), "cut short");
}

/// A segment of 255 two-octet numbers, so many times.
fn narrow_segments(count: usize) -> Vec<u8> {
    [&[2, 255][..], &[0xfd, 0xe9].repeat(255)].concat().repeat(count)
}

#[test]
fn a_path_that_four_octet_numbers_make_too_long_withdraws() {
    let told = |octets: &[u8], more: &[Vec<u8>]| {
        let path = attribute(0x40, 2, octets);
        body(&[&[origin(), path, next_hop()], more].concat())
    };
    // 1,022 octets in four-octet numbers each.
    assert_eq!(outcome(&told(&narrow_segments(64), &[]), &narrow()), Outcome::Accept);
    assert_eq!(outcome(&told(&narrow_segments(65), &[]), &narrow()), Outcome::Withdraw);
    // A set counts as one, whatever it holds, so that a wide path of sets replaces little of the narrow one.
    let sets = [&[1, 255][..], &[0xfd, 0xe9].repeat(255)].concat().repeat(40);
    let wide = [&[1, 255][..], &[0, 1, 0, 0].repeat(255)].concat();
    let through = |count: usize| {
        let as4_path = attribute(0xc0, 17, &wide.repeat(count));
        told(&[sets.clone(), narrow_segments(1)].concat(), &[as4_path])
    };
    assert_eq!(outcome(&through(1), &narrow()), Outcome::Accept);
    assert_eq!(outcome(&through(43), &narrow()), Outcome::Withdraw, "put together");
}
