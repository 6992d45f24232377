//! A day in the life of 200 speakers in one process: random faults, and in between the same tables as a static computation.
//!
//! Three racks of 64 nodes, each with two reflectors that share a cluster id; the reflectors are meshed. Two routers of other
//! ASes have two nodes each as peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use calico_bgp::speaker::Reflection;
use calico_bgp::wire::HoldTime;
use calico_bgp::{SpeakerConfig, Start};
use calico_model::Cidr;

use crate::world::{Dice, World, ip, settings};

const RACKS: usize = 3;
const NODES: usize = 64;

struct Day {
    world: World,
    seed: u64,
    dice: Dice,
    nodes: Vec<String>,
    reflectors: Vec<String>,
    routers: Vec<String>,
    links: Vec<(String, String)>,
    own: BTreeMap<String, Vec<String>>,
    cut: Vec<(String, String)>,
}

impl Day {
    fn new(seed: u64) -> Self {
        let mut day = Self {
            world: World::new(),
            seed,
            dice: Dice(seed),
            nodes: Vec::new(),
            reflectors: Vec::new(),
            routers: vec!["10.200.0.1".to_owned(), "10.200.0.2".to_owned()],
            links: Vec::new(),
            own: BTreeMap::new(),
            cut: Vec::new(),
        };
        day.world.dice = Some((Dice(seed + 1), 40));
        for rack in 0..RACKS {
            let reflectors: Vec<String> = (1..=2).map(|n| format!("10.{rack}.1.{n}")).collect();
            for reflector in &reflectors {
                let mut config: SpeakerConfig = settings(reflector, 64512);
                config.cluster_id = Some([rack as u8 + 1, 0, 0, 0].into());
                day.world.add_with(reflector, config);
            }
            for node in (1..=NODES).map(|n| format!("10.{rack}.0.{n}")) {
                day.world.add(&node, 64512);
                for reflector in &reflectors {
                    day.link(&node, reflector, Reflection::Client);
                }
                day.own.insert(node.clone(), vec![format!("192.{rack}.{}.0/26", day.nodes.len() % NODES)]);
                day.nodes.push(node);
            }
            for (other, own) in
                day.reflectors.clone().iter().flat_map(|r| reflectors.iter().map(move |o| (r, o)))
            {
                day.link(other, own, Reflection::NonClient);
            }
            day.reflectors.extend(reflectors);
        }
        for (at, router) in day.routers.clone().iter().enumerate() {
            day.world.add(router, 65001 + at as u32);
            day.own.insert(router.clone(), vec![format!("10.20{at}.128.0/17")]);
            for node in [at, NODES + at] {
                let node = day.nodes[node].clone();
                day.link(&node, router, Reflection::NonClient);
            }
        }
        for (at, prefixes) in day.own.clone() {
            day.tell(&at, &prefixes);
        }
        day
    }

    /// Joins two speakers; the first may be a client of the second.
    fn link(&mut self, one: &str, other: &str, reflection: Reflection) {
        // Longer than usual, for fewer keepalives in a day.
        let hold_time = HoldTime::new(900).unwrap();
        self.world.join_one(one, other, |peer| peer.hold_time = hold_time);
        self.world.join_one(other, one, |peer| {
            peer.hold_time = hold_time;
            peer.reflection = reflection;
        });
        self.links.push((one.to_owned(), other.to_owned()));
    }

