//! The stored form of IPAM's data: blocks, affinities, handles and the configuration.
//!
//! These are the JSON shapes and keys of Calico's etcd datastore (`/calico/ipam/v2/...`), with unknown fields kept.
//! What they *mean*, and every change to them, is `calico-ipam`'s; the route programmer and the BGP speaker read them to
//! learn where addresses live.

mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::datastore::Key;
use crate::name::NodeName;
use crate::net::{Cidr, ParseError, serde_as_text};
use crate::revision::SequenceNumber;

pub use keys::{
    affinities_prefix, affinity_from_key, affinity_key, all_affinities_prefixes, all_blocks_prefix,
    block_from_key, block_key, blocks_prefix, config_key, handle_from_key, handle_key, handles_prefix,
};

/// Who a block belongs to: a node, or something that is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A node: written `host:NAME`.
    Host(NodeName),
    /// A user of addresses that is no node, such as `load-balancer`: written `virtual:NAME`.
    Virtual(NodeName),
}

impl Owner {
    /// Returns the node, when the owner is one.
    #[must_use]
    pub fn host(&self) -> Option<&NodeName> {
        match self {
            Owner::Host(node) => Some(node),
            Owner::Virtual(_) => None,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Host(name) => write!(f, "host:{name}"),
            Owner::Virtual(name) => write!(f, "virtual:{name}"),
        }
    }
}

impl FromStr for Owner {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fault = || ParseError::new(text, "the owner of a block: host:NAME or virtual:NAME");
        let (kind, name) = text.split_once(':').ok_or_else(fault)?;
        let name = name.parse().map_err(|_| fault())?;
        match kind {
            "host" => Ok(Owner::Host(name)),
            "virtual" => Ok(Owner::Virtual(name)),
            _ => Err(fault()),
        }
    }
}

serde_as_text!(Owner);

/// A block as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBlock {
    /// The block's network.
    pub cidr: Cidr,
    /// Who it belongs to; `None` is nobody.
    pub affinity: Option<Owner>,
    /// When it was claimed, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<String>,
    /// For each address of the block, which of the attributes its allocation has; `None` is free.
    pub allocations: Vec<Option<usize>>,
    /// The free addresses, the one that is free longest first.
    pub unallocated: Vec<usize>,
    /// Whose the allocations are; several addresses may share one entry.
    pub attributes: Vec<StoredAttributes>,
    /// Grows with every assignment and release.
    #[serde(default, rename = "sequenceNumber")]
    pub sequence_number: SequenceNumber,
    /// For each allocated address (its ordinal as text), the sequence number at which it was assigned.
    #[serde(default, rename = "sequenceNumberForAllocation", deserialize_with = "null_as_empty")]
    pub sequence_number_for_allocation: BTreeMap<String, SequenceNumber>,
    /// Whether the block is being deleted; readers treat it as absent.
    #[serde(default)]
    pub deleted: bool,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Whose an allocation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAttributes {
    /// The handle it can be released by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle_id: Option<String>,
    /// Notes on who has the address: `node`, `pod`, `namespace`, `type`, ...
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub secondary: BTreeMap<String, String>,
    /// Notes on who is to have it next, or had it before, while a virtual machine moves.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub alternate: BTreeMap<String, String>,
    /// When it was released, in RFC 3339, while the address cools down.
    #[serde(default, rename = "releasedAt", skip_serializing_if = "Option::is_none")]
    pub released_at: Option<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl StoredBlock {
    /// Makes a block of a node in which nothing is allocated. The largest blocks have 4,096 addresses.
    #[must_use]
    pub fn on(cidr: Cidr, node: NodeName) -> Self {
        let free: Vec<usize> =
            (0..1 << 12).take_while(|ordinal| cidr.nth(*ordinal as u128).is_some()).collect();
        Self {
            cidr,
            affinity: Some(Owner::Host(node)),
            affinity_claim_time: None,
            allocations: vec![None; free.len()],
            unallocated: free,
            attributes: Vec::new(),
            sequence_number: SequenceNumber::default(),
            sequence_number_for_allocation: BTreeMap::new(),
            deleted: false,
            unknown: Default::default(),
        }
    }

    /// Returns the node the block belongs to, unless it is being deleted.
    #[must_use]
    pub fn host(&self) -> Option<&NodeName> {
        if self.deleted { None } else { self.affinity.as_ref()?.host() }
    }

    /// Walks the allocated addresses with whose they are; addresses that are cooling down are not allocated.
    pub fn allocated(&self) -> impl Iterator<Item = (IpAddr, &StoredAttributes)> {
        self.allocations.iter().enumerate().filter_map(|(ordinal, index)| {
            let attributes = self.attributes.get((*index)?)?;
            let addr = self.cidr.nth(ordinal as u128)?;
            (attributes.released_at.is_none() && !self.deleted).then_some((addr, attributes))
        })
    }

    /// Walks the addresses that live on other nodes than the block's: each with the node it was assigned to.
    pub fn borrowed(&self) -> impl Iterator<Item = (IpAddr, NodeName)> {
        self.allocated().filter_map(|(addr, attributes)| {
            let node: NodeName = attributes.secondary.get("node")?.parse().ok()?;
            (Some(&node) != self.host()).then_some((addr, node))
        })
    }

    /// Walks the addresses that two nodes have a claim to, as while a machine migrates between them: each with the node of
    /// the owner that is active.
    pub fn moving(&self) -> impl Iterator<Item = (IpAddr, NodeName)> {
        self.allocated().filter_map(|(addr, attributes)| {
            let (active, other) = (attributes.secondary.get("node")?, attributes.alternate.get("node")?);
            if active == other { None } else { Some((addr, active.parse().ok()?)) }
        })
    }
}

/// How far the claim of a block by a host has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AffinityState {
    /// The block is the host's. What old data without a state means.
    #[default]
    Confirmed,
    /// The host wants the block and does not have it yet.
    Pending,
    /// The host is giving the block back.
    PendingDeletion,
}

