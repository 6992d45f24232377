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
    /// among them, or that nobody may come from any more, are removed; the others get its settings, and are reset only
    /// when the change needs it.
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
        self.regroup(now);
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
        let ranges = self.dynamic.iter().filter(|range| range.prefix.covers(&host));
        ranges.max_by_key(|range| range.prefix.prefix_len()).filter(|range| range.limit > 0)
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
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::super::{Reflection, SpeakerConfig};
    use super::*;
    use crate::session::{ConnectionId, Peering};
    use crate::wire::{self, Attributes, Dialect, HEADER_LEN, MessageType, Nlri, Prefix, Update, update};

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
    fn who_may_not_come_does_not_come_by_a_wider_prefix_either() {
        let now = beginning();
        let mut speaker = speaker(now);
        speaker.accept(from(1), US, now).unwrap();
        speaker.accept(from(2), US, now).unwrap();
        let mut ranges = speaker.dynamic.clone();
        let (prefix, settings) = (Cidr::host(from(1)), ranges[0].settings.clone());
        ranges.push(DynamicPeers { prefix, limit: 0, settings });
        speaker.set_dynamic_peers(ranges, now);
        let here: Vec<IpAddr> = speaker.status().iter().map(|peer| peer.address).collect();
        assert_eq!(here, [from(2)], "who is here already goes");
        assert_eq!(speaker.accept(from(1), US, now), Err(Refused::Unknown(from(1))));
        assert!(speaker.expected(from(1)).is_none() && speaker.expected(from(3)).is_some());
    }

    /// Brings up a session in which only IPv4 is spoken.
    fn comes(speaker: &mut Speaker, number: u32, now: Instant) -> ConnectionId {
        let connection = speaker.accept(from(number), US, now).unwrap();
        let mut open = vec![0xff; 16];
        open.extend([0, 29, 1, 4, 0xfd, 0xe9, 0, 90, 10, 1, (number >> 8) as u8, number as u8, 0]);
        speaker.receive(connection, &open, now);
        speaker.receive(connection, &wire::keepalive(), now);
        connection
    }

    fn announces(speaker: &mut Speaker, connection: ConnectionId, prefix: &str, med: u32, now: Instant) {
        let mut attributes = Attributes::originated("10.1.0.1".parse().unwrap());
        (attributes.local_pref, attributes.med) = (Some(100), Some(med));
        let prefix = Prefix::<Ipv4Addr>::of(prefix.parse().unwrap()).unwrap();
        let mut emit = |message: Vec<u8>, _: &[Nlri<Ipv4Addr>]| speaker.receive(connection, &message, now);
        let dialect = Dialect::plain(Peering::Internal);
        update::announce(&attributes, &[Nlri { prefix, path_id: 0 }], &dialect, &mut emit).unwrap();
    }

    /// Has a peer take everything, and remember the MED of every prefix.
    fn hears(
        speaker: &mut Speaker,
        connection: ConnectionId,
        believes: &mut BTreeMap<String, u32>,
        now: Instant,
    ) {
        let mut octets = Vec::new();
        speaker.transmit(connection, &mut octets, now);
        let mut rest = &octets[..];
        while let Some(frame) = wire::frame(rest, wire::MAX_MESSAGE).unwrap() {
            rest = &rest[HEADER_LEN + frame.body.len()..];
            if frame.kind == MessageType::Update {
                let update = Update::decode(frame.body, &Dialect::plain(Peering::Internal)).unwrap();
                for nlri in update.withdrawn.iter() {
                    believes.remove(&nlri.prefix.to_string());
                }
                for nlri in update.announced.iter() {
                    let med = update.attributes.as_ref().unwrap().med.unwrap();
                    believes.insert(nlri.prefix.to_string(), med);
                }
            }
        }
    }

    #[test]
    fn who_comes_after_one_that_told_routes_may_have_its_number_and_is_told_everything() {
        let mut now = beginning();
        let mut speaker = speaker(now);
        let feed = speaker.open_feed("", "");
        let stays = comes(&mut speaker, 0, now);
        announces(&mut speaker, stays, "20.0.0.0/24", 7, now);
        let mut believes = BTreeMap::new();
        for number in 1..300 {
            let guest = comes(&mut speaker, number, now);
            announces(&mut speaker, guest, "20.0.1.0/24", number, now);
            let mut guest_believes = BTreeMap::new();
            for _ in 0..4 {
                now += Duration::from_millis(25);
                speaker.timeout(now);
                hears(&mut speaker, stays, &mut believes, now);
                hears(&mut speaker, guest, &mut guest_believes, now);
            }
            assert_eq!(believes, BTreeMap::from([("20.0.1.0/24".to_owned(), number)]));
            assert_eq!(guest_believes, BTreeMap::from([("20.0.0.0/24".to_owned(), 7)]));
            // What is new is told at once, and what comes then not before some milliseconds have passed.
            announces(&mut speaker, guest, "20.0.1.0/24", 1000 + number, now);
            speaker.closed(guest, "reset".to_owned(), now);
            // Every other one is followed before anybody was told that its route is gone.
            if number % 2 == 0 {
                now += Duration::from_millis(25);
                speaker.timeout(now);
                hears(&mut speaker, stays, &mut believes, now);
                assert!(believes.is_empty());
            }
            speaker.feed(feed, &mut Vec::new(), Duration::ZERO);
            while speaker.poll().is_some() {}
        }
        assert_eq!((speaker.next_id, speaker.peers.len()), (4, 1));
    }

    #[test]
    fn who_comes_up_and_goes_at_once_and_tells_nothing_gives_its_number_back_too() {
        let mut now = beginning();
        let mut speaker = speaker(now);
        for number in 0..1000 {
            let connection = comes(&mut speaker, number, now);
            speaker.closed(connection, "reset".to_owned(), now);
            now += Duration::from_millis(5);
            while let Some(deadline) = speaker.deadline().filter(|deadline| *deadline <= now) {
                speaker.timeout(deadline);
            }
            while speaker.poll().is_some() {}
        }
        assert!(speaker.next_id <= 10, "as many as come in a round: {}", speaker.next_id);
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
