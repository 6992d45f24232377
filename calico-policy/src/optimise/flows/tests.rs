use std::net::IpAddr;

use calico_model::{Cidr, Family, Protocol};
use proptest::prelude::*;
use proptest::sample::select;

use super::super::optimise;
use super::*;
use crate::packet::{ConnectionState, Outcome, Packet, Path, PortProtocol, Transport};
use crate::ruleset::{
    Action, Base, Chain, ChainKind, ChainName, End, Hook, Match, Op, PortSet, Rule, Ruleset, Set, SetName,
};
use crate::sets::Sets;
use crate::simulate;

const NETS: [&str; 4] = ["10.0.0.0/24", "10.0.0.0/31", "10.0.0.1/32", "10.0.1.0/24"];
const ADDRS: [[u8; 4]; 4] = [[10, 0, 0, 0], [10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 1, 1]];
const PORTS: [(u16, u16); 5] = [(1, 1), (1, 3), (2, 4), (4, 4), (5, 6)];

fn rule(net: Option<&str>, ports: Option<(u16, u16)>, action: &Action) -> Rule {
    let mut matches = vec![Match::Family(Family::V4), Match::Protocol(Op::Is, Protocol::TCP)];
    let net = net.map(|net| net.parse::<Cidr>().unwrap());
    matches.extend(net.map(|net| Match::Network(End::Source, Op::Is, net)));
    matches.extend(
        ports.map(|(first, last)| Match::Port(End::Destination, Op::Is, PortSet::Range(first, last))),
    );
    Rule::when(matches, action.clone())
}

/// A chain of these rules, asked by one that rejects what comes back.
fn ruleset(rules: &[Rule], optimised: bool) -> Ruleset {
    let mut sets = Sets::default();
    let own = ChainName::fixed("own");
    let rules = if optimised { optimise(&own, rules.to_vec(), Vec::new, &mut sets) } else { rules.to_vec() };
    asked(rules, sets)
}

fn asked(rules: Vec<Rule>, mut sets: Sets) -> Ruleset {
    let own = ChainName::fixed("own");
    sets.put_chain(&own, Chain { base: None, rules });
    let base = Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0 };
    let rules = vec![Rule::always(Action::Jump(own)), Rule::always(Action::Reject)];
    sets.put_chain(&ChainName::fixed("base"), Chain { base: Some(base), rules });
    sets.out.into_ruleset()
}

fn packets() -> impl Iterator<Item = Packet> {
    let each = |addr: [u8; 4]| {
        (0..8).map(move |port| Packet {
            node: "node".parse().unwrap(),
            path: Path::Forward { from: "a".parse().unwrap(), to: "b".parse().unwrap() },
            source: IpAddr::from(addr),
            destination: IpAddr::from([10, 9, 9, 9]),
            original_destination: None,
            transport: Transport::Ports { protocol: PortProtocol::Tcp, source: 700, destination: port },
            state: ConnectionState::New,
        })
    };
    ADDRS.into_iter().flat_map(each)
}

fn verdicts(ruleset: &Ruleset) -> Vec<Outcome> {
    packets().map(|packet| simulate(ruleset, &packet)).collect()
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![4 => Just(Action::Accept), 3 => Just(Action::Drop), 1 => Just(Action::Return)]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let flow = (select(&NETS[..]), select(&PORTS[..]), actions());
    let flow = flow.prop_map(|(net, ports, action)| rule(Some(net), Some(ports), &action));
    let of_net = (select(&NETS[..]), actions()).prop_map(|(net, action)| rule(Some(net), None, &action));
    let of_ports =
        (select(&PORTS[..]), actions()).prop_map(|(ports, action)| rule(None, Some(ports), &action));
    let log = Just(Rule::always(Action::Log { prefix: "seen".into() }));
    proptest::collection::vec(prop_oneof![16 => flow, 1 => of_net, 2 => of_ports, 1 => log], 3..12)
}

/// Rules, and what becomes of them when some do something else or name other ports.
fn versions() -> impl Strategy<Value = [Vec<Rule>; 2]> {
    let turn = (select(&PORTS[..]), actions()).prop_map(|(ports, action)| rule(None, Some(ports), &action));
    let turns = proptest::collection::vec(proptest::option::weighted(0.3, turn), 12);
    (rules(), turns).prop_map(|(before, turns)| {
        let turned = |(rule, turn): (&Rule, &Option<Rule>)| match turn {
            Some(turn) if rule.matches.len() == 4 => {
                let mut rule = Rule::when(rule.matches.clone(), turn.action.clone());
                rule.matches[3] = turn.matches[2].clone();
                rule
            }
            Some(_) | None => rule.clone(),
        };
        let after = before.iter().zip(&turns).map(turned).collect();
        [before, after]
    })
}

