//! What a speaker holds for one peer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use calico_model::Family;

use super::config::{PeerConfig, SpeakerConfig, Start};
use super::export::GroupKey;
use super::status::Counters;
use crate::family::{FamilySet, PerFamily};
use crate::rib::PeerId;
use crate::session::{ConnectionId, Ended, Negotiated, Peering, Session, State, Terms};
use crate::wire::open::{AddPath, Feature, Forwarding, GracefulRestart, OnNotification, RestartState};
use crate::wire::{Capabilities, Dialect};

/// One TCP connection: octets that are not a whole message yet, and messages that wait to be taken.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) received: Vec<u8>,
    pub(super) control: VecDeque<Vec<u8>>,
    pub(super) local: IpAddr,
    pub(super) dialect: Dialect,
    pub(super) closing: Closing,
}

/// Whether a connection is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    No,
    /// Once its last messages are taken.
    WhenSent,
}

/// What is true of an established session.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) connection: ConnectionId,
    pub(super) negotiated: Arc<Negotiated>,
    pub(super) group: GroupKey,
    /// The families whose first table is complete.
    pub(super) complete: FamilySet,
    /// The families that the peer is telling again (RFC 7313).
    pub(super) refreshing: FamilySet,
}

/// Routes of a peer that went away and may come back (RFC 4724 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retained {
    Nothing,
    /// Until the session is back.
    Awaiting(Instant),
    /// Until the peer has told everything again.
    Completing(Instant),
}

impl Retained {
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Nothing => None,
            Self::Awaiting(until) | Self::Completing(until) => Some(until),
        }
    }
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) config: PeerConfig,
    pub(super) session: Session,
    pub(super) lines: BTreeMap<ConnectionId, Line>,
    pub(super) up: Option<Up>,
    pub(super) retained: Retained,
    pub(super) held: PerFamily<u32>,
    pub(super) counters: Counters,
    pub(super) since: Instant,
    pub(super) state: State,
    pub(super) last_error: Option<Ended>,
    pub(super) last_fault: Option<String>,
    /// The deadline under which the speaker has filed this peer.
    pub(super) filed: Option<Instant>,
    pub(super) history: History,
}

/// Whether this speaker ever had a session with the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    Never,
    WasUp,
}

impl Peer {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.session.deadline().into_iter().chain(self.retained.until()).min()
    }

    pub(super) fn note_state(&mut self, now: Instant) {
        let state = self.session.state();
        if state != self.state {
            self.state = state;
            self.since = now;
        }
    }

    pub(super) fn is_complete(&self, family: Family) -> bool {
        self.up.as_ref().is_some_and(|up| up.complete.contains(family))
    }
}

/// Makes what the next OPEN to a peer says.
pub(super) fn terms(
    speaker: &SpeakerConfig,
    config: &PeerConfig,
    history: History,
    restarting: RestartState,
) -> Terms {
    let forwarding = match (speaker.start, history) {
        (Start::Fresh, History::Never) => Forwarding::Lost,
        _ => Forwarding::Preserved,
    };
    let graceful_restart = (config.restart_time > 0).then(|| GracefulRestart {
        restart_time: config.restart_time.min(0xfff),
        state: restarting,
        on_notification: OnNotification::Keep,
        families: PerFamily::new(|family| config.families.contains(family).then_some(forwarding)),
    });
    let mut features =
        BTreeSet::from([Feature::RouteRefresh, Feature::EnhancedRouteRefresh, Feature::ExtendedMessages]);
    // Between IPv6 addresses, IPv4 routes need a next hop that both sides have.
    if config.address.is_ipv6() && config.families.contains(Family::V4) {
        features.insert(Feature::ExtendedNextHop);
    }
    Terms {
        local_as: config.local_as,
        local_id: speaker.router_id,
        remote_as: config.remote_as,
        hold_time: config.hold_time,
        capabilities: Capabilities {
            families: Some(config.families),
            four_octet_as: Some(config.local_as),
            features,
            graceful_restart,
            add_path: PerFamily::new(|family| match config.families.contains(family) {
                true => config.add_path,
                false => AddPath::Neither,
            }),
            role: config.role.filter(|_| config.peering() == Peering::External),
        },
        roles: config.roles,
    }
}
