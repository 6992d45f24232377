//! Two policies to nft text: what a node's kernel would hold, printed and not applied.
//!
//! `cargo run --example compile`

use calico_model::{NodeName, Snapshot, Update, manifest};
use calico_policy::compile;

const RESOURCES: &str = include_str!("resources.yaml");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut snapshot = Snapshot::default();
    for document in manifest::parse(RESOURCES.as_bytes()) {
        snapshot.apply(Update::Put(Box::new(document?.check_input()?)));
    }
    let node: NodeName = "node-1".parse()?;
    let ruleset = compile(&snapshot, &node);
    print!("{ruleset}");
    eprintln!("{}", ruleset.stats());
    Ok(())
}
