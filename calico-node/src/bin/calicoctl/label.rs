//! `calicoctl label`: set or remove a label of a resource.

use anyhow::{anyhow, bail};
use calico_model::datastore::client::ClientError;
use calico_model::resource::{Kind, Resource};
use serde_json::Value;

use crate::batch::InNamespace;
use crate::outcome::Outcome;
use crate::session::{Config, key};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kind of the resource.
    kind: Kind,
    /// The name of the resource.
    name: String,
    /// The label as key=value, or its key alone with --remove.
    label: String,
    /// Change the label when it has another value.
    #[arg(long, conflicts_with = "remove")]
    overwrite: bool,
    /// Remove the label.
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    namespace: InNamespace,
    #[command(flatten)]
    config: Config,
}

/// How often the change is made anew when others write at the same time.
const ATTEMPTS: usize = 16;

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    let change = match (args.remove, args.label.split_once('=')) {
        (false, Some((label, value))) => (label, Some(value)),
        (false, None) => bail!("a label is written key=value; to remove one, add --remove"),
        (true, None) => (args.label.as_str(), None),
        (true, Some((label, _))) => bail!("to remove the label {label}, write its key alone"),
    };
    let key = key(args.kind, &args.name, args.namespace.namespace.as_ref())?;
    let session = args.config.open().await?;
    for _ in 0..ATTEMPTS {
        let mut document = session.client.get(&key).await?;
        let mut resource = document.check()?;
        let done =
            relabel(&mut resource, change, args.overwrite).map_err(|problem| anyhow!("{key} {problem}"))?;
        let labels = &resource.metadata().labels;
        let labels: Value = labels.iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
        document.value_mut()["metadata"]["labels"] = labels;
        document.check()?;
        // Others may write meanwhile; the next attempt sees what they wrote.
        match session.client.update(&document).await {
            Err(ClientError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let (label, value) = change;
                let place = if value.is_some() { "on" } else { "from" };
                let text = format!("Successfully {done} label {label} {place} {} {}\n", key.kind, key.id);
                return Ok(Outcome::text(text));
            }
        }
    }
    Err(ClientError::Conflict { key }.into())
}

fn relabel(
    resource: &mut Resource,
    (label, value): (&str, Option<&str>),
    overwrite: bool,
) -> Result<&'static str, String> {
    let labels = &mut resource.metadata_mut().labels;
    match (labels.get(label), value) {
        (None, None) => return Err(format!("has no label {label}")),
        (Some(_), None) => {
            labels.remove(label);
            return Ok("removed");
        }
        (Some(old), Some(new)) if old != new && !overwrite => {
            return Err(format!("has the label {label}={old} already: add --overwrite to change it"));
        }
        (Some(_), Some(new)) => {
            labels.insert(label, new);
            return Ok("updated");
        }
        (None, Some(new)) => labels.insert(label, new),
    };
    Ok("set")
}
