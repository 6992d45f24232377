//! `calicoctl convert`: resources of older kinds as today's, without a datastore.

use anyhow::bail;
use calico_model::resource::Document;
use calico_node::ctl::columns::Context;
use calico_node::ctl::format::{self, Format, Namespaces, Shape};

use crate::batch::{Files, InNamespace, Order};
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
    /// Print also what breaks rules of today.
    #[arg(long)]
    ignore_validation: bool,
}

pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    if !matches!(args.output, Format::Yaml | Format::Json) {
        bail!("what is converted is printed as yaml or json");
    }
    let (mut batch, documents) = args.files.read(args.namespace.namespace.as_ref(), Order::Creation)?;
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
