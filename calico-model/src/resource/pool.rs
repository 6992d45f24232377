//! Where addresses come from.

use crate::net::{Cidr, Family};
use crate::selector::Selector;
use crate::wire::{Limit, Rules, wire_enum, wire_struct};

wire_enum! {
    /// When packets between nodes are encapsulated.
    pub enum EncapMode {
        /// Never: packets go by plain routing.
        Never = "Never",
        /// Always, also between nodes of one subnet.
        Always = "Always",
        /// Only between nodes of different subnets.
        CrossSubnet = "CrossSubnet",
    }
}

wire_enum! {
    /// What a pool's addresses may be used for.
    pub enum AllowedUse {
        /// Workloads.
        Workload = "Workload",
        /// The nodes' own tunnel devices.
        Tunnel = "Tunnel",
        /// Services of type LoadBalancer.
        LoadBalancer = "LoadBalancer",
    }
}

wire_enum! {
    /// Whether a pool serves requests that do not name it.
    pub enum AssignmentMode {
        /// It does.
        Automatic = "Automatic",
        /// Only requests that name it.
        Manual = "Manual",
    }
}

wire_struct! {
    /// An `IPPool`: a network that addresses are assigned from, and how its traffic travels.
    pub struct IpPool {
        /// The network. Cannot be changed later.
        cidr: Cidr = "cidr" required [Limit::Length(48)],
        /// The prefix length of a block, 20 to 32 for IPv4 (26 when unset), 116 to 128 for IPv6 (122 when unset).
        /// Cannot be changed later.
        block_size: u8 = "blockSize" derived(0),
        /// Whether IP-in-IP is used between nodes.
        ipip_mode: EncapMode = "ipipMode" default(EncapMode::Never),
        /// Whether VXLAN is used between nodes.
        vxlan_mode: EncapMode = "vxlanMode" default(EncapMode::Never),
        /// Whether packets that leave all pools get the node's own source address.
        nat_outgoing: bool = "natOutgoing" empty,
        /// Whether the pool is closed for new addresses.
        disabled: bool = "disabled" empty,
        /// Whether the pool's blocks are kept from BGP peers.
        disable_bgp_export: bool = "disableBGPExport" empty,
        /// Which nodes may claim blocks of the pool.
        node_selector: Selector = "nodeSelector" default(Selector::all()),
        /// Which namespaces' workloads may have addresses of the pool; `None` is all.
        namespace_selector: Option<Selector> = "namespaceSelector" optional,
        /// What the addresses may be used for.
        allowed_uses: Vec<AllowedUse> = "allowedUses" default(vec![AllowedUse::Workload, AllowedUse::Tunnel]) [Limit::Items(0, 10)],
        /// Whether requests that do not name the pool are served.
        assignment_mode: AssignmentMode = "assignmentMode" default(AssignmentMode::Automatic),
    }
    check = check_pool;
}

impl IpPool {
    /// Makes a pool with the defaults of its family: blocks of 64 addresses, no encapsulation, open to all nodes.
    #[must_use]
    pub fn new(cidr: Cidr) -> Self {
        Self {
            cidr,
            block_size: default_block_size(cidr.family()),
            ipip_mode: EncapMode::Never,
            vxlan_mode: EncapMode::Never,
            nat_outgoing: false,
            disabled: false,
            disable_bgp_export: false,
            node_selector: Selector::all(),
            namespace_selector: None,
            allowed_uses: vec![AllowedUse::Workload, AllowedUse::Tunnel],
            assignment_mode: AssignmentMode::Automatic,
        }
    }
}

fn default_block_size(family: Family) -> u8 {
    match family {
        Family::V4 => 26,
        Family::V6 => 122,
    }
}

/// Networks that no pool may touch: link-local addresses mean something else on every link.
const LINK_LOCAL: [&str; 2] = ["169.254.0.0/16", "fe80::/10"];

fn check_pool(pool: &mut IpPool, mut rules: Rules<'_, '_, '_>) {
    let family = pool.cidr.family();
    if pool.block_size == 0 {
        pool.block_size = default_block_size(family);
    }
    if pool.allowed_uses.is_empty() {
        pool.allowed_uses = IpPool::new(pool.cidr).allowed_uses;
    }
    let sizes = match family {
        Family::V4 => 20..=32,
        Family::V6 => 116..=128,
    };
    if !sizes.contains(&pool.block_size) {
        let rule = format!("must be from {} to {} in an {family} pool", sizes.start(), sizes.end());
        rules.broken("blockSize", &["blockSize", "cidr"], rule);
    } else if pool.cidr.prefix_len() > pool.block_size && !pool.disabled {
        let rule = format!("must hold at least one block of /{}", pool.block_size);
        rules.broken("cidr", &["cidr", "blockSize", "disabled"], rule);
    }
    if LINK_LOCAL.iter().any(|net| net.parse().is_ok_and(|net: Cidr| net.overlaps(&pool.cidr))) {
        rules.wrong("cidr", "must not overlap a link-local network");
    }
    let ipip = pool.ipip_mode != EncapMode::Never;
    if ipip && pool.vxlan_mode != EncapMode::Never {
        rules.broken("ipipMode", &["ipipMode", "vxlanMode"], "must be Never when vxlanMode is not");
    }
    if ipip && family == Family::V6 {
        rules.broken("ipipMode", &["ipipMode", "cidr"], "must be Never in an IPv6 pool");
    }
    for (key, selector) in
        [("nodeSelector", Some(&pool.node_selector)), ("namespaceSelector", pool.namespace_selector.as_ref())]
    {
        if selector.is_some_and(Selector::uses_global) {
            rules.wrong(key, "must not use global()");
        }
    }
    if pool.allowed_uses.contains(&AllowedUse::Tunnel) && pool.namespace_selector.is_some() {
        let rule = "must be absent when allowedUses has Tunnel";
        rules.broken("namespaceSelector", &["allowedUses"], rule);
    }
    if pool.allowed_uses.contains(&AllowedUse::LoadBalancer) {
        check_load_balancer(pool, &mut rules);
    }
}

fn check_load_balancer(pool: &IpPool, rules: &mut Rules<'_, '_, '_>) {
    if pool.allowed_uses.len() > 1 {
        rules.wrong("allowedUses", "must have no other use beside LoadBalancer");
    }
    for (key, mode) in [("ipipMode", pool.ipip_mode), ("vxlanMode", pool.vxlan_mode)] {
        if mode != EncapMode::Never {
            let rule = "must be Never when allowedUses is LoadBalancer";
            rules.broken(key, &["allowedUses", key], rule);
        }
    }
    if pool.disable_bgp_export {
        let rule = "must not be set when allowedUses is LoadBalancer";
        rules.broken("disableBGPExport", &["allowedUses", "disableBGPExport"], rule);
    }
    if !pool.node_selector.is_all() {
        let rule = "must be all() when allowedUses is LoadBalancer";
        rules.broken("nodeSelector", &["allowedUses", "nodeSelector"], rule);
    }
}

wire_struct! {
    /// An `IPReservation`: addresses that are never assigned automatically.
    pub struct IpReservation {
        /// The networks that hold the addresses.
        reserved_cidrs: Vec<Cidr> = "reservedCIDRs" empty,
    }
}
