use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_model::{AsNumber, RouterId};
use proptest::prelude::*;

use super::*;
use crate::decision::{NextHop, NextHops, Source};
use crate::family::PerFamily;
use crate::filter::{Facts, Import, Policy, Program};
use crate::rib::Path;
use crate::rib::intern::Interner;
use crate::session::Peering;
use crate::speaker::SpeakerConfig;
use crate::speaker::config::{Exchange, NextHopMode, Reflection};
use crate::speaker::journal::Detail;
use crate::speaker::world::Tables;
use crate::wire::{self, Attributes, MAX_MESSAGE, Update};

type V4 = Ipv4Addr;

/// Small domains, so that everything happens to the same few destinations.
#[derive(Debug, Clone)]
enum Step {
    Announce { peer: u32, prefix: u8, path_id: u32, med: u32 },
    Withdraw { peer: u32, prefix: u8, path_id: u32 },
    Client(u32),
    NextHops(NextHops),
    Join(u32),
    Leave(u32),
    Refresh(u32),
    Move(u32),
    Take(u32, usize),
    Round,
}

fn step() -> impl Strategy<Value = Step> {
    let member = 1..4u32;
    prop_oneof![
        6 => (0..4u32, 0..4u8, 0..3u32, 0..3u32)
            .prop_map(|(peer, prefix, path_id, med)| Step::Announce { peer, prefix, path_id, med }),
        4 => (0..4u32, 0..4u8, 0..3u32)
            .prop_map(|(peer, prefix, path_id)| Step::Withdraw { peer, prefix, path_id }),
        1 => (1..4u32).prop_map(Step::Client),
        1 => next_hops().prop_map(Step::NextHops),
        2 => member.clone().prop_map(Step::Join),
        1 => member.clone().prop_map(Step::Leave),
        1 => member.clone().prop_map(Step::Refresh),
        1 => member.clone().prop_map(Step::Move),
        4 => (member, 1..400usize).prop_map(|(member, octets)| Step::Take(member, octets)),
        4 => Just(Step::Round),
    ]
}

/// Each path has the next hop of its number, of which two can be out of reach.
fn next_hops() -> impl Strategy<Value = NextHops> {
    let way = prop_oneof![Just(NextHop::Unreachable), (0..3u32).prop_map(NextHop::Cost)];
    proptest::collection::btree_map((0..2u8).prop_map(hop), way, 0..3).prop_map(NextHops::from_iter)
}

fn hop(number: u8) -> IpAddr {
    [10, 0, 1, number].into()
}

/// What a member believes, by path identifier: the MULTI_EXIT_DISC tells paths apart.
type Belief = BTreeMap<Nlri<V4>, u32>;

/// Two groups of internal peers, of clients that one prefix is kept from and of others, over one table.
struct Bench {
    tables: Tables,
    journal: Journal,
    groups: [Group; 2],
    home: BTreeMap<u32, usize>,
    beliefs: BTreeMap<u32, Belief>,
    several: bool,
}

fn key(reflection: Reflection, several: bool) -> GroupKey {
    GroupKey {
        peering: Peering::Internal,
        reflection,
        next_hop: NextHopMode::Auto,
        local_as: AsNumber::DEFAULT,
        local: PerFamily::default(),
        families: FamilySet::V4,
        narrow: false,
        ids: PerFamily { v4: several, v6: false },
        extended_next_hop: false,
        long_lived: true,
        max_len: MAX_MESSAGE,
        communities: Vec::new(),
        export: match reflection {
            Reflection::NonClient => Exchange::Everything,
            Reflection::Client => Exchange::Filtered(all_but(2)),
        },
        role: None,
    }
}

/// A policy that leaves out one prefix.
fn all_but(number: u8) -> Policy {
    let refused = [prefix(number).cidr()].into_iter().collect();
    let facts = Facts { peering: Peering::Internal, interfaces: None };
    Policy::new(Program::import(|_| Vec::new(), &facts, Import { refused }))
}

fn prefix(number: u8) -> Prefix<V4> {
    Prefix::of(format!("10.{number}.0.0/16").parse().unwrap()).unwrap()
}

