//! One connection of a session, and what is true of it alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::timers::{Timer, Timers};
use super::{ConnectionId, Negotiated, OPEN_WAIT, Role, SEND_HOLD, State};

#[derive(Debug)]
pub(super) enum Stage {
    OpenSent,
    OpenConfirm(Arc<Negotiated>, Confirmation),
    Established(Arc<Negotiated>),
}

/// Who has sent a KEEPALIVE in answer to an OPEN. It takes both to establish a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// Nobody: we withhold ours.
    Awaited,
    /// The peer, while we withhold ours.
    Heard,
    /// We.
    Said,
}

/// Whether the session was established when a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// No: it competes with others for becoming the session.
    Before,
    /// Yes: the peer has lost the old connection, or believes so.
    During,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) role: Role,
    pub(super) arrival: Arrival,
    pub(super) stage: Stage,
    pub(super) timers: Timers,
}

impl Connection {
    pub(super) fn state(&self) -> State {
        match self.stage {
            Stage::OpenSent => State::OpenSent,
            Stage::OpenConfirm(..) => State::OpenConfirm,
            Stage::Established(_) => State::Established,
        }
    }

    /// Reports whether the peer's OPEN still waits for our KEEPALIVE.
    pub(super) fn withholds(&self) -> bool {
        matches!(self.stage, Stage::OpenConfirm(_, Confirmation::Awaited | Confirmation::Heard))
    }

    pub(super) fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        match &self.stage {
            Stage::OpenSent => None,
            Stage::OpenConfirm(negotiated, _) | Stage::Established(negotiated) => Some(negotiated),
        }
    }

    /// The time must be longer than the hold time (RFC 9687 section 3).
    pub(super) fn send_hold(&self, wanted: Option<Duration>) -> Duration {
        let hold = self.negotiated().and_then(|n| n.hold_time.interval()).unwrap_or_default();
        match wanted {
            Some(wanted) if wanted > hold => wanted,
            Some(_) if !hold.is_zero() => hold * 2,
            Some(_) | None => SEND_HOLD.max(hold * 2),
        }
    }

    /// Lets the hold time begin anew. Where there is none, only a session may be silent for ever, and not a connection that
    /// is none yet.
    pub(super) fn hear(&mut self, now: Instant) {
        let agreed = self.negotiated().and_then(|negotiated| negotiated.hold_time.interval());
        let unconfirmed = (self.state() != State::Established).then_some(OPEN_WAIT);
        self.timers.set(Timer::Hold, agreed.or(unconfirmed).map(|hold| now + hold));
    }
}
