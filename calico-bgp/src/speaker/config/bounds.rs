//! How much a peer may tell, and how many peers may come unannounced.

use std::time::Duration;

use calico_model::Cidr;

use super::PeerConfig;

/// How many prefixes of one family are taken from a peer (RFC 4271 section 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MaxPrefixes {
    /// The most that are taken.
    pub limit: u32,
    /// At which share of the limit a warning is given, in percent.
    pub warn_at: u8,
    /// What happens to a peer that tells more.
    pub when_exceeded: WhenExceeded,
}

impl MaxPrefixes {
    /// Makes a limit that ends the session for good, with a warning at 75 percent.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { limit, warn_at: 75, when_exceeded: WhenExceeded::Stop }
    }

    /// Returns how many prefixes call for a warning.
    pub(crate) fn warning(&self) -> u32 {
        let share = u64::from(self.limit) * u64::from(self.warn_at.min(100)) / 100;
        u32::try_from(share).unwrap_or(self.limit)
    }
}

/// What happens to a peer that tells too many prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenExceeded {
    /// A warning, and everything is taken.
    Warn,
    /// The session ends until [`Speaker::reset_peer`](crate::Speaker::reset_peer) or a higher limit.
    Stop,
    /// The session ends and begins anew after this time.
    RestartAfter(Duration),
}

/// Peers that need not be named one by one: whoever connects from a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicPeers {
    /// Where they come from. The longest prefix that holds a peer's address counts; a peer that is named comes before all
    /// of them.
    pub prefix: Cidr,
    /// How many of them there may be at once; others are refused. With 0 nobody may come from the prefix, and not by a
    /// wider one either.
    pub limit: u32,
    /// Their settings. The address is replaced by that of the peer, and nobody is dialed.
    pub settings: PeerConfig,
}
