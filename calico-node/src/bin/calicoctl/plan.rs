//! `calicoctl plan`: what applying or deleting would change. Nothing is written.
//!
//! The change is made in a copy of the datastore in memory, by the code that makes it in the real one. The exit status is 0 when
//! nothing would change, 2 when something would, and 1 after an error.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use calico_model::datastore::client::{Client, ClientError};
use calico_model::datastore::memory::MemoryStore;
use calico_model::datastore::{Precondition, Prefix, Write};
use calico_model::resource::{Document, ResourceKey};
use calico_model::{Datastore, InterfaceName, NodeName, Snapshot};
use calico_node::clock;
use calico_node::ctl::cascade;
use calico_node::ctl::plan::{self, Connections, Fate, Limit, Plan, Verbosity};
use calico_node::paths::Paths;
use calico_node::status::{NodeStatus, Question, ask};
use calico_node::{flows, stamp};
use calico_policy::Flow;
use calico_policy::iptables::{ApplyError, Variant, holding_ours, in_use};
use calico_route::netlink::Netlink;

use crate::batch::{Files, InNamespace, Order};
use crate::outcome::{Outcome, Output};
use crate::session::{Config, Session, read_text, this_node};
use crate::write::may_be_written;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// Plan the deletion of the resources instead.
    #[arg(long)]
    delete: bool,
    /// The node whose kernel is planned for; each when there is none.
    #[arg(long)]
    node: Option<NodeName>,
    /// Live connections: a file that `conntrack -L` wrote on --node, or - for standard input. Otherwise those of this host are looked
    /// at, if its agent runs.
    #[arg(long, value_name = "FILE|-", requires = "node")]
    connections: Option<PathBuf>,
    /// Show every operation of the kernel's plans, in the words of nft, or of the restore programs of iptables and ipset.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// How many lines, names and so on of each list are shown as text; JSON has them all.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// The interface by which nodes reach one another and the outside.
    #[arg(long, default_value = "eth0")]
    uplink: InterfaceName,
    #[command(flatten)]
    namespace: InNamespace,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    config: Config,
}

/// The exit status when something would change.
const CHANGES: u8 = 2;

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let order = if args.delete { Order::Deletion } else { Order::Creation };
    let (batch, documents) = args.files.read(args.namespace.namespace.as_ref(), order)?;
    let mut errors = batch.outcome("read").errors;
    let session = args.config.open().await?;
    let copy = copy(&session).await?;
    copy.initialize().await?;
    let before = copy.snapshot().await?;
    let mut resources = Vec::new();
    for document in documents {
        match change(&session, &copy, document, args.delete).await {
            Ok(fate) => resources.push(fate),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Ok(Outcome { errors, ..Outcome::default() });
    }
    let after = copy.snapshot().await?;
    let comparison = calico_policy::compare(&before, &after, &args.uplink);
    let connections = connections(&args, &before, &after).await?;
    let nodes = nodes(&args, &before, &after)?;
    let here = this_node().ok();
    let own = |node: &NodeName| if here.as_ref() == Some(node) { own_variant().ok().flatten() } else { None };
    let kernel = nodes.iter().map(|node| plan::kernel(&before, &after, node, own(node)));
    let kernel = kernel.filter(|of_node| !of_node.is_empty()).collect();
    let plan = Plan { resources, comparison, kernel, connections };
    let verbosity = if args.verbose { Verbosity::EveryOperation } else { Verbosity::Counts };
    let text = args
        .output
        .of(|| plan::to_json(&plan, verbosity), || plan::render(&plan, Limit(args.limit), verbosity));
    Ok(Outcome { status: if plan.is_empty() { 0 } else { CHANGES }, ..Outcome::text(text) })
}

/// Returns the variant of iptables that the agent of this host has, or begins with; `None` when it has rules in both.
fn own_variant() -> Result<Option<Variant>, ApplyError> {
    // An agent keeps what it has, whatever others have moved to since.
    match holding_ours()?[..] {
        [] => in_use().map(Some),
        [own] => Ok(Some(own)),
        _ => Ok(None),
    }
}

