//! Which of several things that ask for a session with one address counts.

use calico_model::resource::BgpFilter;
use calico_model::resource::filter::{FilterAction, FilterRule};

use super::*;
use crate::speaker::Password;

const SECRET: [&str; 2] = ["bgp", "reflectors"];

/// The passwords that the tests' resources refer to.
fn secrets() -> Secrets {
    let name = (SECRET[0].to_owned(), SECRET[1].to_owned());
    [(name, Password::new("secret").unwrap())].into_iter().collect()
}

fn password() -> Option<bgp::Password> {
    let [name, key] = SECRET.map(str::to_owned);
    Some(bgp::Password { secret_key_ref: Some(bgp::SecretKey { name, key, optional: None }) })
}

/// A filter by which nothing is taken.
fn take_nothing() -> Object<BgpFilter> {
    let filter = BgpFilter {
        export_v4: Vec::new(),
        import_v4: vec![FilterRule::new(FilterAction::Reject)],
        export_v6: Vec::new(),
        import_v6: Vec::new(),
    };
    Object::new("nothing".parse().unwrap(), filter)
}

fn peer(name: &str, spec: BgpPeer) -> Object<BgpPeer> {
    Object::new(name.parse().unwrap(), spec)
}

/// node3 is labelled as reflector; there is no mesh.
fn racks() -> Snapshot {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.node_to_node_mesh_enabled = Some(false));
    let mut reflector = node("node3", "172.16.199.12/24");
    reflector.metadata.labels = [("rr", "")].into_iter().collect();
    snapshot.insert(reflector);
    snapshot.insert(take_nothing());
    snapshot
}

fn session(snapshot: &Snapshot, from: &str, to: &str) -> PeerConfig {
    let to: IpAddr = to.parse().unwrap();
    let sessions = super::super::peers(snapshot, &named_node(from), &secrets());
    sessions.peers.into_iter().find(|peer| peer.address == to).unwrap()
}

/// Whether a session has a password, how far away its peer may be, and whether it takes anything.
fn settings(peer: &PeerConfig) -> (bool, Distance, bool) {
    let Exchange::Filtered(import) = &peer.import else { panic!("resources decide") };
    let attributes = Attributes::originated("172.16.6.9".parse().unwrap());
    let prefix = "10.99.0.0/24".parse().unwrap();
    let route = Route { prefix, attributes: (&attributes).into(), teller: Teller::Peer };
    let takes = import.program().decide(&route, &PrefixSet::default()) != Verdict::LeaveOut;
    (peer.password.is_some(), peer.distance, takes)
}

const STRICT: (bool, Distance, bool) = (true, Distance::Within(1), false);
const PLAIN: (bool, Distance, bool) = (false, Distance::Any, true);

fn strict() -> BgpPeer {
    let filters = vec!["nothing".parse().unwrap()];
    BgpPeer { password: password(), ttl_security: Some(1), filters, ..BgpPeer::new() }
}

#[test]
fn what_a_resource_says_of_this_node_counts_before_the_answer_to_another() {
    let (clients, reflectors) = (Some("!has(rr)".parse().unwrap()), Some("has(rr)".parse().unwrap()));
    let to_reflectors =
        BgpPeer { node_selector: clients.clone(), peer_selector: reflectors.clone(), ..BgpPeer::new() };
    let to_clients = BgpPeer { node_selector: reflectors, peer_selector: clients, ..strict() };
    for names in [["a", "b"], ["b", "a"]] {
        let mut snapshot = racks();
        snapshot.insert(peer(names[0], to_reflectors.clone()));
        snapshot.insert(peer(names[1], to_clients.clone()));
        assert_eq!(settings(&session(&snapshot, "node3", "172.16.6.9")), STRICT, "{names:?}");
        assert_eq!(settings(&session(&snapshot, "node1", "172.16.199.12")), PLAIN, "{names:?}");
    }
}

#[test]
fn a_resource_of_one_node_counts_before_the_answer_to_one_of_the_cluster() {
    let mut snapshot = racks();
    let everyone = BgpPeer { peer_selector: Some("has(rr)".parse().unwrap()), ..BgpPeer::new() };
    snapshot.insert(peer("everyone", everyone));
    let back = BgpPeer {
        node: Some(named_node("node3")),
        peer_ip: Some("172.16.6.9".parse().unwrap()),
        as_number: Some(AsNumber::DEFAULT),
        ..strict()
    };
    snapshot.insert(peer("one", back));
    assert_eq!(settings(&session(&snapshot, "node3", "172.16.6.9")), STRICT);
    assert_eq!(settings(&session(&snapshot, "node3", "172.16.6.10")), PLAIN, "it is answered");
    assert_eq!(settings(&session(&snapshot, "node1", "172.16.199.12")), PLAIN, "the cluster's comes first");
}

