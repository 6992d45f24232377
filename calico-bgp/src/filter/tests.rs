use calico_model::resource::filter::{
    AddCommunity, CommunityMatch, FilterAction, FilterOperation, MatchOperator, PrefixLength, PrependAsPath,
    RouteSource, SetPriority,
};
use proptest::prelude::*;

use super::*;
use crate::wire::as_path::AsPath;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn numbers(numbers: &[u32]) -> Vec<AsNumber> {
    numbers.iter().map(|n| AsNumber::new(*n).unwrap()).collect()
}

fn at(network: &str, operator: MatchOperator, action: FilterAction) -> FilterRule {
    FilterRule { cidr: Some(cidr(network)), match_operator: Some(operator), ..FilterRule::new(action) }
}

fn facts() -> Facts {
    let interface = |name: &str, network: &str| (name.to_owned(), vec![cidr(network)]);
    Facts {
        peering: Peering::Internal,
        interfaces: Some(vec![interface("eth0", "172.16.6.0/24"), interface("eth1", "10.9.0.0/16")]),
    }
}

fn attributes() -> Attributes {
    let mut attributes = Attributes::originated("172.16.6.9".parse().unwrap());
    attributes.as_path = AsPath::sequence(&numbers(&[65001, 65002, 65003]));
    attributes.local_pref = Some(METRIC_BASE - 1024);
    attributes.add_communities(&["64512:7".parse().unwrap(), "1:2:3".parse().unwrap()]);
    attributes
}

/// Decides about a route that a peer told; without a rule that matches, it is left out.
fn passes(rules: &[FilterRule], prefix: &str) -> bool {
    let family = |family| rules.iter().filter(|_| family == Family::V4).collect();
    let program = Program::export(family, &facts(), Export::default());
    let attributes = attributes();
    let route = Route { prefix: cidr(prefix), attributes: (&attributes).into(), teller: Teller::Peer };
    program.decide(&route, &PrefixSet::default()) != Verdict::LeaveOut
}

#[test]
fn each_operator_compares_as_its_name_says() {
    use MatchOperator::*;
    let lengths = |min, max| Some(PrefixLength { min, max });
    for (operator, length, prefixes) in [
        (Equal, None, [true, false, false, false]),
        (NotEqual, None, [false, true, true, true]),
        (In, None, [true, true, true, false]),
        (NotIn, None, [false, false, false, true]),
        (In, lengths(Some(26), None), [false, true, true, false]),
        (In, lengths(None, Some(26)), [true, true, false, false]),
        (In, lengths(Some(8), Some(16)), [true, false, false, false]),
        (NotIn, lengths(Some(26), Some(31)), [true, false, true, true]),
    ] {
        let mut rule = at("192.168.0.0/16", operator, FilterAction::Accept);
        rule.prefix_length = length.clone();
        for (prefix, expected) in
            ["192.168.0.0/16", "192.168.0.0/26", "192.168.0.1/32", "10.0.0.0/26"].into_iter().zip(prefixes)
        {
            let passes = passes(std::slice::from_ref(&rule), prefix);
            assert_eq!(passes, expected, "{prefix} {operator:?} 192.168.0.0/16 {length:?}");
        }
    }
}

#[test]
fn every_field_that_is_set_must_match() {
    let accept = || FilterRule::new(FilterAction::Accept);
    let carries =
        |text: &str| Some(CommunityMatch { values: vec![text.parse().expect("a community of the test")] });
    let cases = [
        (accept(), true),
        (FilterRule { source: Some(RouteSource::RemotePeers), ..accept() }, true),
        (FilterRule { interface: Some("eth0".to_owned()), ..accept() }, true),
        (FilterRule { interface: Some("e*0".to_owned()), ..accept() }, true),
        (FilterRule { interface: Some("eth1".to_owned()), ..accept() }, false),
        (FilterRule { peer_type: Some(PeerType::Internal), ..accept() }, true),
        (FilterRule { peer_type: Some(PeerType::External), ..accept() }, false),
        (FilterRule { communities: carries("64512:7"), ..accept() }, true),
        (FilterRule { communities: carries("64512:8"), ..accept() }, false),
        (FilterRule { communities: carries("1:2:3"), ..accept() }, true),
        (FilterRule { communities: carries("1:2:4"), ..accept() }, false),
        (FilterRule { as_path_prefix: numbers(&[65001, 65002]), ..accept() }, true),
        (FilterRule { as_path_prefix: numbers(&[65002]), ..accept() }, false),
        (FilterRule { as_path_prefix: numbers(&[65001, 65002, 65003, 65004]), ..accept() }, false),
        (FilterRule { priority: Some(1024), ..accept() }, true),
        (FilterRule { priority: Some(512), ..accept() }, false),
        (FilterRule { priority: Some(1024), as_path_prefix: numbers(&[65002]), ..accept() }, false),
    ];
    for (rule, expected) in cases {
        assert_eq!(passes(std::slice::from_ref(&rule), "192.168.0.0/26"), expected, "{rule:?}");
    }
}

