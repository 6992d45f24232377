//! Tries the reader on a folder of samples that others wrote: what it takes must be taken wholly, and what it refuses
//! must be told clearly.
//!
//! `cargo run --example samples --features yaml -- FOLDER` reads every `.yaml` file of the folder. A resource that is
//! accepted must be the same when it is written, as JSON and as YAML, and read again, and must keep the published schema
//! of its kind. One that is refused must be told by a path or a remedy. Each refusal is printed, and the number of each
//! outcome; the exit status is 1 when something was not as it must be.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use calico_model::manifest::{self, ManifestError};
use calico_model::resource::{Document, Kind, ReadError, Resource, Scope};
use jsonschema::Validator;
use serde_json::Value;

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Accepted,
    /// A text such as `<your-ip>` stands where a value belongs.
    Placeholder,
    /// It breaks a rule.
    Fault,
    /// It is an object of Kubernetes that is no resource.
    Foreign,
    /// The program is wrong.
    Wrong,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(folder) = std::env::args_os().nth(1) else { return Err("name a folder of samples".into()) };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml" || end == "yml"));
    files.sort();
    let mut schemas: BTreeMap<Kind, Validator> = BTreeMap::new();
    for kind in Kind::ALL {
        schemas.insert(*kind, jsonschema::draft202012::new(&kind.json_schema())?);
    }

    let mut counts: BTreeMap<Outcome, usize> = BTreeMap::new();
    for file in &files {
        let text = std::fs::read(file)?;
        let settled = || manifest::parse(&text).iter().map(|read| settle(read, &schemas)).collect::<Vec<_>>();
        let outcomes = catch_unwind(AssertUnwindSafe(settled))
            .unwrap_or_else(|_| vec![(Outcome::Wrong, "the reader panicked".to_owned())]);
        for (outcome, sentence) in outcomes {
            *counts.entry(outcome).or_default() += 1;
            if outcome != Outcome::Accepted {
                println!("{} {outcome:?}: {sentence}", file.file_name().unwrap_or_default().display());
            }
        }
    }
    let count = |outcome| counts.get(&outcome).copied().unwrap_or_default();
    println!(
        "{} files: {} accepted, {} refused for a placeholder, {} refused for a fault, {} of Kubernetes alone, {} wrong",
        files.len(),
        count(Outcome::Accepted),
        count(Outcome::Placeholder),
        count(Outcome::Fault),
        count(Outcome::Foreign),
        count(Outcome::Wrong),
    );
    let sound = count(Outcome::Accepted) > 0 && count(Outcome::Wrong) == 0;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn settle(read: &Result<Document, ManifestError>, schemas: &BTreeMap<Kind, Validator>) -> (Outcome, String) {
    let checked = match read {
        Ok(document) => {
            let placed = placed(document);
            placed.check_input().map(|resource| (placed, resource))
        }
        Err(ManifestError::NotAResource { problem, .. }) => Err(problem.clone()),
        Err(error) => return (Outcome::Fault, error.to_string()),
    };
    match checked {
        Ok((document, resource)) => accepted(&document, &resource, &schemas[&document.kind()]),
        Err(error) => (refused(&error), error.to_string()),
    }
}

/// A resource of a kind that lives in namespaces is in `default` when it names none, as calicoctl has it.
fn placed(document: &Document) -> Document {
    let mut document = document.clone();
    if document.kind().scope() == Scope::Namespaced && document.metadata("namespace").is_none() {
        document.set_metadata("namespace", "default");
    }
    document
}

fn accepted(document: &Document, resource: &Resource, schema: &Validator) -> (Outcome, String) {
    let checks = || -> Result<(), String> {
        let written = Document::from(resource);
        let again = written.check_input().map_err(told("written and read again"))?;
        if again != *resource {
            return Err("is another when it is written and read again".to_owned());
        }
        let yaml = manifest::to_yaml(document.value());
        let read = manifest::parse(yaml.as_bytes());
        if read != [Ok(document.clone())] {
            return Err("is another when it is written as YAML and read again".to_owned());
        }
        for value in [without_nulls(document.value()), written.value().clone()] {
            schema.validate(&value).map_err(told("held against its schema"))?;
        }
        Ok(())
    };
    match checks() {
        Ok(()) => (Outcome::Accepted, String::new()),
        Err(sentence) => (Outcome::Wrong, sentence),
    }
}

fn told<E: Display>(when: &str) -> impl Fn(E) -> String {
    move |error| format!("is refused when it is {when}: {error}")
}

/// Null counts as an absent field.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(object) => object
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Says why a document is refused; a refusal that shows neither a path nor a remedy is wrong itself.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other errors say what to write instead")]
fn refused(error: &ReadError) -> Outcome {
    match error {
        ReadError::Invalid { faults, .. } => {
            let told = |fault: &calico_model::Fault| !fault.path.is_empty() && !fault.rule.is_empty();
            let placeholder = |fault: &calico_model::Fault| {
                fault.value.as_ref().is_some_and(|value| value.contains('<') && value.contains('>'))
            };
            if faults.0.is_empty() || !faults.0.iter().all(told) {
                Outcome::Wrong
            } else if faults.0.iter().all(placeholder) {
                Outcome::Placeholder
            } else {
                Outcome::Fault
            }
        }
        ReadError::UnknownFields { fields, .. } if fields.is_empty() => Outcome::Wrong,
        ReadError::OfKubernetes { .. } => Outcome::Foreign,
        _ => Outcome::Fault,
    }
}
