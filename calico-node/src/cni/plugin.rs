//! What every command of a plugin begins with: the node, the datastore, and whether they are ready.

use std::path::{Path, PathBuf};

use calico_model::datastore::client::Client;
use calico_model::resource::{
    ClusterInformation, FelixConfiguration, Kind, Object, ObjectId, ResourceKey, WorkloadEndpoint,
};
use calico_model::{InterfaceName, Name, NodeName, Snapshot, Update};
use serde_json::Value;

use super::{CniError, Config, Delegate, Identity};
use crate::config::DatastoreConfig;
use crate::datastore;
use crate::paths::Paths;
use crate::stamp::stamp;

/// One run of a plugin.
pub(super) struct Plugin<'a> {
    pub(super) config: &'a Config,
    /// The configuration as it came, for the IPAM plugin.
    pub(super) input: &'a [u8],
    pub(super) paths: Paths,
    pub(super) var: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Plugin<'a> {
    pub(super) fn new(config: &'a Config, input: &'a [u8], var: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { config, input, paths: Paths::from_vars(var), var }
    }

    fn nodename_file(&self) -> PathBuf {
        self.config.nodename_file.clone().unwrap_or_else(|| self.paths.nodename_file())
    }

    /// Finds the node's name: the configuration's, else what the agent left in its file. Either way the file must be
    /// there, for without an agent nothing would police the workload.
    pub(super) fn node(&self) -> Result<NodeName, CniError> {
        let stored = self.stored_name()?;
        if stored.is_none() && !self.config.nodename_file_optional {
            return Err(CniError::NotSetUp { nodename_file: self.nodename_file() });
        }
        match &self.config.node {
            Some(node) => Ok(node.clone()),
            None => self.name_of(stored),
        }
    }

    /// Finds the node's name for cleaning up, which needs no agent: the configuration's, else what is in the agent's
    /// file, else the environment's or the host's.
    pub(super) fn node_to_clean(&self) -> Result<NodeName, CniError> {
        match &self.config.node {
            Some(node) => Ok(node.clone()),
            None => self.name_of(self.stored_name()?),
        }
    }

    /// Reads the agent's file; `None` when it is absent, or empty as a host that lost its power may leave it.
    fn stored_name(&self) -> Result<Option<String>, CniError> {
        let path = self.nodename_file();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|name| !name.is_empty())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CniError::NodeFile { path, problem: format!("cannot be read: {error}") }),
        }
    }

    fn name_of(&self, stored: Option<String>) -> Result<NodeName, CniError> {
        let fallback = || {
            let var = |name| (self.var)(name).filter(|value| !value.is_empty());
            let host = || nix::unistd::gethostname().ok()?.into_string().ok();
            var("NODENAME").or_else(host).unwrap_or_default().to_lowercase()
        };
        let problem = |error| CniError::NodeFile {
            path: self.nodename_file(),
            problem: format!("names no node: {error}"),
        };
        stored.unwrap_or_else(fallback).parse().map_err(problem)
    }

    /// Finds the MTU: the configuration's, else what the agent left in its file, else the kernel's own.
    pub(super) fn mtu(&self) -> Result<Option<u32>, CniError> {
        if self.config.mtu.is_some() {
            return Ok(self.config.mtu);
        }
        let path = self.paths.mtu_file();
        match std::fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(mtu) => Ok(Some(mtu)),
                Err(_) => Err(CniError::NodeFile {
                    path,
                    problem: format!("holds {:?}, which is not an MTU", text.trim()),
                }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.config.require_mtu_file => {
                Ok(None)
            }
            Err(error) => Err(CniError::NodeFile { path, problem: format!("cannot be read: {error}") }),
        }
    }

    /// Returns the file with which the agent says that an interface's policy is in force.
    pub(super) fn mark(&self, interface: &InterfaceName) -> PathBuf {
        let folder = self.config.endpoint_status_dir.clone();
        folder.unwrap_or_else(|| self.paths.endpoint_status_dir()).join(interface.as_str())
    }

    /// Opens the datastore; `None` when it is the embedded one and nobody has made it yet.
    async fn datastore(&self) -> Result<Option<Client>, CniError> {
        let var = |name: &str| self.config.datastore_var(name).or_else(|| (self.var)(name));
        let open = |error| CniError::Open(Box::new(error));
        let loaded =
            DatastoreConfig::from_vars(var, &self.paths).map_err(|error| CniError::Open(Box::new(error)))?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        if missing_file(&loaded.datastore).is_some() {
            return Ok(None);
        }
        let store = datastore::open(&loaded.datastore).await.map_err(open)?;
        Ok(Some(Client::new(store, stamp)))
    }

    /// Opens the datastore and makes sure that it may be acted upon.
    pub(super) async fn ready_datastore(&self) -> Result<Client, CniError> {
        let not_ready = |problem: &str| CniError::NotReady { problem: problem.to_owned() };
        let client = self.datastore().await?;
        let client = client.ok_or_else(|| not_ready("its file does not exist; is calico-node running?"))?;
        match self.readiness(&client).await? {
            Readiness::Ready => Ok(client),
            Readiness::Unset => Err(not_ready("nobody has initialised it; is calico-node running?")),
            Readiness::Locked => Err(not_ready(LOCKED)),
        }
    }

    /// Opens the datastore to clean up in it; `None` when nobody has made it yet.
    pub(super) async fn unlocked_datastore(&self) -> Result<Option<Client>, CniError> {
        let Some(client) = self.datastore().await? else { return Ok(None) };
        match self.readiness(&client).await? {
            Readiness::Ready | Readiness::Unset => Ok(Some(client)),
            Readiness::Locked => Err(CniError::NotReady { problem: LOCKED.to_owned() }),
        }
    }

    async fn readiness(&self, client: &Client) -> Result<Readiness, CniError> {
        let name: Name = ClusterInformation::NAME.parse().expect("a constant name");
        let found = client.of::<ClusterInformation>().find(&ObjectId::from(name)).await;
        match found.map_err(|error| CniError::datastore("read ClusterInformation(default)", error))? {
            Some(information) if information.spec.datastore_ready == Some(true) => Ok(Readiness::Ready),
            Some(_) => Ok(Readiness::Locked),
            None => Ok(Readiness::Unset),
        }
    }

    /// Reads the node's part of the agent's configuration.
    ///
    /// Of one that does not validate what is sound counts, as to an agent that starts. But when it names another prefix
    /// of workloads' interfaces, it is not known which one the agent goes by: an interface with the wrong one would be
    /// open.
    pub(super) async fn felix(
        &self,
        client: &Client,
        node: &NodeName,
    ) -> Result<FelixConfiguration, CniError> {
        let mut known = Snapshot::default();
        for name in ["default".to_owned(), format!("node.{node}")] {
            let Ok(name) = name.parse::<Name>() else { continue };
            let key = ResourceKey { kind: Kind::FelixConfiguration, id: name.into() };
            let stored = client.store().get(&key.datastore_key()).await;
            let stored = stored.map_err(|error| CniError::datastore(format!("read {key}"), error.into()))?;
            let Some(entry) = stored else { continue };
            let Some(update) = Update::from_entry(&entry) else { continue };
            if let Update::Invalid { problem, .. } = &update {
                if names_prefix(&entry.value) {
                    let problem = format!("{key} names an interfacePrefix and is not valid: {problem}");
                    return Err(CniError::NotReady { problem });
                }
                tracing::warn!(%key, problem, "not valid: only what of it is sound counts");
            }
            known.apply(update);
        }
        Ok(known.felix_configuration(node))
    }

    pub(super) fn ipam(&self) -> Result<Delegate<'_>, CniError> {
        let folders = (self.var)("CNI_PATH");
        Delegate::find(&self.config.ipam.plugin, folders.as_deref(), self.input)
    }
}

/// Whether a stored FelixConfiguration names a prefix other than the default, as far as it can be read.
fn names_prefix(stored: &[u8]) -> bool {
    let value: Value = serde_json::from_slice(stored).unwrap_or_default();
    let prefix = &value["spec"]["interfacePrefix"];
    !prefix.is_null() && prefix.as_str() != Some("cali")
}

const LOCKED: &str = "ClusterInformation says datastoreReady: false, as during an upgrade; try again later";

/// Whether the datastore may be acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    Unset,
    Locked,
}

fn missing_file(datastore: &DatastoreConfig) -> Option<&Path> {
    match datastore {
        DatastoreConfig::Sqlite { path } if !path.exists() => Some(path),
        DatastoreConfig::Sqlite { .. } | DatastoreConfig::Etcd(_) => None,
    }
}

/// Reads an endpoint; `None` when there is none.
pub(super) async fn stored_endpoint(
    client: &Client,
    identity: &Identity,
) -> Result<Option<Object<WorkloadEndpoint>>, CniError> {
    let found = client.of::<WorkloadEndpoint>().find(&identity.id()).await;
    found.map_err(|error| CniError::datastore(format!("read WorkloadEndpoint({})", identity.id()), error))
}
