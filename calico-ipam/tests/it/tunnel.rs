//! The addresses of tunnel devices.

use calico_ipam::{PoolRef, TunnelKind};

use crate::common::{State, at, ipam, pool, store_with};

#[tokio::test]
async fn a_tunnel_keeps_its_address_and_moves_when_its_pool_is_no_longer_meant() {
    let store = store_with([pool("a", "10.0.0.0/28", 30), pool("b", "10.1.0.0/28", 30)]);
    let node = "n1".parse().unwrap();
    let b: PoolRef = "b".parse().unwrap();
    let first = ipam(&store).tunnel_address(&node, TunnelKind::Vxlan, &[], at(0)).await.unwrap();
    let again = ipam(&store).tunnel_address(&node, TunnelKind::Vxlan, &[], at(0)).await.unwrap();
    assert_eq!(first, again);
    let moved = ipam(&store).tunnel_address(&node, TunnelKind::Vxlan, &[b], at(0)).await.unwrap();
    assert_ne!(first, moved);
    // The former one is the node's until all know of the other.
    assert_eq!(State::read(&store).held(), 2);
    let again =
        ipam(&store).tunnel_address(&node, TunnelKind::Vxlan, &["b".parse().unwrap()], at(0)).await.unwrap();
    assert_eq!(again, moved);
    let released =
        ipam(&store).release_other_tunnel_addresses(&node, TunnelKind::Vxlan, moved, at(0)).await.unwrap();
    assert_eq!(released.released, [first]);
    let state = State::read(&store);
    state.check();
    assert_eq!(state.held(), 1);
    let found = ipam(&store).attributes(moved, at(0)).await.unwrap().unwrap();
    assert_eq!(found.handle.as_deref(), Some("vxlan-tunnel-addr-n1"));
    assert_eq!(found.attributes["type"], "vxlanTunnelAddress");
    ipam(&store).release_tunnel_address(&node, TunnelKind::Vxlan, at(0)).await.unwrap();
    assert_eq!(State::read(&store).held(), 0);
}

#[tokio::test]
async fn a_tunnel_that_cannot_move_keeps_its_address() {
    let store = store_with([pool("a", "10.0.0.0/28", 30), pool("full", "10.1.0.0/32", 32)]);
    let (node, other) = ("n1".parse().unwrap(), "n2".parse().unwrap());
    let full: PoolRef = "full".parse().unwrap();
    ipam(&store).tunnel_address(&other, TunnelKind::Vxlan, std::slice::from_ref(&full), at(0)).await.unwrap();
    let a: PoolRef = "a".parse().unwrap();
    let first = ipam(&store).tunnel_address(&node, TunnelKind::Vxlan, &[a], at(0)).await.unwrap();
    ipam(&store).tunnel_address(&node, TunnelKind::Vxlan, &[full], at(0)).await.unwrap_err();
    let held = ipam(&store).addrs_by_handle(&TunnelKind::Vxlan.handle(&node), at(0)).await.unwrap();
    assert_eq!(held, [first]);
    State::read(&store).check();
}

/// Other Calicos find and release the addresses by these names.
#[tokio::test]
async fn each_kind_of_tunnel_has_a_handle_and_a_type_of_its_own() {
    let store = store_with([pool("four", "10.0.0.0/28", 28), pool("six", "fd00::/112", 122)]);
    let node = "n1".parse().unwrap();
    for (kind, handle, note) in [
        (TunnelKind::Ipip, "ipip-tunnel-addr-n1", "ipipTunnelAddress"),
        (TunnelKind::Vxlan, "vxlan-tunnel-addr-n1", "vxlanTunnelAddress"),
        (TunnelKind::VxlanV6, "vxlan-v6-tunnel-addr-n1", "vxlanV6TunnelAddress"),
        (TunnelKind::Wireguard, "wireguard-tunnel-addr-n1", "wireguardTunnelAddress"),
        (TunnelKind::WireguardV6, "wireguard-v6-tunnel-addr-n1", "wireguardV6TunnelAddress"),
    ] {
        let addr = ipam(&store).tunnel_address(&node, kind, &[], at(0)).await.unwrap();
        assert_eq!(addr.is_ipv6(), handle.contains("v6"));
        let found = ipam(&store).attributes(addr, at(0)).await.unwrap().unwrap();
        assert_eq!((found.handle.as_deref(), found.attributes["type"].as_str()), (Some(handle), note));
        assert_eq!(found.attributes["node"], "n1");
    }
    State::read(&store).check();
}
