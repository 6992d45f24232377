//! What is taken from a peer, when that changes: what it told is judged anew, or it is asked to tell everything again.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use super::Speaker;
use super::config::PeerConfig;
use super::feed::Fed;
use super::import::Refusal;
use crate::filter::{Route, Teller, Turn, Verdict};
use crate::rib::{Path, PeerId};
use crate::session::{Input, Output};
use crate::wire::{self, Notification, Prefix, Refresh};

impl Speaker {
    /// Does what follows from a peer's settings for what is taken from it. `before` are those that it had.
    pub(super) fn take_anew(&mut self, id: PeerId, before: &PeerConfig, now: Instant) {
        let Some(peer) = self.peers.get(&id) else { return };
        let can_be_asked = peer.up.as_ref().map(|up| up.negotiated.can_be_asked());
        match (before.turn_to(&peer.config), can_be_asked) {
            (Turn::Same, _) => {}
            (Turn::Other, Some(_)) => self.ask_again(id, now),
            (Turn::Freed, Some(true)) => {
                self.judge(id, before);
                self.ask_again(id, now);
            }
            // Who is away tells everything again when it is back. What was refused because it was the cluster's own is not
            // worth a new session.
            (Turn::Less | Turn::Freed, Some(_)) | (_, None) => self.judge(id, before),
        }
    }

    /// Asks a peer to tell everything again; a peer that cannot gets a fresh session instead.
    pub(super) fn ask_again(&mut self, id: PeerId, now: Instant) {
        let Some(up) = self.peers.get(&id).and_then(|peer| peer.up.as_ref()) else { return };
        if !up.negotiated.can_be_asked() {
            let why = Notification::new(Notification::ADMINISTRATIVE_RESET);
            return self.session_input(id, Input::Reset(why), now);
        }
        let (connection, families) = (up.connection, up.negotiated.families);
        for family in families.iter() {
            let request = wire::refresh(Refresh::Request(family));
            self.carry_out(id, Output::Transmit(connection, request), now);
        }
    }

    /// Drops the paths of a peer that were taken under the settings it had, and are not under those it has. A path that a rule
    /// may have changed is neither put to the rules nor searched for our AS number: both are for what the peer said, which is
    /// not kept. It stays until the peer tells it again.
    fn judge(&mut self, id: PeerId, before: &PeerConfig) {
        self.judge_of::<Ipv4Addr>(id, before);
        self.judge_of::<Ipv6Addr>(id, before);
    }

    fn judge_of<A: Fed>(&mut self, id: PeerId, before: &PeerConfig) {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.held[A::FAMILY] > 0) else { return };
        let judges = |config: &PeerConfig| (config.as_sets, config.allow_own_as, config.other_next_hop);
        let by_attributes = judges(before) != judges(&peer.config);
        let is_refused = |config: &PeerConfig, prefix: Prefix<A>, path: &Path| {
            let attributes = &*path.attributes;
            let route =
                || Route { prefix: prefix.cidr(), attributes: attributes.into(), teller: Teller::Peer };
            let may_be_changed = || before.import.may_have_changed(&attributes.attributes());
            config.import.decide(config.peering(), route, &self.tables.own) == Verdict::LeaveOut
                && !may_be_changed()
                || by_attributes
                    && match self.refusal(peer, config, &attributes.attributes()) {
                        // A rule may have put our number there.
                        Some(Refusal::OwnAs(..)) => !may_be_changed(),
                        refusal => refusal.is_some(),
                    }
        };
        let goes = |prefix, path: &&Path| {
            path.peer() == id && is_refused(&peer.config, prefix, path) && !is_refused(before, prefix, path)
        };
        let of_peer = |(prefix, paths): (Prefix<A>, &'_ [Path])| {
            let going = paths.iter().filter(|path| goes(prefix, path));
            going.map(|path| wire::Nlri { prefix, path_id: path.path_id }).collect::<Vec<_>>()
        };
        let going: Vec<_> = A::table(&self.tables.rib).iter().flat_map(of_peer).collect();
        self.withdraw_each(id, going.into_iter());
    }
}
