//! What the kernel's nf_tables refuses is closed by itself: all else is in force.

use calico_model::Snapshot;
use calico_policy::nft::{Actual, Nft};
use calico_policy::ruleset::{Action, Chain, ChainName, Element, Match, Rule, SetName};
use calico_policy::{Compiler, Delta, Ruleset, compile, strategies};

use crate::edge_cases::{policy, world};
use crate::golden;
use crate::netns::Namespace;

fn ruleset() -> Ruleset {
    compile(&golden::world("database"), &"node-1".parse().unwrap())
}

/// What the kernel refuses: it keeps 127 bytes.
fn too_long() -> Rule {
    Rule { matches: Vec::new(), action: Action::Log { prefix: "x".repeat(300).into() } }
}

/// The chains of policies, by name.
fn of_policies(ruleset: &Ruleset) -> Vec<ChainName> {
    let tiers = ruleset.chains.keys().filter(|name| name.as_str().contains("-tier-"));
    tiers.cloned().collect()
}

fn dropping() -> Chain {
    Chain { base: None, rules: vec![Rule { matches: Vec::new(), action: Action::Drop }] }
}

/// The ruleset with these chains closed.
fn closed(ruleset: &Ruleset, chains: &[&ChainName]) -> Ruleset {
    let mut closed = ruleset.clone();
    for name in chains {
        *closed.chains.get_mut(*name).unwrap() = dropping();
    }
    closed
}

fn refused(nft: &Nft) -> Vec<ChainName> {
    nft.refused().map(|refused| refused.chain.clone()).collect()
}

#[test]
fn pe96_a_chain_that_the_kernel_refuses_drops_everything_and_the_others_are_in_force() {
    let good = ruleset();
    let chains = of_policies(&good);
    let [bad_chain, other, ..] = chains.as_slice() else { panic!("there are several") };
    let mut bad = good.clone();
    bad.chains.get_mut(bad_chain).unwrap().rules.push(too_long());
    // Another changes at the same time.
    bad.chains.get_mut(other).unwrap().rules.insert(0, Rule { matches: Vec::new(), action: Action::Return });
    let namespace = Namespace::new("closed");
    namespace.within(|| {
        for begins in ["at the start", "as a change"] {
            let mut nft = Nft::new();
            if begins == "as a change" {
                nft.sync(&good).unwrap();
                nft.change(&Delta::between(&good, &bad), &bad).unwrap();
            } else {
                nft.sync(&bad).unwrap();
            }
            assert_eq!(refused(&nft), std::slice::from_ref(bad_chain), "{begins}");
            let why = nft.refused().next().unwrap();
            assert!(why.operation.starts_with(&format!("add rule inet calico {bad_chain} log")), "{why:?}");
            assert_eq!(nft.read().unwrap(), Actual::holding(&closed(&bad, &[bad_chain])), "{begins}");
            assert!(nft.sync(&bad).unwrap().is_empty(), "it is tried again, and nothing is different");
            // Whatever else changes is in force at once, and the chain stays closed.
            let mut next = bad.clone();
            next.chains.get_mut(other).unwrap().rules.remove(0);
            let written = nft.change(&Delta::between(&bad, &next), &next).unwrap();
            assert!(!written.is_empty() && !written.to_string().contains(bad_chain.as_str()), "{written}");
            assert_eq!(refused(&nft), std::slice::from_ref(bad_chain));
            assert_eq!(nft.read().unwrap(), Actual::holding(&closed(&next, &[bad_chain])), "{begins}");
            // What the kernel takes opens it.
            nft.change(&Delta::between(&next, &good), &good).unwrap();
            assert_eq!(refused(&nft), []);
            assert_eq!(nft.read().unwrap(), Actual::holding(&good), "{begins}");
        }
    });
}

#[test]
fn pe96_a_set_that_the_kernel_refuses_closes_the_chains_that_look_at_it() {
    let good = ruleset();
    let looks = |set: &SetName, chain: &Chain| {
        chain
            .rules
            .iter()
            .flat_map(|rule| &rule.matches)
            .any(|m| matches!(m, Match::InSet(.., looked_at) if looked_at == set))
    };
    let of = |set: &SetName| -> Vec<ChainName> {
        let looking = good.chains.iter().filter(|(_, chain)| looks(set, chain));
        looking.map(|(name, _)| name.clone()).collect()
    };
    let chains = of_policies(&good);
    let set =
        good.sets.keys().find(|set| of(set).iter().any(|chain| chains.contains(chain))).unwrap().clone();
    let mut bad = good.clone();
    // A set of addresses of the other family.
    bad.sets.get_mut(&set).unwrap().elements.insert(Element::Address("fd00::1".parse().unwrap()));
    let expected = of(&set);
    let mut held = closed(&bad, &expected.iter().collect::<Vec<_>>());
    held.sets.remove(&set);
    let namespace = Namespace::new("closed-set");
    namespace.within(|| {
        let mut nft = Nft::new();
        nft.sync(&good).unwrap();
        nft.change(&Delta::between(&good, &bad), &bad).unwrap();
        assert_eq!(refused(&nft), expected);
        assert_eq!(nft.read().unwrap(), Actual::holding(&held));
        nft.change(&Delta::between(&bad, &good), &good).unwrap();
        assert_eq!(refused(&nft), []);
        assert_eq!(nft.read().unwrap(), Actual::holding(&good));
    });
}

#[test]
fn pe96_what_all_packets_pass_is_not_closed_and_what_was_in_force_stays() {
    let good = ruleset();
    let mut bad = good.clone();
    let base = good.chains.iter().find(|(_, chain)| chain.base.is_some()).unwrap().0;
    bad.chains.get_mut(base).unwrap().rules.push(too_long());
    let namespace = Namespace::new("base");
    namespace.within(|| {
        let mut nft = Nft::new();
        nft.sync(&good).unwrap();
        let error = nft.sync(&bad).unwrap_err().to_string();
        assert!(error.contains(&format!("the kernel refuses `add rule inet calico {base} log")), "{error}");
        assert_eq!(refused(&nft), []);
        assert_eq!(nft.read().unwrap(), Actual::holding(&good));
    });
}

#[test]
fn the_policies_behind_a_chain_are_known_by_name() {
    let ports = [80, 81, 82, 83, 84, 85, 86, 87];
    let rule = |port: i32| {
        format!(
            "{{action: Allow, protocol: TCP, source: {{selector: has(n{port})}}, destination: {{ports: [{port}]}}}}"
        )
    };
    let rules = ports.map(rule).join(", ");
    let world = world(&policy(&format!("types: [Ingress], ingress: [{rules}]")));
    let mut compiler = Compiler::new("node-1".parse().unwrap());
    strategies::updates(&Snapshot::default(), &world).into_iter().for_each(|update| compiler.apply(update));
    let ruleset = compiler.ruleset().clone();
    let own = |word: &str| -> Vec<ChainName> {
        ruleset.chains.keys().filter(|name| name.as_str().contains(word)).cloned().collect()
    };
    let behind = |chain: &ChainName| -> Vec<String> {
        compiler.behind(chain).into_iter().map(|key| format!("{} {}", key.kind, key.id)).collect()
    };
    let (tiers, of_ports, common) = (own("-tier-"), own("cali-port-"), own("workload-source"));
    assert_eq!((tiers.len(), of_ports.len(), common.len()), (1, ports.len(), 1));
    for chain in tiers.iter().chain(&of_ports) {
        assert_eq!(behind(chain), ["NetworkPolicy shop/p"], "{chain}");
    }
    assert!(behind(&common[0]).is_empty());
}