/// Copies the datastore into memory.
async fn copy(session: &Session) -> anyhow::Result<Session> {
    let listing = session.store.list(&Prefix::new("/calico/")?).await?;
    let store: Arc<dyn Datastore> = Arc::new(MemoryStore::new());
    for entry in listing.entries {
        store.commit(vec![Write::put(entry.key, entry.value, Precondition::Any)]).await?;
    }
    let client = Client::new(Arc::clone(&store), stamp::stamp);
    Ok(Session { store, client })
}

/// Makes one change in the copy.
async fn change(
    session: &Session,
    copy: &Session,
    mut document: Document,
    delete: bool,
) -> anyhow::Result<(ResourceKey, Fate)> {
    may_be_written(&document)?;
    if delete {
        let Some(key) = document.key() else {
            document.check()?;
            bail!("it has no name");
        };
        copy.client.get(&key).await?;
        cascade::before_deletion(&copy.client, &key, None, clock::wall()).await?;
        copy.client.delete(&key, None).await?;
        return Ok((key, Fate::Deleted));
    }
    document.check_input()?;
    let key = document.key().context("it has no name")?;
    let was = copy.client.find(&key).await?;
    // The copy counts its revisions itself.
    if let Some(asked) = document.metadata("resourceVersion")
        && was.is_some()
        && session.client.get(&key).await?.metadata("resourceVersion") != Some(asked)
    {
        return Err(ClientError::Conflict { key }.into());
    }
    document.remove_metadata("resourceVersion");
    let is = copy.client.apply(&document).await?;
    let fate = match was {
        None => Fate::Created,
        Some(was) if means_the_same(&was, &is) => Fate::Unchanged,
        Some(_) => Fate::Changed,
    };
    Ok((key, fate))
}

/// Every write has a new revision, whatever it says.
fn means_the_same(was: &Document, is: &Document) -> bool {
    let without_revision = |document: &Document| {
        let mut value = document.value().clone();
        if let Some(metadata) = value.get_mut("metadata").and_then(|metadata| metadata.as_object_mut()) {
            metadata.remove("resourceVersion");
        }
        value
    };
    without_revision(was) == without_revision(is)
}

/// The nodes whose kernels are planned for.
fn nodes(args: &Args, before: &Snapshot, after: &Snapshot) -> anyhow::Result<BTreeSet<NodeName>> {
    let known =
        before.nodes.values().chain(after.nodes.values()).map(|node| node.metadata.name.clone().into());
    let known: BTreeSet<NodeName> = known.collect();
    match &args.node {
        Some(node) if !known.contains(node) => bail!("resource does not exist: Node({node})"),
        Some(node) => Ok(BTreeSet::from([node.clone()])),
        None => Ok(known),
    }
}

/// Looks at live connections: those of a dump, or of this host if its agent runs and no other node is asked about.
async fn connections(
    args: &Args,
    before: &Snapshot,
    after: &Snapshot,
) -> anyhow::Result<Option<Connections>> {
    let (node, flows, own): (NodeName, Vec<Flow>, BTreeSet<IpAddr>) = match (&args.connections, &args.node) {
        (Some(file), Some(node)) => (node.clone(), flows::read_dump(&read_text(file)?)?, BTreeSet::new()),
        (_, asked) => {
            let status: Result<NodeStatus, _> =
                ask(&Paths::from_env().status_socket(), Question::Status).await;
            let Ok(status) = status else { return Ok(None) };
            let node: NodeName = status.node.parse()?;
            if asked.as_ref().is_some_and(|asked| *asked != node) {
                return Ok(None);
            }
            let netlink = Netlink::connect()?;
            let tracked = netlink.connections(|_| true).await.context("live connections cannot be read")?;
            let own = flows::own_addresses().context("the addresses of this host cannot be read")?;
            (node, tracked.iter().filter_map(flows::flow).collect(), own)
        }
    };
    Ok(Some(plan::connections(before, after, &node, &flows, &own)))
}
