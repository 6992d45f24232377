//! `calicoctl patch`: change some fields of a resource.

use anyhow::{Context, bail};
use calico_model::manifest;
use calico_model::resource::{Document, Kind};
use serde_json::Value;

use crate::batch::{Batch, InNamespace};
use crate::outcome::Outcome;
use crate::session::{Config, key};
use crate::write::may_be_written;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kind of the resource.
    kind: Kind,
    /// The name of the resource.
    name: String,
    /// The fields to change, in YAML or JSON; null removes a field.
    #[arg(short = 'p', long)]
    patch: String,
    /// How the patch is meant: strategic and merge replace lists whole.
    #[arg(short = 't', long = "type", default_value = "strategic")]
    kind_of_patch: PatchKind,
    #[command(flatten)]
    namespace: InNamespace,
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PatchKind {
    Strategic,
    Merge,
    Json,
}

pub async fn run(args: Args) -> anyhow::Result<Outcome> {
    if matches!(args.kind_of_patch, PatchKind::Json) {
        bail!("patches of type json are not supported: write the fields to change, and use -t merge");
    }
    let patch = match manifest::values(args.patch.as_bytes()).pop() {
        Some((_, patch)) => patch.context("the patch is wrong")?,
        None => bail!("the patch is empty"),
    };
    if !patch.is_object() {
        bail!("the patch must be an object, such as {{\"spec\": {{\"disabled\": true}}}}");
    }
    let key = key(args.kind, &args.name, args.namespace.namespace.as_ref())?;
    let session = args.config.open().await?;
    let stored = session.client.get(&key).await?;
    let patched = Document::from_value(merged(stored.value(), &patch))?;
    if patched.key().as_ref() != Some(&key) {
        bail!("a patch cannot change the kind, name or namespace of {key}");
    }
    may_be_written(&patched)?;
    patched.check_input()?;
    session.client.update(&patched).await?;
    let mut batch = Batch::of(args.kind);
    batch.attempt(Ok(()));
    Ok(batch.outcome("patched"))
}

/// Lays a patch over a value as RFC 7386 does: objects field by field, null removes, anything else replaces.
fn merged(value: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut object = value.as_object().cloned().unwrap_or_default();
    for (key, change) in patch {
        if change.is_null() {
            object.remove(key);
        } else {
            let next = merged(object.get(key).unwrap_or(&Value::Null), change);
            object.insert(key.clone(), next);
        }
    }
    Value::Object(object)
}