impl Bench {
    fn new(several: bool) -> Self {
        let config = SpeakerConfig::new(AsNumber::DEFAULT, "10.0.0.1".parse().unwrap());
        let mut tables = Tables::new(&config);
        for peer in 1..4u8 {
            let router_id = RouterId::new([10, 0, 0, 10 + peer].into()).unwrap();
            let address = [172, 16, 0, peer].into();
            tables
                .sources
                .set(PeerId(peer.into()), Source { peering: Peering::Internal, router_id, address });
        }
        let group = |reflection| Group {
            stream_limit: 300,
            walk_limit: 200,
            piece: Piece { destinations: 2, octets: 100 },
            ..Group::new(key(reflection, several))
        };
        Self {
            tables,
            journal: Journal::default(),
            groups: [group(Reflection::NonClient), group(Reflection::Client)],
            home: BTreeMap::new(),
            beliefs: BTreeMap::new(),
            several,
        }
    }

    fn round(&mut self) {
        let journal = self.journal.take();
        let world = self.tables.world();
        self.groups.iter_mut().for_each(|group| group.round(&journal, &world, &world));
    }

    /// A member takes so many octets, and the rest of a message that it begins.
    fn take(&mut self, member: u32, octets: usize) {
        let Some(home) = self.home.get(&member) else { return };
        let mut out = Vec::new();
        self.groups[*home].offer(PeerId(member), &mut out, octets);
        out.truncate(octets);
        out.extend(self.groups[*home].take(PeerId(member), out.len()).rest);
        let dialect = self.groups[*home].key.dialect();
        let belief = self.beliefs.entry(member).or_default();
        let mut rest = &out[..];
        while let Some(frame) = wire::frame(rest, dialect.max_len_in).unwrap() {
            let update = Update::decode(frame.body, &dialect).unwrap();
            belief.retain(|nlri, _| !update.withdrawn.iter().any(|gone| gone == *nlri));
            let med = update.attributes.and_then(|a| a.med);
            belief.extend(update.announced.iter().map(|nlri| (nlri, med.unwrap())));
            rest = &rest[frame.len..];
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Announce { peer, prefix: number, path_id, med } => {
                let mut attributes = Attributes::originated(hop((path_id + peer) as u8));
                attributes.med = Some(med + 10 * peer + 100 * path_id);
                let path = Path::new(Interner::default().intern(&attributes).unwrap(), PeerId(peer), path_id);
                self.tables.names.give(PeerId(peer), path_id);
                let table = V4::table_mut(&mut self.tables.rib);
                let effect = table.insert(prefix(number), path, &self.tables.sources);
                self.journal.v4.note(prefix(number), (PeerId(peer), path_id), effect, Detail::EachPath);
            }
            Step::Withdraw { peer, prefix: number, path_id } => {
                let table = V4::table_mut(&mut self.tables.rib);
                let effect = table.remove(prefix(number), PeerId(peer), path_id, &self.tables.sources);
                self.journal.v4.note(prefix(number), (PeerId(peer), path_id), effect, Detail::EachPath);
            }
            Step::Client(peer) => {
                self.round();
                let before = self.tables.clients.clone();
                if !self.tables.clients.insert(PeerId(peer)) {
                    self.tables.clients.remove(&PeerId(peer));
                }
                let everything = Journal::of(&self.tables.rib, |_, _| true);
                let now = self.tables.world();
                let before = World { clients: &before, ..now };
                self.groups.iter_mut().for_each(|group| group.round(&everything, &before, &now));
            }
            Step::NextHops(next_hops) => {
                self.round();
                let changed = next_hops.differences(&self.tables.sources.next_hops);
                let (before, touched) = self.tables.set_next_hops(next_hops, &changed);
                let now = self.tables.world();
                let before = World { sources: &before, ..now };
                self.groups.iter_mut().for_each(|group| group.round(&touched, &before, &now));
            }
            Step::Join(member) => {
                if let std::collections::btree_map::Entry::Vacant(home) = self.home.entry(member) {
                    home.insert(0);
                    self.groups[0].join(PeerId(member), FamilySet::V4, Ending::EndOfRib);
                }
            }
            Step::Leave(member) => {
                if let Some(home) = self.home.remove(&member) {
                    self.groups[home].leave(PeerId(member));
                    self.beliefs.remove(&member);
                }
            }
            Step::Refresh(member) => {
                if let Some(home) = self.home.get(&member) {
                    self.groups[*home].join(PeerId(member), FamilySet::V4, Ending::EndOfRib);
                }
            }
            Step::Move(member) => {
                self.round();
                if let Some(home) = self.home.get_mut(&member) {
                    let left = self.groups[*home].hand_over(PeerId(member)).expect("a round let it in");
                    let by = self.groups[*home].key.clone();
                    *home = 1 - *home;
                    self.groups[*home].take_over(&by, vec![(PeerId(member), left)], &self.tables.world());
                }
            }
            Step::Take(member, octets) => self.take(member, octets),
            Step::Round => self.round(),
        }
    }

