use std::net::Ipv4Addr;

use calico_model::AsNumber;
use proptest::prelude::*;

use super::*;
use crate::rib::intern::Interner;
use crate::rib::{Choice, Table};
use crate::wire::{AsPath, Attributes, Origin, Prefix};

/// Small domains, so that paths are equal in many respects.
#[derive(Debug, Clone)]
struct Candidate {
    peer: u32,
    path_id: u32,
    next_hop: u8,
    local_pref: Option<u32>,
    path: Vec<u32>,
    origin: Origin,
    med: Option<u32>,
    originator: Option<u8>,
    clusters: usize,
    stale: bool,
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp)];
    (
        (0..6u32, 0..2u32, 0..3u8),
        proptest::option::of(99..102u32),
        proptest::collection::vec(1..4u32, 0..3),
        origin,
        proptest::option::of(0..3u32),
        proptest::option::of(1..4u8),
        0..2usize,
        proptest::bool::weighted(0.2),
    )
        .prop_map(
            |((peer, path_id, next_hop), local_pref, path, origin, med, originator, clusters, stale)| {
                Candidate {
                    peer,
                    path_id,
                    next_hop,
                    local_pref,
                    path,
                    origin,
                    med,
                    originator,
                    clusters,
                    stale,
                }
            },
        )
}

fn hop(number: u8) -> IpAddr {
    [10, 0, 1, number].into()
}

/// What is known of the candidates' next hops; often nothing.
fn next_hops() -> impl Strategy<Value = NextHops> {
    let way = prop_oneof![
        1 => Just(NextHop::Unreachable),
        2 => (0..3u32).prop_map(NextHop::Cost),
    ];
    let known = proptest::collection::btree_map((0..3u8).prop_map(hop), way, 0..4);
    known.prop_map(NextHops::from_iter)
}

fn path(candidate: &Candidate) -> Path {
    let numbers: Vec<AsNumber> = candidate.path.iter().map(|n| AsNumber::new(*n).unwrap()).collect();
    let mut attributes = Attributes::originated(hop(candidate.next_hop));
    attributes.local_pref = candidate.local_pref;
    attributes.as_path = AsPath::sequence(&numbers);
    attributes.origin = candidate.origin;
    attributes.med = candidate.med;
    attributes.change_extra(|extra| {
        extra.originator_id = candidate.originator.map(|id| [10, 0, 0, id].into());
        extra.cluster_list = vec![[1, 1, 1, 1].into(); candidate.clusters].into();
        if candidate.stale {
            extra.communities = [0xffff_0006].into();
        }
    });
    Path::new(Interner::default().intern(&attributes).unwrap(), PeerId(candidate.peer), candidate.path_id)
}

/// Peers 1 and 2 are in our AS, the others are not; 3 and 4 share an identifier.
fn sources() -> Sources {
    let mut sources = Sources::default();
    for peer in 1..6u32 {
        sources.set(
            PeerId(peer),
            Source {
                peering: if peer <= 2 { Peering::Internal } else { Peering::External },
                router_id: RouterId::new([10, 0, 0, if peer == 4 { 3 } else { peer as u8 }].into()).unwrap(),
                address: IpAddr::from([172, 16, 0, (10 - peer) as u8]),
            },
        );
    }
    sources
}

fn knowing(next_hops: NextHops) -> Sources {
    Sources { next_hops, ..sources() }
}

fn distinct(candidates: Vec<Candidate>) -> Vec<Path> {
    let by_name: BTreeMap<(u32, u32), Candidate> =
        candidates.into_iter().map(|c| ((c.peer, c.path_id), c)).collect();
    by_name.values().map(path).collect()
}

