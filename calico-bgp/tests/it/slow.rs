//! Peers that take less than they are told: what that costs the speaker, in octets that it holds.

use std::time::{Duration, Instant};

use calico_bgp::family::PerFamily;
use calico_bgp::session::{ConnectionId, Initiation, Peering, State};
use calico_bgp::wire::open::{AddPath, Feature};
use calico_bgp::wire::{
    self, Attributes, Dialect, MAX_MESSAGE, MessageType, Nlri, PathIds, Prefix, Update, update,
};
use calico_bgp::{Action, PeerConfig, Speaker};
use calico_model::Community;

use crate::hostile::{EVIL, GOOD, Rig, good_attributes, message, update as announcement};
use crate::world::{asn, beginning, ip, settings};

const US: &str = "10.0.0.1";
const TELLER: &str = "10.0.1.1";
const PEERS: u8 = 100;
const ROUTES: usize = 100_000;

/// A speaker, one peer that tells it many routes, and many that take what they like.
struct Stage {
    speaker: Speaker,
    now: Instant,
    teller: ConnectionId,
    peers: Vec<ConnectionId>,
    configs: Vec<PeerConfig>,
    add_path: AddPath,
    /// The most octets that were ever held.
    peak: usize,
}

fn prefix(number: usize) -> Nlri<std::net::Ipv4Addr> {
    let address = std::net::Ipv4Addr::from(0x1400_0000 | (number as u32) << 8);
    Nlri { prefix: Prefix::of(format!("{address}/24").parse().unwrap()).unwrap(), path_id: 0 }
}

impl Stage {
    fn new() -> Self {
        Self::with(AddPath::Neither)
    }

    fn with(add_path: AddPath) -> Self {
        let now = beginning();
        let mut speaker = Speaker::new(settings(US, 65001), now);
        let peer = |address: String, remote_as| {
            let mut peer = PeerConfig::new(ip(&address), asn(remote_as), asn(65001));
            peer.initiation = Initiation::Passive;
            peer.add_path = add_path;
            peer
        };
        let peers = (1..=PEERS).map(|at| peer(format!("10.0.2.{at}"), 65100 + u32::from(at)));
        let peers: Vec<PeerConfig> = peers.chain([peer(TELLER.to_owned(), 65002)]).collect();
        speaker.set_peers(peers.clone(), now);
        let teller = speaker.accept(ip(TELLER), ip(US), now).unwrap();
        let mut stage = Self { speaker, now, teller, peers: Vec::new(), configs: peers, add_path, peak: 0 };
        stage.establish(teller, TELLER, 65002);
        stage.take(teller, usize::MAX);
        stage
    }

    fn establish(&mut self, connection: ConnectionId, address: &str, remote_as: u32) {
        let open = wire::Open {
            asn: asn(remote_as),
            hold_time: wire::HoldTime::new(0).unwrap(),
            router_id: address.parse().unwrap(),
            capabilities: wire::Capabilities {
                four_octet_as: Some(asn(remote_as)),
                features: [Feature::RouteRefresh].into(),
                add_path: PerFamily { v4: self.add_path, v6: AddPath::Neither },
                ..Default::default()
            },
        };
        self.speaker.receive(connection, &open.encode(), self.now);
        self.speaker.receive(connection, &wire::keepalive(), self.now);
    }

    /// One more peer comes up.
    fn join(&mut self) {
        let at = self.peers.len() + 1;
        let address = format!("10.0.2.{at}");
        let connection = self.speaker.accept(ip(&address), ip(US), self.now).unwrap();
        self.establish(connection, &address, 65100 + at as u32);
        self.peers.push(connection);
    }

