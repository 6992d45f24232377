//! Why something passes or does not, for people and as JSON.

use std::fmt::Write;

use calico_model::manifest;
use calico_model::resource::{Document, Object, PolicyType, Profile, Resource, ResourceKey, Rule};
use calico_policy::Told;
use calico_policy::explain::{Choice, Cure, Explanation, Hop, Remedy, Tunnel};
use calico_policy::trace::{Meant, Reason, Step, Subject};
use serde_json::{Value, json};

/// How wide a terminal is that nobody made wider.
const TERMINAL: usize = 80;

/// Writes an explanation as lines of at most 80 columns, as far as names allow.
#[must_use]
pub fn render(explanation: &Explanation) -> String {
    let mut text = String::new();
    if explanation.hops.is_empty() {
        put(&mut text, 0, "No node of the cluster sees this packet: it passes, as far as policy goes.");
    }
    for hop in &explanation.hops {
        put(&mut text, 0, &format!("{}: {}", hop.packet, hop.trace.outcome));
        for (step, choices) in hop.trace.steps.iter().zip(&hop.choices) {
            put(&mut text, 2, &step_line(step));
            for choice in choices {
                put(&mut text, 4, &choice_line(choice));
            }
        }
        if hop.trace.steps.is_empty() {
            put(&mut text, 2, "no endpoint that policy guards is on its way here");
        }
    }
    put(&mut text, 0, &format!("In all: {}", explanation.verdict));
    match &explanation.cure {
        Cure::NotNeeded => {
            for hop in &explanation.hops {
                allowing(hop).for_each(|line| put(&mut text, 2, &line));
            }
        }
        Cure::Changes(changes) => {
            let count = if changes.len() == 1 { "this change" } else { "these changes, all of them" };
            put(&mut text, 0, &format!("To let it pass, make {count}:"));
            for change in changes {
                put(&mut text, 2, &format!("- {}", change_line(change)));
                if let Some(rule) = rule_of(change) {
                    for line in manifest::to_yaml(&Value::Array(vec![as_value(rule)])).lines() {
                        // Indented by hand: YAML lines are not to be broken.
                        let _ = writeln!(text, "      {line}");
                    }
                }
            }
        }
        Cure::None(step) => put(&mut text, 0, &format!("No policy can let it pass: {}", step_line(step))),
    }
    text
}

/// Returns an explanation as JSON.
#[must_use]
pub fn to_json(explanation: &Explanation) -> Value {
    let changes: Vec<Value> = match &explanation.cure {
        Cure::Changes(changes) => changes.iter().map(change_to_json).collect(),
        Cure::NotNeeded | Cure::None(_) => Vec::new(),
    };
    let blocked = if let Cure::None(step) = &explanation.cure { Some(step_line(step)) } else { None };
    json!({
        "verdict": explanation.verdict.to_string(),
        "hops": explanation.hops.iter().map(hop_to_json).collect::<Vec<_>>(),
        "changes": changes,
        "blockedBy": blocked,
    })
}

fn hop_to_json(hop: &Hop) -> Value {
    let steps = hop.trace.steps.iter().zip(&hop.choices);
    json!({
        "node": hop.packet.node.as_str(),
        "packet": hop.packet.to_string(),
        "verdict": hop.trace.outcome.verdict.to_string(),
        "senderIsTold": hop.trace.outcome.told == Told::Unreachable,
        "steps": steps.map(|(step, choices)| step_to_json(step, choices)).collect::<Vec<_>>(),
    })
}

fn step_to_json(step: &Step, choices: &[Choice]) -> Value {
    let (subject, direction) = match &step.subject {
        Subject::Endpoint(key, direction) => (key.to_string(), Some(word(*direction))),
        Subject::Interface(name) => (name.to_string(), None),
        Subject::Host | _ => ("host".to_owned(), None),
    };
    let mut value = json!({
        "subject": subject,
        "direction": direction,
        "reason": without_facts(&step.reason),
        "choices": choices.iter().map(choice_to_json).collect::<Vec<_>>(),
    });
    if let Reason::Rule { tier, owner, index, .. } = &step.reason {
        value["tier"] = tier.as_ref().map(|tier| tier.as_str()).into();
        value["policy"] = owner.to_string().into();
        value["rule"] = (*index).into();
    }
    if let Reason::EndOfTier { tier, .. } = &step.reason {
        value["tier"] = tier.as_str().into();
    }
    value
}

