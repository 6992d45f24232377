//! The cluster's IPAM configuration: reading it, and changing it within its rules.

use std::time::SystemTime;

use calico_model::datastore::client::ipam_settings;
use calico_model::resource::block::{StoredIpamConfig, config_key};

use crate::error::{AccessError, ConfigError};
use crate::ipam::{Ipam, Outcome};
use crate::retry::MAX_ATTEMPTS;

/// The longest cool-down, in seconds.
pub const MAX_COOLDOWN: u32 = 1200;

impl Ipam {
    /// Returns the configuration as it is stored now, with defaults for what is not: no strict affinity, hosts claim
    /// blocks by themselves and as many as they need, no cool-down.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn config(&self, now: SystemTime) -> Result<StoredIpamConfig, AccessError> {
        Ok(self.read_settings(now).await?.config.clone())
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    /// When the settings contradict one another or the store cannot be used.
    pub async fn set_config(&self, config: &StoredIpamConfig, now: SystemTime) -> Result<(), ConfigError> {
        self.configure(|stored| *stored = config.clone(), now).await.map(|_| ())
    }

    /// Changes the configuration, whoever else changes it meanwhile, and returns what it is then. `change` may be called
    /// several times.
    ///
    /// # Errors
    /// When the settings contradict one another or the store cannot be used.
    pub async fn configure(
        &self,
        change: impl Fn(&mut StoredIpamConfig) + Send,
        now: SystemTime,
    ) -> Result<StoredIpamConfig, ConfigError> {
        let key = config_key();
        let mut attempts = self.attempts();
        for _ in 0..MAX_ATTEMPTS {
            let entry = self.store.get(&key).await?;
            let mut config = match &entry {
                Some(entry) => serde_json::from_slice(&entry.value).map_err(|error| {
                    AccessError::Unreadable { key: key.clone(), problem: error.to_string() }
                })?,
                None => StoredIpamConfig::default(),
            };
            change(&mut config);
            check(&config)?;
            let writes = ipam_settings(self.store.as_ref(), &config, entry.as_ref()).await?;
            if let Outcome::Done(_) = self.commit(writes, now).await? {
                self.read_settings(now).await?;
                return Ok(config);
            }
            attempts.pause().await;
        }
        Err(AccessError::Contended { key, attempts: MAX_ATTEMPTS }.into())
    }
}

fn check(config: &StoredIpamConfig) -> Result<(), ConfigError> {
    let unsound = |problem: &str| Err(ConfigError::Unsound { problem: problem.to_owned() });
    if !config.strict_affinity && !config.auto_allocate_blocks {
        return unsound(
            "without strict affinity, hosts must be allowed to claim blocks: turn autoAllocateBlocks on",
        );
    }
    if config.max_blocks_per_host > 0 && !config.strict_affinity {
        return unsound("a limit of blocks per host needs strict affinity: turn strictAffinity on");
    }
    if config.ip_cooldown_seconds > MAX_COOLDOWN {
        return unsound("the cool-down must be from 0 to 1200 seconds");
    }
    Ok(())
}