    /// The teller tells so many routes, each with attributes of its own.
    fn tell_each(&mut self, count: usize) {
        let mut attributes = Attributes::originated("10.0.1.1".parse().unwrap());
        attributes.as_path = attributes.as_path.prepend(asn(65002));
        let dialect = Dialect::plain(Peering::External);
        for number in 0..count {
            let own = (0..16).map(|at| number as u32 * 16 + at);
            attributes.change_extra(|extra| extra.communities = own.collect());
            let mut messages = Vec::new();
            update::announce(&attributes, &[prefix(number)], &dialect, |message, _| messages.push(message))
                .unwrap();
            self.speaker.receive(self.teller, &messages.concat(), self.now);
            self.look();
        }
    }

    /// The teller tells its routes, with this MULTI_EXIT_DISC.
    fn tell(&mut self, med: u32) {
        let mut attributes = Attributes::originated("10.0.1.1".parse().unwrap());
        attributes.as_path = attributes.as_path.prepend(asn(65002));
        attributes.med = Some(med);
        let routes: Vec<_> = (0..ROUTES).map(prefix).collect();
        let (mut messages, dialect) = (Vec::new(), Dialect::plain(Peering::External));
        update::announce(&attributes, &routes, &dialect, |message, _| messages.push(message)).unwrap();
        for message in messages {
            self.speaker.receive(self.teller, &message, self.now);
            self.look();
        }
    }

    /// Time passes: rounds happen.
    fn pass(&mut self) {
        for _ in 0..10 {
            self.now += Duration::from_millis(50);
            self.speaker.timeout(self.now);
            self.look();
        }
    }

    fn look(&mut self) {
        while let Some(action) = self.speaker.poll() {
            assert!(!matches!(action, Action::Close(_)));
        }
        self.peak = self.peak.max(self.speaker.octets_held());
    }

    /// A connection takes so many octets, or all there are.
    fn take(&mut self, connection: ConnectionId, most: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        let mut rounds = 0;
        while taken.len() < most && rounds < 3 {
            let part = most - taken.len();
            let offered = self.speaker.offer(connection, self.now, |octets| {
                taken.extend_from_slice(&octets[..part.min(octets.len())]);
                part.min(octets.len())
            });
            // More of the tables may come with the next round.
            rounds = if offered == 0 { rounds + 1 } else { 0 };
            if offered == 0 {
                self.pass();
            }
        }
        taken
    }
}

/// How many routes whole messages announce.
fn announced(octets: &[u8]) -> usize {
    let (mut rest, mut count) = (octets, 0);
    while let Some(frame) = wire::frame(rest, MAX_MESSAGE).unwrap() {
        if frame.kind == MessageType::Update {
            let update = Update::decode(frame.body, &Dialect::plain(Peering::External)).unwrap();
            count += update.announced.iter().count();
        }
        rest = &rest[frame.len..];
    }
    assert!(rest.is_empty(), "whole messages");
    count
}

#[test]
fn a_hundred_peers_that_join_late_and_take_nothing_cost_a_piece_of_the_table_each_at_most() {
    let mut stage = Stage::new();
    stage.tell(1);
    stage.pass();
    stage.take(stage.teller, usize::MAX);
    assert_eq!(stage.speaker.octets_held(), 0, "nobody else is told anything yet");
    for _ in 0..PEERS {
        stage.join();
        stage.pass();
    }
    // The whole table is five octets for each route, which each peer would hold: they came one by one.
    let (peers, table) = (usize::from(PEERS), ROUTES * 4);
    assert!(stage.peak < peers * table / 4, "{} octets", stage.peak);
    let last = stage.peers[peers - 1];
    let octets = stage.take(last, usize::MAX);
    assert_eq!(announced(&octets), ROUTES);
}

