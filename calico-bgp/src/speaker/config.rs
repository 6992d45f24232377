//! What a speaker and its peers are told to do.

mod bounds;

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use calico_model::{AsNumber, Community, RouterId};

pub use bounds::{DynamicPeers, MaxPrefixes, WhenExceeded};

use crate::bfd::BfdConfig;
use crate::family::FamilySet;
use crate::filter::{ChangeId, Policy, PrefixSet, Program, Route, Turn, Verdict};
use crate::session::{Initiation, Peering, Roles};
use crate::wire::open::{AddPath, Role};
use crate::wire::{Attributes, HoldTime};

/// The highest LOCAL_PREF that stands for a kernel metric: a metric is `METRIC_BASE - LOCAL_PREF`.
pub const METRIC_BASE: u32 = 0x7fff_ffff;
/// The LOCAL_PREF of a Calico route of normal priority, metric 1024.
pub const NORMAL_LOCAL_PREF: u32 = METRIC_BASE - 1024;

/// Whether a speaker takes up the routes of an earlier one on the same machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// Nothing is in the kernel: the machine or the configuration is new.
    #[default]
    Fresh,
    /// The kernel still forwards by an earlier speaker's routes: peers are told so, and nothing is chosen or told
    /// before they have sent theirs (RFC 4724 section 4.1).
    Recovering,
}

/// A speaker's own settings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpeakerConfig {
    /// The AS number.
    pub local_as: AsNumber,
    /// The identifier, unique in the AS.
    pub router_id: RouterId,
    /// The cluster this speaker reflects for (RFC 4456); without one the router id serves.
    pub cluster_id: Option<Ipv4Addr>,
    /// Whether an earlier speaker's routes are still in the kernel.
    pub start: Start,
    /// How long a recovering speaker waits for its peers' routes at most.
    pub deferral: Duration,
    /// How long a recovering speaker waits for peers that do not even connect: a peer that is down must not hold up
    /// the others.
    pub deferral_unreached: Duration,
    /// The LOCAL_PREF given to routes that are told without one, as those from other ASes are.
    pub default_local_pref: u32,
    /// The shortest time between two rounds of telling changes; the first change is told at once. Every thousand
    /// established peers add 25 ms, because a round costs as much as it has peers to write to.
    pub batching: Duration,
    /// Makes the jitter of the timers repeatable.
    pub seed: u64,
}

impl SpeakerConfig {
    /// Makes the settings of a speaker that starts afresh.
    #[must_use]
    pub fn new(local_as: AsNumber, router_id: RouterId) -> Self {
        Self {
            local_as,
            router_id,
            cluster_id: None,
            start: Start::Fresh,
            deferral: Duration::from_secs(60),
            deferral_unreached: Duration::from_secs(12),
            default_local_pref: NORMAL_LOCAL_PREF,
            batching: Duration::from_millis(20),
            seed: u64::from(u32::from(router_id.addr())),
        }
    }

    pub(crate) fn cluster(&self) -> Ipv4Addr {
        self.cluster_id.unwrap_or(self.router_id.addr())
    }
}

/// Whether routes of the own AS are passed on to a peer of the own AS (RFC 4456).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Reflection {
    /// No: an ordinary peer.
    #[default]
    NonClient,
    /// Yes: the peer is our client.
    Client,
}

/// Which next hop a peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum NextHopMode {
    /// Our address for routes that begin here and towards other ASes; otherwise the one received.
    #[default]
    Auto,
    /// Our address, on reflected routes too: what goes by them then comes through us (RFC 4456 section 10 would rather have
    /// those left alone).
    Own,
    /// The one received, even towards other ASes.
    Keep,
}

/// What passes between us and a peer in one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Exchange {
    /// Nobody said: everything inside our AS, and nothing to or from another (RFC 8212).
    #[default]
    Unsaid,
    /// Everything.
    Everything,
    /// What a program lets pass.
    Filtered(Policy),
}

impl Exchange {
    /// Returns what lets nothing pass, because somebody said so.
    #[must_use]
    pub fn nothing() -> Self {
        Self::Filtered(Policy::new(Program::closed()))
    }