#[test]
fn what_begins_here_was_told_by_no_peer_and_leaves_by_no_interface() {
    let from_peers =
        FilterRule { source: Some(RouteSource::RemotePeers), ..FilterRule::new(FilterAction::Reject) };
    let by_any = FilterRule { interface: Some("*".to_owned()), ..FilterRule::new(FilterAction::Reject) };
    let rules = [from_peers, by_any];
    let program = Program::export(|_| rules.iter().collect(), &facts(), Export::default());
    let attributes = attributes();
    let route = |teller| Route { prefix: cidr("192.168.0.0/26"), attributes: (&attributes).into(), teller };
    let none = PrefixSet::default();
    assert_eq!(program.decide(&route(Teller::Ourselves), &none), Verdict::Pass(ChangeId::NONE));
    assert_eq!(program.decide(&route(Teller::Peer), &none), Verdict::LeaveOut);
}

#[test]
fn a_rule_for_an_interface_that_may_lead_to_a_router_holds_of_what_is_behind_it_only_if_it_rejects() {
    let by = |interface: &str, action, next_hop: &str| {
        let rule = [FilterRule { interface: Some(interface.to_owned()), ..FilterRule::new(action) }];
        let program = match action {
            FilterAction::Accept => Program::export(|_| rule.iter().collect(), &facts(), Export::default()),
            FilterAction::Reject => Program::import(|_| rule.iter().collect(), &facts(), Import::default()),
        };
        let mut attributes = attributes();
        attributes.next_hop = next_hop.parse().unwrap();
        let route =
            Route { prefix: cidr("192.168.0.0/26"), attributes: (&attributes).into(), teller: Teller::Peer };
        program.decide(&route, &PrefixSet::default()) != Verdict::LeaveOut
    };
    use FilterAction::{Accept, Reject};
    for (interface, next_hop, accepted, rejected) in [
        ("eth0", "172.16.6.9", true, true),
        ("eth1", "172.16.6.9", false, false),
        ("eth0", "203.0.113.1", false, true),
        ("none*", "203.0.113.1", false, false),
        ("eth*", "203.0.113.1", true, true),
        ("*", "203.0.113.1", true, true),
        ("**", "172.16.6.9", true, true),
    ] {
        assert_eq!(by(interface, Accept, next_hop), accepted, "accept by {interface}: {next_hop}");
        assert_eq!(by(interface, Reject, next_hop), !rejected, "reject by {interface}: {next_hop}");
    }
}

#[test]
fn where_no_packet_passes_through_no_rule_for_an_interface_holds_but_that_for_all() {
    for (interface, action, passes) in [
        ("eth0", FilterAction::Reject, true),
        ("eth0", FilterAction::Accept, false),
        ("*", FilterAction::Reject, false),
    ] {
        let rule = [FilterRule { interface: Some(interface.to_owned()), ..FilterRule::new(action) }];
        let facts = Facts { interfaces: None, ..facts() };
        let rest = FilterRule::new(if passes { FilterAction::Accept } else { FilterAction::Reject });
        let program = Program::export(|_| rule.iter().chain([&rest]).collect(), &facts, Export::default());
        let attributes = attributes();
        let route =
            Route { prefix: cidr("192.168.0.0/26"), attributes: (&attributes).into(), teller: Teller::Peer };
        let passed = program.decide(&route, &PrefixSet::default()) != Verdict::LeaveOut;
        assert_eq!(passed, passes, "{action:?} by {interface}");
    }
}

