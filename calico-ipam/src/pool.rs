//! Which pools may serve a request: selectors, allowed uses, and what is reserved.

use calico_model::datastore::Entry;
use calico_model::resource::block::StoredIpamConfig;
use calico_model::resource::{
    AllowedUse, AssignmentMode, Document, IpPool, IpReservation, Object, Resource, ResourceKey,
};
use calico_model::{Cidr, Family, Labels, Name, NodeName};

use crate::error::{AccessError, AssignError};

/// A pool that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolRef {
    /// By its name.
    Name(Name),
    /// By its network.
    Cidr(Cidr),
}

impl std::fmt::Display for PoolRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PoolRef::Name(name) => name.fmt(f),
            PoolRef::Cidr(cidr) => cidr.fmt(f),
        }
    }
}

impl std::str::FromStr for PoolRef {
    type Err = calico_model::ParseError;

    /// Reads a network when the text has a `/`, and a name otherwise.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('/') { text.parse().map(PoolRef::Cidr) } else { text.parse().map(PoolRef::Name) }
    }
}

/// What the datastore says about IPAM as a whole: pools, reservations, configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The configuration, with defaults where nothing is stored.
    pub config: StoredIpamConfig,
    /// The pools, disabled ones included, in the order of their names.
    pub pools: Vec<Object<IpPool>>,
    /// The networks that are never assigned automatically.
    pub reserved: Vec<Cidr>,
    /// What is stored and cannot be used, for people.
    pub problems: Vec<String>,
}

impl Settings {
    /// Reads settings from what the datastore holds.
    ///
    /// A pool that does not validate serves nothing and is listed among the problems.
    ///
    /// # Errors
    /// When the configuration or a reservation cannot be read: to go on would ignore what it forbids.
    pub fn read(
        config: Option<&Entry>,
        pools: &[Entry],
        reservations: &[Entry],
    ) -> Result<Self, AccessError> {
        let config = match config {
            Some(entry) => serde_json::from_slice(&entry.value).map_err(|error| AccessError::Unreadable {
                key: entry.key.clone(),
                problem: error.to_string(),
            })?,
            None => StoredIpamConfig::default(),
        };
        let mut settings = Self { config, pools: Vec::new(), reserved: Vec::new(), problems: Vec::new() };
        for entry in pools {
            match checked(entry) {
                Ok(Resource::IpPool(pool)) => settings.pools.push(pool),
                Ok(_) => {}
                Err(problem) => settings.problems.push(format!("{} is not used: {problem}", named(entry))),
            }
        }
        settings.pools.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        for entry in reservations {
            match checked(entry) {
                Ok(Resource::IpReservation(Object {
                    spec: IpReservation { reserved_cidrs, .. }, ..
                })) => {
                    settings.reserved.extend(reserved_cidrs);
                }
                Ok(_) => {}
                Err(problem) => return Err(AccessError::Unreadable { key: entry.key.clone(), problem }),
            }
        }
        settings.reserved.sort_unstable();
        settings.reserved.dedup();
        Ok(settings)
    }

    /// Returns the pool, disabled or not, that holds a network.
    #[must_use]
    pub fn pool_of(&self, cidr: &Cidr) -> Option<&Object<IpPool>> {
        self.pools.iter().find(|pool| pool.spec.cidr.covers(cidr))
    }

    /// Returns the network of the block that holds an address, when a pool holds it.
    #[must_use]
    pub fn block_of(&self, addr: std::net::IpAddr) -> Option<Cidr> {
        let pool = self.pool_of(&Cidr::host(addr))?;
        Cidr::holding(addr, pool.spec.block_size).filter(|block| pool.spec.cidr.covers(block))
    }

