//! The changes that would let a denied packet through, found one denial at a time and tried before they are told.

use std::net::IpAddr;
use std::sync::Arc;

use calico_model::resource::felix::EndpointToHostAction;
use calico_model::resource::{
    Action, FelixConfiguration, Icmp, Kind, Object, PolicyType, PortMatch, Profile, ResourceKey, Rule,
};
use calico_model::{Cidr, Name, NodeName, Selector, Snapshot};

use super::{Cure, applying, denial};
use crate::labels::NAMESPACE;
use crate::order::policy;
use crate::packet::{Packet, Transport, icmp_of};
use crate::trace::{Reason, Step, Subject};

/// More denials than a way can have.
const DENIALS: usize = 32;

/// A change that takes one denial away.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Remedy {
    /// A rule is put into a policy or profile.
    Rule {
        /// The policy or profile.
        owner: ResourceKey,
        /// Among the rules of which direction.
        direction: PolicyType,
        /// At which place, from 0; the rules from there on come after it.
        index: usize,
        /// The rule.
        rule: Box<Rule>,
    },
    /// A profile is made, and the endpoint has it as its last one.
    Profile {
        /// The endpoint.
        endpoint: ResourceKey,
        /// The profile.
        name: Name,
        /// The direction of its only rule.
        direction: PolicyType,
        /// The rule.
        rule: Box<Rule>,
    },
    /// Workloads may reach their own node.
    EndpointToHost {
        /// The FelixConfiguration.
        configuration: Name,
    },
    /// Workloads may make tunnel packets.
    Tunnel {
        /// The FelixConfiguration.
        configuration: Name,
        /// Of which kind.
        tunnel: Tunnel,
    },
    /// A workload may send from an address that is not its own.
    Source {
        /// The workload.
        endpoint: ResourceKey,
        /// The address, as a network.
        net: Cidr,
    },
}

/// A kind of tunnel that workloads are kept from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunnel {
    /// VXLAN.
    Vxlan,
    /// IP in IP.
    Ipip,
}

/// Finds what is missing for a packet to pass.
pub(super) fn cure(snapshot: &Snapshot, way: &[Packet]) -> Cure {
    let mut world = snapshot.clone();
    let mut changes: Vec<Remedy> = Vec::new();
    for _ in 0..DENIALS {
        let Some((packet, step)) = denial(&world, way) else {
            return if changes.is_empty() {
                Cure::NotNeeded
            } else {
                Cure::Changes(needed(snapshot, way, changes))
            };
        };
        let found = candidates(&world, packet, &step).into_iter().find_map(|remedy| {
            let mut changed = world.clone();
            remedy.apply(&mut changed);
            remedy.helps(&changed, packet, &step).then_some((remedy, changed))
        });
        match found {
            Some((remedy, changed)) => {
                changes.push(remedy);
                world = changed;
            }
            None => return Cure::None(Box::new(step)),
        }
    }
    let last = denial(&world, way).map(|(_, step)| step);
    last.map_or(Cure::Changes(changes), |step| Cure::None(Box::new(step)))
}

/// Leaves out what a later change has made needless.
fn needed(snapshot: &Snapshot, way: &[Packet], mut changes: Vec<Remedy>) -> Vec<Remedy> {
    let mut index = 0;
    while index < changes.len() {
        let mut fewer = changes.clone();
        fewer.remove(index);
        let mut world = snapshot.clone();
        fewer.iter().for_each(|remedy| remedy.apply(&mut world));
        if denial(&world, way).is_none() {
            changes = fewer;
        } else {
            index += 1;
        }
    }
    changes
}

