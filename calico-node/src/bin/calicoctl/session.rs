//! What every verb that asks the datastore begins with.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use calico_model::datastore::client::Client;
use calico_model::resource::{ClusterInformation, Document, Kind, Object, ObjectId, ResourceKey, Scope};
use calico_model::{Datastore, Name, Namespace, NodeName, Snapshot, Update};
use calico_node::config::DatastoreConfig;
use calico_node::paths::Paths;
use calico_node::stamp;

/// The version that is written into ClusterInformation.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Where the datastore is.
#[derive(Debug, clap::Args)]
pub struct Config {
    /// The configuration file; the environment counts when there is none [default: /etc/calico/calicoctl.cfg].
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

/// An open datastore.
pub struct Session {
    pub store: Arc<dyn Datastore>,
    pub client: Client,
}

impl Config {
    /// Opens the datastore that the file or the environment names.
    pub async fn open(&self) -> anyhow::Result<Session> {
        let paths = Paths::from_env();
        let loaded = DatastoreConfig::load(self.file.as_deref(), |name| std::env::var(name).ok(), &paths)?;
        for warning in &loaded.warnings {
            eprintln!("{warning}");
        }
        let store = calico_node::datastore::open(&loaded.datastore).await?;
        let client = Client::new(Arc::clone(&store), stamp::stamp);
        Ok(Session { store, client })
    }
}

impl Session {
    /// Reads everything that decisions are made from.
    pub async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        for prefix in [Kind::all_prefix(), calico_model::resource::block::all_blocks_prefix()] {
            let listing = self.store.list(&prefix).await?;
            listing.entries.iter().filter_map(Update::from_entry).for_each(|update| snapshot.apply(update));
        }
        Ok(snapshot)
    }

    /// Makes the datastore a cluster's, which every first write does.
    pub async fn initialize(&self) -> anyhow::Result<()> {
        Ok(self.client.ensure_initialized(VERSION, &stamp::uuid().replace('-', "")).await?)
    }

    /// Returns what the cluster says of itself, when it was initialised.
    pub async fn cluster(&self) -> anyhow::Result<Option<Object<ClusterInformation>>> {
        let information = key(Kind::ClusterInformation, ClusterInformation::NAME, None)?;
        Ok(self.client.of::<ClusterInformation>().find(&information.id).await?)
    }

    /// Reports whether agents and plugins were told to leave the datastore alone.
    pub async fn is_locked(&self) -> anyhow::Result<bool> {
        Ok(self.cluster().await?.is_some_and(|cluster| cluster.spec.datastore_ready == Some(false)))
    }
}

/// Returns the node that this host is, as its agent has left it.
pub fn this_node() -> anyhow::Result<NodeName> {
    let file = Paths::from_env().nodename_file();
    let name = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("no agent has run on this host: it would have left {}", file.display())
        }
        read => read.with_context(|| format!("{} cannot be read", file.display()))?,
    };
    name.trim().parse().with_context(|| format!("{} holds no node's name", file.display()))
}

/// Reads a file, or standard input for `-`.
pub fn read_text(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

/// Makes the key of a resource that is named on the command line.
pub fn key(kind: Kind, name: &str, namespace: Option<&Namespace>) -> anyhow::Result<ResourceKey> {
    let name: Name = name.parse()?;
    let namespace = match (kind.scope(), namespace) {
        (Scope::Cluster, None) => None,
        (Scope::Cluster, Some(_)) => bail!("{kind} belongs to the whole cluster: leave out the namespace"),
        (Scope::Namespaced, given) => Some(given.cloned().unwrap_or_else(Namespace::default_namespace)),
    };
    Ok(ResourceKey { kind, id: ObjectId { namespace, name } })
}

/// Puts a document into the namespace that it is meant for: its own, the one given, or `default`.
pub fn place(document: &mut Document, given: Option<&Namespace>) -> anyhow::Result<()> {
    let kind = document.kind();
    let name = document.metadata("name").unwrap_or_default().to_owned();
    match (kind.scope(), given) {
        (Scope::Cluster, None) => {}
        (Scope::Cluster, Some(_)) => {
            bail!("{kind}({name}) belongs to the whole cluster: leave out the namespace")
        }
        (Scope::Namespaced, given) => match (document.metadata("namespace"), given) {
            (Some(own), Some(given)) if own != given.as_str() => {
                bail!("{kind}({name}) says that its namespace is {own}, and the command line says {given}")
            }
            (Some(_), _) => {}
            (None, given) => {
                let namespace = given.cloned().unwrap_or_else(Namespace::default_namespace);
                document.set_metadata("namespace", namespace.as_str());
            }
        },
    }
    Ok(())
}
