//! What the routes of a node are made of, indexed by who depends on what.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_model::resource::block::StoredBlock;
use calico_model::resource::{
    FelixConfiguration, Kind, Node, Object, ObjectId, Resource, ResourceKey, WorkloadEndpoint,
};
use calico_model::{Cidr, Family, InterfaceAddr, InterfaceName, Mac, NodeName, Snapshot, Update};

use crate::device::vxlan_mac;

/// A part of what is wanted that can be worked out by itself. No two places want the same entry of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// All routes to a destination, and the neighbour of a workload with that address.
    Prefix(Cidr),
    /// The settings of a workload's interface.
    Interface(InterfaceName),
    /// How another node is reached through a tunnel.
    Peer(NodeName),
}

/// What has to be worked out again.
#[derive(Debug, Clone, Default)]
pub(super) struct Dirty {
    pub(super) everything: bool,
    pub(super) places: BTreeSet<Place>,
}

impl Dirty {
    fn mark(&mut self, place: Place) {
        // Not worth the memory when all is done again anyway.
        if !self.everything {
            self.places.insert(place);
        }
    }

    pub(super) fn prefix(&mut self, prefix: Cidr) {
        self.mark(Place::Prefix(prefix));
    }

    fn all(&mut self) {
        self.everything = true;
        self.places.clear();
    }
}

/// One family's side of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Side {
    /// The node's own address.
    pub(super) addr: Option<InterfaceAddr>,
    /// The address of its VXLAN device.
    pub(super) tunnel: Option<IpAddr>,
    mac: Option<Mac>,
}

/// The far end of a VXLAN tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) tunnel: IpAddr,
    pub(super) mac: Mac,
    pub(super) underlay: IpAddr,
}

/// A node, as far as routes depend on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Site {
    v4: Side,
    v6: Side,
    /// The address of its IP-in-IP device.
    pub(super) ipip: Option<IpAddr>,
}

impl Site {
    fn of(node: &Node) -> Self {
        let bgp = node.bgp.as_ref();
        Self {
            v4: Side {
                addr: node.addr(Family::V4),
                tunnel: node.ipv4_vxlan_tunnel_addr.map(IpAddr::from),
                mac: node.vxlan_tunnel_mac,
            },
            v6: Side {
                addr: node.addr(Family::V6),
                tunnel: node.ipv6_vxlan_tunnel_addr.map(IpAddr::from),
                mac: node.vxlan_tunnel_mac_v6,
            },
            ipip: bgp.and_then(|bgp| bgp.ipv4_ipip_tunnel_addr).map(IpAddr::from),
        }
    }

    pub(super) fn side(&self, family: Family) -> &Side {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Returns the MAC address of the node's VXLAN device: a node that has not published it has the one that follows
    /// from its name.
    pub(super) fn mac(&self, name: &NodeName, family: Family) -> Mac {
        self.side(family).mac.unwrap_or_else(|| vxlan_mac(name, family))
    }

    pub(super) fn end(&self, name: &NodeName, family: Family) -> Option<End> {
        let side = self.side(family);
        let (tunnel, underlay) = (side.tunnel?, side.addr?.addr());
        Some(End { tunnel, mac: self.mac(name, family), underlay })
    }

    /// Marks the route to its end of the tunnel, which only IPv6 has.
    fn mark_far_end(&self, dirty: &mut Dirty) {
        self.v6.tunnel.into_iter().for_each(|addr| dirty.prefix(Cidr::host(addr)));
    }

    fn addrs(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [self.v4.addr, self.v6.addr].into_iter().flatten().map(|addr| addr.addr())
    }
}

/// A block, as far as routes depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holding {
    /// The node it belongs to.
    pub(super) host: Option<NodeName>,
    /// The addresses in it that live on other nodes.
    borrowed: BTreeMap<IpAddr, NodeName>,
    /// The addresses in it that two nodes have a claim to, with the one where each is active.
    moving: BTreeMap<IpAddr, NodeName>,
}

impl Holding {
    fn of(block: &StoredBlock) -> Self {
        Self {
            host: block.host().cloned(),
            borrowed: block.borrowed().collect(),
            moving: block.moving().collect(),
        }
    }

