//! `calicoctl ipam split`.

use anyhow::{anyhow, bail};
use calico_ipam::split;
use calico_model::datastore::{CommitError, Precondition, Write};
use calico_model::resource::{Document, IpPool, Object, Resource};
use calico_model::{Cidr, Name, Revision};
use calico_node::stamp::stamp;
use serde_json::json;

use crate::outcome::{Outcome, Output};
use crate::session::{Config, Session};

#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false, args = ["cidr", "name"])]
pub struct Args {
    /// Into how many pools: 2, 4, 8, 16, 32 or 64.
    parts: u32,
    /// The pool, by its network.
    #[arg(long)]
    cidr: Option<Cidr>,
    /// The pool, by its name.
    #[arg(long, alias = "pool", value_name = "POOL")]
    name: Option<Name>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    config: Config,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let session = args.config.open().await?;
    if !session.is_locked().await? {
        bail!(
            "the datastore is not locked: run `calicoctl datastore migrate lock` first, so that nobody assigns meanwhile"
        );
    }
    let pool = find(&session, &args).await?;
    let parts = split(&pool, args.parts)?;
    replace(&session, &pool, &parts).await?;
    let name = &pool.metadata.name;
    let text = || {
        let made = parts
            .iter()
            .map(|part| format!("Created {} with CIDR {}.\n", part.metadata.name, part.spec.cidr));
        let made: String = made.collect();
        format!("IP Pool {name} was successfully split into {} smaller pools.\n{made}", args.parts)
    };
    let json = || {
        let made = parts
            .iter()
            .map(|part| json!({"name": part.metadata.name.as_str(), "cidr": part.spec.cidr.to_string()}));
        json!({"split": name.as_str(), "pools": made.collect::<Vec<_>>()})
    };
    Ok(Outcome::text(args.output.of(json, text)))
}

async fn find(session: &Session, args: &Args) -> anyhow::Result<Object<IpPool>> {
    let pools = session.client.of::<IpPool>().list(None).await?.items;
    let is_meant = |pool: &Object<IpPool>| {
        args.name.as_ref() == Some(&pool.metadata.name) || args.cidr == Some(pool.spec.cidr)
    };
    let asked =
        || args.name.as_ref().map_or_else(|| args.cidr.map(|c| c.to_string()), |n| Some(n.to_string()));
    let found = pools.iter().find(|pool| is_meant(pool)).cloned();
    found.ok_or_else(|| {
        let names: Vec<String> =
            pools.iter().map(|pool| format!("{} ({})", pool.metadata.name, pool.spec.cidr)).collect();
        anyhow!("there is no pool {}: the pools are {}", asked().unwrap_or_default(), names.join(", "))
    })
}

/// Writes the parts and deletes the pool, in one commit and with the pool last: on a store that applies in order, the
/// addresses are in a pool at every moment.
async fn replace(session: &Session, pool: &Object<IpPool>, parts: &[Object<IpPool>]) -> anyhow::Result<()> {
    let mut writes = Vec::with_capacity(parts.len() + 1);
    for part in parts {
        let resource: Resource = part.clone().into();
        let mut document = Document::from(&resource);
        let stamp = stamp();
        document.set_metadata("uid", &stamp.uid);
        document.set_metadata("creationTimestamp", &stamp.created);
        let key = resource.key().datastore_key();
        writes.push(Write::put(key, document.stored_form(), Precondition::Absent));
    }
    let revision = pool.metadata.resource_version.as_ref().and_then(|version| version.parse::<u64>().ok());
    let unchanged = revision.map_or(Precondition::Any, |revision| Precondition::At(Revision(revision)));
    let key = Resource::from(pool.clone()).key().datastore_key();
    writes.push(Write::delete(key, unchanged));
    match session.store.commit(writes).await {
        Ok(_) => Ok(()),
        Err(CommitError::Conflict { key, .. }) => {
            bail!("nothing was split: {key} is in the way, or was changed just now")
        }
        Err(error) => Err(error.into()),
    }
}
