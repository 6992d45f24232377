//! Why a packet passes or does not, step by step.

use std::fmt;

use calico_model::resource::service::ServiceId;
use calico_model::resource::{Action, EndpointToHostAction, PolicyType, ResourceKey};
use calico_model::{InterfaceName, Name, Selector};

use crate::packet::{NewSource, Outcome, SourceNat, Told};
use crate::ruleset::End;

/// What becomes of a packet, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// What becomes of it.
    pub outcome: Outcome,
    /// What was asked, in order. The last step decided, if the packet is denied; all agreed, if it is allowed.
    pub steps: Vec<Step>,
}

/// One thing that was asked about a packet.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Whose traffic it is.
    pub subject: Subject,
    /// What settled the step.
    pub reason: Reason,
}

/// Whose traffic a step is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// An endpoint's, in one direction.
    Endpoint(ResourceKey, PolicyType),
    /// An interface's.
    Interface(InterfaceName),
    /// The node's own.
    Host,
}

/// What settled a step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// The interface is named like a workload's and belongs to none.
    UnknownInterface,
    /// The source is none of the workload's addresses.
    SpoofedSource,
    /// The packet is to the node's loopback addresses, from elsewhere.
    ToLoopback,
    /// The packet belongs to a flow that was let through before.
    Established,
    /// The packet belongs to a flow that policy has ceased to allow.
    Withdrawn,
    /// Connection tracking finds the packet invalid.
    Invalid,
    /// ICMPv6 without which a link does not work.
    EssentialIcmpv6,
    /// A workload made a tunnel packet.
    TunnelFromWorkload,
    /// A tunnel packet from one of the cluster's nodes.
    TunnelFromNode,
    /// A tunnel packet from elsewhere.
    TunnelFromStranger,
    /// A tunnel packet to one of the cluster's nodes.
    TunnelToNode,
    /// To or from a port that every host endpoint leaves open.
    Failsafe,
    /// Untracked or pre-DNAT policy allowed it, and later policy of host endpoints is not asked.
    AcceptedEarly,
    /// A rule of a policy or profile.
    Rule {
        /// The tier; `None` in a profile.
        tier: Option<Name>,
        /// The policy or profile.
        owner: ResourceKey,
        /// The place of the rule among those of its direction, from 0.
        index: usize,
        /// What the rule says.
        action: Action,
        /// Why its selectors and services matched.
        facts: Vec<Fact>,
    },
    /// Policies of the tier apply, and none of their rules matched.
    EndOfTier {
        /// The tier.
        tier: Name,
        /// Whether the packet goes on to the next tier.
        passes: bool,
    },
    /// A profile that the endpoint names does not exist.
    MissingProfile(Name),
    /// No rule allows it.
    NothingAllows,
    /// From a workload to its own node.
    WorkloadToHost(EndpointToHostAction),
    /// From the node to a workload of its own, which is always allowed.
    HostToWorkload,
    /// To an address of services that no service has, which would only come back.
    ServiceLoop,
    /// The source is in a pool with outgoing translation, and the destination in no pool.
    Translated(NewSource),
}

/// Why a rule matched one end of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Which end.
    pub end: End,
    /// Whom the rule means.
    pub meant: Meant,
    /// What has the address and is meant: none for a selector that must not match.
    pub selected: Vec<ResourceKey>,
}

/// Whom a rule means by something other than an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meant {
    /// What this selects, with what the policy's own place adds to it.
    Selector(Selector),
    /// The endpoints of this service: a destination by its port too.
    Service(ServiceId),
}

impl fmt::Display for Meant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Meant::Selector(selector) => selector.fmt(f),
            Meant::Service(service) => write!(f, "service {service}"),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.outcome)?;
        for step in &self.steps {
            write!(f, "\n  {step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        if self.told == Told::Unreachable {
            f.write_str(", and the sender is told so")?;
        }
        if let SourceNat::Change(new) = self.source_nat {
            write!(f, ", with {new} as its source")?;
        }
        Ok(())
    }
}