#[test]
fn a_hundred_stalled_peers_that_are_told_the_same_share_it_but_for_one_message_each() {
    let mut stage = Stage::new();
    for _ in 0..PEERS {
        stage.join();
    }
    stage.pass();
    for peer in stage.peers.clone() {
        stage.take(peer, usize::MAX);
    }
    stage.tell(1);
    stage.pass();
    let whole = stage.speaker.octets_held();
    // Each takes a part, and stops in the middle of a message.
    for (at, peer) in stage.peers.clone().into_iter().enumerate() {
        let taken = stage.take(peer, 10_001 + 1_000 * at);
        assert_eq!(taken.len(), 10_001 + 1_000 * at);
    }
    let held = stage.speaker.octets_held();
    assert!(held <= whole + usize::from(PEERS) * MAX_MESSAGE, "{whole} {held}");
    // What changes meanwhile is held once as well.
    for med in 2..6 {
        stage.tell(med);
        stage.pass();
    }
    assert!(stage.peak <= 5 * whole + usize::from(PEERS) * MAX_MESSAGE, "{whole} {} octets", stage.peak);
    for peer in stage.peers.clone() {
        stage.take(peer, usize::MAX);
    }
    stage.take(stage.teller, usize::MAX);
    stage.pass();
    assert_eq!(stage.speaker.octets_held(), 0, "nothing is kept of what everybody has");
}

#[test]
fn who_is_not_far_behind_goes_on_with_the_others_however_long_the_messages_are() {
    const ROUTES: usize = 30_000;
    let mut stage = Stage::new();
    stage.tell_each(ROUTES);
    stage.pass();
    stage.take(stage.teller, usize::MAX);
    stage.pass();
    stage.peak = stage.speaker.octets_held();
    stage.join();
    stage.join();
    let (fast, slow) = (stage.peers[0], stage.peers[1]);
    stage.pass();
    let mut told = [Vec::new(), Vec::new()];
    // One is always half of a megabyte ahead, or less at the end.
    let ahead = stage.take(fast, 500_000);
    told[0].extend(ahead);
    loop {
        stage.pass();
        let parts = [stage.take(fast, 100_000), stage.take(slow, 100_000)];
        let is_over = parts[1].is_empty();
        for (told, part) in told.iter_mut().zip(parts) {
            told.extend(part);
        }
        if is_over {
            break;
        }
    }
    assert_eq!(told.map(|octets| announced(&octets)), [ROUTES; 2], "each is told once");
    assert!(stage.peak < 1_500_000, "{} octets", stage.peak);
}

#[test]
fn a_hundred_peers_whose_settings_change_alike_are_told_of_it_together() {
    let mut stage = Stage::new();
    for _ in 0..PEERS {
        stage.join();
    }
    stage.tell(1);
    stage.pass();
    let table = stage.speaker.octets_held();
    for peer in stage.peers.clone() {
        stage.take(peer, usize::MAX);
    }
    stage.take(stage.teller, usize::MAX);
    stage.pass();
    assert_eq!(stage.speaker.octets_held(), 0);
    stage.peak = 0;
    let mut configs = stage.configs.clone();
    configs.iter_mut().for_each(|peer| peer.add_communities = vec![Community::Standard(65001, 7)]);
    stage.speaker.set_peers(configs, stage.now);
    stage.pass();
    // One message more for each prefix list that no longer fits.
    assert!(stage.peak < table + table / 10, "{} octets of a table of {table}", stage.peak);
    let told: Vec<usize> =
        stage.peers.clone().into_iter().map(|peer| announced(&stage.take(peer, usize::MAX))).collect();
    assert_eq!(told, vec![ROUTES; PEERS.into()]);

    stage.take(stage.teller, usize::MAX);
    stage.pass();
    stage.peak = 0;
    let mut own = stage.speaker.config().clone();
    own.default_local_pref = 7;
    stage.speaker.set_config(own, stage.now);
    stage.pass();
    // Each is also asked to tell everything itself.
    assert!(stage.peak < table + table / 10 + 2 * 23 * usize::from(PEERS), "{} octets", stage.peak);
    let last = stage.peers[0];
    assert_eq!(announced(&stage.take(last, usize::MAX)), ROUTES);
}

