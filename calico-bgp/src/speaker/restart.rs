//! Graceful restart, both roles (RFC 4724, RFC 8538), and its long-lived form (RFC 9494).
//!
//! *As the helper*: the routes of a peer that went away are kept, marked stale, until it is back and has told
//! everything again, or until its restart time is over. After that they may live on, as a last resort, for the long-lived
//! stale time: with a community that says so, worse than every other route, and told only to those who understand.
//!
//! *As the one that restarted*: nothing is chosen or told until the node has set its peers and prefixes and every peer that could tell us something has done so.
//! A peer that restarts as well, or does not do graceful restart, is not waited for; a peer that does not even connect, or is
//! lost before it has told everything, is waited for only briefly.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use calico_model::Family;

use super::Speaker;
use super::peer::{History, Patience, Peer, Retained};
use crate::family::{FamilySet, PerFamily};
use crate::rib::{Freshness, PeerId};
use crate::session::{Ended, Negotiated, State};
use crate::wire::Notification;
use crate::wire::open::{Forwarding, OnNotification, RestartState};

/// How long a peer that is back, or tells everything again, may take for it.
pub(super) const COMPLETION: Duration = Duration::from_secs(180);

/// The wait of a speaker that restarted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deferral {
    pub(super) until: Instant,
    pub(super) unreached_until: Instant,
    /// What is not known yet of what this node wants: nothing is told before it is.
    pub(super) unknown: Unknown,
    /// When to look again although nothing happened.
    pub(super) look_at: Instant,
}

/// What a restarted speaker has not been told by its own node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    Both,
    Peers,
    Origins,
    Nothing,
}

impl Deferral {
    pub(super) fn peers_known(&mut self) {
        self.unknown = match self.unknown {
            Unknown::Both | Unknown::Origins => Unknown::Origins,
            Unknown::Peers | Unknown::Nothing => Unknown::Nothing,
        };
    }

    pub(super) fn origins_known(&mut self) {
        self.unknown = match self.unknown {
            Unknown::Both | Unknown::Peers => Unknown::Peers,
            Unknown::Origins | Unknown::Nothing => Unknown::Nothing,
        };
    }

    pub(super) fn begin(config: &super::SpeakerConfig, now: Instant) -> Self {
        let unreached_until = now + config.deferral_unreached.min(config.deferral);
        Self {
            until: now + config.deferral,
            unreached_until,
            unknown: Unknown::Both,
            look_at: unreached_until,
        }
    }
}

/// Decides whether the routes of a session that ended are kept.
fn families_kept(negotiated: &Negotiated, ended: &Ended) -> FamilySet {
    let Some(theirs) = negotiated.graceful_restart else { return FamilySet::NONE };
    let counts_as_restart = match ended {
        Ended::Lost(_) | Ended::Undialed(_) | Ended::Replaced => true,
        Ended::Sent(n) | Ended::Received(n) => {
            theirs.on_notification == OnNotification::Keep && n.kind() != Notification::HARD_RESET
        }
    };
    if !counts_as_restart {
        return FamilySet::NONE;
    }
    let is_kept = |family: &Family| {
        theirs.families[*family].is_some() && theirs.restart_time > 0 || negotiated.stale_time(*family) > 0
    };
    negotiated.families.iter().filter(is_kept).collect()
}

impl Speaker {
    /// A session ended: keeps or drops its routes.
    pub(super) fn routes_after_down(
        &mut self,
        id: PeerId,
        negotiated: &Negotiated,
        ended: &Ended,
        now: Instant,
    ) {
        let kept = families_kept(negotiated, ended);
        for family in Family::ALL {
            if kept.contains(family) {
                self.mark_stale(family, id);
            } else {
                self.drop_paths(family, id, |_| true);
            }
        }
        let restart_time = negotiated.graceful_restart.map_or(0, |gr| gr.restart_time);
        if let Some(peer) = self.peers.get_mut(&id) {
            let until = now + Duration::from_secs(restart_time.into());
            peer.retained = match peer.retained {
                _ if kept.is_empty() => Retained::Nothing,
                // It restarts again before it has told everything. RFC 4724 section 4.2 has what is stale already dropped;
                // it is kept for as long as it would be for one restart, that no route is lost on the second.
                Retained::Awaiting(first) | Retained::Completing(first) => {
                    Retained::Awaiting(first.renewed(until))
                }
                Retained::Nothing | Retained::LongLived => {
                    Retained::Awaiting(Patience { until, end: until + COMPLETION })
                }
            };
            peer.long_lived =
                PerFamily::new(|family| peer.long_lived[family].filter(|_| kept.contains(family)));
            peer.stale_time =
                PerFamily::new(
                    |family| {
                        if kept.contains(family) { negotiated.stale_time(family) } else { 0 }
                    },
                );
        }
        self.expire_retained(id, now);
    }

