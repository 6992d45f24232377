//! Changes of what is taken from a peer while its routes are held: a cluster's nodes that come and go, and filters.

use calico_bgp::peers::{self, Secrets};
use calico_bgp::session::{ConnectionId, State};
use calico_bgp::speaker::Exchange;
use calico_bgp::wire::open::Feature;
use calico_bgp::wire::{self, MessageType, Refresh};
use calico_model::name::Name;
use calico_model::resource::filter::{
    FilterAction, FilterOperation, FilterRule, MatchOperator, PrependAsPath, SetPriority,
};
use calico_model::resource::{BgpFilter, BgpPeer, Node, NodeBgp, Object};
use calico_model::snapshot::Snapshot;
use calico_model::{AsNumber, Family};

use crate::hostile::{EVIL, Rig, good_attributes, update};
use crate::refresh::establish_with;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A cluster with one node, and a router of another AS outside it.
fn cluster() -> Snapshot {
    let mut snapshot = Snapshot::default();
    put_node(&mut snapshot, "node1", "10.0.0.1/24");
    let router =
        BgpPeer { peer_ip: Some(EVIL.parse().unwrap()), as_number: AsNumber::new(65066), ..BgpPeer::new() };
    snapshot.insert(Object::new(name("router"), router));
    snapshot
}

fn put_node(snapshot: &mut Snapshot, node: &str, address: &str) {
    let mut spec = Node::new();
    spec.bgp = Some(NodeBgp::at(address.parse().unwrap()));
    snapshot.insert(Object::new(name(node), spec));
}

/// Lets a rule decide what is taken from the router.
fn import_by(snapshot: &mut Snapshot, rule: FilterRule) {
    let filter = BgpFilter {
        import_v4: vec![rule],
        export_v4: Vec::new(),
        import_v6: Vec::new(),
        export_v6: Vec::new(),
    };
    snapshot.insert(Object::new(name("filter"), filter));
    let router = BgpPeer {
        peer_ip: Some(EVIL.parse().unwrap()),
        as_number: AsNumber::new(65066),
        filters: vec![name("filter")],
        ..BgpPeer::new()
    };
    snapshot.insert(Object::new(name("router"), router));
}

/// What is taken from the router.
fn import(snapshot: &Snapshot) -> Exchange {
    let plan = peers::plan(snapshot, &"node1".parse().unwrap(), &Secrets::default()).unwrap();
    plan.peers.iter().find(|peer| peer.address.to_string() == EVIL).unwrap().import.clone()
}

fn held(rig: &Rig) -> Vec<String> {
    rig.speaker.routes().iter().map(|route| route.prefix.to_string()).collect()
}

/// How many requests to tell everything again were sent, and nothing else was.
fn questions(rig: &mut Rig, connection: ConnectionId) -> usize {
    let request = wire::refresh(Refresh::Request(Family::V4))[19..].to_vec();
    let sent = rig.sent(connection);
    assert!(
        sent.iter().all(|(kind, body)| *kind == MessageType::RouteRefresh && *body == request),
        "{sent:?}"
    );
    sent.len()
}

#[test]
fn a_node_that_joins_takes_its_address_from_routers_and_one_that_leaves_resets_none() {
    for (features, askable) in [(&[][..], false), (&[Feature::RouteRefresh][..], true)] {
        let mut snapshot = cluster();
        let mut rig = Rig::new();
        rig.change(EVIL, |peer| peer.import = import(&snapshot));
        let router = establish_with(&mut rig, false, features);
        rig.receive(router, &update(&good_attributes(65066), &[8, 20, 32, 10, 9, 0, 7, 32, 10, 9, 0, 8]));
        assert_eq!(held(&rig), ["10.9.0.7/32", "10.9.0.8/32", "20.0.0.0/8"]);

        put_node(&mut snapshot, "node2", "10.9.0.7/24");
        rig.change(EVIL, |peer| peer.import = import(&snapshot));
        assert_eq!(held(&rig), ["10.9.0.8/32", "20.0.0.0/8"], "as if it were withdrawn");
        assert_eq!(questions(&mut rig, router), 0);

        // It moves, and leaves.
        put_node(&mut snapshot, "node2", "10.9.0.8/24");
        rig.change(EVIL, |peer| peer.import = import(&snapshot));
        assert_eq!(held(&rig), ["20.0.0.0/8"]);
        assert_eq!(questions(&mut rig, router), usize::from(askable));
        snapshot.nodes.remove(&name("node2").into());
        rig.change(EVIL, |peer| peer.import = import(&snapshot));
        assert_eq!(questions(&mut rig, router), usize::from(askable));
        assert_eq!(rig.state(EVIL), State::Established);
        assert_eq!(rig.speaker.status()[1].counters.established, 1);
    }
}

#[test]
fn who_knows_the_marks_alone_is_asked_instead_of_reset() {
    let mut rig = Rig::new();
    let router = establish_with(&mut rig, false, &[Feature::EnhancedRouteRefresh]);
    rig.speaker.refresh_peer(EVIL.parse().unwrap(), rig.now);
    assert_eq!(questions(&mut rig, router), 1);
    assert_eq!(rig.state(EVIL), State::Established);
    rig.change(EVIL, |peer| peer.import = Exchange::Unsaid);
    assert_eq!(questions(&mut rig, router), 1);
    assert_eq!(rig.state(EVIL), State::Established);
}

