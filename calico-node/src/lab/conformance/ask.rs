//! Probes answered without packets: by the resources themselves, or by the rules that the compiler makes of them.

use calico_model::{InterfaceName, NodeName, Snapshot};
use calico_policy::{Packet, Ruleset, Verdict, compile, evaluate, simulate, way};

use super::cases::{Expected, Step};
use super::scene::{Placement, host_name};

/// The interface by which hosts reach one another.
pub(super) const UPLINK: &str = "eth0";

/// What there is at a step, ready to be asked.
pub(super) struct World<'s> {
    pub(super) step: &'s Step,
    pub(super) snapshot: Snapshot,
    placement: &'s Placement,
    uplink: InterfaceName,
}

/// Who answers when no packet is sent.
pub(super) enum Oracle {
    /// The resources.
    Resources,
    /// The rules of each host.
    Rules(Vec<(NodeName, Ruleset)>),
}

impl<'s> World<'s> {
    pub(super) fn of(step: &'s Step, placement: &'s Placement) -> Result<Self, String> {
        let uplink = UPLINK.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { step, snapshot: step.scene.snapshot(placement)?, placement, uplink })
    }

    /// Compiles the rules of each host.
    pub(super) fn rules(&self) -> Result<Oracle, String> {
        Ok(Oracle::Rules(compiled(&self.snapshot, self.placement)?))
    }

    /// Returns the probe's packet as each host on its way sees it.
    pub(super) fn way(&self, probe: &Expected) -> Result<Vec<Packet>, String> {
        let end = |name: &str| {
            let end = self.step.scene.end(name, self.placement);
            end.map(|end| end.ip()).ok_or_else(|| format!("a probe names {name}, which is not there"))
        };
        let (from, to) = (end(&probe.from)?, end(&probe.to)?);
        Ok(way(&self.snapshot, from, to, probe.service.transport(), &self.uplink))
    }

    /// Asks for a verdict: the packet passes when every host lets it.
    pub(super) fn ask(&self, oracle: &Oracle, probe: &Expected) -> Result<Verdict, String> {
        let denied = |packet: &Packet| match oracle {
            Oracle::Resources => evaluate(&self.snapshot, packet).outcome.verdict == Verdict::Deny,
            Oracle::Rules(rules) => {
                let of_host = rules.iter().find(|(node, _)| *node == packet.node);
                of_host.is_some_and(|(_, rules)| simulate(rules, packet).verdict == Verdict::Deny)
            }
        };
        let denied = self.way(probe)?.iter().any(denied);
        Ok(if denied { Verdict::Deny } else { Verdict::Allow })
    }

    /// Says why the resources have it as they do.
    pub(super) fn explain(&self, probe: &Expected) -> String {
        let way = match self.way(probe) {
            Ok(way) => way,
            Err(problem) => return problem,
        };
        let traces = way.iter().map(|packet| format!("{packet}: {}", evaluate(&self.snapshot, packet)));
        traces.collect::<Vec<_>>().join("\n")
    }
}

/// Compiles the rules of each host of a snapshot.
pub(super) fn compiled(
    snapshot: &Snapshot,
    placement: &Placement,
) -> Result<Vec<(NodeName, Ruleset)>, String> {
    let hosts = 0..placement.hosts.count();
    let each = hosts.map(|host| {
        let node: NodeName = host_name(host).parse().map_err(|error| format!("{error}"))?;
        let rules = compile(snapshot, &node);
        Ok((node, rules))
    });
    each.collect()
}
