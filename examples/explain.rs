//! May this packet pass, and which rule says so?
//!
//! `cargo run --example explain`

use calico_model::{NodeName, Snapshot, Update, manifest};
use calico_policy::{Packet, Path, Transport, compile, evaluate, simulate};

const RESOURCES: &str = include_str!("resources.yaml");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut snapshot = Snapshot::default();
    for document in manifest::parse(RESOURCES.as_bytes()) {
        snapshot.apply(Update::Put(Box::new(document?.check_input()?)));
    }
    let node: NodeName = "node-1".parse()?;
    let ruleset = compile(&snapshot, &node);
    let (frontend, database, stranger) = ("192.168.0.2", "192.168.0.1", "203.0.113.9");
    let questions = [
        (frontend, "cali2", Transport::tcp(3306)),
        (frontend, "cali2", Transport::tcp(22)),
        (stranger, "eth0", Transport::tcp(3306)),
        (stranger, "cali2", Transport::tcp(3306)),
    ];
    for (source, interface, transport) in questions {
        let path = Path::Forward { from: interface.parse()?, to: "cali1".parse()? };
        let packet = Packet::new(node.clone(), path, source.parse()?, database.parse()?, transport)
            .ok_or("the two addresses are of different families")?;
        let trace = evaluate(&snapshot, &packet);
        println!("{packet}\n{trace}\n");
        assert_eq!(simulate(&ruleset, &packet), trace.outcome, "the compiled rules mean the same");
    }
    Ok(())
}
