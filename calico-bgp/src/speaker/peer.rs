//! What a speaker holds for one peer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use calico_model::{Cidr, Family};

use super::config::{LongLived, PeerConfig, SpeakerConfig, Start};
use super::export::GroupKey;
use super::import::Refusal;
use super::limit::{Fill, Suspended};
use super::refresh::Refreshing;
use super::status::Counters;
use crate::bfd::{BfdConfig, Change};
use crate::family::{FamilySet, PerFamily};
use crate::rib::PeerId;
use crate::session::{ConnectionId, Ended, Negotiated, Peering, Session, State, Terms};
use crate::wire::open::{
    AddPath, Feature, Forwarding, GracefulRestart, LongLivedFamily, LongLivedRestart, OnNotification,
    RestartState,
};
use crate::wire::{Capabilities, Dialect, Notification};

/// One TCP connection: octets that are not a whole message yet, and messages that wait to be taken.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) received: Vec<u8>,
    /// The rest of a message of which a part was taken; it goes before all others.
    pub(super) rest: Vec<u8>,
    pub(super) control: VecDeque<Vec<u8>>,
    /// The OPENs of both sides, once they are there.
    pub(super) open_out: Box<[u8]>,
    pub(super) open_in: Box<[u8]>,
    pub(super) local: IpAddr,
    /// Ours and the peer's.
    pub(super) ports: (u16, u16),
    pub(super) dialect: Dialect,
    pub(super) closing: Closing,
}

/// Whether a connection is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    No,
    /// Once its last messages are taken, or at this time.
    WhenSent(Instant),
}

impl Line {
    /// Reports whether something waits to be taken besides routes.
    pub(super) fn has_words(&self) -> bool {
        !self.rest.is_empty() || !self.control.is_empty()
    }

    /// Returns how many octets wait besides routes.
    pub(super) fn octets(&self) -> usize {
        self.rest.len() + self.control.iter().map(Vec::len).sum::<usize>()
    }

    /// Appends what waits besides routes to `out` until it holds `enough` octets.
    pub(super) fn offer(&self, out: &mut Vec<u8>, enough: usize) {
        out.extend_from_slice(&self.rest);
        for message in &self.control {
            if out.len() >= enough {
                return;
            }
            out.extend_from_slice(message);
        }
    }

    /// Drops so many octets of what was offered; returns how many octets were more than that, and how many messages were
    /// begun.
    pub(super) fn take(&mut self, octets: usize) -> (usize, u64) {
        let of_rest = octets.min(self.rest.len());
        self.rest = self.rest.split_off(of_rest);
        let (mut octets, mut begun) = (octets - of_rest, 0);
        while octets > 0
            && let Some(mut message) = self.control.pop_front()
        {
            let part = octets.min(message.len());
            self.rest = message.split_off(part);
            octets -= part;
            begun += 1;
        }
        (octets, begun)
    }
}

/// What is true of an established session.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) connection: ConnectionId,
    pub(super) negotiated: Arc<Negotiated>,
    pub(super) group: GroupKey,
    /// The families whose first table is complete.
    pub(super) complete: FamilySet,
    /// What the peer is telling again (RFC 7313).
    pub(super) refresh: PerFamily<Refreshing>,
}

/// Routes of a peer that went away and may come back (RFC 4724 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retained {
    Nothing,
    /// Until the session is back.
    Awaiting(Patience),
    /// Until the peer has told everything again.
    Completing(Patience),
    /// Until the long-lived stale time of each family is over (RFC 9494).
    LongLived,
}

impl Retained {
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Nothing | Self::LongLived => None,
            Self::Awaiting(patience) | Self::Completing(patience) => Some(patience.until),
        }
    }
}

/// How long routes are kept, and until when at most a peer that is away is waited for, however often it restarts meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    pub(super) until: Instant,
    pub(super) end: Instant,
}

