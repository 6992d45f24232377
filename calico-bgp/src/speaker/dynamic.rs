//! Peers that nobody named: whoever connects from a prefix becomes one, up to a bound, and is forgotten when its session
//! and its routes are gone.

use std::net::IpAddr;
use std::time::Instant;

use calico_model::Cidr;

use super::config::{DynamicPeers, PeerConfig};
use super::limit::Suspended;
use super::peer::Retained;
use super::{Refused, Speaker};
use crate::rib::PeerId;
use crate::session::{Initiation, State};

/// How many numbers peers that come unannounced may use up; as many are left for those that are named, and a path can
/// name both.
const NUMBERS: u32 = 1 << 30;

impl Speaker {
    /// Makes these the prefixes from which peers may come unannounced. Peers that are here by a prefix that is no longer
    /// among them are removed; the others get its settings, and are reset only when the change needs it.
    pub fn set_dynamic_peers(&mut self, ranges: Vec<DynamicPeers>, now: Instant) {
        self.dynamic = ranges;
        for (address, id) in self.by_address.clone() {
            if self.peers.get(&id).is_none_or(|peer| peer.came_by.is_none()) {
                continue;
            }
            match self.range_of(address).map(|range| (range.prefix, settings_for(range, address))) {
                None => self.remove_peer(address, now),
                Some((prefix, settings)) => {
                    if let Some(peer) = self.peers.get_mut(&id) {
                        peer.came_by = Some(prefix);
                    }
                    self.change_peer(id, settings, now);
                    self.forget_if_gone(id, now);
                }
            }
        }
        self.advance(now);
    }

    /// Returns the settings of the peer with this address, or those that it would have if it connected.
    #[must_use]
    pub fn expected(&self, address: IpAddr) -> Option<&PeerConfig> {
        let named = self.by_address.get(&address).and_then(|id| self.peers.get(id)).map(|peer| &peer.config);
        named.or_else(|| Some(&self.range_of(address)?.settings))
    }

    fn range_of(&self, address: IpAddr) -> Option<&DynamicPeers> {
        let host = Cidr::host(address);
        self.dynamic
            .iter()
            .filter(|range| range.prefix.covers(&host))
            .max_by_key(|range| range.prefix.prefix_len())
    }

    /// Returns the peer that connects from an address, making one if it may come unannounced.
    pub(super) fn peer_for(&mut self, address: IpAddr, now: Instant) -> Result<PeerId, Refused> {
        if let Some(id) = self.by_address.get(&address) {
            return Ok(*id);
        }
        let range = self.range_of(address).ok_or(Refused::Unknown(address))?;
        let (prefix, settings) = (range.prefix, settings_for(range, address));
        let here = self.peers.values().filter(|peer| peer.came_by == Some(prefix)).count();
        if here >= range.limit as usize {
            return Err(Refused::Full { address, prefix, limit: range.limit });
        }
        if self.vacant.is_empty() && self.next_id >= NUMBERS {
            return Err(Refused::Exhausted(address));
        }
        self.add_peer(settings, now);
        let id = *self.by_address.get(&address).ok_or(Refused::Unknown(address))?;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.came_by = Some(prefix);
        }
        Ok(id)
    }

    /// Forgets a peer that came unannounced, once it is gone with everything it told. One that told too much is remembered
    /// for as long as it has to stay away.
    pub(super) fn forget_if_gone(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get(&id)
            && peer.came_by.is_some()
            && peer.lines.is_empty()
            && peer.session.state() < State::OpenSent
            && peer.retained == Retained::Nothing
            && peer.suspended == Suspended::No
        {
            self.remove_peer(peer.config.address, now);
        }
    }
}

fn settings_for(range: &DynamicPeers, address: IpAddr) -> PeerConfig {
    PeerConfig {
        address,
        name: format!("Dynamic_{}", address.to_string().replace(['.', ':'], "_")),
        initiation: Initiation::Passive,
        ..range.settings.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::super::{Reflection, SpeakerConfig};
    use super::*;
    use crate::session::ConnectionId;

    const US: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    #[expect(clippy::disallowed_methods, reason = "an arbitrary beginning of time")]
    fn beginning() -> Instant {
        Instant::now()
    }

    fn speaker(now: Instant) -> Speaker {
        let asn = calico_model::AsNumber::new(65001).unwrap();
        let mut speaker = Speaker::new(SpeakerConfig::new(asn, "10.0.0.1".parse().unwrap()), now);
        let settings = PeerConfig { reflection: Reflection::Client, ..PeerConfig::new(US, asn, asn) };
        let prefix = "10.1.0.0/16".parse().unwrap();
        speaker.set_dynamic_peers(vec![DynamicPeers { prefix, limit: 10, settings }], now);
        speaker
    }

    fn from(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a01_0000 + number).into()
    }

    #[test]
    fn who_connects_and_goes_without_a_word_leaves_nothing_behind() {
        let mut now = beginning();
        let mut speaker = speaker(now);
        let mut names: BTreeSet<ConnectionId> = BTreeSet::new();
        let mut before = None;
        for number in 0..1000 {
            now += Duration::from_millis(1);
            let connection = speaker.accept(from(number), US, now).unwrap();
            assert!(names.insert(connection), "a name is never used twice");
            if let Some(before) = before.replace(connection) {
                // What is late concerns nobody.
                speaker.closed(before, "late".to_owned(), now);
                speaker.receive(before, &[0; 19], now);
            }
            assert_eq!(speaker.status().len(), 1);
            speaker.closed(connection, "reset".to_owned(), now);
            while speaker.poll().is_some() {}
        }
        assert_eq!((speaker.next_id, speaker.vacant.len()), (2, 1));
        assert!(speaker.peers.is_empty() && speaker.deadlines.is_empty() && speaker.departed.is_empty());
        assert!(speaker.tables.clients.is_empty());
    }

    #[test]
    fn numbers_come_to_an_end_and_do_not_begin_anew() {
        let now = beginning();
        let mut speaker = speaker(now);
        speaker.next_id = NUMBERS - 1;
        speaker.accept(from(1), US, now).unwrap();
        assert_eq!(speaker.accept(from(2), US, now), Err(Refused::Exhausted(from(2))));
    }
}