    /// What a member must believe in the end.
    fn truth(&self, member: u32) -> Belief {
        let world = self.tables.world();
        let key = &self.groups[self.home[&member]].key;
        let mut truth = Belief::new();
        for (prefix, paths) in V4::table(&self.tables.rib).iter() {
            let paths = if self.several { paths } else { &paths[..1] };
            let is_told = |path: &&Path| path.peer() != PeerId(member) && world.sources.reaches(path);
            let others = paths.iter().filter(is_told);
            for path in others.filter(|path| key.telling(prefix, path, &world).is_some()) {
                truth.insert(key.nlri(prefix, path, world.names), path.attributes.attributes().med.unwrap());
            }
        }
        truth
    }
}

fn check(several: bool, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut bench = Bench::new(several);
    steps.into_iter().for_each(|step| bench.step(step));
    let members: BTreeSet<u32> = bench.home.keys().copied().collect();
    // A member that walks is told two destinations in a round.
    for _ in 0..40 {
        bench.round();
        members.iter().for_each(|member| bench.take(*member, usize::MAX));
    }
    for member in members {
        prop_assert_eq!(&bench.beliefs[&member], &bench.truth(member), "member {}", member);
    }
    prop_assert!(bench.groups.iter().all(|group| group.stream.octets() <= group.stream_limit));
    Ok(())
}

#[test]
fn who_asks_again_and_again_is_told_everything_once_more() {
    let told_after = |questions: usize| {
        let mut bench = Bench::new(false);
        (0..4).for_each(|prefix| bench.step(Step::Announce { peer: 0, prefix, path_id: 0, med: 0 }));
        bench.step(Step::Join(1));
        bench.round();
        for _ in 0..questions {
            bench.step(Step::Refresh(1));
            bench.round();
        }
        let mut octets = 0;
        for _ in 0..40 {
            octets += bench.groups[0].octets();
            bench.take(1, usize::MAX);
            bench.round();
        }
        assert_eq!(bench.beliefs[&1], bench.truth(1));
        octets
    };
    assert_eq!(told_after(100), told_after(1));
}

#[test]
fn what_only_the_one_that_leaves_had_not_taken_is_dropped_with_the_next_round() {
    let mut bench = Bench::new(false);
    (1..3).for_each(|member| bench.step(Step::Join(member)));
    for _ in 0..3 {
        bench.round();
        (1..3).for_each(|member| bench.take(member, usize::MAX));
    }
    bench.step(Step::Announce { peer: 0, prefix: 0, path_id: 0, med: 0 });
    bench.round();
    bench.take(1, usize::MAX);
    bench.round();
    assert!(bench.groups[0].octets() > 0);
    bench.step(Step::Leave(2));
    assert!(bench.groups[0].has_work());
    bench.round();
    assert_eq!(bench.groups[0].octets(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_happens_a_member_ends_up_with_the_best_paths_of_others(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        check(false, steps)?;
    }

    #[test]
    fn whatever_happens_a_member_that_wants_every_path_ends_up_with_those_of_others(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        check(true, steps)?;
    }
}