/// Another program has peers asked for everything, or reset.
#[test]
fn an_interface_that_a_rule_does_not_mean_makes_no_other_program_of_it() {
    let with = |more: &[(&str, &[&str])]| {
        let mut facts = facts();
        let more = more.iter().map(|(name, networks)| {
            (name.to_string(), networks.iter().map(|network| cidr(network)).collect())
        });
        facts.interfaces.as_mut().unwrap().extend(more);
        let rule =
            [FilterRule { interface: Some("eth0".to_owned()), ..FilterRule::new(FilterAction::Accept) }];
        Program::import(|_| rule.iter().collect(), &facts, Import::default())
    };
    assert_eq!(with(&[]), with(&[("docker0", &["172.17.0.0/16"])]));
    assert_ne!(with(&[]), with(&[("docker0", &["172.16.6.128/25"])]), "it is nearer than eth0");
    assert_ne!(with(&[]), with(&[("eth2", &["172.16.6.0/24"])]), "both are as near");
}

#[test]
fn the_first_rule_that_matches_decides_and_its_operations_are_done_in_order() {
    let operation = |add: Option<&str>, prepend: &[u32], priority: Option<u32>| FilterOperation {
        add_community: add.map(|value| AddCommunity { value: value.parse().unwrap() }),
        prepend_as_path: (!prepend.is_empty()).then(|| PrependAsPath { prefix: numbers(prepend) }),
        set_priority: priority.map(|value| SetPriority { value }),
    };
    let mut first = at("192.168.0.0/24", MatchOperator::In, FilterAction::Accept);
    first.operations = vec![
        operation(Some("64512:9"), &[], None),
        operation(None, &[7, 8], None),
        operation(None, &[9], None),
        operation(None, &[], Some(512)),
    ];
    let rules = [
        first,
        FilterRule::new(FilterAction::Reject),
        at("10.0.0.0/8", MatchOperator::In, FilterAction::Accept),
    ];
    let program = Program::import(|_| rules.iter().collect(), &facts(), Import::default());
    let mut attributes = attributes();
    let decide = |prefix: &str, attributes: &Attributes| {
        let route = Route { prefix: cidr(prefix), attributes: attributes.into(), teller: Teller::Peer };
        program.decide(&route, &PrefixSet::default())
    };
    assert_eq!(
        decide("10.1.0.0/16", &attributes),
        Verdict::LeaveOut,
        "the rule before it matches everything"
    );
    let Verdict::Pass(change) = decide("192.168.0.64/26", &attributes) else { panic!("it passes") };
    program.apply(change, &mut attributes);
    assert_eq!(attributes.as_path.to_string(), "9 7 8 65001 65002 65003");
    assert_eq!(attributes.local_pref, Some(METRIC_BASE - 512));
    assert!(attributes.carries("64512:9".parse().unwrap()));
}