#[test]
fn another_address_of_ours_takes_the_routes_that_lead_to_it_and_has_those_to_the_old_one_told_again() {
    const OURS: [u8; 4] = [10, 9, 9, 9];
    for (features, askable) in [(&[][..], false), (&[Feature::RouteRefresh][..], true)] {
        let mut rig = Rig::new();
        let router = establish_with(&mut rig, false, features);
        let to = |hop: [u8; 4], prefix: u8| {
            let mut attributes = good_attributes(65066);
            attributes[16..].copy_from_slice(&hop);
            update(&attributes, &[8, prefix])
        };
        let tell = |rig: &mut Rig, router| {
            rig.receive(router, &to(OURS, 20));
            rig.receive(router, &to([10, 0, 0, 66], 21));
        };
        tell(&mut rig, router);
        assert_eq!(held(&rig), ["20.0.0.0/8", "21.0.0.0/8"]);
        rig.change(EVIL, |peer| peer.other_next_hop = Some(OURS.into()));
        assert_eq!(held(&rig), ["21.0.0.0/8"], "as if it were withdrawn");
        assert_eq!(questions(&mut rig, router), 0);

        rig.change(EVIL, |peer| peer.other_next_hop = None);
        if askable {
            assert_eq!(questions(&mut rig, router), 1);
            tell(&mut rig, router);
            assert_eq!(held(&rig), ["20.0.0.0/8", "21.0.0.0/8"]);
            assert_eq!(rig.speaker.status()[1].counters.established, 1);
        } else {
            assert_eq!(rig.notification(router).map(|why| why.kind()), Some((6, 4)));
        }
    }
}

/// What a rule has changed no longer looks as the rule found it: it is not to be taken for something that no rule took.
#[test]
fn what_a_rule_has_let_in_changed_stays_whatever_becomes_ours() {
    let prepend = PrependAsPath { prefix: vec![AsNumber::new(65099).unwrap()] };
    let nothing = FilterOperation { add_community: None, prepend_as_path: None, set_priority: None };
    let prepend = FilterOperation { prepend_as_path: Some(prepend), ..nothing.clone() };
    let prefer = FilterOperation { set_priority: Some(SetPriority { value: 7 }), ..nothing };
    for operations in [vec![prepend.clone()], vec![prefer, prepend]] {
        for (restarts, features) in [(false, &[][..]), (false, &[Feature::RouteRefresh][..]), (true, &[][..])]
        {
            let mut snapshot = cluster();
            let rule = FilterRule {
                cidr: Some("10.9.0.7/32".parse().unwrap()),
                match_operator: Some(MatchOperator::Equal),
                as_path_prefix: vec![AsNumber::new(65066).unwrap()],
                operations: operations.clone(),
                ..FilterRule::new(FilterAction::Accept)
            };
            import_by(&mut snapshot, rule);
            let mut rig = Rig::new();
            rig.change(EVIL, |peer| peer.import = import(&snapshot));
            let router = establish_with(&mut rig, restarts, features);
            rig.receive(router, &update(&good_attributes(65066), &[32, 10, 9, 0, 7, 32, 10, 9, 0, 8]));
            assert_eq!(held(&rig), ["10.9.0.7/32", "10.9.0.8/32"]);
            if restarts {
                rig.speaker.closed(router, "gone".to_owned(), rig.now);
                assert_ne!(rig.state(EVIL), State::Established);
            }
            put_node(&mut snapshot, "node2", "10.9.0.7/24");
            put_node(&mut snapshot, "node3", "10.9.0.8/24");
            rig.change(EVIL, |peer| peer.import = import(&snapshot));
            assert_eq!(held(&rig), ["10.9.0.7/32"], "the rule takes the one, and no rule the other");
        }
    }
}

/// A rule may put our own AS number into a path: where fewer of them are allowed, only what the peer said of it counts.
#[test]
fn our_number_that_a_rule_has_put_into_a_path_makes_no_loop_of_it_once_fewer_are_allowed() {
    for (features, askable) in [(&[][..], false), (&[Feature::RouteRefresh][..], true)] {
        let mut snapshot = cluster();
        let prepend = PrependAsPath { prefix: vec![AsNumber::new(65001).unwrap()] };
        let prepend =
            FilterOperation { add_community: None, prepend_as_path: Some(prepend), set_priority: None };
        let rule = FilterRule {
            cidr: Some("10.9.0.7/32".parse().unwrap()),
            match_operator: Some(MatchOperator::Equal),
            operations: vec![prepend],
            ..FilterRule::new(FilterAction::Accept)
        };
        import_by(&mut snapshot, rule);
        let mut rig = Rig::new();
        rig.change(EVIL, |peer| {
            assert_eq!(peer.local_as.to_string(), "65001");
            (peer.import, peer.allow_own_as) = (import(&snapshot), 1);
        });
        let router = establish_with(&mut rig, false, features);
        rig.receive(router, &update(&good_attributes(65066), &[32, 10, 9, 0, 7, 8, 20]));
        rig.change(EVIL, |peer| peer.allow_own_as = 0);
        assert_eq!(held(&rig), ["10.9.0.7/32", "20.0.0.0/8"]);
        assert_eq!(questions(&mut rig, router), usize::from(askable), "what was not changed may hold it");
    }
}
