//! Who has an address, where that changes without the address being released: a virtual machine that moves keeps its
//! address, and for a while two pods have a claim to it, the *active* owner and the *alternate* one.
//!
//! ```text
//!   active: source              active: source              active: target
//!   alternate: nobody  ───────▶ alternate: target ────────▶ alternate: source ───▶ ...
//!                      set                         promote
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use calico_model::datastore::StoreError;
use calico_model::resource::block::{StoredAttributes, StoredBlock, block_key};

use crate::error::AccessError;
use crate::ipam::{Ipam, Outcome, clean_handle};
use crate::retry::MAX_ATTEMPTS;
use crate::versioned::to_json;

/// Which of the two owners of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerSlot {
    /// The one that has the address now: its `node` is where the address lives.
    Active,
    /// The one that is to have it next, or had it before.
    Alternate,
}

impl fmt::Display for OwnerSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OwnerSlot::Active => "active",
            OwnerSlot::Alternate => "alternate",
        })
    }
}

/// A pod, as the notes `namespace` and `pod` name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// The namespace.
    pub namespace: String,
    /// The pod.
    pub name: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What an owner must be before a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ExpectedOwner {
    /// That does not matter.
    #[default]
    Anybody,
    /// There is none.
    Nobody,
    /// It is this pod.
    Pod(PodRef),
}

impl ExpectedOwner {
    fn holds(&self, notes: &BTreeMap<String, String>) -> bool {
        match self {
            ExpectedOwner::Anybody => true,
            ExpectedOwner::Nobody => notes.is_empty(),
            ExpectedOwner::Pod(pod) => {
                notes.get("namespace") == Some(&pod.namespace) && notes.get("pod") == Some(&pod.name)
            }
        }
    }
}

impl fmt::Display for ExpectedOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpectedOwner::Anybody => f.write_str("anybody"),
            ExpectedOwner::Nobody => f.write_str("nobody"),
            ExpectedOwner::Pod(pod) => pod.fmt(f),
        }
    }
}

/// A change of one owner of an address: what it must be before, and its notes afterwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerChange {
    /// What the owner must be before.
    pub expected: ExpectedOwner,
    /// The owner's notes afterwards: `namespace`, `pod`, `node`, ... None at all is nobody; `None` leaves it as it is.
    pub notes: Option<BTreeMap<String, String>>,
}

/// A change of owners that did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// Nobody holds the address.
    #[error("address {addr} is not assigned")]
    NotHeld {
        /// The address.
        addr: IpAddr,
    },
    /// Another handle holds the address.
    #[error("address {addr} is held by {actual:?}, not by {expected:?}")]
    OtherHandle {
        /// The address.
        addr: IpAddr,
        /// The handle that the change named.
        expected: String,
        /// The handle that holds the address, when it has one.
        actual: Option<String>,
    },
    /// An owner is not who it must be.
    #[error("the {slot} owner of address {addr} is {actual}, not {expected}")]
    OtherOwner {
        /// The address.
        addr: IpAddr,
        /// Which owner.
        slot: OwnerSlot,
        /// Who it must be.
        expected: ExpectedOwner,
        /// Who it is.
        actual: String,
    },
    /// The datastore, or what it holds, stood in the way.
    #[error(transparent)]
    Access(#[from] AccessError),
}

impl From<StoreError> for OwnerError {
    fn from(error: StoreError) -> Self {
        OwnerError::Access(error.into())
    }
}

impl Ipam {
    /// Changes the owners of an address that a handle holds, both at once. What is so already is fine, whatever is
    /// expected: the change may be repeated.
    ///
    /// # Errors
    /// When nobody or another handle holds the address, an owner is not who it must be, or the store cannot be used.
    pub async fn set_owner_attributes(
        &self,
        addr: IpAddr,
        handle: &str,
        active: &OwnerChange,
        alternate: &OwnerChange,
        now: SystemTime,
    ) -> Result<(), OwnerError> {
        self.change_owners(addr, handle, now, |before| {
            let mut after = before.clone();
            if let Some(notes) = &active.notes {
                after.secondary = notes.clone();
            }
            if let Some(notes) = &alternate.notes {
                after.alternate = notes.clone();
            }
            if after != *before {
                expect(addr, OwnerSlot::Active, &active.expected, &before.secondary)?;
                expect(addr, OwnerSlot::Alternate, &alternate.expected, &before.alternate)?;
            }
            Ok(after)
        })
        .await
    }

