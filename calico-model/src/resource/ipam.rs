//! IPAM's data as resources of the v3 API.
//!
//! In an etcd or SQLite datastore the living data is under `/calico/ipam/v2/` (see [`block`](super::block)); these kinds
//! are how the v3 API shows it, and how a user sets the configuration.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::name::NodeName;
use crate::net::Cidr;
use crate::wire::{Limit, Rules, wire_enum, wire_struct};

use super::block::{AffinityState, Owner, StoredIpamConfig};

wire_enum! {
    /// A feature that is on or off.
    pub enum Switch {
        /// On.
        Enabled = "Enabled",
        /// Off.
        Disabled = "Disabled",
    }
}

wire_struct! {
    /// The `IPAMConfiguration`, of which there is one, named `default`.
    pub struct IpamConfiguration {
        /// Whether a node takes addresses only from its own blocks.
        strict_affinity: bool = "strictAffinity" default(false),
        /// How many blocks a node may have in each family; 0 is unlimited.
        max_blocks_per_host: u32 = "maxBlocksPerHost" default(0) [Limit::Range(0, 1_000_000)],
        /// Whether a node may claim further blocks.
        auto_allocate_blocks: bool = "autoAllocateBlocks" default(true),
        /// Whether a KubeVirt machine keeps its address.
        kube_virt_vm_address_persistence: Option<Switch> = "kubeVirtVMAddressPersistence" optional,
        /// For how many seconds a released address is not assigned again.
        ip_cooldown_seconds: Option<u32> = "ipCooldownSeconds" optional [Limit::Range(0, 1200)],
    }
    check = check_configuration;
}

impl IpamConfiguration {
    /// The only name there is.
    pub const NAME: &'static str = "default";

    /// Returns the form that IPAM keeps under its own key, beside fields that are kept for others.
    pub(crate) fn stored(&self, unknown: Map<String, Value>) -> StoredIpamConfig {
        StoredIpamConfig {
            strict_affinity: self.strict_affinity,
            auto_allocate_blocks: self.auto_allocate_blocks,
            max_blocks_per_host: self.max_blocks_per_host,
            ip_cooldown_seconds: self.ip_cooldown_seconds.unwrap_or_default(),
            kube_virt_vm_address_persistence: self
                .kube_virt_vm_address_persistence
                .map(|switch| switch.as_str().to_owned()),
            unknown,
        }
    }
}

wire_enum! {
    /// What kind of owner an affinity has.
    pub enum AffinityType {
        /// A node.
        Host = "host",
        /// Something that is no node.
        Virtual = "virtual",
    }
}

wire_struct! {
    /// A `BlockAffinity`: the claim of a block by a node.
    pub struct BlockAffinity {
        /// How far the claim has come: `confirmed`, `pending` or `pendingDeletion`.
        state: AffinityState = "state" default(AffinityState::Confirmed),
        /// The node.
        node: NodeName = "node" required,
        /// What kind of owner it is.
        owner_type: Option<AffinityType> = "type" optional,
        /// The block.
        cidr: Cidr = "cidr" required,
        /// Whether the claim is being deleted.
        deleted: bool = "deleted" default(false),
    }
}

wire_struct! {
    /// An `IPAMBlock`: a block of addresses and what each is used for.
    pub struct IpamBlock {
        /// The block's network.
        cidr: Cidr = "cidr" required,
        /// Who it belongs to.
        affinity: Option<Owner> = "affinity" optional,
        /// When it was claimed, in RFC 3339.
        affinity_claim_time: Option<String> = "affinityClaimTime" optional,
        /// For each address, which of the attributes it has; null is free.
        allocations: Vec<Option<u32>> = "allocations" empty,
        /// The free addresses, the one that is free longest first.
        unallocated: Vec<u32> = "unallocated" empty,
        /// Whose the allocations are.
        attributes: Vec<AllocationAttribute> = "attributes" empty,
        /// Grows with every assignment and release.
        sequence_number: u64 = "sequenceNumber" default(0),
        /// For each allocated address, the sequence number at which it was assigned.
        sequence_number_for_allocation: BTreeMap<String, u64> = "sequenceNumberForAllocation" empty,
        /// Whether the block is being deleted.
        deleted: bool = "deleted" default(false),
        /// Deprecated by the IPAM configuration's.
        strict_affinity: Option<bool> = "strictAffinity" optional,
    }
}

wire_struct! {
    /// Whose an allocation is.
    pub struct AllocationAttribute {
        /// The handle it can be released by.
        handle_id: Option<String> = "handle_id" optional,
        /// Notes.
        secondary: BTreeMap<String, String> = "secondary" empty,
        /// The other owner of an address that moves between two.
        alternate_owner_attrs: BTreeMap<String, String> = "alternateOwnerAttrs" empty,
        /// When it was released, while it cools down.
        released_at: Option<String> = "releasedAt" optional,
    }
}

wire_struct! {
    /// An `IPAMHandle`: how many addresses an owner has in each block.
    pub struct IpamHandle {
        /// The handle.
        handle_id: String = "handleID" required,
        /// The counts, by block.
        block: BTreeMap<String, u64> = "block" empty,
        /// Whether the handle is being deleted.
        deleted: bool = "deleted" default(false),
    }
}

fn check_configuration(configuration: &mut IpamConfiguration, mut rules: Rules<'_, '_, '_>) {
    if configuration.strict_affinity {
        return;
    }
    for (key, kept, rule) in [
        (
            "maxBlocksPerHost",
            configuration.max_blocks_per_host == 0,
            "must be 0 unless strictAffinity is true",
        ),
        (
            "autoAllocateBlocks",
            configuration.auto_allocate_blocks,
            "must be true unless strictAffinity is true",
        ),
    ] {
        if !kept {
            rules.broken(key, &[key, "strictAffinity"], rule);
        }
    }
}
