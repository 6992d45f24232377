//! `calicoctl schema`: show what a resource of a kind may say.

use anyhow::bail;
use calico_model::manifest;
use calico_model::resource::Kind;
use calico_node::ctl::format::Format;

use crate::outcome::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kind, such as ippool, node, policy or wep; without one, all kinds are listed.
    kind: Option<Kind>,
    /// How to print: json or yaml.
    #[arg(short = 'o', long, default_value = "json", value_name = "FORMAT")]
    output: Format,
}

pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let Some(kind) = args.kind else {
        return Ok(Outcome::text(Kind::ALL.iter().map(|kind| format!("{kind}\n")).collect::<String>()));
    };
    let schema = kind.json_schema();
    match args.output {
        Format::Json => Ok(Outcome::text(format!("{schema:#}\n"))),
        Format::Yaml => Ok(Outcome::text(manifest::to_yaml(&schema))),
        Format::Ps | Format::Wide | Format::Custom(_) | Format::Name => {
            bail!("a schema is printed as json or yaml")
        }
    }
}