    /// A session is back: routes of families that the peer lost are dropped, the others wait for End-of-RIB.
    pub(super) fn routes_after_up(&mut self, id: PeerId, negotiated: &Negotiated, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.retained == Retained::Nothing {
            return;
        }
        let long_lived = peer.long_lived;
        let is_preserved = |family: &Family| match long_lived[*family] {
            None => negotiated
                .graceful_restart
                .is_some_and(|gr| gr.families[*family] == Some(Forwarding::Preserved)),
            Some(_) => {
                let said = negotiated.long_lived.and_then(|long_lived| long_lived.families[*family]);
                said.is_some_and(|said| said.forwarding == Forwarding::Preserved)
            }
        };
        let preserved: FamilySet = negotiated.families.iter().filter(is_preserved).collect();
        peer.long_lived = PerFamily::new(|family| long_lived[family].filter(|_| preserved.contains(family)));
        let until = now + COMPLETION;
        peer.retained = match peer.retained {
            _ if preserved.is_empty() => Retained::Nothing,
            // Whoever is back has the whole time for its table, also when it is back at the last moment.
            Retained::Awaiting(first) | Retained::Completing(first) => {
                Retained::Completing(Patience { until, ..first })
            }
            Retained::Nothing | Retained::LongLived => Retained::Completing(Patience { until, end: until }),
        };
        for family in Family::ALL.into_iter().filter(|family| !preserved.contains(*family)) {
            self.drop_stale(family, id);
        }
    }

    /// The peer has told everything of a family.
    pub(super) fn end_of_rib(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // Only the first one says something.
        let Some(up) = peer.up.as_mut().filter(|up| !up.complete.contains(family)) else { return };
        up.complete.insert(family);
        let all = up.negotiated.families.iter().all(|f| up.complete.contains(f));
        if all {
            peer.history = History::HasTold;
        }
        peer.long_lived[family] = None;
        if let Retained::Completing(_) = peer.retained {
            if all {
                peer.retained = Retained::Nothing;
            }
            self.drop_stale(family, id);
        }
    }

    /// Drops the paths of a peer that it has not told again.
    pub(super) fn drop_stale(&mut self, family: Family, id: PeerId) {
        self.drop_paths(family, id, |path| path.freshness() == Freshness::Stale);
    }

    /// Drops what was kept for too long, or lets it live on as a last resort.
    pub(super) fn expire_retained(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.retained.until().is_some_and(|until| until <= now) {
            let lives_on = match peer.retained {
                Retained::Awaiting(_) => {
                    Family::ALL.into_iter().filter(|family| peer.stale_time[*family] > 0).collect()
                }
                Retained::Nothing | Retained::Completing(_) | Retained::LongLived => FamilySet::NONE,
            };
            peer.retained = if lives_on.is_empty() { Retained::Nothing } else { Retained::LongLived };
            let complete = peer.up.as_ref().map_or(FamilySet::NONE, |up| up.complete);
            for family in Family::ALL {
                if lives_on.contains(family) {
                    let until = now + Duration::from_secs(peer_stale_time(&self.peers, id, family));
                    self.make_long_lived(family, id);
                    if let Some(peer) = self.peers.get_mut(&id) {
                        // A second failure does not begin the time anew (RFC 9494 section 4.2).
                        peer.long_lived[family].get_or_insert(until);
                    }
                } else if !complete.contains(family) {
                    self.drop_stale(family, id);
                }
            }
        }
        self.expire_long_lived(id, now);
    }

    /// Drops the last resort once its time is over.
    fn expire_long_lived(&mut self, id: PeerId, now: Instant) {
        for family in Family::ALL {
            let Some(peer) = self.peers.get_mut(&id) else { return };
            if peer.long_lived[family].is_none_or(|until| until > now) {
                continue;
            }
            peer.long_lived[family] = None;
            if peer.retained == Retained::LongLived && peer.long_lived == PerFamily::default() {
                peer.retained = Retained::Nothing;
            }
            self.drop_paths(family, id, |path| {
                path.freshness() == Freshness::Stale && path.attributes.is_long_lived_stale()
            });
        }
    }

    /// Ends the deferral once nobody is waited for.
    pub(super) fn check_deferral(&mut self, now: Instant) {
        let Some(deferral) = self.deferral else { return };
        let look_at = if now < deferral.unreached_until { deferral.unreached_until } else { deferral.until };
        self.deferral = Some(Deferral { look_at, ..deferral });
        let waits = deferral.unknown != Unknown::Nothing
            || self.peers.values().any(|peer| is_awaited(peer, deferral, now));
        if waits && now < deferral.until {
            return;
        }
        // What is not so any more is not told first.
        self.ask_about_covered(now);
        self.deferral = None;
        self.choice_changed = true;
        self.events.push_back(super::Action::Event(super::Event::Settled));
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.renew_terms(id);
        }
    }

    /// Makes the next OPEN to a peer say what is true now.
    pub(super) fn renew_terms(&mut self, id: PeerId) {
        let restarting = self.restart_state();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.session.set_terms(super::peer::terms(&self.config, &peer.config, peer.history, restarting));
        }
    }

    pub(super) fn restart_state(&self) -> RestartState {
        if self.deferral.is_some() { RestartState::Restarting } else { RestartState::Fresh }
    }
}

fn peer_stale_time(peers: &BTreeMap<PeerId, Peer>, id: PeerId, family: Family) -> u64 {
    peers.get(&id).map_or(0, |peer| peer.stale_time[family].into())
}

fn is_awaited(peer: &Peer, deferral: Deferral, now: Instant) -> bool {
    match &peer.up {
        None if peer.state == State::Idle || peer.history == History::HasTold => false,
        None => now < deferral.unreached_until,
        Some(up) => match up.negotiated.graceful_restart {
            None => false,
            Some(gr) if gr.state == RestartState::Restarting => false,
            // Also who preserves nothing itself says when it has told everything (RFC 4724 section 3).
            Some(_) => up.negotiated.families.iter().any(|family| !peer.is_complete(family)),
        },
    }
}
