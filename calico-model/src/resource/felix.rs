//! The agents' parameters.
//!
//! Every parameter of Felix is here under its name, typed, so that a file that was written for it is read as it was meant.
//! What this agent does not serve (eBPF, OpenStack, Windows, WireGuard) is kept and has no effect.

mod bpf;
mod check;
mod parameters;
#[cfg(test)]
mod tests;
mod values;
mod words;

pub use super::duration::GoDuration;
pub use super::severity::Severity;
pub use bpf::{
    BpfAttachType, BpfConnectTime, BpfConntrackLog, BpfConntrackMode, BpfHardening, BpfLogLevel,
    BpfOverlaySource, BpfRpf, BpfScaling, BpfServiceMode, ConntrackTimeouts, Timeout,
};
pub use parameters::FelixConfiguration;
pub use values::{Dscp, HealthTimeout, ProtoPort, TableRange};
pub use words::{
    AllowAction, AwsCheck, ChainInsertMode, ClientAuth, DenyAction, EndpointToHostAction, FlowEvaluation,
    FlowOffload, IptablesBackend, L2Reachability, LoopPrevention, NatExclusions, NftablesMode,
    ProgramClusterRoutes, RouteSource, SourceSpoofing,
};

use super::ipam::Switch;

impl Default for FelixConfiguration {
    fn default() -> Self {
        Self::new()
    }
}

impl FelixConfiguration {
    /// The name of the configuration that is for the whole cluster.
    pub const DEFAULT: &'static str = "default";

    /// Returns the prefixes of workloads' host interfaces; `cali` when unset.
    #[must_use]
    pub fn interface_prefixes(&self) -> Vec<&str> {
        self.interface_prefix
            .as_deref()
            .unwrap_or("cali")
            .split(',')
            .filter(|prefix| !prefix.is_empty())
            .collect()
    }

    /// Returns the UDP port of VXLAN; 4789 when unset.
    #[must_use]
    pub fn vxlan_port(&self) -> u16 {
        self.vxlan_port.unwrap_or(4789)
    }

    /// Reports whether flows that policy has ceased to allow are stopped; so it is when unset.
    #[must_use]
    pub fn reevaluates_flows(&self) -> bool {
        self.flow_reevaluation != Some(Switch::Disabled)
    }

    /// Returns what becomes of what policy denies in the packet filter that the node uses: nftables, unless `nftablesMode` is
    /// `Disabled`. `Drop` when unset.
    #[must_use]
    pub fn filter_deny_action(&self) -> DenyAction {
        let action = match self.nftables_mode {
            Some(NftablesMode::Disabled) => self.iptables_filter_deny_action,
            Some(NftablesMode::Auto | NftablesMode::Enabled) | None => self.nftables_filter_deny_action,
        };
        action.unwrap_or(DenyAction::Drop)
    }

    /// Returns the VXLAN network identifier; 4096 when unset.
    #[must_use]
    pub fn vxlan_vni(&self) -> u32 {
        self.vxlan_vni.unwrap_or(4096)
    }
}
