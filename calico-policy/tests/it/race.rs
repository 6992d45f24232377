//! A packet that is on its way while rules change: it meets the old ones or the new ones, and nothing between.
//!
//! A packet keeps to the rules that were in force when it came, but finds the elements that are there when it looks. So that
//! many packets are on their way at each change, the node has many prefixes of interfaces, whose rules come first. The node itself sends:
//! it is told at once, by an error, that a packet was dropped, and no queue is involved.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};

use calico_policy::nft::{Nft, Operation, plan, plan_change};
use calico_policy::{Delta, Ruleset, compile};

use crate::golden;
use crate::netns::Namespace;

const CHANGES: usize = 400;
const PREFIXES: usize = 400;

/// A node with one interface. Port 8000 is allowed and port 9000 is not, whatever the policies are.
const NODE: &str = "
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: eth0, labels: {host: a}}
spec: {node: node-1, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
";

/// A policy for what the node sends, whose egress rules are these.
fn policy(name: &str, rules: impl IntoIterator<Item = String>) -> String {
    let rules: Vec<String> = rules.into_iter().collect();
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: default.{name}}}\n\
         spec: {{selector: \"host == 'a'\", types: [Egress], egress: [{}]}}\n",
        rules.join(", ")
    )
}

fn rule(action: &str, net: &str, port: impl std::fmt::Display) -> String {
    format!(
        "{{action: {action}, protocol: UDP, ipVersion: 4, destination: {{nets: [{net}], ports: [{port}]}}}}"
    )
}

/// Rules that match none of the packets, and that no lookup can join: they name several ports of both ends.
fn apart(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|i| {
        let (source, destination) = (format!("{}:{}", i + 1, i + 30), format!("{}:{}", i + 2, 9_500 + i));
        format!(
            "{{action: Deny, protocol: UDP, source: {{ports: ['{source}']}}, destination: {{ports: ['{destination}']}}}}"
        )
    })
}

/// What the node is told when it has these policies.
fn ruleset(policies: &str) -> Ruleset {
    let prefixes: Vec<String> = (0..PREFIXES).map(|i| format!("none{i}")).collect();
    let world = format!("{NODE}spec: {{interfacePrefix: '{}'}}\n{policies}", prefixes.join(","));
    compile(&golden::parsed(world.as_bytes()), &"node-1".parse().unwrap())
}

/// Changes the policies to and fro while the node sends, and counts what was lost and what leaked.
fn hammer(word: &str, versions: [&str; 2]) {
    let namespace = Namespace::new(word);
    namespace.ip("link add eth0 type veth peer name nobody");
    namespace.ip("addr add 10.0.0.1/24 dev eth0");
    namespace.ip("link set nobody up");
    namespace.ip("link set eth0 up");
    namespace.ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent");
    let [first, second] = versions.map(ruleset);
    assert!(first.stats().rules > PREFIXES, "packets are on their way for too short a time");
    let turns = [(&first, &second), (&second, &first)]
        .map(|(before, after)| plan_change(&Delta::between(before, after)));
    let over = AtomicBool::new(false);
    let changes = || {
        namespace.enter();
        let mut nft = Nft::new();
        nft.sync(&first).unwrap();
        let done = turns.iter().cycle().take(CHANGES).try_for_each(|change| nft.apply(change));
        over.store(true, Ordering::SeqCst);
        done.unwrap();
        assert!(plan(&first, &nft.read().unwrap()).is_empty(), "it is as at first");
    };
    let sends = || {
        namespace.enter();
        let socket = UdpSocket::bind("10.0.0.1:700").unwrap();
        let passes = |port: u16| match socket.send_to(b"x", ("10.0.0.2", port)) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => false,
            Err(error) => panic!("{error}"),
        };
        while passes(9000) && !over.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
        let (mut sent, mut lost, mut leaked) = (0, 0, 0);
        while !over.load(Ordering::SeqCst) {
            sent += 1;
            lost += usize::from(!passes(8000));
            leaked += usize::from(passes(9000));
        }
        (sent, lost, leaked)
    };
    let (sent, lost, leaked) = std::thread::scope(|scope| {
        let sending = scope.spawn(sends);
        scope.spawn(changes).join().unwrap();
        sending.join().unwrap()
    });
    assert!(sent > CHANGES, "{sent} sent");
    assert_eq!((lost, leaked), (0, 0), "of {sent} packets of each kind, at {CHANGES} changes");
}

#[test]
fn pe92_a_set_that_changes_with_the_rules_that_look_at_it_is_another() {
    let elsewhere = |action| (0..3).map(move |i| rule(action, &format!("10.9.0.{i}/32"), 7000 + i));
    let allows = policy("own", elsewhere("Allow").chain([rule("Allow", "10.0.0.2/32", 8000)]));
    let denies = elsewhere("Deny")
        .chain([rule("Deny", "10.0.0.2/32", 9000), "{action: Allow, protocol: UDP}".to_owned()]);
    hammer("set", [&allows, &policy("own", denies)]);
}