    /// Decides about a route. `own` holds the blocks of this node; what must be known of the route is asked for only
    /// where it matters.
    pub(crate) fn decide<'a>(
        &self,
        peering: Peering,
        route: impl FnOnce() -> Route<'a>,
        own: &PrefixSet,
    ) -> Verdict {
        match self {
            Self::Unsaid if peering == Peering::External => Verdict::LeaveOut,
            Self::Unsaid | Self::Everything => Verdict::Pass(ChangeId::NONE),
            Self::Filtered(policy) => policy.program().decide(&route(), own),
        }
    }

    /// Returns what it means for routes that were taken by this that another takes its place.
    fn turn_to(&self, new: &Self) -> Turn {
        match (self, new) {
            (Self::Filtered(old), Self::Filtered(now)) => old.program().turn_to(now.program()),
            _ if self == new => Turn::Same,
            _ => Turn::Other,
        }
    }

    /// Reports whether nothing passes, whatever it is.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Filtered(policy) if policy.program().is_closed())
    }

    /// Reports whether some routes are changed by it.
    fn changes_some(&self) -> bool {
        matches!(self, Self::Filtered(policy) if policy.program().changes_some())
    }

    /// Reports whether attributes may be what this has made of others.
    pub(crate) fn may_have_changed(&self, attributes: &Attributes) -> bool {
        matches!(self, Self::Filtered(policy) if policy.program().may_have_changed(attributes))
    }

    /// Changes the attributes of a route that passes.
    pub(crate) fn apply(&self, change: ChangeId, attributes: &mut Attributes) {
        if let Self::Filtered(policy) = self {
            policy.program().apply(change, attributes);
        }
    }
}

/// Whether routes outlive the restart time of the peer that told them, as a last resort (RFC 9494). It works only beside
/// graceful restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum LongLived {
    /// No: routes go when the restart time is over.
    Off,
    /// The peer's routes are kept for as long as it asks, and routes that others have kept are taken from it and told to
    /// it. It is not asked to keep ours.
    #[default]
    Aware,
    /// The same, and the peer is asked to keep ours for so many seconds, at most 16,777,215.
    For(u32),
}

/// What becomes of routes whose AS path holds a set of numbers in no order, which can hide where they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum AsSets {
    /// They are treated as withdrawn (RFC 9774 section 3).
    #[default]
    Refuse,
    /// They are taken.
    Accept,
}

/// How far away a peer may be, as far as IP's time to live says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Distance {
    /// Any number of hops, as Calico's peers are.
    #[default]
    Any,
    /// Exactly these many hops at most, checked by the time to live (GTSM, RFC 5082).
    Within(u8),
}

/// A TCP MD5 key (RFC 2385). Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<str>);

impl Password {
    /// Makes a key, or `None` when it is empty or longer than the kernel's 80 octets.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (1..=80).contains(&text.len()).then(|| Self(text.into()))
    }

    /// Returns the octets to sign with.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerConfig {
    /// Its address, which is also how it is told from others.
    pub address: IpAddr,
    /// The TCP port it listens on.
    pub port: u16,
    /// What it is called in status, such as `Mesh_172_16_6_11`.
    pub name: String,
    /// Its AS number.
    pub remote_as: AsNumber,
    /// Our AS number towards it, which may be another than the speaker's ("local AS"): the peer sees this one and only this
    /// one, and decides by it whether we are in its AS.
    pub local_as: AsNumber,
    /// Our address towards it; without one the kernel chooses.
    pub local_address: Option<IpAddr>,
    /// Our address of the other family, as next hop for its routes. Routes that lead to it are not taken.
    pub other_next_hop: Option<IpAddr>,
    /// Who dials.
    pub initiation: Initiation,
    /// The hold time we offer.
    pub hold_time: HoldTime,
    /// How often an idle session says that it is alive; without a time, and at the least, a third of the hold time that
    /// both sides agree on.
    pub keepalive: Option<Duration>,
    /// The time between two dialings.
    pub connect_retry: Duration,
    /// The families we exchange.
    pub families: FamilySet,
    /// Whether several paths for one prefix are offered to it, taken from it, or both (RFC 7911).
    pub add_path: AddPath,
    /// Whether it is a client of our reflector.
    pub reflection: Reflection,
    /// Which next hop it is told.
    pub next_hop: NextHopMode,
    /// The TCP MD5 key.
    pub password: Option<Password>,
    /// How far away it may be.
    pub distance: Distance,
    /// How long it shall keep our routes while we restart, in seconds; 0 offers no graceful restart.
    pub restart_time: u16,
    /// Whether routes outlive the restart time.
    pub long_lived: LongLived,
    /// How long it may take nothing of what waits for it (RFC 9687); without a time, the longer of eight minutes and
    /// twice the hold time. Of a time that is not longer than the hold time, twice the hold time counts.
    pub send_hold: Option<Duration>,
    /// How many prefixes are taken from it.
    pub max_prefixes: Option<MaxPrefixes>,
    /// Whether it is watched by BFD, which notices in a fraction of a second that packets no longer reach it.
    pub bfd: Option<BfdConfig>,
    /// What becomes of its routes with AS sets.
    pub as_sets: AsSets,
    /// How often our AS number towards it may be in the paths it tells.
    pub allow_own_as: u8,
    /// Communities put on every route told to it.
    pub add_communities: Vec<Community>,
    /// The LOCAL_PREF of routes that it tells without one, as it does from another AS; without it the speaker's.
    pub default_local_pref: Option<u32>,
    /// Which of its routes are taken.
    pub import: Exchange,
    /// Which routes it is told.
    pub export: Exchange,
    /// What we are to it, if it is in another AS (RFC 9234).
    pub role: Option<Role>,
    /// Whether it must say its role too.
    pub roles: Roles,
}