/// The claim of a block by a host, as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAffinity {
    /// How far the claim has come.
    #[serde(default, deserialize_with = "empty_as_default")]
    pub state: AffinityState,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// What a handle holds, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredHandle {
    /// The handle. It is in the key, and not in the value.
    #[serde(skip)]
    pub handle_id: String,
    /// How many addresses it holds in each block.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub block: BTreeMap<Cidr, u64>,
    /// Whether the handle is being deleted; readers treat it as absent.
    #[serde(default)]
    pub deleted: bool,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl StoredHandle {
    /// Reads a handle from where it is stored; `None` when the key is not a handle's.
    ///
    /// # Errors
    /// When the value is not what a handle holds.
    #[must_use]
    pub fn read(key: &Key, value: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        let handle_id = handle_from_key(key)?.to_owned();
        Some(serde_json::from_slice(value).map(|stored| Self { handle_id, ..stored }))
    }
}

/// The cluster's IPAM configuration, as it is stored. What is off is left out; where nothing is stored at all the
/// [default](StoredIpamConfig::default) holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredIpamConfig {
    /// Whether a host takes addresses only from its own blocks.
    #[serde(default, skip_serializing_if = "is_off")]
    pub strict_affinity: bool,
    /// Whether a host may claim further blocks.
    #[serde(default, skip_serializing_if = "is_off")]
    pub auto_allocate_blocks: bool,
    /// How many blocks a host may have in each family; 0 is unlimited.
    #[serde(default, rename = "maxBlocksPerHost", skip_serializing_if = "is_zero")]
    pub max_blocks_per_host: u32,
    /// For how many seconds a released address is not assigned again.
    #[serde(default, rename = "ipCooldownSeconds", skip_serializing_if = "is_zero")]
    pub ip_cooldown_seconds: u32,
    /// Whether a KubeVirt machine keeps its address: `Enabled` or `Disabled`.
    #[serde(default, rename = "kubeVirtVMAddressPersistence", skip_serializing_if = "Option::is_none")]
    pub kube_virt_vm_address_persistence: Option<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for StoredIpamConfig {
    fn default() -> Self {
        Self {
            strict_affinity: false,
            auto_allocate_blocks: true,
            max_blocks_per_host: 0,
            ip_cooldown_seconds: 0,
            kube_virt_vm_address_persistence: None,
            unknown: Map::new(),
        }
    }
}