/// What may take a denial away, the most fitting first.
fn candidates(world: &Snapshot, packet: &Packet, step: &Step) -> Vec<Remedy> {
    let configuration = |is_set: fn(&FelixConfiguration) -> bool| configuration(world, &packet.node, is_set);
    match (&step.subject, &step.reason) {
        (Subject::Endpoint(_, direction), Reason::Rule { owner, index, .. }) => {
            rules(world, packet, *direction, owner, *index)
        }
        (Subject::Endpoint(subject, direction), Reason::EndOfTier { tier, .. }) => {
            // The last one, so that nothing that is decided today is decided otherwise.
            let Some(owner) = applying(world, packet, subject, *direction, tier).pop() else {
                return Vec::new();
            };
            let last = policy(world, &owner).map_or(0, |found| found.policy.rules(*direction).len());
            rules(world, packet, *direction, &owner, last)
        }
        (Subject::Endpoint(endpoint, direction), Reason::MissingProfile(name)) => {
            profiles(world, packet, *direction, endpoint, name)
        }
        (Subject::Endpoint(endpoint, direction), Reason::NothingAllows) => {
            let fresh = (1..).map(|number| format!("allow-{number}")).filter_map(|name| name.parse().ok());
            let mut free = fresh.filter(|name: &Name| {
                let listed = endpoint_profiles(world, endpoint).is_some_and(|names| names.contains(name));
                !listed && world.profile(name).is_none()
            });
            free.next().map_or(Vec::new(), |name| profiles(world, packet, *direction, endpoint, &name))
        }
        (_, Reason::WorkloadToHost(_)) => {
            let configuration = configuration(|felix| felix.default_endpoint_to_host_action.is_some());
            configuration.map(|configuration| Remedy::EndpointToHost { configuration }).into_iter().collect()
        }
        (_, Reason::TunnelFromWorkload) => {
            let vxlan = configuration(|felix| felix.allow_vxlan_packets_from_workloads.is_some())
                .map(|configuration| Remedy::Tunnel { configuration, tunnel: Tunnel::Vxlan });
            let ipip = configuration(|felix| felix.allow_ipip_packets_from_workloads.is_some())
                .map(|configuration| Remedy::Tunnel { configuration, tunnel: Tunnel::Ipip });
            vxlan.into_iter().chain(ipip).collect()
        }
        (Subject::Interface(interface), Reason::SpoofedSource) => {
            let owner = world.workloads.values().find(|endpoint| {
                endpoint.spec.node == packet.node && endpoint.spec.interface_name.as_ref() == Some(interface)
            });
            let net = Cidr::host(packet.source);
            owner.map(|endpoint| Remedy::Source { endpoint: endpoint.key(), net }).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn rules(
    world: &Snapshot,
    packet: &Packet,
    direction: PolicyType,
    owner: &ResourceKey,
    index: usize,
) -> Vec<Remedy> {
    let made = allowances(world, packet, direction, owner).into_iter();
    made.map(|rule| Remedy::Rule { owner: owner.clone(), direction, index, rule: Box::new(rule) }).collect()
}

fn profiles(
    world: &Snapshot,
    packet: &Packet,
    direction: PolicyType,
    endpoint: &ResourceKey,
    name: &Name,
) -> Vec<Remedy> {
    let owner = ResourceKey { kind: Kind::Profile, id: name.clone().into() };
    let made = allowances(world, packet, direction, &owner).into_iter();
    made.map(|rule| Remedy::Profile {
        endpoint: endpoint.clone(),
        name: name.clone(),
        direction,
        rule: Box::new(rule),
    })
    .collect()
}

/// The rules that allow no more than the packet, as it is and as untracked and pre-DNAT policy sees it.
fn allowances(world: &Snapshot, packet: &Packet, direction: PolicyType, owner: &ResourceKey) -> Vec<Rule> {
    let before = packet.original_destination.map(|original| {
        let mut before = Packet { destination: original.addr, ..packet.clone() };
        if let Transport::Ports { destination, .. } = &mut before.transport {
            *destination = original.port;
        }
        before
    });
    let views = [packet].into_iter().chain(&before);
    views.flat_map(|packet| allowances_of(world, packet, direction, owner)).collect()
}

/// The rules that allow no more than what is seen: the other end by its labels, or else by its address.
fn allowances_of(world: &Snapshot, packet: &Packet, direction: PolicyType, owner: &ResourceKey) -> Vec<Rule> {
    let mut rule = Rule::allow();
    rule.protocol = Some(packet.protocol());
    match packet.transport {
        Transport::Ports { destination, .. } => {
            rule.destination.ports = vec![PortMatch::Range(destination, destination)];
        }
        Transport::Icmp { icmp_type, code } => {
            rule.protocol = Some(icmp_of(packet.family()));
            rule.icmp = Some(Icmp { icmp_type: Some(icmp_type), code: Some(code) });
        }
        Transport::Other(_) => {}
    }
    let peer = match direction {
        PolicyType::Ingress => packet.source,
        PolicyType::Egress => packet.destination,
    };
    let (mut by_labels, mut by_address) = (rule.clone(), rule);
    let end_of = |rule: &mut Rule| match direction {
        PolicyType::Ingress => std::mem::take(&mut rule.source),
        PolicyType::Egress => std::mem::take(&mut rule.destination),
    };
    let mut end = end_of(&mut by_labels);
    let named = peer_selectors(world, peer, owner);
    if let Some((selector, namespaces)) = named.clone() {
        (end.selector, end.namespace_selector) = (Some(selector), namespaces);
    }
    put_end(&mut by_labels, direction, end);
    let mut end = end_of(&mut by_address);
    end.nets = vec![Cidr::host(peer)];
    put_end(&mut by_address, direction, end);
    named.map(|_| by_labels).into_iter().chain([by_address]).collect()
}

fn put_end(rule: &mut Rule, direction: PolicyType, end: calico_model::resource::EntityRule) {
    match direction {
        PolicyType::Ingress => rule.source = end,
        PolicyType::Egress => rule.destination = end,
    }
}

/// How a rule of `owner` names the workload that has an address: by its own labels, and by its namespace where that is
/// another.
fn peer_selectors(
    world: &Snapshot,
    addr: IpAddr,
    owner: &ResourceKey,
) -> Option<(Selector, Option<Selector>)> {
    let endpoint =
        world.workloads.values().find(|found| found.spec.ip_networks.contains(&Cidr::host(addr)))?;
    let own = endpoint.metadata.labels.iter().filter(|(key, _)| !key.contains("projectcalico.org/"));
    let terms: Result<Vec<Selector>, _> = own.map(|(key, value)| Selector::equals(key, value)).collect();
    let labels = terms.ok()?.into_iter().reduce(|all, term| all.and(&term))?;
    match (&endpoint.metadata.namespace, &owner.id.namespace) {
        (Some(theirs), Some(ours)) if theirs == ours => Some((labels, None)),
        (Some(theirs), Some(_)) => {
            Some((labels, Some(Selector::equals("projectcalico.org/name", theirs.as_str()).ok()?)))
        }
        (Some(theirs), None) => Some((labels.and(&Selector::equals(NAMESPACE, theirs.as_str()).ok()?), None)),
        (None, _) => Some((labels, None)),
    }
}

/// The configuration in which a setting of a node is to be changed: the node's own where that has it, else the cluster's.
fn configuration(world: &Snapshot, node: &NodeName, is_set: fn(&FelixConfiguration) -> bool) -> Option<Name> {
    let own: Option<Name> = format!("node.{node}").parse().ok();
    let own = own.filter(|name| {
        world.felix_configurations.get(&name.clone().into()).is_some_and(|found| is_set(&found.spec))
    });
    own.or_else(|| FelixConfiguration::DEFAULT.parse().ok())
}

fn endpoint_profiles<'w>(world: &'w Snapshot, endpoint: &ResourceKey) -> Option<&'w Vec<Name>> {
    let workload = world.workloads.get(&endpoint.id).filter(|_| endpoint.kind == Kind::WorkloadEndpoint);
    let host = world.hosts.get(&endpoint.id).filter(|_| endpoint.kind == Kind::HostEndpoint);
    workload.map(|found| &found.spec.profiles).or_else(|| host.map(|found| &found.spec.profiles))
}

impl Remedy {
    /// Makes the change. What it is about must be there, as it was when the remedy was found.
    pub fn apply(&self, world: &mut Snapshot) {
        match self {
            Remedy::Rule { owner, direction, index, rule } => {
                let rules = if owner.kind == Kind::NetworkPolicy {
                    let found = world.policies.get_mut(&owner.id);
                    found.map(|found| of_direction(&mut Arc::make_mut(found).spec.0, *direction))
                } else if owner.kind == Kind::GlobalNetworkPolicy {
                    let found = world.global_policies.get_mut(&owner.id);
                    found.map(|found| of_direction(&mut Arc::make_mut(found).spec.policy, *direction))
                } else {
                    world.profiles.get_mut(&owner.id).map(|found| match direction {
                        PolicyType::Ingress => &mut Arc::make_mut(found).spec.ingress,
                        PolicyType::Egress => &mut Arc::make_mut(found).spec.egress,
                    })
                };
                if let Some(rules) = rules {
                    rules.insert((*index).min(rules.len()), (**rule).clone());
                }
            }
            Remedy::Profile { endpoint, name, direction, rule } => {
                let rules = vec![(**rule).clone()];
                let (ingress, egress) = match direction {
                    PolicyType::Ingress => (rules, Vec::new()),
                    PolicyType::Egress => (Vec::new(), rules),
                };
                let profile = Profile { ingress, egress, labels_to_apply: calico_model::Labels::default() };
                world.insert(Object::new(name.clone(), profile));
                let listed = if endpoint.kind == Kind::HostEndpoint {
                    world.hosts.get_mut(&endpoint.id).map(|found| &mut Arc::make_mut(found).spec.profiles)
                } else {
                    world.workloads.get_mut(&endpoint.id).map(|found| &mut Arc::make_mut(found).spec.profiles)
                };
                if let Some(listed) = listed.filter(|listed| !listed.contains(name)) {
                    listed.push(name.clone());
                }
            }
            Remedy::EndpointToHost { configuration } => {
                felix(world, configuration).default_endpoint_to_host_action =
                    Some(EndpointToHostAction::Accept);
            }
            Remedy::Tunnel { configuration, tunnel: Tunnel::Vxlan } => {
                felix(world, configuration).allow_vxlan_packets_from_workloads = Some(true);
            }
            Remedy::Tunnel { configuration, tunnel: Tunnel::Ipip } => {
                felix(world, configuration).allow_ipip_packets_from_workloads = Some(true);
            }
            Remedy::Source { endpoint, net } => {
                if let Some(found) = world.workloads.get_mut(&endpoint.id) {
                    Arc::make_mut(found).spec.allow_spoofed_source_prefixes.push(*net);
                }
            }
        }
    }

    /// Reports whether the packet is let through by this where a step denied it before.
    fn helps(&self, changed: &Snapshot, packet: &Packet, before: &Step) -> bool {
        let trace = crate::evaluate(changed, packet);
        let allowed_by = |key: &ResourceKey, place: usize| {
            trace.steps.iter().any(|step| {
                step.subject == before.subject
                    && matches!(&step.reason, Reason::Rule { owner, index, action: Action::Allow, .. }
                        if owner == key && *index == place)
            })
        };
        match self {
            Remedy::Rule { owner, index, .. } => allowed_by(owner, *index),
            Remedy::Profile { name, .. } => {
                allowed_by(&ResourceKey { kind: Kind::Profile, id: name.clone().into() }, 0)
            }
            Remedy::EndpointToHost { .. } | Remedy::Tunnel { .. } | Remedy::Source { .. } => {
                trace.steps.last() != Some(before)
            }
        }
    }
}

fn of_direction(policy: &mut calico_model::resource::Policy, direction: PolicyType) -> &mut Vec<Rule> {
    match direction {
        PolicyType::Ingress => &mut policy.ingress,
        PolicyType::Egress => &mut policy.egress,
    }
}

fn felix<'w>(world: &'w mut Snapshot, name: &Name) -> &'w mut FelixConfiguration {
    let object = world
        .felix_configurations
        .entry(name.clone().into())
        .or_insert_with(|| Arc::new(Object::new(name.clone(), FelixConfiguration::default())));
    &mut Arc::make_mut(object).spec
}
