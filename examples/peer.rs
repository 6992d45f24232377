//! Two BGP speakers in one process: their octets go through memory instead of sockets, and time is a number we turn.
//!
//! `cargo run --example peer`

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use calico_bgp::session::{ConnectionId, Initiation};
use calico_bgp::{Action, Event, Origination, PeerConfig, Speaker, SpeakerConfig};
use calico_model::AsNumber;

/// Both speakers, and which connection of one is which connection of the other.
struct Wire {
    speakers: BTreeMap<IpAddr, Speaker>,
    other_end: BTreeMap<(IpAddr, ConnectionId), (IpAddr, ConnectionId)>,
}

impl Wire {
    /// Carries out what one speaker wants; reports whether there was anything.
    fn act(&mut self, at: IpAddr, now: Instant) -> bool {
        let Some(action) = self.speakers.get_mut(&at).and_then(Speaker::poll) else { return false };
        match action {
            Action::Dial { connection, peer } => {
                let there = self.speakers.get_mut(&peer.address).map(|s| s.accept(at, peer.address, now));
                let here = self.speakers.get_mut(&at);
                match (there, here) {
                    (Some(Ok(accepted)), Some(here)) => {
                        self.other_end.insert((at, connection), (peer.address, accepted));
                        self.other_end.insert((peer.address, accepted), (at, connection));
                        here.connected(connection, at, now);
                    }
                    (_, Some(here)) => here.refused(connection, "nobody there".to_owned(), now),
                    (_, None) => {}
                }
            }
            Action::Wake(connection) => {
                let mut octets = Vec::new();
                if let Some(speaker) = self.speakers.get_mut(&at) {
                    speaker.transmit(connection, &mut octets, now);
                }
                let end = self.other_end.get(&(at, connection)).copied();
                if let Some((address, name)) = end.filter(|_| !octets.is_empty()) {
                    println!("  {at} -> {address}: {} octets", octets.len());
                    if let Some(other) = self.speakers.get_mut(&address) {
                        other.receive(name, &octets, now);
                    }
                    // There may be more to take: ask once more, as a socket would that took everything.
                    if let Some(speaker) = self.speakers.get_mut(&at) {
                        speaker.transmit(connection, &mut Vec::new(), now);
                    }
                }
            }
            Action::Close(connection) => {
                if let Some((address, name)) = self.other_end.remove(&(at, connection))
                    && let Some(other) = self.speakers.get_mut(&address)
                {
                    other.closed(name, "the other side closed".to_owned(), now);
                }
            }
            Action::Event(Event::Up(peer)) => println!("  {at}: session with {peer} is established"),
            // Nobody here is watched by BFD or watches us by BMP.
            Action::Event(_)
            | Action::Watch { .. }
            | Action::Unwatch(_)
            | Action::WakeFeed(_)
            | Action::CloseFeed(_)
            | _ => {}
        }
        true
    }

    /// Lets a second pass.
    fn run(&mut self, from: Instant) {
        let end = from + Duration::from_secs(1);
        let mut now = from;
        loop {
            let addresses: Vec<IpAddr> = self.speakers.keys().copied().collect();
            while addresses.iter().any(|at| self.act(*at, now)) {}
            match self.speakers.values().filter_map(Speaker::deadline).min() {
                Some(at) if at <= end => now = now.max(at),
                _ => return,
            }
            self.speakers.values_mut().for_each(|speaker| speaker.timeout(now));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the example's beginning of time")]
fn beginning() -> Instant {
    Instant::now()
}

fn main() -> Result<(), Box<dyn Error>> {
    let now = beginning();
    let asn = AsNumber::DEFAULT;
    let mut wire = Wire { speakers: BTreeMap::new(), other_end: BTreeMap::new() };
    for (own, other, block, initiation) in [
        ("172.16.6.10", "172.16.6.11", "192.168.0.0/26", Initiation::Active),
        ("172.16.6.11", "172.16.6.10", "192.168.0.64/26", Initiation::Passive),
    ] {
        let mut peer = PeerConfig::new(other.parse()?, asn, asn);
        peer.initiation = initiation;
        let mut speaker = Speaker::new(SpeakerConfig::new(asn, own.parse()?), now);
        speaker.set_originated([(block.parse()?, Origination::default())].into(), now);
        speaker.set_peers(vec![peer], now);
        wire.speakers.insert(own.parse()?, speaker);
    }

    println!("on the wire:");
    wire.run(now);

    for (address, speaker) in &wire.speakers {
        println!("\n{address}:");
        for peer in speaker.status() {
            println!("  peer {} is {}, {} prefixes in", peer.address, peer.state, peer.prefixes_in.v4);
        }
        for (prefix, route) in speaker.learned().into_iter().flatten() {
            let gateways: Vec<String> = route.next_hops.iter().map(ToString::to_string).collect();
            let metric = route.priority.map_or(String::new(), |metric| format!(" metric {metric}"));
            println!("  learned {prefix} via {}{metric}", gateways.join(", "));
        }
    }
    Ok(())
}
