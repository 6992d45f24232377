//! IPv6 routes by way of a gateway, which the kernel refuses while another route leads elsewhere with the gateway, on a kernel
//! in memory that does the same.

use calico_model::learned::LearnedRoutes;
use calico_model::resource::EncapMode;
use calico_model::{InterfaceName, Snapshot};
use calico_route::fake::FakeKernel;
use calico_route::{compute, diff};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::cluster::{block, dual_stack, learn, lend, node, node_name, pool};

/// What is told of a cluster of three nodes at one time.
#[derive(Debug, Clone)]
struct State {
    vxlan: EncapMode,
    /// The addresses of the second node and of its tunnel, when it is there.
    peer: Option<(&'static str, &'static str)>,
    /// The ordinals of the first block's addresses that live on the second node.
    lent: Vec<usize>,
    learned: Vec<(&'static str, &'static str)>,
}

fn state() -> impl Strategy<Value = State> {
    let vxlan = select(vec![EncapMode::Never, EncapMode::Always, EncapMode::CrossSubnet]);
    let addrs = select(vec!["2001:db8::2/64", "2001:db8:1::2/64"]);
    // In a block of its own, borrowed from each of the other nodes, and in no block.
    let tunnels = select(vec!["fd00::4", "fd00::2", "fd00::9", "fd00::99"]);
    let learned = vec![
        ("fd00::/8", "2001:db8::ff"),
        ("2001:db8::2/128", "2001:db8::ff"),
        ("2001:db8::ff/128", "2001:db8::fe"),
        ("2001:db8:1::/64", "2001:db8::3"),
        ("::/0", "2001:db8::3"),
    ];
    (
        vxlan,
        proptest::option::weighted(0.8, (addrs, tunnels)),
        subsequence(vec![1, 2], 0..=2),
        subsequence(learned, 0..=5),
    )
        .prop_map(|(vxlan, peer, lent, learned)| State { vxlan, peer, lent, learned })
}

fn told(state: &State) -> (Snapshot, LearnedRoutes) {
    let mut snapshot = Snapshot::default();
    pool(&mut snapshot, "fd00::/64", EncapMode::Never, state.vxlan);
    let mut add = |name: &str, addr: &str, tunnel: &str| {
        node(&mut snapshot, name, "172.16.6.1/24", "192.168.0.0");
        dual_stack(&mut snapshot, name, addr, tunnel);
    };
    add("node1", "2001:db8::1/64", "fd00::");
    add("node3", "2001:db8:3::3/64", "fd00::8");
    if let Some((addr, tunnel)) = state.peer {
        add("node2", addr, tunnel);
    }
    for (cidr, name) in [("fd00::/126", "node1"), ("fd00::4/126", "node2"), ("fd00::8/126", "node3")] {
        block(&mut snapshot, cidr, name);
    }
    state.lent.iter().for_each(|ordinal| lend(&mut snapshot, "fd00::/126", *ordinal, "node2"));
    let mut learned = LearnedRoutes::new();
    state.learned.iter().for_each(|(prefix, hop)| learn(&mut learned, prefix, &[hop]));
    (snapshot, learned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_refuses_nothing_on_any_way_from_state_to_state(states in proptest::collection::vec(state(), 1..5)) {
        let mut kernel = FakeKernel::default();
        let eth0: InterfaceName = "eth0".parse().unwrap();
        kernel.add_link(&eth0, &["172.16.6.1/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()]);
        for state in &states {
            let (snapshot, learned) = told(state);
            let desired = compute(&snapshot, &node_name("node1"), &learned);
            let changes = diff(&desired, &kernel.read(&desired.ownership));
            for (change, result) in changes.iter().zip(kernel.apply(&changes)) {
                prop_assert_eq!(result, Ok(()), "{} of {:?}", change, changes);
            }
            prop_assert_eq!(diff(&desired, &kernel.read(&desired.ownership)), vec![]);
        }
    }
}
