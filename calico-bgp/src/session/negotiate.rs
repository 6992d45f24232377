//! What two OPENs make together.

use std::str::FromStr;
use std::time::Duration;

use calico_model::{AsNumber, Family, ParseError, RouterId};

use crate::family::{FamilySet, PerFamily};
use crate::wire::open::{AddPath, Feature, GracefulRestart, LongLivedRestart, OnNotification, Role};
use crate::wire::{
    AsWidth, Capabilities, Dialect, HoldTime, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, Notification, Open, PathIds,
};

/// Whether the peer is in the same AS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peering {
    /// iBGP.
    Internal,
    /// eBGP.
    External,
}

/// What is true of a session once both OPENs were exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// How messages are read and written.
    pub dialect: Dialect,
    /// The peer's identifier.
    pub remote_id: RouterId,
    /// The smaller of the two hold times.
    pub hold_time: HoldTime,
    /// The families that both sides exchange.
    pub families: FamilySet,
    /// What the peer said of graceful restart, when we offered it too.
    pub graceful_restart: Option<GracefulRestart>,
    /// What the peer said of long-lived graceful restart, when we understand it too.
    pub long_lived: Option<LongLivedRestart>,
    /// What both sides offered of the capabilities without a value.
    pub features: std::collections::BTreeSet<Feature>,
}

impl Negotiated {
    /// Returns for how many seconds a family's routes outlive the restart time.
    #[must_use]
    pub fn stale_time(&self, family: Family) -> u32 {
        self.long_lived.and_then(|long_lived| long_lived.families[family]).map_or(0, |said| said.stale_time)
    }

    /// Returns how a NOTIFICATION is said to the peer: a hard reset is for those who keep routes after one (RFC 8538 section
    /// 3); others know the plain form only.
    #[must_use]
    pub fn as_said(&self, notification: &Notification) -> Notification {
        match self.graceful_restart {
            Some(GracefulRestart { on_notification: OnNotification::Keep, .. }) => notification.clone(),
            Some(_) | None => notification.unwrapped(),
        }
    }

    /// Reports whether the peer can be asked to tell everything again. Who knows the marks around that knows the request
    /// (RFC 7313 section 3.1), whether or not it said so apart (RFC 2918).
    #[must_use]
    pub fn can_be_asked(&self) -> bool {
        [Feature::RouteRefresh, Feature::EnhancedRouteRefresh]
            .iter()
            .any(|known| self.features.contains(known))
    }

    /// Returns how often a KEEPALIVE is due: a third of the hold time.
    #[must_use]
    pub fn keepalive(&self) -> Option<Duration> {
        self.hold_time.interval().map(|hold| hold / 3)
    }
}

/// What we said of ourselves, and what we expect of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Our AS number on this session.
    pub local_as: AsNumber,
    /// Our identifier.
    pub local_id: RouterId,
    /// The AS number the peer must have.
    pub remote_as: AsNumber,
    /// The hold time we offer.
    pub hold_time: HoldTime,
    /// What we offer.
    pub capabilities: Capabilities,
    /// Whether a peer that does not say its role is refused, where we say ours.
    pub roles: Roles,
}

/// Whether a neighbour in another AS must say its role when we do (RFC 9234 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Roles {
    /// It may be silent.
    #[default]
    Lenient,
    /// It must say a role that faces ours.
    Strict,
}

impl FromStr for Role {
    type Err = ParseError;

    /// Reads a role as RFC 9234 names it: `provider`, `rs` (route server), `rs-client`, `customer` or `peer`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "provider" => Ok(Self::Provider),
            "rs" => Ok(Self::RouteServer),
            "rs-client" => Ok(Self::RouteServerClient),
            "customer" => Ok(Self::Customer),
            "peer" => Ok(Self::Peer),
            _ => Err(ParseError::new(text, "a role: provider, rs, rs-client, customer or peer")),
        }
    }
}

impl Terms {
    /// Returns whether the peer is in the same AS.
    #[must_use]
    pub fn peering(&self) -> Peering {
        if self.local_as == self.remote_as { Peering::Internal } else { Peering::External }
    }

    /// Returns the OPEN that says so.
    #[must_use]
    pub fn open(&self) -> Open {
        Open {
            asn: self.local_as,
            hold_time: self.hold_time,
            router_id: self.local_id,
            capabilities: self.capabilities.clone(),
        }
    }

    /// Meets the peer's OPEN.
    ///
    /// # Errors
    /// The NOTIFICATION to refuse it with (RFC 4271 section 6.2).
    pub fn meet(&self, open: &Open) -> Result<Negotiated, Notification> {
        if open.asn != self.remote_as {
            return Err(Notification::new(Notification::BAD_PEER_AS));
        }
        let peering = self.peering();
        if open.router_id == self.local_id && peering == Peering::Internal {
            return Err(Notification::new(Notification::BAD_IDENTIFIER));
        }
        let (ours, theirs) = (&self.capabilities, &open.capabilities);
        let roles_fit = match (ours.role, theirs.role) {
            (None, _) => true,
            (Some(ours), Some(theirs)) => ours.faces(theirs),
            (Some(_), None) => self.roles == Roles::Lenient,
        };
        if peering == Peering::External && !roles_fit {
            return Err(Notification::new(Notification::ROLE_MISMATCH));
        }
        let families = ours.spoken_families().intersection(theirs.spoken_families());
        if families.is_empty() {
            let data: Vec<u8> = ours
                .spoken_families()
                .iter()
                .flat_map(|f| [1, 4, 0, crate::wire::open::afi(f), 0, 1])
                .collect();
            return Err(Notification::new(Notification::UNSUPPORTED_CAPABILITY).with_data(&data));
        }
        let features: std::collections::BTreeSet<Feature> =
            ours.features.intersection(&theirs.features).copied().collect();
        let wide = ours.four_octet_as.is_some() && theirs.four_octet_as.is_some();
        let path_ids = |sender: PerFamily<AddPath>, receiver: PerFamily<AddPath>| {
            PerFamily::<PathIds>::new(|family: Family| AddPath::between(sender[family], receiver[family]))
        };
        let longest = |hearer: &Capabilities| match hearer.features.contains(&Feature::ExtendedMessages) {
            true => MAX_EXTENDED_MESSAGE,
            false => MAX_MESSAGE,
        };
        Ok(Negotiated {
            dialect: Dialect {
                as_width: if wide { AsWidth::Four } else { AsWidth::Two },
                peering,
                path_ids_in: path_ids(theirs.add_path, ours.add_path),
                path_ids_out: path_ids(ours.add_path, theirs.add_path),
                max_len_in: longest(ours),
                max_len_out: longest(theirs),
            },
            remote_id: open.router_id,
            hold_time: self.hold_time.min(open.hold_time),
            families,
            graceful_restart: ours.graceful_restart.and(theirs.graceful_restart),
            long_lived: ours
                .long_lived
                .and(theirs.long_lived)
                .filter(|_| ours.graceful_restart.is_some() && theirs.graceful_restart.is_some()),
            features,
        })
    }
}
