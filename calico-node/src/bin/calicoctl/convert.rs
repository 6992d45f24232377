//! `calicoctl convert`: resources of older kinds as today's, or today's as older ones, without a datastore.

use anyhow::{anyhow, bail};
use calico_model::resource::{Document, Resource};
use calico_model::{manifest, v1};
use calico_node::ctl::columns::Context;
use calico_node::ctl::format::{self, Format, Namespaces, Shape};

use crate::batch::{Batch, Files, InNamespace, Order};
use crate::outcome::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    namespace: InNamespace,
    /// How to print: yaml or json.
    #[arg(short = 'o', long, default_value = "yaml", value_name = "FORMAT")]
    output: Format,
    /// What to print them as; v1 leaves out what it has no words for.
    #[arg(long, value_enum, default_value = "v3")]
    to: Dialect,
    /// Print also what breaks rules of today.
    #[arg(long, conflicts_with = "to")]
    ignore_validation: bool,
}

/// A way of writing resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Dialect {
    /// That of Calico 1 and 2: `kind: ipPool`.
    V1,
    /// Today's.
    V3,
}

pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    if !matches!(args.output, Format::Yaml | Format::Json) {
        bail!("what is converted is printed as yaml or json");
    }
    let (mut batch, documents) = args.files.read(args.namespace.namespace.as_ref(), Order::Creation)?;
    if args.to == Dialect::V1 {
        return Ok(to_v1(batch, &documents, &args.output));
    }
    let mut converted: Vec<Document> = Vec::new();
    for document in documents {
        let checked = if args.ignore_validation { Ok(()) } else { document.check_input().map(|_| ()) };
        if checked.is_ok() {
            converted.push(document);
        }
        batch.settle(checked.map_err(Into::into));
    }
    let mut outcome = batch.outcome("converted");
    let shape = if converted.len() == 1 { Shape::Single } else { Shape::Several };
    let context = Context { cluster_as: String::new() };
    outcome.text = if converted.is_empty() {
        String::new()
    } else {
        format::render(&converted, &args.output, &shape, Namespaces::Shown, &context)
            .map_err(anyhow::Error::msg)?
    };
    Ok(outcome)
}

fn to_v1(mut batch: Batch, documents: &[Document], output: &Format) -> Outcome {
    let mut shown = Vec::new();
    for document in documents {
        let old = document.check_input().map_err(anyhow::Error::from).and_then(|resource: Resource| {
            v1::from_v3(&resource).ok_or_else(|| anyhow!("{} did not exist in v1", resource.key()))
        });
        batch.settle(old.map(|old| shown.push(old)));
    }
    let mut outcome = batch.outcome("converted");
    let value = if shown.len() == 1 { shown.remove(0) } else { shown.into() };
    let empty = value.as_array().is_some_and(Vec::is_empty);
    outcome.text = match output {
        _ if empty => String::new(),
        Format::Json => format!("{value:#}\n"),
        Format::Yaml | Format::Ps | Format::Wide | Format::Custom(_) | Format::Name => {
            manifest::to_yaml(&value)
        }
    };
    outcome
}