/// The choice as RFC 4271 writes it, pair by pair and without cleverness: a path is out when some path that reached
/// the same step beats it there; what survives a step goes to the next. Whose next hop cannot be reached does not take
/// part.
fn naive(paths: &[Path], sources: &Sources) -> Option<usize> {
    let way = |p: &Path| match p.peer() {
        PeerId::LOCAL => NextHop::Cost(0),
        _ => sources.next_hops.get(p.attributes.attributes().next_hop),
    };
    let cost = |p: &Path| match way(p) {
        NextHop::Cost(cost) => cost,
        NextHop::Unreachable => panic!("it does not take part"),
    };
    let source = |p: &Path| sources.get(p.peer());
    let id = |p: &Path| {
        let own = source(p).map(|s| s.router_id.addr());
        p.attributes.attributes().extra().originator_id.or(own).map_or(u32::MAX, u32::from)
    };
    let addr = |p: &Path| source(p).map(|s| s.address);
    type Beats<'a> = Box<dyn Fn(&Path, &Path) -> bool + 'a>;
    let preference = |p: &Path| p.attributes.attributes().local_pref.unwrap_or(100);
    let stale = |p: &Path| {
        let communities = p.attributes.attributes().communities();
        communities.contains(&calico_model::Community::Standard(0xffff, 6))
    };
    let as_path = |p: &Path| p.attributes.attributes().as_path;
    let med = |p: &Path| p.attributes.attributes().med.unwrap_or(0);
    let reflections = |p: &Path| p.attributes.attributes().extra().cluster_list.len();
    let external = |p: &Path| source(p).is_some_and(|s| s.peering == Peering::External);
    let steps: Vec<Beats<'_>> = vec![
        Box::new(|a, b| a.peer() == PeerId::LOCAL && b.peer() != PeerId::LOCAL),
        Box::new(|a, b| !stale(a) && stale(b)),
        Box::new(|a, b| preference(a) > preference(b)),
        Box::new(|a, b| as_path(a).hops() < as_path(b).hops()),
        Box::new(|a, b| a.attributes.origin < b.attributes.origin),
        Box::new(|a, b| as_path(a).neighbor() == as_path(b).neighbor() && med(a) < med(b)),
        Box::new(|a, b| external(a) && !external(b)),
        Box::new(|a, b| cost(a) < cost(b)),
        Box::new(|a, b| id(a) < id(b)),
        Box::new(|a, b| reflections(a) < reflections(b)),
        Box::new(|a, b| addr(a).is_some_and(|a| addr(b).is_none_or(|b| a < b))),
        Box::new(|a, b| a.path_id < b.path_id),
    ];
    let mut alive: Vec<usize> =
        (0..paths.len()).filter(|at| way(&paths[*at]) != NextHop::Unreachable).collect();
    for beats in steps {
        let before = alive.clone();
        alive.retain(|at| !before.iter().any(|other| beats(&paths[*other], &paths[*at])));
    }
    assert!(alive.len() <= 1, "the choice is total");
    alive.first().copied()
}

fn name(path: &Path) -> (PeerId, u32) {
    (path.peer(), path.path_id)
}

/// The best path that a table has, if it may be told.
fn told<'t>(table: &'t Table<Ipv4Addr>, prefix: Prefix<Ipv4Addr>, sources: &Sources) -> Option<&'t Path> {
    table.best(prefix).filter(|best| sources.reaches(best))
}