    /// Walks the addresses that need routes of their own, with the nodes where they live.
    fn apart(&self) -> impl Iterator<Item = (&IpAddr, &NodeName)> {
        self.borrowed.iter().chain(&self.moving)
    }

    /// Returns the node where an address lives that needs a route of its own.
    pub(super) fn home(&self, addr: IpAddr) -> Option<&NodeName> {
        self.moving.get(&addr).or_else(|| self.borrowed.get(&addr))
    }
}

/// A change of an index.
#[derive(Debug, Clone, Copy)]
enum Edit {
    Insert,
    Remove,
}

impl Edit {
    fn index<K: Ord, V: Ord + Clone>(self, map: &mut BTreeMap<K, BTreeSet<V>>, key: K, value: &V) {
        match (self, map.entry(key)) {
            (Edit::Insert, entry) => {
                entry.or_default().insert(value.clone());
            }
            (Edit::Remove, Entry::Occupied(mut entry)) => {
                entry.get_mut().remove(value);
                if entry.get().is_empty() {
                    entry.remove();
                }
            }
            (Edit::Remove, Entry::Vacant(_)) => {}
        }
    }
}

/// What the routes of a node are made of.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) node: NodeName,
    /// The pools and the configurations; nothing else.
    pub(super) rules: Snapshot,
    /// The networks of services' addresses.
    pub(super) services: Vec<Cidr>,
    pub(super) nodes: BTreeMap<NodeName, Site>,
    pub(super) node_addresses: BTreeMap<IpAddr, BTreeSet<NodeName>>,
    pub(super) tunnel_addresses: BTreeMap<IpAddr, BTreeSet<NodeName>>,
    tunnel_macs: BTreeMap<(Family, Mac), BTreeSet<NodeName>>,
    pub(super) blocks: BTreeMap<Cidr, Holding>,
    /// The destinations that lead to a node, each with the block that says so.
    led: BTreeMap<NodeName, BTreeSet<(Cidr, Cidr)>>,
    /// The blocks that hold an address which lives elsewhere, or may soon.
    pub(super) lent: BTreeMap<IpAddr, BTreeSet<Cidr>>,
    pub(super) workloads: BTreeMap<ObjectId, Object<WorkloadEndpoint>>,
    pub(super) claims: BTreeMap<IpAddr, BTreeSet<ObjectId>>,
    pub(super) interfaces: BTreeMap<InterfaceName, BTreeSet<ObjectId>>,
}

impl Known {
    pub(super) fn nothing(node: NodeName) -> Self {
        Self {
            node,
            rules: Snapshot::default(),
            services: Vec::new(),
            nodes: BTreeMap::new(),
            node_addresses: BTreeMap::new(),
            tunnel_addresses: BTreeMap::new(),
            tunnel_macs: BTreeMap::new(),
            blocks: BTreeMap::new(),
            led: BTreeMap::new(),
            lent: BTreeMap::new(),
            workloads: BTreeMap::new(),
            claims: BTreeMap::new(),
            interfaces: BTreeMap::new(),
        }
    }

    pub(super) fn of(snapshot: &Snapshot, node: &NodeName) -> Self {
        let mut known = Self::nothing(node.clone());
        // All is worked out once, so nothing needs to be marked.
        let mut dirty = Dirty { everything: true, places: BTreeSet::new() };
        known.rules.pools.clone_from(&snapshot.pools);
        known.rules.felix_configurations.clone_from(&snapshot.felix_configurations);
        known.rules.bgp_configurations.clone_from(&snapshot.bgp_configurations);
        known.services = known.rules.bgp_configuration().service_networks().collect();
        for (id, object) in &snapshot.nodes {
            known.set_node(id, Some(&object.spec), &mut dirty);
        }
        for block in snapshot.blocks.values() {
            known.set_block(block.cidr, Some(block), &mut dirty);
        }
        for (id, workload) in &snapshot.workloads {
            known.set_workload(id, Some(workload), &mut dirty);
        }
        known
    }

    /// Reports whether a destination is a block, or an address of one that lives elsewhere.
    pub(super) fn is_of_blocks(&self, destination: Cidr) -> bool {
        self.blocks.contains_key(&destination)
            || destination.is_host() && self.lent.contains_key(&destination.addr())
    }

