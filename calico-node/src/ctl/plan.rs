//! What applying a manifest would change, for people and as JSON.

mod kernel;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use calico_model::resource::ResourceKey;
use calico_model::{NodeName, Snapshot};
use calico_policy::compare::{Change, Comparison, Place};
use calico_policy::packet::Transport;
use calico_policy::{Flow, FlowJudge, Verdict, compile};
use serde_json::{Value, json};

use super::explain::{put, step_line};
pub use kernel::{Changes, KernelPlan, kernel};

/// What would change.
#[derive(Debug, Default)]
pub struct Plan {
    /// What becomes of each resource, in the order of the manifest.
    pub resources: Vec<(ResourceKey, Fate)>,
    /// Who may reach whom from then on.
    pub comparison: Comparison,
    /// The kernel's share on each node, those without any left out.
    pub kernel: Vec<KernelPlan>,
    /// What becomes of live connections; `None` when none were looked at.
    pub connections: Option<Connections>,
}

/// What becomes of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is made.
    Created,
    /// It is there and becomes another.
    Changed,
    /// It is there already, as it should be.
    Unchanged,
    /// It is deleted.
    Deleted,
}

/// Live connections of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connections {
    /// The node.
    pub node: NodeName,
    /// How many there are of which policy decides.
    pub tracked: usize,
    /// Those that are allowed and would be denied.
    pub denied: Vec<Flow>,
    /// Whether the agent would stop them (`flowReevaluation`).
    pub stopped: bool,
}

impl Plan {
    /// Reports whether anything would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.resources.iter().all(|(_, fate)| *fate == Fate::Unchanged)
            && self.comparison.changes.is_empty()
            && self.kernel.is_empty()
    }
}

/// Finds the live connections of a node that would be denied. Beside the addresses that resources say the node has, it has `own`.
#[must_use]
pub fn connections(
    before: &Snapshot,
    after: &Snapshot,
    node: &NodeName,
    flows: &[Flow],
    own: &BTreeSet<IpAddr>,
) -> Connections {
    let (was, is) = (compile(before, node), compile(after, node));
    let was = FlowJudge::new(before, node.clone(), &was).with_addresses(own.clone());
    let is = FlowJudge::new(after, node.clone(), &is).with_addresses(own.clone());
    let (mut tracked, mut denied) = (0, Vec::new());
    for flow in flows {
        let verdict = is.verdict(flow);
        tracked += usize::from(verdict.is_some());
        if verdict == Some(Verdict::Deny) && was.verdict(flow) != Some(Verdict::Deny) {
            denied.push(*flow);
        }
    }
    denied.sort();
    let stopped = after.felix_configuration(node).reevaluates_flows();
    Connections { node: node.clone(), tracked, denied, stopped }
}

/// How much is shown of lists that may be long.
#[derive(Debug, Clone, Copy)]
pub struct Limit(pub usize);

impl Limit {
    /// Splits a list into what is shown and how many are not.
    fn of<T>(self, all: &[T]) -> (&[T], usize) {
        let shown = all.len().min(self.0);
        (&all[..shown], all.len() - shown)
    }
}

/// Writes a plan as lines; with `verbose`, with each of the kernel's operations in the words of its programs.
#[must_use]
pub fn render(plan: &Plan, limit: Limit, verbose: Verbosity) -> String {
    let mut text = String::new();
    if plan.is_empty() {
        put(&mut text, 0, "Nothing would change.");
    }
    let changed = plan.resources.iter().filter(|(_, fate)| *fate != Fate::Unchanged).collect::<Vec<_>>();
    if !changed.is_empty() {
        put(&mut text, 0, "Resources");
        let (shown, more) = limit.of(&changed);
        for (key, fate) in shown {
            put(&mut text, 2, &format!("{} {}: {}", key.kind, key.id, fate.word()));
        }
        and_more(&mut text, 2, more);
    }
    verdicts(&mut text, &plan.comparison, limit);
    if let Some(connections) = &plan.connections {
        of_connections(&mut text, connections, limit);
    }
    if !plan.kernel.is_empty() {
        put(&mut text, 0, "Kernel");
        let (shown, more) = limit.of(&plan.kernel);
        for of_node in shown {
            if let Some(proviso) = of_node.proviso() {
                put(&mut text, 2, &format!("{}: {proviso}", of_node.node));
            }
            for changes in &of_node.changes {
                let counted = changes.counted();
                put(&mut text, 2, &format!("{}, {}: {counted}", of_node.node, changes.filter()));
                if verbose == Verbosity::EveryOperation {
                    for operation in changes.lines() {
                        // Not broken: each is one line of the program's.
                        let _ = writeln!(text, "    {operation}");
                    }
                }
            }
        }
        and_more(&mut text, 2, more);
    }
    text
}

/// How much is said of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// How many operations there are.
    Counts,
    /// Each of them.
    EveryOperation,
}

