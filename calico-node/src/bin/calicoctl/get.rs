//! `calicoctl get`: show resources.

use anyhow::{anyhow, bail};
use calico_model::Namespace;
use calico_model::resource::{Document, Kind, Scope};
use calico_node::ctl::columns::Context;
use calico_node::ctl::events::Events;
use calico_node::ctl::format::{self, Format, Namespaces, Shape};

use crate::batch::{Files, InNamespace, Order};
use crate::outcome::Outcome;
use crate::session::{Config, Session, key};
use crate::watch;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kind of the resources, such as ippool, node, policy or wep.
    #[arg(conflicts_with = "files")]
    kind: Option<Kind>,
    /// The names of the resources; all when there is none.
    #[arg(requires = "kind")]
    names: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// How to print: ps, wide, yaml, json, name or custom-columns=HEADING,...
    #[arg(short = 'o', long, default_value = "ps", value_name = "FORMAT")]
    output: Format,
    /// Show resources of all namespaces.
    #[arg(short = 'A', long, short_alias = 'a', conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Go on showing what is changed, as events: ADDED, MODIFIED and DELETED.
    #[arg(short = 'w', long, requires = "kind")]
    watch: bool,
    /// Leave out what belongs to this cluster alone.
    #[arg(long, conflicts_with = "watch")]
    export: bool,
    #[command(flatten)]
    namespace: InNamespace,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let namespace = args.namespace.namespace.as_ref();
    let mut errors = Vec::new();
    let keys = match (args.kind, args.names.as_slice()) {
        (None, _) if args.files.files.is_empty() => bail!("name a kind, such as ippool, or a file with -f"),
        (None, _) => {
            let (batch, documents) = args.files.read(namespace, Order::Creation)?;
            errors = batch.outcome("read").errors;
            documents.iter().filter_map(Document::key).collect()
        }
        (Some(kind), names) => {
            names.iter().map(|name| key(kind, name, namespace)).collect::<Result<Vec<_>, _>>()?
        }
    };
    let session = args.config.open().await?;
    let shown = args.all_namespaces || namespace.is_some();
    let namespaces = if shown { Namespaces::Shown } else { Namespaces::Hidden };
    let folder = args.kind.map(|kind| folder(kind, namespace, args.all_namespaces)).transpose()?.flatten();
    if let (Some(kind), true) = (args.kind, args.watch) {
        let context = context(&session, &[kind]).await?;
        let events = Events::new(kind, args.output, namespaces, context).map_err(anyhow::Error::msg)?;
        return watch::run(&session.client, watch::Asked { kind, folder, keys }, events).await;
    }
    let (mut documents, shape) = match (args.kind, args.names.as_slice()) {
        (Some(kind), []) => {
            let listed = session.client.list(kind, folder.as_ref()).await?;
            errors.extend(
                listed.corrupt.into_iter().map(|(key, error)| anyhow!("{key} cannot be read: {error}")),
            );
            (listed.items, Shape::AllOf(kind, listed.revision.to_string()))
        }
        (_, names) => {
            let mut documents = Vec::new();
            for key in &keys {
                match session.client.get(key).await {
                    Ok(document) => documents.push(document),
                    Err(error) => errors.push(error.into()),
                }
            }
            let shape = if names.len() == 1 { Shape::Single } else { Shape::Several };
            (documents, shape)
        }
    };
    if args.export {
        documents.iter_mut().for_each(format::strip_for_export);
    }
    let kinds: Vec<Kind> = documents.iter().map(Document::kind).collect();
    let context = context(&session, &kinds).await?;
    if documents.is_empty() && !errors.is_empty() {
        return Ok(Outcome { errors, ..Outcome::default() });
    }
    let text =
        format::render(&documents, &args.output, &shape, namespaces, &context).map_err(anyhow::Error::msg)?;
    Ok(Outcome { text, errors, status: 0 })
}

/// The namespace whose resources of a kind are meant; none when all are, or when the kind has no namespaces.
fn folder(kind: Kind, namespace: Option<&Namespace>, all: bool) -> anyhow::Result<Option<Namespace>> {
    match kind.scope() {
        Scope::Cluster if namespace.is_some() => {
            bail!("{kind} belongs to the whole cluster: leave out the namespace")
        }
        Scope::Namespaced if !all => {
            Ok(Some(namespace.cloned().unwrap_or_else(Namespace::default_namespace)))
        }
        Scope::Cluster | Scope::Namespaced => Ok(None),
    }
}

/// What of the cluster the tables need, asked for only when one does.
async fn context(session: &Session, kinds: &[Kind]) -> anyhow::Result<Context> {
    let mut cluster_as = calico_model::AsNumber::DEFAULT.to_string();
    if kinds.contains(&Kind::Node) {
        let listed = session.client.list(Kind::BgpConfiguration, None).await?;
        let default = listed.items.iter().find(|document| document.metadata("name") == Some("default"));
        if let Some(number) =
            default.and_then(|document| document.value().get("spec")?.get("asNumber").cloned())
        {
            cluster_as = number.as_str().map_or_else(|| number.to_string(), str::to_owned);
        }
    }
    Ok(Context { cluster_as })
}
