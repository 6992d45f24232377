//! What is said to be missing is just what is missing.

use calico_model::Snapshot;
use calico_policy::explain::{Cure, Remedy, explain_way};
use calico_policy::trace::Reason;
use calico_policy::{Packet, Path, Transport, Verdict, evaluate, explain, strategies};
use proptest::prelude::*;

use crate::golden;

fn verdict(world: &Snapshot, packet: &Packet, changes: &[Remedy]) -> Verdict {
    let mut world = world.clone();
    changes.iter().for_each(|remedy| remedy.apply(&mut world));
    evaluate(&world, packet).outcome.verdict
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_changes_let_the_packet_through_and_none_of_them_is_needless(
        (world, packets) in strategies::world()
            .prop_flat_map(|world| (strategies::packets(&world, 10), Just(world)))
            .prop_map(|(packets, world)| (world, packets)),
    ) {
        for packet in packets {
            let trace = evaluate(&world, &packet);
            let explanation = explain_way(&world, vec![packet.clone()]);
            prop_assert_eq!(explanation.verdict, trace.outcome.verdict);
            match explanation.cure {
                Cure::NotNeeded => prop_assert_eq!(trace.outcome.verdict, Verdict::Allow),
                Cure::Changes(changes) => {
                    prop_assert_eq!(verdict(&world, &packet, &changes), Verdict::Allow, "{}", &trace);
                    for needless in 0..changes.len() {
                        let mut fewer = changes.clone();
                        fewer.remove(needless);
                        prop_assert_eq!(verdict(&world, &packet, &fewer), Verdict::Deny, "{:?}", &changes);
                    }
                }
                Cure::None(step) => prop_assert!(
                    matches!(
                        step.reason,
                        Reason::UnknownInterface
                            | Reason::Withdrawn
                            | Reason::Invalid
                            | Reason::TunnelFromStranger
                            | Reason::ServiceLoop
                    ),
                    "{}", step
                ),
            }
        }
    }
}

#[test]
fn a_denied_flow_is_cured_by_the_one_rule_that_is_missing_named_by_labels() {
    let world = golden::world("database");
    let addr = |name: &str| {
        let found = world.workloads.values().find(|endpoint| {
            endpoint.spec.interface_name.as_ref().is_some_and(|interface| interface.as_str().ends_with(name))
        });
        found.unwrap().spec.ip_networks[0].addr()
    };
    let uplink = "eth0".parse().unwrap();
    let said = explain(&world, addr("web1"), addr("db1"), Transport::tcp(443), &uplink);
    assert_eq!(said.verdict, Verdict::Deny);
    let Cure::Changes(changes) = &said.cure else { panic!("{said:?}") };
    let rules: Vec<_> = changes
        .iter()
        .map(|change| {
            let Remedy::Rule { owner, rule, .. } = change else { panic!("{change:?}") };
            (owner.to_string(), rule.destination.ports[0].to_string())
        })
        .collect();
    assert!(rules.iter().any(|(_, port)| port == "443"), "{rules:?}");
    let labels: Vec<_> = said.hops.iter().flat_map(|hop| hop.choices.iter().flatten()).collect();
    assert!(labels.iter().any(|choice| choice.policy.is_some() && !choice.labels.is_empty()), "{labels:?}");
}

#[test]
fn what_no_policy_can_let_through_says_why() {
    let world = golden::world("database");
    let path = Path::Forward { from: "cali00stranger".parse().unwrap(), to: "eth0".parse().unwrap() };
    let packet = Packet::new(
        "node-1".parse().unwrap(),
        path,
        "192.168.1.1".parse().unwrap(),
        "192.168.1.2".parse().unwrap(),
        Transport::tcp(80),
    );
    let said = explain_way(&world, vec![packet.unwrap()]);
    let Cure::None(step) = said.cure else { panic!("{said:?}") };
    assert_eq!(step.reason, Reason::UnknownInterface);
}
