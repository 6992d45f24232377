//! The prefixes that begin on a node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_model::name::NodeName;
use calico_model::resource::Node;
use calico_model::resource::block::StoredBlock;
use calico_model::snapshot::Snapshot;
use calico_model::{Cidr, Family};

use super::configuration::Configuration;
use super::{local_pref, services};
use crate::speaker::{Extent, Origination};

/// Decides the prefixes that begin at a node: its own blocks, whole, those of a single address while a workload or the node
/// itself has it; each address of its workloads that is in none of them; and the networks and addresses of services that are
/// advertised. Which of them a peer is told is its policy's decision.
/// An address that another node has a claim to as well, while a machine migrates, is told where it is active, before all
/// others.
#[must_use]
pub fn originated(snapshot: &Snapshot, node: &NodeName) -> BTreeMap<Cidr, Origination> {
    let configuration = Configuration::of(snapshot, node);
    let normal = configuration.normal_priority();
    let how = |metric: u32, extent| Origination {
        local_pref: local_pref(metric),
        extent,
        ..Origination::default()
    };
    let usual = |cidr: Cidr, extent| (cidr, how(normal[cidr.family()], extent));
    let blocks = snapshot.blocks.values().filter(|block| block.host() == Some(node) && !block.deleted);
    let workloads = snapshot.workloads.values().filter(|workload| workload.spec.node == *node);
    let own: Vec<&Cidr> = workloads.flat_map(|workload| &workload.spec.ip_networks).collect();
    let local = snapshot.node(node).into_iter().flat_map(Node::own_addrs);
    let held: BTreeSet<IpAddr> = own.iter().map(|net| net.addr()).chain(local).collect();
    let blocks = blocks.filter(|block| !block.cidr.is_host() || held.contains(&block.cidr.addr()));
    let apart = own.into_iter().filter_map(|net| {
        let metric = match told_apart(snapshot, node, net.addr())? {
            Priority::Normal => normal[net.family()],
            Priority::Elevated => elevated_metric(snapshot, node, net.family()),
        };
        Some((Cidr::host(net.addr()), how(metric, Extent::Itself)))
    });
    let services = services::told(snapshot, node).into_iter().map(|cidr| usual(cidr, Extent::Itself));
    services.chain(apart).chain(blocks.map(|block| usual(block.cidr, Extent::Block))).collect()
}

enum Priority {
    Normal,
    Elevated,
}

/// Decides whether a workload's address is told by itself; `None` where its block tells of it, or it is of no pool.
fn told_apart(snapshot: &Snapshot, node: &NodeName, addr: IpAddr) -> Option<Priority> {
    let pool = &snapshot.pool_of(&Cidr::host(addr))?.spec;
    let block = snapshot.blocks.get(&Cidr::holding(addr, pool.block_size)?).filter(|block| !block.deleted);
    let moving = |block: &StoredBlock| block.moving().find(|(its, _)| *its == addr).map(|(_, to)| to);
    if block.and_then(moving).as_ref() == Some(node) {
        return Some(Priority::Elevated);
    }
    let told = block.is_some_and(|block| block.host() == Some(node));
    (!told).then_some(Priority::Normal)
}

/// The kernel metric of the route to a machine where it is active, while it migrates.
fn elevated_metric(snapshot: &Snapshot, node: &NodeName, family: Family) -> u32 {
    const USUAL: u32 = 512;
    let felix = snapshot.felix_configuration(node);
    let metric = match family {
        Family::V4 => felix.ipv4_elevated_route_priority,
        Family::V6 => felix.ipv6_elevated_route_priority,
    };
    metric.unwrap_or(USUAL)
}