#[test]
fn a_resource_between_nodes_of_the_mesh_counts_before_the_mesh_on_both_sides() {
    let mut snapshot = cluster();
    snapshot.insert(take_nothing());
    assert_eq!(settings(&session(&snapshot, "node2", "172.16.6.9")), PLAIN);
    let back = BgpPeer {
        node: Some(named_node("node1")),
        peer_ip: Some("172.16.6.10".parse().unwrap()),
        as_number: Some(AsNumber::DEFAULT),
        ..strict()
    };
    snapshot.insert(peer("one", back));
    let both = |snapshot: &Snapshot| {
        [session(snapshot, "node1", "172.16.6.10"), session(snapshot, "node2", "172.16.6.9")]
    };
    let before = both(&snapshot);
    assert_eq!(before.each_ref().map(settings), [STRICT, STRICT]);
    assert_eq!(session(&snapshot, "node1", "172.16.199.12").name, "Mesh_172_16_199_12", "the others stay");

    // What has nothing to do with the session changes nothing of it.
    snapshot.insert(node("node4", "172.16.200.13/24"));
    configure(&mut snapshot, |c| c.node_mesh_max_restart_time = Some("60s".parse().unwrap()));
    let router = BgpPeer {
        peer_ip: Some("172.16.6.1".parse().unwrap()),
        as_number: AsNumber::new(65001),
        ..BgpPeer::new()
    };
    snapshot.insert(peer("aaa", router));
    assert_eq!(both(&snapshot), before);
}

#[test]
fn two_resources_that_ask_for_different_sessions_with_one_address_are_both_named() {
    let at = |place: &str| BgpPeer {
        peer_ip: Some(place.parse().unwrap()),
        as_number: AsNumber::new(65001),
        ..BgpPeer::new()
    };
    let problems = |one: BgpPeer, two: BgpPeer| -> Vec<String> {
        let mut snapshot = racks();
        snapshot.insert(peer("one", one));
        snapshot.insert(peer("two", two));
        let sessions = super::super::peers(&snapshot, &named_node("node1"), &secrets());
        sessions.problems.iter().map(ToString::to_string).collect()
    };
    let said = |peer: &str| {
        format!(
            "the BGPPeer two is left out on this node for {peer}: the BGPPeer one asks for another session with it, and \
             there is one for each address, whatever its port"
        )
    };
    assert_eq!(problems(at("10.7.0.1:1790"), at("10.7.0.1:1791")), [said("10.7.0.1")]);
    let one_node = BgpPeer { node: Some(named_node("node1")), ..at("10.7.0.1") };
    assert_eq!(problems(at("10.7.0.1"), one_node.clone()), Vec::<String>::new(), "the same session");
    let filtered = BgpPeer { filters: strict().filters, ..one_node };
    assert_eq!(problems(at("10.7.0.1"), filtered), [said("10.7.0.1")]);
    let network = |hops| BgpPeer {
        peer_ip: None,
        peer_cidr: Some("10.7.0.0/16".parse().unwrap()),
        ttl_security: hops,
        ..at("10.7.0.1")
    };
    assert_eq!(problems(network(Some(1)), network(None)), [said("10.7.0.0/16")]);
}

#[test]
fn a_peering_with_an_address_is_answered_where_the_as_number_and_the_port_are_the_nodes() {
    for (address, as_number, is_answered) in [
        ("172.16.6.10", 64512, true),
        ("172.16.6.10:179", 64512, true),
        ("172.16.6.10:1790", 64512, false),
        ("172.16.6.10", 64999, false),
    ] {
        let mut snapshot = racks();
        let spec = BgpPeer {
            node: Some(named_node("node1")),
            peer_ip: Some(address.parse().unwrap()),
            as_number: AsNumber::new(as_number),
            ..BgpPeer::new()
        };
        snapshot.insert(peer("one", spec));
        let answer = super::super::peers(&snapshot, &named_node("node2"), &secrets());
        let problems: Vec<_> = answer.problems.iter().map(ToString::to_string).collect();
        let said = "this node does not peer back with the nodes of the BGPPeer one, which names its address with another \
                    AS number or port: the node has the AS number 64512 and the port 179";
        let expected = if is_answered { (1, vec![]) } else { (0, vec![said.to_owned()]) };
        assert_eq!((answer.peers.len(), problems), expected, "{address} in AS {as_number}");
        let asks = super::super::peers(&snapshot, &named_node("node1"), &secrets());
        assert_eq!((asks.peers.len(), asks.problems), (1, vec![]));
    }
}

