//! What a speaker says that it can do (RFC 5492), one capability after another: [code, 1] [length, 1] [value].

use std::collections::BTreeSet;

use calico_model::{AsNumber, Family};

use super::afi;
use crate::family::{FamilySet, PerFamily};
use crate::wire::nlri::PathIds;
use crate::wire::reader::Reader;

/// A capability that is either there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Tells everything again when asked (RFC 2918).
    RouteRefresh,
    /// Marks the beginning and end of such a telling (RFC 7313).
    EnhancedRouteRefresh,
    /// Takes messages of up to 65,535 octets (RFC 8654).
    ExtendedMessages,
    /// Takes IPv4 routes with an IPv6 next hop (RFC 8950).
    ExtendedNextHop,
}

/// Whether a speaker has just started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartState {
    /// No, or it remembers nothing.
    Fresh,
    /// Yes: do not wait for its End-of-RIB (RFC 4724 section 3).
    Restarting,
}

/// Whether packets kept flowing while the speaker was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// Its kernel still has the routes.
    Preserved,
    /// Its kernel has lost them.
    Lost,
}

/// Whether graceful restart also covers sessions ended by a NOTIFICATION (RFC 8538).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNotification {
    /// Routes go at once.
    Drop,
    /// Routes stay, unless the notification is a hard reset.
    Keep,
}

/// The graceful restart capability (RFC 4724).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GracefulRestart {
    /// How long to wait for the session to come back, in seconds, at most 4,095.
    pub restart_time: u16,
    /// Whether the speaker has just started again.
    pub state: RestartState,
    /// Whether a NOTIFICATION counts as a restart.
    pub on_notification: OnNotification,
    /// The families covered, each with its forwarding state.
    pub families: PerFamily<Option<Forwarding>>,
}

/// The long-lived graceful restart capability (RFC 9494 section 3), which counts only beside the one above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LongLivedRestart {
    /// The families whose routes shall outlive the restart time.
    pub families: PerFamily<Option<LongLivedFamily>>,
}

/// What a speaker says of one family's routes after the restart time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongLivedFamily {
    /// Whether packets kept flowing while the speaker was away.
    pub forwarding: Forwarding,
    /// How long to keep the routes, in seconds, at most 16,777,215.
    pub stale_time: u32,
}

/// What a speaker offers for path identifiers in one family (RFC 7911).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddPath {
    /// Nothing.
    #[default]
    Neither,
    /// To receive several paths.
    Receive,
    /// To send several paths.
    Send,
    /// Both.
    Both,
}

impl AddPath {
    fn code(self) -> u8 {
        match self {
            Self::Neither => 0,
            Self::Receive => 1,
            Self::Send => 2,
            Self::Both => 3,
        }
    }

    fn of(code: u8) -> Self {
        match code {
            1 => Self::Receive,
            2 => Self::Send,
            3 => Self::Both,
            _ => Self::Neither,
        }
    }

    /// Decides whether prefixes from `sender` to `receiver` carry identifiers.
    #[must_use]
    pub fn between(sender: Self, receiver: Self) -> PathIds {
        match (sender, receiver) {
            (Self::Send | Self::Both, Self::Receive | Self::Both) => PathIds::Present,
            _ => PathIds::Absent,
        }
    }
}

/// What a speaker is to its neighbour in another AS (RFC 9234 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Its provider of transit.
    Provider,
    /// A route server.
    RouteServer,
    /// A client of a route server.
    RouteServerClient,
    /// Its customer.
    Customer,
    /// Its equal: each tells its own and its customers' routes.
    Peer,
    /// A number that nobody defined; it faces no role.
    Unassigned(u8),
}

impl Role {
    fn code(self) -> u8 {
        match self {
            Self::Provider => 0,
            Self::RouteServer => 1,
            Self::RouteServerClient => 2,
            Self::Customer => 3,
            Self::Peer => 4,
            Self::Unassigned(code) => code,
        }
    }

    fn of(code: u8) -> Self {
        match code {
            0 => Self::Provider,
            1 => Self::RouteServer,
            2 => Self::RouteServerClient,
            3 => Self::Customer,
            4 => Self::Peer,
            code => Self::Unassigned(code),
        }
    }