    fn tell(&mut self, at: &str, prefixes: &[String]) {
        self.own.insert(at.to_owned(), prefixes.to_vec());
        self.world.originate(at, &prefixes.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn fault(&mut self) {
        let (one, other) = self.dice.pick(&self.links).clone();
        match self.dice.roll(6) {
            0 | 1 => {
                self.world.cut(&one, &other);
                self.cut.push((one, other));
            }
            2 => self.world.break_connections(&one, &other),
            3 | 4 => {
                let at = if self.dice.roll(4) == 0 { other } else { one };
                let start = if self.dice.roll(2) == 0 { Start::Fresh } else { Start::Recovering };
                self.world.restart(&at, start);
                let prefixes = self.own.get(&at).cloned().unwrap_or_default();
                self.tell(&at, &prefixes);
            }
            _ => {
                // Some are told by several nodes, like a service's address.
                let at = self.dice.pick(&self.nodes).clone();
                let prefixes = (0..self.dice.roll(4))
                    .map(|_| format!("172.16.{}.0/24", self.dice.roll(20)))
                    .collect::<BTreeSet<_>>();
                let first = self.own[&at].first().cloned();
                let prefixes: Vec<String> =
                    first.into_iter().filter(|p| p.starts_with("192")).chain(prefixes).collect();
                self.tell(&at, &prefixes);
            }
        }
        if self.cut.len() > 8 || self.dice.roll(3) == 0 {
            self.mend_one();
        }
    }

    fn mend_one(&mut self) {
        if !self.cut.is_empty() {
            let at = self.dice.roll(self.cut.len() as u64) as usize;
            let (one, other) = self.cut.swap_remove(at);
            self.world.mend(&one, &other);
            // What was sent meanwhile is lost, which no stream survives.
            self.world.break_connections(&one, &other);
        }
    }

    /// Where each speaker sends packets when everything works, from who tells what and who peers with whom.
    fn expected(&self, at: &str) -> BTreeMap<Cidr, BTreeSet<IpAddr>> {
        let number = |address: &str| u32::from(address.parse::<std::net::Ipv4Addr>().unwrap());
        let peers_of = |router: &str| -> BTreeSet<IpAddr> {
            self.links.iter().filter(|(_, other)| other == router).map(|(node, _)| ip(node)).collect()
        };
        let mut tellers: BTreeMap<Cidr, Vec<&String>> = BTreeMap::new();
        for (teller, prefixes) in &self.own {
            prefixes
                .iter()
                .for_each(|prefix| tellers.entry(prefix.parse().unwrap()).or_default().push(teller));
        }
        let hops = |tellers: &Vec<&String>| -> Option<BTreeSet<IpAddr>> {
            if tellers.iter().any(|teller| *teller == at) {
                return None;
            }
            if self.routers.iter().any(|router| router == at) {
                return Some(peers_of(at));
            }
            // The reflectors tell the path of the lowest identifier.
            let best = tellers.iter().min_by_key(|teller| number(teller))?;
            let mut hops = BTreeSet::from([ip(best)]);
            // A reflector hears all of its own clients besides, and their paths are as good.
            if self.reflectors.iter().any(|reflector| reflector == at) {
                let rack = &at[..5];
                hops.extend(
                    tellers.iter().filter(|teller| teller.starts_with(rack)).map(|teller| ip(teller)),
                );
            }
            Some(hops)
        };
        tellers.iter().filter_map(|(prefix, tellers)| Some((*prefix, hops(tellers)?))).collect()
    }

    fn settle_and_compare(&mut self, hour: u64) {
        while !self.cut.is_empty() {
            self.mend_one();
        }
        // A cut that nobody noticed yet is noticed within the hold time.
        self.world.run_secs(20 * 60);
        for at in self.nodes.iter().chain(&self.reflectors).chain(&self.routers).cloned().collect::<Vec<_>>()
        {
            let learned = self.world.learned(&at);
            let got: BTreeMap<Cidr, BTreeSet<IpAddr>> = learned
                .iter()
                .map(|(cidr, route)| (*cidr, route.next_hops.iter().copied().collect()))
                .collect();
            let expected = self.expected(&at);
            let differ: Vec<String> = got
                .keys()
                .chain(expected.keys())
                .filter(|cidr| got.get(cidr) != expected.get(cidr))
                .map(|cidr| format!("{cidr}: {:?}, not {:?}", got.get(cidr), expected.get(cidr)))
                .collect();
            assert!(differ.is_empty(), "hour {hour}, seed {}, {at}: {differ:#?}", self.seed);
        }
    }
}

#[test]
fn two_hundred_speakers_come_to_the_computed_tables_again_and_again_through_a_day_of_faults() {
    live_through(4);
}

#[test]
fn and_so_they_do_through_another_day() {
    live_through(7);
}

#[test]
fn and_through_a_third_one() {
    live_through(1_000);
}

fn live_through(seed: u64) {
    let mut day = Day::new(seed);
    assert_eq!(day.world.speakers.len(), 200);
    let start = day.world.now;
    for hour in 0..24 {
        for _ in 0..4 {
            day.fault();
            let pause = day.dice.roll(500_000);
            day.world.run(Duration::from_millis(pause));
        }
        if hour % 4 == 3 {
            day.settle_and_compare(hour);
        }
        let end_of_hour = Duration::from_secs((hour + 1) * 3600);
        let left = end_of_hour.saturating_sub(day.world.now - start);
        day.world.run(left);
    }
    assert!(day.world.now - start >= Duration::from_secs(24 * 3600));
}
