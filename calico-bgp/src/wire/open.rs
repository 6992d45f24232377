//! OPEN: who a speaker is and what it can do (RFC 4271 section 4.2, RFC 5492, RFC 9072).
//!
//! ```text
//! [version 4, 1] [AS, 2] [hold time, 2] [identifier, 4] [length of parameters, 1] [parameters]
//! parameters of RFC 9072: 255, [255, 1] [length, 2], each parameter's length 2 octets wide
//! ```

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use calico_model::{AsNumber, Family, RouterId};

use super::error::{DecodeError, Notification};
use super::nlri::PathIds;
use super::reader::Reader;
use super::{MessageType, begin_message, finish_message};
use crate::family::{FamilySet, PerFamily};

/// A hold time in seconds: zero (no keepalives at all) or at least three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldTime(u16);

impl HoldTime {
    /// What Calico uses unless told otherwise: 240 seconds.
    pub const CALICO: HoldTime = HoldTime(240);
    /// What RFC 4271 suggests: 90 seconds.
    pub const SUGGESTED: HoldTime = HoldTime(90);

    /// Makes a hold time, or `None` for one or two seconds.
    #[must_use]
    pub const fn new(seconds: u16) -> Option<Self> {
        if seconds == 1 || seconds == 2 { None } else { Some(Self(seconds)) }
    }

    /// Returns the seconds.
    #[must_use]
    pub fn seconds(self) -> u16 {
        self.0
    }

    /// Returns how long silence lasts until the session ends, or `None` when silence is allowed.
    #[must_use]
    pub fn interval(self) -> Option<Duration> {
        (self.0 != 0).then(|| Duration::from_secs(self.0.into()))
    }
}

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
    /// Several paths for one prefix.
    pub add_path: PerFamily<AddPath>,
    /// What it is to its neighbour.
    pub role: Option<Role>,
}

/// An OPEN message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The AS number, from the capability where it is there.
    pub asn: AsNumber,
    /// The hold time the sender wants; the smaller of both sides counts.
    pub hold_time: HoldTime,
    /// The sender's identifier.
    pub router_id: RouterId,
    /// What the sender can do.
    pub capabilities: Capabilities,
}

const CAPABILITIES: u8 = 2;
const EXTENDED_LENGTH: u8 = 255;

mod capability {
    pub(super) const MULTIPROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(super) const EXTENDED_MESSAGES: u8 = 6;
    pub(super) const ROLE: u8 = 9;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_OCTET_AS: u8 = 65;
    pub(super) const ADD_PATH: u8 = 69;
    pub(super) const ENHANCED_ROUTE_REFRESH: u8 = 70;
}

impl Open {
    /// Makes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let capabilities = self.capabilities.encode();
        let mut message = begin_message(MessageType::Open);
        message.push(4);
        let narrow = u16::try_from(self.asn.get()).unwrap_or(AsNumber::TRANS.get() as u16);
        message.extend_from_slice(&narrow.to_be_bytes());
        message.extend_from_slice(&self.hold_time.0.to_be_bytes());
        message.extend_from_slice(&self.router_id.addr().octets());
        if capabilities.is_empty() {
            message.push(0);
        } else {
            message.extend_from_slice(&[
                (capabilities.len() + 2) as u8,
                CAPABILITIES,
                capabilities.len() as u8,
            ]);
            message.extend_from_slice(&capabilities);
        }
        finish_message(message)
    }

    /// Reads the body of an OPEN.
    ///
    /// # Errors
    /// The remedy is always the NOTIFICATION of RFC 4271 section 6.2.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let short = || DecodeError::reset(Notification::OPEN_ERROR, "OPEN ends too early");
        let mut reader = Reader::new(body);
        let version = reader.u8().ok_or_else(short)?;
        if version != 4 {
            return Err(DecodeError::reset_with(
                Notification::UNSUPPORTED_VERSION,
                &[0, 4],
                "the peer speaks another version of BGP than 4",
            ));
        }
        let narrow = reader.u16().ok_or_else(short)?;
        let hold_time = reader.u16().ok_or_else(short)?;
        let id = Ipv4Addr::from(reader.u32().ok_or_else(short)?);
        let mut capabilities = Capabilities::default();
        let mut zero_wide = false;
        for parameter in Parameters::begin(&mut reader).ok_or_else(short)? {
            let (kind, value) = parameter.ok_or_else(short)?;
            if kind != CAPABILITIES {
                return Err(DecodeError::reset_with(
                    Notification::UNSUPPORTED_PARAMETER,
                    &[kind],
                    "OPEN has an optional parameter other than capabilities",
                ));
            }
            zero_wide |= capabilities.add(value).ok_or_else(short)?;
        }
        let asn = capabilities.four_octet_as.or(AsNumber::new(narrow.into()).filter(|_| !zero_wide));
        Ok(Self {
            asn: asn
                .filter(|_| narrow != 0)
                .ok_or(DecodeError::reset(Notification::BAD_PEER_AS, "the AS number is 0"))?,
            hold_time: HoldTime::new(hold_time).ok_or(DecodeError::reset(
                Notification::UNACCEPTABLE_HOLD_TIME,
                "a hold time of one or two seconds",
            ))?,
            router_id: RouterId::new(id)
                .ok_or(DecodeError::reset(Notification::BAD_IDENTIFIER, "the router id is 0.0.0.0"))?,
            capabilities,
        })
    }
}

/// The optional parameters, in the form of RFC 4271 or of RFC 9072.
struct Parameters<'a> {
    reader: Reader<'a>,
    wide: bool,
}

impl<'a> Parameters<'a> {
    fn begin(reader: &mut Reader<'a>) -> Option<Self> {
        let len = reader.u8()?;
        let mut ahead = *reader;
        if len == EXTENDED_LENGTH && ahead.u8() == Some(EXTENDED_LENGTH) {
            let len = ahead.u16()?;
            let octets = ahead.take(usize::from(len)).filter(|_| ahead.is_empty())?;
            return Some(Self { reader: Reader::new(octets), wide: true });
        }
        let octets = reader.take(usize::from(len)).filter(|_| reader.is_empty())?;
        Some(Self { reader: Reader::new(octets), wide: false })
    }

    fn read(&mut self) -> Option<(u8, &'a [u8])> {
        let kind = self.reader.u8()?;
        let len = if self.wide { usize::from(self.reader.u16()?) } else { usize::from(self.reader.u8()?) };
        Some((kind, self.reader.take(len)?))
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Option<(u8, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let parameter = self.read();
        if parameter.is_none() {
            self.reader.rest();
        }
        Some(parameter)
    }
}

impl Capabilities {
    fn encode(&self) -> Vec<u8> {
        use capability::*;
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
    fn add(&mut self, octets: &[u8]) -> Option<bool> {
        use capability::*;
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

fn family(afi: u8) -> Option<Family> {
    Family::ALL.into_iter().find(|family| self::afi(*family) == afi)
}

pub(crate) fn afi(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}