impl Patience {
    pub(super) fn renewed(self, until: Instant) -> Self {
        Self { until: until.min(self.end), ..self }
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
    /// For how many seconds routes outlive the restart time, and until when they do where it is over.
    pub(super) stale_time: PerFamily<u32>,
    pub(super) long_lived: PerFamily<Option<Instant>>,
    pub(super) held: PerFamily<u32>,
    pub(super) counters: Counters,
    pub(super) since: Instant,
    /// Since when it is established, or is not.
    pub(super) turned: Instant,
    pub(super) state: State,
    pub(super) last_error: Option<Ended>,
    pub(super) last_sent: Option<Notification>,
    pub(super) last_received: Option<Notification>,
    pub(super) last_fault: Option<String>,
    pub(super) last_refusal: Option<Refusal>,
    /// The deadline under which the speaker has filed this peer.
    pub(super) filed: Option<Instant>,
    pub(super) history: History,
    /// From which address and how closely BFD watches it, and what BFD said last.
    pub(super) watched: Option<(IpAddr, BfdConfig)>,
    pub(super) path: Option<Change>,
    /// Whether it told too much.
    pub(super) suspended: Suspended,
    pub(super) fill: PerFamily<Fill>,
    /// The prefix by which it came unannounced, if it did.
    pub(super) came_by: Option<Cidr>,
    /// What becomes of its number when it goes.
    pub(super) number: Number,
}

/// Whether another peer may have the number of one that goes. One that came unannounced was never dialed, so that no
/// connection of its can come late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// No.
    Spent,
    /// Yes, as it was never up: nothing names it.
    Free,
    /// Yes, once the others were told that its routes are gone: nothing names it then.
    FreeOnceTold,
}

/// How far this speaker's sessions with the peer ever came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum History {
    Never,
    WasUp,
    /// The peer has told everything once.
    HasTold,
}

impl Peer {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let resume = match self.suspended {
            Suspended::Until(until) => until,
            Suspended::No => None,
        };
        let closing = self.lines.values().filter_map(|line| match line.closing {
            Closing::No => None,
            Closing::WhenSent(until) => Some(until),
        });
        let long_lived = Family::ALL.into_iter().filter_map(|family| self.long_lived[family]);
        let refresh =
            Family::ALL.into_iter().filter_map(|family| self.up.as_ref()?.refresh[family].deadline());
        let session = self.session.deadline().into_iter().chain(refresh);
        session.chain(self.retained.until()).chain(long_lived).chain(resume).chain(closing).min()
    }

    /// Remembers why a connection ended.
    pub(super) fn note_end(&mut self, ended: &Ended) {
        match ended {
            Ended::Sent(notification) => self.last_sent = Some(notification.clone()),
            Ended::Received(notification) => self.last_received = Some(notification.clone()),
            Ended::Lost(_) | Ended::Undialed(_) | Ended::Replaced => {}
        }
        self.last_error = Some(ended.clone());
    }

    pub(super) fn note_state(&mut self, now: Instant) {
        let state = self.session.state();
        if state != self.state {
            if (state == State::Established) != (self.state == State::Established) {
                self.turned = now;
            }
            self.state = state;
            self.since = now;
        }
    }

    pub(super) fn is_complete(&self, family: Family) -> bool {
        self.up.as_ref().is_some_and(|up| up.complete.contains(family))
    }

    /// Reports whether paths of a family may be held that the peer has not told again yet.
    pub(super) fn may_be_stale(&self, family: Family) -> bool {
        let refreshing = self.up.as_ref().is_some_and(|up| up.refresh[family].until.is_some());
        refreshing || self.retained != Retained::Nothing && !self.is_complete(family)
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
    let stale_time = match config.long_lived {
        LongLived::Off => None,
        LongLived::Aware => Some(None),
        LongLived::For(seconds) => Some(Some(LongLivedFamily { forwarding, stale_time: seconds })),
    };
    let long_lived = stale_time.filter(|_| config.restart_time > 0).map(|said| LongLivedRestart {
        families: PerFamily::new(|family| said.filter(|_| config.families.contains(family))),
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
            long_lived,
            add_path: PerFamily::new(|family| match config.families.contains(family) {
                true => config.add_path,
                false => AddPath::Neither,
            }),
            role: config.role.filter(|_| config.peering() == Peering::External),
        },
        roles: config.roles,
    }
}