/// What a packet may find between two versions with the same rules: of each set that differs, the one or the other.
fn between(before: &Ruleset, after: &Ruleset) -> Vec<Ruleset> {
    let differs = |(name, set): &(&SetName, &Set)| after.sets.get(*name).is_some_and(|other| other != *set);
    let other: Vec<&SetName> = before.sets.iter().filter(differs).map(|(name, _)| name).collect();
    let mixed = |mask: u32| {
        let mut mixed = before.clone();
        for (place, name) in other.iter().enumerate() {
            if mask >> place & 1 == 1 {
                mixed.sets.insert((*name).clone(), after.sets[*name].clone());
            }
        }
        mixed
    };
    (0..1 << other.len()).map(mixed).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_of_any_order_and_action_decide_as_before(rules in rules()) {
        let (optimised, written) = (ruleset(&rules, true), ruleset(&rules, false));
        prop_assert_eq!(verdicts(&optimised), verdicts(&written), "{}\n{}", &written, &optimised);
    }

    #[test]
    fn rules_that_are_gathered_with_any_effort_decide_as_before(rules in rules(), effort in 0..400_usize) {
        let mut sets = Sets::default();
        let owner = ChainName::fixed("own");
        let (mut some, own) = gather_within(&mut Effort { left: effort, each: 0 }, &rules, &sets);
        name(&owner, &[], &mut some, own, &mut sets);
        let (gathered, written) = (asked(some, sets), ruleset(&rules, false));
        prop_assert_eq!(verdicts(&gathered), verdicts(&written), "{}\n{}", &written, &gathered);
    }

    #[test]
    fn pe92_what_two_versions_agree_about_is_so_at_every_moment_between([before, after] in versions()) {
        let [before, after] = [before, after].map(|rules| ruleset(&rules, true));
        if before.chains == after.chains {
            let (was, is) = (verdicts(&before), verdicts(&after));
            for mixed in between(&before, &after) {
                for (place, found) in verdicts(&mixed).into_iter().enumerate() {
                    if was[place] == is[place] {
                        prop_assert_eq!(found, was[place], "{}\n{}\n{}", &before, &after, &mixed);
                    }
                }
            }
        }
    }
}

#[test]
fn an_action_that_turns_is_a_change_of_elements() {
    let flows = |turned: usize| -> Vec<Rule> {
        let action = |i| if i == turned || i == 5 { Action::Drop } else { Action::Accept };
        (0..6).map(|i| rule(Some("10.0.0.0/24"), Some((i as u16, i as u16)), &action(i))).collect()
    };
    let selected = rule(None, Some((9, 9)), &Action::Accept);
    let [before, after] = [1, 2].map(|turned| {
        let rules: Vec<Rule> = std::iter::once(selected.clone()).chain(flows(turned)).collect();
        ruleset(&rules, true)
    });
    assert_eq!(before.chains, after.chains, "{before}\n{after}");
    assert_ne!(before.sets, after.sets);
    assert_eq!(between(&before, &after).len(), 4, "two sets differ");
    assert_ne!(verdicts(&before), verdicts(&after));
}

/// Rules that each lie across every other, and do not merge: a network in common, one of its own, and ports that shift.
fn across(count: u16, sets: &mut Sets) -> Vec<Rule> {
    let one = |i: u16| {
        let nets = ["10.0.0.0/24".to_owned(), format!("10.{}.{}.0/24", 1 + (i >> 8), i & 255)];
        let nets = nets.map(|net| net.parse::<Cidr>().unwrap());
        let source = Match::InSet(End::Source, Family::V4, Op::Is, sets.networks(&nets, Family::V4));
        let mut rule = rule(None, Some((i, i + 20_000)), &Action::Accept);
        rule.matches.insert(2, source);
        rule
    };
    (0..count).map(one).collect()
}

#[test]
fn rules_that_lie_across_one_another_cost_what_as_many_are_worth() {
    let spent = |count: u16, mut effort: Effort| {
        let mut sets = Sets::default();
        let rules = across(count, &mut sets);
        let granted = effort.left + 2 * effort.each * usize::from(count);
        let (gathered, own) = gather_within(&mut effort, &rules, &sets);
        assert!(own.is_empty() && gathered == rules);
        granted - effort.left
    };
    let fair = |count: u16| spent(count, Effort { left: WORTH * usize::from(count), each: WORTH });
    let endless = |count: u16| spent(count, Effort { left: usize::MAX / 2, each: 0 });
    assert!(fair(600) <= 600 * 3 * WORTH, "{}", fair(600));
    assert!(fair(1_200) <= 2 * fair(600) + LOOKUP, "{} after {}", fair(1_200), fair(600));
    assert!(endless(1_200) > 10 * fair(1_200), "it would go on to {}", endless(1_200));
}

#[test]
fn many_stretches_of_a_chain_make_as_many_sets_as_their_names_are_worth() {
    let stretch = |i: u16| {
        let flow = |j| rule(Some(&format!("10.{i}.{j}.0/24")), Some((j, j)), &Action::Accept);
        [flow(1), flow(2), flow(3), Rule::always(Action::Log { prefix: i.to_string().as_str().into() })]
    };
    let own = |count: u16| {
        let rules: Vec<Rule> = (0..count).flat_map(stretch).collect();
        gather(&rules, &Sets::default()).1.len()
    };
    assert_eq!(own(8), 8, "a few are all gathered");
    assert!((16..40).contains(&own(250)), "{}: a set's name takes in every rule", own(250));
}
