//! Compiled rules as JSON.

use calico_policy::Ruleset;
use calico_policy::ruleset::{Chain, Element};
use serde_json::{Map, Value, json};

/// Returns a ruleset as JSON: its sets, maps and chains by name, each rule in the words of nft, and what is closed because
/// it cannot be enforced as it was meant.
#[must_use]
pub fn to_json(rules: &Ruleset) -> Value {
    let sets: Map<String, Value> = rules
        .sets
        .iter()
        .map(|(name, set)| {
            let elements: Vec<String> = set.elements.iter().map(Element::to_string).map(unquoted).collect();
            (name.to_string(), json!({"kind": set.kind.to_string(), "elements": elements}))
        })
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
    let warnings: Vec<String> = rules.warnings.iter().map(ToString::to_string).collect();
    json!({"table": "inet calico", "sets": sets, "maps": maps, "chains": chains, "warnings": warnings})
}

fn chain_to_json(chain: &Chain) -> Value {
    let rules: Vec<String> = chain.rules.iter().map(ToString::to_string).collect();
    json!({"base": chain.base.map(|base| base.to_string()), "rules": rules})
}

/// The language of nft quotes interfaces; JSON has quotes of its own.
fn unquoted(word: String) -> String {
    word.replace('"', "")
}
