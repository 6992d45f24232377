//! The collector: reclaims what no client knows of, and looks whether what is stored agrees with itself and with what the
//! clients hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use calico_ipam::check::Inventory;
use calico_ipam::{Block, Check, Finding, Held, Ipam, Liveness, check};
use calico_model::datastore::{Datastore, Prefix};
use calico_model::resource::block::{
    StoredAffinity, StoredBlock, StoredHandle, affinity_from_key, block_from_key,
};

use crate::Failure;
use crate::journal::{self, Holding, Holdings};

pub(crate) struct Collector {
    store: Arc<dyn Datastore>,
    ipam: Ipam,
    directory: PathBuf,
    slots: u64,
}

/// What a collector found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What must never be.
    pub(crate) violations: Vec<String>,
    /// How many leaked addresses were released.
    pub(crate) reclaimed: usize,
    /// How many addresses clients hold.
    pub(crate) held: usize,
}

impl Collector {
    pub(crate) fn new(store: Arc<dyn Datastore>, directory: PathBuf, slots: u64) -> Self {
        Self { ipam: Ipam::new(store.clone()), store, directory, slots }
    }

    /// Looks once, while everybody is at work, and reclaims what leaked.
    #[expect(clippy::disallowed_methods, reason = "a driver reads the clock")]
    pub(crate) async fn collect(&self) -> Result<Found, Failure> {
        let before = self.holdings()?;
        let inventory = self.inventory().await?;
        // An assignment is in the journal before it is in the store: what is in no journal by now never will be.
        let after = self.holdings()?;
        let judge = |held: &Held| liveness(&after, held);
        let settings = self.ipam.settings(SystemTime::now()).await?;
        let look = check::check(&inventory, &settings, &judge);
        let mut found = Found { violations: inventory.problems.clone(), ..Found::default() };
        for (handle, holding) in &before {
            if let Holding::Held(_) = holding
                && after.get(handle) == Some(holding)
            {
                found.held += holding.addresses().len();
                found.violations.extend(lost(&look, handle, holding));
            }
        }
        let disagrees = |finding: &&Finding| !matches!(finding, Finding::LeakedAddress { .. });
        found.violations.extend(look.findings.iter().filter(disagrees).map(|finding| format!("{finding:?}")));
        let findings: Vec<Finding> = look.findings.into_iter().collect();
        found.reclaimed = self.ipam.reclaim_with(&findings, &judge, SystemTime::now()).await?.mended.len();
        Ok(found)
    }

    /// Reclaims everything that no client holds, when none is left, and compares.
    #[expect(clippy::disallowed_methods, reason = "a driver reads the clock")]
    pub(crate) async fn judge(&self) -> Result<Found, Failure> {
        let mut holdings = self.holdings()?;
        holdings.retain(|_, holding| matches!(holding, Holding::Held(_)));
        let judge = |held: &Held| liveness(&holdings, held);
        let mut found = Found::default();
        // What was under way when the clients died may have arrived between the first look and the second.
        for _ in 0..2 {
            let look = self.ipam.check_with(&judge, SystemTime::now()).await?;
            let findings: Vec<Finding> = look.findings.into_iter().collect();
            found.reclaimed +=
                self.ipam.reclaim_with(&findings, &judge, SystemTime::now()).await?.mended.len();
        }
        let look = self.ipam.check_with(&judge, SystemTime::now()).await?;
        for (handle, holding) in &holdings {
            found.held += holding.addresses().len();
            found.violations.extend(lost(&look, handle, holding));
        }
        found.violations.extend(look.findings.iter().map(|finding| format!("{finding:?}")));
        if look.held.len() != found.held {
            found.violations.push(format!("{} addresses are held by {}", look.held.len(), found.held));
        }
        Ok(found)
    }

    fn holdings(&self) -> Result<Holdings, Failure> {
        journal::read_all(&self.directory, self.slots)
    }

    /// Everything that IPAM stores, at one revision.
    async fn inventory(&self) -> Result<Inventory, Failure> {
        let mut inventory = Inventory::default();
        for entry in self.store.list(&Prefix::new("/calico/ipam/v2")?).await?.entries {
            if let Some(cidr) = block_from_key(&entry.key) {
                match Block::try_from(serde_json::from_slice::<StoredBlock>(&entry.value)?) {
                    Ok(block) => {
                        inventory.blocks.insert(cidr, block);
                    }
                    Err(damaged) => inventory.problems.push(damaged.to_string()),
                }
            } else if let Some(key) = affinity_from_key(&entry.key) {
                let affinity: StoredAffinity = serde_json::from_slice(&entry.value)?;
                inventory.affinities.insert(key, affinity.state);
            } else if let Some(handle) = StoredHandle::read(&entry.key, &entry.value) {
                let handle = handle?;
                inventory.handles.insert(handle.handle_id, handle.block);
            }
        }
        Ok(inventory)
    }
}

fn liveness(holdings: &Holdings, held: &Held) -> Liveness {
    let known = held.handle.as_ref().is_some_and(|handle| holdings.contains_key(handle));
    if known { Liveness::Alive } else { Liveness::Gone }
}

/// Names the addresses of a handle that it does not have, as it was given them.
fn lost(look: &Check, handle: &str, holding: &Holding) -> Vec<String> {
    let missing = holding.addresses().iter().filter(|(addr, sequence)| {
        !look.held.iter().any(|held| {
            held.addr == *addr && held.handle.as_deref() == Some(handle) && held.sequence == Some(*sequence)
        })
    });
    missing.map(|(addr, sequence)| format!("{handle} lost {addr} of {sequence}")).collect()
}