fn is_off(setting: &bool) -> bool {
    !setting
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Go writes an empty map as `null`.
fn null_as_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Old data has an empty text for the default state.
fn empty_as_default<'de, D: Deserializer<'de>>(from: D) -> Result<AffinityState, D::Error> {
    let value = Value::deserialize(from)?;
    if value.as_str() == Some("") {
        return Ok(AffinityState::default());
    }
    AffinityState::deserialize(value).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_written_by_another_calico_keeps_what_we_do_not_know() {
        let text = r#"{"cidr":"10.0.0.0/30","affinity":"host:n1","allocations":[0,null,null,null],"unallocated":[1,2,3],
            "attributes":[{"handle_id":"h","secondary":{"node":"n2"},"future":1}],"sequenceNumber":7,
            "sequenceNumberForAllocation":null,"deleted":false,"hostAffinity":"host:n1"}"#;
        let block: StoredBlock = serde_json::from_str(text).unwrap();
        let again = serde_json::to_value(&block).unwrap();
        assert_eq!(again["hostAffinity"], "host:n1");
        assert_eq!(again["attributes"][0]["future"], 1);
        let borrowed: Vec<_> = block.borrowed().collect();
        assert_eq!(borrowed, [("10.0.0.0".parse().unwrap(), "n2".parse().unwrap())]);
    }

    /// Reads a text as Calico writes it, and checks that the same is written again.
    fn same_again<T: Serialize + for<'de> Deserialize<'de>>(text: &str) -> T {
        let read: T = serde_json::from_str(text).unwrap();
        let (again, before): (Value, Value) =
            (serde_json::to_value(&read).unwrap(), serde_json::from_str(text).unwrap());
        assert_eq!(again, before);
        read
    }

    #[test]
    fn the_stored_forms_are_those_of_calico() {
        let block: StoredBlock = same_again(
            r#"{"cidr":"10.0.0.0/30","affinity":"host:n1","affinity_claim_time":"2025-03-04T05:06:07Z",
            "allocations":[0,1,2,null],"unallocated":[3],
            "attributes":[{"handle_id":"k8s-pod-network.1","secondary":{"node":"n1","pod":"a"}},
                {"handle_id":"vm","secondary":{"pod":"a"},"alternate":{"pod":"b"}},
                {"releasedAt":"2025-03-04T05:06:08Z"}],
            "sequenceNumber":1741064767000000002,"sequenceNumberForAllocation":{"0":1741064767000000001},
            "deleted":false}"#,
        );
        assert!(block.affinity_claim_time.is_some());
        assert_eq!(block.attributes[1].alternate["pod"], "b");
        assert_eq!(block.allocated().count(), 2, "what cools down is not allocated");
        let affinity: StoredAffinity = same_again(r#"{"state":"pendingDeletion","deleted":false}"#);
        assert_eq!(affinity.state, AffinityState::PendingDeletion);
        let config: StoredIpamConfig = same_again(
            r#"{"strict_affinity":true,"maxBlocksPerHost":4,"ipCooldownSeconds":60,
            "kubeVirtVMAddressPersistence":"Enabled"}"#,
        );
        assert!(!config.auto_allocate_blocks, "what is off is left out");
        assert_eq!(
            serde_json::to_string(&StoredIpamConfig::default()).unwrap(),
            r#"{"auto_allocate_blocks":true}"#
        );
        let counts: StoredHandle = same_again(r#"{"block":{"10.0.0.0/30":2},"deleted":false}"#);
        assert_eq!(counts.block.values().sum::<u64>(), 2);
    }

    #[test]
    fn a_handle_is_named_by_its_key() {
        let text = br#"{"block":{"10.0.0.0/26":1},"deleted":false}"#;
        let key = handle_key("k8s-pod-network.0123").unwrap();
        let read = StoredHandle::read(&key, text).unwrap().unwrap();
        assert_eq!(read.handle_id, "k8s-pod-network.0123");
        assert_eq!(StoredHandle::read(&config_key(), text).map(|_| ()), None);
    }

    #[test]
    fn an_affinity_without_a_state_is_confirmed() {
        for text in ["{}", r#"{"state":""}"#, r#"{"state":"confirmed"}"#] {
            let affinity: StoredAffinity = serde_json::from_str(text).unwrap();
            assert_eq!(affinity.state, AffinityState::Confirmed, "{text}");
        }
    }
}
