//! Whatever is written comes back as it was, and whatever octets come in are survived.

use std::net::{Ipv4Addr, Ipv6Addr};

use calico_model::{AsNumber, Community, Family};
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::attribute::{Partial, UnknownAttribute, flag};
use super::super::open::{
    AddPath, Feature, Forwarding, GracefulRestart, LongLivedFamily, LongLivedRestart, OnNotification,
    RestartState,
};
use super::super::update::{MpReach, MpUnreach};
use super::*;
use crate::family::FamilySet;

fn any_address<A: Address>() -> impl Strategy<Value = Nlri<A>> {
    (any::<[u8; 16]>(), 0..=A::BITS, any::<u32>()).prop_map(|(octets, len, path_id)| {
        let mut wire = vec![len];
        wire.extend_from_slice(&octets[..usize::from(len).div_ceil(8)]);
        let prefix = Prefixes::<A>::decode(&wire, PathIds::Absent).unwrap().iter().next().unwrap().prefix;
        Nlri { prefix, path_id }
    })
}

fn any_as() -> impl Strategy<Value = AsNumber> {
    prop_oneof![1..=70_000u32, Just(u32::MAX)].prop_map(|n| AsNumber::new(n).unwrap())
}

pub(crate) fn any_attributes(next_hop: std::net::IpAddr) -> impl Strategy<Value = Attributes> {
    let first = (0..3u8, vec(any_as(), 1..5), any::<Option<u32>>(), any::<Option<u32>>());
    let second = (
        any::<Option<u32>>(),
        vec(any::<u32>(), 0..5),
        vec(any::<u64>(), 0..40),
        vec(any::<[u32; 3]>(), 0..30),
        vec(any::<[u8; 4]>(), 0..4),
        proptest::option::of((any_as(), any::<[u8; 4]>())),
        vec(any::<u8>(), 0..300),
    );
    let partial = vec(prop_oneof![Just(7u8), Just(8), Just(16), Just(32), Just(35)], 0..5);
    (first, second, partial).prop_map(move |((origin, path, med, local_pref), rest, partial)| {
        let (otc, communities, extended, mut large, clusters, aggregator, unknown) = rest;
        let mut attributes = Attributes::originated(next_hop);
        attributes.origin = Origin::from_code(origin).unwrap();
        attributes.as_path = AsPath::sequence(&path);
        attributes.med = med;
        attributes.local_pref = local_pref;
        large.sort_unstable();
        large.dedup();
        attributes.change_extra(|extra| {
            extra.only_to_customer = otc;
            extra.communities = communities.into();
            extra.extended_communities = extended.into();
            extra.large_communities = large.into();
            extra.originator_id = clusters.first().map(|id| Ipv4Addr::from(*id));
            extra.cluster_list = clusters.iter().map(|id| Ipv4Addr::from(*id)).collect();
            extra.aggregator = aggregator.map(|(asn, addr)| (asn, addr.into()));
            extra.partial = partial.into_iter().fold(Partial::default(), Partial::and);
            if !unknown.is_empty() {
                let flags = flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL;
                extra.unknown = [UnknownAttribute { flags, kind: 99, value: unknown.into() }].into();
            }
        });
        attributes
    })
}

fn any_dialect() -> impl Strategy<Value = Dialect> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(narrow, ids, long)| {
        let ids = if ids { PathIds::Present } else { PathIds::Absent };
        Dialect {
            as_width: if narrow { AsWidth::Two } else { AsWidth::Four },
            path_ids_in: PerFamily { v4: ids, v6: ids },
            path_ids_out: PerFamily { v4: ids, v6: ids },
            max_len_in: if long { MAX_EXTENDED_MESSAGE } else { MAX_MESSAGE },
            max_len_out: if long { MAX_EXTENDED_MESSAGE } else { MAX_MESSAGE },
            ..Dialect::plain(Peering::Internal)
        }
    })
}

