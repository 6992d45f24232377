//! Host endpoints: what may reach the node, leave it, and pass through it.

use calico_model::InterfaceName;
use calico_model::resource::{HostEndpoint, Object, PolicyType, ProtoPort};

use super::{Evaluation, Reason, Side, Subject};
use crate::active::{Stage, active};
use crate::compile::{HOST_ICMPV6, inbound, link_groups, outbound};
use crate::labels::SystemLabels;
use crate::packet::{ConnectionState, Path, Verdict};
use crate::ruleset::End;

impl<'e> Evaluation<'e> {
    /// Asks the host endpoint that guards the node's own traffic here.
    pub(super) fn host(&mut self, interface: &InterfaceName, direction: PolicyType) -> Verdict {
        let local = match direction {
            PolicyType::Ingress => self.packet.destination,
            PolicyType::Egress => self.packet.source,
        };
        let Some(host) = self.hosts.of_address(interface, local) else { return Verdict::Allow };
        let subject = Subject::Endpoint(host.key(), direction);
        if self.accepted_early {
            return self.settle(subject, Reason::AcceptedEarly, Verdict::Allow);
        }
        if let Some(verdict) = self.by_state(&subject) {
            return verdict;
        }
        if self.is_failsafe(direction) {
            return self.settle(subject, Reason::Failsafe, Verdict::Allow);
        }
        if self.is_essential_of_host(direction) {
            return self.settle(subject, Reason::EssentialIcmpv6, Verdict::Allow);
        }
        let labels = SystemLabels::of_host(self.snapshot, host);
        self.policy(&subject, &labels, direction, Stage::Normal, &host.spec.profiles)
    }

    /// Asks what a host endpoint lets through: everything, unless policy for forwarded traffic applies to it.
    pub(super) fn through(&mut self, interface: &InterfaceName, direction: PolicyType) -> Verdict {
        let Some(host) = self.of_host_interface(interface) else { return Verdict::Allow };
        let labels = SystemLabels::of_host(self.snapshot, host);
        if active(&self.tiers, &labels, direction, Stage::Forward).is_empty() {
            return Verdict::Allow;
        }
        let subject = Subject::Endpoint(host.key(), direction);
        if self.accepted_early && direction == PolicyType::Ingress {
            return self.settle(subject, Reason::AcceptedEarly, Verdict::Allow);
        }
        self.by_state(&subject)
            .or_else(|| self.tiers(&subject, &labels, direction, Stage::Forward))
            .unwrap_or(Verdict::Allow)
    }

    /// Asks untracked and pre-DNAT policy about a packet that comes in. Both see the original destination.
    pub(super) fn early_in(&mut self, from: &InterfaceName) -> Verdict {
        if self.early(from, PolicyType::Ingress, Stage::Untracked) == Verdict::Deny {
            return Verdict::Deny;
        }
        if self.accepted_early {
            return Verdict::Allow;
        }
        self.early(from, PolicyType::Ingress, Stage::PreDnat)
    }

    /// Asks untracked policy about a packet that the node sends.
    pub(super) fn early_out(&mut self, to: &InterfaceName) -> Verdict {
        self.early(to, PolicyType::Egress, Stage::Untracked)
    }

    fn early(&mut self, interface: &InterfaceName, direction: PolicyType, stage: Stage) -> Verdict {
        let Some(host) = self.of_host_interface(interface) else { return Verdict::Allow };
        let labels = SystemLabels::of_host(self.snapshot, host);
        if active(&self.tiers, &labels, direction, stage).is_empty() {
            return Verdict::Allow;
        }
        let subject = Subject::Endpoint(host.key(), direction);
        self.original = true;
        let verdict = self.early_policy(&subject, &labels, direction, stage);
        self.original = false;
        if verdict == Some(Verdict::Allow) {
            self.accepted_early = true;
            if stage == Stage::Untracked {
                self.state = ConnectionState::Untracked;
            }
        }
        verdict.unwrap_or(Verdict::Allow)
    }

    /// `None` when later policy decides.
    fn early_policy(
        &mut self,
        subject: &Subject,
        labels: &SystemLabels<'_>,
        direction: PolicyType,
        stage: Stage,
    ) -> Option<Verdict> {
        if stage == Stage::PreDnat {
            match self.by_state(subject) {
                Some(Verdict::Deny) => return Some(Verdict::Deny),
                Some(Verdict::Allow) => return None,
                None => {}
            }
        }
        let reply = stage == Stage::Untracked && self.is_failsafe_reply(direction);
        if reply || self.is_failsafe(direction) {
            self.settle(subject.clone(), Reason::Failsafe, Verdict::Allow);
            return None;
        }
        if self.is_essential_of_host(direction) {
            self.settle(subject.clone(), Reason::EssentialIcmpv6, Verdict::Allow);
            return None;
        }
        self.tiers(subject, labels, direction, stage)
    }

    fn of_host_interface(&self, interface: &InterfaceName) -> Option<&'e Object<HostEndpoint>> {
        if matches!(self.side(interface), Side::Host) { self.hosts.of_interface(interface) } else { None }
    }

    /// Reports whether a link of the node itself does not work without the packet. It goes no further than the link.
    fn is_essential_of_host(&self, direction: PolicyType) -> bool {
        let to_host = matches!(self.packet.path, Path::ToHost { .. });
        let stays = direction == PolicyType::Egress
            || link_groups().contains(self.end_of_packet(End::Destination).0)
            || to_host && !self.packet.destination.is_multicast();
        self.is_icmpv6(&HOST_ICMPV6) && stays
    }

    fn is_failsafe(&self, direction: PolicyType) -> bool {
        let ports = match direction {
            PolicyType::Ingress => inbound(&self.felix),
            PolicyType::Egress => outbound(&self.felix),
        };
        self.is_one_of(&ports, End::Destination, direction)
    }

    /// Without tracking, a reply is known by its source port alone.
    fn is_failsafe_reply(&self, direction: PolicyType) -> bool {
        let ports = match direction {
            PolicyType::Ingress => outbound(&self.felix),
            PolicyType::Egress => inbound(&self.felix),
        };
        self.is_one_of(&ports, End::Source, direction)
    }

    fn is_one_of(&self, ports: &[ProtoPort], end: End, direction: PolicyType) -> bool {
        let far = match direction {
            PolicyType::Ingress => self.end_of_packet(End::Source).0,
            PolicyType::Egress => self.end_of_packet(End::Destination).0,
        };
        let port = self.end_of_packet(end).1;
        ports.iter().any(|open| {
            open.protocol() == Some(self.packet.protocol())
                && Some(open.port) == port
                && open.net.is_none_or(|net| net.contains(far))
        })
    }
}