#[test]
fn without_a_filter_the_order_of_the_export_decision_is_kept() {
    let otherwise = Export {
        closed: ["10.1.0.0/16"].map(cidr).into_iter().collect(),
        open: ["10.1.0.0/16", "192.168.0.0/16"].map(cidr).into_iter().collect(),
        communities: vec![
            (cidr("192.168.0.0/16"), vec!["64512:1".parse().unwrap()]),
            (cidr("192.168.7.0/24"), vec!["64512:2".parse().unwrap()]),
            (cidr("192.168.0.0/16"), vec!["64512:3".parse().unwrap()]),
        ],
        normal_priority: PerFamily { v4: 1024, v6: 1024 },
    };
    let own: PrefixSet = ["192.168.7.0/26"].map(cidr).into_iter().collect();
    let program = Program::export(|_| Vec::new(), &facts(), otherwise);
    let decide = |prefix: &str, teller, priority| {
        let mut attributes = attributes();
        attributes.local_pref = Some(METRIC_BASE - priority);
        let verdict =
            program.decide(&Route { prefix: cidr(prefix), attributes: (&attributes).into(), teller }, &own);
        let Verdict::Pass(change) = verdict else { return None };
        let mut changed = Attributes::originated("172.16.6.9".parse().unwrap());
        program.apply(change, &mut changed);
        Some(changed.communities().iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    use Teller::{Ourselves, Peer};
    let all = || Some(["64512:1", "64512:2", "64512:3"].map(str::to_owned).to_vec());
    assert_eq!(decide("192.168.7.0/26", Ourselves, 1024), all(), "our block");
    assert_eq!(decide("10.1.0.0/26", Ourselves, 1024), None, "of a pool that is not exported");
    assert_eq!(decide("172.30.0.0/16", Ourselves, 1024), Some(Vec::new()), "a service network");
    assert_eq!(
        decide("192.168.8.0/26", Peer, 1024),
        Some(vec!["64512:1".to_owned(), "64512:3".to_owned()]),
        "another node's block, in a network that is named twice"
    );
    assert_eq!(decide("192.168.7.0/26", Peer, 1024), all(), "a path to our block itself");
    assert_eq!(decide("192.168.7.1/32", Peer, 1024), None, "inside our block");
    assert_eq!(decide("192.168.7.1/32", Peer, 512), all(), "inside our block, and preferred");
    assert_eq!(decide("10.1.0.0/26", Peer, 1024), None);
    assert_eq!(decide("8.8.8.0/24", Peer, 1024), None, "outside all pools");
}

#[test]
fn nothing_is_taken_inside_networks_that_are_ours() {
    let refused = ["192.168.0.0/16"].map(cidr).into_iter().collect();
    let program = Program::import(|_| Vec::new(), &facts(), Import { refused });
    let attributes = attributes();
    for (prefix, taken) in
        [("192.168.0.0/16", false), ("192.168.3.0/24", false), ("192.0.0.0/8", true), ("0.0.0.0/0", true)]
    {
        let route = Route { prefix: cidr(prefix), attributes: (&attributes).into(), teller: Teller::Peer };
        let verdict = program.decide(&route, &PrefixSet::default());
        assert_eq!(verdict != Verdict::LeaveOut, taken, "{prefix}");
    }
}

/// What the field descriptions say, rule after rule, without a trie.
fn plainly(rules: &[FilterRule], prefix: Cidr) -> Option<FilterAction> {
    let matches = |rule: &&FilterRule| match (rule.cidr, rule.match_operator) {
        (Some(network), Some(MatchOperator::Equal)) => prefix == network,
        (Some(network), Some(MatchOperator::NotEqual)) => prefix != network,
        (Some(network), Some(MatchOperator::In)) => network.covers(&prefix),
        (Some(network), Some(MatchOperator::NotIn)) => !network.covers(&prefix),
        _ => true,
    };
    rules.iter().find(matches).map(|rule| rule.action)
}

fn networks() -> impl Strategy<Value = Cidr> {
    (0u8..4, 0u8..4, 8u8..=32).prop_map(|(b, c, len)| Cidr::holding([10, b, c, 1].into(), len).unwrap())
}

fn rules() -> impl Strategy<Value = FilterRule> {
    use MatchOperator::*;
    let operator = prop_oneof![Just(Equal), Just(NotEqual), Just(In), Just(NotIn)];
    let action = prop_oneof![Just(FilterAction::Accept), Just(FilterAction::Reject)];
    (networks(), operator, action, proptest::bool::weighted(0.1)).prop_map(
        |(network, operator, action, all)| {
            if all { FilterRule::new(action) } else { at(&network.to_string(), operator, action) }
        },
    )
}

proptest! {
    #[test]
    fn the_program_decides_as_the_rules_one_after_the_other(
        rules in proptest::collection::vec(rules(), 0..12), prefix in networks(),
    ) {
        let attributes = attributes();
        let route = Route { prefix, attributes: (&attributes).into(), teller: Teller::Peer };
        let verdict = |program: &Program| program.decide(&route, &PrefixSet::default()) != Verdict::LeaveOut;
        let import = Program::import(|_| rules.iter().collect(), &facts(), Import::default());
        let export = Program::export(|_| rules.iter().collect(), &facts(), Export::default());
        let plain = plainly(&rules, prefix);
        prop_assert_eq!(verdict(&import), plain != Some(FilterAction::Reject));
        prop_assert_eq!(verdict(&export), plain == Some(FilterAction::Accept));
    }
}