    /// Returns where an address that two nodes have a claim to is active.
    pub(super) fn moving_to(&self, addr: IpAddr) -> Option<&NodeName> {
        let blocks = self.lent.get(&addr)?;
        blocks.iter().find_map(|block| self.blocks.get(block)?.moving.get(&addr))
    }

    pub(super) fn settings(&self) -> FelixConfiguration {
        self.rules.felix_configuration(&self.node)
    }

    /// Takes in one change of the datastore as [`Snapshot::apply`] does, and marks what depends on it.
    pub(super) fn apply(&mut self, update: &Update, dirty: &mut Dirty) {
        match update {
            Update::Put(resource) => self.put(resource, update, dirty),
            Update::Removed(key) => self.remove(key, update, dirty),
            Update::PutBlock(block) if !block.deleted => self.set_block(block.cidr, Some(block), dirty),
            Update::PutBlock(block) => self.set_block(block.cidr, None, dirty),
            Update::RemovedBlock(cidr) => self.set_block(*cidr, None, dirty),
            Update::Invalid { key, .. }
                if matches!(key.kind, Kind::FelixConfiguration | Kind::BgpConfiguration) =>
            {
                self.set_rule(update, dirty)
            }
            // What is invalid keeps its last good form.
            Update::Invalid { .. } | Update::InvalidBlock { .. } | Update::InSync => {}
            _ => dirty.all(),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "no other kind has a part in routes")]
    fn put(&mut self, resource: &Resource, update: &Update, dirty: &mut Dirty) {
        match resource {
            Resource::Node(object) => self.set_node(&object.id(), Some(&object.spec), dirty),
            Resource::WorkloadEndpoint(object) => self.set_workload(&object.id(), Some(object), dirty),
            Resource::IpPool(_) | Resource::FelixConfiguration(_) | Resource::BgpConfiguration(_) => {
                self.set_rule(update, dirty)
            }
            _ => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "no other kind has a part in routes")]
    fn remove(&mut self, key: &ResourceKey, update: &Update, dirty: &mut Dirty) {
        match key.kind {
            Kind::Node => self.set_node(&key.id, None, dirty),
            Kind::WorkloadEndpoint => self.set_workload(&key.id, None, dirty),
            Kind::IpPool | Kind::FelixConfiguration | Kind::BgpConfiguration => self.set_rule(update, dirty),
            _ => {}
        }
    }

    fn set_rule(&mut self, update: &Update, dirty: &mut Dirty) {
        let pools = |rules: &Snapshot| {
            let specs = rules.pools.iter().map(|(id, pool)| (id.clone(), pool.spec.clone()));
            specs.collect::<Vec<_>>()
        };
        let before = (self.settings(), pools(&self.rules), self.services.clone());
        self.rules.apply(update.clone());
        self.services = self.rules.bgp_configuration().service_networks().collect();
        if before != (self.settings(), pools(&self.rules), self.services.clone()) {
            dirty.all();
        }
    }

    fn set_node(&mut self, id: &ObjectId, node: Option<&Node>, dirty: &mut Dirty) {
        let Ok(name) = id.name.as_str().parse::<NodeName>() else { return };
        let site = node.map(Site::of);
        if self.nodes.get(&name) == site.as_ref() {
            return;
        }
        if name == self.node {
            dirty.all();
        }
        let before = match site.clone() {
            Some(site) => self.nodes.insert(name.clone(), site),
            None => self.nodes.remove(&name),
        };
        // Twice, because those who shared something with the node are concerned as well as those who share it now.
        self.mark_dependants(&name, before.as_ref(), dirty);
        self.index_node(&name, before.as_ref(), Edit::Remove);
        self.index_node(&name, site.as_ref(), Edit::Insert);
        self.mark_dependants(&name, site.as_ref(), dirty);
        dirty.mark(Place::Peer(name.clone()));
        self.led.get(&name).into_iter().flatten().for_each(|(prefix, _)| dirty.prefix(*prefix));
    }