#[test]
fn who_takes_nothing_while_paths_come_and_go_without_end_is_given_up_and_the_others_are_not() {
    const AT_ONCE: u32 = 700;
    let mut stage = Stage::with(AddPath::Both);
    stage.join();
    stage.join();
    let fast = stage.peers[0];
    let dialect = {
        let plain = Dialect::plain(Peering::External);
        let ids = PerFamily { v4: PathIds::Present, v6: PathIds::Absent };
        Dialect { path_ids_out: ids, ..plain }
    };
    let mut attributes = Attributes::originated("10.0.1.1".parse().unwrap());
    attributes.as_path = attributes.as_path.prepend(asn(65002));
    let state = |stage: &Stage, at: usize| {
        let address = ip(&format!("10.0.2.{at}"));
        stage.speaker.status().into_iter().find(|peer| peer.address == address).unwrap()
    };
    let mut told = 0;
    while state(&stage, 2).state == State::Established {
        assert!(told < 200_000, "it is never given up");
        let paths: Vec<_> = (told..told + AT_ONCE)
            .map(|path_id| Nlri { path_id: path_id + 1, ..prefix(path_id as usize % 100) })
            .collect();
        told += AT_ONCE;
        for goes in [false, true] {
            let mut messages = Vec::new();
            let emit = |message, _: &[_]| messages.push(message);
            match goes {
                true => update::withdraw(&paths, &dialect, emit),
                false => update::announce(&attributes, &paths, &dialect, emit).unwrap(),
            }
            stage.speaker.receive(stage.teller, &messages.concat(), stage.now);
            stage.now += Duration::from_millis(50);
            stage.speaker.timeout(stage.now);
            while stage.speaker.poll().is_some() {}
            while stage.speaker.offer(fast, stage.now, <[u8]>::len) > 0 {}
        }
    }
    assert!(told > 100_000, "{told}");
    assert_eq!(state(&stage, 2).last_sent.as_deref(), Some("out of resources (6/8)"));
    assert_eq!(state(&stage, 1).state, State::Established);
}

/// A message has room for 1,018 prefixes of four octets.
#[test]
fn what_is_withdrawn_fills_messages_and_what_comes_and_goes_unheard_is_not_said() {
    let mut rig = Rig::new();
    rig.change(EVIL, |peer| peer.max_prefixes = None);
    let (evil, good) = (rig.establish(EVIL, 65066), rig.establish(GOOD, 65002));
    let prefixes: Vec<u8> =
        (0..3_000_u16).flat_map(|n| [24, 20, n.to_be_bytes()[0], n.to_be_bytes()[1]]).collect();
    let withdrawal = |prefixes: &[u8]| {
        let length = (prefixes.len() as u16).to_be_bytes();
        message(2, &[&length[..], prefixes, &[0, 0]].concat())
    };
    // What is said a second later, but for the ends of tables.
    let said = |rig: &mut Rig| {
        rig.now += Duration::from_secs(1);
        rig.speaker.timeout(rig.now);
        let updates = rig.sent(good).into_iter().filter(|(kind, _)| *kind == MessageType::Update);
        updates.map(|(_, body)| body).filter(|body| body.len() > 4).collect::<Vec<_>>()
    };
    for part in prefixes.chunks(400) {
        rig.receive(evil, &announcement(&good_attributes(65066), part));
    }
    let announced = said(&mut rig);
    assert!(announced.iter().map(Vec::len).sum::<usize>() > prefixes.len(), "all of them");
    assert!(announced.len() <= 4, "{} messages", announced.len());
    for part in prefixes.chunks(4) {
        rig.receive(evil, &withdrawal(part));
    }
    let withdrawn = said(&mut rig);
    assert!(withdrawn.len() <= 3, "{} messages", withdrawn.len());
    let octets =
        withdrawn.iter().map(|body| usize::from(u16::from_be_bytes([body[0], body[1]]))).sum::<usize>();
    assert_eq!(octets, prefixes.len());

    rig.receive(evil, &announcement(&good_attributes(65066), &prefixes[..400]));
    rig.receive(evil, &withdrawal(&prefixes[..400]));
    assert_eq!(said(&mut rig), Vec::<Vec<u8>>::new());
}
