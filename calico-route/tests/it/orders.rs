//! In whatever order changes are made, a real kernel ends the same.

use std::ops::Range;

use calico_model::resource::EncapMode;
use calico_route::netlink::Netlink;
use calico_route::{Change, Desired, diff};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::laws::{BLOCKS, Piece, known, lacks_tunnel, piece};
use crate::namespace::TestNamespace;

const TURNS: usize = 48;

fn machine() -> TestNamespace {
    let machine = TestNamespace::new();
    for name in ["eth0", "cali0", "cali1"] {
        machine.ip(&format!("link add {name} type veth peer name {name}p"));
        machine.ip(&format!("link set {name}p up"));
        machine.ip(&format!("link set {name} up"));
    }
    machine.ip("address add 172.16.0.10/24 dev eth0");
    machine.ip("route add default via 172.16.0.254");
    machine.ip("address add 2001:db8::10/64 dev eth0 nodad");
    machine.ip("-6 route add default via 2001:db8::254");
    machine
}

/// Reports whether all changes were made.
async fn are_made(netlink: &mut Netlink, changes: &[Change]) -> bool {
    netlink.apply(changes).await.iter().all(|outcome| outcome.result.is_ok())
}

async fn changes(netlink: &mut Netlink, desired: &Desired) -> Vec<Change> {
    diff(desired, &netlink.read(&desired.ownership).await.unwrap())
}

/// Lays what is wanted, in order.
async fn lay(netlink: &mut Netlink, desired: &Desired) {
    let orderly = changes(netlink, desired).await;
    for outcome in netlink.apply(&orderly).await {
        assert!(outcome.result.is_ok(), "{}: {:?}", outcome.change, outcome.result);
    }
}

fn listed(machine: &TestNamespace) -> Vec<String> {
    let commands = [
        "ip -o route show",
        "ip -o -6 route show",
        "ip neigh show nud permanent",
        "bridge fdb show",
        "ip -o -4 address show",
        "ip -o -6 address show",
    ];
    let mut lines: Vec<String> = commands
        .iter()
        .flat_map(|command| machine.run(command).lines().map(str::to_owned).collect::<Vec<_>>())
        // What the kernel makes of itself, multicast too, comes when a link is ready.
        .filter(|line| !["fe80::", "proto kernel", "33:33:"].iter().any(|own| line.contains(own)))
        // Links that are made anew have other numbers.
        .map(|line| match line.split_once(": ") {
            Some((number, rest)) if number.parse::<u32>().is_ok() => rest.to_owned(),
            _ => line,
        })
        .collect();
    lines.sort();
    lines
}

/// Pools of IP-in-IP would be refused where the kernel has none.
fn without_ipip(piece: Piece) -> Piece {
    if let Piece::Pool(pool, _, vxlan_mode) = piece {
        Piece::Pool(pool, EncapMode::Never, vxlan_mode)
    } else {
        piece
    }
}

fn pieces(count: Range<usize>) -> impl Strategy<Value = Vec<Piece>> {
    proptest::collection::vec(piece().prop_map(without_ipip), count)
}

/// What it takes to have routes of both families through tunnels, which is seldom drawn whole.
fn two_tunnels() -> Vec<Piece> {
    let pools = [0, 3].map(|pool| Piece::Pool(pool, EncapMode::Never, EncapMode::CrossSubnet));
    let nodes = [(0, 0), (2, 1)].map(|(node, tunnel)| Piece::Node(node, Some(tunnel), Some(tunnel)));
    let blocks = ["10.0.0.4/30", "fd00::4/126"];
    let blocks =
        blocks.map(|block| Piece::Block(BLOCKS.iter().position(|one| *one == block).unwrap(), 2, None));
    [&pools[..], &nodes, &blocks].concat()
}

/// From one thing that is known to another, and with nothing known before. What comes before the device that it needs is
/// refused, and done in the pass after; where nothing is, one pass is enough in any order.
#[tokio::test]
async fn any_order_of_the_same_changes_ends_in_the_same_kernel() {
    let machine = machine();
    let mut netlink = machine.connect();
    let mut runner = TestRunner::deterministic();
    let begun = (select(vec![Vec::new(), two_tunnels()]), pieces(8..24));
    let drawn = (
        begun.prop_map(|(begun, more)| [begun, more].concat()),
        pieces(1..12),
        proptest::collection::vec(any::<u16>(), 64),
    );
    // A tunnel that cannot be made as the datastore has it is left as it is where it is.
    let drawn = drawn.prop_filter("a tunnel that cannot be made", |(pieces, more, _)| {
        [&pieces[..], &[&pieces[..], more].concat()].iter().all(|pieces| !lacks_tunnel(&known(pieces)))
    });
    let (mut in_one_pass, mut made, mut wrapped) = (0, 0, [0, 0]);
    for turn in 0..TURNS {
        let (pieces, more, seed) = drawn.new_tree(&mut runner).unwrap().current();
        let (first, second) = (known(&pieces), known(&[pieces, more].concat()));
        lay(&mut netlink, &first).await;
        lay(&mut netlink, &second).await;
        let orderly = listed(&machine);
        for (count, way) in wrapped.iter_mut().zip([" via 10.0.9.", " via fd00::9:"]) {
            *count += u32::from(orderly.iter().any(|line| line.contains(way)));
        }
        if turn % 4 == 0 {
            assert!(netlink.cleanup(&first.ownership).await.unwrap().is_empty());
        } else {
            lay(&mut netlink, &first).await;
        }
        let mut shuffled: Vec<_> = changes(&mut netlink, &second).await.into_iter().enumerate().collect();
        shuffled.sort_by_key(|(at, _)| seed[at % seed.len()]);
        let shuffled: Vec<Change> = shuffled.into_iter().map(|(_, change)| change).collect();
        if are_made(&mut netlink, &shuffled).await {
            in_one_pass += 1;
            made += shuffled.len();
        } else {
            lay(&mut netlink, &second).await;
        }
        assert_eq!(
            listed(&machine),
            orderly,
            "{:?}",
            shuffled.iter().map(Change::to_string).collect::<Vec<_>>()
        );
    }
    println!("{in_one_pass} of {TURNS} in one pass, {made} changes, {wrapped:?}");
    assert!(in_one_pass >= TURNS / 3 && made >= 40, "{in_one_pass} of {TURNS}, {made} changes");
    assert!(
        wrapped.iter().all(|count| *count >= 3),
        "{wrapped:?} of {TURNS} with routes through the tunnels"
    );
}