/// Each leads to the other, and neither fits: the mesh's session is better, and both are named.
#[test]
fn two_resources_with_wrong_numbers_do_not_make_each_other_right() {
    let mut snapshot = cluster();
    for (name, address) in [("a", "172.16.6.10"), ("b", "172.16.6.9")] {
        let wrong = BgpPeer {
            peer_ip: Some(address.parse().unwrap()),
            as_number: AsNumber::new(64999),
            ..BgpPeer::new()
        };
        snapshot.insert(peer(name, wrong));
    }
    for (here, there) in [("node1", "172.16.6.10"), ("node2", "172.16.6.9")] {
        assert!(session(&snapshot, here, there).name.starts_with("Mesh"), "{here}");
        let sessions = super::super::peers(&snapshot, &named_node(here), &secrets());
        let mut said: Vec<String> = sessions.problems.iter().map(|problem| format!("{problem:?}")).collect();
        said.sort();
        assert!(said[0].starts_with("StaysInMesh") && said[1].starts_with("Unanswered"), "{said:?}");
    }
}

/// node2 would refuse the session with another number, and the mesh's would be lost with it.
#[test]
fn a_resource_with_a_wrong_number_does_not_take_a_node_out_of_the_mesh() {
    for (address, as_number) in [("172.16.6.10", 64999), ("172.16.6.10:1790", 64512)] {
        let mut snapshot = cluster();
        let wrong = BgpPeer {
            peer_ip: Some(address.parse().unwrap()),
            as_number: AsNumber::new(as_number),
            ..BgpPeer::new()
        };
        snapshot.insert(peer("wrong", wrong));
        assert_eq!(session(&snapshot, "node1", "172.16.6.10").name, "Mesh_172_16_6_10");
        let here = super::super::peers(&snapshot, &named_node("node1"), &secrets());
        assert!(matches!(here.problems[..], [Problem::StaysInMesh { .. }]), "{:?}", here.problems);
        let there = super::super::peers(&snapshot, &named_node("node2"), &secrets());
        assert!(matches!(there.problems[..], [Problem::Unanswered { .. }]), "{:?}", there.problems);

        // One that says of node2 the other half makes two that fit.
        let back = BgpPeer {
            node: Some(named_node("node2")),
            peer_ip: Some("172.16.6.9".parse().unwrap()),
            as_number: Some(AsNumber::DEFAULT),
            local_as_number: AsNumber::new(as_number),
            ..BgpPeer::new()
        };
        snapshot.insert(peer("back", back));
        assert!(session(&snapshot, "node1", "172.16.6.10").name.starts_with("Global_172_16_6_10"));
    }
}

#[test]
fn nobody_is_said_not_to_answer_who_has_a_resource_of_its_own_with_the_other() {
    let mut snapshot = racks();
    for (here, there, own, theirs) in
        [("node1", "172.16.6.10", 65001, 65002), ("node2", "172.16.6.9", 65002, 65001)]
    {
        let spec = BgpPeer {
            node: Some(named_node(here)),
            peer_ip: Some(there.parse().unwrap()),
            as_number: AsNumber::new(theirs),
            local_as_number: AsNumber::new(own),
            ..BgpPeer::new()
        };
        snapshot.insert(peer(here, spec));
    }
    for here in ["node1", "node2"] {
        let sessions = super::super::peers(&snapshot, &named_node(here), &secrets());
        assert_eq!((sessions.peers.len(), sessions.problems), (1, vec![]), "{here}");
    }
}

#[test]
fn a_resource_that_takes_the_password_from_a_session_is_named() {
    let mut snapshot = cluster();
    configure(&mut snapshot, |c| c.node_mesh_password = password());
    let all = BgpPeer { peer_selector: Some("all()".parse().unwrap()), ..BgpPeer::new() };
    for (spec, named) in [(all.clone(), 2), (BgpPeer { password: password(), ..all }, 0)] {
        snapshot.insert(peer("all", spec));
        let sessions = super::super::peers(&snapshot, &named_node("node1"), &secrets());
        let unsigned = sessions.problems.iter().filter(|p| matches!(p, Problem::Unsigned { .. }));
        assert_eq!((unsigned.count(), sessions.problems.len()), (named, named), "{:?}", sessions.problems);
    }
}

#[test]
fn a_peer_is_reached_by_the_gateway_of_the_resource_that_counts() {
    let by = |gateway: &str| BgpPeer {
        peer_ip: Some("10.7.0.1".parse().unwrap()),
        as_number: AsNumber::new(65001),
        reachable_by: Some(gateway.parse().unwrap()),
        ..BgpPeer::new()
    };
    for names in [["a", "b"], ["b", "a"]] {
        let mut snapshot = racks();
        snapshot.insert(peer(names[0], by("172.16.6.253")));
        snapshot.insert(peer(names[1], BgpPeer { node: Some(named_node("node1")), ..by("172.16.6.254") }));
        let sessions = super::super::peers(&snapshot, &named_node("node1"), &secrets());
        let gateways = [("10.7.0.1".parse().unwrap(), "172.16.6.253".parse().unwrap())];
        assert_eq!(sessions.gateways, gateways.into(), "{names:?}");
        assert!(matches!(sessions.problems[..], [Problem::Twice { .. }]), "{:?}", sessions.problems);
    }
}
