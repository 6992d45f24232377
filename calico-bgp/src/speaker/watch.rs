//! Peers that BFD watches while their sessions are up (RFC 5882): when packets no longer reach one, its session ends at
//! once and its routes go, instead of a hold time later.

use std::net::IpAddr;
use std::time::Instant;

use super::{Action, Speaker};
use crate::bfd::{Change, WhenBroken};
use crate::rib::PeerId;
use crate::session::{Heard, Input};
use crate::wire::Notification;

impl Speaker {
    /// BFD has noticed something about the path to a peer; see [`Action::Watch`].
    pub fn path_changed(&mut self, address: IpAddr, change: Change, now: Instant) {
        let Some(id) = self.by_address.get(&address).copied() else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // What was noticed before it was watched no longer may come late.
        let (Some(up), Some((_, config))) = (&peer.up, peer.watched) else { return };
        peer.path = Some(change);
        match change {
            // Neither says that packets get lost (RFC 5882 section 4.2).
            Change::Up | Change::HeldDown => {}
            Change::Down(why) => {
                let input = match config.when_broken {
                    WhenBroken::Restart => {
                        Input::Heard(up.connection, Heard::Closed(format!("BFD says that {why}")))
                    }
                    // Routes that lead into nothing are not kept, whatever was agreed on restarts.
                    WhenBroken::Drop => {
                        Input::Reset(Notification::new(Notification::BFD_DOWN).into_hard_reset())
                    }
                };
                self.session_input(id, input, now);
            }
        }
        self.advance(now);
    }

    /// Has a peer watched as its settings say, while its session is up.
    pub(super) fn renew_watch(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let peer_address = peer.config.address;
        let local = peer.up.as_ref().and_then(|up| peer.lines.get(&up.connection)).map(|line| line.local);
        let wanted = local.zip(peer.config.bfd);
        if wanted == peer.watched {
            return;
        }
        let was_watched = peer.watched.is_some();
        peer.watched = wanted;
        match wanted {
            Some((local, config)) => {
                self.events.push_back(Action::Watch { peer: peer_address, local, config });
            }
            None => {
                peer.path = None;
                if was_watched {
                    self.events.push_back(Action::Unwatch(peer_address));
                }
            }
        }
    }
}
