//! Compiled rules as JSON.

use std::collections::BTreeSet;
use std::fmt::Display;

use calico_policy::Ruleset;
use calico_policy::iptables::{self, Program};
use calico_policy::ruleset::{Chain, Element, Elements, Warning};
use serde_json::{Map, Value, json};

/// Returns a ruleset as JSON: its sets, maps and chains by name, each rule in the words of nft, and what is closed because
/// it cannot be enforced as it was meant.
#[must_use]
pub fn to_json(rules: &Ruleset) -> Value {
    let sets: Map<String, Value> = rules
        .sets
        .iter()
        .map(|(name, set)| (name.to_string(), set_to_json(&set.kind, &set.elements)))
        .collect();
    let maps: Map<String, Value> = rules
        .maps
        .iter()
        .map(|(name, map)| {
            let entries =
                map.elements.iter().map(|(key, chain)| (unquoted(key.to_string()), chain.to_string().into()));
            (name.to_string(), Value::Object(entries.collect()))
        })
        .collect();
    let chains: Map<String, Value> =
        rules.chains.iter().map(|(name, chain)| (name.to_string(), chain_to_json(chain))).collect();
    json!({
        "table": "inet calico", "sets": sets, "maps": maps, "chains": chains,
        "warnings": warnings_to_json(&rules.warnings),
    })
}

/// Returns a program of iptables as JSON: the sets, and the chains of each family and table, in the words of ipset and of
/// `iptables-save`, and what is closed because it cannot be enforced as it was meant.
#[must_use]
pub fn program_to_json(program: &Program, warnings: &BTreeSet<Warning>) -> Value {
    let sets: Map<String, Value> = program
        .sets
        .iter()
        .map(|(name, set)| (name.to_string(), set_to_json(&set.kind, &set.elements)))
        .collect();
    let mut families = Map::new();
    for ((family, name), table) in &program.rules.tables {
        let lines = |rules: &[iptables::Rule]| rules.iter().map(iptables::Rule::line).collect::<Vec<_>>();
        let chains: Map<String, Value> =
            table.chains.iter().map(|(chain, rules)| (chain.to_string(), lines(rules).into())).collect();
        let hooks: Map<String, Value> = table
            .hooks
            .iter()
            .map(|(hook, rule)| (hook.to_string().to_uppercase(), rule.rule.line().into()))
            .collect();
        let of_family = families.entry(format!("IPv{}", family.version())).or_insert_with(|| json!({}));
        of_family[name.as_str()] = json!({"hooks": hooks, "chains": chains});
    }
    json!({"sets": sets, "tables": families, "warnings": warnings_to_json(warnings)})
}

fn warnings_to_json(warnings: &BTreeSet<Warning>) -> Vec<String> {
    warnings.iter().map(ToString::to_string).collect()
}

fn set_to_json(kind: &impl Display, elements: &Elements) -> Value {
    let elements: Vec<String> = elements.iter().map(Element::to_string).map(unquoted).collect();
    json!({"kind": kind.to_string(), "elements": elements})
}

fn chain_to_json(chain: &Chain) -> Value {
    let rules: Vec<String> = chain.rules.iter().map(ToString::to_string).collect();
    json!({"base": chain.base.map(|base| base.to_string()), "rules": rules})
}

/// The language of nft quotes interfaces; JSON has quotes of its own.
fn unquoted(word: String) -> String {
    word.replace('"', "")
}
