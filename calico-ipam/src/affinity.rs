//! Which host has which block: claims, and giving them back.
//!
//! ```text
//!            claim                 block is the host's
//!   absent ────────▶ pending ─────────────────────────▶ confirmed
//!      ▲                │ block is another's                 │ release
//!      └────────────────┴───────────── pending deletion ◀────┘
//! ```

use std::time::SystemTime;

use calico_model::Cidr;
use calico_model::resource::block::{AffinityState, Owner, StoredAffinity, affinity_key};

use crate::error::AccessError;
use crate::ipam::Ipam;
use crate::versioned::to_json;

impl Ipam {
    /// Confirms a claim whose block is written. When somebody changed the affinity meanwhile it is theirs to finish.
    pub(crate) async fn confirm(
        &self,
        owner: &Owner,
        cidr: &Cidr,
        now: SystemTime,
    ) -> Result<(), AccessError> {
        let block = self.read_block(cidr, now).await?;
        let affinity = self.read_affinity(owner, cidr).await?;
        let key = affinity_key(owner, cidr);
        let ours = block.value.as_ref().is_some_and(|block| block.owner() == Some(owner));
        let state = affinity.value.as_ref().map(|affinity| affinity.state);
        let write = match (ours, state) {
            (true, Some(AffinityState::Pending) | None) => {
                let confirmed = affinity.value.clone().unwrap_or_default();
                let confirmed = StoredAffinity { state: AffinityState::Confirmed, ..confirmed };
                Some(affinity.put(key, to_json(&confirmed)))
            }
            (false, Some(AffinityState::Pending)) => affinity.delete(key),
            _ => None,
        };
        if let Some(write) = write {
            self.commit(vec![write], now).await?;
            self.read_affinity(owner, cidr).await?;
        }
        Ok(())
    }
}