impl PeerConfig {
    /// Makes a peer with Calico's settings: both sides may dial, hold time 240 s, the family of the address, graceful
    /// restart of 120 s. Everything passes both ways, even to and from other ASes, which RFC 8212 wants said: set
    /// [`PeerConfig::import`] and [`PeerConfig::export`] to [`Exchange::Unsaid`] for its default.
    #[must_use]
    pub fn new(address: IpAddr, remote_as: AsNumber, local_as: AsNumber) -> Self {
        Self {
            address,
            port: 179,
            name: address.to_string(),
            remote_as,
            local_as,
            local_address: None,
            other_next_hop: None,
            initiation: Initiation::Active,
            hold_time: HoldTime::CALICO,
            keepalive: None,
            connect_retry: Duration::from_secs(5),
            families: match address {
                IpAddr::V4(_) => FamilySet::V4,
                IpAddr::V6(_) => FamilySet::V6,
            },
            add_path: AddPath::Neither,
            reflection: Reflection::NonClient,
            next_hop: NextHopMode::Auto,
            password: None,
            distance: Distance::Any,
            restart_time: 120,
            long_lived: LongLived::Aware,
            send_hold: None,
            max_prefixes: None,
            bfd: None,
            as_sets: AsSets::Refuse,
            allow_own_as: 0,
            add_communities: Vec::new(),
            default_local_pref: None,
            import: Exchange::Everything,
            export: Exchange::Everything,
            role: None,
            roles: Roles::Lenient,
        }
    }

    /// Returns whether the peer is in our AS.
    #[must_use]
    pub fn peering(&self) -> Peering {
        if self.local_as == self.remote_as { Peering::Internal } else { Peering::External }
    }

    /// Returns what it means for routes that were taken under `self` that `new` counts.
    pub(crate) fn turn_to(&self, new: &PeerConfig) -> Turn {
        let as_sets = match (self.as_sets, new.as_sets) {
            (AsSets::Refuse, AsSets::Accept) => Turn::Other,
            (AsSets::Accept, AsSets::Refuse) => Turn::Less,
            (AsSets::Refuse, AsSets::Refuse) | (AsSets::Accept, AsSets::Accept) => Turn::Same,
        };
        let own_as = match new.allow_own_as.cmp(&self.allow_own_as) {
            // A number that a rule has put there can no longer be told from one that the peer said.
            Ordering::Less if self.import.changes_some() => Turn::Freed,
            Ordering::Less => Turn::Less,
            Ordering::Equal => Turn::Same,
            Ordering::Greater => Turn::Other,
        };
        let preference =
            if self.default_local_pref == new.default_local_pref { Turn::Same } else { Turn::Other };
        let next_hop = match self.other_next_hop {
            same if same == new.other_next_hop => Turn::Same,
            None => Turn::Less,
            // What led to the old one was refused.
            Some(_) => Turn::Other,
        };
        self.import.turn_to(&new.import).max(as_sets).max(own_as).max(preference).max(next_hop)
    }

    /// Reports whether a session made with `self` cannot go on under `new`.
    pub(crate) fn requires_reset(&self, new: &PeerConfig) -> bool {
        let soft = |config: &PeerConfig| {
            let config = config.clone();
            PeerConfig {
                name: String::new(),
                initiation: Initiation::Active,
                connect_retry: Duration::ZERO,
                keepalive: None,
                max_prefixes: None,
                allow_own_as: 0,
                send_hold: None,
                bfd: None,
                as_sets: AsSets::Refuse,
                port: 0,
                next_hop: NextHopMode::Auto,
                reflection: Reflection::NonClient,
                add_communities: Vec::new(),
                other_next_hop: None,
                default_local_pref: None,
                import: Exchange::Unsaid,
                export: Exchange::Unsaid,
                ..config
            }
        };
        soft(self) != soft(new)
    }
}

/// Whether a prefix that begins here stands for more than itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extent {
    /// It is one route.
    #[default]
    Itself,
    /// It is a block of this node: ordinary routes inside it, whoever told them, are not passed on where a
    /// [`Policy`](crate::filter::Policy) decides.
    Block,
}

/// How a prefix that begins here is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origination {
    /// The LOCAL_PREF towards our own AS.
    pub local_pref: u32,
    /// The communities it carries.
    pub communities: Vec<Community>,
    /// The next hop, where it is another than our own address.
    pub next_hop: Option<IpAddr>,
    /// Whether it stands for what is inside it.
    pub extent: Extent,
}

impl Default for Origination {
    fn default() -> Self {
        Self {
            local_pref: NORMAL_LOCAL_PREF,
            communities: Vec::new(),
            next_hop: None,
            extent: Extent::Itself,
        }
    }
}

impl Origination {
    /// The address that stands for "ours" until a peer is told the route.
    pub(crate) fn unset_next_hop(family: calico_model::Family) -> IpAddr {
        match family {
            calico_model::Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            calico_model::Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}
