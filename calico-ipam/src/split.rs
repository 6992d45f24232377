//! Cutting a pool into smaller ones.

use calico_model::Name;
use calico_model::resource::{IpPool, Object};

/// Into how many parts a pool is split at once: they are written by one commit, which etcd limits to 128 writes.
pub const MAX_PARTS: u32 = 64;

/// A pool that cannot be cut as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The number of parts is not 2, 4, 8, ...
    #[error("a pool can be split into 2, 4, 8, ... parts, not into {parts}")]
    NotPowerOfTwo {
        /// The number asked for.
        parts: u32,
    },
    /// The parts are too many to be written at once.
    #[error(
        "a pool is split into at most {MAX_PARTS} parts at once, not into {parts}: split the parts again"
    )]
    TooManyAtOnce {
        /// The number asked for.
        parts: u32,
    },
    /// The parts would be smaller than a block.
    #[error("pool {pool}: {parts} parts would be smaller than a block, of which it has {blocks}")]
    TooMany {
        /// The pool.
        pool: Name,
        /// How many blocks it has.
        blocks: u128,
        /// The number asked for.
        parts: u32,
    },
    /// The names of the parts would be too long.
    #[error("pool {pool} has a name too long for its parts to be named after it")]
    Name {
        /// The pool.
        pool: Name,
    },
}

/// Plans to cut a pool into `parts` pools of equal size that inherit its settings, named `split-POOL-0`, `split-POOL-1`, ...
///
/// Blocks and addresses stay as they are. Write the parts and delete the pool in one commit, while the datastore is locked, so that nobody
/// assigns meanwhile.
///
/// # Errors
/// When the number is not a power of two from 2 on, or the parts would be smaller than a block.
pub fn split(pool: &Object<IpPool>, parts: u32) -> Result<Vec<Object<IpPool>>, SplitError> {
    if parts < 2 || !parts.is_power_of_two() {
        return Err(SplitError::NotPowerOfTwo { parts });
    }
    if parts > MAX_PARTS {
        return Err(SplitError::TooManyAtOnce { parts });
    }
    let blocks = pool.spec.cidr.subnet_count(pool.spec.block_size).unwrap_or(0);
    let name = || pool.metadata.name.clone();
    if u128::from(parts) > blocks {
        return Err(SplitError::TooMany { pool: name(), blocks, parts });
    }
    let bits = u8::try_from(parts.trailing_zeros()).unwrap_or(u8::MAX);
    let part = |index: u32| {
        let part = format!("split-{}-{index}", pool.metadata.name).parse();
        let part: Name = part.map_err(|_| SplitError::Name { pool: name() })?;
        let cidr = pool.spec.cidr.subnet(pool.spec.cidr.prefix_len() + bits, index.into());
        let cidr = cidr.ok_or_else(|| SplitError::TooMany { pool: name(), blocks, parts })?;
        let mut object = Object::new(part, IpPool { cidr, ..pool.spec.clone() });
        object.metadata.labels = pool.metadata.labels.clone();
        object.metadata.annotations = pool.metadata.annotations.clone();
        Ok(object)
    };
    (0..parts).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Object<IpPool> {
        let mut pool = Object::new("p".parse().unwrap(), IpPool::new("10.0.0.0/24".parse().unwrap()));
        pool.spec.nat_outgoing = true;
        pool
    }

    #[test]
    fn parts_cover_the_pool_and_inherit_its_settings() {
        let parts = split(&pool(), 4).unwrap();
        let shown: Vec<_> = parts.iter().map(|p| format!("{} {}", p.metadata.name, p.spec.cidr)).collect();
        let expected = [
            "split-p-0 10.0.0.0/26",
            "split-p-1 10.0.0.64/26",
            "split-p-2 10.0.0.128/26",
            "split-p-3 10.0.0.192/26",
        ];
        assert_eq!(shown, expected);
        assert!(parts.iter().all(|part| part.spec.nat_outgoing));
    }

    #[test]
    fn parts_are_at_least_one_block_and_a_power_of_two() {
        assert!(matches!(split(&pool(), 8), Err(SplitError::TooMany { blocks: 4, .. })));
        assert_eq!(split(&pool(), 128), Err(SplitError::TooManyAtOnce { parts: 128 }));
        for parts in [0, 1, 3] {
            assert_eq!(split(&pool(), parts), Err(SplitError::NotPowerOfTwo { parts }));
        }
    }
}
