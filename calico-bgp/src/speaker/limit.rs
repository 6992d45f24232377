//! How many prefixes a peer may tell (RFC 4271 section 6.7, RFC 4486 section 4): a warning first, then what the operator
//! wants.

use std::net::IpAddr;
use std::time::Instant;

use calico_model::Family;

use super::config::{MaxPrefixes, WhenExceeded};
use super::{Action, Event, Speaker};
use crate::rib::PeerId;
use crate::session::Input;
use crate::wire::Notification;
use crate::wire::open::afi;

/// Whether a peer's session is held down because it told too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspended {
    No,
    /// Until this time; without one, until the operator says otherwise.
    Until(Option<Instant>),
}

/// How near a peer is to its limit in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Fill {
    #[default]
    Low,
    Near,
    Over,
}

impl Fill {
    fn of(held: u32, limit: MaxPrefixes) -> Self {
        match held {
            _ if held > limit.limit => Self::Over,
            _ if held >= limit.warning().max(1) => Self::Near,
            _ => Self::Low,
        }
    }
}

impl Speaker {
    /// Looks at a peer's limit after it has told something: warns, or ends the session.
    pub(super) fn check_limit(&mut self, id: PeerId, now: Instant) {
        let Some(limit) = self.peers.get(&id).and_then(|peer| peer.config.max_prefixes) else { return };
        for family in Family::ALL {
            let Some(peer) = self.peers.get(&id) else { return };
            // What the peer has not told again makes room before it is said to tell too much.
            let is_over = Fill::of(peer.held[family], limit) == Fill::Over;
            if is_over && limit.when_exceeded != WhenExceeded::Warn && peer.may_be_stale(family) {
                self.drop_stale(family, id);
            }
            let Some(peer) = self.peers.get_mut(&id) else { return };
            let held = peer.held[family];
            let before = std::mem::replace(&mut peer.fill[family], Fill::of(held, limit));
            if peer.fill[family] == Fill::Over && limit.when_exceeded != WhenExceeded::Warn {
                return self.exceeded(id, family, limit, now);
            }
            if peer.fill[family] > before {
                let words = match peer.fill[family] {
                    Fill::Over => format!("tells {held} prefixes, more than the limit of {}", limit.limit),
                    Fill::Near | Fill::Low => {
                        format!(
                            "tells {held} prefixes, {} percent of the limit of {}",
                            limit.warn_at, limit.limit
                        )
                    }
                };
                self.events.push_back(Action::Event(Event::Warning(peer.config.address, words)));
            }
        }
    }

    fn exceeded(&mut self, id: PeerId, family: Family, limit: MaxPrefixes, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.suspended = Suspended::Until(match limit.when_exceeded {
            WhenExceeded::RestartAfter(rest) => Some(now + rest),
            WhenExceeded::Stop | WhenExceeded::Warn => None,
        });
        let mut data = vec![0, afi(family), 1];
        data.extend_from_slice(&limit.limit.to_be_bytes());
        let why = Notification::new(Notification::MAX_PREFIXES).with_data(&data);
        self.session_input(id, Input::Stop(why.into_hard_reset()), now);
    }

    /// Begins the session of a suspended peer anew when its time has come.
    pub(super) fn resume_if_due(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get(&id)
            && let Suspended::Until(Some(until)) = peer.suspended
            && until <= now
        {
            self.resume(id, now);
        }
    }

    /// Begins the session of a suspended peer anew; reports whether it was suspended.
    pub(super) fn resume(&mut self, id: PeerId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        if peer.suspended == Suspended::No {
            return false;
        }
        peer.suspended = Suspended::No;
        self.session_input(id, Input::Start, now);
        true
    }

    /// Returns the peers that told too much and wait for the operator or their time.
    #[must_use]
    pub fn suspended(&self) -> Vec<IpAddr> {
        let waits = |id: &&PeerId| self.peers.get(id).is_some_and(|peer| peer.suspended != Suspended::No);
        self.by_address
            .values()
            .filter(waits)
            .filter_map(|id| Some(self.peers.get(id)?.config.address))
            .collect()
    }
}
