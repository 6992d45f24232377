//! Why something passes or does not on its whole way, and what is missing for it to pass.
//!
//! [`explain`] asks [`evaluate`] at every node on the way, adds which labels made each policy and rule count, and looks for
//! the changes that would let a denied packet through. What it finds is tried before it is told: with all the changes the
//! packet passes, and without any one of them it does not.

mod remedy;

use std::net::IpAddr;

use calico_model::resource::{Kind, PolicyType, ResourceKey};
use calico_model::{InterfaceName, LabelSource, Snapshot};

use crate::active::{Stage, active};
use crate::labels::SystemLabels;
use crate::order::{policy, tiers};
use crate::packet::{Packet, Path, Transport, Verdict};
use crate::trace::{Meant, Reason, Step, Subject, Trace};
use crate::{evaluate, way};
pub use remedy::{Remedy, Tunnel};

/// What becomes of a packet on its whole way, and what would have to change.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What becomes of it in the end.
    pub verdict: Verdict,
    /// What each node on the way says, in order; none when no node sees it.
    pub hops: Vec<Hop>,
    /// What is missing for it to pass.
    pub cure: Cure,
}

/// What one node says.
#[derive(Debug, Clone, PartialEq)]
pub struct Hop {
    /// The packet as the node sees it.
    pub packet: Packet,
    /// What becomes of it there, and why.
    pub trace: Trace,
    /// For each step of the trace, whom selectors and services chose.
    pub choices: Vec<Vec<Choice>>,
}

/// A selector that chose somebody, with the labels that made it, or a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Whose selector it is, when it says whom a policy is for; `None` for a selector in a rule.
    pub policy: Option<ResourceKey>,
    /// Who is chosen.
    pub chosen: ResourceKey,
    /// The selector or service.
    pub meant: Meant,
    /// The labels that it looks at: `None` for one that is not there.
    pub labels: Vec<(String, Option<String>)>,
}

/// What is missing for a packet to pass.
#[derive(Debug, Clone, PartialEq)]
pub enum Cure {
    /// Nothing: it passes.
    NotNeeded,
    /// These changes, all of them.
    Changes(Vec<Remedy>),
    /// No policy can let it pass, because of this.
    None(Box<Step>),
}

/// Explains what becomes of the first packet from one address to another. What goes to or comes from outside a node passes
/// by its interface `uplink`.
#[must_use]
pub fn explain(
    snapshot: &Snapshot,
    source: IpAddr,
    destination: IpAddr,
    transport: Transport,
    uplink: &InterfaceName,
) -> Explanation {
    explain_way(snapshot, way(snapshot, source, destination, transport, uplink))
}

/// Explains what becomes of a packet that nodes see one after the other.
#[must_use]
pub fn explain_way(snapshot: &Snapshot, way: Vec<Packet>) -> Explanation {
    let cure = remedy::cure(snapshot, &way);
    let hops = way.into_iter().map(|packet| hop(snapshot, packet)).collect();
    let verdict = if cure == Cure::NotNeeded { Verdict::Allow } else { Verdict::Deny };
    Explanation { verdict, hops, cure }
}

fn hop(snapshot: &Snapshot, packet: Packet) -> Hop {
    let trace = evaluate(snapshot, &packet);
    let choices = trace.steps.iter().map(|step| choices(snapshot, &packet, step)).collect();
    Hop { packet, trace, choices }
}

fn choices(snapshot: &Snapshot, packet: &Packet, step: &Step) -> Vec<Choice> {
    let Subject::Endpoint(subject, direction) = &step.subject else { return Vec::new() };
    let for_subject = |owner: &ResourceKey| {
        let meant = Meant::Selector(policy(snapshot, owner)?.policy.selector.clone());
        Some(choice(snapshot, Some(owner), subject, &meant))
    };
    if let Reason::Rule { owner, facts, .. } = &step.reason {
        let of_rule = facts
            .iter()
            .flat_map(|fact| fact.selected.iter().map(|chosen| choice(snapshot, None, chosen, &fact.meant)));
        for_subject(owner).into_iter().chain(of_rule).collect()
    } else if let Reason::EndOfTier { tier, .. } = &step.reason {
        applying(snapshot, packet, subject, *direction, tier).iter().filter_map(for_subject).collect()
    } else {
        Vec::new()
    }
}

fn choice(snapshot: &Snapshot, policy: Option<&ResourceKey>, chosen: &ResourceKey, meant: &Meant) -> Choice {
    let labels = labels(snapshot, chosen);
    let keys = if let Meant::Selector(selector) = meant { selector.keys() } else { Default::default() };
    let value = |key: &str| labels.as_ref().and_then(|labels| labels.label(key)).map(str::to_owned);
    Choice {
        policy: policy.cloned(),
        chosen: chosen.clone(),
        meant: meant.clone(),
        labels: keys.into_iter().map(|key| (key.to_owned(), value(key))).collect(),
    }
}

/// The labels of whatever selectors choose; `None` when there is no such thing.
fn labels<'s>(snapshot: &'s Snapshot, key: &ResourceKey) -> Option<SystemLabels<'s>> {
    let (id, is) = (&key.id, |kind: Kind| key.kind == kind);
    if is(Kind::WorkloadEndpoint) {
        snapshot.workloads.get(id).map(|found| SystemLabels::of_workload(snapshot, found))
    } else if is(Kind::HostEndpoint) {
        snapshot.hosts.get(id).map(|found| SystemLabels::of_host(snapshot, found))
    } else if is(Kind::NetworkSet) {
        snapshot.network_sets.get(id).map(|found| SystemLabels::of_set(&found.metadata))
    } else if is(Kind::GlobalNetworkSet) {
        snapshot.global_network_sets.get(id).map(|found| SystemLabels::of_set(&found.metadata))
    } else {
        None
    }
}

/// The policies of a tier that apply to an endpoint, in the order in which they are asked.
fn applying(
    snapshot: &Snapshot,
    packet: &Packet,
    subject: &ResourceKey,
    direction: PolicyType,
    tier: &calico_model::Name,
) -> Vec<ResourceKey> {
    let Some(labels) = labels(snapshot, subject) else { return Vec::new() };
    let through = matches!(packet.path, Path::Forward { .. }) && subject.kind == Kind::HostEndpoint;
    let stage = if through { Stage::Forward } else { Stage::Normal };
    let tiers = tiers(snapshot);
    let found = active(&tiers, &labels, direction, stage).into_iter().find(|active| active.name == tier);
    found.into_iter().flat_map(|active| active.policies).map(|policy| policy.key.clone()).collect()
}

/// The first step on the way that denies, with the packet that it denies.
fn denial<'w>(snapshot: &Snapshot, way: &'w [Packet]) -> Option<(&'w Packet, Step)> {
    way.iter().find_map(|packet| {
        let trace = evaluate(snapshot, packet);
        let last = trace.steps.last().filter(|_| trace.outcome.verdict == Verdict::Deny)?;
        Some((packet, last.clone()))
    })
}