    /// Makes the alternate owner of an address the active one, and the active one, if there is any, the alternate: the
    /// machine has arrived. Fine when the pod is the active owner already.
    ///
    /// # Errors
    /// When nobody or another handle holds the address, the pod is neither owner, or the store cannot be used.
    pub async fn promote_owner(
        &self,
        addr: IpAddr,
        handle: &str,
        pod: &PodRef,
        now: SystemTime,
    ) -> Result<(), OwnerError> {
        let arrived = ExpectedOwner::Pod(pod.clone());
        self.change_owners(addr, handle, now, |before| {
            if arrived.holds(&before.secondary) {
                return Ok(before.clone());
            }
            expect(addr, OwnerSlot::Alternate, &arrived, &before.alternate)?;
            let (secondary, alternate) = (before.alternate.clone(), before.secondary.clone());
            Ok(StoredAttributes { secondary, alternate, ..before.clone() })
        })
        .await
    }

    async fn change_owners(
        &self,
        addr: IpAddr,
        handle: &str,
        now: SystemTime,
        change: impl Fn(&StoredAttributes) -> Result<StoredAttributes, OwnerError> + Send,
    ) -> Result<(), OwnerError> {
        let handle = clean_handle(handle);
        let not_held = OwnerError::NotHeld { addr };
        let Some(cidr) = self.block_holding(addr, now).await? else { return Err(not_held) };
        let mut attempts = self.attempts();
        for _ in 0..MAX_ATTEMPTS {
            let read = self.read_block(&cidr, now).await?;
            let Some(before) = read.value.as_ref().and_then(|block| block.attributes_of(addr)) else {
                return Err(not_held);
            };
            if before.handle_id.as_ref() != Some(&handle) {
                let actual = before.handle_id.clone();
                return Err(OwnerError::OtherHandle { addr, expected: handle, actual });
            }
            let after = change(before)?;
            let stored = read.value.as_ref().map(StoredBlock::from);
            let Some(stored) = stored.filter(|_| after != *before) else { return Ok(()) };
            let write = read.put(block_key(&cidr), to_json(&with_attributes(stored, addr, after)));
            if let Outcome::Done(_) = self.commit(vec![write], now).await? {
                self.read_block(&cidr, now).await?;
                return Ok(());
            }
            attempts.pause().await;
        }
        Err(AccessError::Contended { key: block_key(&cidr), attempts: MAX_ATTEMPTS }.into())
    }
}

fn expect(
    addr: IpAddr,
    slot: OwnerSlot,
    expected: &ExpectedOwner,
    notes: &BTreeMap<String, String>,
) -> Result<(), OwnerError> {
    if expected.holds(notes) {
        return Ok(());
    }
    let note = |key: &str| notes.get(key).map_or("?", String::as_str);
    let actual = match notes.is_empty() {
        true => "nobody".to_owned(),
        false => format!("{}/{}", note("namespace"), note("pod")),
    };
    Err(OwnerError::OtherOwner { addr, slot, expected: expected.clone(), actual })
}

/// Gives one address of a block other attributes; entries that nothing refers to any more go, and equal ones are shared.
fn with_attributes(mut block: StoredBlock, addr: IpAddr, attributes: StoredAttributes) -> StoredBlock {
    let ordinal = block.cidr.index_of(addr).and_then(|index| usize::try_from(index).ok());
    let before = std::mem::take(&mut block.attributes);
    for (index, slot) in block.allocations.iter_mut().enumerate() {
        let Some(old) = *slot else { continue };
        let kept = if Some(index) == ordinal { Some(&attributes) } else { before.get(old) };
        let Some(kept) = kept else { continue };
        let known = block.attributes.iter().position(|known| known == kept);
        *slot = Some(known.unwrap_or_else(|| {
            block.attributes.push(kept.clone());
            block.attributes.len() - 1
        }));
    }
    block
}
