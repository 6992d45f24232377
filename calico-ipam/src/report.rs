//! How full pools and blocks are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use calico_model::resource::block::{Owner, all_blocks_prefix, block_from_key};
use calico_model::{Cidr, Name, NodeName};

use crate::block::Block;
use crate::error::AccessError;
use crate::ipam::Ipam;
use crate::pool::Settings;
use crate::versioned::{Versioned, from_entry};

/// How full everything is, at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Utilisation {
    /// The pools, in the order of their names.
    pub pools: Vec<PoolUse>,
    /// Blocks that are in no pool.
    pub outside: Vec<BlockUse>,
    /// What is stored and cannot be read, for people.
    pub problems: Vec<String>,
}

/// How full a pool is, in addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUse {
    /// The pool.
    pub name: Name,
    /// Its network.
    pub cidr: Cidr,
    /// Whether the pool is closed for new addresses.
    pub disabled: bool,
    /// How the addresses are used; those outside of any block are free or reserved.
    pub usage: Usage,
    /// The pool's blocks, in order.
    pub blocks: Vec<BlockUse>,
}

/// How full a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockUse {
    /// The block.
    pub cidr: Cidr,
    /// Whose it is.
    pub owner: Option<Owner>,
    /// How its addresses are used.
    pub usage: Usage,
    /// The addresses that live on other nodes than the owner.
    pub borrowed: Vec<Borrowed>,
    /// How many held addresses do not say which node they live on, as very old ones do.
    pub nodeless: usize,
}

/// How many addresses are used in which way. An address counts once: held before cooling before reserved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All addresses.
    pub capacity: u128,
    /// Held by somebody.
    pub in_use: u128,
    /// Released a moment ago and not assigned again yet.
    pub cooling: u128,
    /// Never assigned automatically.
    pub reserved: u128,
}

impl Usage {
    /// Returns how many addresses can be assigned automatically now.
    #[must_use]
    pub fn available(&self) -> u128 {
        self.capacity.saturating_sub(self.in_use + self.cooling + self.reserved)
    }
}

/// An address that lives on another node than its block's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borrowed {
    /// The address.
    pub addr: IpAddr,
    /// The node it lives on.
    pub node: NodeName,
    /// The handle that holds it.
    pub handle: Option<String>,
    /// The notes: `pod`, `namespace`, `type`, ...
    pub attributes: BTreeMap<String, String>,
}

impl Borrowed {
    /// Returns what sort of user holds the address, and which: `vmi`, `pod` or the type of a tunnel.
    #[must_use]
    pub fn holder(&self) -> (String, String) {
        let note = |key: &str| self.attributes.get(key);
        let named = |sort: &str, name: &String| match note("namespace") {
            Some(namespace) => (sort.to_owned(), format!("{namespace}/{name}")),
            None => (sort.to_owned(), name.clone()),
        };
        match (note("vmi-name"), note("pod")) {
            (Some(machine), _) => named("vmi", machine),
            (None, Some(pod)) => named("pod", pod),
            (None, None) => {
                (note("type").cloned().unwrap_or_default(), self.handle.clone().unwrap_or_default())
            }
        }
    }
}

/// Adds up the use of several blocks.
#[must_use]
pub fn sum<'b>(blocks: impl IntoIterator<Item = &'b BlockUse>) -> Usage {
    let add = |all: Usage, block: &BlockUse| Usage {
        capacity: all.capacity + block.usage.capacity,
        in_use: all.in_use + block.usage.in_use,
        cooling: all.cooling + block.usage.cooling,
        reserved: all.reserved + block.usage.reserved,
    };
    blocks.into_iter().fold(Usage::default(), add)
}