/// What is left of a prefix where identifiers are not told.
fn as_told<A: Address>(nlri: &[Nlri<A>], dialect: &Dialect) -> Vec<Nlri<A>> {
    let keeps = dialect.path_ids_out[A::FAMILY] == PathIds::Present;
    nlri.iter().map(|n| Nlri { path_id: if keeps { n.path_id } else { 0 }, ..*n }).collect()
}

fn body_of(message: &[u8], dialect: &Dialect) -> Vec<u8> {
    let frame = frame(message, dialect.max_len_in).unwrap().unwrap();
    assert_eq!((frame.kind, frame.len), (MessageType::Update, message.len()));
    frame.body.to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_octets_decode_without_a_panic(octets in vec(any::<u8>(), 0..200), dialect in any_dialect()) {
        let _ = frame(&octets, dialect.max_len_in);
        let _ = Open::decode(&octets);
        let _ = Update::decode(&octets, &dialect);
        let _ = read_refresh(&octets);
        let _ = read_notification(&octets).to_string();
    }

    #[test]
    fn any_attribute_octets_keep_the_session_or_name_a_notification(
        octets in vec(any::<u8>(), 0..120),
        dialect in any_dialect(),
    ) {
        let mut whole = vec![0, 0];
        whole.extend_from_slice(&(octets.len() as u16).to_be_bytes());
        whole.extend_from_slice(&octets);
        whole.extend_from_slice(&[8, 10]);
        match Update::decode(&whole, &dialect) {
            Ok(_) => {}
            Err(fault) => prop_assert!(matches!(fault.remedy, Remedy::Reset(_)), "{fault}"),
        }
    }

    #[test]
    fn ipv4_announcements_come_back_as_they_were(
        attributes in any_attributes(Ipv4Addr::new(192, 0, 2, 1).into()),
        nlri in vec(any_address::<Ipv4Addr>(), 1..900),
        dialect in any_dialect(),
    ) {
        let mut back = Vec::new();
        let mut messages = Vec::new();
        update::announce(&attributes, &nlri, &dialect, |message, _| messages.push(message)).unwrap();
        for message in messages {
            prop_assert!(message.len() <= dialect.max_len_out);
            let body = body_of(&message, &dialect);
            let update = Update::decode(&body, &dialect).unwrap();
            prop_assert_eq!(&update.faults, &[]);
            prop_assert_eq!(update.attributes.as_ref(), Some(&attributes));
            back.extend(update.announced.iter());
        }
        prop_assert_eq!(back, as_told(&nlri, &dialect));
    }

    #[test]
    fn ipv6_announcements_come_back_as_they_were(
        attributes in any_attributes(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into()),
        nlri in vec(any_address::<Ipv6Addr>(), 1..300),
        dialect in any_dialect(),
    ) {
        let mut back = Vec::new();
        let mut messages = Vec::new();
        update::announce(&attributes, &nlri, &dialect, |message, _| messages.push(message)).unwrap();
        for message in messages {
            prop_assert!(message.len() <= dialect.max_len_out);
            let body = body_of(&message, &dialect);
            let update = Update::decode(&body, &dialect).unwrap();
            prop_assert_eq!(&update.faults, &[]);
            prop_assert_eq!(update.attributes.as_ref(), Some(&attributes));
            match update.mp_announced {
                Some(MpReach::V6(list, _)) => back.extend(list.iter()),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(back, as_told(&nlri, &dialect));
    }

    #[test]
    fn withdrawals_come_back_as_they_were(
        v4 in vec(any_address::<Ipv4Addr>(), 1..900),
        v6 in vec(any_address::<Ipv6Addr>(), 1..300),
        dialect in any_dialect(),
    ) {
        let (mut back_v4, mut back_v6) = (Vec::new(), Vec::new());
        let mut messages = Vec::new();
        update::withdraw(&v4, &dialect, |message, _| messages.push(message));
        update::withdraw(&v6, &dialect, |message, _| messages.push(message));
        for message in messages {
            let body = body_of(&message, &dialect);
            let update = Update::decode(&body, &dialect).unwrap();
            prop_assert_eq!(&update.faults, &[]);
            prop_assert_eq!(update.end_of_rib, None);
            back_v4.extend(update.withdrawn.iter());
            if let Some(MpUnreach::V6(list)) = update.mp_withdrawn {
                back_v6.extend(list.iter());
            }
        }
        prop_assert_eq!(back_v4, as_told(&v4, &dialect));
        prop_assert_eq!(back_v6, as_told(&v6, &dialect));
    }

    #[test]
    fn opens_come_back_as_they_were(
        asn in any_as(),
        hold in prop_oneof![Just(0u16), 3..=u16::MAX],
        restart_time in 0..4096u16,
        flags in any::<[bool; 6]>(),
        add_path in (0..4usize, 0..4usize),
    ) {
        let kinds = [AddPath::Neither, AddPath::Receive, AddPath::Send, AddPath::Both];
        let features = [
            Feature::RouteRefresh,
            Feature::EnhancedRouteRefresh,
            Feature::ExtendedMessages,
            Feature::ExtendedNextHop,
        ];
        let open = Open {
            asn,
            hold_time: HoldTime::new(hold).unwrap(),
            router_id: "10.1.2.3".parse().unwrap(),
            capabilities: Capabilities {
                families: Some(if flags[0] { FamilySet::BOTH } else { FamilySet::V6 }),
                four_octet_as: Some(asn),
                features: features.into_iter().zip(flags).filter(|(_, on)| *on).map(|(f, _)| f).collect(),
                long_lived: flags[5].then_some(LongLivedRestart {
                    families: PerFamily {
                        v4: Some(LongLivedFamily { forwarding: Forwarding::Preserved, stale_time: 0xff_ffff }),
                        v6: flags[4].then_some(LongLivedFamily { forwarding: Forwarding::Lost, stale_time: 7 }),
                    },
                }),
                graceful_restart: flags[4].then_some(GracefulRestart {
                    restart_time,
                    state: if flags[5] { RestartState::Restarting } else { RestartState::Fresh },
                    on_notification: if flags[3] { OnNotification::Keep } else { OnNotification::Drop },
                    families: PerFamily { v4: Some(Forwarding::Preserved), v6: flags[2].then_some(Forwarding::Lost) },
                }),
                add_path: PerFamily { v4: kinds[add_path.0], v6: kinds[add_path.1] },
                role: None,
            },
        };
        let message = open.encode();
        let frame = frame(&message, MAX_MESSAGE).unwrap().unwrap();
        prop_assert_eq!(frame.kind, MessageType::Open);
        prop_assert_eq!(Open::decode(frame.body).unwrap(), open);
    }
}

#[test]
fn end_of_rib_is_recognised_in_both_families() {
    for family in Family::ALL {
        let message = update::end_of_rib(family);
        let body = body_of(&message, &external());
        let update = Update::decode(&body, &external()).unwrap();
        assert_eq!(update.end_of_rib, Some(update::EndOfRib(family)));
        assert!(update.attributes.is_none() && update.faults.is_empty());
    }
}

#[test]
fn attributes_that_fill_a_message_are_refused_and_not_cut() {
    let mut attributes = Attributes::originated(Ipv4Addr::new(192, 0, 2, 1).into());
    let many: Vec<Community> = (0..1100).map(|n| Community::Standard(1, n)).collect();
    attributes.add_communities(&many);
    let nlri = [Nlri { prefix: Prefix::<Ipv4Addr>::of("10.0.0.0/8".parse().unwrap()).unwrap(), path_id: 0 }];
    let refused = update::announce(&attributes, &nlri, &external(), |_, _| panic!("nothing fits"));
    assert_eq!(refused, Err(update::TooLong { limit: MAX_MESSAGE }));
    let long = Dialect { max_len_out: MAX_EXTENDED_MESSAGE, ..external() };
    assert!(update::announce(&attributes, &nlri, &long, |_, _| {}).is_ok());
}