    fn index_node(&mut self, name: &NodeName, site: Option<&Site>, edit: Edit) {
        let Some(site) = site else { return };
        site.addrs().for_each(|addr| edit.index(&mut self.node_addresses, addr, name));
        for family in Family::ALL {
            if let Some(end) = site.end(name, family) {
                edit.index(&mut self.tunnel_addresses, end.tunnel, name);
                edit.index(&mut self.tunnel_macs, (family, end.mac), name);
            }
        }
    }

    fn mark_dependants(&self, name: &NodeName, site: Option<&Site>, dirty: &mut Dirty) {
        let Some(site) = site.filter(|_| !dirty.everything) else { return };
        for addr in site.addrs() {
            // A destination may not cut off a node that is inside of it.
            for prefix in (0..=Family::of(addr).bits()).filter_map(|len| Cidr::holding(addr, len)) {
                if self.blocks.contains_key(&prefix) || prefix.is_host() {
                    dirty.prefix(prefix);
                }
            }
        }
        site.mark_far_end(dirty);
        for end in Family::ALL.into_iter().filter_map(|family| Some((family, site.end(name, family)?))) {
            for sharer in self.sharers(end.0, end.1).into_iter().flatten().filter(|sharer| *sharer != name) {
                dirty.mark(Place::Peer(sharer.clone()));
                self.nodes.get(sharer).into_iter().for_each(|site| site.mark_far_end(dirty));
                self.led.get(sharer).into_iter().flatten().for_each(|(prefix, _)| dirty.prefix(*prefix));
            }
        }
    }

    /// Returns the nodes that have the tunnel address of an end, and those that have its MAC address.
    pub(super) fn sharers(&self, family: Family, end: End) -> [&BTreeSet<NodeName>; 2] {
        static NONE: BTreeSet<NodeName> = BTreeSet::new();
        [
            self.tunnel_addresses.get(&end.tunnel).unwrap_or(&NONE),
            self.tunnel_macs.get(&(family, end.mac)).unwrap_or(&NONE),
        ]
    }

    fn set_block(&mut self, cidr: Cidr, block: Option<&StoredBlock>, dirty: &mut Dirty) {
        let holding = block.map(Holding::of);
        if self.blocks.get(&cidr) == holding.as_ref() {
            return;
        }
        dirty.prefix(cidr);
        let before = match holding.clone() {
            Some(holding) => self.blocks.insert(cidr, holding),
            None => self.blocks.remove(&cidr),
        };
        self.index_block(cidr, before.as_ref(), Edit::Remove, dirty);
        self.index_block(cidr, holding.as_ref(), Edit::Insert, dirty);
    }

    fn index_block(&mut self, cidr: Cidr, holding: Option<&Holding>, edit: Edit, dirty: &mut Dirty) {
        let Some(holding) = holding else { return };
        if let Some(host) = &holding.host {
            edit.index(&mut self.led, host.clone(), &(cidr, cidr));
        }
        for (addr, node) in holding.apart() {
            edit.index(&mut self.led, node.clone(), &(Cidr::host(*addr), cidr));
            edit.index(&mut self.lent, *addr, &cidr);
            dirty.prefix(Cidr::host(*addr));
        }
    }

    fn set_workload(&mut self, id: &ObjectId, object: Option<&Object<WorkloadEndpoint>>, dirty: &mut Dirty) {
        let object = object.filter(|object| object.spec.node == self.node);
        if self.workloads.get(id) == object {
            return;
        }
        let before = match object.cloned() {
            Some(object) => self.workloads.insert(id.clone(), object),
            None => self.workloads.remove(id),
        };
        self.index_workload(id, before.as_ref(), Edit::Remove, dirty);
        self.index_workload(id, object, Edit::Insert, dirty);
    }

    fn index_workload(
        &mut self,
        id: &ObjectId,
        object: Option<&Object<WorkloadEndpoint>>,
        edit: Edit,
        dirty: &mut Dirty,
    ) {
        let Some(spec) = object.map(|object| &object.spec) else { return };
        let Some(device) = &spec.interface_name else { return };
        edit.index(&mut self.interfaces, device.clone(), id);
        dirty.mark(Place::Interface(device.clone()));
        for addr in spec.ip_networks.iter().map(Cidr::addr) {
            edit.index(&mut self.claims, addr, id);
            dirty.prefix(Cidr::host(addr));
        }
    }
}