/// Counts how full pools and blocks are.
#[must_use]
pub fn utilisation<'b>(settings: &Settings, blocks: impl IntoIterator<Item = &'b Block>) -> Utilisation {
    let mut result = Utilisation { problems: settings.problems.clone(), ..Utilisation::default() };
    let reserved = disjoint(&settings.reserved);
    for pool in &settings.pools {
        let cidr = pool.spec.cidr;
        let all: u128 = reserved.iter().filter_map(|net| overlap(net, &cidr)).map(|net| size(&net)).sum();
        result.pools.push(PoolUse {
            name: pool.metadata.name.clone(),
            cidr,
            disabled: pool.spec.disabled,
            usage: Usage { capacity: size(&cidr), in_use: 0, cooling: 0, reserved: all },
            blocks: Vec::new(),
        });
    }
    for block in blocks {
        let (entry, taken) = block_use(block, &reserved);
        match result.pools.iter_mut().find(|pool| pool.cidr.covers(&entry.cidr)) {
            Some(pool) => {
                pool.usage.in_use += entry.usage.in_use;
                pool.usage.cooling += entry.usage.cooling;
                pool.usage.reserved = pool.usage.reserved.saturating_sub(taken);
                pool.blocks.push(entry);
            }
            None => result.outside.push(entry),
        }
    }
    result
}

/// Returns how a block is used, and how many of its reserved addresses are taken all the same.
fn block_use(block: &Block, reserved: &[Cidr]) -> (BlockUse, u128) {
    let cidr = block.cidr();
    let nets: Vec<Cidr> = reserved.iter().filter_map(|net| overlap(net, &cidr)).collect();
    let all: u128 = nets.iter().map(size).sum();
    let free = block.free_addrs().filter(|addr| nets.iter().any(|net| net.contains(*addr))).count() as u128;
    let usage = Usage {
        capacity: block.size() as u128,
        in_use: block.held() as u128,
        cooling: block.cooling() as u128,
        reserved: free,
    };
    let borrowed = block.borrowed().map(|(addr, node)| {
        let attributes = block.attributes_of(addr);
        Borrowed {
            addr,
            node,
            handle: attributes.and_then(|attributes| attributes.handle_id.clone()),
            attributes: attributes.map(|attributes| attributes.secondary.clone()).unwrap_or_default(),
        }
    });
    let borrowed = borrowed.collect();
    let nodeless = block.holders().filter(|(_, held)| !held.secondary.contains_key("node")).count();
    (BlockUse { cidr, owner: block.owner().cloned(), usage, borrowed, nodeless }, all - free)
}

/// Returns the networks without those inside others.
fn disjoint(networks: &[Cidr]) -> Vec<Cidr> {
    let inside = |net: &Cidr| networks.iter().any(|wider| wider != net && wider.covers(net));
    networks.iter().filter(|net| !inside(net)).copied().collect()
}

fn overlap(a: &Cidr, b: &Cidr) -> Option<Cidr> {
    if a.covers(b) {
        Some(*b)
    } else if b.covers(a) {
        Some(*a)
    } else {
        None
    }
}

fn size(cidr: &Cidr) -> u128 {
    1u128.checked_shl(u32::from(cidr.family().bits() - cidr.prefix_len())).unwrap_or(u128::MAX)
}

impl Ipam {
    /// Counts how full every pool and block is. Reads all blocks.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn utilisation(&self, now: SystemTime) -> Result<Utilisation, AccessError> {
        let settings = self.read_settings(now).await?;
        let (blocks, problems) = self.read_all_blocks().await?;
        let mut result = utilisation(&settings, blocks.values().filter_map(|block| block.value.as_ref()));
        result.problems.extend(problems);
        Ok(result)
    }

    /// Reads every block, and what is wrong with those that cannot be read.
    pub(crate) async fn read_all_blocks(
        &self,
    ) -> Result<(BTreeMap<Cidr, Versioned<Block>>, Vec<String>), AccessError> {
        let listing = self.list(&all_blocks_prefix()).await?;
        let (mut blocks, mut problems) = (BTreeMap::new(), Vec::new());
        for entry in &listing.entries {
            let Some(cidr) = block_from_key(&entry.key) else { continue };
            match from_entry::<Block>(Some(entry)) {
                Ok(block) => {
                    blocks.insert(cidr, block);
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        Ok((blocks, problems))
    }
}
