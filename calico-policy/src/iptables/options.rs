//! What iptables is asked to do beside the rules themselves.

use std::fmt;

use calico_model::InterfaceName;
use calico_model::resource::felix::{
    AllowAction, ChainInsertMode, EndpointToHostAction, FelixConfiguration, IptablesBackend, NftablesMode,
};

/// One of the two ways in which the kernel takes iptables' rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// The old one, with a lock and tables that are replaced whole.
    Legacy,
    /// The one over nf_tables.
    Nft,
}

/// Where our rule stands in a chain of the kernel's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// Before the rules of others.
    First,
    /// After the rules that were there when it was added.
    Last,
}

/// Which of the kernel's packet filters a node uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// nftables.
    Nftables,
    /// iptables, in one variant.
    Iptables(Variant),
    /// iptables, in the variant that others on the node use.
    IptablesAsOthers,
}

/// The bits of packet marks that are ours. Every other bit is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Accepted by host policy that came before its later stages.
    pub(super) early: u32,
    /// Accepted by the stage that is run.
    pub(super) stage: u32,
    /// Accepted by some stage of the hook.
    pub(super) hook: u32,
    /// What a chain of conditions found to hold.
    pub(super) holds: u32,
}

/// How a ruleset becomes rules of iptables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The bits of marks that are used.
    pub marks: Marks,
    /// Whether what policy allows is let through by the table `filter`, or the rules of others decide.
    pub filter_allow: AllowAction,
    /// The same of the table `mangle`.
    pub mangle_allow: AllowAction,
    /// The interfaces whose allowed packets to the node itself are left to the rules of others, by what their names begin with.
    pub to_host_by_others: Vec<InterfaceName>,
    /// Where our rules stand among those of others.
    pub insertion: Insertion,
}

impl Marks {
    /// Takes the four lowest bits of a mask; `None` when it has fewer.
    #[must_use]
    pub fn of(mask: u32) -> Option<Self> {
        let mut bits = (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| mask & bit != 0);
        Some(Self { early: bits.next()?, stage: bits.next()?, hook: bits.next()?, holds: bits.next()? })
    }

    /// The bits that mean something at one hook only.
    pub(super) fn of_hook(self) -> u32 {
        self.stage | self.hook | self.holds
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self::of(0xffff_0000).expect("a mask of sixteen bits")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            marks: Marks::default(),
            filter_allow: AllowAction::Accept,
            mangle_allow: AllowAction::Accept,
            to_host_by_others: Vec::new(),
            insertion: Insertion::First,
        }
    }
}

impl Options {
    /// Reads them from a node's configuration. A mark mask of fewer than four bits is not used.
    #[must_use]
    pub fn of(felix: &FelixConfiguration) -> Self {
        let to_host = felix.default_endpoint_to_host_action == Some(EndpointToHostAction::Return);
        Self {
            marks: felix.iptables_mark_mask.and_then(Marks::of).unwrap_or_default(),
            filter_allow: felix.iptables_filter_allow_action.unwrap_or(AllowAction::Accept),
            mangle_allow: felix.iptables_mangle_allow_action.unwrap_or(AllowAction::Accept),
            to_host_by_others: if to_host { crate::local::prefixes(felix) } else { Vec::new() },
            insertion: match felix.chain_insert_mode {
                Some(ChainInsertMode::Append) => Insertion::Last,
                Some(ChainInsertMode::Insert) | None => Insertion::First,
            },
        }
    }
}

impl Choice {
    /// Reads it from a node's configuration: nftables, unless `nftablesMode` is `Disabled`; then what `iptablesBackend` says.
    #[must_use]
    pub fn of(felix: &FelixConfiguration) -> Self {
        match (felix.nftables_mode, felix.iptables_backend) {
            (None | Some(NftablesMode::Auto | NftablesMode::Enabled), _) => Self::Nftables,
            (Some(NftablesMode::Disabled), Some(IptablesBackend::Legacy)) => Self::Iptables(Variant::Legacy),
            (Some(NftablesMode::Disabled), Some(IptablesBackend::Nft)) => Self::Iptables(Variant::Nft),
            (Some(NftablesMode::Disabled), None | Some(IptablesBackend::Auto)) => Self::IptablesAsOthers,
        }
    }
}

impl Variant {
    /// Both.
    pub const ALL: [Variant; 2] = [Variant::Legacy, Variant::Nft];

    /// Returns the other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Variant::Legacy => Variant::Nft,
            Variant::Nft => Variant::Legacy,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Variant::Legacy => "legacy",
            Variant::Nft => "nft",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pe28_marks_are_the_lowest_bits_of_the_mask() {
        assert_eq!(
            Marks::of(0x00f0_0100),
            Some(Marks { early: 0x100, stage: 0x10_0000, hook: 0x20_0000, holds: 0x40_0000 })
        );
        assert_eq!(Marks::of(0b1110), None);
        assert_eq!(Marks::default().early, crate::text::ACCEPTED);
    }

    #[test]
    fn the_configuration_chooses_the_packet_filter() {
        let choice = |mode, backend| {
            let mut felix = FelixConfiguration::new();
            felix.nftables_mode = mode;
            felix.iptables_backend = backend;
            Choice::of(&felix)
        };
        assert_eq!(choice(None, None), Choice::Nftables);
        assert_eq!(choice(Some(NftablesMode::Auto), Some(IptablesBackend::Legacy)), Choice::Nftables);
        let off = Some(NftablesMode::Disabled);
        assert_eq!(choice(off, Some(IptablesBackend::Legacy)), Choice::Iptables(Variant::Legacy));
        assert_eq!(choice(off, Some(IptablesBackend::Nft)), Choice::Iptables(Variant::Nft));
        assert_eq!(choice(off, Some(IptablesBackend::Auto)), Choice::IptablesAsOthers);
    }
}