#[test]
fn pe92_a_range_that_becomes_another_in_place_is_never_missed() {
    let elsewhere = || (0..3).map(|i| rule("Allow", &format!("10.9.0.{i}/32"), 7000 + i));
    let version = |ports: &str| policy("own", elsewhere().chain([rule("Allow", "10.0.0.2/32", ports)]));
    let [up, down] = ["'8000:8500'", "'7500:8000'"].map(version);
    let rules = |policies: &str| ruleset(policies).chains;
    assert_eq!(rules(&up), rules(&down), "only elements change");
    hammer("range", [&up, &down]);
}

#[test]
fn pe92_an_action_turns_in_place_and_what_both_versions_say_is_never_missed() {
    let version = |turned: usize, allowed: &str, denied: &str| {
        let action = |i| if i == turned { "Deny" } else { "Allow" };
        let elsewhere = (0..4).map(|i| rule(action(i), &format!("10.9.0.{i}/32"), 7000 + i));
        let ours = [rule("Allow", "10.0.0.2/32", allowed), rule("Deny", "10.0.0.2/32", denied)];
        policy("own", elsewhere.chain(ours).chain(["{action: Allow, protocol: UDP}".to_owned()]))
    };
    let [one, other] = [version(1, "'8000:8500'", "'8900:9000'"), version(2, "'7500:8000'", "'9000:9100'")];
    let rules = |policies: &str| ruleset(policies).chains;
    assert_eq!(rules(&one), rules(&other), "only elements change");
    hammer("turn", [&one, &other]);
}

#[test]
fn pe92_a_policy_that_comes_to_select_an_endpoint_brings_all_that_it_denies() {
    let other = "---\napiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: eth1, labels: {host: b}}\n\
                 spec: {node: node-1, interfaceName: eth1}\n";
    let everywhere = |policy: String| policy.replace("host == 'a'", "all()");
    let own = everywhere(policy("own", [rule("Allow", "10.0.0.2/32", 8000)]));
    let elsewhere = || (0..4).map(|i| rule("Deny", &format!("10.9.0.{i}/32"), 7000 + i));
    let open = || "{action: Allow, protocol: UDP}".to_owned();
    let of_other = policy("before-own", elsewhere().chain([open()])).replace("host == 'a'", "host == 'b'");
    let of_all = policy("before-own", elsewhere().chain([rule("Deny", "10.0.0.2/32", 9000), open()]));
    hammer(
        "widened",
        [of_other, everywhere(of_all)]
            .map(|policy| format!("{other}{own}{policy}"))
            .each_ref()
            .map(String::as_str),
    );
}

#[test]
fn pe92_two_sets_of_a_chain_that_change_together_are_others() {
    let elsewhere = |port: u16| (0..3).map(move |i| rule("Allow", &format!("10.9.0.{i}/32"), port + i));
    let between = || apart(150);
    let ours = || [rule("Allow", "10.0.0.2/32", 8000)];
    let early = elsewhere(7000).chain(ours()).chain(between()).chain(elsewhere(7100));
    let late = elsewhere(7000).chain(between()).chain(elsewhere(7100)).chain(ours());
    hammer("sets", [&policy("own", early), &policy("own", late)]);
}

#[test]
fn pe92_a_map_of_ports_that_changes_is_another() {
    hammer("ports", [&of_ports(1), &of_ports(2)]);
}

#[test]
fn pe92_a_map_goes_when_nothing_leads_to_the_rules_that_look_at_it() {
    let led_elsewhere = of_ports(2) + &policy("also", [rule("Allow", "10.0.0.2/32", 8001)]);
    let [before, after] = [of_ports(1), led_elsewhere].map(|policies| ruleset(&policies));
    let change = plan_change(&Delta::between(&before, &after));
    let drops = |part: &&[Operation]| part.iter().any(|done| matches!(done, Operation::DeleteMap(_)));
    let last = change.parts().find(drops).expect("the map of ports is another");
    let leads = |done: &Operation| matches!(done, Operation::AddMapElements(..) | Operation::AddRule(..));
    assert!(!last.iter().any(leads), "{change}");
    assert!(change.operations.iter().any(|done| matches!(done, Operation::AddMapElements(..))), "{change}");
}

/// A policy of nine ports, with a set of sources each, so that nothing is merged and the port decides.
fn of_ports(other: u8) -> String {
    let rules = (0..9).map(|i| {
        let port = if i == 8 { 8000 } else { 7000 + i };
        format!("{{action: Allow, protocol: UDP, source: {{notNets: [10.9.{other}.{i}/32]}}, destination: {{ports: [{port}]}}}}")
    });
    policy("own", rules)
}

#[test]
fn pe92_an_interface_is_led_to_other_policies_once_their_chains_have_their_rules() {
    let version = |name| policy(name, [rule("Allow", "10.0.0.0/24", 8000)]);
    hammer("led", [&version("one"), &version("two")]);
}
