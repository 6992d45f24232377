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
    let state = State::read(&store);
    state.check();
    assert_eq!(state.held(), 1);
    let found = ipam(&store).attributes(moved, at(0)).await.unwrap().unwrap();
    assert_eq!(found.handle.as_deref(), Some("vxlan-tunnel-addr-n1"));
    assert_eq!(found.attributes["type"], "vxlanTunnelAddress");
    ipam(&store).release_tunnel_address(&node, TunnelKind::Vxlan, at(0)).await.unwrap();
    assert_eq!(State::read(&store).held(), 0);
}