    /// Reports whether two neighbours may have these roles (RFC 9234 section 4.2).
    #[must_use]
    pub fn faces(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Provider, Self::Customer)
                | (Self::Customer, Self::Provider)
                | (Self::RouteServer, Self::RouteServerClient)
                | (Self::RouteServerClient, Self::RouteServer)
                | (Self::Peer, Self::Peer)
        )
    }
}

/// What a speaker can do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// The families it exchanges; `None` when it did not say, which means IPv4 (RFC 4760).
    pub families: Option<FamilySet>,
    /// Its AS number in four octets (RFC 6793).
    pub four_octet_as: Option<AsNumber>,
    /// The capabilities without a value.
    pub features: BTreeSet<Feature>,
    /// Graceful restart.
    pub graceful_restart: Option<GracefulRestart>,
    /// Graceful restart for longer than the restart time.
    pub long_lived: Option<LongLivedRestart>,
    /// Several paths for one prefix.
    pub add_path: PerFamily<AddPath>,
    /// What it is to its neighbour.
    pub role: Option<Role>,
}

const MAX_STALE_TIME: u32 = 0xff_ffff;

mod code {
    pub(super) const MULTIPROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(super) const EXTENDED_MESSAGES: u8 = 6;
    pub(super) const ROLE: u8 = 9;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_OCTET_AS: u8 = 65;
    pub(super) const ADD_PATH: u8 = 69;
    pub(super) const ENHANCED_ROUTE_REFRESH: u8 = 70;
    pub(super) const LONG_LIVED: u8 = 71;
}

impl Capabilities {
    pub(super) fn encode(&self) -> Vec<u8> {
        use code::*;
        let mut out = Vec::new();
        let mut put = |kind, value: &[u8]| {
            out.extend_from_slice(&[kind, value.len() as u8]);
            out.extend_from_slice(value);
        };
        for family in self.families.into_iter().flat_map(FamilySet::iter) {
            put(MULTIPROTOCOL, &[0, afi(family), 0, 1]);
        }
        for feature in &self.features {
            match feature {
                Feature::RouteRefresh => put(ROUTE_REFRESH, &[]),
                Feature::EnhancedRouteRefresh => put(ENHANCED_ROUTE_REFRESH, &[]),
                Feature::ExtendedMessages => put(EXTENDED_MESSAGES, &[]),
                Feature::ExtendedNextHop => put(EXTENDED_NEXT_HOP, &[0, 1, 0, 1, 0, 2]),
            }
        }
        if let Some(role) = self.role {
            put(ROLE, &[role.code()]);
        }
        if let Some(gr) = self.graceful_restart {
            let restarting = if gr.state == RestartState::Restarting { 0x8000 } else { 0 };
            let keep = if gr.on_notification == OnNotification::Keep { 0x4000 } else { 0 };
            let mut value = (restarting | keep | gr.restart_time.min(0xfff)).to_be_bytes().to_vec();
            for family in Family::ALL {
                if let Some(forwarding) = gr.families[family] {
                    let preserved = if forwarding == Forwarding::Preserved { 0x80 } else { 0 };
                    value.extend_from_slice(&[0, afi(family), 1, preserved]);
                }
            }
            put(GRACEFUL_RESTART, &value);
        }
        if let Some(long_lived) = self.long_lived {
            let mut value = Vec::new();
            for family in Family::ALL {
                if let Some(LongLivedFamily { forwarding, stale_time }) = long_lived.families[family] {
                    let preserved = if forwarding == Forwarding::Preserved { 0x80 } else { 0 };
                    let [_, high, middle, low] = stale_time.min(MAX_STALE_TIME).to_be_bytes();
                    value.extend_from_slice(&[0, afi(family), 1, preserved, high, middle, low]);
                }
            }
            put(LONG_LIVED, &value);
        }
        if let Some(asn) = self.four_octet_as {
            put(FOUR_OCTET_AS, &asn.get().to_be_bytes());
        }
        let add_path: Vec<u8> = Family::ALL
            .into_iter()
            .filter(|family| self.add_path[*family] != AddPath::Neither)
            .flat_map(|family| [0, afi(family), 1, self.add_path[family].code()])
            .collect();
        if !add_path.is_empty() {
            put(ADD_PATH, &add_path);
        }
        out
    }

