//! Where IPAM's data is stored: keys below `/calico/ipam/v2/`.
//!
//! | key | value |
//! |---|---|
//! | `assignment/ipv4/block/10.0.0.0-26` | a block |
//! | `host/NODE/ipv4/block/10.0.0.0-26`, `virtual/...` | an owner's affinity to a block |
//! | `handle/HANDLE` | a handle |
//! | `config` | the configuration |

use super::Owner;
use crate::datastore::{Key, Prefix};
use crate::net::{Cidr, Family};

const IPAM: &str = "/calico/ipam/v2/";

/// Returns the key of the IPAM configuration.
#[must_use]
pub fn config_key() -> Key {
    ipam_key("config")
}

/// Returns the key of a block.
#[must_use]
pub fn block_key(cidr: &Cidr) -> Key {
    ipam_key(&format!("assignment/{}/block/{}", family_word(cidr.family()), cidr.key_form()))
}

/// Returns the folder of all blocks of a family.
#[must_use]
pub fn blocks_prefix(family: Family) -> Prefix {
    ipam_prefix(&format!("assignment/{}/block", family_word(family)))
}

/// Returns the folder of all blocks of both families.
#[must_use]
pub fn all_blocks_prefix() -> Prefix {
    ipam_prefix("assignment")
}

/// Reads the key of a block; `None` when it is none.
#[must_use]
pub fn block_from_key(key: &Key) -> Option<Cidr> {
    let path = key.as_str().strip_prefix(IPAM)?.strip_prefix("assignment/")?;
    let (family, cidr) = path.split_once("/block/")?;
    Cidr::from_key_form(cidr).ok().filter(|cidr| family_word(cidr.family()) == family)
}

/// Returns the key of an owner's affinity to a block.
#[must_use]
pub fn affinity_key(owner: &Owner, cidr: &Cidr) -> Key {
    ipam_key(&format!("{}/{}/block/{}", owner_folder(owner), family_word(cidr.family()), cidr.key_form()))
}

/// Returns the folder of an owner's affinities in a family.
#[must_use]
pub fn affinities_prefix(owner: &Owner, family: Family) -> Prefix {
    ipam_prefix(&format!("{}/{}/block", owner_folder(owner), family_word(family)))
}

/// Returns the folders of all affinities: those of nodes and those of others.
#[must_use]
pub fn all_affinities_prefixes() -> [Prefix; 2] {
    [ipam_prefix("host"), ipam_prefix("virtual")]
}

/// Reads the key of an affinity; `None` when it is none.
#[must_use]
pub fn affinity_from_key(key: &Key) -> Option<(Owner, Cidr)> {
    let path = key.as_str().strip_prefix(IPAM)?;
    let (owner, cidr) = path.split_once("/block/")?;
    let mut parts = owner.split('/');
    let (kind, name, family) = (parts.next()?, parts.next()?, parts.next()?);
    let name = name.parse().ok()?;
    let owner = match kind {
        "host" => Owner::Host(name),
        "virtual" => Owner::Virtual(name),
        _ => return None,
    };
    let cidr = Cidr::from_key_form(cidr).ok().filter(|cidr| family_word(cidr.family()) == family)?;
    parts.next().is_none().then_some((owner, cidr))
}

fn owner_folder(owner: &Owner) -> String {
    match owner {
        Owner::Host(name) => format!("host/{name}"),
        Owner::Virtual(name) => format!("virtual/{name}"),
    }
}

/// Returns the key of a handle, or `None` when the handle is empty or has a character that no key may have.
#[must_use]
pub fn handle_key(handle: &str) -> Option<Key> {
    if handle.contains('/') { None } else { format!("{IPAM}handle/{handle}").parse().ok() }
}

/// Reads the key of a handle; `None` when it is none.
#[must_use]
pub fn handle_from_key(key: &Key) -> Option<&str> {
    key.as_str().strip_prefix(IPAM)?.strip_prefix("handle/")
}

/// Returns the folder of all handles.
#[must_use]
pub fn handles_prefix() -> Prefix {
    ipam_prefix("handle")
}

fn family_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn ipam_key(path: &str) -> Key {
    format!("{IPAM}{path}").parse().expect("networks and node names have no slash and no control character")
}

fn ipam_prefix(path: &str) -> Prefix {
    Prefix::new(&format!("{IPAM}{path}"))
        .expect("networks and node names have no slash and no control character")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_calico_and_read_back() {
        let block: Cidr = "10.0.0.0/26".parse().unwrap();
        let owner: Owner = "host:node1".parse().unwrap();
        assert_eq!(block_key(&block).as_str(), "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26");
        assert_eq!(block_from_key(&block_key(&block)), Some(block));
        assert_eq!(
            affinity_key(&owner, &block).as_str(),
            "/calico/ipam/v2/host/node1/ipv4/block/10.0.0.0-26"
        );
        assert_eq!(affinity_from_key(&affinity_key(&owner, &block)), Some((owner, block)));
        let six: Cidr = "fd00::40/122".parse().unwrap();
        assert_eq!(block_key(&six).as_str(), "/calico/ipam/v2/assignment/ipv6/block/fd00::40-122");
        assert_eq!(handle_key("a/b"), None);
    }
}