    /// Returns the pools of a family that may serve a request, in the order they are tried.
    ///
    /// Pools that the request names are taken as they are named, whatever their selectors; only a disabled one is an
    /// error. Otherwise they are the enabled pools with automatic assignment whose uses and selectors fit.
    ///
    /// # Errors
    /// When a named pool does not exist, is disabled or is of the other family, or when no pool fits.
    pub fn eligible(&self, family: Family, ask: &Ask<'_>) -> Result<Vec<&Object<IpPool>>, AssignError> {
        if !ask.requested.is_empty() {
            return ask.requested.iter().map(|wanted| self.requested(wanted, family)).collect();
        }
        let (mut pools, mut problems) = (Vec::new(), Vec::new());
        for pool in self.pools.iter().filter(|pool| pool.spec.cidr.family() == family) {
            match ask.obstacle(pool) {
                None => pools.push(pool),
                Some(obstacle) => problems.push(format!("pool {} {obstacle}", pool.metadata.name)),
            }
        }
        if pools.is_empty() {
            problems.extend(self.problems.iter().cloned());
            if problems.is_empty() {
                problems.push(format!("there is no {family} pool"));
            }
            return Err(AssignError::NoPool { family, node: ask.node.clone(), problems });
        }
        Ok(pools)
    }

    fn requested(&self, wanted: &PoolRef, family: Family) -> Result<&Object<IpPool>, AssignError> {
        let found = self.pools.iter().find(|pool| match wanted {
            PoolRef::Name(name) => pool.metadata.name == *name,
            PoolRef::Cidr(cidr) => pool.spec.cidr == *cidr,
        });
        let Some(pool) = found else {
            let names: Vec<&str> = self.pools.iter().map(|pool| pool.metadata.name.as_str()).collect();
            let remedy = if names.is_empty() {
                "create one first".to_owned()
            } else {
                format!("the pools are {}", names.join(", "))
            };
            return Err(AssignError::UnknownPool { pool: wanted.to_string(), remedy });
        };
        if pool.spec.disabled {
            return Err(AssignError::PoolDisabled { pool: pool.metadata.name.clone() });
        }
        if pool.spec.cidr.family() != family {
            let (pool, cidr) = (pool.metadata.name.clone(), pool.spec.cidr);
            return Err(AssignError::PoolFamily { pool, cidr, family });
        }
        Ok(pool)
    }

    /// Reports whether some pool looks at the labels of nodes.
    #[must_use]
    pub fn selects_nodes(&self) -> bool {
        self.pools.iter().any(|pool| !pool.spec.node_selector.is_all())
    }
}

/// The part of a request that chooses pools.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The node that asks.
    pub node: &'a NodeName,
    /// The node's labels.
    pub node_labels: &'a Labels,
    /// The labels of the workload's namespace, when it has one.
    pub namespace_labels: Option<&'a Labels>,
    /// What the addresses are for.
    pub intended_use: AllowedUse,
    /// The pools that the request names.
    pub requested: &'a [PoolRef],
}

impl Ask<'_> {
    /// Says why a pool does not serve a request that does not name it; `None` when it does.
    fn obstacle(&self, pool: &Object<IpPool>) -> Option<String> {
        let spec = &pool.spec;
        if spec.disabled {
            return Some("is disabled".to_owned());
        }
        if spec.assignment_mode == AssignmentMode::Manual {
            return Some("serves only requests that name it".to_owned());
        }
        if !spec.allowed_uses.contains(&self.intended_use) {
            return Some(format!("is not for {:?} addresses", self.intended_use));
        }
        if !spec.node_selector.matches(self.node_labels) {
            return Some(format!("does not select the node ({})", spec.node_selector));
        }
        let selector = spec.namespace_selector.as_ref()?;
        match self.namespace_labels {
            Some(labels) if selector.matches(labels) => None,
            Some(_) => Some(format!("does not select the namespace ({selector})")),
            None => Some("serves only workloads in namespaces".to_owned()),
        }
    }
}

fn checked(entry: &Entry) -> Result<Resource, String> {
    let document = Document::from_json(&entry.value).map_err(|error| error.to_string())?;
    document.check().map_err(|error| error.to_string())
}

fn named(entry: &Entry) -> String {
    ResourceKey::from_datastore_key(&entry.key).map_or_else(|| entry.key.to_string(), |key| key.to_string())
}

/// Returns the labels of a node as stored; a node that does not exist or cannot be read has none.
pub(crate) fn node_labels(entry: Option<&Entry>) -> Labels {
    let document = entry.and_then(|entry| Document::from_json(&entry.value).ok());
    let labels = document.as_ref().and_then(|document| document.value()["metadata"]["labels"].as_object());
    labels.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
}