    /// Adds the capabilities of one parameter; a capability of the wrong length is passed over. Reports whether a
    /// four-octet AS number of 0 was among them; `None` when a capability runs past the parameter.
    pub(super) fn add(&mut self, octets: &[u8]) -> Option<bool> {
        use code::*;
        let mut zero_as = false;
        let mut reader = Reader::new(octets);
        while !reader.is_empty() {
            let kind = reader.u8()?;
            let len = reader.u8()?;
            let value = reader.take(len.into())?;
            match (kind, value) {
                (MULTIPROTOCOL, [0, afi, _, 1]) => {
                    let families = self.families.get_or_insert_default();
                    if let Some(family) = family(*afi) {
                        families.insert(family);
                    }
                }
                (MULTIPROTOCOL, [_, _, _, _]) => {
                    self.families.get_or_insert_default();
                }
                (ROUTE_REFRESH, []) => self.offer(Feature::RouteRefresh),
                (ENHANCED_ROUTE_REFRESH, []) => self.offer(Feature::EnhancedRouteRefresh),
                (EXTENDED_MESSAGES, []) => self.offer(Feature::ExtendedMessages),
                (EXTENDED_NEXT_HOP, list)
                    if list.chunks_exact(6).any(|entry| entry == [0, 1, 0, 1, 0, 2]) =>
                {
                    self.offer(Feature::ExtendedNextHop);
                }
                (ROLE, [code]) => {
                    // Two roles that differ face nothing (RFC 9234 section 4.2).
                    let role = Role::of(*code);
                    let agrees = self.role.is_none_or(|held| held == role);
                    self.role = Some(if agrees { role } else { Role::Unassigned(u8::MAX) });
                }
                (GRACEFUL_RESTART, [high, low, list @ ..]) => {
                    self.graceful_restart = Some(graceful_restart(u16::from_be_bytes([*high, *low]), list));
                }
                (LONG_LIVED, list) => self.long_lived = Some(long_lived(list)),
                (FOUR_OCTET_AS, [a, b, c, d]) => {
                    let number = u32::from_be_bytes([*a, *b, *c, *d]);
                    zero_as |= number == 0;
                    self.four_octet_as = AsNumber::new(number);
                }
                (ADD_PATH, list) => {
                    for entry in list.chunks_exact(4) {
                        if let ([0, _, 1, code], Some(family)) = (entry, family(entry[1])) {
                            self.add_path[family] = AddPath::of(*code);
                        }
                    }
                }
                _ => {}
            }
        }
        Some(zero_as)
    }

    fn offer(&mut self, feature: Feature) {
        self.features.insert(feature);
    }

    /// Returns the families that are exchanged when the peer says this.
    #[must_use]
    pub fn spoken_families(&self) -> FamilySet {
        self.families.unwrap_or(FamilySet::V4)
    }
}

fn graceful_restart(word: u16, list: &[u8]) -> GracefulRestart {
    let mut families = PerFamily::default();
    for entry in list.chunks_exact(4) {
        if let (0, Some(family), 1) = (entry[0], family(entry[1]), entry[2]) {
            let preserved = entry[3] & 0x80 != 0;
            families[family] = Some(if preserved { Forwarding::Preserved } else { Forwarding::Lost });
        }
    }
    GracefulRestart {
        restart_time: word & 0xfff,
        state: if word & 0x8000 != 0 { RestartState::Restarting } else { RestartState::Fresh },
        on_notification: if word & 0x4000 != 0 { OnNotification::Keep } else { OnNotification::Drop },
        families,
    }
}

fn long_lived(list: &[u8]) -> LongLivedRestart {
    let mut families = PerFamily::default();
    for entry in list.chunks_exact(7) {
        if let ([0, _, 1, flags, high, middle, low], Some(family)) = (entry, family(entry[1])) {
            let forwarding = if flags & 0x80 != 0 { Forwarding::Preserved } else { Forwarding::Lost };
            let stale_time = u32::from_be_bytes([0, *high, *middle, *low]);
            families[family] = Some(LongLivedFamily { forwarding, stale_time });
        }
    }
    LongLivedRestart { families }
}

fn family(afi: u8) -> Option<Family> {
    Family::ALL.into_iter().find(|family| super::afi(*family) == afi)
}
