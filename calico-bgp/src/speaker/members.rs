//! Peers that come, change and go, and the update groups they are in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use calico_model::Family;

use super::Speaker;
use super::config::{PeerConfig, Reflection};
use super::export::{self, GroupKey};
use super::group::{Ending, Group};
use super::journal::Journal;
use super::limit::Suspended;
use super::peer::{self, History, Number, Peer, Retained};
use super::status::Counters;
use super::world::{Former, Tables};
use crate::decision::Source;
use crate::family::{FamilySet, PerFamily};
use crate::filter::PrefixSet;
use crate::rib::{Path, PeerId, Tabled};
use crate::session::{ConnectionId, Input, Session, State};
use crate::wire::Notification;
use crate::wire::open::Feature;

/// A peer that is gone, and with which connection its number begins again, if it may be another's.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) id: PeerId,
    pub(super) vacant: Option<ConnectionId>,
}

impl Speaker {
    pub(super) fn add_peer(&mut self, config: PeerConfig, now: Instant) {
        let first = self.vacant.pop().unwrap_or(ConnectionId { peer: self.next_id, serial: 0 });
        let id = PeerId(first.peer);
        self.next_id = self.next_id.max(id.0 + 1);
        let terms = peer::terms(&self.config, &config, History::Never, self.restart_state());
        let seed = self.config.seed ^ (u64::from(id.0) << 32);
        let mut session = Session::new(id.0, terms, config.initiation, config.connect_retry, seed);
        session.go_on_from(first);
        if config.reflection == Reflection::Client {
            self.tables.clients.insert(id);
        }
        self.by_address.insert(config.address, id);
        let mut peer = Peer {
            id,
            config,
            session,
            lines: BTreeMap::new(),
            up: None,
            retained: Retained::Nothing,
            stale_time: PerFamily::default(),
            long_lived: PerFamily::default(),
            held: PerFamily::default(),
            counters: Counters::default(),
            since: now,
            turned: now,
            state: State::Idle,
            last_error: None,
            last_sent: None,
            last_received: None,
            last_fault: None,
            last_refusal: None,
            filed: None,
            history: History::Never,
            suspended: Suspended::No,
            watched: None,
            path: None,
            fill: PerFamily::default(),
            came_by: None,
            number: Number::Spent,
        };
        peer.session.set_send_hold(peer.config.send_hold);
        peer.session.set_keepalive(peer.config.keepalive);
        self.peers.insert(id, peer);
        self.session_input(id, Input::Start, now);
    }

    pub(super) fn remove_peer(&mut self, address: IpAddr, now: Instant) {
        let Some(id) = self.by_address.remove(&address) else { return };
        let gone = Notification::new(Notification::PEER_DECONFIGURED);
        self.session_input(id, Input::Stop(gone.into_hard_reset()), now);
        for family in Family::ALL {
            self.drop_paths(family, id, |_| true);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.retained = Retained::Nothing;
            peer.long_lived = PerFamily::default();
            peer.config.max_prefixes = None;
            peer.number = match (peer.came_by, peer.history) {
                (None, _) => Number::Spent,
                (Some(_), History::Never) => Number::Free,
                (Some(_), History::WasUp | History::HasTold) => Number::FreeOnceTold,
            };
            // Nobody is waited for, and whoever comes from this address now is another peer.
            peer.suspended = Suspended::No;
            peer.came_by = None;
        }
        self.leaving.push(id);
    }