impl fmt::Display for NewSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            Some(addr) => write!(f, "the address {addr}")?,
            None => f.write_str("the node's own address")?,
        }
        match self.ports {
            Some((first, last)) => write!(f, " and a port from {first} to {last}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Endpoint(key, direction) => {
                let direction = if *direction == PolicyType::Ingress { "ingress" } else { "egress" };
                write!(f, "{direction} of {} {}: {}", key.kind, key.id, self.reason)
            }
            Subject::Interface(name) => write!(f, "interface {name}: {}", self.reason),
            Subject::Host => write!(f, "host: {}", self.reason),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::UnknownInterface => {
                f.write_str("denied: it is named like a workload's, and no workload has it")
            }
            Reason::SpoofedSource => f.write_str("denied: the source is none of the workload's addresses"),
            Reason::ToLoopback => {
                f.write_str("denied: a node's loopback addresses are reached from itself only")
            }
            Reason::Established => f.write_str("allowed: it belongs to a flow that was let through"),
            Reason::Withdrawn => f.write_str("denied: it belongs to a flow that policy has ceased to allow"),
            Reason::Invalid => f.write_str("denied: it belongs to no flow and cannot begin one"),
            Reason::EssentialIcmpv6 => f.write_str("allowed: IPv6 does not work on a link without it"),
            Reason::TunnelFromWorkload => f.write_str("denied: workloads may not make tunnel packets"),
            Reason::TunnelFromNode => f.write_str("allowed: a tunnel packet from a node of the cluster"),
            Reason::TunnelFromStranger => f.write_str("denied: a tunnel packet from no node of the cluster"),
            Reason::TunnelToNode => f.write_str("allowed: a tunnel packet to a node of the cluster"),
            Reason::Failsafe => {
                f.write_str("allowed: a failsafe port, which every host endpoint leaves open")
            }
            Reason::AcceptedEarly => f.write_str("allowed by untracked or pre-DNAT policy before"),
            Reason::Rule { tier, owner, index, action, facts } => {
                let verb = match action {
                    Action::Allow => "allowed",
                    Action::Deny => "denied",
                    Action::Log => "logged",
                    Action::Pass => "passed on",
                };
                write!(f, "{verb} by rule {index} of {} {}", owner.kind, owner.id)?;
                if let Some(tier) = tier {
                    write!(f, " in tier {tier}")?;
                }
                facts.iter().try_for_each(|fact| write!(f, "\n    {fact}"))
            }
            Reason::EndOfTier { tier, passes: true } => {
                write!(f, "passed on: no rule in tier {tier} matches, and the tier passes")
            }
            Reason::EndOfTier { tier, passes: false } => {
                write!(f, "denied: policies in tier {tier} apply, and none of their rules matches")
            }
            Reason::MissingProfile(name) => write!(f, "denied: its profile {name} does not exist"),
            Reason::NothingAllows => f.write_str("denied: no policy applies, and no profile allows it"),
            Reason::WorkloadToHost(EndpointToHostAction::Drop) => {
                f.write_str("denied: workloads may not reach their own node (defaultEndpointToHostAction)")
            }
            Reason::WorkloadToHost(_) => {
                f.write_str("allowed: workloads may reach their own node (defaultEndpointToHostAction)")
            }
            Reason::HostToWorkload => f.write_str("allowed: a node always reaches its own workloads"),
            Reason::ServiceLoop => f.write_str(
                "denied: the destination is an address of services, and of none that exists (serviceLoopPrevention)",
            ),
            Reason::Translated(new) => write!(f, "its source becomes {new}: it leaves all pools"),
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.end {
            End::Source => "source",
            End::Destination => "destination",
        };
        if self.selected.is_empty() {
            return write!(f, "{end}: nothing with this address is selected by {}", self.meant);
        }
        let selected: Vec<String> =
            self.selected.iter().map(|key| format!("{} {}", key.kind, key.id)).collect();
        write!(f, "{end}: {} selects {}", self.meant, selected.join(", "))
    }
}