fn verdicts(text: &mut String, comparison: &Comparison, limit: Limit) {
    put(text, 0, "Verdicts");
    if comparison.changes.is_empty() {
        put(text, 2, "Everybody reaches whom they reached, and nobody else.");
        return;
    }
    let pairs = |verdict| match comparison.pairs(verdict) {
        1 => "1 pair".to_owned(),
        pairs => format!("{pairs} pairs"),
    };
    let (denied, allowed) = (pairs(Verdict::Deny), pairs(Verdict::Allow));
    put(
        text,
        2,
        &format!(
            "Of workloads and nodes, {denied} would be denied something, and {allowed} allowed something."
        ),
    );
    let (shown, more) = limit.of(&comparison.changes);
    for change in shown {
        let traffic: Vec<String> = change.traffic.iter().map(ToString::to_string).collect();
        let (first, others) = limit.of(&traffic);
        put(text, 2, &format!("{}: {}", change.verdict, listed(first, others)));
        for (word, places) in [("from", &change.sources), ("to", &change.destinations)] {
            let names = names(places);
            let (first, others) = limit.of(&names);
            put(text, 4, &format!("{word} {}", listed(first, others)));
        }
        let example = &change.example;
        let until = if change.verdict == Verdict::Allow { "until now, " } else { "" };
        let (from, to) = (example.source, example.destination);
        put(
            text,
            4,
            &format!(
                "e.g. {} from {from} to {to}: {until}{}",
                words(example.transport),
                step_line(&example.denied_by)
            ),
        );
    }
    and_more(text, 2, more);
}

fn of_connections(text: &mut String, connections: &Connections, limit: Limit) {
    let Connections { node, tracked, denied, stopped } = connections;
    put(text, 0, &format!("Live connections of {node}"));
    let fate = if *stopped {
        "would be stopped"
    } else {
        "would be denied if they began then; they go on to their end"
    };
    put(text, 2, &format!("Of {tracked}, {} {fate}.", denied.len()));
    let (shown, more) = limit.of(denied);
    for flow in shown {
        put(text, 4, &format!("{} from {} to {}", words(flow.transport), flow.source, flow.destination));
    }
    and_more(text, 4, more);
}

/// Returns the names of places, each once.
fn names(places: &[Place]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in places.iter().map(ToString::to_string) {
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    names
}

fn listed(shown: &[String], more: usize) -> String {
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

fn and_more(text: &mut String, indent: usize, more: usize) {
    if more > 0 {
        put(text, indent, &format!("and {more} more"));
    }
}

/// What a packet carries, in short.
fn words(transport: Transport) -> String {
    match transport {
        // Of an example, only the port that is asked for is told.
        Transport::Ports { protocol, source: 0, destination } => {
            format!("{} port {destination}", protocol.protocol())
        }
        Transport::Ports { protocol, source, destination } => {
            format!("{} {source} > {destination}", protocol.protocol())
        }
        Transport::Icmp { icmp_type, code } => format!("ICMP type {icmp_type} code {code}"),
        Transport::Other(other) => format!("protocol {}", other.protocol()),
    }
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Fate::Created => "created",
            Fate::Changed => "changed",
            Fate::Unchanged => "unchanged",
            Fate::Deleted => "deleted",
        }
    }
}

/// Returns a plan as JSON, all of it.
#[must_use]
pub fn to_json(plan: &Plan, verbose: Verbosity) -> Value {
    let resources =
        plan.resources.iter().map(|(key, fate)| json!({"resource": key.to_string(), "fate": fate.word()}));
    let comparison = &plan.comparison;
    let kernel =
        plan.kernel.iter().flat_map(|of| of.changes.iter().map(|changes| changes.to_json(&of.node, verbose)));
    let provisos = plan
        .kernel
        .iter()
        .filter_map(|of| of.proviso().map(|proviso| json!({"node": of.node.as_str(), "proviso": proviso})));
    json!({
        "changes": !plan.is_empty(),
        "resources": resources.collect::<Vec<_>>(),
        "verdicts": {
            "pairsDenied": comparison.pairs(Verdict::Deny),
            "pairsAllowed": comparison.pairs(Verdict::Allow),
            "changes": comparison.changes.iter().map(change_to_json).collect::<Vec<_>>(),
        },
        "connections": plan.connections.as_ref().map(connections_to_json),
        "kernel": kernel.collect::<Vec<_>>(),
        "provisos": provisos.collect::<Vec<_>>(),
    })
}

fn change_to_json(change: &Change) -> Value {
    let example = &change.example;
    json!({
        "verdict": change.verdict.to_string(),
        "from": names(&change.sources),
        "to": names(&change.destinations),
        "traffic": change.traffic.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "example": {
            "source": example.source.to_string(),
            "destination": example.destination.to_string(),
            "packet": words(example.transport),
            "deniedBy": step_line(&example.denied_by),
        },
    })
}

fn connections_to_json(connections: &Connections) -> Value {
    let Connections { node, tracked, denied, stopped } = connections;
    let flow = |flow: &Flow| {
        json!({
            "source": flow.source.to_string(),
            "destination": flow.destination.to_string(),
            "packet": words(flow.transport),
        })
    };
    let denied: Vec<Value> = denied.iter().map(flow).collect();
    json!({"node": node.as_str(), "tracked": tracked, "denied": denied, "stopped": stopped})
}