fn choice_to_json(choice: &Choice) -> Value {
    let (selector, service) = match &choice.meant {
        Meant::Selector(selector) => (Some(selector.to_string()), None),
        Meant::Service(service) => (None, Some(service.to_string())),
    };
    let labels: serde_json::Map<String, Value> =
        choice.labels.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    json!({
        "policy": choice.policy.as_ref().map(ResourceKey::to_string),
        "chosen": choice.chosen.to_string(),
        "selector": selector,
        "service": service,
        "labels": labels,
    })
}

fn change_to_json(change: &Remedy) -> Value {
    json!({"change": change_line(change), "rule": rule_of(change).map(as_value)})
}

pub(super) fn step_line(step: &Step) -> String {
    let reason = without_facts(&step.reason);
    match &step.subject {
        Subject::Endpoint(key, direction) => {
            format!("{} of {} {}: {reason}", word(*direction), key.kind, key.id)
        }
        Subject::Interface(name) => format!("interface {name}: {reason}"),
        Subject::Host | _ => format!("host: {reason}"),
    }
}

/// The first line alone: what follows it is told as choices.
fn without_facts(reason: &Reason) -> String {
    reason.to_string().lines().next().unwrap_or_default().to_owned()
}

fn choice_line(choice: &Choice) -> String {
    let labels: Vec<String> = choice
        .labels
        .iter()
        .map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => format!("no {key}"),
        })
        .collect();
    let labels = if labels.is_empty() { String::new() } else { format!(" ({})", labels.join(", ")) };
    let (kind, id) = (choice.chosen.kind, &choice.chosen.id);
    match &choice.policy {
        Some(policy) => {
            format!("{} {} is for {}: {kind} {id}{labels}", policy.kind, policy.id, choice.meant)
        }
        None => format!("{} selects {kind} {id}{labels}", choice.meant),
    }
}

/// What allowed a packet, a line for each endpoint on its way.
fn allowing(hop: &Hop) -> impl Iterator<Item = String> {
    let passed_on = |step: &&Step| {
        !matches!(step.reason, Reason::EndOfTier { .. })
            && !matches!(&step.reason, Reason::Rule { action, .. } if *action != calico_model::resource::Action::Allow)
    };
    hop.trace.steps.iter().filter(passed_on).map(|step| format!("- {}", step_line(step)))
}

fn change_line(change: &Remedy) -> String {
    match change {
        Remedy::Rule { owner, direction, index, .. } => format!(
            "in {} {}, put this at place {index} (from 0) of the {} rules:",
            owner.kind,
            owner.id,
            word(*direction)
        ),
        Remedy::Profile { endpoint, name, direction, .. } => format!(
            "give {} {} the profile {name}, with this {} rule:",
            endpoint.kind,
            endpoint.id,
            word(*direction)
        ),
        Remedy::EndpointToHost { configuration } => {
            format!("in FelixConfiguration {configuration}, set defaultEndpointToHostAction to Accept")
        }
        Remedy::Tunnel { configuration, tunnel } => {
            let setting = match tunnel {
                Tunnel::Vxlan => "allowVXLANPacketsFromWorkloads",
                Tunnel::Ipip => "allowIPIPPacketsFromWorkloads",
            };
            format!("in FelixConfiguration {configuration}, set {setting} to true")
        }
        Remedy::Source { endpoint, net } => {
            format!("add {net} to allowSpoofedSourcePrefixes of {} {}", endpoint.kind, endpoint.id)
        }
        _ => "a change that this program has no words for".to_owned(),
    }
}

fn rule_of(change: &Remedy) -> Option<&Rule> {
    if let Remedy::Rule { rule, .. } | Remedy::Profile { rule, .. } = change { Some(rule) } else { None }
}

/// A rule as users write it.
fn as_value(rule: &Rule) -> Value {
    let ingress = vec![rule.clone()];
    let profile = Profile { ingress, egress: Vec::new(), labels_to_apply: calico_model::Labels::default() };
    let name = calico_model::Namespace::default_namespace().as_str().parse();
    let object = name.map(|name| Document::from(&Resource::from(Object::new(name, profile))));
    object.map_or(Value::Null, |document| document.value()["spec"]["ingress"][0].clone())
}

fn word(direction: PolicyType) -> &'static str {
    match direction {
        PolicyType::Ingress => "ingress",
        PolicyType::Egress => "egress",
    }
}

/// Writes a sentence as lines, indented, and those after the first by four more.
pub(super) fn put(text: &mut String, indent: usize, sentence: &str) {
    let mut line = " ".repeat(indent);
    for word in sentence.split(' ') {
        let is_empty = line.trim_end().is_empty();
        if !is_empty && line.chars().count() + 1 + word.chars().count() > TERMINAL {
            text.push_str(&line);
            text.push('\n');
            line = " ".repeat(indent + 4);
        } else if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}
