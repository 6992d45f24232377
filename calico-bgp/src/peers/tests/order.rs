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