    /// Forgets the peers that have left. What was told until now may still depend on one that was ever up.
    pub(super) fn forget_those_who_left(&mut self) {
        let has_words_to_say = |id: &PeerId| self.peers.get(id).is_some_and(|peer| !peer.lines.is_empty());
        let (stay, go): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.leaving).into_iter().partition(has_words_to_say);
        self.leaving = stay;
        for id in go {
            let Some(peer) = self.peers.remove(&id) else { continue };
            if let Some(filed) = peer.filed {
                self.deadlines.remove(&(filed, peer.id));
            }
            let next = peer.session.next();
            match peer.number {
                Number::Free => {
                    self.tables.clients.remove(&id);
                    self.vacant.push(next);
                }
                Number::FreeOnceTold => self.departed.push(Departed { id, vacant: Some(next) }),
                Number::Spent => self.departed.push(Departed { id, vacant: None }),
            }
        }
    }

    pub(super) fn change_peer(&mut self, id: PeerId, config: PeerConfig, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.config == config {
            return;
        }
        let reset = peer.config.requires_reset(&config);
        let reflection = config.reflection;
        let limit_changed = peer.config.max_prefixes != config.max_prefixes;
        let initiate = Input::Initiate(config.initiation, config.connect_retry);
        peer.session.set_send_hold(config.send_hold);
        peer.session.set_keepalive(config.keepalive);
        let before = std::mem::replace(&mut peer.config, config);
        self.renew_terms(id);
        self.session_input(id, initiate, now);
        if limit_changed && !self.resume(id, now) {
            self.check_limit(id, now);
        }
        self.renew_watch(id);
        if reset {
            let why = Notification::new(Notification::CONFIGURATION_CHANGE);
            self.session_input(id, Input::Reset(why), now);
        } else {
            self.moving.insert(id);
        }
        self.take_anew(id, &before, now);
        self.reflect(id, reflection, now);
    }

    /// Makes a peer a client or not, and tells everybody what follows.
    fn reflect(&mut self, id: PeerId, reflection: Reflection, now: Instant) {
        let mut clients = self.tables.clients.clone();
        match reflection {
            Reflection::Client => clients.insert(id),
            Reflection::NonClient => clients.remove(&id),
        };
        if clients == self.tables.clients {
            return;
        }
        let tells = self.deferral.is_none();
        let change = |tables: &mut Tables| {
            let before = std::mem::replace(&mut tables.clients, clients);
            (Former::Clients(before), Journal::of(&tables.rib, |_, _| tells))
        };
        self.change_world(change, now);
    }

    /// Sets what is known of a peer whose session is up. When it is not what it was in the session before, its routes that
    /// were kept are judged anew, and what was told of them by what it was then.
    pub(super) fn set_source(&mut self, id: PeerId, source: Source, now: Instant) {
        let known = self.tables.sources.get(id).copied();
        let Some(known) = known.filter(|known| *known != source) else {
            return self.tables.sources.set(id, source);
        };
        if known.peering != source.peering {
            // Its paths say what is said inside an AS, or between two.
            for family in Family::ALL {
                self.drop_paths(family, id, |_| true);
            }
        }
        let holds = |peer: &Peer| peer.held != PerFamily::default();
        if !self.peers.get(&id).is_some_and(holds) {
            self.tell_until_now(now);
            return self.tables.sources.set(id, source);
        }
        let change = |tables: &mut Tables| {
            let of_it = Journal::of(&tables.rib, |_, paths| paths.iter().any(|path| path.peer() == id));
            let before = tables.sources.clone();
            tables.sources.set(id, source);
            Ipv4Addr::table_mut(&mut tables.rib).rank_again(id, &tables.sources);
            Ipv6Addr::table_mut(&mut tables.rib).rank_again(id, &tables.sources);
            (Former::Sources(before), of_it)
        };
        self.change_world(change, now);
    }

    /// Makes these the blocks of this node, and tells everybody what follows for routes inside them.
    pub(super) fn set_own(&mut self, own: PrefixSet, now: Instant) {
        if own == self.tables.own {
            return;
        }
        let change = |tables: &mut Tables| {
            let before = std::mem::replace(&mut tables.own, own);
            let changes = |cidr, _: &[Path]| before.covers_strictly(cidr) != tables.own.covers_strictly(cidr);
            let inside = Journal::of(&tables.rib, changes);
            (Former::Own(before), inside)
        };
        self.change_world(change, now);
    }

    /// Moves established peers whose settings have changed to the groups that these ask for, those together that go the same
    /// way.
    pub(super) fn regroup(&mut self, now: Instant) {
        let mut moves = BTreeMap::<(GroupKey, GroupKey), Vec<PeerId>>::new();
        for id in std::mem::take(&mut self.moving) {
            let Some((peer, up)) = self.peers.get(&id).and_then(|peer| Some((peer, peer.up.as_ref()?)))
            else {
                continue;
            };
            let Some(line) = peer.lines.get(&up.connection) else { continue };
            let key = export::key_of(&peer.config, &up.negotiated, line.local);
            if key != up.group {
                moves.entry((up.group.clone(), key)).or_default().push(id);
            }
        }
        if moves.is_empty() {
            return;
        }
        // What was told until now was told in the old groups' ways.
        self.tell_until_now(now);
        for ((old, new), ids) in moves {
            let mut told = Vec::new();
            for id in ids {
                let Some(up) = self.peers.get_mut(&id).and_then(|peer| peer.up.as_mut()) else { continue };
                up.group = new.clone();
                let families = up.negotiated.families;
                match self.groups.get_mut(&old).and_then(|group| group.hand_over(id)) {
                    Some(left) => told.push((id, left)),
                    None => self.join_group(new.clone(), id, families),
                }
                self.leave_group(&old, id);
            }
            if !told.is_empty() {
                let group = self.groups.entry(new.clone()).or_insert_with(|| Group::new(new));
                group.take_over(&old, told, &self.tables.world());
            }
        }
    }

    /// Has a peer told everything again, in the same words where nothing changed.
    pub(super) fn tell_again(&mut self, id: PeerId) {
        let Some(up) = self.peers.get(&id).and_then(|peer| peer.up.as_ref()) else { return };
        for family in up.negotiated.families.iter() {
            self.tell_family_again(id, family);
        }
    }

    /// The same for one family, between marks where both sides know them (RFC 7313).
    pub(super) fn tell_family_again(&mut self, id: PeerId, family: Family) {
        let Some(up) = self.peers.get(&id).and_then(|peer| peer.up.as_ref()) else { return };
        let marked = up.negotiated.features.contains(&Feature::EnhancedRouteRefresh);
        let ending = if marked { Ending::RefreshMarks } else { Ending::EndOfRib };
        if let Some(group) = self.groups.get_mut(&up.group) {
            group.join(id, [family].into_iter().collect(), ending);
        }
    }

    pub(super) fn join_group(&mut self, key: GroupKey, id: PeerId, families: FamilySet) {
        self.groups.entry(key.clone()).or_insert_with(|| Group::new(key)).join(
            id,
            families,
            Ending::EndOfRib,
        );
    }

    pub(super) fn leave_group(&mut self, key: &GroupKey, id: PeerId) {
        if let Some(group) = self.groups.get_mut(key) {
            group.leave(id);
            if group.is_empty() {
                self.groups.remove(key);
            }
        }
    }
}