proptest! {
    #[test]
    fn the_best_path_is_that_of_the_naive_model_and_everyone_else_has_a_reason(
        candidates in proptest::collection::vec(candidate(), 1..7),
        next_hops in next_hops(),
    ) {
        let (paths, sources) = (distinct(candidates), knowing(next_hops));
        let expected = naive(&paths, &sources);
        prop_assert_eq!(best(&paths, &sources), expected);
        let reasons = explain(&paths, &sources);
        for (at, reason) in reasons.iter().enumerate() {
            prop_assert_eq!(reason.is_none(), Some(at) == expected);
            prop_assert_eq!(*reason == Some(Reason::Unreachable), !sources.reaches(&paths[at]));
        }
        let good = equally_good(&paths, &sources);
        prop_assert!(expected.is_none_or(|expected| good.contains(&expected)));
        prop_assert!(good.iter().all(|at| sources.reaches(&paths[*at])));
    }

    #[test]
    fn whatever_the_order_of_arrival_the_table_chooses_the_same_path(
        candidates in proptest::collection::vec(candidate(), 1..7).prop_map(distinct),
        order in any::<prop::sample::Index>(),
        withdrawn in candidate(),
        next_hops in next_hops(),
    ) {
        let sources = knowing(next_hops);
        let prefix = Prefix::<Ipv4Addr>::of("10.0.0.0/8".parse().unwrap()).unwrap();
        let expected = naive(&candidates, &sources).map(|at| name(&candidates[at]));
        let mut shuffled = candidates.clone();
        shuffled.rotate_left(order.index(candidates.len()));
        for paths in [candidates.clone(), candidates.iter().rev().cloned().collect(), shuffled] {
            let mut table = Table::default();
            let passing = path(&withdrawn);
            let stays = paths.iter().any(|p| name(p) == name(&passing));
            table.insert(prefix, passing.clone(), &sources);
            for path in paths {
                table.insert(prefix, path, &sources);
            }
            if !stays {
                table.remove(prefix, passing.peer(), passing.path_id, &sources);
            }
            prop_assert_eq!(told(&table, prefix, &sources).map(name), expected);
        }
    }

    #[test]
    fn every_change_of_a_table_says_what_it_did_to_the_choice(
        changes in proptest::collection::vec((candidate(), any::<bool>()), 1..30),
        turns in proptest::collection::vec(proptest::option::weighted(0.2, next_hops()), 30),
    ) {
        let mut sources = sources();
        let prefix = Prefix::<Ipv4Addr>::of("10.0.0.0/8".parse().unwrap()).unwrap();
        let mut table = Table::default();
        let mut held = BTreeMap::new();
        let good = |table: &Table<_>, sources: &Sources| -> std::collections::BTreeSet<_> {
            let paths = table.paths(prefix);
            let address = |at: usize| (name(&paths[at]), std::sync::Arc::as_ptr(&paths[at].attributes) as usize);
            equally_good(paths, sources).into_iter().map(address).collect()
        };
        for ((candidate, comes), turn) in changes.into_iter().zip(turns) {
            if let Some(next_hops) = turn {
                sources.next_hops = next_hops;
                table.choose_again(prefix, &sources);
                let all: Vec<Path> = held.values().cloned().collect();
                let expected = naive(&all, &sources).map(|at| name(&all[at]));
                prop_assert_eq!(told(&table, prefix, &sources).map(name), expected);
            }
            let path = path(&candidate);
            let before = table.best(prefix).cloned();
            let good_before = good(&table, &sources);
            let replaced = held.get(&name(&path)).cloned();
            let effect = if comes {
                held.insert(name(&path), path.clone());
                table.insert(prefix, path, &sources)
            } else {
                held.remove(&name(&path));
                table.remove(prefix, path.peer(), path.path_id, &sources)
            };
            let all: Vec<Path> = held.values().cloned().collect();
            prop_assert_eq!(all.len(), table.paths(prefix).len());
            let best = told(&table, prefix, &sources).map(name);
            prop_assert_eq!(best, naive(&all, &sources).map(|at| name(&all[at])));
            prop_assert_eq!(effect.held, i32::from(comes) - i32::from(replaced.is_some()));
            prop_assert_eq!(effect.replaced, replaced);
            if let Choice::Changed { before: told } = effect.choice {
                prop_assert_eq!(told, before);
            } else {
                prop_assert_eq!(table.best(prefix), before.as_ref());
                prop_assert!(effect.choice == Choice::SameBest || good(&table, &sources) == good_before);
            }
        }
    }
}

#[test]
fn med_is_settled_inside_each_neighbouring_as_first() {
    // The case that makes pairwise comparison depend on the order: a beats b, b beats c, c beats a.
    let make = |peer, neighbor, med, originator| Candidate {
        peer,
        path_id: 0,
        next_hop: 0,
        local_pref: None,
        path: vec![neighbor],
        origin: Origin::Igp,
        med: Some(med),
        originator: Some(originator),
        clusters: 0,
        stale: false,
    };
    let paths: Vec<Path> = [make(3, 1, 1, 3), make(4, 2, 0, 2), make(5, 1, 2, 1)].iter().map(path).collect();
    let reasons = explain(&paths, &sources());
    assert_eq!(reasons, [Some(Reason::RouterId), None, Some(Reason::Med)]);
}

#[test]
fn the_nearest_next_hop_wins_behind_another_as_and_before_the_router_id() {
    let make = |peer, next_hop| Candidate {
        peer,
        path_id: 0,
        next_hop,
        local_pref: None,
        path: vec![1],
        origin: Origin::Igp,
        med: None,
        originator: None,
        clusters: 0,
        stale: false,
    };
    let inside: Vec<Path> = [make(1, 0), make(2, 1)].iter().map(path).collect();
    let outside: Vec<Path> = [make(1, 1), make(3, 0)].iter().map(path).collect();
    let near = knowing([(hop(0), NextHop::Cost(10))].into_iter().collect());
    assert_eq!(explain(&inside, &sources()), [None, Some(Reason::RouterId)]);
    assert_eq!(explain(&inside, &near), [Some(Reason::InteriorCost), None]);
    assert_eq!(explain(&outside, &near), [Some(Reason::Internal), None]);
    assert_eq!(equally_good(&inside, &near), [1]);
    let gone = knowing([(hop(0), NextHop::Unreachable)].into_iter().collect());
    assert_eq!(explain(&outside, &gone), [None, Some(Reason::Unreachable)]);
    assert_eq!(explain(&outside[1..], &gone), [Some(Reason::Unreachable)]);
    assert_eq!(best(&outside[1..], &gone), None);
    let here = path(&make(0, 0));
    assert_eq!(explain(&[here], &gone), [None], "what begins here is not judged");
}
